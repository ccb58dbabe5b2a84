"""How a command ends: the exit code of every error, and what standard error says of it.

0   done
1   refused or failed: the same command will not fare better
2   wrong usage: an argument, an option or a setting has to be mended first
3   not ready yet: the same command may succeed later
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from app.errors import (
    Broken,
    Conflict,
    Forbidden,
    GrantServerError,
    Invalid,
    Misconfigured,
    Missing,
    Refused,
    Stale,
    Unauthenticated,
    Unavailable,
    Unready,
)

_LONGEST_LINE: Final = 1000


class Exit(IntEnum):
    """The exit codes. Scripts depend on them: they are never given another meaning."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_YET = 3


CODES: Final[Mapping[type[GrantServerError], Exit]] = {
    Refused: Exit.FAILED,
    Invalid: Exit.USAGE,
    Missing: Exit.FAILED,
    Conflict: Exit.FAILED,
    Stale: Exit.FAILED,
    Unauthenticated: Exit.FAILED,
    Forbidden: Exit.FAILED,
    Unready: Exit.NOT_YET,
    Unavailable: Exit.NOT_YET,
    Misconfigured: Exit.USAGE,
    Broken: Exit.FAILED,
}
_WHERE_TO_LOOK: Final[Mapping[str, str]] = {
    "site": "`grantserver site list` shows what there is",
    "grant": "`grantserver grant list` shows what there is",
    "admin token": "`grantserver admin-token list` shows what there is",
    "authority": "`grantserver ca list` shows what there is",
    "webhook": "`grantserver webhook list` shows what there is",
    "dead delivery": "`grantserver webhook dead NAME` shows what there is",
}


def code(error: GrantServerError) -> Exit:
    """Give the exit code of an error: that of its class, or of the nearest class above."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def problems(error: GrantServerError) -> list[str]:
    """Put an error into words for a person: one line per problem, with what to do about it."""
    match error:
        case Invalid(field=field, why=why):
            lines = [f"{field}: {line}" for line in why.splitlines()]
        case Missing(kind=kind):
            where = _WHERE_TO_LOOK.get(kind)
            lines = [f"{error}: {where}" if where else str(error)]
        case Broken():
            lines = [f"{error}: this is a fault in the program or its data, please report it"]
        case Unavailable() | Unready():
            lines = [f"{error}; trying again may help"]
        case _:
            lines = str(error).splitlines()
    return [one_line(line) for line in lines]


def one_line(text: str) -> str:
    """Make a text safe for a terminal: no control characters, and not endless."""
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text[:_LONGEST_LINE]
    )
    return shown + ("…" if len(text) > _LONGEST_LINE else "")
