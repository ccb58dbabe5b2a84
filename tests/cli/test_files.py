import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from app.cli.files import LONGEST_INPUT_BYTES, PUBLIC, check_free, new_file, read_input
from app.errors import Conflict, Invalid, Missing, Unavailable


def write(path: Path, content: bytes = b"new", *, force: bool = False, **options: Any) -> None:
    with new_file(path, force=force, **options) as file:
        file.write(content)


def test_a_new_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write(tmp_path / "x")
        write(tmp_path / "y", mode=PUBLIC)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "y").stat().st_mode) == 0o644
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_file_that_is_there_stays_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with pytest.raises(Conflict, match="--force"):
        write(path)
    assert path.read_bytes() == b"old"
    write(path, force=True)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_through_a_symbolic_link(tmp_path: Path, *, force: bool) -> None:
    for target in ("there", "not-there"):
        (tmp_path / "there").write_bytes(b"old")
        link = tmp_path / f"to-{target}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(Conflict, match="no regular file"):
            write(link, force=force)
        assert (tmp_path / "there").read_bytes() == b"old"
        assert not (tmp_path / "not-there").exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_is_never_replaced(tmp_path: Path, *, force: bool) -> None:
    with pytest.raises(Conflict):
        write(tmp_path, force=force)


def test_a_block_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    def fail() -> None:
        with new_file(tmp_path / "x", force=False) as file:
            file.write(b"half")
            raise Missing("site", "x")

    with pytest.raises(Missing):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def write_late() -> None:
        with new_file(path, force=False) as file:
            file.write(b"new")
            path.write_bytes(b"theirs")

    with pytest.raises(Conflict):
        write_late()
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_at_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    link = os.link

    def late(source: str, target: Path) -> None:
        path.write_bytes(b"theirs")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(Conflict):
        write(path)
    assert path.read_bytes() == b"theirs"


def test_a_file_system_without_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 1


def test_where_nothing_can_be_written_the_block_is_never_entered(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="No such file"), new_file(tmp_path / "a/b", force=False):
        pytest.fail("entered")
    (tmp_path / "file").touch()
    with (
        pytest.raises(Invalid, match="Not a directory"),
        new_file(tmp_path / "file/b", force=False),
    ):
        pytest.fail("entered")


def test_a_full_disk_is_no_fault_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space"):
        write(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_free_place_is_free(tmp_path: Path) -> None:
    check_free(tmp_path / "x", force=False)


def test_input_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * LONGEST_INPUT_BYTES)
    assert len(read_input(str(path), what="token")) == LONGEST_INPUT_BYTES
    path.write_bytes(b"x" * (LONGEST_INPUT_BYTES + 1))
    with pytest.raises(Invalid, match=r"token: .* is longer"):
        read_input(str(path), what="token")


@pytest.mark.parametrize("name", ["missing", "."])
def test_input_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        read_input(str(tmp_path / name), what="key")
