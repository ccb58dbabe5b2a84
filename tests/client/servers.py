"""Listeners over real TLS that misbehave: each connection is answered as the test's script says."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app import ambient
from app.api.problems import KINDS, Kind, Problem
from app.client.client import Client
from app.crypto import keys
from app.crypto.issuers import create_authority, load_issuer
from app.crypto.server_certificates import create_server_certificate
from app.domain.certificates import KeyType
from tests.builders import NOW

TOKEN: Final = "gsa_a-token-that-nobody-may-see"
CUT: Final = b""
"""Instead of an answer: the connection ends."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came, and the number of the connection that it came by."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass(kw_only=True)
class Misbehaving:
    """Somebody who answers the next questions with these bytes, in their order."""

    url: str
    ca_pem: str
    answers: list[bytes] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    """Whoever is asked with no answer left waits for this, or for the other side to leave."""

    def client(self, *, seconds: float = 20.0, **changes: Any) -> Client:
        made = Client(
            changes.get("url", self.url),
            ca_pem=changes.get("ca_pem", self.ca_pem),
            token=changes.get("token", TOKEN),
            monotonic=ambient.monotonic,
            random_bytes=ambient.random_bytes,
            seconds=seconds,
        )
        self.clients.append(made)
        return made


def answer(
    status: int = 200,
    body: object = None,
    *,
    media_type: str = "application/json",
    headers: str = "",
    length: int | None = None,
) -> bytes:
    """Write an answer; a body that is no bytes is sent as JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = len(sent) if length is None else length
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\nContent-Length: {said}\r\n"
    return f"{head}{headers}\r\n".encode() + sent


def problem(kind: Kind, detail: str = "it is so", *, headers: str = "", **more: Any) -> bytes:
    """Write a problem document."""
    about = KINDS[kind]
    document = Problem(
        type=kind.type, title=about.title, status=about.status, detail=detail, **more
    )
    return answer(
        about.status,
        document.model_dump_json().encode(),
        media_type="application/problem+json",
        headers=headers,
    )


def _chain(host: str) -> tuple[str, bytes]:
    key, leaf = keys.generate(KeyType.P256), keys.generate(KeyType.P256)
    ca_pem = create_authority(
        common_name="somebody", key=key, serial=7, not_before=NOW - 10**8, not_after=NOW + 10**9
    )
    certificate = create_server_certificate(
        load_issuer(ca_pem, keys.to_pem(key)),
        hosts=[host],
        key=leaf,
        serial_random=ambient.random_bytes(16),
        now=ambient.utc_now(),
        lifetime_seconds=10**6,
    )
    return ca_pem.decode(), certificate + keys.to_pem(leaf)


@contextlib.contextmanager
def misbehaving(
    directory: Path, *, host: str = "127.0.0.1", change: Callable[[ssl.SSLContext], object] = id
) -> Iterator[Misbehaving]:
    """Listen on an address of this machine with a certificate for `host`."""
    ca_pem, chain = _chain(host)
    file = directory / "chain.pem"
    file.write_bytes(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    change(context)
    listener = socket.create_server(("127.0.0.1", 0))
    made = Misbehaving(url=f"https://127.0.0.1:{listener.getsockname()[1]}", ca_pem=ca_pem)
    threads: list[threading.Thread] = []

    def serve(raw: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), raw:
            raw.settimeout(20)
            with context.wrap_socket(raw, server_side=True) as stream:
                _answer(stream, made, number)

    def accept() -> None:
        with contextlib.suppress(OSError):
            number = 0
            while True:
                raw, _ = listener.accept()
                number += 1
                thread = threading.Thread(target=serve, args=(raw, number), daemon=True)
                threads.append(thread)
                thread.start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield made
    finally:
        for client in made.clients:
            client.close()
        made.hold.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(20)
        for thread in threads:
            thread.join(20)


def _answer(stream: ssl.SSLSocket, made: Misbehaving, number: int) -> None:
    with stream.makefile("rb") as incoming:
        while line := incoming.readline():
            method, path, _ = line.decode().split()
            headers = dict(http.client.parse_headers(incoming))
            body = incoming.read(int(headers.get("Content-Length", 0)))
            made.asked.append(
                Asked(method=method, path=path, headers=headers, body=body, connection=number)
            )
            if not made.answers:
                made.hold.wait(20)
                return
            said = made.answers.pop(0)
            if said == CUT:
                return
            stream.sendall(said)
