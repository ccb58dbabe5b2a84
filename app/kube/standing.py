"""What the status of an AccessGrant says: whether a redemption would succeed now, and if not, why.

Pure: facts in, fields and conditions out. Clients look at `status.status` for one of three words,
Ready, Pending and Error, and people at `status.message`, so an ended grant is an Error that says
how it ended, and keeps its url, code and counts for whoever wants to read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from app.domain.access_grants import REVOKED, Told
from app.domain.grants import State
from app.domain.reach import Reach
from app.domain.sites import MOST_ENDPOINTS
from app.domain.theft import SuspectedTheft
from app.domain.times import rfc3339
from app.kube.applier import Condition
from app.kube.sites import Site
from app.services.cluster import Known, Signer

EDGE: Final = "Edge sites cannot accept incoming links from remote sites"
_OK: Final = "OK"
_NOBODY_KNOWS: Final = "The server has no address yet: GRANTSERVER_REACH_URL is not set"


class Word(StrEnum):
    """What a condition's reason and `status.status` may be."""

    READY = "Ready"
    PENDING = "Pending"
    ERROR = "Error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to know about an AccessGrant at a moment.

    `problem` is what is wrong with its spec; `known` is None where that kept it from being made.
    `signer` stands for the issuer Secret that is called `issuer`. Without `reach`, `waiting` says
    what is waited for. `told` is what the status said before.
    """

    problem: str | None
    site: Site | None
    issuer: str
    signer: Signer
    reach: Reach | None
    waiting: str = ""
    known: Known | None = field(repr=False)
    told: Told | None = field(default=None, repr=False)
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Fields of a status, and its conditions: Processed, Resolved, Ready, in this order."""

    fields: Mapping[str, Any] = field(repr=False)
    conditions: tuple[Condition, Condition, Condition]

    @property
    def ready(self) -> bool:
        """Whether a redemption would succeed."""
        return self.conditions[2].status


@dataclass(frozen=True, slots=True)
class _No:
    word: Word
    message: str


def standing(facts: Facts) -> Standing:
    """Say how an AccessGrant stands."""
    processed = _not_processed(facts)
    resolved = _not_resolved(facts)
    # First, and whatever else may be wrong: a lost database finds a revocation in there.
    ended = _told_end(facts.told) if facts.known is None else _ended(facts.known, facts.now)
    ready = ended or processed or resolved or _not_ready(facts)
    conditions = (
        _condition("Processed", processed),
        _condition("Resolved", resolved),
        _condition("Ready", ready),
    )
    told: dict[str, Any] = {"status": conditions[2].reason, "message": conditions[2].message}
    known = facts.known
    if known is not None:
        grant = known.grant
        told["code"] = known.code
        told["redemptions"] = grant.spent
        told["expirationTime"] = rfc3339(grant.expires_at)
        if facts.reach is not None:
            told["url"] = facts.reach.url_of(grant.id)
            told["ca"] = facts.reach.ca_pem
    return Standing(fields=told, conditions=conditions)


def _not_processed(facts: Facts) -> _No | None:
    if facts.problem is not None:
        return _No(Word.ERROR, facts.problem)
    if facts.site is not None and facts.site.edge:
        return _No(Word.ERROR, EDGE)
    return None


def _not_resolved(facts: Facts) -> _No | None:
    if facts.reach is None:
        return _No(Word.PENDING, facts.waiting or _NOBODY_KNOWS)
    return None


def _not_ready(facts: Facts) -> _No | None:
    if facts.known is None:
        return _No(Word.PENDING, "Pending")
    return _without_endpoints(facts.site) or _without_issuer(facts)


def _without_endpoints(site: Site | None) -> _No | None:
    if site is None:
        return _No(Word.PENDING, "There is no Site in this namespace yet")
    if not site.endpoints:
        return _No(
            Word.PENDING,
            f'Site "{site.name}" has no endpoints yet: enable link access (spec.linkAccess: '
            "default), and wait until its router has an address",
        )
    if len(site.endpoints) > MOST_ENDPOINTS:
        return _No(
            Word.ERROR,
            f'Site "{site.name}" has {len(site.endpoints)} endpoints, and an answer holds at most '
            f"{MOST_ENDPOINTS}: remove RouterAccesses of this namespace that nobody needs",
        )
    return None


def _without_issuer(facts: Facts) -> _No | None:
    signer, secret = facts.signer, f'Issuer Secret "{facts.issuer}"'
    if signer.problem is not None:
        return _No(Word.ERROR, f"{secret} cannot sign: {signer.problem}")
    if signer.authority_id is None:
        return _No(Word.PENDING, f"{secret} does not exist in this namespace")
    if facts.now > signer.not_after:
        return _No(Word.ERROR, f"{secret} cannot sign: it expired at {rfc3339(signer.not_after)}")
    if facts.now < signer.not_before:
        return _No(Word.PENDING, f"{secret} cannot sign before {rfc3339(signer.not_before)}")
    return None


def _told_end(told: Told | None) -> _No | None:
    """Say of a grant that no database knows any more what must not be forgotten: a revocation."""
    if told is None or told.revoked_at is None:
        return None
    return _No(Word.ERROR, f"{REVOKED}{rfc3339(told.revoked_at)}")


def _ended(known: Known, now: int) -> _No | None:
    """Say how a grant ended; None while it has not."""
    grant = known.grant
    match grant.state(now):
        case State.ACTIVE:
            return None
        case State.REVOKED:
            how = f"{REVOKED}{rfc3339(grant.revoked_at or 0)}"
        case State.EXPIRED:
            how = f"Expired at {rfc3339(grant.expires_at)}"
        case State.USED_UP:
            how = (
                "The one redemption is used"
                if grant.allowed == 1
                else f"All {grant.allowed} redemptions are used"
            )
    told = how if known.theft is None else f"{how}; {theft(known.theft)}"
    return _No(Word.ERROR, told)


def theft(suspected: SuspectedTheft) -> str:
    """Say who had the code of a grant first and who later; their names are theirs to choose."""
    first, later = suspected.first, suspected.later[0]
    who = "somebody" if first is None else f'"{first.subject}" from {first.peer}'
    more = f" and {len(suspected.later) - 1} more" if len(suspected.later) > 1 else ""
    return (
        f'suspected token theft: redeemed by {who}, then tried by "{later.subject}" '
        f"from {later.peer}{more}"
    )


def _condition(kind: str, no: _No | None) -> Condition:
    if no is None:
        return Condition(type=kind, status=True, reason=Word.READY, message=_OK)
    return Condition(type=kind, status=False, reason=no.word, message=no.message)
