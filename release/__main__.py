"""`python -m release DIRECTORY`: write the bill of materials and the list of licences.

Ends with 1 when a licence is not accepted.
"""

import json
import sys
from pathlib import Path

from app import __version__
from release.bill import bill, installed, licences, pinned, problems

ROOT = Path(__file__).parent.parent


def main(directory: Path) -> int:
    """Write `grantserver.cdx.json` and `licences.txt`; tell what is wrong."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    made = bill(installed(), pinned(lock), version=__version__)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(made, indent=2, sort_keys=True)
    (directory / "grantserver.cdx.json").write_text(f"{text}\n", encoding="utf-8")
    lines = [
        f"{one['name']} {one['version']}: {', '.join(sorted(licences(one))) or 'unknown'}\n"
        for one in made["components"]
    ]
    (directory / "licences.txt").write_text("".join(lines), encoding="utf-8")
    found = problems(made)
    for problem in found:
        sys.stderr.write(f"error: {problem}\n")
    if not found:
        sys.stdout.write(f"{len(lines)} packages, all under licences that are accepted.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
