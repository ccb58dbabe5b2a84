"""What one client does to the server must not be felt by the others, nor fill its memory."""

import contextlib
import http.client
import itertools
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app.web import redemption
from tests.installation import PATIENCE, Installation
from tests.running import running

STALLED = 500
MEGABYTE = 1 << 20
GROWTH_KB = 150 * 1024  # of the whole server, through all of this; a leak would be gigabytes


def peak_kb(process_id: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process_id}/status").read_text())
    assert found is not None
    return int(found[1])


class Site:
    """A well-behaved site that redeems over and over while others misbehave."""

    def __init__(self, run: Installation) -> None:
        run.type("site", "set", "west", "--endpoint", "inter-router=west.example.com:55671")
        text = run.type("token", "issue", "-", "--site", "west", "--redemptions", "1000")
        token = yaml.safe_load(text)["spec"]
        self.port = run.port
        self.path = "/" + token["url"].rsplit("/", 1)[1]
        self.code: str = token["code"]
        self.context = ssl.create_default_context(cadata=token["ca"])
        self.numbers = itertools.count()

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        return self.context.wrap_socket(plain, server_hostname="127.0.0.1")

    def redeems(self) -> bool:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=self.context, timeout=PATIENCE
        )
        headers = {"name": "token", "subject": f"site-{next(self.numbers)}"}
        connection.request("POST", self.path, self.code, headers)
        status = connection.getresponse().status
        connection.close()
        return status == 200


def answer(connection: ssl.SSLSocket) -> bytes:
    """All that the server says until it closes or has said all that it announced."""
    with contextlib.closing(connection):
        response = http.client.HTTPResponse(connection)
        response.begin()
        return f"{response.status} ".encode() + response.read()


@pytest.fixture
def run(tmp_path: Path) -> Installation:
    return Installation(tmp_path, GRANTSERVER_LIMITS_HANDSHAKE="60s")


@contextlib.contextmanager
def stalled(port: int) -> Iterator[None]:
    """Open connections that never finish their handshake: some silent, some half a hello."""
    with contextlib.ExitStack() as stack:
        for number in range(STALLED):
            one = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            stack.enter_context(contextlib.closing(one))
            if number % 2:
                one.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        yield


def test_others_are_served_and_memory_stays_bounded(run: Installation) -> None:
    with run.serving() as process_id:
        site = Site(run)
        assert site.redeems()
        before = peak_kb(process_id)
        with stalled(run.port), site.connect() as trickling, site.connect() as dawdling:
            trickling.sendall(f"POST {site.path} HTTP/1.1\r\nhost: x\r\nname: ".encode())
            dawdling.sendall(
                f"POST {site.path} HTTP/1.1\r\nhost: x\r\ncontent-length: 24\r\n\r\nabc".encode()
            )
            assert site.redeems()

            flood = site.connect()
            flood.sendall(
                f"POST {site.path} HTTP/1.1\r\nhost: x\r\n"
                f"content-length: {50 * MEGABYTE}\r\n\r\n".encode()
            )
            sent = 0
            with contextlib.suppress(OSError):
                while sent < 50 * MEGABYTE:
                    sent += flood.send(b"x" * 65536)
                    trickling.sendall(b"x")
            assert answer(flood) == b"400 Request body not valid\n"
            assert site.redeems()

            wide = site.connect()
            head = f"POST {site.path} HTTP/1.1\r\nhost: x\r\nname: {'x' * 65536}\r\n\r\n"
            wide.sendall(head.encode())
            assert answer(wide).startswith(b"431 ")
            assert site.redeems()
        assert site.redeems()
        assert peak_kb(process_id) - before < GROWTH_KB
    assert run.log.read_text().count("redeemed") == 5


def test_a_body_that_trickles_is_refused_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redemption, "BODY_SECONDS", 0.2)
    with running(tmp_path) as server:
        issued = server.issue()
        plain = socket.create_connection(server.addresses.redemption, timeout=PATIENCE)
        dawdling = server.context.wrap_socket(plain, server_hostname="127.0.0.1")
        head = f"POST /{issued.grant.id} HTTP/1.1\r\nhost: x\r\ncontent-length: 24\r\n\r\nabc"
        dawdling.sendall(head.encode())
        assert answer(dawdling) == b"400 Request body not valid\n"
        assert server.redeem(issued).status == 200
