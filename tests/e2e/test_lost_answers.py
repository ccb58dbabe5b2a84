"""An answer that is lost on its way comes again, byte for byte, whoever is asked; and counts once.

Two servers of one installation, each a process of its own: on one SQLite file, and as two
replicas on one PostgreSQL.
"""

import base64
import contextlib
import hashlib
import http.client
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import func, select

from app.domain.audit import Act
from app.home import Home
from app.serve import Addresses
from app.services import audit, grants, theft
from app.services.grants import Issued
from app.store import schema
from prove.agreement import Auditor, Story
from prove.jobs import Outcome, Target
from prove.plan import Claim, Order
from prove.points import Point
from prove.replicas import Mortal
from prove.stand import Stand
from tests.crew import working
from tests.lossy import LossyProxy, lose, lossy
from tests.running import Answer, Server, running

SUBJECT = "5f0f8f8e-3f3b-4f7a-9a55-6f2f1c6f3a77"
SHARED_NAME = "east"
"""No UUID: then the address of the peer makes it the same claim, or another one."""
PEER = "127.0.0.5"
ELSEWHERE = "127.0.0.6"


@dataclass(frozen=True, slots=True)
class Counts:
    """What all redemptions of an installation came to, in each place where they are counted."""

    spent: int
    redemptions: int
    audited: int
    kept: int

    def plus(self, redemptions: int) -> "Counts":
        return Counts(*(one + redemptions for one in (self.spent, self.redemptions, self.audited,
                                                      self.kept)))  # fmt: skip


def counts(home: Home) -> Counts:
    rows, audited = select(func.count()), schema.audit.c.act == Act.GRANT_REDEEMED.value
    with home.database.reading() as connection:
        return Counts(
            connection.scalars(select(func.coalesce(func.sum(schema.grants.c.spent), 0))).one(),
            connection.scalars(rows.select_from(schema.redemptions)).one(),
            connection.scalars(rows.select_from(schema.audit).where(audited)).one(),
            connection.scalars(rows.select_from(schema.answers)).one(),
        )


def counted(server: Server, series: str) -> float:
    lines = server.ops("/metrics").body.decode().splitlines()
    [value] = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{series} ")]
    return float(value)


def lost_answer(
    proxy: LossyProxy, server: Server, issued: Issued, *, subject: str, peer: str = PEER
) -> Answer:
    """Redeem at `server` and lose the answer; return the one that was lost."""
    proxy.leads_to = server.addresses.redemption
    said = lose(proxy, server.context, claim_of(issued, subject), peer)
    head, _, body = said.partition(b"\r\n\r\n")
    return Answer(status=int(head.split()[1]), headers={}, body=body)


def claim_of(issued: Issued, subject: str) -> bytes:
    code = issued.code.encode()
    head = (
        f"POST /{issued.grant.id} HTTP/1.1\r\nHost: 127.0.0.1\r\nname: token\r\n"
        f"subject: {subject}\r\nContent-Length: {len(code)}\r\n\r\n"
    )
    return head.encode() + code


