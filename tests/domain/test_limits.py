from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from app.domain.limits import Allowance

ALLOWANCE = Allowance(burst=3, interval=10)
START = 1_000_000

allowances = st.builds(
    Allowance, burst=st.integers(1, 50), interval=st.sampled_from([1, 2, 7, 1000, 60_000])
)
pauses = st.lists(st.integers(0, 200) | st.integers(0, 100_000), max_size=200)


def passing(allowance: Allowance, moments: list[int]) -> list[int]:
    """The moments at which an event finds room; it fills the bucket then."""
    empty_at, passed = 0, []
    for now in moments:
        if not allowance.wait(empty_at, now):
            empty_at = allowance.fill(empty_at, now)
            passed.append(now)
    return passed


def test_a_burst_passes_at_once_and_then_one_for_each_interval() -> None:
    assert passing(ALLOWANCE, [START] * 5) == [START] * 3
    moments = [*[START] * 4, START + 9, START + 10, START + 11, START + 20, START + 29, START + 30]
    assert passing(ALLOWANCE, moments) == [*[START] * 3, START + 10, START + 20, START + 30]


def test_a_bucket_that_has_leaked_empty_takes_a_whole_burst_again() -> None:
    assert len(passing(ALLOWANCE, [START] * 4 + [START + 30] * 4)) == 6
    assert len(passing(ALLOWANCE, [START] * 4 + [START + 10**9] * 4)) == 6


def test_what_runs_over_is_gone() -> None:
    empty_at = ALLOWANCE.fill(0, START, 1000)
    assert empty_at == START + 30
    assert ALLOWANCE.wait(empty_at, START) == 10
    assert ALLOWANCE.wait(empty_at, START + 9) == 1
    assert ALLOWANCE.wait(empty_at, START + 10) == 0


@given(allowances, pauses)
def test_no_window_lets_more_pass_than_a_burst_and_its_length(
    allowance: Allowance, pauses: list[int]
) -> None:
    passed = passing(allowance, list(accumulate(pauses, initial=START)))
    for first, begin in enumerate(passed):
        for last, end in enumerate(passed[first:], first):
            assert last - first + 1 <= allowance.burst + (end - begin) // allowance.interval


@given(allowances, pauses)
def test_who_waits_as_long_as_told_passes_and_no_sooner(
    allowance: Allowance, pauses: list[int]
) -> None:
    empty_at = 0
    for now in accumulate(pauses, initial=START):
        wait = allowance.wait(empty_at, now)
        assert 0 <= wait <= allowance.interval
        assert allowance.wait(empty_at, now + wait) == 0
        assert wait == 0 or allowance.wait(empty_at, now + wait - 1) > 0
        empty_at = allowance.fill(empty_at, now)


@given(allowances, st.integers(0, 10**9), st.lists(st.integers(1, 40), max_size=8))
def test_many_at_once_fill_as_much_as_one_after_the_other(
    allowance: Allowance, empty_at: int, counts: list[int]
) -> None:
    one_by_one = empty_at
    for _ in range(sum(counts)):
        one_by_one = allowance.fill(one_by_one, START)
    together = empty_at
    for count in counts:
        together = allowance.fill(together, START, count)
    if counts:
        assert together == one_by_one


@given(allowances, st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 10**9)), max_size=60))
def test_a_clock_that_is_set_back_lets_no_more_pass_and_locks_nobody_out(
    allowance: Allowance, steps: list[tuple[int, int]]
) -> None:
    """Measured by a clock of its own, which nobody sets."""
    real, offset, empty_at = 0, START, 0
    passed: list[int] = []
    for pause, back in steps:
        real, offset = real + pause, offset - back
        now = real + offset
        empty_at = allowance.bounded(empty_at, now)
        wait = allowance.wait(empty_at, now)
        assert wait <= allowance.interval
        assert allowance.wait(empty_at, now + wait) == 0
        if not wait:
            empty_at = allowance.fill(empty_at, now)
            passed.append(real)
    for first, begin in enumerate(passed):
        for last, end in enumerate(passed[first:], first):
            assert last - first + 1 <= allowance.burst + (end - begin) // allowance.interval
