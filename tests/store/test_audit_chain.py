from collections.abc import Iterator

import pytest

from app.domain.audit_chain import Head, HeadKind, Link, Walk
from app.store import audit as audit_rows
from app.store import audit_chain as rows
from app.store.engine import Connection, Database
from tests.builders import NOW, an_entry


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.writing() as opened:
        yield opened


def a_link(position: int, audit_id: int | None = None) -> Link:
    return Link(position=position, audit_id=audit_id or position, hash=bytes([position]) * 32)


def a_head(position: int, at: int = NOW, kind: HeadKind = HeadKind.SEALED) -> Head:
    return Head(
        kind=kind,
        position=position,
        at=at,
        highest_id=10 * position,
        hash=bytes([position]) * 32,
        key_id="k",
        signature=b"s",
    )


def test_what_is_written_is_read_as_it_was(connection: Connection) -> None:
    audit_rows.add(connection, an_entry(at=NOW))
    (row,) = rows.waiting(connection, 0, 9)
    assert (row.id, row.at, row.details) == (1, NOW, '{"name":"x"}')
    assert rows.has_waiting(connection, 0)
    assert not rows.has_waiting(connection, 1)
    rows.append(connection, [a_link(1)])
    rows.add_head(connection, a_head(1))
    assert rows.end(connection) == Walk(position=1, hash=a_link(1).hash)
    assert list(rows.links(connection, 0)) == [(a_link(1), row)]
    assert rows.heads(connection, 0) == [a_head(1)]
    assert rows.newest_head(connection) == a_head(1)
    assert rows.count_waiting(connection) == 0


def test_below_the_floor_nothing_is_looked_for(connection: Connection) -> None:
    assert rows.floor(connection, NOW) == 0
    rows.add_head(connection, a_head(1, NOW - 1))
    rows.add_head(connection, a_head(2, NOW))
    rows.add_head(connection, a_head(3, NOW + 1))
    assert [rows.floor(connection, NOW + after) for after in (-2, -1, 0, 1)] == [0, 10, 20, 30]
    assert rows.highest_id(connection) == 30


def test_a_head_takes_the_place_of_younger_ones_and_not_of_what_was_pruned(
    connection: Connection,
) -> None:
    rows.add_head(connection, a_head(1, NOW, HeadKind.PRUNED))
    rows.add_head(connection, a_head(2, NOW - 1))
    rows.add_head(connection, a_head(3, NOW))
    rows.replace_head(connection, a_head(4, NOW + 1), since=NOW)
    assert [one.position for one in rows.heads(connection, 0)] == [1, 2, 4]


def test_where_all_links_are_gone_the_chain_ends_where_it_was_pruned(
    connection: Connection,
) -> None:
    assert rows.end(connection) == Walk()
    rows.append(connection, [a_link(1), a_link(2)])
    assert rows.forget(connection, a_head(2, kind=HeadKind.PRUNED)) == 0
    assert rows.end(connection) == Walk(position=2, hash=a_link(2).hash)
    assert rows.pruned_to(connection) == a_head(2, kind=HeadKind.PRUNED)


def test_only_from_the_beginning_on_rows_are_old(connection: Connection) -> None:
    for at in (NOW, NOW + 1, NOW + 9, NOW):
        audit_rows.add(connection, an_entry(at=at))
    rows.append(connection, [a_link(position) for position in range(1, 5)])
    assert rows.last_old(connection, after=0, until=NOW - 1, limit=9) is None
    assert rows.last_old(connection, after=0, until=NOW + 1, limit=9) == a_link(2)
    assert rows.last_old(connection, after=0, until=NOW + 99, limit=3) == a_link(3)
    assert rows.last_old(connection, after=3, until=NOW, limit=9) == a_link(4)
    assert rows.count_between(connection, 1, 3) == 2
