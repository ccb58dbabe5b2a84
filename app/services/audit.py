"""The audit log, for reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.domain.audit import Act, Entry
from app.domain.times import rfc3339
from app.errors import Invalid
from app.store import audit as audit_rows
from app.store.audit import Filter
from app.store.engine import Database

_ACTS: Final = frozenset(act.value for act in Act)
_NOUNS: Final = frozenset(act.partition(".")[0] for act in _ACTS)


def latest(
    database: Database,
    *,
    limit: int,
    target: str | None = None,
    act: str | None = None,
    actor: str | None = None,
    since: int | None = None,
    until: int | None = None,
) -> Sequence[Entry]:
    """The newest `limit` entries for which all that is given holds, the oldest of them first.

    `act` is a whole act (`grant.redeemed`) or its noun (`grant`); `actor` a whole actor, or with a
    colon at its end the kind of one (`cli:`); `since` and `until` are UTC seconds, both inclusive.
    Raises Invalid naming the field of what no entry can have.
    """
    wanted = _wanted(Filter(target=target, act=act, actor=actor, since=since, until=until))
    with database.reading() as connection:
        return audit_rows.latest(connection, limit, wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some entries with their numbers, the newest first; `next` is None when these are the last."""

    entries: Sequence[tuple[int, Entry]]
    next: int | None


def page(database: Database, wanted: Filter, *, limit: int, before: int | None = None) -> Page:
    """At most `limit` entries for which all that is wanted holds, the newest first.

    `before` is the `next` of the page before. Raises Invalid as `latest` does.
    """
    _wanted(wanted)
    with database.reading() as connection:
        found = audit_rows.page(connection, limit + 1, wanted, before=before)
    if len(found) <= limit:
        return Page(entries=found, next=None)
    return Page(entries=found[:limit], next=found[limit - 1][0])


def _wanted(wanted: Filter) -> Filter:
    """Raise Invalid naming the field of what no entry can have."""
    act, since, until = wanted.act, wanted.since, wanted.until
    if act is not None and act not in _ACTS | _NOUNS:
        known = ", ".join(sorted(_ACTS | _NOUNS))
        raise Invalid("act", f'there is no "{act[:40]}"; expected one of {known}')
    if since is not None and until is not None and since > until:
        raise Invalid("until", f"is before since, which is {rfc3339(since)}")
    return wanted
