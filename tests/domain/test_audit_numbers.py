from hypothesis import given
from hypothesis import strategies as st

from app.domain.audit_numbers import MOST_GAPS, Numbers


def missing(numbers: Numbers) -> set[int]:
    return {one for first, last in numbers.gaps for one in range(first, last + 1)}


@given(st.lists(st.integers(1, 60), unique=True))
def test_every_number_up_to_the_highest_was_seen_or_is_in_a_gap(seen: list[int]) -> None:
    numbers = Numbers()
    numbers.note(seen)
    assert numbers.high == max(seen, default=0)
    assert missing(numbers) == set(range(1, numbers.high)) - set(seen)
    assert numbers.gaps == sorted(numbers.gaps)


@given(st.lists(st.integers(1, 1000), unique=True, min_size=300))
def test_no_missing_number_is_forgotten_however_many_gaps_there_are(seen: list[int]) -> None:
    numbers = Numbers()
    numbers.note(seen)
    assert len(numbers.gaps) <= MOST_GAPS
    assert missing(numbers) >= set(range(1, numbers.high)) - set(seen)


def test_it_begins_behind_what_was_seen_before() -> None:
    numbers = Numbers(high=40)
    numbers.note([41, 44])
    assert (numbers.high, numbers.gaps) == (44, [(42, 43)])
    numbers.note([43, 42])
    assert (numbers.high, numbers.gaps) == (44, [])
