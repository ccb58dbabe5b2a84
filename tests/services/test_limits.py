import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.audit import Act, Entry
from app.domain.grants import Grant
from app.domain.limits import Allowance
from app.errors import Reason, Refused, Unavailable
from app.services import audit, grants, limits
from app.services.limits import GrantLocks, PeerLimits, network_of
from app.store.engine import Database
from app.store.schema import wrong_codes
from tests.builders import NOW, Stand

ALLOWANCE = Allowance(burst=3, interval=10_000)
HERE = "192.0.2.1"
THERE = "192.0.2.2"


class Monotonic:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def refused(act: Callable[[], None]) -> int | None:
    """Seconds until it is worth another try; None when it was not refused."""
    try:
        act()
    except Refused as error:
        return error.retry_after if error.reason is Reason.RATE_LIMITED else -1
    return None


# Peers.


@pytest.mark.parametrize(
    ("peer", "counts_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "20010db800010002"),
        ("2001:db8:1:2:ffff::9", "20010db800010002"),
        ("2001:db8:1:3::1", "20010db800010003"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("::1", "0000000000000000"),
        ("", ""),
        ("unix:", "unix:"),
        ("a:\x00", "a:\x00"),
        ("\u00e9:", "\u00e9:"),
    ],
)
def test_an_ipv6_client_counts_as_its_network(peer: str, counts_as: str) -> None:
    assert network_of(peer) == counts_as


def test_a_peer_that_has_used_up_its_failures_is_refused_until_it_has_recovered() -> None:
    clock = Monotonic()
    peers = PeerLimits(ALLOWANCE, monotonic=clock)
    for _ in range(3):
        assert refused(lambda: peers.admit(HERE)) is None
        peers.note(HERE, Reason.WRONG_CODE)
    assert refused(lambda: peers.admit(HERE)) == 10
    assert refused(lambda: peers.admit(THERE)) is None
    clock.seconds += 9.5
    assert refused(lambda: peers.admit(HERE)) == 1
    clock.seconds += 0.5
    assert refused(lambda: peers.admit(HERE)) is None
    peers.note(HERE, Reason.WRONG_CODE)
    assert refused(lambda: peers.admit(HERE)) == 10
    clock.seconds += 30
    for _ in range(3):
        assert refused(lambda: peers.admit(HERE)) is None
        peers.note(HERE, Reason.WRONG_CODE)
    assert refused(lambda: peers.admit(HERE)) == 10


def test_the_addresses_of_one_ipv6_network_share_their_failures() -> None:
    peers = PeerLimits(ALLOWANCE, monotonic=Monotonic())
    for number in range(3):
        peers.note(f"2001:db8::{number}", Reason.UNKNOWN_GRANT)
    assert refused(lambda: peers.admit("2001:db8::ffff"))
    assert refused(lambda: peers.admit("2001:db8:0:1::1")) is None


@pytest.mark.parametrize("reason", list(Reason))
def test_only_failures_of_the_peers_own_count(reason: Reason) -> None:
    peers = PeerLimits(Allowance(burst=1, interval=1000), monotonic=Monotonic())
    peers.note(HERE, reason)
    not_its_own = {
        Reason.USED_UP,
        Reason.EXPIRED,
        Reason.REVOKED,
        Reason.RATE_LIMITED,
        Reason.POLICY,
    }
    # Whoever is told these has the key of a certificate that we have issued.
    not_its_own |= {one for one in Reason if one.name.startswith("CERTIFICATE_")}
    not_its_own |= {Reason.RENEWED_TOO_OFTEN}
    assert (refused(lambda: peers.admit(HERE)) is None) == (reason in not_its_own)


def test_without_an_allowance_nobody_is_refused() -> None:
    peers = PeerLimits(None, monotonic=Monotonic())
    for _ in range(1000):
        peers.note(HERE, Reason.WRONG_CODE)
    assert refused(lambda: peers.admit(HERE)) is None


def test_those_that_failed_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_REMEMBERED", 3)
    peers = PeerLimits(Allowance(burst=1, interval=1000), monotonic=Monotonic())
    for peer in ("a", "b", "c", "a", "d"):
        peers.note(peer, Reason.WRONG_CODE)
    known = [peer for peer in "abcd" if refused(lambda peer=peer: peers.admit(peer))]  # type: ignore[misc]
    assert known == ["a", "c", "d"]


# Grants.


@pytest.fixture
def grant(stand: Stand) -> Grant:
    stand.set_site()
    return stand.make_grant().grant


def rows(database: Database) -> dict[str, tuple[int, int]]:
    with database.reading() as connection:
        found = connection.execute(select(wrong_codes))
        return {row.grant_id: (row[1], row.empty_at - NOW * 1000) for row in found}


def told(stand: Stand) -> list[Entry]:
    return [one for one in audit.latest(stand.database, limit=99) if one.act is Act.GRANT_LOCKED]


def during(locks: GrantLocks, act: Callable[[], Awaitable[None] | None]) -> None:
    """Do something on a loop, then close."""

    async def main() -> None:
        waiting = act()
        if waiting is not None:
            await waiting
        await locks.close()

    asyncio.run(main())


def wrong(locks: GrantLocks, grant: Grant, *peers: str) -> None:
    for peer in peers:
        locks.wrong(grant.id, peer)


def test_a_locked_grant_is_closed_to_those_who_were_wrong_and_to_nobody_else(
    stand: Stand, grant: Grant
) -> None:
    locks = stand.locks(ALLOWANCE)

    def act() -> None:
        wrong(locks, grant, HERE, HERE)
        assert refused(lambda: locks.admit(grant.id, HERE)) is None
        wrong(locks, grant, THERE)
        assert refused(lambda: locks.admit(grant.id, HERE)) == 10
        assert refused(lambda: locks.admit(grant.id, THERE)) == 10
        assert refused(lambda: locks.admit(grant.id, "192.0.2.3")) is None
        assert refused(lambda: locks.admit("4" * 36, HERE)) is None
        wrong(locks, grant, "192.0.2.3")  # one guess for each address
        assert refused(lambda: locks.admit(grant.id, "192.0.2.3")) == 10
        stand.clock.now += 10
        assert refused(lambda: locks.admit(grant.id, HERE)) is None
        wrong(locks, grant, HERE)
        assert refused(lambda: locks.admit(grant.id, THERE)) == 10

    during(locks, act)


def test_who_has_shown_the_right_code_is_not_held_to_earlier_errors(
    stand: Stand, grant: Grant
) -> None:
    locks = stand.locks(ALLOWANCE)

    def act() -> None:
        locks.right(grant.id, HERE)
        wrong(locks, grant, HERE, THERE)
        locks.right(grant.id, HERE)
        wrong(locks, grant, *[THERE] * 5)
        assert refused(lambda: locks.admit(grant.id, HERE)) is None
        assert refused(lambda: locks.admit(grant.id, THERE)) == 10

    during(locks, act)


def test_a_clock_that_is_set_back_keeps_nobody_out_for_longer(stand: Stand, grant: Grant) -> None:
    locks = stand.locks(ALLOWANCE)

    def act() -> None:
        wrong(locks, grant, *[HERE] * 3)
        stand.clock.now -= 86_400
        assert refused(lambda: locks.admit(grant.id, HERE)) == 10
        stand.clock.now += 10
        assert refused(lambda: locks.admit(grant.id, HERE)) is None

    during(locks, act)


def test_wrong_codes_are_merged_into_the_database_and_those_of_others_read_back(
    stand: Stand, grant: Grant
) -> None:
    one, other = stand.locks(ALLOWANCE), stand.locks(ALLOWANCE)
    during(other, lambda: wrong(other, grant, HERE))
    assert rows(stand.database) == {grant.id: (1, 10_000)}
    during(one, lambda: wrong(one, grant, *[THERE] * 3))
    assert rows(stand.database) == {grant.id: (4, 30_000)}
    assert refused(lambda: other.admit(grant.id, HERE)) is None  # it has not heard of it yet
    again = stand.locks(ALLOWANCE)
    during(again, lambda: wrong(again, grant, HERE))
    assert refused(lambda: again.admit(grant.id, HERE)) == 10  # after a restart: from the rows
    assert rows(stand.database) == {grant.id: (5, 30_000)}


def counted(monkeypatch: pytest.MonkeyPatch, stand: Stand) -> Counter[str]:
    """Count the transactions that write."""
    found: Counter[str] = Counter()
    writing = type(stand.database).writing

    def count(database: Database, *arguments: Any, **options: Any) -> Any:
        found["writing"] += 1
        return writing(database, *arguments, **options)

    monkeypatch.setattr(type(stand.database), "writing", count)
    return found


def test_however_many_there_are_they_are_written_together(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = stand.make_grant(name="other").grant
    locks = stand.locks(Allowance(burst=1000, interval=1000), merge_seconds=3600.0)
    transactions = counted(monkeypatch, stand)

    def act() -> None:
        for _ in range(500):
            wrong(locks, grant, HERE)
            wrong(locks, other, HERE)

    during(locks, act)
    assert {one: count for one, (count, _) in rows(stand.database).items()} == {
        grant.id: 500,
        other.id: 500,
    }
    assert transactions["writing"] == 1


def test_between_two_merges_is_time(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = stand.locks(ALLOWANCE, merge_seconds=3600.0)
    merged = asyncio.Event()
    merge = GrantLocks._merge_once

    async def merge_once(self: GrantLocks) -> None:
        await merge(self)
        merged.set()

    monkeypatch.setattr(GrantLocks, "_merge_once", merge_once)

    async def act() -> None:
        wrong(locks, grant, HERE)
        await merged.wait()
        assert rows(stand.database)[grant.id][0] == 1
        for _ in range(5):
            wrong(locks, grant, HERE)
            await asyncio.sleep(0)
        assert rows(stand.database)[grant.id][0] == 1

    transactions = counted(monkeypatch, stand)
    during(locks, act)
    assert rows(stand.database)[grant.id][0] == 6
    assert transactions["writing"] == 2


def test_a_lock_is_told_of_once_and_again_only_after_a_rest(
    stand: Stand, grant: Grant, caplog: pytest.LogCaptureFixture
) -> None:
    happened: list[int] = []
    locks = stand.locks(ALLOWANCE, on_lock=lambda: happened.append(stand.clock.now))

    async def merged() -> None:
        if locks._merger is not None:
            await locks._merger

    async def act() -> None:
        for pause in (0, 0, 0, 0, 0, 10, 0, 10, 0, 10, 0, 0):  # under fire: full again and again
            stand.clock.now += pause
            wrong(locks, grant, HERE)
            await merged()
        assert len(happened) == 1
        stand.clock.now += 3600
        for _ in range(3):
            wrong(locks, grant, HERE)
            await merged()

    during(locks, act)
    assert happened == [NOW, NOW + 30 + 3600]
    first, second = told(stand)
    assert (first.at, first.actor, first.target) == (NOW, "server", f"grant/{grant.id}")
    assert first.details == {"wrong_codes": 3}
    assert second.details == {"wrong_codes": 15}
    assert caplog.text.count("grant locked") == 2


def test_a_lock_that_another_replica_has_told_of_is_not_told_of_again(
    stand: Stand, grant: Grant
) -> None:
    one, other = stand.locks(ALLOWANCE), stand.locks(ALLOWANCE)
    during(one, lambda: wrong(one, grant, *[HERE] * 3))
    during(other, lambda: wrong(other, grant, HERE))
    stand.clock.now += 10
    third = stand.locks(ALLOWANCE)
    during(third, lambda: wrong(third, grant, HERE))  # one that was not there: it tells, once
    assert [one.at for one in told(stand)] == [NOW, NOW + 10]


def test_without_an_allowance_nothing_is_locked_or_written(stand: Stand, grant: Grant) -> None:
    locks = stand.locks(None)

    def act() -> None:
        wrong(locks, grant, *[HERE] * 1000)
        locks.right(grant.id, HERE)
        assert refused(lambda: locks.admit(grant.id, HERE)) is None

    during(locks, act)
    assert rows(stand.database) == {}


def test_a_grant_that_was_removed_meanwhile_is_no_trouble(
    stand: Stand, grant: Grant, caplog: pytest.LogCaptureFixture
) -> None:
    other = stand.make_grant(name="other").grant
    locks = stand.locks(ALLOWANCE)
    grants.remove(stand.database, grant.id, actor="x", now=NOW)

    def act() -> None:
        wrong(locks, grant, HERE)
        wrong(locks, other, HERE)

    during(locks, act)
    assert set(rows(stand.database)) == {other.id}
    assert caplog.text == ""


def test_what_could_not_be_written_is_written_later(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    locks = stand.locks(Allowance(burst=100, interval=1000))
    writing = type(stand.database).writing
    failures = 3

    def fail(database: Database, *arguments: Any, **options: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise Unavailable("the disk is full")
        return writing(database, *arguments, **options)

    monkeypatch.setattr(type(stand.database), "writing", fail)

    async def act() -> None:
        wrong(locks, grant, HERE, HERE)
        assert locks._merger is not None
        await locks._merger  # it tries until it has succeeded

    during(locks, act)
    assert failures == 0
    assert rows(stand.database)[grant.id][0] == 2
    assert caplog.text.count("wrong codes cannot be written down") == 1
    assert "the disk is full" in caplog.text


def test_a_database_that_stays_away_does_not_keep_the_server_from_stopping(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("away")

    locks = stand.locks(ALLOWANCE, merge_seconds=3600.0)
    monkeypatch.setattr(type(stand.database), "writing", fail)
    during(locks, lambda: wrong(locks, grant, *[HERE] * 3))
    assert refused(lambda: locks.admit(grant.id, HERE)) == 10


def test_what_is_remembered_is_bounded(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_REMEMBERED", 10)
    locks = stand.locks(Allowance(burst=1, interval=1000))

    def act() -> None:
        for number in range(50):
            locks.wrong(grant.id, f"192.0.2.{number}")
            locks.wrong(f"{number:036}", HERE)
        assert len(locks._failed) == len(locks._buckets) == 10
        assert refused(lambda: locks.admit(grant.id, "192.0.2.49"))
        assert refused(lambda: locks.admit(grant.id, "192.0.2.1")) is None

    during(locks, act)
