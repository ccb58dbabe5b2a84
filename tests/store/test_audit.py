from typing import Any

import pytest
from sqlalchemy import event

from app.domain.audit import Act
from app.store import audit
from app.store.audit import Filter
from app.store.engine import Database
from tests.builders import NOW, an_entry


def test_entries_come_back_as_they_were_oldest_first(database: Database) -> None:
    entries = [
        an_entry(at=NOW + number, act=act, details={"a": "\u00e9\n\"'", "b": 2**40, "c": None})
        for number, act in enumerate(Act)
    ]
    with database.writing() as connection:
        for entry in entries:
            audit.add(connection, entry)
    with database.reading() as connection:
        assert audit.latest(connection, 100) == entries
        assert audit.latest(connection, 3) == entries[-3:]
        assert audit.latest(connection, 0) == []


def test_the_newest_is_what_was_written_last_whatever_the_clock_said(database: Database) -> None:
    with database.writing() as connection:
        audit.add(connection, an_entry(at=NOW))
        audit.add(connection, an_entry(at=NOW - 1000, target="later"))
    with database.reading() as connection:
        assert [entry.target for entry in audit.latest(connection, 1)] == ["later"]


def test_entries_of_one_target_are_found(database: Database) -> None:
    with database.writing() as connection:
        for target in ("grant/a", "grant/b", "grant/a", "grant/ab"):
            audit.add(connection, an_entry(target=target))
    with database.reading() as connection:
        assert len(audit.latest(connection, 10, Filter(target="grant/a"))) == 2
        assert len(audit.latest(connection, 1, Filter(target="grant/a"))) == 1
        assert audit.latest(connection, 10, Filter(target="grant/%")) == []


def test_what_happened_besides_redemptions_is_told_newest_kept(database: Database) -> None:
    acts = [Act.GRANT_CREATED, Act.GRANT_REDEEMED, Act.GRANT_REFUSED, Act.GRANT_REVOKED]
    with database.writing() as connection:
        for target in ("grant/a", "grant/ab", "grant/b"):
            for act in acts:
                audit.add(connection, an_entry(target=target, act=act))
    with database.reading() as connection:
        told = audit.besides_redemptions(connection, "grant/a", 9)
        assert [one.act for one in told] == [acts[0], *acts[2:]]
        assert {one.target for one in told} == {"grant/a"}
        assert [one.act for one in audit.besides_redemptions(connection, "grant/a", 2)] == acts[2:]
        assert audit.count_besides_redemptions(connection, "grant/a") == 3
        assert audit.count_besides_redemptions(connection, "grant/%") == 0


def test_the_story_of_one_thing_is_found_by_an_index(database: Database) -> None:
    asked: list[tuple[str, Any]] = []

    def note(*arguments: Any) -> None:
        asked.append(arguments[2:4])

    with database.reading() as connection:
        event.listen(connection, "before_cursor_execute", note)
        audit.besides_redemptions(connection, "grant/a", 5)
        audit.count_besides_redemptions(connection, "grant/a")
        event.remove(connection, "before_cursor_execute", note)
        explain = "EXPLAIN QUERY PLAN"
        if connection.dialect.name == "postgresql":
            # It would rather read a small table than its index.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = "EXPLAIN"
        plans = [
            " ".join(str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {text}", given))
            for text, given in asked
            if text.startswith("SELECT")  # SQLite begins a transaction too
        ]
    assert len(plans) == 2
    for plan in plans:
        assert "ix_audit_target_id" in plan
        assert "Seq Scan" not in plan
        assert "SCAN" not in plan


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), "abcd"),
        (Filter(act="grant.redeemed"), "b"),
        (Filter(act="grant"), "ab"),
        (Filter(act="gran"), ""),
        (Filter(actor="cli:root"), "ad"),
        (Filter(actor="cli:"), "acd"),
        (Filter(actor="cli"), ""),
        (Filter(actor="%:"), ""),
        (Filter(since=NOW + 2), "cd"),
        (Filter(until=NOW + 1), "ab"),
        (Filter(since=NOW + 1, until=NOW + 2, actor="cli:"), "c"),
    ],
)
def test_entries_are_found_for_which_all_holds(
    database: Database, wanted: Filter, found: str
) -> None:
    made = [
        ("a", Act.GRANT_CREATED, "cli:root"),
        ("b", Act.GRANT_REDEEMED, "site:east"),
        ("c", Act.SITE_SET, "cli:rooted"),
        ("d", Act.AUTHORITY_CREATED, "cli:root"),
    ]
    with database.writing() as connection:
        for after, (target, act, actor) in enumerate(made):
            audit.add(connection, an_entry(at=NOW + after, target=target, act=act, actor=actor))
    with database.reading() as connection:
        assert "".join(one.target for one in audit.latest(connection, 9, wanted)) == found
        assert [one.target for one in audit.latest(connection, 1, wanted)] == list(found[-1:])
