"""The audit log, for reading."""

from collections.abc import Sequence

from app.domain.audit import Entry
from app.store import audit as audit_rows
from app.store.engine import Database


def latest(database: Database, *, limit: int, target: str | None = None) -> Sequence[Entry]:
    """The newest `limit` entries, the oldest of them first; of one `target`, if given."""
    with database.reading() as connection:
        return audit_rows.latest(connection, limit, target)
