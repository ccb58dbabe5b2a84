import asyncio
import hashlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.domain.self_check import Finding, Misfit, Outcome
from app.errors import Reason, Unavailable
from app.outbound import Answer, Sight
from app.services import self_check
from app.services.self_check import SelfCheck, Target, check, judge, pause
from app.web.wire import REFUSALS
from tests.builders import NOW, Clock
from tests.running import PATIENCE, running
from tests.streams import listening
from tests.test_outbound import (
    BEGIN,
    END,
    Issuer,
    ca,
    issue,
    leaf,
    plain_http,
    tls,
    tls_1_2,
    with_server,
)

METHOD = REFUSALS[Reason.METHOD]
LIMITED = REFUSALS[Reason.RATE_LIMITED]


def reply(status: int, text: str) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(text) + 1}\r\n\r\n{text}\n".encode()


OURS = reply(METHOD.status, METHOD.text)


def fingerprint(of: Issuer) -> str:
    der = ssl.PEM_cert_to_DER_cert(of.pem.decode())
    return hashlib.sha256(der).hexdigest()


@cache
def namesake() -> Issuer:
    """Another CA with the same name."""
    return issue("ca", by=None, ca=True)


def look(
    *ours: Issuer, host: str = "localhost", seconds: float = 60, **server: Any
) -> tuple[Finding, list[bytes]]:
    """Check a server that answers as we do, or as told; `ours` are the certificates we know."""

    async def story(found: Any) -> tuple[Finding, list[bytes]]:
        finding = await check(
            f"https://{host}:{found.port}",
            ca().pem.decode(),
            {fingerprint(one) for one in ours},
            seconds=seconds,
        )
        detail = finding.detail.replace(f":{found.port}", ":PORT")
        return Finding(
            outcome=finding.outcome, detail=detail, misfit=finding.misfit
        ), found.requests

    seen: tuple[Finding, list[bytes]] = asyncio.run(with_server(story, **{"reply": OURS, **server}))
    return seen


def test_what_only_we_answer_is_what_the_wire_contract_says() -> None:
    assert {
        (METHOD.status, f"{METHOD.text}\n".encode()),
        (LIMITED.status, f"{LIMITED.text}\n".encode()),
    } == self_check._OURS


@pytest.mark.parametrize("answer", [METHOD, LIMITED], ids=["method", "limited"])
def test_our_certificate_and_our_answer_are_reachable(answer: Any) -> None:
    found, requests = look(leaf(), reply=reply(answer.status, answer.text))
    assert found == Finding(
        outcome=Outcome.REACHABLE,
        detail="https://localhost:PORT shows our certificate, and the CA of tokens vouches for it",
    )
    (request,) = requests
    assert request.startswith(b"GET / HTTP/1.1\r\n")
    assert b"authorization" not in request.lower()


def test_one_of_our_certificates_is_enough() -> None:
    assert look(namesake(), leaf())[0].outcome is Outcome.REACHABLE


OURS_BUT = {
    "ended": (
        {"end": BEGIN + timedelta(days=1)},
        Misfit.TIME,
        "it is ours, for localhost, good from 2020-01-01T00:00:00Z until 2020-01-02T00:00:00Z",
    ),
    "not-begun": ({"begin": END - timedelta(days=1)}, Misfit.TIME, "not yet valid): it is ours"),
    "name": (
        {"hosts": ("elsewhere.example", "192.0.2.7")},
        Misfit.NAME,
        "it is ours, for elsewhere.example, 192.0.2.7, good",
    ),
    "no-name": ({"hosts": ()}, Misfit.NAME, "it is ours, for no host, good"),
    "trust": ({"by": namesake()}, Misfit.TRUST, "unable to get local issuer certificate): it is"),
}


@pytest.mark.parametrize(("changes", "misfit", "detail"), OURS_BUT.values(), ids=OURS_BUT)
def test_our_certificate_that_no_client_takes_is_wrong(
    changes: dict[str, Any], misfit: Misfit, detail: str
) -> None:
    shown = issue("x", **{"by": ca(), "ca": False, "hosts": ("localhost",), **changes})
    found, requests = look(shown, context=tls(shown))
    assert (found.outcome, found.misfit) == (Outcome.WRONG_CERTIFICATE, misfit)
    assert found.detail.startswith("localhost:PORT shows a certificate that no client takes (")
    assert detail in found.detail
    assert requests == []


