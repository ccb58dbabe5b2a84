import os
import socket
import subprocess
import sys

from bench.servers import PORTS, free_port, pinned


def test_a_free_port_is_none_that_an_outgoing_connection_could_get() -> None:
    port = free_port()
    assert port in PORTS
    with socket.create_server(("127.0.0.1", port)) as listening:
        assert listening.getsockname()[1] == port
        assert free_port() != port


def test_what_is_started_meanwhile_is_pinned_and_what_is_started_after_is_not() -> None:
    ours = os.sched_getaffinity(0)
    ask = [sys.executable, "-c", "import os; print(*sorted(os.sched_getaffinity(0)))"]
    with pinned({max(ours)}):
        inside = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60)
    after = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60)
    assert inside.stdout.split() == [str(max(ours))]
    assert after.stdout.split() == [str(core) for core in sorted(ours)]
