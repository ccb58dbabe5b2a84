"""The one question that every process asks all the time: has anything changed that is served."""

from sqlalchemy import Connection, func, select

from app.domain.authorities import Purpose
from app.store.schema import addresses, authorities, server_certificates

_NEWEST = select(func.max(server_certificates.c.id)).scalar_subquery()
# One that is written again, with another chain, may get the number that it had.
_WRITTEN = select(func.max(server_certificates.c.created_at)).scalar_subquery()
# Some rows of tables that hold few: the addresses once for each generation of our own CA.
_ALL = (
    select(
        addresses.c.url,
        addresses.c.hosts,
        addresses.c.problem,
        _NEWEST,
        _WRITTEN,
        authorities.c.id,
        authorities.c.state,
    )
    .select_from(addresses.outerjoin(authorities, authorities.c.purpose == Purpose.SERVER.value))
    .order_by(authorities.c.id)
)


def mark(connection: Connection) -> object:
    """Give something that is equal to what it was as long as there is nothing new to be served.

    Addresses, generations of our own CA and certificates of the listener count; what has come of
    age does not change it.
    """
    return tuple(tuple(row) for row in connection.execute(_ALL))