NOT_OURS = {
    "stranger": (
        issue("proxy", by=issue("Acme Web CA", by=None, ca=True), ca=False, hosts=("localhost",)),
        "that of CN=proxy, issued by CN=Acme Web CA; localhost:PORT shows a certificate that no",
    ),
    "namesake": (
        issue("server", by=namesake(), ca=False, hosts=("localhost",)),
        "that of CN=server, issued by CN=ca; localhost:PORT shows a certificate that no client",
    ),
    "vouched-for": (
        issue("proxy", by=ca(), ca=False, hosts=("localhost",)),
        "that of CN=proxy, issued by CN=ca; clients take it, because the CA of tokens vouches",
    ),
    "escapes": (
        issue("\x1b[2J" + "x" * 60, by=namesake(), ca=False, hosts=("localhost",)),
        "that of CN=?[2Jxxx",
    ),
}


@pytest.mark.parametrize(("shown", "detail"), NOT_OURS.values(), ids=NOT_OURS)
def test_another_certificate_than_ours_is_tls_that_ends_on_the_way(
    shown: Issuer, detail: str
) -> None:
    found, _ = look(leaf(), context=tls(shown))
    assert (found.outcome, found.misfit) == (Outcome.TERMINATED, None)
    assert found.detail.startswith(
        f"https://localhost:PORT shows a certificate that is none of ours: {detail}"
    )


def test_a_proxy_in_front_of_us_that_ends_tls_is_named() -> None:
    """It passes everything on, and its certificate is good: only that it is not ours tells."""

    async def story(server: Any) -> Finding:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inside = ssl.create_default_context(cadata=ca().pem.decode())
            back, forth = await asyncio.open_connection("localhost", server.port, ssl=inside)
            try:
                with suppress(OSError, asyncio.IncompleteReadError):
                    forth.write(await reader.readuntil(b"\r\n\r\n"))
                    writer.write(await back.readuntil(b"supported\n"))
                    await writer.drain()
            finally:
                forth.transport.abort()
                writer.close()

        shown = issue("edge-proxy", by=ca(), ca=False, hosts=("localhost",))
        async with listening(handle, context=tls(shown)) as port:
            found = await check(
                f"https://localhost:{port}", ca().pem.decode(), {fingerprint(leaf())}, seconds=60
            )
        assert len(server.requests) == 1
        return found

    found: Finding = asyncio.run(with_server(story, reply=OURS))
    assert found.outcome is Outcome.TERMINATED
    assert "that of CN=edge-proxy, issued by CN=ca" in found.detail


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", reply(405, "Method Not Allowed")]
)
def test_whoever_has_our_certificate_but_not_our_words_is_not_we(said: bytes) -> None:
    found, _ = look(leaf(), reply=said)
    assert found.outcome is Outcome.TERMINATED
    assert "shows our certificate but does not answer as we do: " in found.detail


@pytest.mark.parametrize("ours", [True, False])
def test_who_speaks_tls_1_2_only_is_not_we(ours: bool) -> None:
    found, requests = look(leaf() if ours else namesake(), context=tls_1_2())
    assert found.outcome is Outcome.TERMINATED
    assert "TLS" in found.detail
    assert ("that of CN=localhost, issued by CN=ca" in found.detail) is not ours
    assert requests == []


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("https://127.0.0.1:9", "127.0.0.1:9 refuses the connection"),
        (
            "https://no-such-host.invalid",
            "no-such-host.invalid:443 has no address: the host name is not known",
        ),
        ("https://a..b", "https://a..b cannot be dialled with what tokens carry: url: token url"),
    ],
)
def test_where_nobody_is_it_is_said_why(url: str, detail: str) -> None:
    found = asyncio.run(check(url, ca().pem.decode(), set(), seconds=60))
    assert found.outcome is Outcome.UNREACHABLE
    assert found.detail.startswith(detail)


def test_a_ca_that_is_none_reaches_nobody() -> None:
    found = asyncio.run(check("https://127.0.0.1:9", "no PEM", set()))
    assert found.outcome is Outcome.UNREACHABLE
    assert "ca: token does not have a CA" in found.detail


def test_where_http_is_answered_without_tls_nobody_is_reached() -> None:
    async def story() -> Finding:
        async with plain_http() as port:
            return await check(f"https://localhost:{port}", ca().pem.decode(), set(), seconds=60)

    found = asyncio.run(story())
    assert found.outcome is Outcome.UNREACHABLE
    assert "does not speak TLS 1.3 with us (WRONG_VERSION_NUMBER)" in found.detail


def test_who_accepts_and_is_silent_is_not_reached_and_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        found = asyncio.run(check(url, ca().pem.decode(), set(), seconds=0.3))
    assert found.outcome is Outcome.UNREACHABLE
    assert found.detail.endswith(" did not answer completely within 0.3 s")


def test_who_shows_our_certificate_and_is_silent_then_is_not_reached() -> None:
    found, _ = look(leaf(), reply=b"", hold=True, seconds=0.5)
    assert found.outcome is Outcome.UNREACHABLE
    assert found.detail == "localhost:PORT did not answer completely within 0.5 s"


