"""Ask a source of advisories about what is pinned: `audit.py PIP-AUDIT LOCK...`.

Ends with 0 where nothing is known, 1 where something is, and 3 where nobody could be asked, which
says nothing about what is pinned. It needs nothing but the standard library and pip-audit.
"""

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

NOBODY_TO_ASK: Final = 3
# Strict: what is not known to the source is no good news.
_OPTIONS: Final = ("--strict", "--require-hashes", "--disable-pip", "--progress-spinner", "off")
_UNREACHABLE: Final = (
    "ConnectionError",
    "ConnectionRefused",
    "ConnectTimeout",
    "Max retries exceeded",
    "Name or service not known",
    "ProxyError",
    "ServiceError",
    "Temporary failure in name resolution",
    "VulnServiceException",
    "connection error",
    "could not be audited",
    "failed to connect",
)


def main(tool: str, locks: Sequence[str]) -> int:
    """Audit each lock; tell the worst that came of it."""
    worst = 0
    for lock in locks:
        done = subprocess.run(
            [tool, *_OPTIONS, "-r", lock],
            check=False,
            capture_output=True,
            text=True,
        )
        print(done.stdout, end="")
        told = done.stderr.strip().splitlines()
        if done.returncode == 0:
            print(f"{lock}: {told[-1] if told else 'nothing is known'}")
        elif any(sign in done.stderr for sign in _UNREACHABLE):
            print(f"{lock}: no source of advisories could be asked from here", file=sys.stderr)
            worst = worst or NOBODY_TO_ASK
        else:
            print(done.stderr, file=sys.stderr)
            worst = 1
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
