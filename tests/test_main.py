import subprocess
import sys
from pathlib import Path

from app import __version__


def test_the_module_is_the_same_program_as_the_console_script(tmp_path: Path) -> None:
    for program in (
        [sys.executable, "-m", "app"],
        [str(Path(sys.executable).parent / "grantserver")],
    ):
        ran = subprocess.run(
            [*program, "--version"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout == f"grantserver {__version__}\n"
        assert ran.stderr == ""
