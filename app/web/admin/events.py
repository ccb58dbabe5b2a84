"""The route of the stream of events (server-sent events, as browsers' EventSource reads them).

A stream begins with what is new, or behind the event that `Last-Event-ID` names, so whoever comes
again misses nothing. It ends after a while, when the server does, and when the caller is not known
any more; EventSource then comes again by itself.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse

from app.api import events as shapes
from app.api.problems import Kind
from app.domain.callers import Verb
from app.domain.events import Event, position_of
from app.errors import GrantServerError
from app.services import events, sites
from app.services.admission import Admitted
from app.web.admin.document import answers
from app.web.admin.office import PREFIX, Caller, Given, Office, run

router = APIRouter(prefix=PREFIX, tags=["events"])

MEDIA_TYPE: Final = "text/event-stream"
LOOK_SECONDS: Final = 1.0
"""Between two looks for what is new: entries get their place in the log about as often."""
ALIVE_SECONDS: Final = 15.0
"""After so long without an event something is sent all the same, lest a proxy cut the stream."""
KNOWN_SECONDS: Final = 10.0
"""Between two looks whether the caller is still known, and what they may read."""
_PAGE: Final = 100
_RETRY_MILLISECONDS: Final = 2000

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=40,
        description="The event behind which the stream begins; EventSource sends it by itself.",
    ),
]


@router.get(
    "/events",
    operation_id="follow_events",
    response_class=StreamingResponse,
    responses=answers(Kind.INVALID)
    | {200: {"description": "Events as they happen.", "content": {MEDIA_TYPE: {}}}},
)
async def follow_events(
    asked: Annotated[shapes.Following, Query()],
    caller: Caller,
    office: Given,
    request: Request,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Follow the events of sites that the caller may read, as server-sent events."""
    office.streams.check_room()
    position = (
        await run(events.newest, office.database)
        if last_event_id is None
        else position_of(last_event_id)
    )
    following = Following(
        office=office, asked=asked, caller=caller, readmit=request.state.readmit, position=position
    )
    return StreamingResponse(following.told(), media_type=MEDIA_TYPE)


@dataclass(slots=True, kw_only=True)
class Following:
    """One stream, and how far it has come."""

    office: Office
    asked: shapes.Following
    caller: Admitted
    readmit: Callable[[], Awaitable[Admitted]]
    position: int
    more: bool = False  # whether the last look has left anything

    async def told(self) -> AsyncIterator[str]:
        """Give the stream piece by piece, until it ends."""
        monotonic, closing = self.office.monotonic, self.office.streams.closing
        began = sent = known = monotonic()
        with self.office.streams.one_more():
            yield f"retry: {_RETRY_MILLISECONDS}\n\n"
            readable = await self._readable()
            while True:
                for event in await self._look(readable):
                    sent = monotonic()
                    yield _written(event)
                now = monotonic()
                left = self.asked.seconds - (now - began)
                if closing.is_set() or (left <= 0 and not self.more):
                    return
                if now - sent >= ALIVE_SECONDS:
                    sent = now
                    yield ":\n\n"
                if not self.more:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(closing.wait(), min(LOOK_SECONDS, left))
                if monotonic() - known >= KNOWN_SECONDS:
                    known = monotonic()
                    try:
                        self.caller = await self.readmit()
                        readable = await self._readable()
                    except GrantServerError:
                        return

    async def _readable(self) -> frozenset[str] | None:
        database = self.office.database
        readable = await self.caller.sites(
            Verb.READ, lambda: [one.name for one in sites.every(database)]
        )
        if self.asked.site is None:
            return readable
        wanted = frozenset({self.asked.site})
        return wanted if readable is None else wanted & readable

    async def _look(self, readable: frozenset[str] | None) -> Sequence[Event]:
        """What is new, a page of it at most."""
        newest = await run(events.newest, self.office.database)
        found = await run(events.after, self.office.database, self.position, _PAGE, readable)
        self.more = len(found) == _PAGE
        last = found[-1].position if found else self.position
        self.position = last if self.more else max(last, newest)
        return [one for one in found if self.asked.type in {None, one.type}]


def _written(event: Event) -> str:
    """Write an event as the stream has it (HTML Living Standard, server-sent events)."""
    return f"id: {event.id}\nevent: {event.type.value}\ndata: {event.body()}\n\n"
