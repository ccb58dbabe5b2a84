import subprocess
import sys
from pathlib import Path

from bench.admin import LISTS
from bench.servers import ROOT, clean_environment


def test_a_short_run_measures_every_list_and_creations(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.admin", "--grants", "300", "--times", "3"),
            *("--dir", str(tmp_path)),
        ],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    for title in (*LISTS, "create"):
        assert any(line.startswith(title) for line in done.stdout.splitlines()), done.stderr
    assert "answers were not as expected" not in done.stderr
