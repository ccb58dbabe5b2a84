import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from app import ambient
from app.crypto.audit_heads import HeadKeys
from app.domain.audit_chain import Head, HeadKind
from app.errors import Unavailable
from app.services import audit_chain
from app.services.audit_chain import Chain, Sealing, Verdict
from app.store import audit as audit_rows
from app.store import audit_chain as rows
from app.store.engine import Database
from tests.builders import NOW, Clock, an_entry

KEYS = HeadKeys.of({"one": bytes(32)})


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """Run the test on each of the databases."""
    made = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(made, Database)
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def chain(database: Database, clock: Clock) -> Chain:
    return Chain(database=database, keys=KEYS, clock=clock)


def write(database: Database, *times: int) -> None:
    with database.writing() as connection:
        for at in times:
            audit_rows.add(connection, an_entry(at=at))


def sealed(chain: Chain, count: int = 5) -> Chain:
    write(chain.database, *range(NOW, NOW + count))
    assert chain.seal() == count
    return chain


def tamper(database: Database, *statements: str) -> None:
    with database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))


def fault(chain: Chain, **options: Any) -> tuple[int, str]:
    found = chain.verify(**options).fault
    assert found is not None
    return found.position, found.why


def head(chain: Chain) -> Head:
    found = chain.newest_head()
    assert found is not None
    return found


def test_nothing_is_a_sound_chain(chain: Chain) -> None:
    assert chain.seal() == 0
    assert chain.verify() == Verdict(fault=None, first=0, last=0, head=None, waiting=0)


def test_every_row_gets_its_place_once(chain: Chain) -> None:
    sealed(chain)
    write(chain.database, NOW + 9)
    assert chain.verify().waiting == 1
    assert chain.seal() == 1
    assert chain.seal() == 0
    verdict = chain.verify()
    assert (verdict.fault, verdict.first, verdict.last, verdict.waiting) == (None, 1, 6, 0)
    assert verdict.head == head(chain)


def test_more_rows_than_one_transaction_takes_are_sealed_in_several(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_chain, "_STEP", 2)
    sealed(chain, 5)
    assert chain.verify().last == 5


def test_sealers_at_once_make_one_chain(chain: Chain) -> None:
    write(chain.database, *[NOW] * 40)
    with ThreadPoolExecutor(4) as several:
        assert sum(several.map(lambda _: chain.seal(), range(4))) == 40
    assert chain.verify().last == 40


def test_a_row_that_is_seen_after_later_ones_is_sealed_too(chain: Chain) -> None:
    """As on PostgreSQL, where a number may be drawn long before its row is committed."""
    write(chain.database, *range(NOW, NOW + 3))
    tamper(chain.database, "UPDATE audit SET id = 100 WHERE id = 2")
    chain.seal()
    tamper(
        chain.database,
        "INSERT INTO audit (id, at, act, actor, target, details)"
        " VALUES (2, 1, 'a', 'b', 'c', '{}')",
    )
    assert chain.seal() == 1
    assert chain.verify() == Verdict(fault=None, first=1, last=4, head=head(chain), waiting=0)


def a_row(number: int) -> str:
    return (
        "INSERT INTO audit (id, at, act, actor, target, details)"
        f" VALUES ({number}, 1, 'a', 'b', 'c', '{{}}')"
    )


def test_only_what_was_not_seen_is_looked_at_again(chain: Chain) -> None:
    write(chain.database, *[NOW] * 3)
    seen = chain.seen()
    assert (seen.high, seen.gaps) == (3, [])
    chain.seal()
    assert chain.seal_fresh(seen) == 0
    tamper(chain.database, "DELETE FROM audit_links WHERE position = 3")
    assert chain.seal_fresh(seen) == 0  # it is looked at no more: the next whole look finds it
    write(chain.database, NOW)
    assert chain.seal_fresh(seen) == 1
    assert seen.high == 4


