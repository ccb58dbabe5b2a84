import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Invalid
from app.web.admin import cursors

TEXTS = st.text(st.characters(categories=["L", "N"]), max_size=60)
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1)


@given(TEXTS, NUMBERS, TEXTS)
def test_what_is_written_is_read(order: str, number: int, text: str) -> None:
    cursor = cursors.write(order, number, text)
    assert cursors.read(cursor, order, int, str) == (number, text)


@given(st.text(max_size=80))
def test_whatever_else_comes_is_refused_by_its_name(cursor: str) -> None:
    with pytest.raises(Invalid) as caught:
        cursors.read(cursor, "grants name asc", str, str)
    assert caught.value.field == "cursor"


@pytest.mark.parametrize(
    "cursor",
    [
        cursors.write("another order", 1),
        cursors.write("numbers"),
        cursors.write("numbers", 1, 2),
        cursors.write("numbers", "1"),
        cursors.write("numbers", True),
        cursors.write("numbers", 2**63),
        "bnVsbA",
        "W10",
        "",
    ],
)
def test_a_cursor_of_another_list_is_refused(cursor: str) -> None:
    with pytest.raises(Invalid, match="cursor"):
        cursors.number(cursor, "numbers")


def test_a_text_that_no_database_takes_is_refused() -> None:
    with pytest.raises(Invalid, match="cursor"):
        cursors.text(cursors.write("names", "a\x00"), "names")


def test_without_a_cursor_a_list_begins_at_its_beginning() -> None:
    assert cursors.number(None, "numbers") == 0
    assert cursors.text(None, "names") == ""
