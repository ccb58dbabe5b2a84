import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import settings
from app.errors import Misconfigured
from app.serve import serve
from app.services import reach
from tests.running import PATIENCE, Server, environment, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as started:
        yield started


def test_a_first_start_makes_everything_and_is_ready(server: Server) -> None:
    answer = server.ops("/readyz")
    assert answer.status == 200
    checks = {"database": "ok", "certificate": "ok"}
    assert json.loads(answer.body) == {"ready": True, "checks": checks}
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
        assert [line.split(": ", 1)[1].strip() for line in lines] == ["stopping", "stopped"]
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


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
