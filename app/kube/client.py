"""What can be asked of an API server, in plain dicts: each question bounded in time.

Every answer that is not a success becomes an error of ours here; how often a question is asked
again, and what follows from an answer, is the caller's matter. Nothing of a body is in an error.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import aiohttp

from app.errors import Unavailable
from app.kube import stream
from app.kube.connection import Connection
from app.kube.questions import (
    APPLY_PATCH,
    JSON,
    MERGE_PATCH,
    METADATA,
    METADATA_LIST,
    Question,
    parsed,
    within,
)
from app.kube.refusals import patience
from app.kube.resources import Object, Resource

_SECONDS: Final = 10.0  # for a question and its answer, whatever happens in between
_PAGE: Final = 250  # objects; some milliseconds of parsing, for which the event loop is away
_MOST_TURNED_AWAY: Final = 5  # times that a server with too much to do is asked again
_MOST_PAUSE: Final = 3.0  # seconds that are waited here; for longer it is up to who asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Objects, and the version of them all, from which a watch goes on."""

    version: str
    items: Sequence[Object] = field(repr=False)
    more: str = ""
    """Where the next page begins; empty when there is none."""


class Kube:
    """An API server, asked through one connection pool.

    Everything raises Unavailable when there is no answer within `seconds`, when the API server is
    not well, when it does not let us (then it is `forbidden`), and when the answer is none to what
    was asked: something else may stand in the place of the API server. Missing is raised when there
    is no such object (or no such kind); Conflict when there is one already, or when it was changed
    since; Invalid when what was sent is not accepted. An API server that has too much to do is
    asked again when it says, within the same time, if that is soon.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        seconds: float = _SECONDS,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._connection = connection
        self._seconds = seconds
        self._may_write = may_write

    def writing_while(self, may_write: Callable[[], bool]) -> "Kube":
        """The same API server, for one who asks before each write whether it may still be made.

        Raises Unavailable instead of writing when it may not.
        """
        return Kube(self._connection, seconds=self._seconds, may_write=may_write)

    async def get(self, resource: Resource, name: str, namespace: str) -> Object:
        """Read one object."""
        question = Question(
            method="GET", verb="get", resource=resource, namespace=namespace, name=name
        )
        return await self._ask_object(question)

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
        more = ""
        while True:
            found = await self.page(
                resource,
                namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                size=page,
                at=more,
            )
            items += found.items
            more = found.more
            if not more:
                return Listing(version=found.version, items=items)

    async def page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        size: int = _PAGE,
        at: str = "",
        metadata_only: bool = False,
    ) -> Listing:
        """Read `size` objects of a list, from the beginning or from `at`, where another ended.

        With `metadata_only` they come without their content, from a server that can do that.
        Raises Missing when the version of the first page is not kept any more.
        """
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": str(size),
            "continue": at,
        }
        question = Question(
            method="GET",
            verb="list",
            resource=resource,
            namespace=namespace,
            query={name: value for name, value in query.items() if value},
            accept=METADATA_LIST if metadata_only else JSON,
        )
        found = await self._ask(question)
        metadata, items = found.get("metadata"), found.get("items", "")
        # Anything else must not pass for a list of nothing.
        if not isinstance(metadata, dict) or not isinstance(items, list | None):
            raise question.unreadable()
        version, more = metadata.get("resourceVersion"), metadata.get("continue")
        if not version or not isinstance(version, str):
            raise question.unreadable()
        return Listing(version=version, items=items or (), more=more or "")

    async def served(self, group: str, version: str = "") -> Object:
        """Read what the API server tells of a group: its versions, or the kinds of a version.

        Raises Missing when it serves no such group or version.
        """
        resource = Resource(group=group, version=version, plural="", kind="")
        question = Question(
            method="GET", verb="get", resource=resource, namespace=None, group_only=True
        )
        found = await self._ask(question)
        if found.get("kind") != ("APIResourceList" if version else "APIGroup"):
            raise question.answered_otherwise()
        return found

    async def create(self, resource: Resource, body: Object, namespace: str) -> Object:
        """Make an object; a `generateName` in its metadata will do for a name."""
        question = Question(
            method="POST",
            verb="create",
            resource=resource,
            namespace=namespace,
            body=_named(resource, body),
        )
        return await self._ask_object(question)

    async def review(self, resource: Resource, spec: Object) -> Object:
        """Ask something that is put as an object and kept nowhere; gives its status."""
        question = Question(
            method="POST",
            verb="create",
            resource=resource,
            namespace=None,
            body=_named(resource, {"spec": spec}),
        )
        found = await self._ask(question)
        status = found.get("status")
        if found.get("kind") != resource.kind or not isinstance(status, dict):
            raise question.answered_otherwise()
        return status

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
        return await self._ask_object(question)

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
        return await self._ask_object(question)

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
        return await self._ask_object(question)

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
        found = await self._ask(question)
        if found.get("kind") not in {"Status", resource.kind}:
            raise question.answered_otherwise()

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
        metadata_only: bool = False,
    ) -> AsyncIterator[AsyncIterator[stream.Seen]]:
        """Open a watch on what happens after `version`.

        The API server ends it after `watch_seconds`, and says something at least once a minute: a
        stream that is silent for `idle_seconds` is dead, and Unavailable, like one that breaks.
        With `metadata_only` objects come as those of such a `page`. Raises Missing when that
        version is not kept any more: list anew.
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
            accept=METADATA if metadata_only else JSON,
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

    async def _ask_object(self, question: Question) -> Object:
        """Ask for one object, and see to it that it is one: of this kind and, if known, name."""
        found = await self._ask(question)
        metadata = found.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if (
            found.get("kind") != question.resource.kind
            or not isinstance(name, str)
            or (question.name and name != question.name)
        ):
            raise question.answered_otherwise()
        return found

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
            if question.method != "GET" and not self._may_write():
                raise Unavailable(f"{question.doing}: it is not up to us any more")
            try:
                answer = await self._connection.send(
                    *(question.method, question.path),
                    names=question.names,
                    query=question.query,
                    content_type=question.content_type,
                    body=question.body,
                    accept=question.accept,
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
                or pause > _MOST_PAUSE
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
