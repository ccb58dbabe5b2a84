"""One instance of every class in the error tree, for tests of tables that must be total."""

from collections.abc import Iterator

from app import errors
from app.errors import GrantServerError

_EXAMPLES: dict[type[GrantServerError], GrantServerError] = {
    errors.Refused: errors.Refused(errors.Reason.EXPIRED),
    errors.Invalid: errors.Invalid("window", "expected a duration"),
    errors.Missing: errors.Missing("grant", "west"),
    errors.Conflict: errors.Conflict("there is one already"),
    errors.Stale: errors.Stale("the grant has changed"),
    errors.Unauthenticated: errors.Unauthenticated("the token has ended"),
    errors.Forbidden: errors.Forbidden("may not create grants of west"),
    errors.Unready: errors.Unready(errors.Lack.ENDPOINTS, "no endpoints"),
    errors.Unavailable: errors.Unavailable("the disk is full"),
    errors.Misconfigured: errors.Misconfigured(["GRANTSERVER_X: is not known"]),
    errors.Broken: errors.Broken("the ledger failed"),
}


def tree() -> Iterator[type[GrantServerError]]:
    """Every class below GrantServerError, at any depth."""
    waiting = list(GrantServerError.__subclasses__())
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        yield found


def one_of_each() -> Iterator[GrantServerError]:
    """An example of each class; a KeyError here means that a new class needs one."""
    for found in tree():
        yield _EXAMPLES[found]
