"""A watch as it comes over the wire: one event a line, until the API server ends it.

How a watch is opened is the client's matter, and what becomes of its end the informer's.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import aiohttp

from app.errors import Unavailable
from app.kube.questions import Question, parsed, within
from app.kube.resources import Object

_LONGEST_EVENT: Final = 32 * 1024 * 1024  # bytes: etcd keeps no object of more than a few


class Event(StrEnum):
    """What a watch tells."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    """Nothing, but that the watch has come as far as to this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One event of a watch; `version` is where to go on from."""

    event: Event
    version: str
    found: Object = field(repr=False)


async def events(
    answer: aiohttp.ClientResponse,
    question: Question,
    watch_seconds: float,
    idle_seconds: float,
) -> AsyncGenerator[Seen, None]:
    """Read events until the stream ends; raises as `Kube.watch` tells."""
    loop = asyncio.get_running_loop()
    end = loop.time() + watch_seconds + idle_seconds  # a server need not keep its word
    lines = _Lines()
    while True:
        silent = min(idle_seconds, end - loop.time())
        async with within(silent, question):
            piece = await answer.content.readany()
        if not piece:
            if lines.unfinished:
                raise Unavailable(f"{question.doing}: it broke off in the middle of an event")
            return
        for line in lines.feed(piece):
            seen = _seen(line, question)
            if seen is not None:
                yield seen
        if lines.unfinished > _LONGEST_EVENT:
            raise Unavailable(f"{question.doing}: an event is longer than any can be")


class _Lines:
    """Puts the pieces of a stream together to lines."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def unfinished(self) -> int:
        return len(self._held)

    def feed(self, piece: bytes) -> Sequence[bytes]:
        searched = len(self._held)
        self._held += piece
        end = self._held.rfind(b"\n", searched)
        if end < 0:
            return ()
        complete = bytes(self._held[:end])
        del self._held[: end + 1]
        return [line for line in complete.split(b"\n") if line.strip()]


def _seen(line: bytes, question: Question) -> Seen | None:
    """Read an event; None for one of a kind that we do not know."""
    told = parsed(line)
    found = None if told is None else told.get("object")
    if told is None or not isinstance(found, dict):
        raise question.unreadable()
    if told.get("type") == "ERROR":
        code = found.get("code")
        raise question.refused(code if isinstance(code, int) else 0, found, None)
    try:
        event = Event(told.get("type", ""))
        return Seen(event=event, version=found["metadata"]["resourceVersion"], found=found)
    except (ValueError, KeyError, TypeError):
        return None
