"""What stands between a grant and its next claim, in words for whoever may know.

Beside `judge`, which raises the one reason that a claim is refused for: here all of them are told
at once. Who asks has shown the right code, or runs the server.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from app.domain.durations import format_seconds
from app.domain.grants import Grant
from app.domain.policies import Policy, is_address_fit
from app.domain.times import rfc3339


class Obstacle(StrEnum):
    """What stands in the way. The values are told to programs: never changed or taken away."""

    REVOKED = "revoked"
    EXPIRED = "expired"
    USED_UP = "used_up"
    NOT_BEGUN = "not_begun"
    NETWORK = "network"
    POLICY_UNREADABLE = "policy_unreadable"
    NO_ENDPOINTS = "no_endpoints"
    NO_ISSUER = "no_issuer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindrance:
    """An obstacle, and in words what there is to know of it."""

    obstacle: Obstacle
    why: str


def hindrances(grant: Grant, *, now: int, peer: str | None = None) -> tuple[Hindrance, ...]:
    """Tell all that is in the way of a claim at this time, the most lasting first.

    Without a `peer`, the address it would come from, networks are not asked for. What depends on
    the claim's own words, its name and subject, is in the `conditions`.
    """
    return tuple(_hindrances(grant, now, peer))


def conditions(policy: Policy | None, *, networks: bool) -> tuple[str, ...]:
    """Say in words what a policy asks of a claim; of its `networks` only where they may be told."""
    return () if policy is None else tuple(_conditions(policy, networks=networks))


def left(grant: Grant, now: int) -> int:
    """How many redemptions are to come, if nobody changes it: none of a grant that is over."""
    over = grant.revoked_at is not None or now >= grant.expires_at
    return 0 if over else max(0, grant.allowed - grant.spent)


def begins_at(grant: Grant) -> int:
    """From when on it can be redeemed, in UTC seconds."""
    return grant.created_at if grant.not_before is None else grant.not_before


def _hindrances(grant: Grant, now: int, peer: str | None) -> Iterator[Hindrance]:
    if grant.revoked_at is not None:
        yield Hindrance(
            obstacle=Obstacle.REVOKED, why=f"it was revoked at {rfc3339(grant.revoked_at)}"
        )
    if now >= grant.expires_at:
        yield Hindrance(
            obstacle=Obstacle.EXPIRED, why=f"it has expired at {rfc3339(grant.expires_at)}"
        )
    if grant.spent >= grant.allowed:
        used = (
            "its one redemption is"
            if grant.allowed == 1
            else f"all {grant.allowed} redemptions are"
        )
        yield Hindrance(obstacle=Obstacle.USED_UP, why=f"{used} used")
    if grant.not_before is not None and now < grant.not_before:
        yield Hindrance(
            obstacle=Obstacle.NOT_BEGUN, why=f"it begins at {rfc3339(grant.not_before)}"
        )
    policy = grant.policy
    if policy is not None and not policy.understood:
        yield Hindrance(
            obstacle=Obstacle.POLICY_UNREADABLE,
            why="its policy was written by a later release, and nothing fulfils it",
        )
    if policy is not None and peer is not None and is_address_fit(policy, peer) is False:
        yield Hindrance(
            obstacle=Obstacle.NETWORK, why="this address is in none of the networks it is for"
        )


def _conditions(policy: Policy, *, networks: bool) -> Iterator[str]:
    if policy.subjects:
        yield f"the subject is one of {', '.join(policy.subjects)}"
    if policy.networks and networks:
        yield f"it comes from {', '.join(policy.networks)}"
    if policy.per_subject is not None:
        times = "once" if policy.per_subject == 1 else f"{policy.per_subject} times"
        yield f"one subject redeems it {times} at most"
    if policy.name_prefix is not None:
        yield f"the name begins with {policy.name_prefix}"
    if policy.key_type is not None:
        yield f"the key is of kind {policy.key_type}"
    if policy.lifetime_seconds is not None:
        yield f"certificates live {format_seconds(policy.lifetime_seconds)} at most"
    if not policy.understood:
        yield "what a later release has written, which nothing fulfils"
