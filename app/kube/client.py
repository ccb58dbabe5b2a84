"""What can be asked of an API server, in plain dicts: each question bounded in time.

Every answer that is not a success becomes an error of ours here; how often a question is asked
again, and what follows from an answer, is the caller's matter. Nothing of a body is in an error.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import aiohttp

from app.errors import Unavailable
from app.kube import stream
from app.kube.connection import Connection
from app.kube.questions import APPLY_PATCH, MERGE_PATCH, Question, parsed, within
from app.kube.refusals import patience
from app.kube.resources import Object, Resource

_SECONDS: Final = 10.0  # for a question and its answer, whatever happens in between
_PAGE: Final = 250  # objects; some milliseconds of parsing, for which the event loop is away
_MOST_TURNED_AWAY: Final = 5  # times that a server with too much to do is asked again


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Objects, and the version of them all, from which a watch goes on."""

    version: str
    items: Sequence[Object] = field(repr=False)


class Kube:
    """An API server, asked through one connection pool.

    Everything raises Unavailable when there is no answer within `seconds`, when the API server is
    not well, or when it does not let us; Missing when there is no such object (or no such kind);
    Conflict when there is one already, or when it was changed since; Invalid when what was sent is
    not accepted. An API server that has too much to do is asked again when it says, within the
    same time.
    """

    def __init__(self, connection: Connection, *, seconds: float = _SECONDS) -> None:
        self._connection = connection
        self._seconds = seconds

    async def get(self, resource: Resource, name: str, namespace: str) -> Object:
        """Read one object."""
        question = Question(
            method="GET", verb="get", resource=resource, namespace=namespace, name=name
        )
        return await self._ask(question)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page: int = _PAGE,
    ) -> Listing:
        """Read all objects of a kind, in one namespace or in all, so many at a time.

        Raises Missing when the version of the first page is not kept any more at the last.
        """
        items: list[Object] = []
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": str(page),
        }
        while True:
            found = await self._ask(
                Question(
                    method="GET",
                    verb="list",
                    resource=resource,
                    namespace=namespace,
                    query={name: value for name, value in query.items() if value},
                )
            )
            items += found.get("items") or ()
            metadata = found.get("metadata") or {}
            if not metadata.get("continue"):
                return Listing(version=metadata.get("resourceVersion", ""), items=items)
            query["continue"] = metadata["continue"]

    async def served(self, group: str, version: str = "") -> Object:
        """Read what the API server tells of a group: its versions, or the kinds of a version.

        Raises Missing when it serves no such group or version.
        """
        resource = Resource(group=group, version=version, plural="", kind="")
        return await self._ask(
            Question(method="GET", verb="get", resource=resource, namespace=None, group_only=True)
        )

    async def create(self, resource: Resource, body: Object, namespace: str) -> Object:
        """Make an object; a `generateName` in its metadata will do for a name."""
        question = Question(
            method="POST",
            verb="create",
            resource=resource,
            namespace=namespace,
            body=_named(resource, body),
        )
        return await self._ask(question)

    async def replace(self, resource: Resource, body: Object, namespace: str) -> Object:
        """Put an object in the place of the one of its name, and of its version if it has one."""
        question = Question(
            method="PUT",
            verb="update",
            resource=resource,
            namespace=namespace,
            name=body["metadata"]["name"],
            body=_named(resource, body),
        )
        return await self._ask(question)

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: Object,
        *,
        status: bool = False,
    ) -> Object:
        """Change what a merge patch (RFC 7396) says, of the object or of its `status`.

        With `metadata.resourceVersion` in the patch it is done to that version only.
        """
        question = Question(
            method="PATCH",
            verb="patch",
            resource=resource,
            namespace=namespace,
            name=name,
            status=status,
            content_type=MERGE_PATCH,
            body=patch,
        )
        return await self._ask(question)

    async def apply(
        self,
        resource: Resource,
        body: Object,
        namespace: str,
        *,
        manager: str,
        force: bool = False,
        status: bool = False,
    ) -> Object:
        """Have the fields of `body` as they are there (server-side apply), made if need be.

        Fields that `manager` had applied before and that are not there any more are taken away.
        Unless it is forced, a field that somebody else manages otherwise is a Conflict.
        """
        question = Question(
            method="PATCH",
            verb="patch",
            resource=resource,
            namespace=namespace,
            name=body["metadata"]["name"],
            status=status,
            query={"fieldManager": manager, "force": str(force).lower()},
            content_type=APPLY_PATCH,
            body=_named(resource, body),
        )
        return await self._ask(question)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        *,
        uid: str | None = None,
        version: str | None = None,
    ) -> None:
        """Delete an object: only if it has this `uid`, and this `version`, where they are given."""
        only = {"uid": uid, "resourceVersion": version}
        conditions = {name: value for name, value in only.items() if value is not None}
        question = Question(
            method="DELETE",
            verb="delete",
            resource=resource,
            namespace=namespace,
            name=name,
            body={"preconditions": conditions} if conditions else None,
        )
        await self._ask(question)

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        version: str,
        label_selector: str = "",
        field_selector: str = "",
        watch_seconds: int = 290,
        idle_seconds: float = 75.0,
    ) -> AsyncIterator[AsyncIterator[stream.Seen]]:
        """Open a watch on what happens after `version`.

        The API server ends it after `watch_seconds`, and says something at least once a minute: a
        stream that is silent for `idle_seconds` is dead, and Unavailable, like one that breaks.
        Raises Missing when that version is not kept any more: list anew.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(watch_seconds),
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        question = Question(
            method="GET",
            verb="watch",
            resource=resource,
            namespace=namespace,
            query={name: value for name, value in query.items() if value},
        )
        async with within(self._seconds, question):
            answer = await self._answer(question)
        try:
            async with aclosing(
                stream.events(answer, question, watch_seconds, idle_seconds)
            ) as told:
                yield told
        finally:
            answer.close()

    async def close(self) -> None:
        """End all connections."""
        await self._connection.close()

    async def _ask(self, question: Question) -> Object:
        async with within(self._seconds, question):
            answer = await self._answer(question)
            body = await _body(answer)
        found = parsed(body)
        if found is None:
            raise question.unreadable()
        return found

    async def _answer(self, question: Question) -> aiohttp.ClientResponse:
        """Ask until the server has the time, and give the head of an answer that is a success."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        turned_away = 0
        while True:
            try:
                answer = await self._connection.send(
                    *(question.method, question.path),
                    names=question.names,
                    query=question.query,
                    content_type=question.content_type,
                    body=question.body,
                )
            except Unavailable as error:
                raise Unavailable(f"{question.doing}: {error}") from error
            if answer.ok:
                return answer
            body = await _body(answer)
            pause = patience(answer.headers.get("Retry-After"))
            turned_away += 1
            if (
                answer.status != HTTPStatus.TOO_MANY_REQUESTS  # the one that says: nothing is done
                or pause is None
                or turned_away > _MOST_TURNED_AWAY
                or loop.time() + pause >= deadline
            ):
                raise question.refused(answer.status, parsed(body) or {}, pause)
            await asyncio.sleep(pause)


def _named(resource: Resource, body: Object) -> Object:
    """Say of what kind an object is; those of a list need not say so themselves."""
    return {"apiVersion": resource.api_version, "kind": resource.kind} | body


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    try:
        return await answer.read()
    finally:
        # At once, also when the time is up; as a context it would wait for what is still sent.
        answer.release()
