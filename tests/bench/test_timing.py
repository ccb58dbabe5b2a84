import math
from random import Random  # noqa: TID251

import pytest

from app.domain.codes import LENGTH
from app.services.grants import Issued
from bench.timing import compare, cropped, questions, welch
from tests.builders import CODE, a_grant


def sample(random: Random, mean: float, count: int = 3000) -> list[float]:
    """Times as they are: a hump, and now and then something that took long."""
    return [
        random.gauss(mean, 1.0) + (random.expovariate(0.001) if random.random() < 0.05 else 0.0)
        for _ in range(count)
    ]


def test_the_statistic_is_welchs() -> None:
    # Means 2 and 5, variances 1 and 20/3: the difference's own variance is 1/3 + 5/3.
    assert welch([1, 2, 3], [2, 4, 6, 8]) == pytest.approx(-3 / math.sqrt(2))
    assert welch([1.0, 1.0], [1.0, 1.0]) == 0


def test_a_small_difference_below_much_noise_is_found_by_cropping() -> None:
    random = Random(1)
    one, other = sample(random, 50.3), sample(random, 50.0)
    assert abs(welch(one, other)) < 4.5
    assert cropped(one, other) > 4.5
    told = compare("x", one, other)
    assert told.verdict() == "distinguishable"
    assert told.median_difference > 0.1 * 1e6


def test_where_there_is_no_difference_none_is_found() -> None:
    random = Random(2)
    assert compare("x", sample(random, 50), sample(random, 50)).verdict() == "no difference found"


def test_too_few_samples_are_not_cropped() -> None:
    assert cropped([1.0] * 9, [2.0] * 9) == 0


def test_half_of_the_codes_share_a_long_prefix_with_the_right_one() -> None:
    asked = questions(Issued(grant=a_grant(), code=CODE), 50, Random(3))
    right = CODE.encode()
    assert len(asked) == 100
    for one in asked:
        assert len(one.code) == LENGTH
        assert one.code != right
        assert (one.code[:-1] == right[:-1]) == (one.kind == 0)
        assert (one.code[0] == right[0]) == (one.kind == 0)
    assert len({one.kind for one in asked[:20]}) == 2
