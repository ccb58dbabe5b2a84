import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app import ambient
from app.domain.webhooks import MOST_ATTEMPTS, Failure
from app.errors import Unavailable
from app.logs import get_logger
from app.metrics import Delivering
from app.posting import Posted, post
from app.services import dispatch, webhooks
from app.services.courier import Courier
from app.services.dispatch import CLAIM_SECONDS
from app.services.webhooks import Created
from tests.builders import CODE, NOW, Stand, a_claim
from tests.services.test_attempts import until
from tests.services.test_events import a_redeemed, a_theft, write
from tests.services.test_webhooks import create
from tests.strangers import Asked, Stranger, a_stranger

HOOK_PATH = "/hooks/T0KEN"


@dataclass(kw_only=True)
class Office:
    """A server's database, with couriers of it that come and go."""

    stand: Stand
    receiver: Stranger
    grant_id: str
    outcomes: list[Delivering] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)

    def courier(self, **changes: Any) -> Courier:
        made: dict[str, Any] = {
            "database": self.stand.database,
            "keyring": self.stand.keyring,
            "clock": self.stand.clock,
            "random_bytes": ambient.random_bytes,
            "log": get_logger("webhooks"),
            "on_outcome": self.outcomes.append,
            "on_pending": self.pending.append,
        }
        return Courier(**(made | changes))

    def subscribe(self, name: str = "portal", **changes: Any) -> Created:
        made = {"url": self.receiver.url + HOOK_PATH, "ca_pem": self.receiver.ca_pem}
        return create(self.stand, name, **(made | changes))

    def happen(self, times: int = 1) -> None:
        write(self.stand.database, *(a_redeemed(self.grant_id) for _ in range(times)))

    def standing(self, name: str = "portal") -> tuple[int, int]:
        found = webhooks.show(self.stand.database, name)
        return found.pending, found.dead

    @property
    def heard(self) -> list[str]:
        return [asked.headers["webhook-id"] for asked in self.receiver.asked]


@pytest.fixture
def office(stand: Stand, tmp_path: Path) -> Iterator[Office]:
    stand.set_site()
    grant_id = stand.make_grant().grant.id
    with a_stranger(tmp_path) as receiver:
        receiver.say = lambda _: (200, b"")
        write(stand.database)
        yield Office(stand=stand, receiver=receiver, grant_id=grant_id)


def carry(courier: Courier) -> None:
    """Let a courier do all that is to be done at this moment."""

    async def main() -> None:
        while await courier.turn() or courier._flights or courier._returned:
            await courier.settle()

    asyncio.run(main())


def verify(asked: Asked, secret: str) -> dict[str, Any]:
    """Be a receiver that trusts nobody without the secret."""
    key = base64.b64decode(secret.split("_", 1)[1])
    message = b".".join(
        [
            asked.headers["webhook-id"].encode(),
            asked.headers["webhook-timestamp"].encode(),
            asked.body,
        ]
    )
    expected = base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()
    assert asked.headers["webhook-signature"] == f"v1,{expected}"
    found: dict[str, Any] = json.loads(asked.body)
    assert found["id"] == asked.headers["webhook-id"]
    return found


def test_a_redemption_is_told_signed_and_once(office: Office) -> None:
    made = office.subscribe()
    stand = office.stand

    async def redeem() -> None:
        redeemer = stand.redeemer()
        await redeemer.redeem(a_claim(key=office.grant_id))
        await redeemer.ledger.close()

    asyncio.run(redeem())
    write(stand.database)  # and sealed
    for _ in range(2):
        carry(office.courier())
    (asked,) = office.receiver.asked
    assert asked.path == HOOK_PATH
    assert asked.headers["webhook-timestamp"] == str(NOW)
    told = verify(asked, made.secret)
    assert (told["type"], told["ordinal"], told["name"]) == ("redeemed", 1, "east")
    assert told["grant"] == {"id": office.grant_id, "name": "to-west", "site": "west"}
    assert office.outcomes == [Delivering.DELIVERED]
    assert office.standing() == (0, 0)


