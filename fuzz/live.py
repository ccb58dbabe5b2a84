"""A whole server in a process of its own, and what must hold of it whatever it is sent."""

import base64
import contextlib
import os
import sqlite3
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import strategies as st

from app import ambient, settings
from app.domain.sites import parse_endpoint
from app.home import open_home
from app.services import grants, sites
from app.services.grants import Issued, Wish
from bench.servers import free_port, running, says_ready
from fuzz.mutations import Damaged
from fuzz.requests import (
    TLS_WORDS,
    DamagedRequests,
    Door,
    Field,
    Sent,
    claimed,
    client_hello,
    leads_to,
    request,
    targets,
)

MANY: Final = 1_000_000
TROUBLE: Final = ("Traceback", "nobody foresaw", "Exception", " error ", "critical")
"""What is in no line of the log of a server that is well."""

NAME, SUBJECT = b"Name: lab\r\n", b"Subject: 5f0f8f8e-3f3b-4f7a-9a55-6f2f1c6f3a77\r\n"


@dataclass(kw_only=True)
class Live:
    """A running server; what is done to it is checked after each request, and at the end."""

    redemption: Door
    ops: Door
    database: Path
    log: Path
    guarded: Issued = field(repr=False)
    """A grant whose code is never sent: nothing may be spent of it."""
    given: Issued = field(repr=False)
    """A grant whose code is sent: what is spent of it is what was answered."""
    answers: set[bytes] = field(default_factory=set, repr=False)
    _read: int = 0

    # Strategies

    def wrong(self) -> DamagedRequests:
        """Draw damaged claims with a wrong code, and damaged questions of what is left."""
        target = f"/{self.guarded.grant.id}"
        code = b"x" * len(self.guarded.code)
        chunked = request(target, b"", NAME, b"Transfer-Encoding: chunked\r\n").replace(
            b"Content-Length: 0\r\n", b""
        )
        return DamagedRequests.of(
            request(target, code, NAME, SUBJECT),
            request(target, code, NAME, SUBJECT, b"Expect: 100-continue\r\n"),
            request(target, code, b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
            chunked + b"4\r\ncode\r\n0\r\nx: y\r\n\r\n",
            b"GET %b HTTP/1.1\r\nAuthorization: Bearer %b\r\n\r\n" % (target.encode(), code),
        )

    def right(self) -> DamagedRequests:
        """Draw damaged heads before the right code."""
        code = self.given.code.encode()
        target = f"/{self.given.grant.id}"
        chunked = request(target, b"", NAME, b"Transfer-Encoding: chunked\r\n")
        return DamagedRequests.of(
            request(target, code, NAME, SUBJECT).removesuffix(code),
            request(target, code, SUBJECT).removesuffix(code),
            chunked.replace(b"Content-Length: 0\r\n", b"") + b"%x\r\n" % len(code),
            code=code,
        )

    def paths(self) -> st.SearchStrategy[str]:
        """Draw targets around the guarded grant."""
        return targets(self.guarded.grant.id)

    def hellos(self) -> Damaged:
        """Draw damaged beginnings of a TLS handshake."""
        context = self.redemption.context
        assert context is not None
        return Damaged(originals=[client_hello(context)], words=TLS_WORDS)

    def questions(self) -> DamagedRequests:
        """Draw damaged requests to the ops listener, which keeps its connections."""
        return DamagedRequests.of(
            b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /readyz?x HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\ncode",
        )

    # Checks

    def check_wrong(self, sent: Sent) -> None:
        """One answer or none, and nothing is spent."""
        answer = self.redemption.ask(sent)
        assert answer is None or answer.status != 200
        self.check_well()
        assert self.spent(self.guarded) == 0

    def check_right(self, sent: Sent) -> None:
        """One answer or none; as much is spent as there were different successes."""
        answer = self.redemption.ask(sent)
        if answer is not None and answer.status == 200:
            self.answers.add(answer.body)
        self.check_well()
        assert self.spent(self.given) == len(self.answers)

    def check_path(self, target: str) -> None:
        """The grant is found under its path and under no other."""
        answer = self.redemption.ask(((request(target, b"x" * 24, NAME),), True))
        assert answer is not None
        allowed = {403} if leads_to(target, self.guarded.grant.id) else {404, 400}
        assert answer.status in allowed, answer
        self.check_well()

    def check_fields(self, fields: Sequence[Field]) -> None:
        """Headers mean what the wire contract says, or the claim is refused."""
        code = self.given.code.encode()
        lines = [b"%b: %b\r\n" % one for one in fields]
        target = f"/{self.given.grant.id}"
        answer = self.redemption.ask(((request(target, code, *lines),), True))
        expected = claimed(fields, self.given.grant.name)
        assert answer is not None
        if expected is None:
            assert answer.status == 400, answer
        else:
            assert answer.status == 200, (answer, expected)
            secret, link = yaml.safe_load_all(answer.body)
            assert secret["metadata"]["name"] == link["metadata"]["name"] == expected.name
            leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
            (attribute,) = leaf.subject
            assert (attribute.oid, attribute.value) == (NameOID.COMMON_NAME, expected.common_name)
            self.answers.add(answer.body)
        self.check_well()
        assert self.spent(self.given) == len(self.answers)

    def check_hello(self, hello: bytes) -> None:
        """What is no TLS is let go, and soon."""
        plain = Door(self.redemption.address, None)
        assert len(plain.exchange(((hello,), True))) < 16_384
        self.check_well()

    def check_question(self, sent: Sent) -> None:
        """The ops listener ends the connection of who has said all, and is well."""
        pieces, _ = sent
        received = self.ops.exchange((pieces, True))
        assert len(received) < 65_536
        assert not received or received.startswith(b"HTTP/1.1 ")
        assert b"HTTP/1.1 500" not in received
        self.check_well()

    def check_well(self) -> None:
        """The log has no trouble in it, and no secret."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            lines = file.read().decode("utf-8", "replace")
            self._read = file.tell()
        for word in TROUBLE:
            assert word not in lines, lines[-2000:]
        for issued in (self.guarded, self.given):
            assert issued.code not in lines, "a code is in the log"
        assert "PRIVATE KEY" not in lines

    def check_end(self) -> None:
        """A good redemption works, and all that was spent was answered."""
        answer = self.redemption.ask(
            (
                (request(f"/{self.given.grant.id}", self.given.code.encode(), b"name: last\r\n"),),
                True,
            )
        )
        assert answer is not None
        assert answer.status == 200
        self.answers.add(answer.body)
        self.check_well()
        assert self.spent(self.guarded) == 0
        assert self.spent(self.given) == len(self.answers)
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection:
            (rows,) = connection.execute("SELECT count(*) FROM redemptions").fetchone()
        assert rows == len(self.answers)

    def spent(self, issued: Issued) -> int:
        """Return what the database says was spent of a grant."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection:
            found = connection.execute("SELECT spent FROM grants WHERE id = ?", (issued.grant.id,))
            return int(found.fetchone()[0])


@contextlib.contextmanager
def live() -> Iterator[Live]:
    """Run a server in a folder that is removed in the end; it must stop well."""
    with tempfile.TemporaryDirectory(prefix="grantserver-fuzz-") as folder:
        port, ops_port = free_port(), free_port()
        environment = {
            "GRANTSERVER_DATA_DIR": str(Path(folder) / "data"),
            "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{port}",
            "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops_port}",
            "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{port}",
            # All requests come from one address, and nearly all of them are failures.
            "GRANTSERVER_LIMITS_PEER_FAILURES": "0",
            "GRANTSERVER_LIMITS_GRANT_FAILURES": "0",
            # Requests that stay incomplete are to be over soon.
            "GRANTSERVER_LIMITS_REQUEST": "1s",
            "GRANTSERVER_LIMITS_HANDSHAKE": "1s",
        }
        chosen = settings.load(environment)
        home = open_home(chosen)
        try:
            sites.put(
                home.database,
                name="west",
                endpoints=[parse_endpoint("inter-router=127.0.0.1:55671")],
                issuer=None,
                actor="cli:fuzz",
                now=ambient.utc_now(),
            )
            guarded, given = (
                grants.create(
                    home.database,
                    Wish(name=name, site="west", redemptions=MANY, window_seconds=86_400, cost=1),
                    code_keys=home.code_keys,
                    actor="cli:fuzz",
                    now=ambient.utc_now(),
                    random_bytes=ambient.random_bytes,
                )
                for name in ("guarded", "given")
            )
            context = ssl.create_default_context(cadata=home.reach().ca_pem)
        finally:
            home.database.close()
        log = Path(folder) / "server.log"
        with running(
            ["-m", "app", "serve"],
            port=port,
            ready=lambda: says_ready(ops_port),
            core=os.sched_getaffinity(0),
            log=log,
            environment=environment,
        ):
            yield Live(
                redemption=Door(("127.0.0.1", port), context),
                ops=Door(("127.0.0.1", ops_port), None),
                database=chosen.data.dir / "grantserver.db",
                log=log,
                guarded=guarded,
                given=given,
            )
