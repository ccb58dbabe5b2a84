"""The plainest client there is: one request, one answer, as they are on the wire."""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

from tests.kube.api_server import Kube, Object

PATIENCE: Final = 30.0
Event = tuple[str, Object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back; headers by lower-case name."""

    code: int
    body: Any
    headers: Mapping[str, str]

    @property
    def reason(self) -> str:
        """Why it was refused, in the API's word for it."""
        return str(self.body.get("reason", ""))

    @property
    def version(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def generation(self) -> int:
        return int(self.body["metadata"]["generation"])


class Asking:
    """A client of an API server, with one user's token."""

    def __init__(self, kube: Kube, token: str | None = None) -> None:
        parts = urlsplit(kube.url)
        assert parts.port is not None
        self._where = parts.hostname or "", parts.port
        self._context = ssl.create_default_context(cadata=kube.ca_pem) if kube.ca_pem else None
        self._token = kube.admin_token if token is None else token

    def get(self, path: str, accept: str = "application/json", **query: object) -> Answer:
        return self.ask("GET", path, query=query, headers={"Accept": accept})

    def post(self, path: str, body: object, **query: object) -> Answer:
        return self.ask("POST", path, body, query=query)

    def put(self, path: str, body: object, **query: object) -> Answer:
        return self.ask("PUT", path, body, query=query)

    def delete(self, path: str, body: object = None, **query: object) -> Answer:
        return self.ask("DELETE", path, body, query=query)

    def merge(self, path: str, body: object, **query: object) -> Answer:
        return self._patch("merge-patch+json", path, body, query)

    def operate(self, path: str, body: object, **query: object) -> Answer:
        return self._patch("json-patch+json", path, body, query)

    def apply(self, path: str, body: object, manager: str = "", **query: object) -> Answer:
        named = {"fieldManager": manager} if manager else {}
        return self._patch("apply-patch+yaml", path, body, named | query)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; a body that is bytes is sent as it is."""
        connection = self._connect(PATIENCE)
        try:
            self._send(connection, method, path, body, query or {}, headers or {})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        parsed = json.loads(text) if is_json else text.decode()
        return Answer(code=response.status, body=parsed, headers=found)

    def watch(
        self,
        path: str,
        patience: float = PATIENCE,
        accept: str = "application/json",
        **query: object,
    ) -> "Watching":
        """Begin to watch; it is open when this returns."""
        connection = self._connect(patience)
        headers = {"Accept": accept}
        self._send(connection, "GET", path, None, {"watch": "1"} | query, headers)
        return Watching(connection)

    def _patch(self, content: str, path: str, body: object, query: Mapping[str, object]) -> Answer:
        headers = {"Content-Type": f"application/{content}"}
        return self.ask("PATCH", path, body, query=query, headers=headers)

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(*self._where, timeout=timeout)
        return http.client.HTTPSConnection(*self._where, context=self._context, timeout=timeout)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, object],
        headers: Mapping[str, str],
    ) -> None:
        sent = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
        asked = f"{path}?{urlencode(query)}" if query else path
        of_all = {"User-Agent": "asking/1", "Content-Type": "application/json"}
        if self._token:
            of_all["Authorization"] = f"Bearer {self._token}"
        connection.request(method, asked, sent, of_all | dict(headers))


class Watching:
    """A watch, open until its block ends or the server ends it.

    It stops when the server has ended it properly; ConnectionError is for all other ends.
    """

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._response = connection.getresponse()
        self._lines: list[bytes] = []
        self._rest = b""
        self.code = self._response.status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._lines:
            chunk = self._chunk()
            if not chunk:
                raise StopIteration
            *self._lines, self._rest = (self._rest + chunk).split(b"\n")
        event = json.loads(self._lines.pop(0))
        return event["type"], event["object"]

    def take(self, count: int) -> list[Event]:
        """So many events, as soon as they have come."""
        return [next(self) for _ in range(count)]

    def _chunk(self) -> bytes:
        # The library would take a cut for an end.
        read = self._response.fp
        size = read.readline()
        if not size.endswith(b"\n"):
            raise ConnectionResetError("the watch was cut")
        chunk = read.read(int(size, 16))
        read.readline()
        return chunk
