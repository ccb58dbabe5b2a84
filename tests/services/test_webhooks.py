import base64
from typing import Any

import pytest

from app import ambient
from app.domain.events import EventType
from app.domain.webhooks import MOST_WEBHOOKS, Delivery, Failure
from app.errors import Conflict, Invalid, Missing
from app.services import audit, events, maintenance, webhooks
from app.services.webhooks import Created, Wish
from app.store import deliveries
from tests.builders import NOW, Stand
from tests.services.test_events import a_redeemed, write

WISHED = ("url", "events", "sites", "ca_pem")
URL = "https://portal.example:8443/hooks/T0KEN"


def create(stand: Stand, name: str = "portal", **changes: Any) -> Created:
    made: dict[str, Any] = {
        "url": URL, "events": ["redeemed"], "actor": "cli:test", "now": NOW,
        "random_bytes": ambient.random_bytes,
    }  # fmt: skip
    made |= changes
    wish = Wish(name=name, **{key: made.pop(key) for key in WISHED if key in made})
    return webhooks.create(stand.database, stand.keyring, wish, **made)


def give_up(stand: Stand, created: Created, position: int) -> Delivery:
    """Leave an event behind that the webhook did not take."""
    one = Delivery(
        webhook_id=created.webhook.id, position=position, event_id=f"{position}-{'ab' * 8}",
        body="{}", attempts=20, next_at=NOW,
    )  # fmt: skip
    with stand.database.writing() as connection:
        deliveries.add(connection, [one])
        deliveries.failed(
            connection, one, status=500, failure=Failure.STATUS, next_at=NOW, dead_at=NOW
        )
    return one


def acts(stand: Stand) -> list[tuple[str, Any]]:
    found = audit.latest(stand.database, limit=99, act="webhook")
    assert {one.target for one in found} <= {"webhook/portal"}
    assert {one.actor for one in found} <= {"cli:test"}
    return [(one.act.value, dict(one.details)) for one in found]


def test_a_webhook_is_told_of_what_happens_from_now_on(stand: Stand) -> None:
    write(stand.database, a_redeemed())
    made = create(stand, events=["theft", "redeemed"], sites=["west"])
    assert made.webhook.position == events.newest(stand.database) > 0
    found = webhooks.show(stand.database, "portal")
    assert found.webhook == made.webhook
    assert (found.pending, found.dead, found.behind) == (0, 0, 0)
    assert found.webhook.events == {EventType.REDEEMED, EventType.THEFT}
    assert webhooks.every(stand.database) == [found]
    write(stand.database, a_redeemed())
    assert webhooks.show(stand.database, "portal").behind == 2  # the webhook itself is an entry


def test_the_secret_is_shown_once_and_kept_sealed(stand: Stand) -> None:
    made = create(stand)
    secret = base64.b64decode(made.secret.removeprefix("whsec_"))
    assert len(secret) == 32
    sealed = made.webhook.sealed_secret
    assert stand.keyring.open(sealed, purpose=webhooks.secret_purpose(made.webhook.id)) == secret
    assert secret not in stand.database.sqlite.path.read_bytes()
    for shown in (repr(made), str(webhooks.show(stand.database, "portal")), str(acts(stand))):
        assert made.secret not in shown
        assert "T0KEN" not in shown


def test_the_check_of_the_database_tries_whether_secrets_can_be_opened(stand: Stand) -> None:
    made = create(stand)
    assert any(
        purpose == webhooks.secret_purpose(made.webhook.id)
        for purpose, _ in maintenance._sealed_values(stand.database)
    )


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("name", {"name": "Portal"}),
        ("url", {"url": "http://portal.example/"}),
        ("events", {"events": ["created"]}),
        ("sites", {"sites": ["a b"]}),
        ("ca", {"ca_pem": "no certificate"}),
        ("ca", {"ca_pem": ""}),
        ("ca", {"ca_pem": "ä"}),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(
    stand: Stand, field: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(Invalid) as refused:
        create(stand, **changes)
    assert refused.value.field == field
    assert webhooks.every(stand.database) == []


def test_a_name_is_given_once_and_there_are_not_endlessly_many(stand: Stand) -> None:
    create(stand)
    with pytest.raises(Conflict, match="already"):
        create(stand)
    for number in range(1, MOST_WEBHOOKS):
        create(stand, f"w{number}")
    with pytest.raises(Conflict, match="the most"):
        create(stand, "one-more")
    assert len(webhooks.every(stand.database)) == MOST_WEBHOOKS


def test_what_is_changed_is_written_down_and_what_is_not_is_not(stand: Stand) -> None:
    create(stand)

    def change(**changes: Any) -> Any:
        return webhooks.change(stand.database, "portal", actor="cli:test", now=NOW, **changes)

    assert change(enabled=True, events=["redeemed"]).enabled
    changed = change(enabled=False, events=["refused"])
    assert (changed.enabled, changed.events) == (False, {EventType.REFUSED})
    assert webhooks.show(stand.database, "portal").webhook == changed
    change(enabled=True)
    webhooks.remove(stand.database, "portal", actor="cli:test", now=NOW)
    assert acts(stand) == [
        ("webhook.created", {"to": "https://portal.example:8443", "events": "redeemed"}),
        ("webhook.changed", {"enabled": "no", "events": "refused"}),
        ("webhook.changed", {"enabled": "yes"}),
        ("webhook.removed", {}),
    ]
    with pytest.raises(Invalid, match="events"):
        change(events=[])


def test_what_is_not_there_is_missing(stand: Stand) -> None:
    database = stand.database
    for use in (
        lambda: webhooks.show(database, "portal"),
        lambda: webhooks.change(database, "portal", enabled=True, actor="a", now=NOW),
        lambda: webhooks.remove(database, "portal", actor="a", now=NOW),
        lambda: webhooks.dead(database, "portal"),
        lambda: webhooks.redeliver(database, "portal", actor="a", now=NOW),
    ):
        with pytest.raises(Missing, match='no webhook "portal"'):
            use()


def test_what_was_given_up_can_be_sent_anew(stand: Stand) -> None:
    made = create(stand)
    first, *others = [give_up(stand, made, position) for position in (5, 6, 7)]
    database = stand.database
    assert [one.position for one in webhooks.dead(database, "portal")] == [5, 6, 7]
    assert len(webhooks.dead(database, "portal", limit=2)) == 2

    def redeliver(event_id: str | None = None) -> int:
        return webhooks.redeliver(
            database, "portal", event_id=event_id, actor="cli:test", now=NOW + 9
        )

    assert redeliver(first.event_id) == 1
    standing = webhooks.show(database, "portal")
    assert (standing.pending, standing.dead) == (1, 2)
    with pytest.raises(Missing, match="dead delivery"):
        redeliver(first.event_id)
    with pytest.raises(Missing, match="dead delivery"):
        redeliver(others[0].event_id.replace("a", "c"))
    with pytest.raises(Invalid):
        redeliver("6")
    assert (redeliver(), redeliver()) == (2, 0)
    assert [facts for act, facts in acts(stand) if act == "webhook.redelivered"] == [
        {"deliveries": 1},
        {"deliveries": 2},
    ]
