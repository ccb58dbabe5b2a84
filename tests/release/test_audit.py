"""What an audit that could not be made says is not that all is well."""

import sys
from pathlib import Path

import pytest

from release.audit import NOBODY_TO_ASK, main

CASES = [
    ("print('fine', file=sys.stderr)", 0),
    ("print('left-pad 1.0 GHSA-1'); print('Found 1', file=sys.stderr); sys.exit(1)", 1),
    ("print('ConnectionError: no', file=sys.stderr); sys.exit(1)", NOBODY_TO_ASK),
    ("print('x: could not be audited', file=sys.stderr); sys.exit(1)", NOBODY_TO_ASK),
]


def a_tool(directory: Path, does: str) -> str:
    path = directory / "tool"
    path.write_text(f"#!{sys.executable}\nimport sys\n{does}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(("does", "expected"), CASES)
def test_the_end_says_what_came_of_it(
    tmp_path: Path, does: str, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(a_tool(tmp_path, does), ["requirements.lock"]) == expected
    told = capsys.readouterr()
    assert ("no source of advisories" in told.err) is (expected == NOBODY_TO_ASK)


def test_a_finding_counts_more_than_a_source_that_is_away(tmp_path: Path) -> None:
    does = (
        "one = sys.argv[-1] == 'one.lock'\n"
        "print('ConnectionError' if one else 'Found 1', file=sys.stderr); sys.exit(1)"
    )
    assert main(a_tool(tmp_path, does), ["one.lock", "two.lock"]) == 1
    assert main(a_tool(tmp_path, does), ["two.lock", "one.lock"]) == 1