def test_nothing_secret_is_in_a_body_or_in_the_log(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    made = office.subscribe()
    office.happen()
    office.receiver.say = lambda _: (500, b"what the receiver says stays there")
    courier = office.courier()
    carry(courier)
    (asked,) = office.receiver.asked
    for secret in (CODE, made.secret, "BEGIN"):
        assert secret not in asked.body.decode()
    (record,) = caplog.records
    assert "a webhook takes no events" in record.getMessage()
    for secret in (CODE, made.secret, "T0KEN", "stays there", str(NOW)):
        assert secret not in caplog.text
    assert made.secret not in repr(courier)


def test_an_event_survives_a_courier_that_is_killed_after_it_has_posted(office: Office) -> None:
    office.subscribe()
    office.happen()

    async def killed() -> None:
        courier = office.courier()
        await courier.turn()
        await courier.settle()  # it has arrived, and nobody ever writes that down

    asyncio.run(killed())
    office.stand.clock.now += CLAIM_SECONDS - 1
    carry(office.courier())
    assert len(office.heard) == 1
    office.stand.clock.now += 1
    carry(office.courier())
    first, second = office.receiver.asked
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert office.standing() == (0, 0)


def test_what_happened_while_no_courier_was_there_is_told_by_the_next(office: Office) -> None:
    office.subscribe()
    office.happen(3)
    carry(office.courier())
    office.happen(20)
    carry(office.courier())
    assert len(office.heard) == len(set(office.heard)) == 23


def test_several_couriers_send_each_event_once(office: Office) -> None:
    office.subscribe()
    office.happen(12)
    couriers = [office.courier() for _ in range(3)]

    async def main() -> None:
        while len(office.heard) < 12:
            await asyncio.gather(*(one.turn() for one in couriers))
            for one in couriers:
                await one.settle()
        for one in couriers:
            await one.turn()

    asyncio.run(main())
    assert len(office.heard) == len(set(office.heard)) == 12
    assert office.standing() == (0, 0)


def test_a_receiver_that_does_not_answer_holds_up_no_other(office: Office) -> None:
    office.subscribe("dead", url="https://dead.example/")
    office.subscribe("well")
    office.happen(12)
    held: list[str] = []

    async def main() -> None:
        released = asyncio.Event()

        async def either(url: str, **message: Any) -> Posted:
            if "dead" not in url:
                return await post(url, **message)
            held.append(message["headers"]["webhook-id"])
            await released.wait()
            return Posted(failure=Failure.TIMEOUT)

        courier = office.courier(post=either)
        while len(office.heard) < 12:
            await courier.turn()
            await asyncio.wait(list(courier._flights), return_when="FIRST_COMPLETED")
        assert len(held) == dispatch.MOST_OF_ONE
        released.set()
        await courier.settle()
        await courier.turn()

    asyncio.run(main())
    assert office.standing("well") == (0, 0)
    assert office.standing("dead") == (12, 0)


def test_who_fails_is_tried_with_one_event_at_a_time(office: Office) -> None:
    office.subscribe()
    office.happen(9)
    office.receiver.say = lambda _: (503, b"")
    courier = office.courier()

    async def main() -> None:
        await courier.turn()
        await courier.settle()
        assert len(office.heard) == dispatch.MOST_OF_ONE
        for tried in (1, 2, 3):
            await courier.turn()
            await courier.settle()
            assert len(office.heard) == dispatch.MOST_OF_ONE + tried

    asyncio.run(main())


def test_an_event_is_given_up_after_the_last_attempt_and_sent_anew_when_somebody_says_so(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    office.subscribe()
    office.happen()
    office.receiver.say = lambda _: (500, b"")
    courier = office.courier()
    for _ in range(MOST_ATTEMPTS + 3):
        carry(courier)
        office.stand.clock.now += 3600
    assert len(office.heard) == MOST_ATTEMPTS
    assert office.outcomes == [Delivering.FAILED] * (MOST_ATTEMPTS - 1) + [Delivering.DEAD]
    assert office.standing() == (0, 1)
    (dead,) = webhooks.dead(office.stand.database, "portal")
    assert (dead.status, dead.failure) == (500, Failure.STATUS)
    assert "an event was given up" in caplog.text
    office.receiver.say = lambda _: (200, b"")
    webhooks.redeliver(
        office.stand.database, "portal", actor="cli:test", now=office.stand.clock.now
    )
    carry(courier)
    assert len(office.heard) == MOST_ATTEMPTS + 1
    assert len(set(office.heard)) == 1
    assert office.standing() == (0, 0)
    assert "a webhook takes events again" in caplog.text


def test_who_says_gone_is_told_nothing_more_until_it_is_enabled(office: Office) -> None:
    office.subscribe()
    office.happen()
    office.receiver.say = lambda _: (410, b"")
    courier = office.courier()
    carry(courier)
    office.happen()
    office.stand.clock.now += 3600
    carry(courier)
    assert len(office.heard) == 1
    assert not webhooks.show(office.stand.database, "portal").webhook.enabled
    office.receiver.say = lambda _: (200, b"")
    webhooks.change(office.stand.database, "portal", enabled=True, actor="cli:test", now=NOW + 3600)
    carry(courier)
    assert len(set(office.heard)) == 2
    assert office.standing() == (0, 0)


def test_one_is_told_of_what_it_wants_and_of_its_sites(office: Office) -> None:
    office.subscribe("thefts", events=["theft"])
    office.subscribe("east", events=["theft", "redeemed"], sites=["east"])
    office.happen()
    write(office.stand.database, a_theft(office.grant_id))
    carry(office.courier())
    (asked,) = office.receiver.asked
    assert json.loads(asked.body)["type"] == "theft"


def test_of_a_backlog_no_more_is_handed_out_than_is_told_soon(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.courier.MOST_WAITING", 5)
    monkeypatch.setattr(dispatch, "_STEP", 5)
    office.subscribe()
    office.happen(30)
    carry(office.courier())
    assert len(set(office.heard)) == 30
    assert max(office.pending) <= 10


def test_while_the_database_is_away_nothing_that_came_back_is_lost(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    office.subscribe()
    office.happen()
    courier = office.courier()

    def away(*_: object) -> Any:
        raise Unavailable("the database is away")

    async def main() -> None:
        await courier.turn()
        await courier.settle()
        with monkeypatch.context() as patched:
            patched.setattr(type(office.stand.database), "reading", away)
            assert not await courier.turn()
            assert not await courier.turn()
        await courier.turn()

    asyncio.run(main())
    assert office.standing() == (0, 0)
    assert caplog.text.count("events cannot be handed out") == 1


def test_a_secret_that_cannot_be_opened_is_a_failure_like_any_other(office: Office) -> None:
    office.subscribe()
    office.happen()
    other = type(office.stand.keyring)(path=Path("x"), keys={"00000000": bytes(32)})
    carry(office.courier(keyring=other))
    assert office.receiver.asked == []
    assert office.outcomes == [Delivering.FAILED]


def test_it_goes_on_by_itself_and_notes_what_was_answered_when_it_is_ended(
    office: Office,
) -> None:
    office.subscribe()
    office.happen(2)

    async def main() -> None:
        arrived, hang = asyncio.Event(), asyncio.Event()

        async def one_answers(url: str, **message: Any) -> Posted:
            if arrived.is_set():
                await hang.wait()
            arrived.set()
            return await post(url, **message)

        task = asyncio.create_task(office.courier(post=one_answers).run())
        await until(lambda: len(office.heard) == 1 and office.standing() == (1, 0))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    assert office.standing() == (1, 0)
    office.stand.clock.now += CLAIM_SECONDS
    carry(office.courier())
    assert len(set(office.heard)) == 2
