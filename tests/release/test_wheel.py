"""The same source gives the same wheel, wherever and whenever it is built."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NEEDED = ("app", "migrations", "pyproject.toml", "README.md", "LICENSE")


def built(directory: Path, *, mtime: int, umask: int) -> Path:
    """Build it of a copy of the tree, made at some time by somebody."""
    source = directory / "source"
    before = os.umask(umask)
    try:
        for name in NEEDED:
            there = ROOT / name
            if there.is_dir():
                shutil.copytree(there, source / name, copy_function=shutil.copyfile)
            else:
                source.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(there, source / name)
        for path in source.rglob("*"):
            os.utime(path, (mtime, mtime))
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory / "dist"],
            cwd=source,
            env={"PATH": "/usr/bin:/bin", "SOURCE_DATE_EPOCH": "1700000000"},
            check=True,
            capture_output=True,
            timeout=120,
        )
    finally:
        os.umask(before)
    (wheel,) = (directory / "dist").iterdir()
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [
        built(tmp_path_factory.mktemp("one"), mtime=1_000_000_000, umask=0o022),
        built(tmp_path_factory.mktemp("another"), mtime=1_600_000_000, umask=0o027),
    ]


def test_two_builds_are_the_same_to_the_byte(wheels: list[Path]) -> None:
    digests = {hashlib.sha256(one.read_bytes()).hexdigest() for one in wheels}
    assert len(digests) == 1


def test_in_a_wheel_is_the_program_and_nothing_else(wheels: list[Path]) -> None:
    names = zipfile.ZipFile(wheels[0]).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "app",
        "migrations",
        "grantserver",
    }
    assert "app/py.typed" in names
    assert "migrations/versions/0001_first_tables.py" in names
    assert not [name for name in names if "__pycache__" in name or "test" in name]
