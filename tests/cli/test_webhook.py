import base64

from app.domain.webhooks import Delivery, Failure
from app.store import deliveries, webhooks
from tests.builders import NOW
from tests.cli.conftest import Cli
from tests.domain.test_events import ENTRIES, an_event
from tests.pki import a_root

URL = "https://portal.example.com/hooks/T0KEN"


def create(cli: Cli, *further: str, name: str = "portal") -> str:
    return cli.done("webhook", "create", name, URL, "--event", "redeemed", *further)


def give_up(cli: Cli) -> str:
    """Leave an event behind that the webhook did not take; gives its id."""
    event = an_event(ENTRIES[0])
    with cli.cluster() as cluster, cluster.database.writing() as connection:
        webhook = webhooks.by_name(connection, "portal")
        assert webhook is not None
        one = Delivery(
            webhook_id=webhook.id, position=7, event_id=event.id, body=event.body(), attempts=20,
            next_at=NOW,
        )  # fmt: skip
        deliveries.add(connection, [one])
        deliveries.failed(
            connection, one, status=503, failure=Failure.STATUS, next_at=NOW, dead_at=NOW
        )
    return event.id


def test_the_secret_is_shown_once_and_the_next_command_is_given(cli: Cli) -> None:
    result = cli.run("webhook", "create", "portal", URL, "--event", "theft", "--event", "redeemed")
    assert result.exit_code == 0
    assert "told of redeemed, theft." in result.stdout
    secret = result.stdout.split("whsec_")[1].strip()
    assert len(base64.b64decode(secret)) == 32
    assert "  grantserver webhook show portal\n" in result.stderr
    for words in (("list",), ("show", "portal"), ("list", "-o", "json")):
        assert secret not in cli.done("webhook", *words)
    assert secret not in cli.done("audit", "list", "-o", "json")


def test_a_webhook_is_shown_as_a_document(cli: Cli) -> None:
    made = cli.json(*("webhook", "create", "portal", URL, "--event", "redeemed", "--site", "west"))
    assert made.pop("secret").startswith("whsec_")
    shown = cli.json("webhook", "show", "portal")
    assert shown == {**made, "pending": 0, "dead": 0, "behind": 0}
    assert (shown["url"], shown["events"], shown["sites"]) == (URL, ["redeemed"], ["west"])
    assert (shown["ca"], shown["enabled"]) == (None, True)
    assert cli.json("webhook", "list") == [shown]


def test_a_list_tells_where_events_go_and_not_the_whole_url(cli: Cli) -> None:
    assert cli.done("webhook", "list") == ""
    create(cli)
    lines = cli.done("webhook", "list").splitlines()
    assert lines[0].split() == ["NAME", "TO", "EVENTS", "SITES", "ENABLED", "PENDING", "DEAD"]
    assert lines[1].split() == [
        *("portal", "https://portal.example.com", "redeemed", "(every)", "yes", "0", "0"),
    ]


def test_a_ca_is_read_from_a_file(cli: Cli) -> None:
    (cli.directory / "ca.crt").write_bytes(a_root().pem)
    create(cli, "--ca", "ca.crt")
    assert "a CA of its own" in cli.done("webhook", "show", "portal")
    (cli.directory / "no.crt").write_bytes(b"\xff")
    result = cli.run("webhook", "create", "b", URL, "--event", "theft", "--ca", "no.crt")
    assert (result.exit_code, result.stderr) == (2, "error: ca: it is not in PEM\n")


def test_what_is_wrong_is_said_with_what_to_do(cli: Cli) -> None:
    result = cli.run("webhook", "create", "portal", "http://a.example/", "--event", "theft")
    assert result.exit_code == 2
    assert "error: url: http is only for this machine (localhost): use https" in result.stderr
    result = cli.run("webhook", "show", "portal")
    assert result.exit_code == 1
    assert "`grantserver webhook list` shows what there is" in result.stderr


def test_a_webhook_is_switched_off_and_on_and_removed(cli: Cli) -> None:
    create(cli)
    assert "is disabled" in cli.done("webhook", "disable", "portal")
    assert not cli.json("webhook", "show", "portal")["enabled"]
    assert "is enabled" in cli.done("webhook", "enable", "portal")
    assert cli.json("webhook", "show", "portal")["enabled"]
    assert "is removed" in cli.done("webhook", "remove", "portal")
    assert cli.json("webhook", "list") == []
    acts = [one["act"] for one in cli.json("audit", "list", "--act", "webhook")]
    assert acts == [
        *("webhook.created", "webhook.changed", "webhook.changed", "webhook.removed"),
    ]


def test_what_was_given_up_is_listed_and_sent_anew(cli: Cli) -> None:
    create(cli)
    assert cli.done("webhook", "dead", "portal") == ""
    event_id = give_up(cli)
    lines = cli.done("webhook", "dead", "portal").splitlines()
    assert lines[0].split() == ["ID", "TYPE", "ATTEMPTS", "WHY", "GIVEN", "UP"]
    assert lines[1].split() == [
        *(event_id, "redeemed", "20", "status", "503", "2026-09-21T14:13:20Z"),
    ]
    (document,) = cli.json("webhook", "dead", "portal")
    assert document["event"]["id"] == event_id
    assert (document["status"], document["failure"]) == (503, "status")
    shown = cli.run("webhook", "show", "portal")
    assert "  grantserver webhook redeliver portal\n" in shown.stderr
    wrong = cli.run("webhook", "redeliver", "portal", "8-" + "0" * 16)
    assert wrong.exit_code == 1
    assert "`grantserver webhook dead NAME` shows what there is" in wrong.stderr
    said = cli.done("webhook", "redeliver", "portal", event_id)
    assert said == "1 event is on the way to webhook portal.\n"
    assert cli.json("webhook", "show", "portal")["pending"] == 1
    assert "0 events are" in cli.done("webhook", "redeliver", "portal")
