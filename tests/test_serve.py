import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from app import ambient, settings
from app.domain.events import EventType
from app.errors import Misconfigured
from app.home import rotation_times
from app.serve import serve
from app.services import authorities, grants, reach, rotation, webhooks
from app.services.grants import Issued
from app.store import schema
from tests.crew import eventually, launched
from tests.e2e.clients import shown_at
from tests.pki import END, Folder, a_root
from tests.postgresql import Cluster
from tests.running import PATIENCE, Server, environment, running
from tests.strangers import a_stranger


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as started:
        yield started


def test_a_first_start_makes_everything_and_is_ready(server: Server) -> None:
    answer = server.ops("/readyz")
    assert answer.status == 200
    checks = {"database": "ok", "certificate": "ok"}
    told = json.loads(answer.body)
    assert (told["ready"], told["checks"]) == (True, checks)
    assert server.ops("/healthz").body == b"ok"


def test_what_happens_is_counted(server: Server) -> None:
    def counted(series: str) -> float:
        lines = server.ops("/metrics").body.decode().splitlines()
        [value] = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{series} ")]
        return float(value)

    redeemed, repeated, refused, batches, active = before = (
        "grantserver_redemptions_total",
        "grantserver_retries_total",
        'grantserver_refusals_total{reason="used_up"}',
        "grantserver_commit_batch_size_count",
        'grantserver_grants{state="active"}',
    )
    then = {series: counted(series) for series in before}
    issued = server.issue("counted")
    assert counted(active) == then[active] + 1
    subjects = ("east", "east", "north", "south")
    answers = [server.redeem(issued, subject=subject).status for subject in subjects]
    assert answers == [200, 200, 404, 404]
    assert counted(redeemed) == then[redeemed] + 1
    assert counted(repeated) == then[repeated] + 1
    assert counted(refused) == then[refused] + 2
    assert counted(batches) == then[batches] + 1
    assert counted(active) == then[active]
    assert counted('grantserver_certificate_expiry_timestamp_seconds{certificate="server"}') > 0


def test_what_is_too_old_is_deleted_by_the_server_itself(tmp_path: Path) -> None:
    quick = {
        "GRANTSERVER_HOUSEKEEPING_INTERVAL": "1s",
        "GRANTSERVER_HOUSEKEEPING_GRANTS_KEPT": "1h",
    }
    with running(tmp_path, **quick) as server:
        server.issue("young", ago=300)
        server.issue("old", ago=7200)
        deadline = ambient.monotonic() + PATIENCE
        series = 'grantserver_pruned_rows_total{kind="grants"} 1.0'
        while series not in server.ops("/metrics").body.decode():
            assert ambient.monotonic() < deadline
        assert [grant.name for grant in grants.every(server.home.database)] == ["young"]


def test_a_webhook_is_told_by_the_server_itself(tmp_path: Path) -> None:
    quick = {
        "GRANTSERVER_HOUSEKEEPING_INTERVAL": "1s",
        "GRANTSERVER_CERTIFICATES_LIFETIME": "1h",
    }
    with a_stranger(tmp_path) as receiver, running(tmp_path, **quick) as server:
        receiver.say = lambda _: (200, b"")
        webhooks.create(
            server.home.database,
            server.home.keyring,
            webhooks.Wish(
                name="portal",
                url=receiver.url,
                events=list(EventType),
                ca_pem=receiver.ca_pem,
            ),
            actor="test",
            now=ambient.utc_now(),
            random_bytes=ambient.random_bytes,
        )
        issued = server.issue()
        assert server.redeem(issued).status == 200
        assert server.redeem(issued, subject="mallory").status == 404
        with server.home.database.writing() as connection:  # it was long ago
            connection.execute(update(schema.redemptions).values(redeemed_at=1))

        def told() -> set[str]:
            return {json.loads(asked.body)["type"] for asked in receiver.asked}

        assert eventually(lambda: told() == set(EventType))
        series = 'grantserver_webhook_deliveries_total{outcome="delivered"} 4.0'
        assert eventually(lambda: series in server.ops("/metrics").body.decode())