def through(proxy: LossyProxy, server: Server) -> Server:
    """The server, as one reaches it through a proxy."""
    proxy.leads_to = server.addresses.redemption
    addresses = Addresses(redemption=proxy.address, ops=server.addresses.ops)
    return replace(server, addresses=addresses)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The URL of an empty database; None for a SQLite file."""
    if request.param == "sqlite":
        yield None
        return
    cluster = request.getfixturevalue("cluster")
    url: str = cluster.create(template="template0")
    yield url
    cluster.drop(url)


@pytest.fixture
def servers(tmp_path: Path, database: str | None) -> Iterator[tuple[Server, Server]]:
    """Two servers: on PostgreSQL they have nothing in common but that and the key file."""
    common = {"GRANTSERVER_DATA_DIR": str(tmp_path / "data")}
    if database is not None:
        common = {
            "GRANTSERVER_DATABASE_URL": database,
            "GRANTSERVER_SEALING_KEY_FILE": str(tmp_path / "sealing.keys"),
        }
    with contextlib.ExitStack() as stack:
        pair = []
        for name in ("one", "other"):
            directory = tmp_path / name
            directory.mkdir()
            pair.append(stack.enter_context(working(directory, 1, **common)).server)
        yield pair[0], pair[1]


def test_a_lost_answer_comes_again_from_the_other_server_and_counts_once(
    servers: tuple[Server, Server],
) -> None:
    home = servers[0].home
    ways = product((servers, servers[::-1]), (SUBJECT, SHARED_NAME), (1, 3))
    with lossy(servers[0].addresses.redemption) as proxy:
        # To and fro: each of them loses answers that the other one has to give again.
        for number, ((asked, other), subject, allowed) in enumerate(ways):
            issued = asked.issue(f"grant-{number}", redemptions=allowed)
            before, repeated = counts(home), counted(other, "grantserver_retries_total")
            lost = lost_answer(proxy, asked, issued, subject=subject)
            assert lost.status == 200
            assert counts(home) == before.plus(1)

            for server in (other, asked, other):
                again = through(proxy, server).redeem(issued, subject=subject, peer=PEER)
                assert (again.status, again.body) == (200, lost.body)
            assert counts(home) == before.plus(1)
            assert counted(other, "grantserver_retries_total") == repeated + 2

            # What is left is for others, to the last one.
            for guest in range(allowed):
                status = other.redeem(issued, subject=f"guest-{guest}").status
                assert status == (200 if guest < allowed - 1 else 404)
            assert counts(home) == before.plus(allowed)


def test_another_subject_with_the_code_of_a_lost_answer_is_refused_and_suspected(
    servers: tuple[Server, Server],
) -> None:
    home = servers[0].home
    with lossy(servers[0].addresses.redemption) as proxy:
        for asked, other in (servers, servers[::-1]):
            issued = asked.issue(f"grant-{asked.addresses.redemption[1]}")
            before, suspected = counts(home), counted(other, "grantserver_theft_suspicions_total")
            lost = lost_answer(proxy, asked, issued, subject=SUBJECT)

            stranger = through(proxy, other).redeem(issued, subject="thief", peer=ELSEWHERE)
            assert (stranger.status, stranger.body) == (404, b"No such access granted\n")
            assert counted(other, "grantserver_theft_suspicions_total") == suspected + 1
            found = theft.suspected(home.database, issued.grant.id)
            assert found is not None
            assert found.first is not None
            assert found.first.subject == SUBJECT
            assert [(one.subject, one.peer) for one in found.later] == [("thief", ELSEWHERE)]
            entries = audit.latest(home.database, limit=9, target=f"grant/{issued.grant.id}")
            [told] = [one for one in entries if one.act is Act.GRANT_THEFT_SUSPECTED]
            assert told.details["first_subject"] == SUBJECT
            assert told.details["later_subject"] == "thief"

            again = through(proxy, other).redeem(issued, subject=SUBJECT, peer=ELSEWHERE)
            assert (again.status, again.body) == (200, lost.body)
            assert counts(home) == before.plus(1)


def test_without_kept_answers_a_lost_one_is_lost_for_good(tmp_path: Path) -> None:
    """What the tests above would see if the retry did not work."""
    with (
        running(tmp_path, GRANTSERVER_GRANTS_RETRY_WINDOW="0s") as server,
        lossy(server.addresses.redemption) as proxy,
    ):
        issued = server.issue()
        assert lost_answer(proxy, server, issued, subject=SUBJECT).status == 200
        again = server.redeem(issued, subject=SUBJECT)
        assert (again.status, again.body) == (404, b"No such access granted\n")
        assert counts(server.home) == Counts(spent=1, redemptions=1, audited=1, kept=0)


@pytest.fixture
def stand(tmp_path: Path, database: str | None) -> Iterator[Stand]:
    made = Stand(tmp_path, database)
    yield made
    made.close()


@pytest.mark.parametrize("point", [Point.COMMITTED, Point.HALF_ANSWERED])
def test_a_server_that_is_killed_before_it_has_answered_is_answered_for_by_the_other(
    stand: Stand, point: Point
) -> None:
    with contextlib.ExitStack() as stack:
        dying, other = (Mortal(stand, name, fused=name == "dying") for name in ("dying", "other"))
        for replica in (dying, other):
            stack.callback(replica.stop)
            replica.start()
        for replica in (dying, other):
            replica.wait_ready()
        issued = reached(stand, other).issue(redemptions=2)
        story = Retold(stand, issued)

        dying.arm(point, 1)
        heard = story.claim(dying)
        dying.bury()
        assert heard.status is None
        assert (len(heard.body) > 0) == (point is Point.HALF_ANSWERED)
        once = Counts(spent=1, redemptions=1, audited=1, kept=1)
        assert counts(stand.home) == once
        [sealed] = kept(stand.home)

        again = story.claim(other)
        dying.start()
        dying.wait_ready()
        from_the_dead = story.claim(dying)
        assert again.status == from_the_dead.status == 200
        assert again.body == from_the_dead.body
        assert again.body.startswith(heard.body)
        assert counts(stand.home) == once
        assert kept(stand.home) == [sealed]
        [redeemed] = grants.show(stand.home.database, issued.grant.id)[1]
        assert fingerprint(again.body) == redeemed.fingerprint
        # The answer that is sealed is opened with the code alone, and is the one that was heard.
        story.check()


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client got; no status when it was less than an answer."""

    status: int | None
    body: bytes


class Retold:
    """A claim that is made again and again, and all that was heard of it, for the auditor."""

    def __init__(self, stand: Stand, issued: Issued) -> None:
        self._stand = stand
        self._issued = issued
        self._auditor = Auditor(stand.home)
        self._outcome = Outcome()

    def claim(self, replica: Mortal) -> Heard:
        began = time.monotonic()  # noqa: TID251  # the clock that histories are timed by
        try:
            answer = reached(self._stand, replica).redeem(self._issued, subject=SUBJECT)
            heard = Heard(answer.status, answer.body)
        except http.client.IncompleteRead as cut:
            heard = Heard(None, cut.partial)
        except (ConnectionError, ssl.SSLEOFError):
            heard = Heard(None, b"")
        self._outcome.note(
            Order(0, 0, right=True, peer="127.0.0.1"),
            began=began,
            ended=time.monotonic(),  # noqa: TID251
            status=heard.status,
            body=heard.body,
            where="",
        )
        return heard

    def check(self) -> None:
        grant = self._issued.grant
        story = Story(
            target=Target(grant.id, self._issued.code, grant.expires_at),
            allowed=grant.allowed,
            claims=[Claim("token", SUBJECT, "127.0.0.1")],
            end=None,
            operations=[operation for _, operation in self._outcome.operations],
        )
        self._auditor.check([story], self._outcome.bundles)
        self._auditor.finish()
        assert self._auditor.tally.kept == 1


def reached(stand: Stand, replica: Mortal) -> Server:
    address = ("127.0.0.1", replica.port)
    context = ssl.create_default_context(cadata=stand.home.reach().ca_pem)
    return Server(
        home=stand.home,
        addresses=Addresses(redemption=address, ops=address),
        context=context,
        stop=replica.stop,
    )


def kept(home: Home) -> list[bytes]:
    with home.database.reading() as connection:
        return list(connection.scalars(select(schema.answers.c.sealed)))


def fingerprint(bundle: bytes) -> str:
    secret = next(yaml.safe_load_all(bundle))
    leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    return hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
