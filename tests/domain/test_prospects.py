from typing import Any

import pytest

from app.domain.certificates import KeyType
from app.domain.policies import Policy
from app.domain.prospects import Obstacle, begins_at, conditions, hindrances, left
from tests.builders import NOW, WINDOW, a_grant

END = NOW + WINDOW


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"spent": 1}, []),
        ({"revoked_at": NOW - 1}, [Obstacle.REVOKED]),
        ({"expires_at": NOW}, [Obstacle.EXPIRED]),
        ({"expires_at": NOW + 1}, []),
        ({"spent": 2}, [Obstacle.USED_UP]),
        ({"not_before": NOW + 1}, [Obstacle.NOT_BEGUN]),
        ({"not_before": NOW}, []),
        ({"policy": Policy(understood=False)}, [Obstacle.POLICY_UNREADABLE]),
        ({"policy": Policy(networks=("10.0.0.0/8",))}, [Obstacle.NETWORK]),
        ({"policy": Policy(networks=("192.0.2.0/24",))}, []),
        ({"policy": Policy(subjects=("nobody",), name_prefix="x", per_subject=1)}, []),
        (
            {"revoked_at": NOW, "expires_at": NOW, "spent": 2},
            [Obstacle.REVOKED, Obstacle.EXPIRED, Obstacle.USED_UP],
        ),
    ],
)
def test_all_that_is_in_the_way_is_told(changes: dict[str, Any], found: list[Obstacle]) -> None:
    told = hindrances(a_grant(**changes), now=NOW, peer="192.0.2.7")
    assert [one.obstacle for one in told] == found
    assert all(one.why for one in told)


def test_why_is_told_in_words() -> None:
    def why(**changes: Any) -> str:
        return hindrances(a_grant(**changes), now=NOW, peer="192.0.2.7")[0].why

    assert why(revoked_at=NOW) == "it was revoked at 2026-09-21T14:13:20Z"
    assert why(expires_at=NOW) == "it has expired at 2026-09-21T14:13:20Z"
    assert why(spent=2) == "all 2 redemptions are used"
    assert why(spent=1, allowed=1) == "its one redemption is used"
    assert why(not_before=NOW + 1) == "it begins at 2026-09-21T14:13:21Z"


def test_the_networks_are_not_told_with_the_address() -> None:
    policy = Policy(networks=("10.0.0.0/8",))
    (told,) = hindrances(a_grant(policy=policy), now=NOW, peer="192.0.2.7")
    assert "10." not in told.why


def test_without_an_address_networks_are_not_asked_for() -> None:
    policy = Policy(networks=("10.0.0.0/8",))
    assert hindrances(a_grant(policy=policy), now=NOW) == ()


def test_a_policy_is_told_in_words() -> None:
    policy = Policy(
        subjects=("east-*", "west"),
        networks=("10.0.0.0/8",),
        lifetime_seconds=5400,
        key_type=KeyType.ED25519,
        per_subject=2,
        name_prefix="east-",
    )
    told = conditions(policy, networks=True)
    assert told == (
        "the subject is one of east-*, west",
        "it comes from 10.0.0.0/8",
        "one subject redeems it 2 times at most",
        "the name begins with east-",
        "the key is of kind ed25519",
        "certificates live 1h30m at most",
    )
    assert conditions(policy, networks=False) == (told[0], *told[2:])
    assert conditions(None, networks=True) == ()
    assert conditions(Policy(per_subject=1), networks=True) == (
        "one subject redeems it once at most",
    )
    assert len(conditions(Policy(understood=False), networks=True)) == 1


def test_of_a_grant_that_is_over_nothing_is_left() -> None:
    assert left(a_grant(spent=1), NOW) == 1
    assert left(a_grant(spent=2), NOW) == 0
    assert left(a_grant(), END) == 0
    assert left(a_grant(revoked_at=NOW), NOW) == 0


def test_a_grant_begins_when_it_was_made_unless_it_says_otherwise() -> None:
    assert begins_at(a_grant()) == NOW
    assert begins_at(a_grant(not_before=NOW + 9)) == NOW + 9
