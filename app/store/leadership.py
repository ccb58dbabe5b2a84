"""Who leads, as the database has it: one number, which whoever begins to lead raises.

The caller holds the transaction. Who may begin is decided elsewhere; here one who led before, and
does not know yet that it is over, is kept from writing.
"""

from typing import Final

from sqlalchemy import Connection, select, update

from app.errors import Broken, Unavailable
from app.store.schema import leadership


def begin(connection: Connection, now: int) -> int:
    """Raise the number, and give it: that of the one who leads from now on.

    It is at least the time, in UTC seconds: so no number comes twice where the database is set
    back to an earlier state.
    """
    term = max(_term(connection) + 1, now)
    connection.execute(update(leadership).values(term=term))
    return term


def is_overtaken(connection: Connection, term: int) -> bool:
    """Tell whether somebody has begun to lead after the one of this number."""
    return _term(connection) > term


def check(connection: Connection, term: int) -> None:
    """Raise Unavailable when somebody has begun to lead after the one of this number.

    Nobody can until the transaction has ended, since there is one at a time that writes. A lower
    number is no reason: the database was set back then, and who leads brings it up to date.
    """
    if is_overtaken(connection, term):
        raise Unavailable("somebody else leads by now")


def _term(connection: Connection) -> int:
    term = connection.scalar(_TERM)
    if term is None:
        raise Broken("the row of the leadership is not there")
    return int(term)


_TERM: Final = select(leadership.c.term).where(leadership.c.id == 1)
