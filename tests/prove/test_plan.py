from collections import Counter
from random import Random  # noqa: TID251 - what draws a plan

import pytest

from prove.jobs import Target
from prove.plan import Kind, deal, draw_grant, draw_round, is_uuid

SEEDS = range(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_round_has_as_many_attempts_as_were_wanted(seed: int) -> None:
    assert draw_round(Random(seed), 700).attempts() == 700


def test_the_same_seed_draws_the_same_round() -> None:
    assert draw_round(Random(1), 300) == draw_round(Random(1), 300)
    assert draw_round(Random(1), 300) != draw_round(Random(2), 300)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_attempt_is_dealt_once_and_in_the_shares_that_were_wanted(seed: int) -> None:
    random = Random(seed)
    drawn = draw_round(random, 1000)
    dealt = deal(random, drawn, [0.05, 0.475, 0.475])
    attempts = [[one for one in orders if not one.revokes()] for orders in dealt]
    assert [len(orders) for orders in attempts] == [50, 475, 475]
    planned = [one for wish in drawn.wishes for volley in wish.volleys for one in volley]
    assert Counter(one for orders in dealt for one in orders) == Counter([*planned, *drawn.late])


@pytest.mark.parametrize("seed", SEEDS)
def test_copies_of_a_volley_go_to_different_executors(seed: int) -> None:
    random = Random(seed)
    drawn = draw_round(random, 400)
    dealt = deal(random, drawn, [0.34, 0.33, 0.33])
    volleys = [volley for wish in drawn.wishes for volley in wish.volleys if len(volley) == 2]
    places = {id(one): number for number, orders in enumerate(dealt) for one in orders}
    together = sum(places[id(one)] == places[id(other)] for one, other in volleys)
    assert together < len(volleys) / 4


def test_most_grants_have_more_claims_than_places_and_some_have_fewer() -> None:
    random = Random(1)
    wishes = [
        draw_grant(random, number=0, kind=Kind.ORDINARY, most=1000, allowed=8) for _ in range(300)
    ]
    contended = sum(len(wish.claims) > wish.allowed for wish in wishes)
    assert 230 < contended < 300


def test_claims_of_a_grant_are_different_and_some_share_name_and_subject() -> None:
    wish = draw_grant(Random(3), number=0, kind=Kind.ORDINARY, most=1000, allowed=100)
    assert len({claim.identity() for claim in wish.claims}) == len(wish.claims)
    shared = Counter((one.name, one.subject) for one in wish.claims if not is_uuid(one.subject))
    assert max(shared.values()) > 1


def test_a_wrong_code_differs_in_one_character() -> None:
    target = Target("id", "Aa0Bb1Cc2Dd3Ee4F", 0)
    assert target.presented(right=True) == b"Aa0Bb1Cc2Dd3Ee4F"
    assert target.presented(right=False) == b"Aa0Bb1Cc2Dd3Ee4G"
