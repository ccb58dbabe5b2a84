"""How points in time are written for people and in resources."""

from datetime import UTC, datetime


def rfc3339(seconds: int) -> str:
    """Write UTC seconds as `2026-11-22T08:00:00Z` (RFC 3339), the year 9999 at most."""
    latest = 253402300799  # 9999-12-31T23:59:59Z, the last that the format can say
    return datetime.fromtimestamp(min(seconds, latest), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
