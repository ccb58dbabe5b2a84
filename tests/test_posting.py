import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from app.domain.webhooks import Failure
from app.errors import Invalid
from app.posting import Posted, check_ca, post
from tests.pki import a_root
from tests.strangers import Stranger, a_stranger
from tests.test_outbound import ca, leaf, tls

BODY = '{"id":"…"}'.encode()
HEADERS = {"Content-Type": "application/json", "webhook-id": "7-ab"}
Speaks = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Stranger]:
    with a_stranger(tmp_path) as made:
        yield made


def posted(url: str, ca_pem: str | None, *, seconds: float = 5.0) -> Posted:
    return asyncio.run(post(url, headers=HEADERS, body=BODY, ca_pem=ca_pem, seconds=seconds))


def posted_to(speaks: Speaks, *, seconds: float = 5.0, plain: bool = False) -> Posted:
    """Post to a server that speaks as it likes, below HTTP."""

    async def main() -> Posted:
        context = None if plain else tls(leaf())
        server = await asyncio.start_server(speaks, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            url = f"{'http' if plain else 'https'}://127.0.0.1:{port}/x"
            return await post(
                url, headers=HEADERS, body=BODY, ca_pem=ca().pem.decode(), seconds=seconds
            )

    return asyncio.run(main())


def test_a_message_arrives_as_it_was_given(receiver: Stranger) -> None:
    receiver.say = lambda _: (204, b"")
    assert posted(f"{receiver.url}/a?b=c", receiver.ca_pem) == Posted(status=204)
    (asked,) = receiver.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/a?b=c", BODY)
    assert asked.headers["webhook-id"] == "7-ab"
    assert asked.headers["Content-Type"] == "application/json"
    assert "Cookie" not in asked.headers


@pytest.mark.parametrize("status", [301, 307, 400, 410, 500])
def test_no_success_is_a_failure_and_no_redirect_is_followed(
    receiver: Stranger, status: int
) -> None:
    receiver.say = lambda _: (status, b"")
    found = posted(receiver.url, receiver.ca_pem)
    assert found == Posted(status=status, failure=Failure.STATUS)
    assert len(receiver.asked) == 1


@pytest.mark.parametrize("others", [None, a_root().pem.decode()], ids=["system", "other CA"])
def test_who_is_not_trusted_is_told_nothing(receiver: Stranger, others: str | None) -> None:
    assert posted(receiver.url, others) == Posted(failure=Failure.CERTIFICATE)
    assert receiver.asked == []


def test_a_name_that_the_certificate_does_not_carry_is_not_trusted(receiver: Stranger) -> None:
    url = receiver.url.replace("127.0.0.1", "localhost")
    assert posted(url, receiver.ca_pem) == Posted(failure=Failure.CERTIFICATE)


def test_an_address_that_is_not_known_and_one_where_nobody_listens(receiver: Stranger) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"https://127.0.0.1:{free.getsockname()[1]}/"
        assert posted(nobody, receiver.ca_pem) == Posted(failure=Failure.CONNECTION)
    unknown = posted("https://no-such-host.invalid/", receiver.ca_pem)
    assert unknown == Posted(failure=Failure.ADDRESS)


def test_who_does_not_answer_in_time_is_left() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    assert posted_to(silence, seconds=0.3) == Posted(failure=Failure.TIMEOUT)


def test_who_answers_in_no_http_is_no_receiver() -> None:
    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\r\n\r\n")
        writer.close()

    assert posted_to(nonsense) == Posted(failure=Failure.PROTOCOL)


def test_who_closes_without_an_answer_has_broken_the_connection() -> None:
    async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    assert posted_to(gone) == Posted(failure=Failure.CONNECTION)


def test_who_speaks_no_tls_is_told_nothing() -> None:
    heard = b""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard = await reader.read(1000)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> Posted:
        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        async with server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            return await post(url, headers=HEADERS, body=BODY, ca_pem=ca().pem.decode())

    assert asyncio.run(main()) == Posted(failure=Failure.TLS)
    assert BODY not in heard


def test_this_machine_itself_may_be_told_without_tls() -> None:
    async def accepts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    assert posted_to(accepts, plain=True) == Posted(status=200)


@pytest.mark.parametrize(
    "text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\u00e4"]
)
def test_what_is_no_certificate_is_no_ca(text: str) -> None:
    with pytest.raises(Invalid, match="ca: it holds no certificate"):
        check_ca(text)


def test_a_certificate_is_a_ca() -> None:
    check_ca(ca().pem.decode())
