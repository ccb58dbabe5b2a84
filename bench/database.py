"""The database of a run: SQLite in its folder, a PostgreSQL of its own, or one that is given."""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping

from sqlalchemy import text

from app.store.engine import Database
from bench.servers import pinned
from tests import postgresql

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
SCHEMES = ("postgresql://", "postgres://")
URL = "GRANTSERVER_DATABASE_URL"


class NoDatabaseError(Exception):
    """There is none to measure on."""


@contextlib.contextmanager
def chosen(wanted: str, cores: set[int]) -> Iterator[Mapping[str, str]]:
    """Give the settings that name the database that is wanted: `sqlite`, `postgresql`, or a URL.

    A PostgreSQL of its own is a cluster with one empty database, which runs on `cores`, commits to
    the disk, and is gone when the block ends. Raises NoDatabaseError when there is none to start,
    or the one that is given is not empty, and Unavailable when that one does not answer.
    """
    if wanted == SQLITE:
        yield {}
        return
    if wanted != POSTGRESQL:
        with contextlib.closing(Database(wanted)) as given:
            if given.revision() is not None:
                raise NoDatabaseError(f"{given.name} is in use already: give an empty one")
        yield {URL: wanted}
        return
    with contextlib.ExitStack() as stack:
        with pinned(cores):
            cluster = stack.enter_context(
                postgresql.running(
                    fsync="on", full_page_writes="on", autovacuum="on", shared_buffers="128MB"
                )
            )
        if cluster is None:
            raise NoDatabaseError(postgresql.ABSENT)
        yield {URL: cluster.create("bench", template="template0")}


def is_postgresql(settings: Mapping[str, str]) -> bool:
    """Tell whether these settings lead to a PostgreSQL."""
    return settings.get(URL, "").startswith(SCHEMES)


def describe(settings: Mapping[str, str]) -> str:
    """Say which database it is, and whether it keeps what was committed. Raises Unavailable."""
    if not is_postgresql(settings):
        return f"SQLite {sqlite3.sqlite_version}"
    with contextlib.closing(Database(settings[URL])) as database, database.reading() as connection:
        version = connection.scalars(text("SHOW server_version")).one()
        durable = connection.scalars(text("SHOW fsync")).one() == "on"
    return f"PostgreSQL {version}" + ("" if durable else ", fsync off: no commit is durable there")