def test_a_row_that_becomes_visible_late_is_sealed_when_it_does(chain: Chain) -> None:
    seen = chain.seen()
    tamper(chain.database, a_row(3), a_row(7))
    assert chain.seal_fresh(seen) == 2
    assert (seen.high, seen.gaps) == (7, [(1, 2), (4, 6)])
    tamper(chain.database, a_row(5))
    assert chain.seal_fresh(seen) == 1
    assert chain.seal_fresh(seen) == 0
    tamper(chain.database, a_row(2), a_row(8))
    assert chain.seal_fresh(seen) == 2
    assert chain.verify() == Verdict(fault=None, first=1, last=5, head=head(chain), waiting=0)


def test_many_fresh_rows_are_sealed_in_several_transactions(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_chain, "_FRESH_STEP", 2)
    seen = chain.seen()
    write(chain.database, *[NOW] * 5)
    assert chain.seal_fresh(seen) == 5
    assert chain.verify().last == 5


def test_what_another_sealer_has_sealed_is_seen_and_left_alone(chain: Chain) -> None:
    seen = chain.seen()
    write(chain.database, *[NOW] * 4)
    assert chain.seal() == 4
    write(chain.database, NOW)
    assert chain.seal_fresh(seen) == 1
    assert (seen.high, seen.gaps) == (5, [])
    assert chain.verify().last == 5


def test_sealers_of_what_is_fresh_make_one_chain_together(chain: Chain) -> None:
    each = [chain.seen() for _ in range(4)]
    write(chain.database, *[NOW] * 40)
    with ThreadPoolExecutor(4) as several:
        assert sum(several.map(chain.seal_fresh, each)) == 40
    assert chain.verify().last == 40


