"""The ledger: the redemption path's door to the database, as a port with two implementations.

It finds the grant of a claim, and spends redemptions, each at most once. Whoever asks is on the
event loop; how a database is spoken to without holding the loop up is each implementation's art.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Select, func, select

from app.domain import policies
from app.domain.audit import Act, Entry
from app.domain.grants import Grant, Redemption
from app.errors import Reason, Refused
from app.store.schema import authorities, grants, sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A grant with what leads to its site's endpoints and to the authority that signs."""

    grant: Grant
    site_id: int
    site_revision: int
    issuer_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer that was given before, still sealed, and which redemption of its grant it was."""

    sealed: bytes = field(repr=False)
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How an answer is kept for a claim that comes again.

    `claim_key` are 16 bytes that two claims have in common when one repeats the other; `until`
    are UTC seconds, exclusive.
    """

    claim_key: bytes = field(repr=False)
    sealed: bytes = field(repr=False)
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """A redemption that is wanted, and its answer where answers are kept.

    `per_subject` is how often its subject may redeem the grant; None without such a bound.
    """

    redemption: Redemption
    keeping: Keeping | None = None
    per_subject: int | None = None


class Ledger(Protocol):
    """What a redemption asks of the database; used from one event loop."""

    async def find(self, key: str) -> Found | None:
        """Find a grant by its id. Raises Unavailable when the database does not serve us."""

    async def find_by_name(self, namespace: str, name: str) -> Found | None:
        """Find a grant by its site (which is its namespace) and name; raises as `find` does."""

    async def find_kept(self, claim_key: bytes, now: int) -> Kept | None:
        """Find the answer that was given to the same claim, if it is kept still.

        Raises as `find` does.
        """

    async def uses(self, grant_id: str, subject: str) -> int:
        """Tell how often a subject has redeemed a grant that bounds it; raises as `find` does."""

    async def spend(self, spending: Spending) -> Redemption | Kept:
        """Spend one redemption durably, and return it with its ordinal.

        The guarded update, the redemption's row, its answer, its audit row and the count of its
        subject's redemptions, where that is bounded, are one transaction. When this returns, they
        are on the disk; when it raises, nothing was spent:
        Refused (used up, expired, revoked or removed in the meantime, or the subject has redeemed
        as often as it may), Unavailable (disk full, database away, or locked by others for three
        seconds), Broken (a constraint of ours failed). When the same claim was answered in the
        meantime, nothing is spent either, and that answer is returned.
        """

    async def close(self) -> None:
        """Commit what waits, then let go of everything."""


def found_query() -> Select[tuple[object, ...]]:
    """Select what `found_in` reads; the caller adds which grant."""
    return (
        select(
            grants.c.id,
            grants.c.name,
            sites.c.name.label("site"),
            grants.c.concealed_code,
            grants.c.allowed,
            grants.c.spent,
            grants.c.cost,
            grants.c.created_at,
            grants.c.expires_at,
            grants.c.revoked_at,
            authorities.c.name.label("issuer"),
            sites.c.id.label("site_id"),
            sites.c.revision,
            func.coalesce(grants.c.issuer_id, sites.c.issuer_id).label("issuer_id"),
            grants.c.policy,
            grants.c.not_before,
        )
        .join(sites, grants.c.site_id == sites.c.id)
        .outerjoin(authorities, grants.c.issuer_id == authorities.c.id)
    )


def found_in(values: Sequence[Any]) -> Found:
    """Read a row of `found_query`."""
    return Found(
        grant=Grant(
            id=values[0],
            name=values[1],
            site=values[2],
            concealed_code=values[3],
            allowed=values[4],
            spent=values[5],
            cost=values[6],
            created_at=values[7],
            expires_at=values[8],
            revoked_at=values[9],
            issuer=values[10],
            policy=None if values[14] is None else policies.read(values[14]),
            not_before=values[15],
        ),
        site_id=values[11],
        site_revision=values[12],
        issuer_id=values[13],
    )


def too_often(most: int) -> Refused:
    """Refuse a subject that has redeemed a grant as often as it may."""
    times = "once" if most == 1 else f"{most} times"
    return Refused(Reason.POLICY, f"the subject has redeemed the grant {times}, and may no more")


def audit_entry(redemption: Redemption) -> Entry:
    """Say of a redemption what the audit log keeps."""
    return Entry(
        at=redemption.redeemed_at,
        act=Act.GRANT_REDEEMED,
        actor=f"site:{redemption.subject}",
        target=f"grant/{redemption.grant_id}",
        details={
            "ordinal": redemption.ordinal,
            "name": redemption.name,
            "peer": redemption.peer,
            "serial": redemption.serial,
            "fingerprint": redemption.fingerprint,
        },
    )
