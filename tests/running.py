"""A whole server for a test: its own data directory, free ports, real TLS, in a thread."""

import asyncio
import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import ambient, settings
from app.domain.callers import read_rights
from app.domain.sites import parse_endpoint
from app.errors import Unavailable
from app.home import Home, open_home
from app.serve import Addresses, serve
from app.services import admin_tokens, grants, reach, sites
from app.services.grants import Issued, Wish
from app.web import listeners

PATIENCE = 30.0
ENDPOINTS = ("inter-router=west.example.com:55671", "edge=west.example.com:45671")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: headers by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Read the body, which must be JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server, with the home that commands would open beside it."""

    home: Home
    addresses: Addresses
    context: ssl.SSLContext
    stop: Callable[[], None] = field(repr=False)
    """Tell it to stop; the end of the block waits for it."""

    def issue(self, name: str = "grant-west", *, ago: int = 0, **wishes: object) -> Issued:
        """Create a grant of one redemption in ten minutes, `ago` seconds ago, or as wished."""
        wish: dict[str, object] = {
            "name": name,
            "site": "west",
            "redemptions": 1,
            "window_seconds": 600,
            "cost": 1,
        }
        return grants.create(
            self.home.database,
            Wish(**(wish | wishes)),  # type: ignore[arg-type]
            code_keys=self.home.code_keys,
            actor="test",
            now=ambient.utc_now() - ago,
            random_bytes=ambient.random_bytes,
        )

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        peer: str = "127.0.0.1",
    ) -> Answer:
        """Send one request over a new TLS connection, the host name and CA verified.

        `peer` is the address of this machine that it comes from: any in 127.0.0.0/8.
        """
        host, port = self.addresses.redemption
        connection = http.client.HTTPSConnection(
            host, port, context=self.context, timeout=PATIENCE, source_address=(peer, 0)
        )
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=response.read(),
            )
        finally:
            connection.close()

    def redeem(
        self,
        issued: Issued,
        *,
        name: str = "token",
        subject: str = "east",
        peer: str = "127.0.0.1",
    ) -> Answer:
        """Post the code of a grant, as a connecting site does."""
        return self.request(
            "POST",
            f"/{issued.grant.id}",
            issued.code.encode(),
            {"name": name, "subject": subject},
            peer,
        )

    def admin_token(
        self,
        *verbs: str,
        sites: Sequence[str] = ("*",),
        window_seconds: int | None = None,
        ago: int = 0,
    ) -> str:
        """Make a token with these rights, every one if none is named, `ago` seconds ago."""
        made = admin_tokens.create(
            self.home.database,
            name=f"token-{ambient.random_bytes(8).hex()}",
            rights=read_rights(verbs or ("*",), sites),
            window_seconds=window_seconds,
            keys=self.home.admin_token_keys,
            actor="test",
            now=ambient.utc_now() - ago,
            random_bytes=ambient.random_bytes,
        )
        return made.secret

    def admin(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
        peer: str = "127.0.0.1",
    ) -> Answer:
        """Ask the admin API; a body is sent as JSON, or as it is if it is bytes already."""
        assert self.addresses.admin is not None
        host, port = self.addresses.admin
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPSConnection(
            host,
            port,
            context=context or self.context,
            timeout=PATIENCE,
            source_address=(peer, 0),
        )
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=response.read(),
            )
        finally:
            connection.close()

    def ops(self, path: str) -> Answer:
        """Ask the ops listener."""
        connection = http.client.HTTPConnection(*self.addresses.ops, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(status=response.status, headers=headers, body=response.read())
        finally:
            connection.close()


def environment(directory: Path, **further: str) -> dict[str, str]:
    """The settings of a server of its own in `directory`, as environment variables."""
    return {
        "GRANTSERVER_DATA_DIR": str(directory / "data"),
        "GRANTSERVER_LISTEN_REDEMPTION": "127.0.0.1:0",
        "GRANTSERVER_LISTEN_OPS": "127.0.0.1:0",
        "GRANTSERVER_REACH_URL": "https://127.0.0.1:9090",
    } | further


@dataclass(slots=True)
class _Run:
    started: threading.Event = field(default_factory=threading.Event)
    addresses: Addresses | None = None
    loop: asyncio.AbstractEventLoop | None = None
    stop: asyncio.Event | None = None
    error: BaseException | None = None


def _ca_pem(home: Home) -> str:
    """Whom clients of the server trust, also while nobody knows where it is reached."""
    try:
        return home.reach().ca_pem
    except Unavailable:
        return reach.current(home.database, "").ca_pem


@contextlib.contextmanager
def running(directory: Path, **further: str) -> Iterator[Server]:
    """Run a server with site `west` until the block ends; then it must stop cleanly."""
    chosen = settings.load(environment(directory, **further))
    home = open_home(chosen)
    sites.put(
        home.database,
        name="west",
        endpoints=[parse_endpoint(text) for text in ENDPOINTS],
        issuer=None,
        actor="test",
        now=ambient.utc_now(),
    )
    run = _Run()

    async def main() -> None:
        run.loop, run.stop = asyncio.get_running_loop(), asyncio.Event()

        def started(addresses: Addresses) -> None:
            run.addresses = addresses
            run.started.set()

        await serve(chosen, stop=run.stop, started=started)

    def in_thread() -> None:
        try:
            listeners.run(main)
        except BaseException as error:  # noqa: BLE001
            run.error = error
        finally:
            run.started.set()

    def stop() -> None:
        if run.loop is not None and run.stop is not None and thread.is_alive():
            run.loop.call_soon_threadsafe(run.stop.set)

    thread = threading.Thread(target=in_thread, daemon=True)
    thread.start()
    try:
        assert run.started.wait(PATIENCE)
        assert run.addresses is not None, run.error
        context = ssl.create_default_context(cadata=_ca_pem(home))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        yield Server(home=home, addresses=run.addresses, context=context, stop=stop)
    finally:
        stop()
        thread.join(PATIENCE)
        home.database.close()
    assert not thread.is_alive()
    assert run.error is None, run.error
