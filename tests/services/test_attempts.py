import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.domain.attempts import SEVERAL, Attempt, attempt
from app.domain.audit import Act, Entry
from app.domain.grants import Grant
from app.errors import Lack, Reason, Refused, Unavailable, Unready
from app.services import audit, grants, sites
from app.services.attempts import SPELL_SECONDS, Attempts
from tests.builders import NOW, SUBJECT, Stand, a_claim

ACTS = {Act.GRANT_REFUSED, Act.GRANT_ANSWERED_AGAIN}


@pytest.fixture
def grant(stand: Stand) -> Grant:
    stand.set_site()
    return stand.make_grant(redemptions=1).grant


def made_by(grant: Grant, subject: str = "east", refused: str | None = "used_up") -> Attempt:
    return attempt(grant_id=grant.id, name="l", subject=subject, peer="::1", refused=refused)


def entries(stand: Stand) -> list[Entry]:
    return [one for one in audit.latest(stand.database, limit=999) if one.act in ACTS]


def times(stand: Stand) -> list[Any]:
    return [one.details["times"] for one in entries(stand)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a database does not tell
            await asyncio.sleep(0.005)


def play(stand: Stand, steps: Callable[[Attempts], Awaitable[None]], **changes: Any) -> None:
    async def main() -> None:
        attempts = stand.attempts(**({"write_seconds": 0.01} | changes))
        await steps(attempts)
        await attempts.close()

    asyncio.run(main())


# What a redeemer has written down.


def test_a_refusal_of_the_right_code_is_written_down_with_its_reason(
    stand: Stand, grant: Grant
) -> None:
    async def main() -> None:
        redeemer = stand.redeemer()
        await redeemer.redeem(a_claim(key=grant.id))
        for claim in (
            a_claim(key=grant.id, subject="late", peer="198.51.100.7"),
            a_claim(key=grant.id, presented_code=b"wrong"),
            a_claim(key="unknown"),
        ):
            with pytest.raises(Refused):
                await redeemer.redeem(claim)
        await redeemer.attempts.close()
        await redeemer.ledger.close()

    asyncio.run(main())
    (entry,) = entries(stand)
    assert (entry.act, entry.actor) == (Act.GRANT_REFUSED, "site:late")
    assert entry.details["why"] == Reason.USED_UP.value
    assert entry.details["peer"] == "198.51.100.7"


def test_an_answer_that_was_given_again_is_written_down(stand: Stand, grant: Grant) -> None:
    async def main() -> None:
        redeemer = stand.redeemer()
        for _ in range(3):
            await redeemer.redeem(a_claim(key=grant.id))
        await redeemer.attempts.close()
        await redeemer.ledger.close()

    asyncio.run(main())
    assert {one.act for one in entries(stand)} == {Act.GRANT_ANSWERED_AGAIN}
    assert sum(times(stand)) == 2
    assert entries(stand)[0].actor == f"site:{SUBJECT}"


def test_a_site_that_is_not_ready_is_a_reason_too(stand: Stand, grant: Grant) -> None:
    sites.put(stand.database, name="west", endpoints=[], issuer=None, actor="x", now=NOW)

    async def main() -> None:
        redeemer = stand.redeemer()
        with pytest.raises(Unready):
            await redeemer.redeem(a_claim(key=grant.id))
        await redeemer.attempts.close()
        await redeemer.ledger.close()

    asyncio.run(main())
    assert [one.details["why"] for one in entries(stand)] == [Lack.ENDPOINTS.value]


# How often.


def test_the_first_is_written_at_once_and_those_like_it_together_when_the_spell_is_over(
    stand: Stand, grant: Grant
) -> None:
    async def steps(attempts: Attempts) -> None:
        attempts.note(made_by(grant))
        await until(lambda: times(stand) == [1])
        for _ in range(500):
            attempts.note(made_by(grant))
        attempts.note(made_by(grant, "other"))
        await until(lambda: times(stand) == [1, 1])
        stand.clock.now += SPELL_SECONDS
        await until(lambda: times(stand) == [1, 1, 500])
        attempts.note(made_by(grant))

    play(stand, steps)
    assert times(stand) == [1, 1, 500, 1]


def test_one_that_does_not_come_again_is_forgotten(stand: Stand, grant: Grant) -> None:
    async def steps(attempts: Attempts) -> None:
        attempts.note(made_by(grant))
        await until(lambda: times(stand) == [1])
        stand.clock.now += SPELL_SECONDS
        await until(lambda: attempts._writer is None)
        attempts.note(made_by(grant))
        await until(lambda: times(stand) == [1, 1])

    play(stand, steps)


def test_who_has_the_code_cannot_fill_the_log(stand: Stand, grant: Grant) -> None:
    async def steps(attempts: Attempts) -> None:
        for number in range(3000):
            attempts.note(made_by(grant, f"eve-{number}"))

    play(stand, steps)
    found = entries(stand)
    assert len(found) == 21
    assert sum(times(stand)) == 3000
    assert found[-1].actor == f"site:{SEVERAL}"
    assert found[-1].details["times"] == 2980


def test_many_grants_at_once_are_counted_too_and_memory_is_bounded(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.attempts._MOST_REMEMBERED", 10)
    stand.set_site()
    many = [stand.make_grant(name=f"g{number}").grant for number in range(25)]

    async def steps(attempts: Attempts) -> None:
        for grant in many:
            attempts.note(made_by(grant))
        assert len(attempts._counted) == 20

    play(stand, steps)
    assert [one.actor for one in entries(stand)] == ["site:east"] * 10 + [f"site:{SEVERAL}"] * 10


def test_what_could_not_be_written_is_written_later_and_told_once(
    stand: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[None] = []

    def fail(*_: object) -> None:
        tried.append(None)
        raise Unavailable("the disk is full")

    async def steps(attempts: Attempts) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(type(stand.database), "writing", fail)
            attempts.note(made_by(grant))
            attempts.note(made_by(grant))
            await until(lambda: len(tried) > 3)
        await until(lambda: times(stand) == [2])

    play(stand, steps)
    assert caplog.text.count("attempts cannot be written down") == 1


def test_a_grant_that_is_gone_meanwhile_holds_up_nothing(stand: Stand, grant: Grant) -> None:
    async def steps(attempts: Attempts) -> None:
        grants.remove(stand.database, grant.id, actor="x", now=NOW)
        attempts.note(made_by(grant))

    play(stand, steps)
    assert times(stand) == [1]