def test_the_servers_ca_gets_a_successor_before_it_ends(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        rotation.rotate(
            server.home.database,
            server.home.keyring,
            name="server-ca",
            times=rotation_times(server.home.settings),
            lifetime_seconds=10_000,
            actor="cli:test",
            now=ambient.utc_now() - 7000,
            random_bytes=ambient.random_bytes,
        )
    with running(tmp_path) as server:
        deadline = ambient.monotonic() + PATIENCE
        while True:
            found = authorities.with_generations(server.home.database, "server-ca")
            if len(found) == 3:
                break
            assert ambient.monotonic() < deadline
        assert 9000 < found[-1].not_after - ambient.utc_now() <= 10_000


def test_the_certificate_is_kept_for_the_next_start(tmp_path: Path) -> None:
    certificates = []
    for _ in range(2):
        with running(tmp_path) as server:
            host = server.home.reach().host
            material = reach.server_material(
                server.home.database,
                server.home.keyring,
                hosts=[host],
                now=1,
                random_bytes=os.urandom,  # noqa: TID251  # never called: it is kept
            )
            certificates.append(material.certificate_pem)
    assert certificates[0] == certificates[1]


def proxied(server: Server, header: bytes, issued: Issued, code: str) -> bytes:
    """Redeem through a load balancer that begins with `header`; the answer, or nothing."""
    request = (
        f"POST /{issued.grant.id} HTTP/1.1\r\nhost: localhost\r\nsubject: east\r\n"
        f"content-length: {len(code)}\r\n\r\n{code}"
    )
    with (
        contextlib.suppress(ConnectionError, ssl.SSLEOFError),
        socket.create_connection(server.addresses.redemption, PATIENCE) as connection,
    ):
        connection.sendall(header)
        with server.context.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
            secured.sendall(request.encode())
            return b"".join(iter(lambda: secured.recv(65536), b""))
    return b""


def test_behind_a_load_balancer_the_peer_is_who_its_header_names(tmp_path: Path) -> None:
    behind = {
        "GRANTSERVER_LISTEN_PROXY_PROTOCOL": "required",
        "GRANTSERVER_LISTEN_PROXY_SOURCES": "127.0.0.1",
        "GRANTSERVER_LIMITS_PEER_FAILURES": "1",
    }
    here = b"PROXY TCP4 192.0.2.7 10.0.0.9 56324 9090\r\n"
    again = b"PROXY TCP6 ::ffff:192.0.2.7 fd00::9 56325 9090\r\n"
    elsewhere = b"PROXY TCP6 2001:db8::7 fd00::9 1 9090\r\n"
    with running(tmp_path, **behind) as server:
        issued = server.issue("proxied")
        assert proxied(server, b"", issued, issued.code) == b""
        first = proxied(server, here, issued, issued.code)
        assert first.startswith(b"HTTP/1.1 200 ")
        # The row, the identity of a retry and the limit on failures are all of that peer.
        _, [redemption] = grants.show(server.home.database, issued.grant.name)
        assert redemption.peer == "192.0.2.7"
        body = first.partition(b"\r\n\r\n")[2]
        assert proxied(server, again, issued, issued.code).endswith(body)
        assert proxied(server, elsewhere, issued, issued.code).startswith(b"HTTP/1.1 404 ")
        wrong = [proxied(server, elsewhere, issued, "wrong")[9:12] for _ in range(2)]
        assert wrong == [b"403", b"429"]
        assert proxied(server, here, issued, "wrong")[9:12] == b"403"
        assert server.ops("/healthz").status == 200


def test_who_is_no_load_balancer_cannot_connect(tmp_path: Path) -> None:
    with running(tmp_path, GRANTSERVER_LISTEN_PROXY_SOURCES="192.0.2.0/24") as server:
        issued = server.issue()
        assert proxied(server, b"", issued, issued.code) == b""
        assert server.ops("/readyz").status == 200


def test_a_port_that_is_taken_is_named_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        chosen = settings.load(environment(tmp_path, GRANTSERVER_LISTEN_REDEMPTION=address))
        with pytest.raises(Misconfigured, match=address):
            asyncio.run(serve(chosen, stop=asyncio.Event()))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_process_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GRANTSERVER_")}  # noqa: TID251
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve"],
        env=inherited | environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any(" ready " in line for line in lines)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
        told = [line.split(": ", 1)[1].strip() for line in lines]
        assert [line for line in told if "audit head" not in line] == ["stopping", "stopped"]
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def test_a_database_that_does_not_answer_delays_the_end_for_a_while_only(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The keeper looks at it every two seconds, in a thread that nobody can end."""
    url = cluster.create()
    name = url.rpartition("/")[2]
    hurry = "import app.serve\napp.serve.DATABASE_SECONDS = 0.5\n"
    with launched(tmp_path, mischief=hurry, GRANTSERVER_DATABASE_URL=url) as run:
        assert eventually(lambda: run.said(" ready "))
        served = f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'"
        backends = [pid for (pid,) in cluster.execute(served)]
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            asked = Path(f"/proc/{run.process.pid}/net/tcp")
            working = f"{served} AND pid = ANY(ARRAY{backends}) AND state = 'active'"
            # What it had read already when it was stopped is not answered either.
            assert eventually(lambda: unread(asked, cluster.port) or cluster.execute(working))
            run.process.terminate()
            assert run.ends() == 0
        finally:
            for pid in backends:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        assert run.lines()[-1] == "info: stopped"


def unread(sockets: Path, port: int) -> bool:
    """Whether a question to a port of this machine waits to be read there."""
    for line in sockets.read_text().splitlines()[1:]:
        local, _, state, queues = line.split()[1:5]
        waits = int(queues.rpartition(":")[2], 16) > 0
        if state == "01" and int(local.rpartition(":")[2], 16) == port and waits:
            return True
    return False


def test_what_never_ends_is_left_behind_in_the_end(tmp_path: Path) -> None:
    stuck = """\
import threading
import app.serve
from app.services.housekeeping import Housekeeping
app.serve.END_SECONDS = 0.5
Housekeeping.stop = lambda self: threading.Event().wait()
"""
    with launched(tmp_path, mischief=stuck) as run:
        assert eventually(lambda: run.said(" ready "))
        run.process.terminate()
        assert run.ends() == 0
        told = "warning: something hangs, and was left behind at the end"
        assert run.lines()[1:] == ["info: stopping", told]


def test_sighup_makes_it_look_at_its_certificate(tmp_path: Path) -> None:
    root = a_root()
    folder = Folder(directory=tmp_path / "tls")
    folder.write(root.certify("127.0.0.1"), root)
    with launched(tmp_path, mischief=RARELY, **folder.environment) as run:
        assert eventually(lambda: run.said(" ready "))
        [line] = run.said(" ready ")
        found = re.search(r"redemption=(\S+):(\d+)", line)
        assert found is not None
        at = found[1], int(found[2])
        before = shown_at(at)
        run.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: run.said("nothing else is to be served"))
        new = root.certify("127.0.0.1", kind="ed25519")
        folder.put("tls.crt", new.pem)
        run.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: run.said("what is served stays as it was"))
        assert shown_at(at) == before
        folder.put("tls.key", new.key_pem)
        run.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: shown_at(at) == new.fingerprint)
        run.process.terminate()
        assert run.ends() == 0


RARELY = (
    "from app.services.serving import Keeper\n"
    "Keeper.__init__.__kwdefaults__['poll_seconds'] = 3600.0\n"
)


def ends(server: Server) -> int:
    """When the server's certificate ends, as the metric has it."""
    series = 'grantserver_certificate_expiry_timestamp_seconds{certificate="server"} '
    lines = server.ops("/metrics").body.decode().splitlines()
    [value] = [line.removeprefix(series) for line in lines if line.startswith(series)]
    return int(float(value))


def test_metric_and_readiness_follow_the_certificate_that_is_served(tmp_path: Path) -> None:
    root = a_root()
    folder = Folder(directory=tmp_path / "tls")
    yesterday = datetime.now(UTC) - timedelta(days=1)  # noqa: TID251
    ended = root.certify("127.0.0.1", end=yesterday)
    folder.write(ended, root)
    with running(tmp_path, **folder.environment) as server:
        assert ends(server) == int(yesterday.timestamp())
        answer = server.ops("/readyz")
        assert (answer.status, json.loads(answer.body)["checks"]["certificate"]) == (
            503,
            "unavailable",
        )
        good = root.certify("127.0.0.1")
        folder.write(good, root)
        assert eventually(lambda: ends(server) == int(END.timestamp()))
        assert eventually(lambda: server.ops("/readyz").status == 200)


@pytest.mark.parametrize(
    "further",
    [
        pytest.param({"GRANTSERVER_TLS_KEY_FILE": "nowhere.key"}, id="a key alone"),
        pytest.param({"GRANTSERVER_TLS_CA_FILE": "nowhere.crt"}, id="a CA alone"),
        pytest.param({"GRANTSERVER_TLS_SECRET": "tls"}, id="a Secret off a cluster"),
        pytest.param(
            {
                "GRANTSERVER_TLS_CERTIFICATE_FILE": "nowhere.crt",
                "GRANTSERVER_TLS_KEY_FILE": "nowhere.key",
            },
            id="files that are not there",
        ),
    ],
)
def test_it_does_not_start_without_a_certificate_that_it_is_to_serve(
    tmp_path: Path, further: dict[str, str]
) -> None:
    with launched(tmp_path, **further) as run:
        assert run.ends() == 2
        [line] = run.lines()
        assert re.match(r"error: .*(GRANTSERVER_TLS|nowhere\.crt)", line)


def test_a_request_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    """The body is sent only once the server has been told to stop."""
    with running(tmp_path) as server:
        issued = server.issue()
        host, port = server.addresses.redemption
        connection = http.client.HTTPSConnection(host, port, context=server.context, timeout=30)
        connection.putrequest("POST", f"/{issued.grant.id}")
        connection.putheader("Content-Length", str(len(issued.code)))
        connection.endheaders()
        assert server.ops("/healthz").status == 200
        server.stop()
        connection.send(issued.code.encode())
        response = connection.getresponse()
        assert response.status == 200
        assert response.read().startswith(b"---\n")
        connection.close()
