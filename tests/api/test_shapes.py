import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.api.shapes import CURSOR, DURATION, ID, NAME, Duration, Listing, Name, Shape
from app.domain.durations import parse_window
from app.domain.grants import ID_RANDOM_BYTES, new_id
from app.domain.names import check_name
from app.web.admin import cursors

NAMES: TypeAdapter[str] = TypeAdapter(Name)


@given(st.from_regex(NAME, fullmatch=True).filter(lambda name: len(name) < 64 and name[-1] != "\n"))
def test_a_name_of_the_description_is_a_name_of_ours(name: str) -> None:
    assert NAMES.validate_python(name) == name
    check_name("name", name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a" * 64, "a\n"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        NAMES.validate_python(name)


@given(st.integers(1, 10**6), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_of_the_description_is_one_of_ours(h: int, m: int, s: int) -> None:
    text = f"{h}h{m}m{s}s"
    assert TypeAdapter(Duration).validate_python(text) == text
    assert re.fullmatch(DURATION, text)
    assert parse_window(text) == h * 3600 + m * 60 + s


def test_ids_and_cursors_are_what_we_write() -> None:
    assert re.fullmatch(ID, new_id(1_800_000_000_000, bytes(ID_RANDOM_BYTES)))
    assert re.fullmatch(CURSOR, cursors.write("grants name asc", "a" * 63, "b" * 36))


def test_a_shape_neither_changes_nor_takes_what_it_does_not_know() -> None:
    class Thing(Shape):
        name: str

    with pytest.raises(ValidationError):
        Thing.model_validate({"name": "a", "nane": "b"})
    with pytest.raises(ValidationError):
        Thing(name="a").name = "b"  # type: ignore[misc]


@pytest.mark.parametrize("limit", [0, 501, "x"])
def test_lists_are_bounded(limit: object) -> None:
    with pytest.raises(ValidationError):
        Listing.model_validate({"limit": limit})
    assert Listing().limit == 100
