"""Clock and randomness: the only door to both, so that everything else takes them as values."""

import secrets
import time


def utc_now() -> int:
    """Read the present, in whole seconds since 1970 in UTC: the unit of every stored time."""
    return int(time.time())


def utc_instant() -> float:
    """Read the present with its fraction of a second, for the time of a log line only."""
    return time.time()


def monotonic() -> float:
    """Read a clock that never jumps, in seconds; for measuring durations only."""
    return time.monotonic()


def random_bytes(count: int) -> bytes:
    """Draw `count` bytes that nobody can predict."""
    return secrets.token_bytes(count)
