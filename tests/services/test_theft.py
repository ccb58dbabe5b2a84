import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from app.domain.audit import Act, Entry
from app.domain.grants import Grant
from app.domain.theft import Suspicion
from app.errors import Unavailable
from app.services import audit, grants, theft
from app.services.theft import TheftAlarm, suspected, suspected_grants
from app.store.suspicions import MOST
from tests.builders import NOW, SUBJECT, Stand, a_claim, a_suspicion


@pytest.fixture
def grant(stand: Stand) -> Grant:
    """A grant of one redemption, which SUBJECT has used."""
    stand.set_site()
    made = stand.make_grant(redemptions=1).grant

    async def main() -> None:
        redeemer = stand.redeemer()
        await redeemer.redeem(a_claim(key=made.id))
        await redeemer.ledger.close()

    asyncio.run(main())
    return replace(made, spent=1)


def raise_for(alarm: TheftAlarm, *later: Suspicion) -> None:
    async def main() -> None:
        for one in later:
            await alarm.suspect(one)
        await alarm.close()

    asyncio.run(main())


def entries(stand: Stand, grant: Grant) -> list[Entry]:
    found = audit.latest(stand.database, limit=99, target=f"grant/{grant.id}")
    acts = {Act.GRANT_THEFT_SUSPECTED, Act.GRANT_CERTIFICATES_REVOKED}
    return [one for one in found if one.act in acts]


def test_a_stranger_is_written_down_with_who_came_first(
    stand: Stand, grant: Grant, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[None] = []
    later = a_suspicion(grant_id=grant.id, at=NOW + 5)
    raise_for(stand.thefts(on_suspicion=lambda: counted.append(None)), later)
    found = suspected(stand.database, grant.id)
    assert found is not None
    assert found.later == (later,)
    assert found.first == grants.show(stand.database, grant.id)[1][0]
    (entry,) = entries(stand, grant)
    assert (entry.at, entry.act) == (NOW + 5, Act.GRANT_THEFT_SUSPECTED)
    assert entry.details["first_subject"] == SUBJECT
    assert entry.details["later_subject"] == "mallory"
    assert len(counted) == 1
    assert suspected_grants(stand.database) == {grant.id}
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for fact in ("suspected token theft", grant.id, SUBJECT, "mallory", "198.51.100.66"):
        assert fact in caplog.text


def test_one_that_comes_again_is_written_down_once_also_after_a_restart(
    stand: Stand, grant: Grant
) -> None:
    later = a_suspicion(grant_id=grant.id)
    raise_for(stand.thefts(), later, replace(later, at=NOW + 9, name="other"))
    raise_for(stand.thefts(), replace(later, at=NOW + 99))
    assert len(entries(stand, grant)) == 1
    raise_for(stand.thefts(), replace(later, peer="::1"))
    assert len(entries(stand, grant)) == 2


def test_who_has_redeemed_the_grant_is_not_suspected(stand: Stand, grant: Grant) -> None:
    raise_for(stand.thefts(revoke=True), a_suspicion(grant_id=grant.id, subject=SUBJECT))
    assert suspected(stand.database, grant.id) is None
    assert suspected_grants(stand.database) == frozenset()
    assert entries(stand, grant) == []


def test_nobody_can_fill_the_disk(stand: Stand, grant: Grant) -> None:
    many = [a_suspicion(grant_id=grant.id, subject=f"eve-{number}") for number in range(60)]
    raise_for(stand.thefts(), *many)
    assert len(entries(stand, grant)) == MOST


def test_certificates_are_marked_only_where_that_is_wanted(stand: Stand, grant: Grant) -> None:
    raise_for(stand.thefts(), a_suspicion(grant_id=grant.id))
    assert [one.revoked_at for one in grants.show(stand.database, grant.id)[1]] == [None]
    others = [a_suspicion(grant_id=grant.id, subject=subject) for subject in ("eve", "eva")]
    raise_for(stand.thefts(revoke=True), *[replace(one, at=NOW + 7) for one in others])
    assert [one.revoked_at for one in grants.show(stand.database, grant.id)[1]] == [NOW + 7]
    revoked = [one for one in entries(stand, grant) if one.act is Act.GRANT_CERTIFICATES_REVOKED]
    assert [one.details for one in revoked] == [{"certificates": 1, "why": "suspected token theft"}]


def test_those_that_come_at_once_share_a_transaction(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = stand.thefts()
    write = TheftAlarm._write
    batches: list[int] = []

    def count(self: TheftAlarm, batch: Any) -> Any:
        batches.append(len(batch))
        return write(self, batch)

    monkeypatch.setattr(TheftAlarm, "_write", count)

    async def main() -> None:
        many = [a_suspicion(grant_id=grant.id, subject=f"eve-{number}") for number in range(15)]
        await asyncio.gather(*map(alarm.suspect, many * 2))

    asyncio.run(main())
    assert sum(batches) == 15
    assert len(batches) <= 2
    assert len(entries(stand, grant)) == 15


def test_a_failure_is_told_in_the_log_and_the_next_one_tries_again(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alarm = stand.thefts()
    later = a_suspicion(grant_id=grant.id)

    def fail(*_: object) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(type(stand.database), "writing", fail)
        raise_for(alarm, later)
    assert "suspected token theft could not be written down" in caplog.text
    assert "the disk is full" in caplog.text
    assert entries(stand, grant) == []
    raise_for(alarm, later)
    assert len(entries(stand, grant)) == 1


def slow(monkeypatch: pytest.MonkeyPatch, go_on: threading.Event) -> None:
    """Let nothing be written before it is told to go on."""
    write = TheftAlarm._write

    def wait(self: TheftAlarm, batch: Any) -> Any:
        assert go_on.wait(60)
        return write(self, batch)

    monkeypatch.setattr(TheftAlarm, "_write", wait)


def test_an_answer_does_not_wait_for_a_slow_database(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theft, "_PATIENCE", 0.001)
    go_on = threading.Event()
    slow(monkeypatch, go_on)
    alarm = stand.thefts()

    async def main() -> None:
        await alarm.suspect(a_suspicion(grant_id=grant.id))
        assert entries(stand, grant) == []
        go_on.set()
        await alarm.close()

    asyncio.run(main())
    assert len(entries(stand, grant)) == 1


def test_what_waits_and_what_is_remembered_is_bounded(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theft, "_MOST_WAITING", 5)
    monkeypatch.setattr(theft, "_MOST_REMEMBERED", 3)
    go_on = threading.Event()
    slow(monkeypatch, go_on)
    alarm = stand.thefts()

    async def main() -> None:
        many = [a_suspicion(grant_id=grant.id, subject=f"eve-{number}") for number in range(50)]
        waiting = [asyncio.create_task(alarm.suspect(one)) for one in many]
        await asyncio.sleep(0)
        assert len(alarm._waiting) <= 5
        assert len(alarm._seen) <= 3
        go_on.set()
        await asyncio.gather(*waiting)
        await alarm.close()

    asyncio.run(main())
    assert len(entries(stand, grant)) == 5


def test_a_request_that_is_cut_does_not_cut_the_alarm(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    slow(monkeypatch, go_on)
    alarm = stand.thefts()

    async def main() -> None:
        request = asyncio.create_task(alarm.suspect(a_suspicion(grant_id=grant.id)))
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        go_on.set()
        await alarm.close()

    asyncio.run(main())
    assert len(entries(stand, grant)) == 1
