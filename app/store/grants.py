"""Rows of grants and of their redemptions. The caller holds the transaction.

Spending is not here: the ledger alone does it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)

from app.domain.grants import Grant, Redemption, State
from app.store.schema import authorities, grants, redemptions, sites


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
        },
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
    connection: Connection, grant_id: str, limit: int | None = None
) -> Sequence[Redemption]:
    """The redemptions of a grant, the first one first; no more than `limit` of them."""
    rows = connection.execute(
        select(redemptions)
        .where(redemptions.c.grant_id == grant_id)
        .order_by(redemptions.c.ordinal)
        .limit(limit)
    )
    return [_redemption(row) for row in rows]


def last_redemption(connection: Connection, grant_id: str) -> Redemption | None:
    """The newest redemption of a grant."""
    row = connection.execute(
        select(redemptions)
        .where(redemptions.c.grant_id == grant_id)
        .order_by(redemptions.c.ordinal.desc())
        .limit(1)
    ).first()
    return None if row is None else _redemption(row)


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
