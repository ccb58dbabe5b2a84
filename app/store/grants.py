"""Rows of grants and of their redemptions. The caller holds the transaction.

Spending is not here: the ledger alone does it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from app.domain import policies
from app.domain.grants import Filter, Grant, Redemption, Sort, State
from app.domain.policies import NO_LABELS, Policy
from app.store.schema import authorities, grant_labels, grants, redemptions, sites

Key = tuple[int | str, str]
"""Where a page of grants ends: the value that it is sorted by, and the id, of its last one."""

_FEW: Final = 5_000  # so many are sorted in less time than it takes to look at all
_LAST: Final = "\x7f"  # behind every character of a name


def add(connection: Connection, grant: Grant) -> None:
    """Insert a grant; conflicts when its site has one of this name already."""
    connection.execute(
        _ADD,
        {
            "id": grant.id,
            "site": grant.site,
            "name": grant.name,
            "concealed_code": grant.concealed_code,
            "issuer": grant.issuer,
            "allowed": grant.allowed,
            "spent": grant.spent,
            "cost": grant.cost,
            "created_at": grant.created_at,
            "expires_at": grant.expires_at,
            "revoked_at": grant.revoked_at,
            "policy": policies.written(grant.policy),
            "not_before": grant.not_before,
            "labels": _written(grant.labels),
            "description": grant.description or None,
        },
    )
    if grant.labels:
        _add_labels(connection, grant.id, grant.labels)


def page(
    connection: Connection,
    which: Filter,
    *,
    now: int,
    sort: Sort,
    descending: bool,
    limit: int,
    after: Key | None,
) -> Sequence[Grant]:
    """At most `limit` grants in order, those behind the key of the last one before.

    Equal ones are in the order of their ids. What is asked for is found by an index of the order,
    or by those of site and label, or by those of states where few grants are in that one; so a page
    costs the same however many grants there are. Only a filter by something else that lets few of
    very many through makes it look at all of them.
    """
    column = _ORDERS[sort]
    if _is_rare(connection, which.state, now):
        # No index has this, so the database begins with those that are in the state.
        column = column.concat("") if sort is Sort.NAME else column + 0
    query = _query()
    for condition in _conditions(which, now):
        query = query.where(condition)
    if after is not None:
        value, grant_id = after
        # The first half alone is what an index can begin at.
        if descending:
            query = query.where(column <= value, or_(column < value, grants.c.id < grant_id))
        else:
            query = query.where(column >= value, or_(column > value, grants.c.id > grant_id))
    order = (column.desc(), grants.c.id.desc()) if descending else (column, grants.c.id)
    rows = connection.execute(query.order_by(*order).limit(limit))
    return [_grant(row) for row in rows]


def locked(connection: Connection, grant_id: str) -> Grant | None:
    """The grant of this id, as it stays until the transaction ends."""
    # SQLite knows no locks of rows: there, whoever writes is alone.
    connection.execute(select(grants.c.id).where(grants.c.id == grant_id).with_for_update())
    return by_id(connection, grant_id)


def change(connection: Connection, grant: Grant) -> None:
    """Write what an operator may change of a grant: how often, until when, labels, description."""
    connection.execute(
        update(grants)
        .where(grants.c.id == grant.id)
        .values(
            allowed=grant.allowed,
            expires_at=grant.expires_at,
            labels=_written(grant.labels),
            description=grant.description or None,
        )
    )
    connection.execute(delete(grant_labels).where(grant_labels.c.grant_id == grant.id))
    if grant.labels:
        _add_labels(connection, grant.id, grant.labels)


def change_policy(connection: Connection, grant_id: str, policy: Policy | None) -> None:
    """Write the policy that the resource of a grant asks for now."""
    connection.execute(
        update(grants).where(grants.c.id == grant_id).values(policy=policies.written(policy))
    )


def matching(
    connection: Connection, *, name: str | None = None, site: str | None = None
) -> Sequence[Grant]:
    """Grants by name and site, as far as given; the oldest first."""
    query = _query()
    if name is not None:
        query = query.where(grants.c.name == name)
    if site is not None:
        query = query.where(sites.c.name == site)
    rows = connection.execute(query.order_by(grants.c.created_at, sites.c.name, grants.c.name))
    return [_grant(row) for row in rows]


def by_id(connection: Connection, grant_id: str) -> Grant | None:
    """The grant of this id."""
    row = connection.execute(_BY_ID, {"grant_id": grant_id}).first()
    return None if row is None else _grant(row)


def revoke(connection: Connection, grant_id: str, now: int) -> bool:
    """End a grant from now on; tells whether this call did it (revoked ones stay as they are)."""
    return (
        connection.execute(
            update(grants)
            .where(grants.c.id == grant_id, grants.c.revoked_at.is_(None))
            .values(revoked_at=now)
        ).rowcount
        > 0
    )


def remove(connection: Connection, grant_id: str) -> bool:
    """Delete a grant with its redemptions; tells whether there was one."""
    return connection.execute(delete(grants).where(grants.c.id == grant_id)).rowcount > 0


def redemptions_of(
    connection: Connection, grant_id: str, limit: int | None = None, *, after: int = 0
) -> Sequence[Redemption]:
    """The redemptions of a grant, the first one first; no more than `limit` of them.

    Those up to number `after` are left out.
    """
    rows = connection.execute(
        select(redemptions)
        .where(redemptions.c.grant_id == grant_id, redemptions.c.ordinal > after)
        .order_by(redemptions.c.ordinal)
        .limit(limit)
    )
    return [_redemption(row) for row in rows]


def newest_redemptions(connection: Connection, grant_id: str, limit: int) -> Sequence[Redemption]:
    """The newest `limit` redemptions of a grant, the oldest of them first."""
    rows = connection.execute(
        select(redemptions)
        .where(redemptions.c.grant_id == grant_id)
        .order_by(redemptions.c.ordinal.desc())
        .limit(limit)
    ).all()
    return [_redemption(row) for row in reversed(rows)]


def count_redemptions(connection: Connection, grant_id: str) -> int:
    """How many redemptions of a grant are kept."""
    query = select(func.count()).where(redemptions.c.grant_id == grant_id)
    return int(connection.scalars(query).one())


def last_redemption(connection: Connection, grant_id: str) -> Redemption | None:
    """The newest redemption of a grant."""
    newest = newest_redemptions(connection, grant_id, 1)
    return newest[0] if newest else None


def count_by_state(connection: Connection, now: int) -> Mapping[State, int]:
    """How many grants are in each state; states without grants count 0."""
    state = case(
        (grants.c.revoked_at.is_not(None), State.REVOKED.value),
        (grants.c.spent >= grants.c.allowed, State.USED_UP.value),
        (grants.c.expires_at <= now, State.EXPIRED.value),
        else_=State.ACTIVE.value,
    )
    counted = connection.execute(select(state, func.count()).group_by(state)).all()
    return dict.fromkeys(State, 0) | {State(name): count for name, count in counted}


def _query() -> Select[tuple[object, ...]]:
    return (
        select(grants, sites.c.name.label("site"), authorities.c.name.label("issuer"))
        .join(sites, grants.c.site_id == sites.c.id)
        .outerjoin(authorities, grants.c.issuer_id == authorities.c.id)
    )


# Built once: that takes longer than what the database does with them.
_BY_ID: Final = _query().where(grants.c.id == bindparam("grant_id"))
_ADD: Final = insert(grants).values(
    {
        column.name: bindparam(column.name)
        for column in grants.c
        if column.name not in {"site_id", "issuer_id"}
    }
    | {
        "site_id": select(sites.c.id).where(sites.c.name == bindparam("site")).scalar_subquery(),
        "issuer_id": select(authorities.c.id)
        .where(authorities.c.name == bindparam("issuer"))
        .scalar_subquery(),
    }
)


_ORDERS: Final[Mapping[Sort, ColumnElement[Any]]] = {
    Sort.CREATED_AT: grants.c.created_at,
    Sort.NAME: grants.c.name,
    Sort.EXPIRES_AT: grants.c.expires_at,
}


def _is_rare(connection: Connection, state: State | None, now: int) -> bool:
    """Tell whether few grants can be in a state, as an index knows it."""
    match state:
        case State.ACTIVE:
            query = select(grants.c.expires_at).where(grants.c.expires_at > now)
        case State.REVOKED:
            query = select(grants.c.revoked_at).where(grants.c.revoked_at.is_not(None))
        case _:
            return False
    return connection.execute(query.offset(_FEW).limit(1)).first() is None


def _conditions(which: Filter, now: int) -> Iterator[ColumnElement[bool]]:
    if which.sites is not None:
        # By number, which the index of a site's grants begins with.
        named = select(sites.c.id).where(sites.c.name.in_(sorted(which.sites)))
        one = len(which.sites) == 1
        yield grants.c.site_id == named.scalar_subquery() if one else grants.c.site_id.in_(named)
    if which.name_prefix:
        yield grants.c.name >= which.name_prefix
        yield grants.c.name < which.name_prefix + _LAST
    if which.label is not None:
        label, value = which.label
        yield grants.c.id.in_(
            select(grant_labels.c.grant_id).where(
                grant_labels.c.label == label, grant_labels.c.value == value
            )
        )
    match which.state:
        case State.REVOKED:
            yield grants.c.revoked_at.is_not(None)
        case State.USED_UP:
            yield grants.c.revoked_at.is_(None)
            yield grants.c.spent >= grants.c.allowed
        case State.EXPIRED:
            yield grants.c.revoked_at.is_(None)
            yield grants.c.spent < grants.c.allowed
            yield grants.c.expires_at <= now
        case State.ACTIVE:
            yield grants.c.revoked_at.is_(None)
            yield grants.c.spent < grants.c.allowed
            yield grants.c.expires_at > now
        case None:
            pass


def _add_labels(connection: Connection, grant_id: str, labels: Mapping[str, str]) -> None:
    connection.execute(
        insert(grant_labels),
        [
            {"label": label, "value": value, "grant_id": grant_id}
            for label, value in sorted(labels.items())
        ],
    )


def _written(labels: Mapping[str, str]) -> str | None:
    return json.dumps(dict(labels), sort_keys=True, separators=(",", ":")) if labels else None


def _grant(row: Row[tuple[object, ...]]) -> Grant:
    return Grant(
        id=row.id,
        name=row.name,
        site=row.site,
        concealed_code=row.concealed_code,
        allowed=row.allowed,
        spent=row.spent,
        cost=row.cost,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        issuer=row.issuer,
        policy=None if row.policy is None else policies.read(row.policy),
        not_before=row.not_before,
        labels=NO_LABELS if row.labels is None else json.loads(row.labels),
        description=row.description or "",
    )


def _redemption(row: Row[tuple[object, ...]]) -> Redemption:
    return Redemption(
        grant_id=row.grant_id,
        ordinal=row.ordinal,
        name=row.name,
        subject=row.subject,
        peer=row.peer,
        serial=row.serial,
        fingerprint=row.fingerprint,
        not_after=row.not_after,
        redeemed_at=row.redeemed_at,
        revoked_at=row.revoked_at,
        issuer_id=row.issuer_id,
    )
