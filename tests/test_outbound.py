import asyncio
import base64
import errno
import ipaddress
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.self_check import Misfit
from app.errors import Invalid, Unavailable
from app.outbound import (
    LONGEST_BODY_BYTES,
    Answer,
    Sight,
    _what_happened,
    inspect,
    look,
    post_code,
    renew,
    was_not_sent,
)
from tests.streams import listening

CODE = b"correct-horse-battery"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n---\n"
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Issuer:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue(
    subject: str,
    *,
    by: Issuer | None,
    ca: bool,
    hosts: tuple[str, ...] = (),
    begin: datetime = BEGIN,
    end: datetime = END,
) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = by.key if by else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(by.certificate.subject if by else name_of(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if hosts:
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Issuer(key, builder.sign(signer, hashes.SHA256()))


@cache
def ca() -> Issuer:
    return issue("ca", by=None, ca=True)


@cache
def intermediate() -> Issuer:
    return issue("intermediate", by=ca(), ca=True)


@cache
def leaf() -> Issuer:
    return issue("localhost", by=ca(), ca=False, hosts=("localhost", "127.0.0.1", "::1"))


def tls(shown: Issuer, *chain: Issuer) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key = shown.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with tempfile.NamedTemporaryFile() as file:
        file.write(key + shown.pem + b"".join(issuer.pem for issuer in chain))
        file.flush()
        context.load_cert_chain(file.name)
    return context


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """What a test's server was sent, and where it listens."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/the-uid"


async def with_server(
    story: Callable[[Server], Awaitable[Any]],
    *,
    reply: bytes = OK,
    context: ssl.SSLContext | None = None,
    plain: bool = False,
    hold: bool = False,
    host: str = "127.0.0.1",
) -> Any:
    """Run a story against a server that reads one request, writes `reply` and hangs up."""
    server = Server()
    done = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            server.requests.append(head + await reader.readexactly(length))
            writer.write(reply)
            await writer.drain()
            if hold:
                await done.wait()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone, which is what some stories are about
        finally:
            writer.transport.close() if not hold else writer.transport.abort()

    shown = None if plain else context or tls(leaf())
    async with listening(handle, host, context=shown) as server.port:
        try:
            async with asyncio.timeout(35):  # the client's own limit has to come first
                return await story(server)
        finally:
            done.set()


def redeem(
    server: Server, *, url: str | None = None, ca_pem: bytes | None = None, seconds: float = 60
) -> Awaitable[Answer]:
    return post_code(
        url or server.url,
        code=CODE,
        ca_pem=ca().pem if ca_pem is None else ca_pem,
        name="link-1",
        subject="site-1",
        seconds=seconds,
    )


def answer(**server: Any) -> Answer:
    found: Answer = asyncio.run(with_server(redeem, **server))
    return found


def trouble(story: Callable[[Server], Awaitable[Answer]] = redeem, **server: Any) -> str:
    """Give the message of the trouble with the port taken out, after a look for the code."""

    async def told(found: Server) -> str:
        with pytest.raises((Unavailable, Invalid)) as caught:
            await story(found)
        error: BaseException | None = caught.value
        while error is not None:
            assert CODE.decode() not in f"{error} {error!r}"
            error = error.__cause__
        return str(caught.value).replace(f":{found.port} ", ":PORT ")

    message: str = asyncio.run(with_server(told, **server))
    return message


def test_a_code_is_posted_as_the_wire_contract_says() -> None:
    async def story(server: Server) -> tuple[Answer, Server]:
        return await redeem(server), server

    found, server = asyncio.run(with_server(story))
    assert found == Answer(status=200, reason="OK", body=b"---\n")
    (request,) = server.requests
    head, body = request.split(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert first == b"POST /the-uid HTTP/1.1"
    assert body == CODE
    headers = dict(line.lower().split(b": ") for line in lines)
    assert headers.pop(b"host") == f"localhost:{server.port}".encode()
    assert headers == {
        b"name": b"link-1",
        b"subject": b"site-1",
        b"accept": b"*/*",
        b"connection": b"close",
        b"content-length": str(len(CODE)).encode(),
    }


def test_what_is_not_given_is_not_sent_and_an_empty_subject_is() -> None:
    async def story(server: Server) -> bytes:
        await post_code(server.url, code=CODE, ca_pem=ca().pem, name=None, subject="")
        return server.requests[0].lower()

    request = asyncio.run(with_server(story))
    assert b"\r\nname:" not in request
    assert b"\r\nsubject: \r\n" in request


def test_a_certificate_request_is_a_header_more_and_changes_nothing_else() -> None:
    csr = bytes(range(256)) * 3

    async def story(server: Server) -> list[bytes]:
        for request in (None, csr):
            await post_code(
                server.url, code=CODE, ca_pem=ca().pem, name="n", subject="s", csr=request
            )
        return server.requests

    plain, asking = asyncio.run(with_server(story))
    header = b"csr: " + base64.b64encode(csr) + b"\r\n"
    assert header in asking
    assert asking.replace(header, b"") == plain


def test_a_renewal_is_posted_to_the_server_itself() -> None:
    async def story(server: Server) -> bytes:
        for end in ("", "/"):
            found = await renew(
                f"https://localhost:{server.port}{end}",
                ca_pem=ca().pem,
                certificate_pem=b"PEM",
                csr=b"\x00\xff",
                signature=b"\x01",
            )
            assert found.status == 200
        first, second = server.requests
        assert first == second
        return first

    head, body = asyncio.run(with_server(story)).split(b"\r\n\r\n")
    assert head.startswith(b"POST /renew HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/json" in head
    assert json.loads(body) == {"certificate": "PEM", "csr": "AP8=", "signature": "AQ=="}


def test_a_certificate_that_is_no_text_is_not_sent() -> None:
    with pytest.raises(Invalid, match="certificate"):
        asyncio.run(
            renew(
                "https://localhost:1", ca_pem=b"", certificate_pem=b"\xff", csr=b"", signature=b""
            )
        )


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("7", 7), ("0", 0), ("", None), ("-1", None), ("1234567", None), ("soon", None)],
)
def test_an_answer_says_when_to_come_again(written: str, seconds: int | None) -> None:
    reply = f"HTTP/1.1 503 x\r\nRetry-After: {written}\r\nContent-Length: 0\r\n\r\n"
    assert answer(reply=reply.encode()).retry_after == seconds


def test_inspecting_sends_the_code_as_a_bearer_and_no_body() -> None:
    async def story(server: Server) -> bytes:
        found = await inspect(server.url, code=CODE, ca_pem=ca().pem)
        assert found.body == b"---\n"
        return server.requests[0]

    request = asyncio.run(with_server(story))
    assert request.startswith(b"GET /the-uid HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer " + CODE + b"\r\n" in request
    assert request.endswith(b"\r\n\r\n")
    assert b"name:" not in request.lower()


def test_a_refusal_is_an_answer_with_the_standard_phrase() -> None:
    reply = b"HTTP/1.1 404 Gone Fishing\r\nContent-Length: 14\r\n\r\nNo such claim\n"
    assert answer(reply=reply) == Answer(status=404, reason="Not Found", body=b"No such claim\n")
    odd = b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n"
    assert answer(reply=odd) == Answer(status=599, reason="", body=b"")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(status: int) -> None:
    async def story(elsewhere: Server) -> None:
        reply = (
            f"HTTP/1.1 {status} X\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        found = await with_server(redeem, reply=reply)
        assert found.status == status
        assert elsewhere.connections == 0

    asyncio.run(with_server(story))


def test_the_body_of_an_answer_is_not_shown() -> None:
    assert "private" not in repr(Answer(status=200, reason="OK", body=b"private"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_server_is_reached_by_its_address(host: str) -> None:
    shown = f"[{host}]" if ":" in host else host

    async def story(server: Server) -> Answer:
        return await redeem(server, url=f"https://{shown}:{server.port}/x")

    found = asyncio.run(with_server(story, host=host))
    assert found.status == 200


def test_a_chunked_answer_is_put_together() -> None:
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n---\r\n1\r\n\n\r\n0\r\n\r\n"
    assert answer(reply=reply).body == b"---\n"


def test_an_intermediate_certificate_alone_is_a_root_for_us() -> None:
    shown = issue("x", by=intermediate(), ca=False, hosts=("localhost",))

    async def story(server: Server) -> Answer:
        return await redeem(server, ca_pem=intermediate().pem)

    found = asyncio.run(with_server(story, context=tls(shown)))
    assert found.status == 200


def test_several_roots_may_be_given() -> None:
    other = issue("other", by=None, ca=True)

    async def story(server: Server) -> Answer:
        return await redeem(server, ca_pem=other.pem + b"\n" + ca().pem)

    assert asyncio.run(with_server(story)).status == 200


# What goes wrong


def test_a_server_of_another_ca_is_not_trusted() -> None:
    async def story(server: Server) -> Answer:
        return await redeem(server, ca_pem=issue("ca", by=None, ca=True).pem)

    message = trouble(story)
    assert message.startswith("ca: localhost:PORT shows a certificate that the token's CA does not")
    assert message.endswith("; the code was not sent")


def test_a_certificate_for_another_host_is_not_trusted() -> None:
    shown = issue("localhost", by=ca(), ca=False, hosts=("elsewhere.example",))
    message = trouble(context=tls(shown))
    assert "localhost:PORT shows a certificate" in message
    assert "Hostname mismatch" in message


def test_the_common_name_is_no_host_name() -> None:
    shown = issue("localhost", by=ca(), ca=False)
    assert "Hostname mismatch" in trouble(context=tls(shown))


def test_a_certificate_that_has_ended_is_not_trusted() -> None:
    shown = issue("x", by=ca(), ca=False, hosts=("localhost",), end=BEGIN + timedelta(days=1))
    assert "certificate has expired" in trouble(context=tls(shown))


def tls_1_2() -> ssl.SSLContext:
    context = tls(leaf())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def test_a_server_that_speaks_only_tls_1_2_is_not_spoken_to() -> None:
    assert "it may not speak TLS 1.3" in trouble(context=tls_1_2())


@pytest.mark.parametrize("plain", [True, False])
def test_a_server_that_says_why_it_cannot_speak_tls_with_us_is_quoted(plain: bool) -> None:
    def serve(listening: socket.socket) -> None:
        connection, _peer = listening.accept()
        with connection:
            if plain:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
            else:
                with pytest.raises(ssl.SSLError):  # the alert goes out before this is raised
                    tls_1_2().wrap_socket(connection, server_side=True)

    async def story(listening: socket.socket) -> str:
        serving = asyncio.create_task(asyncio.to_thread(serve, listening))
        with pytest.raises(Unavailable) as caught:
            await redeem(Server(port=listening.getsockname()[1]))
        assert was_not_sent(caught.value)
        await serving
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        message = asyncio.run(story(listening))
    why = "WRONG_VERSION_NUMBER" if plain else "PROTOCOL_VERSION"
    assert "does not speak TLS 1.3 with us" in message
    assert why in message


def test_a_refused_connection_is_told() -> None:
    async def story(server: Server) -> None:
        with pytest.raises(Unavailable, match=rf"^localhost:{server.port} refuses the connection$"):
            await redeem(server)

    async def run() -> None:
        kept = Server()

        async def note(server: Server) -> None:
            kept.port = server.port

        await with_server(note)
        await story(kept)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("server", "changes", "unsent"),
    [
        ({}, {"url": "https://no-such-host.invalid:9/x"}, True),
        ({}, {"url": "https://127.0.0.1:9/x"}, True),
        ({"reply": b""}, {}, False),
        ({"reply": OK[:-2]}, {}, False),
        ({"reply": b"nonsense\r\n\r\n"}, {}, False),
        ({"reply": b"", "hold": True}, {"seconds": 0.3}, False),
    ],
    ids=["no-name", "refused", "silent", "cut-off", "no-http", "stalled"],
)
def test_what_surely_was_not_sent_is_told_from_what_may_have_been(
    server: dict[str, Any], changes: dict[str, Any], unsent: bool
) -> None:
    async def story(found: Server) -> None:
        with pytest.raises(Unavailable) as caught:
            await redeem(found, **changes)
        assert was_not_sent(caught.value) is unsent
        assert bool(found.requests) is not unsent

    asyncio.run(with_server(story, **server))


def test_another_trouble_of_the_network_is_told_in_the_words_of_the_system() -> None:
    error = OSError(errno.EHOSTUNREACH, "No route to host")
    assert _what_happened(error, 10) == "cannot be reached (No route to host)"
    assert _what_happened(OSError(), 10) == "cannot be reached (OSError)"


def test_an_unknown_host_name_is_told() -> None:
    async def story(server: Server) -> Answer:
        return await redeem(server, url=f"https://no-such-host.invalid:{server.port}/x")

    assert trouble(story) == (
        "no-such-host.invalid:PORT has no address: the host name is not known"
    )


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\n", OK[:-2]])
def test_a_server_that_stalls_is_left_after_the_time_limit(reply: bytes) -> None:
    async def story(server: Server) -> Answer:
        return await redeem(server, seconds=0.3)

    assert trouble(story, reply=reply, hold=True) == (
        "localhost:PORT did not answer completely within 0.3 s"
    )


def test_a_handshake_that_stalls_is_left_after_the_time_limit() -> None:
    async def story() -> None:
        release = asyncio.Event()

        async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await release.wait()
            writer.transport.abort()

        async with listening(handle) as port:
            with pytest.raises(Unavailable, match=r"did not answer completely within 0\.3 s"):
                await redeem(Server(port=port), seconds=0.3)
            release.set()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n---\n", "broke its answer off before"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\nNo", "broke its answer off before"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n---\n\r\n",
            "broke its answer off before",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n---\n", "did not say how long its answer is"),
        (b"HTTP/1.0 200 OK\r\n\r\n---\n", "did not say how long its answer is"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000 + b"\r\n\r\n", "does not answer in HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 98305\r\n\r\n" + b"x" * 98305,
            "answered with more than 98304 bytes",
        ),
    ],
    ids=range(10),
)
def test_an_answer_that_is_not_whole_is_no_answer(reply: bytes, what: str) -> None:
    message = trouble(reply=reply)
    assert message.startswith("localhost:PORT ")
    assert what in message


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n"])
def test_no_error_of_an_inspection_holds_the_code(reply: bytes) -> None:
    async def story(server: Server) -> Answer:
        return await inspect(server.url, code=CODE, ca_pem=ca().pem)

    assert trouble(story, reply=reply)  # which looks through the causes


def test_the_longest_answer_is_taken() -> None:
    body = b"x" * LONGEST_BODY_BYTES
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert answer(reply=head + body).body == body


def test_a_compressed_answer_is_not_unpacked() -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n---\n"
    assert answer(reply=reply).body == b"---\n"


def test_one_attempt_is_made() -> None:
    async def story(server: Server) -> int:
        with pytest.raises(Unavailable):
            await redeem(server)
        with pytest.raises(Unavailable):
            await inspect(server.url, code=CODE, ca_pem=ca().pem)
        return server.connections

    assert asyncio.run(with_server(story, reply=b"")) == 2


PIECES = st.sampled_from(
    [
        *(b"HTTP/1.1 ", b"200", b" OK", b"\r\n", b"\n", b": ", b"Content-Length", b"4", b"-1"),
        *(b"Transfer-Encoding", b"chunked", b"gzip", b"---\n", b"0", b"\x00", b"\xff", b"100 "),
        *(b"Set-Cookie: a=b", b"Location", b"Connection: keep-alive", b"HTTP/2.0 ", b"204"),
    ]
)


@given(pieces=st.lists(PIECES | st.binary(max_size=8), max_size=12), whole=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_answered_is_an_answer_or_unavailable(pieces: list[bytes], whole: bool) -> None:
    reply = (b"HTTP/1.1 200 OK\r\n" if whole else b"") + b"".join(pieces)
    try:
        found = answer(reply=reply)
    except Unavailable as error:
        message = str(error)
    else:
        message = repr(found)
    assert CODE.decode() not in message


@contextmanager
def proxies(monkeypatch: pytest.MonkeyPatch, port: int) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.setenv(name, f"http://127.0.0.1:{port}")
            patch.setenv(name.upper(), f"http://127.0.0.1:{port}")
        patch.delenv("no_proxy", raising=False)
        patch.delenv("NO_PROXY", raising=False)
        yield


def test_proxies_and_roots_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def story(proxy: Server) -> None:
        with proxies(monkeypatch, proxy.port):
            found: Answer = await with_server(redeem)
        assert found.status == 200
        assert proxy.connections == 0

    asyncio.run(with_server(story, plain=True))

    async def wrong(server: Server) -> Answer:
        return await redeem(server, ca_pem=issue("other", by=None, ca=True).pem)

    roots = tmp_path / "roots.pem"
    roots.write_bytes(ca().pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    assert "shows a certificate that the token's CA does not vouch for" in trouble(wrong)


# What is refused before anything is sent


def refused(**given: Any) -> Invalid:
    valid = {"url": "https://localhost:1/x", "code": CODE, "name": "n", "subject": "s"}
    with pytest.raises(Invalid) as caught:
        asyncio.run(post_code(**{"ca_pem": ca().pem, **valid, **given}))
    assert CODE.decode() not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("url", ["http://localhost/x", "ftp://localhost/x", "localhost/x", "", "x"])
def test_a_url_that_is_not_https_is_refused(url: str) -> None:
    error = refused(url=url)
    assert error.field == "url"
    assert error.why == "token url scheme must be https"


@pytest.mark.parametrize(
    "url",
    [
        *("https://", "https:///x", "https://localhost:99999/x", "https://localhost:x/", "https:x"),
        *("https://[::1/x", "https://a b/", "https://a/\r\nX: y", "https://a:0/x", "https://[]/"),
        *("https://user@a/x", "https://user:word@a/x", "https://a\x00/", "https://\ud800/"),
        *("https://a..b/", f"https://{'a' * 64}.example/"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    assert refused(url=url).field == "url"


@given(text=st.text())
def test_any_text_as_url_is_refused_by_name(text: str) -> None:
    assert refused(url=text).field == "url"


@pytest.mark.parametrize(
    "ca_pem",
    [
        *(b"", b"\n", b"garbage", b"\xff\xfe", "é".encode()),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_a_token_without_a_ca_is_refused(ca_pem: bytes) -> None:
    error = refused(ca_pem=ca_pem)
    assert (error.field, error.why) == ("ca", "token does not have a CA")


@pytest.mark.parametrize("header", ["name", "subject"])
@pytest.mark.parametrize("value", ["a\nb", "a\r\nX: y", "a\x00", " a", "a\t", "\x7f", "\ud800"])
def test_a_header_value_that_would_not_arrive_is_refused(header: str, value: str) -> None:
    assert refused(**{header: value}).field == header


@pytest.mark.parametrize("code", [b"a\nb", b"\xff", b"a\x00", b" a", b""])
def test_a_code_that_fits_into_no_header_cannot_be_inspected(code: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        asyncio.run(inspect("https://localhost:1/x", code=code, ca_pem=ca().pem))
    assert caught.value.field == "code"
    assert caught.value.__cause__ is None


# What one sees who only looks


def see(
    *, url: str = "", ca_pem: bytes | None = None, seconds: float = 60, **server: Any
) -> tuple[Sight, Server]:
    """Look at a server, at `url` with its port behind it, and give the port as PORT."""

    async def story(found: Server) -> tuple[Sight, Server]:
        asked = f"{url}:{found.port}/" if url else f"https://localhost:{found.port}/"
        sight = await look(asked, ca_pem=ca().pem if ca_pem is None else ca_pem, seconds=seconds)
        told = sight.trouble.replace(f":{found.port} ", ":PORT ")
        return replace(sight, trouble=told), found

    seen: tuple[Sight, Server] = asyncio.run(with_server(story, **server))
    return seen


def test_a_server_that_is_taken_is_asked_without_a_code_or_anything_else_to_know() -> None:
    sight, server = see()
    assert sight == Sight(
        certificate_pem=leaf().pem, answer=Answer(status=200, reason="OK", body=b"---\n")
    )
    (request,) = server.requests
    assert request.startswith(b"GET / HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n")
    names = {line.split(b":")[0].lower() for line in request.split(b"\r\n")[1:-2]}
    assert names == {b"host", b"accept", b"connection"}


def a_leaf(**changes: Any) -> Issuer:
    return issue("leaf", **{"by": ca(), "ca": False, "hosts": ("localhost",), **changes})


@pytest.mark.parametrize(
    ("shown", "url", "misfit", "why"),
    [
        (a_leaf(hosts=("elsewhere.example",)), "", Misfit.NAME, "Hostname mismatch"),
        (a_leaf(hosts=()), "", Misfit.NAME, "Hostname mismatch"),
        (a_leaf(), "https://127.0.0.1", Misfit.NAME, "IP address mismatch"),
        (a_leaf(end=BEGIN + timedelta(days=1)), "", Misfit.TIME, "certificate has expired"),
        (a_leaf(begin=END - timedelta(days=1)), "", Misfit.TIME, "certificate is not yet valid"),
        (a_leaf(by=issue("ca", by=None, ca=True)), "", Misfit.TRUST, "unable to get local issuer"),
        (a_leaf(by=None), "", Misfit.TRUST, "self-signed certificate"),
    ],
    ids=["name", "no-name", "address", "ended", "not-begun", "namesake", "self-signed"],
)
def test_a_server_that_is_not_taken_is_seen_and_told_nothing(
    shown: Issuer, url: str, misfit: Misfit, why: str
) -> None:
    sight, server = see(url=url, context=tls(shown))
    assert sight.certificate_pem == shown.pem
    assert sight.misfit is misfit
    assert (sight.answer, sight.old_tls) == (None, False)
    assert "PORT shows a certificate that no client takes (" in sight.trouble
    assert why in sight.trouble
    assert server.requests == []


def test_a_server_of_an_older_tls_is_seen_all_the_same() -> None:
    sight, server = see(context=tls_1_2())
    assert sight.certificate_pem == leaf().pem
    assert sight.old_tls
    assert (sight.misfit, sight.answer) == (None, None)
    assert "TLS 1.3" in sight.trouble
    assert server.requests == []


@asynccontextmanager
async def plain_http() -> AsyncIterator[int]:
    """Answer whatever comes in HTTP without TLS; gives the port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(65_536)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    async with listening(handle) as port:
        yield port


def test_where_no_tls_is_spoken_no_certificate_is_seen() -> None:
    async def story() -> Sight:
        async with plain_http() as port:
            return await look(f"https://localhost:{port}/", ca_pem=ca().pem, seconds=60)

    sight = asyncio.run(story())
    assert replace(sight, trouble="") == Sight()
    assert "does not speak TLS 1.3 with us (WRONG_VERSION_NUMBER)" in sight.trouble


@pytest.mark.parametrize(
    ("url", "trouble"),
    [
        ("https://127.0.0.1:9/", "127.0.0.1:9 refuses the connection"),
        (
            "https://no-such-host.invalid:9/",
            "no-such-host.invalid:9 has no address: the host name is not known",
        ),
    ],
)
def test_where_nobody_is_there_is_nothing_to_see(url: str, trouble: str) -> None:
    sight = asyncio.run(look(url, ca_pem=ca().pem, seconds=60))
    assert sight == Sight(trouble=trouble)


def test_a_look_up_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: release.wait(60) and [])
    try:
        sight = asyncio.run(look("https://slow.invalid:9/", ca_pem=ca().pem, seconds=0.3))
        assert not release.is_set()
        (thread,) = (one for one in threading.enumerate() if one.name == "look-up")
        assert thread.daemon
    finally:
        release.set()
    thread.join(60)
    assert sight == Sight(trouble="slow.invalid:9 did not answer completely within 0.3 s")


def test_each_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = socket.getaddrinfo

    def several(host: str, port: int, *rest: Any) -> Any:
        own = asked("127.0.0.1", port, *rest)
        return own if host != "a.example" else asked("127.0.0.9", port, *rest) + own

    monkeypatch.setattr(socket, "getaddrinfo", several)
    good, stranger = a_leaf(hosts=("a.example",)), a_leaf(hosts=("a.example",), by=None)
    for shown, misfit in ((good, None), (stranger, Misfit.TRUST)):
        sight, _ = see(url="https://a.example", context=tls(shown))
        assert sight.certificate_pem == shown.pem
        assert sight.misfit is misfit


def test_an_answer_that_does_not_come_leaves_the_certificate_seen() -> None:
    sight, _ = see(reply=b"", hold=True, seconds=0.5)
    assert sight == Sight(
        certificate_pem=leaf().pem,
        trouble="localhost:PORT did not answer completely within 0.5 s",
    )


def test_a_look_at_somebody_silent_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        sight = asyncio.run(look(f"https://127.0.0.1:{port}/", ca_pem=ca().pem, seconds=0.3))
    assert sight == Sight(trouble=f"127.0.0.1:{port} did not answer completely within 0.3 s")


def test_a_second_look_at_somebody_silent_ends_in_time_too() -> None:
    """It shows a certificate to the first client and says nothing to the second."""

    def serve(listening: socket.socket, release: threading.Event) -> None:
        first, _ = listening.accept()
        with first, suppress(OSError):
            tls(a_leaf(by=None)).wrap_socket(first, server_side=True).close()
        second, _ = listening.accept()
        with second:
            release.wait(60)

    async def story(listening: socket.socket) -> tuple[Sight, str]:
        release = threading.Event()
        serving = asyncio.create_task(asyncio.to_thread(serve, listening, release))
        where = f"localhost:{listening.getsockname()[1]}"
        async with asyncio.timeout(35):
            sight = await look(f"https://{where}/", ca_pem=ca().pem, seconds=1.5)
        release.set()
        await serving
        return sight, where

    with socket.create_server(("127.0.0.1", 0)) as listening:
        sight, where = asyncio.run(story(listening))
    assert (sight.certificate_pem, sight.misfit) == (b"", Misfit.TRUST)
    assert sight.trouble.startswith(f"{where} shows a certificate that no client takes")


@pytest.mark.parametrize(
    ("changes", "field"), [({"url": "http://localhost/"}, "url"), ({"ca_pem": b""}, "ca")]
)
def test_a_look_that_cannot_be_had_is_refused_by_name(changes: Any, field: str) -> None:
    given = {"url": "https://127.0.0.1:9/", "ca_pem": ca().pem, "seconds": 1, **changes}
    with pytest.raises(Invalid) as caught:
        asyncio.run(look(given.pop("url"), **given))
    assert caught.value.field == field


def test_a_look_passes_the_proxies_of_the_environment_by(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(proxy: Server) -> None:
        with proxies(monkeypatch, proxy.port):
            sight, _ = await asyncio.to_thread(see)
        assert sight.answer is not None
        assert proxy.connections == 0

    asyncio.run(with_server(story, plain=True))