def test_a_certificate_that_was_refused_and_not_seen_is_wrong() -> None:
    sight = Sight(misfit=Misfit.TIME, trouble="x:1 shows a certificate that no client takes (y)")
    found = judge("https://x:1", sight, set())
    assert found == Finding(
        outcome=Outcome.WRONG_CERTIFICATE, detail=sight.trouble, misfit=Misfit.TIME
    )


def test_a_certificate_that_cannot_be_read_is_none_of_ours() -> None:
    pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    sight = Sight(certificate_pem=pem, misfit=Misfit.TRUST, trouble="z")
    found = judge("https://x:1", sight, set())
    assert found.outcome is Outcome.TERMINATED
    assert "none of ours: one that cannot be read; z" in found.detail


def test_our_certificate_seen_after_a_broken_handshake_is_not_reached() -> None:
    sight = Sight(certificate_pem=leaf().pem, trouble="x:1 broke the connection off")
    found = judge("https://x:1", sight, {fingerprint(leaf())})
    assert found == Finding(outcome=Outcome.UNREACHABLE, detail="x:1 broke the connection off")


def test_an_answer_without_a_phrase_is_told_by_its_number() -> None:
    sight = Sight(certificate_pem=leaf().pem, answer=Answer(status=599, reason="", body=b""))
    assert judge("https://x:1", sight, {fingerprint(leaf())}).detail.endswith("as we do: 599")


# When it is looked


@pytest.mark.parametrize(
    ("in_vain", "seconds"),
    [(0, 300), (1, 15), (2, 30), (3, 60), (5, 240), (6, 300), (10**6, 300)],
)
def test_after_a_bad_outcome_the_next_look_is_sooner(in_vain: int, seconds: float) -> None:
    assert (
        pause(
            in_vain,
            again_seconds=self_check.AGAIN_SECONDS,
            every_seconds=self_check.EVERY_SECONDS,
        )
        == seconds
    )


def a_target(port: int = 9, ours: Iterable[Issuer] = (), **changes: Any) -> Target:
    made = {
        "url": f"https://localhost:{port}",
        "ca_pem": ca().pem.decode(),
        "ours": frozenset(fingerprint(one) for one in ours),
    }
    return Target(**(made | changes))


@dataclass(kw_only=True)
class Stage:
    """A self-check whose target a test sets, with all that it tells."""

    target: Target | Exception = field(default_factory=a_target)
    told: asyncio.Queue[tuple[Outcome, int | None]] = field(default_factory=asyncio.Queue)
    events: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0

    def dialled(self) -> Target:
        self.asked += 1
        if isinstance(self.target, Exception):
            raise self.target
        return self.target

    def log(self) -> structlog.stdlib.BoundLogger:
        def note(_logger: Any, level: str, event: Any) -> Any:
            self.events.append({"level": level, **event})
            raise structlog.DropEvent

        made: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            None, processors=[note], wrapper_class=structlog.stdlib.BoundLogger
        )
        return made

    async def next(self) -> Outcome:
        async with asyncio.timeout(PATIENCE):
            return (await self.told.get())[0]

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator[SelfCheck]:
        """Run it until the block ends; without changes it looks when something changes only."""
        options: dict[str, Any] = {"settle_seconds": 0, "every_seconds": 9e6, "again_seconds": 9e6}
        checks = SelfCheck(
            self.dialled,
            clock=Clock(),
            log=self.log(),
            on_look=lambda outcome, at: self.told.put_nowait((outcome, at)),
            **(options | changes),
        )
        task = asyncio.create_task(checks.run())
        try:
            yield checks
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def play(story: Callable[[Stage], Awaitable[None]]) -> Stage:
    stage = Stage()

    async def run() -> None:
        await story(stage)

    asyncio.run(run())
    return stage


def test_before_the_first_look_nothing_is_known_and_that_is_told() -> None:
    async def story(stage: Stage) -> None:
        async with stage.running(settle_seconds=9e6) as checks:
            async with asyncio.timeout(PATIENCE):
                assert await stage.told.get() == (Outcome.UNKNOWN, None)
            assert checks.found == self_check.NOT_LOOKED
            assert stage.asked == 0

    assert play(story).events == []


def test_the_first_look_needs_no_change_and_its_time_is_told() -> None:
    async def story(stage: Stage) -> None:
        async def served(server: Any) -> None:
            stage.target = a_target(server.port, [leaf()])
            async with stage.running() as checks, asyncio.timeout(PATIENCE):
                await stage.told.get()
                assert await stage.told.get() == (Outcome.REACHABLE, NOW)
                assert checks.found.outcome is Outcome.REACHABLE

        await with_server(served, reply=OURS)

    (event,) = play(story).events
    assert event["level"] == "info"
    assert event["event"] == "public address looked at"
    assert (event["outcome"], event["was"]) == ("reachable", "unknown")


