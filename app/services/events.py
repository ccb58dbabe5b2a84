"""Events, for whoever follows them: a portal that was away goes on where it stopped."""

from collections.abc import Sequence

from app.domain.events import Event
from app.store import events as rows
from app.store.engine import Database


def newest(database: Database) -> int:
    """The position up to which everything is known now: to begin there is to be told what is new.

    Raises Unavailable.
    """
    with database.reading() as connection:
        return rows.newest(connection)


def after(
    database: Database, position: int, limit: int, sites: frozenset[str] | None
) -> Sequence[Event]:
    """The first `limit` events behind `position`, in order: of some sites, None: of every site.

    An entry of the audit log gets its position about a second after its act. Whoever is given
    fewer than `limit` has seen all that `newest` told of before, and can go on from there: few
    events of some sites lie far apart, and nobody has to look at those between them again.
    An event whose grant is no more belongs to no site. Raises Unavailable.
    """
    with database.reading() as connection:
        return rows.after(connection, position, limit=limit, wanted=sites)
