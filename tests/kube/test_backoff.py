import pytest

from app.kube.backoff import Backoff, chance

BACKOFF = Backoff(base_seconds=0.2, most_seconds=30.0)


@pytest.mark.parametrize(
    ("failures", "least"), [(1, 0.2), (2, 0.4), (3, 0.8), (7, 12.8), (8, 15.0), (10_000, 15.0)]
)
def test_delays_double_up_to_the_most(failures: int, least: float) -> None:
    assert BACKOFF.delay(failures, 0.0) == pytest.approx(least)
    assert least < BACKOFF.delay(failures, 0.999_999) < min(2 * least, 30.0)


def test_chance_is_a_fraction_of_what_is_drawn() -> None:
    assert chance(bytes) == 0.0
    assert chance(lambda count: b"\x80" + bytes(count - 1)) == 0.5
    assert 0.999 < chance(lambda count: b"\xff" * count) < 1.0