def test_who_was_too_slow_looks_again_and_seals_behind_the_others(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = chain.seen()
    write(chain.database, *[NOW] * 3)
    fresh = rows.fresh

    def slow(connection: Any, numbers: Any, limit: int) -> Any:
        found = fresh(connection, numbers, limit)
        monkeypatch.setattr(rows, "fresh", fresh)
        with ThreadPoolExecutor(1) as another:
            assert another.submit(chain.seal).result() == 3
        return found

    monkeypatch.setattr(rows, "fresh", slow)
    assert chain.seal_fresh(seen) == 0
    assert (seen.high, chain.verify().last) == (3, 3)


def test_what_was_sealed_long_ago_is_not_looked_at_again(chain: Chain, clock: Clock) -> None:
    sealed(chain)
    clock.now += 601
    with chain.database.reading() as connection:
        assert rows.floor(connection, clock.now - 600) == 5
    write(chain.database, NOW)
    assert chain.seal() == 1


# Whatever is done to it, the first bad place is named.


@pytest.mark.parametrize(
    "change",
    [
        "at = at + 1",
        "act = 'grant.createe'",
        "actor = 'cli:roou'",
        "target = 'grant/y'",
        'details = \'{"name":"y"}\'',
        'details = \'{"name": "x"}\'',
        "id = 1000",
    ],
)
def test_a_row_that_was_changed_is_named(chain: Chain, change: str) -> None:
    tamper(sealed(chain).database, f"UPDATE audit SET {change} WHERE id = 3")
    assert fault(chain)[0] == 3


def test_any_bit_of_a_column_counts(chain: Chain) -> None:
    sealed(chain, 3)
    with chain.database.reading() as connection:
        before = connection.execute(text("SELECT details FROM audit WHERE id = 2")).scalar_one()
    for place in range(len(before)):
        for bit in range(7):
            changed = before[:place] + chr(ord(before[place]) ^ 1 << bit) + before[place + 1 :]
            if "\0" in changed:  # no text on PostgreSQL
                continue
            put(chain, changed)
            assert fault(chain)[0] == 2
    put(chain, before)
    assert chain.verify().fault is None


def put(chain: Chain, details: str) -> None:
    with chain.database.writing() as connection:
        connection.execute(text("UPDATE audit SET details = :d WHERE id = 2"), {"d": details})


def test_a_row_that_was_removed_is_named(chain: Chain) -> None:
    tamper(sealed(chain).database, "DELETE FROM audit WHERE id = 2")
    assert fault(chain) == (2, "the row is missing")


def test_rows_that_changed_places_are_named(chain: Chain) -> None:
    tamper(
        sealed(chain).database,
        "UPDATE audit SET id = 100 WHERE id = 2",
        "UPDATE audit SET id = 2 WHERE id = 4",
        "UPDATE audit SET id = 4 WHERE id = 100",
    )
    assert fault(chain)[0] == 2


def test_a_tail_that_was_cut_off_is_named(chain: Chain) -> None:
    tamper(sealed(chain).database, "DELETE FROM audit WHERE id > 3")
    assert fault(chain) == (4, "the row is missing")
    tamper(chain.database, "DELETE FROM audit_links WHERE position > 3")
    position, why = fault(chain)
    assert position == 4
    assert "a head of position 5" in why


def test_a_tail_that_was_cut_off_with_its_heads_is_named_by_a_head_kept_elsewhere(
    chain: Chain,
) -> None:
    kept = head(sealed(chain, 3))
    sealed(chain, 2)
    tamper(
        chain.database,
        "DELETE FROM audit WHERE id > 2",
        "DELETE FROM audit_links WHERE position > 2",
        "DELETE FROM audit_heads",
    )
    assert fault(chain, expected=[(kept.position, kept.hash)])[0] == 3
    assert fault(chain)[1] == "no signed head is of this row, or of one behind it"


def test_a_chain_that_was_made_anew_is_not_signed(chain: Chain, database: Database) -> None:
    sealed(chain)
    tamper(
        database,
        "UPDATE audit SET actor = 'cli:other' WHERE id = 2",
        "DELETE FROM audit_links",
        "DELETE FROM audit_heads",
    )
    forger = Chain(database=database, keys=HeadKeys.of({"one": b"\1" * 32}), clock=Clock())
    forger.seal()
    assert forger.verify().fault is None
    assert "not signed by this server's key" in fault(chain)[1]


@pytest.mark.parametrize("position", [1, 3, 5])
def test_a_link_that_was_changed_or_removed_is_named(chain: Chain, position: int) -> None:
    sealed(chain)
    with chain.database.writing() as connection:
        connection.execute(
            text("UPDATE audit_links SET hash = :h WHERE position = :p"),
            {"h": bytes(32), "p": position},
        )
    assert fault(chain)[0] == position
    tamper(chain.database, f"DELETE FROM audit_links WHERE position = {position}")
    assert fault(chain)[0] == position


def test_a_head_of_which_anything_was_changed_is_named(chain: Chain) -> None:
    sealed(chain)
    for column, other in (("at", "at + 1"), ("highest_id", "4"), ("key_id", "'two'")):
        with chain.database.reading() as connection:
            query = text(f"SELECT {column} FROM audit_heads")
            before = connection.execute(query).scalar_one()
        tamper(chain.database, f"UPDATE audit_heads SET {column} = {other}")
        assert fault(chain)[0] == 5
        with chain.database.writing() as connection:
            connection.execute(text(f"UPDATE audit_heads SET {column} = :b"), {"b": before})
    assert chain.verify().fault is None


# Deleting what is old.


def pruned(chain: Chain, until: int, step: int = 2, *, dry: bool = False) -> list[int]:
    return list(chain.prune(until, step=step, dry=dry))


def test_what_is_old_goes_and_the_rest_is_a_chain_still(chain: Chain) -> None:
    sealed(chain)
    assert pruned(chain, NOW + 2, dry=True) == [2, 1]
    assert chain.verify().first == 1
    assert pruned(chain, NOW + 2) == [2, 1]
    assert pruned(chain, NOW + 2) == []
    verdict = chain.verify()
    assert (verdict.fault, verdict.first, verdict.last) == (None, 4, 5)
    tamper(chain.database, "UPDATE audit SET at = 1 WHERE id = 4")
    assert fault(chain)[0] == 4


def test_all_of_it_may_go_and_the_chain_goes_on(chain: Chain) -> None:
    sealed(chain)
    assert sum(pruned(chain, NOW + 100)) == 5
    assert chain.verify().fault is None
    sealed(chain, 2)
    verdict = chain.verify()
    assert (verdict.fault, verdict.first, verdict.last) == (None, 6, 7)
    assert sum(pruned(chain, NOW + 100)) == 2
    assert chain.verify().fault is None


def test_what_is_not_sealed_stays(chain: Chain) -> None:
    write(chain.database, NOW)
    assert pruned(chain, NOW + 100) == []
    assert chain.seal() == 1


def test_nobody_else_can_say_that_rows_were_old(chain: Chain) -> None:
    sealed(chain)
    tamper(
        chain.database,
        "DELETE FROM audit WHERE id <= 5",
        "DELETE FROM audit_links WHERE position <= 5",
        "UPDATE audit_heads SET kind = 'pruned'",
    )
    assert "not signed" in fault(chain)[1]


def test_several_may_delete_at_once(chain: Chain) -> None:
    sealed(chain, 20)
    with ThreadPoolExecutor(4) as several:
        gone = several.map(lambda step: pruned(chain, NOW + 14, step), (1, 2, 3, 4))
        assert sum(map(sum, gone)) == 15
    verdict = chain.verify()
    assert (verdict.fault, verdict.first, verdict.last) == (None, 16, 20)


def test_few_heads_are_kept(chain: Chain, clock: Clock) -> None:
    for _ in range(20):
        sealed(chain, 1)
        clock.now += 300
    with chain.database.reading() as connection:
        kept = [(one.kind, one.position) for one in rows.heads(connection, 0)]
    assert len(kept) in {10, 11}
    assert kept[-1] == (HeadKind.SEALED, 20)
    assert chain.verify().fault is None


# In a thread.


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


def a_sealing(chain: Chain, told: list[dict[str, Any]]) -> Sealing:
    def note(_logger: Any, _name: str, event: Any) -> Any:
        told.append(dict(event))
        raise structlog.DropEvent

    log = structlog.wrap_logger(structlog.PrintLogger(), processors=[note])
    return Sealing(chain, monotonic=ambient.monotonic, log=log, every_seconds=0.01)


def test_a_thread_seals_until_it_is_stopped_and_tells_the_head(
    chain: Chain, told: list[dict[str, Any]]
) -> None:
    sealing = a_sealing(chain, told)
    sealing.start()
    write(chain.database, NOW, NOW)
    sealing.stop()
    assert chain.verify().last == 2
    assert told[-1]["event"] == "audit head"
    assert (told[-1]["position"], told[-1]["hash"]) == (2, head(chain).hash.hex())
    assert threading.active_count() >= 1


def test_a_database_that_was_set_back_is_sealed_from_the_next_whole_look_on(
    chain: Chain, told: list[dict[str, Any]]
) -> None:
    sealing = a_sealing(chain, told)
    monotonic = iter([0.0, 0.0, 1.0, 1.0, audit_chain.LOOK_SECONDS, audit_chain.LOOK_SECONDS])
    sealing.monotonic = lambda: next(monotonic)
    write(chain.database, *[NOW] * 5)
    sealing.turn()
    tamper(
        chain.database, *(f"DELETE FROM {one}" for one in ("audit", "audit_links", "audit_heads"))
    )
    tamper(chain.database, a_row(2))
    sealing.turn()
    assert chain.verify().waiting == 1
    sealing.turn()
    assert (chain.verify().last, chain.verify().waiting) == (1, 0)


def test_a_turn_that_failed_is_made_up_for_by_a_whole_look(
    chain: Chain, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing = a_sealing(chain, told)
    sealing.turn()
    write(chain.database, NOW)

    def cut(*_: Any) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(rows, "append", cut)
        sealing.turn()
    sealing.turn()
    assert chain.verify() == Verdict(fault=None, first=1, last=1, head=head(chain), waiting=0)


def test_a_database_that_is_away_is_told_once(
    chain: Chain, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing = a_sealing(chain, told)
    write(chain.database, NOW)

    def away(*_: Any) -> bool:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(rows, "has_waiting", away)
        for _ in range(3):
            sealing.turn()
    assert [one["event"] for one in told] == ["the audit log could not be sealed"]
    sealing.turn()
    assert chain.verify().last == 1
