import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import run
from bench.promises import BARE, INCUMBENT, SHARED, SINGLE, several
from bench.servers import ROOT, clean_environment


def test_a_database_is_one_of_three() -> None:
    for text in ("sqlite", "postgresql", "postgresql://u@h/d", "postgres://u@h/d"):
        assert run.database_name(text) == text
    for text in ("mysql://u@h/d", "", "postgres"):
        with pytest.raises(argparse.ArgumentTypeError, match="postgresql://"):
            run.database_name(text)


def bench(
    installation: Mapping[str, str], directory: Path, *further: str
) -> tuple["subprocess.CompletedProcess[str]", dict[str, Any]]:
    """Run a short one; the second value is all that it has written down."""
    written = directory / "bench.json"
    done = subprocess.run(
        [
            *(sys.executable, "bench/run.py", "--seconds", "0.3", "--slices", "1"),
            *("--concurrency", "4", "--dir", str(directory), "--json", str(written)),
            *("--database", installation.get("GRANTSERVER_DATABASE_URL", "sqlite"), *further),
        ],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return done, json.loads(written.read_text()) if written.exists() else {}


@pytest.mark.timeout(300)
def test_a_short_run_measures_all_contenders_and_answers_agree_with_the_database(
    installation: Mapping[str, str], tmp_path: Path
) -> None:
    done, facts = bench(installation, tmp_path, "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(facts["contenders"]) == {BARE, INCUMBENT, SINGLE, SHARED, several(2)}
    counted = facts["consistency"]
    assert counted["answered"] == counted["rows"] == counted["spent"] > 0
    on_postgresql = "GRANTSERVER_DATABASE_URL" in installation
    assert facts["machine"]["database"].startswith("PostgreSQL" if on_postgresql else "SQLite")
    first, *_, last = facts["targets"]
    assert first["target"] == (0.5 if on_postgresql else 0.55)
    assert last["target"] == 1.7
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
