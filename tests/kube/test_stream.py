import json
from typing import Any

import pytest

from app.errors import GrantServerError, Missing, Unavailable
from app.kube import stream as app_stream
from app.kube.stream import Event
from tests.kube.clients import CONFIG_MAPS, Scripted, broken_off, run, stream

Told = tuple[Event, str, str]


def line(kind: str, name: str = "a", version: str = "1", **more: Any) -> bytes:
    metadata = {"name": name, "resourceVersion": version}
    return json.dumps({"type": kind, "object": {"metadata": metadata, **more}}).encode() + b"\n"


def watched(
    *answer: bytes | None, watch_seconds: int = 290, idle_seconds: float = 20.0
) -> tuple[list[Told], GrantServerError | None]:
    """What a watch tells that is answered so, and how it ends."""

    async def main() -> tuple[list[Told], GrantServerError | None]:
        told: list[Told] = []
        async with Scripted(list(answer)) as server, server.client() as kube:
            try:
                async with kube.watch(
                    CONFIG_MAPS,
                    version="0",
                    watch_seconds=watch_seconds,
                    idle_seconds=idle_seconds,
                ) as events:
                    async for seen in events:
                        name = seen.found["metadata"].get("name", "")
                        told.append((seen.event, name, seen.version))
            except GrantServerError as error:
                return told, error
            return told, None

    return run(main())


def test_events_are_told_in_their_order() -> None:
    lines = [line("ADDED", "a", "1"), line("MODIFIED", "a", "2"), line("DELETED", "a", "3")]
    told, error = watched(*stream(*lines))
    assert told == [
        (Event.ADDED, "a", "1"),
        (Event.MODIFIED, "a", "2"),
        (Event.DELETED, "a", "3"),
    ]
    assert error is None


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_events_are_put_together_however_they_are_cut(size: int) -> None:
    whole = line("ADDED", "ä") + b"\n" + line("BOOKMARK", "", "2") + line("DELETED", "ö", "3")
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    told, error = watched(*stream(*pieces))
    assert told == [(Event.ADDED, "ä", "1"), (Event.BOOKMARK, "", "2"), (Event.DELETED, "ö", "3")]
    assert error is None


@pytest.mark.parametrize(
    "unknown",
    [
        line("REPLACED"),
        b'{"object": {}}\n',
        b'{"type": "ADDED", "object": {}}\n',
        b'{"type": "ADDED", "object": {"metadata": 7}}\n',
        b'{"type": ["ADDED"], "object": {"metadata": {"resourceVersion": "1"}}}\n',
    ],
)
def test_an_event_that_is_not_understood_is_passed_over(unknown: bytes) -> None:
    told, error = watched(*stream(line("ADDED", "a"), unknown, line("ADDED", "b")))
    assert [name for _, name, _ in told] == ["a", "b"]
    assert error is None


@pytest.mark.parametrize(
    "nonsense",
    [b"<html>\n", b"[]\n", b"7\n", b'{"type": "ADDED"}\n', b'{"object": []}\n', b"\xff\n"],
)
def test_what_is_no_event_ends_the_watch(nonsense: bytes) -> None:
    told, error = watched(*stream(line("ADDED"), nonsense, line("ADDED")))
    assert len(told) == 1
    assert str(error) == "watch configmaps: the API server does not answer in JSON"


def error_event(code: object, reason: str) -> bytes:
    status = {"kind": "Status", "code": code, "reason": reason, "message": "s3cret"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def test_a_version_that_is_too_old_is_missing() -> None:
    told, error = watched(*stream(line("ADDED"), error_event(410, "Expired")))
    assert len(told) == 1
    assert isinstance(error, Missing)
    assert str(error) == 'no version of configmaps "0"'


@pytest.mark.parametrize(
    ("code", "said"), [(500, "500 InternalError"), (None, "0 InternalError"), ("s3cret", "0 Int")]
)
def test_an_error_within_the_stream_is_an_error(code: object, said: str) -> None:
    _, error = watched(*stream(error_event(code, "InternalError")))
    assert isinstance(error, Unavailable)
    assert str(error).startswith(f"watch configmaps: the API server answers {said}")
    assert "s3cret" not in str(error)


def test_a_stream_that_breaks_off_between_two_events_is_unavailable() -> None:
    told, error = watched(*broken_off(stream(line("ADDED"))))
    assert len(told) == 1
    assert isinstance(error, Unavailable)
    assert "broke its answer off" in str(error)


def test_a_stream_that_ends_within_an_event_is_unavailable() -> None:
    told, error = watched(*stream(line("ADDED"), line("ADDED")[:-5]))
    assert len(told) == 1
    assert str(error) == "watch configmaps: it broke off in the middle of an event"


def test_a_stream_that_falls_silent_is_unavailable() -> None:
    told, error = watched(*stream(line("ADDED"), None), idle_seconds=0.05)
    assert len(told) == 1
    assert str(error) == "watch configmaps: nothing came for 0.05 s"


def test_a_server_that_does_not_end_a_watch_in_time_is_left() -> None:
    talk = line("BOOKMARK") * 3
    told, error = watched(*stream(talk, None), watch_seconds=0, idle_seconds=0.2)
    assert len(told) == 3
    assert isinstance(error, Unavailable)


def test_an_event_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_stream, "_LONGEST_EVENT", 100)
    told, error = watched(*stream(line("ADDED"), b"{" * 90, b"{" * 90, None))
    assert len(told) == 1
    assert str(error) == "watch configmaps: an event is longer than any can be"
