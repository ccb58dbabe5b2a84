import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.crew import eventually
from tests.running import Server, running
from tests.web.admin.conftest import Desk

Told = list[dict[str, Any]]


@contextlib.contextmanager
def following(
    server: Server, token: str, query: str = "", headers: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    assert server.addresses.admin is not None
    host, port = server.addresses.admin
    connection = http.client.HTTPSConnection(host, port, context=server.context, timeout=20)
    try:
        connection.request(
            "GET",
            f"/api/v1/events?{query}",
            headers={"Authorization": f"Bearer {token}"} | dict(headers or {}),
        )
        yield connection.getresponse()
    finally:
        connection.close()


def event(response: http.client.HTTPResponse) -> dict[str, str]:
    """Read up to the end of the next event."""
    found: dict[str, str] = {}
    while True:
        line = response.readline().decode().rstrip("\n")
        if not line and "data" in found:
            return found
        name, _, value = line.partition(": ")
        if name:
            found[name] = value


def told(server: Server, token: str, query: str = "", **headers: str) -> Told:
    """All that there is behind an event."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with following(server, token, f"seconds=0&{query}", named) as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.read().decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_what_happens_is_told_when_it_does_and_again_to_who_was_away(desk: Desk) -> None:
    server = desk.server
    first, second = server.issue("streamed-1"), server.issue("streamed-2")
    with following(server, desk.token, "type=redeemed&site=west") as response:
        assert response.status == 200
        assert response.readline() == b"retry: 2000\n"
        assert server.redeem(first).status == 200
        one = event(response)
    assert one["event"] == "redeemed"
    assert json.loads(one["data"])["id"] == one["id"]
    assert json.loads(one["data"])["grant"]["name"] == "streamed-1"
    assert first.code not in one["data"]
    assert server.redeem(second).status == 200

    def later() -> Told:
        return told(server, desk.token, "type=redeemed", Last_Event_ID=one["id"])

    assert eventually(lambda: [one["grant"]["name"] for one in later()] == ["streamed-2"])


def test_a_stream_tells_of_what_the_caller_may_read(desk: Desk) -> None:
    server = desk.server
    assert server.redeem(server.issue("for-west")).status == 200
    everything = f"0-{'0' * 16}"

    def names(token: str, query: str = "") -> list[str]:
        found = told(server, token, query, Last_Event_ID=everything)
        return [one["grant"]["name"] for one in found]

    assert eventually(lambda: "for-west" in names(desk.token))
    assert names(server.admin_token("read", sites=["east"])) == []
    assert names(desk.token, "site=east") == []
    assert "for-west" in names(server.admin_token("read", sites=["west"]))
    assert names(server.admin_token("create")) == []


def test_what_is_no_id_of_an_event_is_refused(desk: Desk) -> None:
    answer = desk("GET", "/events?seconds=0", headers={"Last-Event-ID": "x"})
    assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "lastEventId")
    for query in ("seconds=3601", "type=x", "sites=west"):
        assert desk("GET", f"/events?{query}").status == 400


def test_a_stream_ends_with_the_token_that_it_was_asked_for_with(
    desk: Desk, monkeypatch: Any
) -> None:
    monkeypatch.setattr("app.web.admin.events.KNOWN_SECONDS", 0.0)
    wish = {"name": "streaming", "verbs": ["read"], "sites": ["*"]}
    token = desk("POST", "/admin-tokens", wish).json()["secret"]
    with following(desk.server, token) as response:
        assert response.readline() == b"retry: 2000\n"
        assert desk("DELETE", "/admin-tokens/streaming").status == 200
        response.read()  # to the end


def test_a_stream_does_not_hold_up_the_end_of_the_server(tmp_path: Any) -> None:
    with (
        running(tmp_path, GRANTSERVER_LISTEN_ADMIN="127.0.0.1:0") as server,
        following(server, server.admin_token("read")) as response,
    ):
        assert response.readline() == b"retry: 2000\n"
        server.stop()
        response.read()
