"""The store over HTTP: paths, verbs, watches, and the faults that were ordered.

It runs in a thread of its own with a loop of its own, so that what is tested may block or not.
"""

import asyncio
import contextlib
import json
import logging
import re
import socket
import ssl
import struct
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

import yaml
from aiohttp import web

from tests.kube import errors
from tests.kube.errors import KubeError
from tests.kube.fake import discovery, patches, reviews, schema
from tests.kube.fake.access import Access, Asked
from tests.kube.fake.faults import Fault, Faults
from tests.kube.fake.kinds import Kind
from tests.kube.fake.ownership import Object
from tests.kube.fake.selectors import Selects, selecting
from tests.kube.fake.store import Change, Store
from tests.kube.fake.tables import list_of_metadata, only_metadata, table
from tests.kube.recorder import Request, Requests

T = TypeVar("T")

PATIENCE: Final = 30.0
# As long as a real one holds a watch whose client names no time.
_WATCHED_SECONDS: Final = 2400.0
# A last bookmark is sent this long before a watch ends.
_LAST_BOOKMARK_SECONDS: Final = 2.0
_MERGE: Final = {"application/merge-patch+json", "application/strategic-merge-patch+json"}
_JSON: Final = "application/json-patch+json"
_APPLY: Final = {"application/apply-patch+yaml", "application/apply-patch+cbor"}
_OF_ALL: Final = ("apiVersion", "kind", "metadata")
_ANYTHING: Final = {"x-kubernetes-preserve-unknown-fields": True}
_OF_ONE_NAME: Final = re.compile(r"metadata\.name==?([^,!=]+)")
_NO_LINGERING: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A request, taken apart."""

    request: web.BaseRequest
    kind: Kind
    name: str
    namespace: str
    subresource: str
    authorization: str
    user: str

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    @property
    def manager(self) -> str:
        """Who is written down as the owner of fields."""
        given = self.query.get("fieldManager", "")
        return given or self.request.headers.get("User-Agent", "unknown").partition("/")[0]


class Reset(Exception):
    """The connection is to be reset."""


class Server:
    """Serves a store on one port of the loopback, until it is stopped; it may be started again."""

    def __init__(
        self,
        store: Store,
        access: Access,
        faults: Faults,
        requests: Requests,
        context: ssl.SSLContext | None,
    ) -> None:
        self.port = 0
        self.bookmark_seconds = 60.0
        self._store, self._access = store, access
        self._faults, self._requests = faults, requests
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._runner: web.ServerRunner | None = None
        self._transports: set[asyncio.Transport] = set()
        self._wakes: set[asyncio.Event] = set()
        self._watching: set[asyncio.Transport] = set()
        self._silent: set[asyncio.Transport] = set()
        store.changed = self._changed

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watching)

    def start(self) -> None:
        """Listen, on the port it had before if there was one."""
        started: list[BaseException | None] = []
        ready = threading.Event()

        def run() -> None:
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            self._loop = loop
            try:
                loop.run_until_complete(self._listen())
                started.append(None)
            except BaseException as error:  # noqa: BLE001 - told to whoever starts it
                started.append(error)
                return
            finally:
                ready.set()
            loop.run_forever()
            loop.close()

        self._thread = threading.Thread(target=run, name="kube-api-server", daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE)
        if started[0] is not None:
            raise started[0]

    def stop(self) -> None:
        """Reset every connection and listen no more."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._call(self._close())
        self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def drop_watches(self) -> int:
        """Reset the connection of every open watch."""

        async def drop() -> int:
            watching = list(self._watching)
            for transport in watching:
                _reset(transport)
            return len(watching)

        return self._call(drop())

    def silence_watches(self) -> int:
        """Let every open watch stay open and say nothing any more: half-open."""

        async def silence() -> int:
            self._silent |= self._watching
            return len(self._watching)

        return self._call(silence())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def _changed(self) -> None:
        loop = self._loop
        if loop is None or not self._wakes:
            return
        if threading.current_thread() is self._thread:
            self._wake()
            return
        with contextlib.suppress(RuntimeError):  # it has just been stopped
            loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for event in self._wakes:
            event.set()

    async def _listen(self) -> None:
        # A server that is overrun must not answer with a reset of its own.
        web_server = web.Server(
            self._handle,
            access_log=None,
            keepalive_timeout=3600,
            handler_cancellation=True,  # or a watch would outlive its client
        )
        self._runner = web.ServerRunner(web_server, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner,
            "127.0.0.1",
            self.port,
            ssl_context=self._context,
            reuse_address=True,
            backlog=1024,
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        assert self._runner is not None
        for site in list(self._runner.sites):
            await site.stop()
        for transport in list(self._transports):
            _reset(transport)
        await self._runner.cleanup()
        this = asyncio.current_task()
        left = [task for task in asyncio.all_tasks() if task is not this]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # Those that were just being accepted have asked nothing yet; all ends in the next round.
        loop: Any = asyncio.get_running_loop()
        for transport in list(loop._transports.values()):
            transport.abort()
        await asyncio.sleep(0)
        self._transports.clear()
        self._watching.clear()
        self._silent.clear()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        self._transports.add(transport)
        self._transports = {one for one in self._transports if not one.is_closing()}
        accept = request.headers.get("Accept", "")
        recorded = Request(verb=request.method.lower(), path=request.path, accept=accept)
        try:
            answer = await self._finish(request, recorded)
        except KubeError as error:
            answer = _failure(error)
        except Reset:
            _reset(transport)
            raise ConnectionResetError from None
        if not answer.prepared:
            recorded.code = answer.status
        return answer

    async def _finish(self, request: web.BaseRequest, recorded: Request) -> web.StreamResponse:
        """Answer; what has arrived is done although its client has left, a watch is not."""
        if request.query.get("watch", "") in {"1", "true"}:
            return await self._answer(request, recorded)
        work = asyncio.ensure_future(self._answer(request, recorded))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(work)

    async def _answer(self, request: web.BaseRequest, recorded: Request) -> web.StreamResponse:
        body = await request.read()
        authorization = request.headers.get("Authorization", "")
        steps = [step for step in request.path.split("/") if step]
        call = self._taken_apart(request, steps, authorization, recorded)
        self._requests.add(recorded)
        fault = self._faults.take(recorded)
        if fault is not None and not fault.after:
            await _befall(fault)
        recorded.user = self._access.user(authorization)
        answer: web.StreamResponse
        if call is None:
            found = discovery.discover(steps, self._store.kinds())
            answer = _plain(found) if isinstance(found, str) else _answered(found)
        else:
            self._access.check(authorization, _asked(recorded))
            answer = await self._do(call, recorded.verb, body)
        if fault is not None and fault.after:
            await _befall(fault)
        return answer

    def _taken_apart(
        self,
        request: web.BaseRequest,
        steps: list[str],
        authorization: str,
        recorded: Request,
    ) -> _Call | None:
        with contextlib.suppress(KubeError):
            recorded.user = self._access.user(authorization)
        match steps:
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                return None
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] != "status":
            _, namespace, *rest = rest
        if not rest or len(rest) > 3:
            return None
        plural, name, subresource, *_ = (*rest, "", "")
        recorded.group, recorded.resource = group, plural
        recorded.namespace, recorded.name, recorded.subresource = namespace, name, subresource
        watches = request.query.get("watch", "") in {"1", "true"}
        if not name:  # by which a role may allow a list or a watch
            selected = _OF_ONE_NAME.fullmatch(request.query.get("fieldSelector", ""))
            recorded.name = selected[1] if selected else ""
        recorded.verb = {
            "GET": "get" if name else "watch" if watches else "list",
            "POST": "create",
            "PUT": "update",
            "PATCH": "patch",
            "DELETE": "delete" if name else "deletecollection",
        }.get(request.method, request.method.lower())
        try:
            kind = reviews.KINDS.get((group, plural)) or self._store.kind(group, plural)
        except KubeError:
            # Who may not ask at all is not told that there is nothing.
            self._requests.add(recorded)
            self._access.check(authorization, _asked(recorded))
            raise
        if version != kind.version or (subresource and not _has_part(kind, subresource)):
            raise errors.no_such_path()
        return _Call(
            request=request,
            kind=kind,
            name=name,
            namespace=namespace,
            subresource=subresource,
            authorization=authorization,
            user=recorded.user,
        )

    async def _do(self, call: _Call, verb: str, body: bytes) -> web.StreamResponse:
        if verb == "watch":
            return await self._watch(call)
        do: Mapping[str, Callable[[_Call, bytes], web.Response]] = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "update": self._replace,
            "patch": self._patch,
            "delete": self._delete,
        }
        if verb not in do:
            raise errors.not_supported()
        if call.kind.key in reviews.KINDS:
            if verb != "create":
                raise errors.not_supported()
            given = _object(body, call)
            return _answered(reviews.answer(self._access, call.kind, given), 201)
        return do[verb](call, body)

    def _get(self, call: _Call, _: bytes) -> web.Response:
        return self._shown(call, self._store.get(call.kind, call.name, call.namespace))

    def _list(self, call: _Call, _: bytes) -> web.Response:
        page = self._store.page(
            call.kind,
            call.namespace,
            _selects(call),
            _number(call.query, "limit"),
            call.query.get("continue", ""),
        )
        metadata: Object = {"resourceVersion": str(page.version)}
        if call.kind.custom:
            # Nothing at all is what the others say of a last page.
            metadata["continue"] = ""
        if page.token:
            metadata |= {"continue": page.token, "remainingItemCount": page.remaining}
        if _as_table(call):
            return _answered(table(call.kind, page.items, metadata))
        if _as_metadata(call, "PartialObjectMetadataList"):
            return _answered(list_of_metadata(page.items, metadata))
        return _answered(
            {
                "apiVersion": call.kind.api_version,
                "kind": f"{call.kind.kind}List",
                "metadata": metadata,
                "items": page.items,
            }
        )

    def _create(self, call: _Call, body: bytes) -> web.Response:
        if call.name:
            raise errors.not_supported()
        given = _object(body, call)
        if call.kind.namespaced and not call.namespace:
            raise errors.bad_request("an empty namespace may not be set during creation")
        _check_known(given, call)
        made = self._store.create(call.kind, given, call.namespace, manager=call.manager)
        return self._shown(call, made, 201)

    def _replace(self, call: _Call, body: bytes) -> web.Response:
        given = _object(body, call)
        _check_known(given, call)
        made = self._store.replace(
            call.kind,
            call.name,
            given,
            call.namespace,
            subresource=call.subresource,
            manager=call.manager,
        )
        return self._shown(call, made)

    def _patch(self, call: _Call, body: bytes) -> web.Response:
        content = call.request.content_type
        if content in _APPLY:
            return self._apply(call, body)
        if content not in {*_MERGE, _JSON} or (call.kind.custom and "strategic" in content):
            raise errors.unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types "
                "include: application/json-patch+json, application/merge-patch+json, "
                "application/apply-patch+yaml"
            )
        if "force" in call.query:
            raise errors.unprocessable("force: Forbidden: may not be specified for non-apply patch")
        patch = _parsed(body)
        change: Callable[[Object], Any]
        if content == _JSON:
            if not isinstance(patch, list):
                raise errors.bad_request("a JSON patch is a list of operations")
            operations = patch
            change = lambda found: patches.operate(found, operations)  # noqa: E731
        else:
            if not isinstance(patch, dict):
                raise errors.bad_request("a merge patch is an object")
            _check_known(patch, call)
            change = lambda found: patches.merge(found, patch)  # noqa: E731
        made = self._store.patch(
            call.kind,
            call.name,
            change,
            call.namespace,
            subresource=call.subresource,
            manager=call.manager,
        )
        return self._shown(call, made)

    def _apply(self, call: _Call, body: bytes) -> web.Response:
        if not call.query.get("fieldManager"):
            raise errors.unprocessable(
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: '
                "is required for apply patch"
            )
        try:
            config = yaml.load(body, yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise errors.bad_request(f"error decoding YAML: {error}") from error
        if not isinstance(config, dict):
            raise errors.bad_request("an apply configuration is an object")
        _check_type(config, call)
        _check_place(config, call)
        if not (config.get("metadata") or {}).get("name"):
            raise errors.bad_request("name must be provided")
        _check_known(config, call)
        asked = Asked(
            verb="create",
            group=call.kind.group,
            resource=call.kind.plural,
            namespace=call.namespace,
            name=call.name,
        )
        try:
            self._store.get(call.kind, call.name, call.namespace)
        except KubeError:
            self._access.check(call.authorization, asked)
        made, is_new = self._store.apply(
            call.kind,
            call.name,
            config,
            call.namespace,
            subresource=call.subresource,
            manager=call.manager,
            force=call.query.get("force", "") in {"1", "true"},
        )
        return self._shown(call, made, 201 if is_new else 200)

    def _delete(self, call: _Call, body: bytes) -> web.Response:
        options = _parsed(body) if body else {}
        preconditions = options.get("preconditions") if isinstance(options, dict) else None
        found, gone = self._store.delete(call.kind, call.name, call.namespace, preconditions)
        if not gone:
            return self._shown(call, found)
        details = {
            "name": call.name,
            "kind": call.kind.plural,
            "uid": found["metadata"]["uid"],
        } | ({"group": call.kind.group} if call.kind.group else {})
        return _answered(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": details,
            }
        )

    def _shown(self, call: _Call, found: Object, code: int = 200) -> web.Response:
        if _as_table(call):
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            return _answered(table(call.kind, [found], version), code)
        if _as_metadata(call, "PartialObjectMetadata"):
            return _answered(only_metadata(found), code)
        return _answered(found, code)

    async def _watch(self, call: _Call) -> web.StreamResponse:
        transport = call.request.transport
        assert transport is not None
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(call.request)
        self._watching.add(transport)
        wake = asyncio.Event()
        self._wakes.add(wake)
        try:
            async with contextlib.aclosing(self._events(call, wake)) as events:
                async for type_, found in events:
                    if transport in self._silent:
                        await asyncio.Event().wait()
                    if _as_table(call) and type_ != "ERROR":
                        found = table(call.kind, [found], {})  # noqa: PLW2901
                    if _as_metadata(call, "PartialObjectMetadata") and type_ != "ERROR":
                        found = only_metadata(found)  # noqa: PLW2901
                    line = json.dumps({"type": type_, "object": found}).encode() + b"\n"
                    await answer.write(line)
            await answer.write_eof()
        finally:
            self._wakes.discard(wake)
            self._watching.discard(transport)
            self._silent.discard(transport)
        return answer

    async def _events(
        self, call: _Call, wake: asyncio.Event
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """What a watch is told, until its time is over or what it missed is forgotten."""
        selects = _selects(call)
        loop = asyncio.get_running_loop()
        asked = call.query.get("resourceVersion", "")
        version = _number(call.query, "resourceVersion")
        if asked in {"", "0"}:
            page = self._store.page(call.kind, call.namespace, selects)
            version = page.version
            for found in page.items:
                yield "ADDED", found
        ends = loop.time() + (_number(call.query, "timeoutSeconds") or _WATCHED_SECONDS)
        bookmarks = call.query.get("allowWatchBookmarks", "") in {"1", "true"}
        marks = _next_bookmark(loop.time(), ends, self.bookmark_seconds)
        while True:
            wake.clear()
            latest = self._store.version
            try:
                changes = self._store.since(call.kind, version)
            except KubeError as error:
                yield "ERROR", error.status
                return
            for change in changes:
                told = _told(change, call.namespace, selects)
                if told is not None:
                    yield told
            version = max(version, latest, *(one.version for one in changes), version)
            if loop.time() >= ends:
                return
            if bookmarks and loop.time() >= marks:
                marks = _next_bookmark(loop.time(), ends, self.bookmark_seconds)
                yield "BOOKMARK", _bookmark(call.kind, version)
            until = min(ends, marks) if bookmarks else ends
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await wake.wait()


def _next_bookmark(now: float, ends: float, every: float) -> float:
    last = ends - _LAST_BOOKMARK_SECONDS
    return min(now + every, last) if now < last else max(now + every, ends + 1)


def _bookmark(kind: Kind, version: int) -> Object:
    return {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
    }


def _told(change: Change, namespace: str, selects: Selects) -> tuple[str, Object] | None:
    """One change, for one who selects: what leaves the selection is deleted for him."""

    def is_of(found: Object | None) -> bool:
        return found is not None and (
            (not namespace or found["metadata"].get("namespace") == namespace) and selects(found)
        )

    now = change.type != "DELETED" and is_of(change.now)
    before = is_of(change.before)
    if now:
        return ("MODIFIED" if before else "ADDED"), change.now
    if before and change.before is not None:
        if change.type == "DELETED":
            return "DELETED", change.now
        version = change.now["metadata"]["resourceVersion"]
        metadata = {**change.before["metadata"], "resourceVersion": version}
        return "DELETED", {**change.before, "metadata": metadata}
    return None


async def _befall(fault: Fault) -> None:
    if fault.kind == "reset":
        raise Reset
    if fault.kind == "freeze":
        await fault.hold()
    elif fault.kind == "slow":
        await asyncio.sleep(fault.seconds)
    else:
        _fail(fault)


def _fail(fault: Fault) -> NoReturn:
    seconds = fault.retry_after
    raise KubeError(
        fault.code,
        fault.reason,
        fault.message,
        {} if seconds is None else {"retryAfterSeconds": seconds},
        {} if seconds is None else {"Retry-After": str(seconds)},
    )


def _reset(transport: asyncio.Transport | asyncio.BaseTransport) -> None:
    """Close with RST: what is on its way is lost, and the other side learns it at once."""
    # TLS transports that are gone already have no socket to ask for.
    with contextlib.suppress(OSError, AttributeError):
        found = transport.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
    assert isinstance(transport, asyncio.Transport)
    transport.abort()


def _has_part(kind: Kind, subresource: str) -> bool:
    return subresource == "status" and kind.has_status


def _asked(recorded: Request) -> Asked:
    return Asked(
        verb=recorded.verb,
        group=recorded.group,
        resource=recorded.resource,
        subresource=recorded.subresource,
        namespace=recorded.namespace,
        name=recorded.name,
    )


def _selects(call: _Call) -> Selects:
    labels, fields = call.query.get("labelSelector", ""), call.query.get("fieldSelector", "")
    return selecting(labels, fields, call.kind.kind)


def _as_table(call: _Call) -> bool:
    return "as=Table" in call.request.headers.get("Accept", "")


def _as_metadata(call: _Call, shape: str) -> bool:
    """Whether a client takes objects without content, in a shape that fits what it asks for."""
    return f";as={shape};" in f"{call.request.headers.get('Accept', '').partition(',')[0]};"


def _number(query: Mapping[str, str], name: str) -> int:
    try:
        return int(query.get(name) or "0")
    except ValueError:
        raise errors.bad_request(f'Invalid value: "{query[name]}": {name}') from None


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise errors.bad_request(f"the object provided is unrecognized: {error}") from error


def _object(body: bytes, call: _Call) -> Object:
    given = _parsed(body)
    if not isinstance(given, dict):
        raise errors.bad_request("the object provided is not an object")
    _check_type(given, call)
    _check_place(given, call)
    return given


def _check_type(given: Mapping[str, Any], call: _Call) -> None:
    sent, wanted = (
        (given.get("apiVersion"), given.get("kind")),
        (call.kind.api_version, call.kind.kind),
    )
    if sent[0] == wanted[0] and sent[1] and call.kind.custom and sent != wanted:
        why = f'Invalid value: "{sent[1]}": must be {wanted[1]}'
        raise errors.invalid(call.kind.kind, call.kind.group, call.name, [("kind", why)])
    if sent != wanted:
        raise errors.bad_request(
            f"the object provided is of {sent[0]} {sent[1]}, and this is the path of "
            f"{wanted[0]} {wanted[1]}"
        )


def _check_known(given: Mapping[str, Any], call: _Call) -> None:
    """For clients that want to be told of fields that would be dropped silently."""
    if call.query.get("fieldValidation") == "Strict":
        known = {**call.kind.schema.get("properties", {}), **dict.fromkeys(_OF_ALL, _ANYTHING)}
        unknown = sorted(schema.unknown(given, {**call.kind.schema, "properties": known}))
        if unknown:
            told = ", ".join(f'unknown field "{one}"' for one in unknown)
            raise errors.bad_request(f"strict decoding error: {told}")


def _check_place(given: Mapping[str, Any], call: _Call) -> None:
    metadata = given.get("metadata") or {}
    if metadata.get("namespace") not in {None, "", call.namespace}:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if call.name and metadata.get("name") not in {None, "", call.name}:
        raise errors.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({call.name})"
        )


def _answered(found: Object, code: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(found).encode(), status=code, content_type="application/json"
    )


def _plain(text: str) -> web.Response:
    return web.Response(text=text)


def _failure(error: KubeError) -> web.Response:
    answer = _answered(error.status, error.code)
    answer.headers.update(error.headers)
    return answer


# What a reset does to a handler is no news.
logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
