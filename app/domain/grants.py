"""Grants, claims and redemptions, and the judgement of a claim against a grant.

The judgement is a courtesy: it lets a hopeless claim go before anything is minted. What decides
is the ledger's guarded statement, which asks the same question once more at the moment of spending.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from app.domain.policies import NO_LABELS, Policy
from app.domain.policies import judge as judge_claim
from app.domain.times import rfc3339
from app.errors import Invalid, Reason, Refused

MOST_REDEMPTIONS: Final = 1_000_000
SHORT_WINDOW: Final = 60  # seconds; below it a person hardly gets the token across
LONGEST_WINDOW: Final = 100 * 365 * 86_400  # a century: later ends cannot be written as RFC 3339
ID_RANDOM_BYTES: Final = 10


class State(StrEnum):
    """What has become of a grant. The values are metric labels and shown to people."""

    ACTIVE = "active"
    EXPIRED = "expired"
    USED_UP = "used_up"
    REVOKED = "revoked"


class Sort(StrEnum):
    """What lists of grants are sorted by."""

    CREATED_AT = "created_at"
    NAME = "name"
    EXPIRES_AT = "expires_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which grants are asked for; what is None or empty is not asked.

    `sites` are names of sites, and an empty set finds nothing; `label` is a key with its value.
    """

    sites: frozenset[str] | None = None
    state: State | None = None
    name_prefix: str = ""
    label: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Permission to link to `site`, `allowed` times until `expires_at` (UTC seconds, exclusive).

    `id` is a UUID as Kubernetes writes it; `issuer` names an authority that overrides the site's.
    Before `not_before` (UTC seconds) nobody can redeem it, and after that who fulfils `policy`.
    """

    id: str
    name: str
    site: str
    concealed_code: str = field(repr=False)
    allowed: int
    spent: int
    cost: int
    created_at: int
    expires_at: int
    revoked_at: int | None = None
    issuer: str | None = None
    policy: Policy | None = None
    not_before: int | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    description: str = ""

    def state(self, now: int) -> State:
        """Tell what has become of it: revoked before used up before expired before active."""
        if self.revoked_at is not None:
            return State.REVOKED
        if self.spent >= self.allowed:
            return State.USED_UP
        return State.EXPIRED if now >= self.expires_at else State.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One request to redeem, as a stranger sent it: nothing in it is verified.

    `key` is the path without its slashes (or `namespace/name`); `name` and `subject` are None
    when the header is missing; `peer` is the address that the connection comes from. `csr` is a
    certificate request, in base64 as it came, of who keeps its private key to itself.
    """

    key: str
    presented_code: bytes = field(repr=False)
    name: str | None
    subject: str | None
    peer: str
    csr: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redemption:
    """One success: who redeemed which grant, when (UTC seconds), and the certificate given.

    `ordinal` counts the redemptions of a grant from 1; `revoked_at` says since when the
    certificate is marked as revoked. `issuer_id` is the authority that signed it, which nobody
    has written down for the oldest.
    """

    grant_id: str
    ordinal: int
    name: str
    subject: str
    peer: str
    serial: str
    fingerprint: str
    not_after: int
    redeemed_at: int
    revoked_at: int | None = None
    issuer_id: int | None = None

    def numbered(self, ordinal: int) -> "Redemption":
        """The same redemption under its number; `dataclasses.replace` takes four times as long."""
        return Redemption(
            grant_id=self.grant_id,
            ordinal=ordinal,
            name=self.name,
            subject=self.subject,
            peer=self.peer,
            serial=self.serial,
            fingerprint=self.fingerprint,
            not_after=self.not_after,
            redeemed_at=self.redeemed_at,
            issuer_id=self.issuer_id,
        )


def new_id(milliseconds: int, random: bytes) -> str:
    """Make the id of a grant that is made at this time: a UUID of version 7 (RFC 9562, 5.7).

    `milliseconds` since 1970 in UTC, 0 to 2**48 - 1; 74 bits of the `ID_RANDOM_BYTES` bytes of
    `random` are used. Ids grow with time, so grants of one time are neighbours in the database
    and redeeming them touches few pages of it. Whoever holds the token can read when its grant
    was made; that is no secret. Ids of other versions are as good: nothing looks inside one.
    """
    drawn = int.from_bytes(random, "big")
    high, low = drawn >> 62 & 0xFFF, drawn & (1 << 62) - 1
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low))


def judge(grant: Grant, *, now: int) -> None:
    """Raise Refused unless the grant can be redeemed: not revoked, not expired, not used up.

    Asked only after the code was found to be right: nobody else learns what state a grant is in.
    """
    if grant.revoked_at is not None:
        raise Refused(Reason.REVOKED)
    if now >= grant.expires_at:
        raise Refused(Reason.EXPIRED)
    if grant.spent >= grant.allowed:
        raise Refused(Reason.USED_UP)


def judge_policy(grant: Grant, *, name: str, subject: str, peer: str, now: int) -> None:
    """Raise Refused(POLICY) unless a claim fulfils the grant's policy, and comes not too early.

    Asked before a kept answer is given again: that holds a key as well.
    """
    if grant.not_before is not None and now < grant.not_before:
        raise Refused(Reason.POLICY, f"the grant begins at {rfc3339(grant.not_before)}")
    if grant.policy is not None:
        judge_claim(grant.policy, name=name, subject=subject, peer=peer)


def check_not_before(not_before: int | None, expires_at: int) -> None:
    """Raise Invalid("not_before", …) unless a grant begins before it ends."""
    if not_before is not None and not_before >= expires_at:
        raise Invalid("not_before", "the grant would end before it begins")


def check_redemptions(allowed: int) -> None:
    """Raise Invalid("redemptions", …) unless a grant may be used this often."""
    if not 1 <= allowed <= MOST_REDEMPTIONS:
        raise Invalid("redemptions", f"{allowed} is out of range: expected 1 to {MOST_REDEMPTIONS}")
