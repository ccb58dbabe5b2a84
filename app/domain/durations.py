"""Go durations (`25m`, `1h30m`, `1.5h`, `90s`), as AccessGrants and settings write them.

The grammar is that of Go's `time.ParseDuration`, because users move these texts between us and
Skupper: an optional sign, then one or more decimal numbers, each with an optional fraction and a
unit of `ns`, `us` (or `µs`, `μs`), `ms`, `s`, `m`, `h`; a bare `0` needs no unit. There is no day.
"""

import re
from fractions import Fraction

from app.errors import Invalid

NANOSECOND = 1
MICROSECOND = 1000 * NANOSECOND
MILLISECOND = 1000 * MICROSECOND
SECOND = 1000 * MILLISECOND
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

_UNITS = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "\u00b5s": MICROSECOND,  # micro sign
    "\u03bcs": MICROSECOND,  # Greek letter mu
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
# Only ASCII digits: `\d` would let other scripts' digits through.
_PART = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_LONGEST = 2**63 - 1  # a Go duration is a signed 64-bit count of nanoseconds: about 292 years
_LONGEST_TEXT = 256  # nobody writes more; bounds the arithmetic on hostile input

ALLOWED = "a Go duration such as 90s, 25m, 1h30m or 1.5h (units ns, us, ms, s, m, h)"


def parse_duration(text: str) -> int:
    """Read a Go duration; the answer is in nanoseconds and may be zero or negative.

    Fractions finer than a nanosecond are cut off, as Go does.
    Raises Invalid("duration", …), saying what is allowed, for anything else.
    """
    refusal = Invalid("duration", f"{_quoted(text)} is not {ALLOWED}")
    if len(text) > _LONGEST_TEXT:
        raise refusal
    unsigned = text[1:] if text[:1] in {"+", "-"} else text
    if unsigned == "0":
        return 0
    total, position = 0, 0
    while position < len(unsigned):
        part = _PART.match(unsigned, position)
        if part is None or not (part[1] or part[3]):
            raise refusal
        unit = _UNITS[part[4]]
        total += int(part[1] or 0) * unit
        if part[3]:
            total += int(Fraction(int(part[3]), 10 ** len(part[3])) * unit)
        position = part.end()
    negative = text[:1] == "-"
    if position == 0 or total > _LONGEST + negative:
        raise refusal
    return -total if negative else total


def parse_window(text: str, *, field: str = "window") -> int:
    """Read how long a grant lasts; the answer is in whole seconds, at least 1.

    Any positive Go duration is taken; a fraction of a second counts as a whole one, because
    stored times are whole seconds and a grant must never end before it was asked to.
    Raises Invalid(field, …), saying what is allowed, otherwise.
    """
    try:
        nanoseconds = parse_duration(text)
    except Invalid as error:
        raise Invalid(field, error.why) from error
    if nanoseconds <= 0:
        raise Invalid(field, f"{_quoted(text)} is not above zero; expected {ALLOWED}")
    return -(-nanoseconds // SECOND)


def format_seconds(seconds: int) -> str:
    """Write whole seconds as the shortest Go duration: 5400 becomes `1h30m`, 0 becomes `0s`."""
    if seconds == 0:
        return "0s"
    sign, rest = ("-", -seconds) if seconds < 0 else ("", seconds)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return sign + "".join(f"{count}{unit}" for count, unit in parts if count)


def _quoted(text: str) -> str:
    return '"' + text[:40].encode("unicode_escape").decode("ascii") + '"'
