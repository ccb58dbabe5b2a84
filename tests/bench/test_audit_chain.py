import subprocess
import sys
from pathlib import Path

from bench.audit_chain import SEALED, UNSEALED
from bench.servers import ROOT, clean_environment


def test_a_short_run_measures_a_server_that_seals_beside_one_that_does_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.audit_chain", "--seconds", "0.3", "--slices", "1"),
            *("--concurrency", "4", "--dir", str(tmp_path)),
        ],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    for title in (SEALED, UNSEALED):
        assert any(line.startswith(title) for line in done.stdout.splitlines()), done.stderr
    assert "rate that sealing takes" in done.stdout
    # In so short a time the ratios are anything; answers and databases agree all the same.
    assert not set(done.stderr.splitlines()) - {
        "failed: rate that sealing takes",
        "failed: CPU time that sealing adds",
    }
