"""What the ops listener says of the whole: are writes taken, how many grants are there."""

from collections.abc import Mapping

from app.domain.grants import State
from app.metrics import Certificate
from app.store import authorities as authority_rows
from app.store import grants as grant_rows
from app.store import health
from app.store.engine import Database


def check_writable(database: Database, now: int) -> None:
    """Write one row durably. Raises Unavailable when the database does not take it."""
    database.check_in_place()
    with database.writing() as connection:
        health.beat(connection, now)


def count_grants(database: Database, now: int) -> Mapping[State, int]:
    """Count the grants in each state. Raises Unavailable."""
    with database.reading() as connection:
        return grant_rows.count_by_state(connection, now)


def authorities_end(database: Database) -> Mapping[Certificate, int | None]:
    """When the server's CA and the first of the site authorities end, in UTC seconds."""
    with database.reading() as connection:
        server = authority_rows.of_server(connection)
        return {
            Certificate.SERVER_CA: None if server is None else server.not_after,
            Certificate.SITE_AUTHORITIES_SOONEST: authority_rows.soonest_expiry(connection),
        }
