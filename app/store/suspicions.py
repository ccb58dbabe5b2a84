"""Rows of suspected token theft. The caller holds the transaction."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, exists, insert, select

from app.domain.grants import Redemption
from app.domain.theft import Suspicion
from app.store import grants as grant_rows
from app.store.schema import grants, redemptions, suspicions

MOST: Final = 20
"""Of each grant: whoever has its code must not be able to fill the disk."""


_OF_GRANT: Final = (
    select(suspicions)
    .where(suspicions.c.grant_id == bindparam("of_grant"))
    .order_by(suspicions.c.id)
)


def add(connection: Connection, later: Suspicion) -> Redemption | None:
    """Write a suspicion down, and give who came first: the last redemption of the grant.

    None when there is nothing to write down: the subject has redeemed the grant itself; the same
    subject has been written down from the same peer before; there are as many as are kept; or
    not all of the grant's redemptions are kept any more, so that nobody knows who is known.
    """
    # The grant's row is locked (where rows are), so that two replicas do not both find it new.
    query = select(grants.c.id).where(grants.c.id == later.grant_id).with_for_update()
    if connection.execute(query).first() is None:
        return None
    known = of_grant(connection, later.grant_id)
    if len(known) >= MOST or (later.subject, later.peer) in {(k.subject, k.peer) for k in known}:
        return None
    of_this = redemptions.c.grant_id == later.grant_id
    whole, redeemed = connection.execute(
        select(
            exists().where(of_this, redemptions.c.ordinal == 1),
            exists().where(of_this, redemptions.c.subject == later.subject),
        )
    ).one()
    first = grant_rows.last_redemption(connection, later.grant_id)
    if redeemed or not whole or first is None:
        return None
    connection.execute(
        insert(suspicions).values(
            grant_id=later.grant_id,
            at=later.at,
            name=later.name,
            subject=later.subject,
            peer=later.peer,
        )
    )
    return first


def of_grant(connection: Connection, grant_id: str) -> Sequence[Suspicion]:
    """The suspicions of a grant, the first one first."""
    rows = connection.execute(_OF_GRANT, {"of_grant": grant_id})
    return [
        Suspicion(
            grant_id=row.grant_id, at=row.at, name=row.name, subject=row.subject, peer=row.peer
        )
        for row in rows
    ]


def suspected_grants(connection: Connection) -> frozenset[str]:
    """The ids of all grants of which there is a suspicion."""
    return frozenset(connection.scalars(select(suspicions.c.grant_id).distinct()))
