"""How points in time are written for people and in resources, and how people write them."""

from datetime import UTC, datetime

from app.domain.durations import SECOND, parse_duration
from app.errors import Invalid


def rfc3339(seconds: int) -> str:
    """Write UTC seconds as `2026-11-22T08:00:00Z` (RFC 3339), the year 9999 at most."""
    latest = 253402300799  # 9999-12-31T23:59:59Z, the last that the format can say
    return datetime.fromtimestamp(min(seconds, latest), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_moment(text: str, *, now: int, field: str) -> int:
    """Read a point in time: as RFC 3339 has it, or how long ago it was (`90m`); in UTC seconds.

    A time without a zone is refused: it would be another one on another machine.
    Raises Invalid(field, …), saying what is allowed.
    """
    try:
        return now - parse_duration(text) // SECOND
    except Invalid:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        shown = text[:40].encode("unicode_escape").decode("ascii")
        raise Invalid(
            field,
            f'"{shown}" is neither a time such as {rfc3339(now)} nor how long ago, such as 2h',
        )
    return int(moment.timestamp())


def parse_rfc3339(text: str) -> int | None:
    """Read a time as UTC seconds, 1 or more; without an offset it would be anybody's time.

    None for what is none. Fractions of a second are cut off.
    """
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            return None
        seconds = int(found.timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds if seconds >= 1 else None