def test_a_change_is_looked_at_and_the_log_gets_a_line_for_each_change_of_the_outcome() -> None:
    async def story(stage: Stage) -> None:
        async def served(server: Any) -> None:
            good = a_target(server.port, [leaf()])
            async with stage.running() as checks:
                assert await stage.next() is Outcome.UNKNOWN
                assert await stage.next() is Outcome.UNREACHABLE
                for target, outcome in (
                    (a_target(), Outcome.UNREACHABLE),
                    (good, Outcome.REACHABLE),
                    (good, Outcome.REACHABLE),
                    (a_target(), Outcome.UNREACHABLE),
                ):
                    stage.target = target
                    checks.check_soon()
                    assert await stage.next() is outcome

        await with_server(served, reply=OURS)

    events = play(story).events
    assert [(event["level"], event["outcome"]) for event in events] == [
        ("warning", "unreachable"),
        ("info", "reachable"),
        ("warning", "unreachable"),
    ]
    assert events[0]["detail"] == "localhost:9 refuses the connection"


def test_a_bad_outcome_is_looked_at_again_until_it_is_good() -> None:
    async def story(stage: Stage) -> None:
        async with stage.running(again_seconds=0.01):
            assert await stage.next() is Outcome.UNKNOWN
            for _ in range(3):
                assert await stage.next() is Outcome.UNREACHABLE

            async def served(server: Any) -> None:
                stage.target = a_target(server.port, [leaf()])
                while await stage.next() is not Outcome.REACHABLE:
                    pass

            await with_server(served, reply=OURS)

    assert len(play(story).events) == 2


def test_a_good_outcome_is_looked_at_now_and_then() -> None:
    async def story(stage: Stage) -> None:
        async def served(server: Any) -> None:
            stage.target = a_target(server.port, [leaf()])
            async with stage.running(every_seconds=0.01):
                assert await stage.next() is Outcome.UNKNOWN
                for _ in range(3):
                    assert await stage.next() is Outcome.REACHABLE

        await with_server(served, reply=OURS)

    play(story)


def test_several_changes_at_once_are_one_look() -> None:
    async def story(stage: Stage) -> None:
        stage.target = a_target(url="")
        async with stage.running() as checks:
            for _ in range(2):
                await stage.next()
            for _ in range(5):
                checks.check_soon()
            await stage.next()
            for _ in range(20):  # time enough for looks that nothing asks for
                await asyncio.to_thread(lambda: None)
            assert stage.asked == 2

    play(story)


def test_without_an_address_nobody_is_dialled_and_it_is_said_what_for() -> None:
    async def story(stage: Stage) -> None:
        stage.target = a_target(url="", waiting="waiting for an address of Service a/b")
        async with stage.running() as checks:
            for _ in range(2):
                assert await stage.next() is Outcome.UNKNOWN
            assert checks.found.detail == "waiting for an address of Service a/b"

    assert play(story).events == []


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (Unavailable("the database is away"), "nobody could look: the database is away"),
        (RuntimeError("secret"), "nobody could look: RuntimeError"),
    ],
)
def test_trouble_of_our_own_says_nothing_of_the_address_and_ends_nothing(
    error: Exception, detail: str
) -> None:
    async def story(stage: Stage) -> None:
        stage.target = error
        async with stage.running() as checks:
            for _ in range(2):
                assert await stage.next() is Outcome.UNKNOWN
            assert checks.found.detail == detail
            stage.target = a_target()
            checks.check_soon()
            assert await stage.next() is Outcome.UNREACHABLE

    play(story)


def test_what_was_ours_once_stays_ours() -> None:
    """Other replicas may serve the certificate of before for a moment longer."""

    async def story(stage: Stage) -> None:
        async def served(server: Any) -> None:
            async with stage.running() as checks:
                await stage.next()
                for ours, outcome in (
                    ([namesake()], Outcome.TERMINATED),
                    ([leaf()], Outcome.REACHABLE),
                    ([namesake()], Outcome.REACHABLE),
                ):
                    stage.target = a_target(server.port, ours)
                    checks.check_soon()
                    found = await stage.next()
                    while found is not outcome:
                        found = await stage.next()

        await with_server(served, reply=OURS)

    play(story)


# A whole server


def test_a_whole_server_is_found_at_its_own_address(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        host, port = server.addresses.redemption
        shown = ssl.get_server_certificate((host, port))
        ours = hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest()
        reach = server.home.reach()
        assert reach is not None
        found = asyncio.run(check(f"https://{host}:{port}", reach.ca_pem, {ours}, seconds=60))
        assert found.outcome is Outcome.REACHABLE, found.detail
        told = json.loads(server.ops("/readyz").body)
        assert told["ready"]
        assert told["details"]["public_address"] in set(Outcome)
