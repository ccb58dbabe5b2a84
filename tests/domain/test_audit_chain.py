from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.audit_chain import BEGINNING, Head, HeadKind, Link, Row, Walk, extend, next_hash

ROW = Row(id=1, at=2, act="grant.created", actor="cli:root", target="grant/x", details="{}")

texts = st.text(max_size=20)
rows = st.builds(
    Row,
    id=st.integers(1, 2**62),
    at=st.integers(0, 2**62),
    act=texts,
    actor=texts,
    target=texts,
    details=texts,
)


def test_the_first_link_is_what_it_has_always_been() -> None:
    """Stored links are compared with what this gives, for as long as there are any."""
    assert next_hash(BEGINNING, 1, ROW).hex() == (
        "df1172a11cae83d705027fb22140b1cfcb8a1a6b2d8f188477db9805bacce2e5"
    )


@given(st.lists(rows, max_size=8))
def test_a_chain_is_walked_from_its_beginning_to_its_end(found: list[Row]) -> None:
    links = extend(BEGINNING, 0, found)
    assert [link.position for link in links] == list(range(1, len(found) + 1))
    walk = Walk()
    assert [walk.step(link, row) for link, row in zip(links, found, strict=True)] == [None] * len(
        found
    )
    assert walk.hash == (links[-1].hash if links else BEGINNING)


@given(rows, rows)
def test_rows_that_differ_in_anything_have_different_links(one: Row, other: Row) -> None:
    assert (next_hash(BEGINNING, 1, one) == next_hash(BEGINNING, 1, other)) is (one == other)


def test_no_text_moves_from_one_column_to_the_next() -> None:
    moved = replace(ROW, act="grant.created" + "cli", actor=":root")
    assert next_hash(BEGINNING, 1, moved) != next_hash(BEGINNING, 1, ROW)
    assert next_hash(BEGINNING, 2, ROW) != next_hash(BEGINNING, 1, ROW)
    assert next_hash(bytes(31) + b"\1", 1, ROW) != next_hash(BEGINNING, 1, ROW)


@pytest.mark.parametrize(
    ("link", "row", "why"),
    [
        (Link(position=2, audit_id=1, hash=BEGINNING), ROW, "its link is missing"),
        (Link(position=1, audit_id=7, hash=BEGINNING), None, "the row is missing"),
        (Link(position=1, audit_id=1, hash=BEGINNING), ROW, "not what it was"),
    ],
)
def test_a_walk_stops_where_something_is_wrong(link: Link, row: Row | None, why: str) -> None:
    walk = Walk()
    fault = walk.step(link, row)
    assert fault is not None
    assert why in fault.why
    assert fault.position == 1
    assert (walk.position, walk.hash) == (0, BEGINNING)


def test_a_head_is_of_the_chain_that_it_was_signed_for() -> None:
    link = extend(BEGINNING, 0, [ROW])[0]
    walk = Walk()
    walk.step(link, ROW)
    head = Head(kind=HeadKind.SEALED, position=1, at=5, highest_id=1, hash=link.hash)
    assert walk.against(head) is None
    assert walk.against(replace(head, hash=BEGINNING)) is not None


def test_everything_that_a_head_says_is_signed() -> None:
    head = Head(kind=HeadKind.SEALED, position=1, at=5, highest_id=9, hash=BEGINNING)
    others = (
        replace(head, kind=HeadKind.PRUNED),
        replace(head, position=2),
        replace(head, at=6),
        replace(head, highest_id=8),
        replace(head, hash=bytes(31) + b"\1"),
    )
    assert len({head.message(), *(one.message() for one in others)}) == 6
