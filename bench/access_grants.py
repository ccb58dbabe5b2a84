"""AccessGrants created all at once: how long until each of them is Ready, and what it costs.

The API server is the one of the tests, with real HTTP and JSON, on a core of its own: it is no
faster than a real one. Then writes are counted while nothing happens. Stays on loopback and
removes what it made.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from app import ambient
from bench.servers import NotReadyError, Server, free_port, running, says_ready
from tests.kube.api_server import FakeKube, Object
from tests.kube.objects import NAMESPACE, a_ca, a_secret, a_site, access_grant

LONGEST_SECONDS = 300.0
TARGET_SECONDS = 15.0
LEASES = "leases"


def main() -> int:
    """Play it, and exit with 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--grants", type=int, default=1000)
    parser.add_argument("--quiet", type=float, default=15.0, help="seconds to count writes for")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="grantserver-access-grants-"))
    kube = FakeKube()
    try:
        return measure(kube, folder, given)
    finally:
        kube.stop()
        shutil.rmtree(folder)


def measure(kube: FakeKube, folder: Path, given: argparse.Namespace) -> int:
    """Furnish a cluster, start a server, and create the AccessGrants."""
    now = ambient.utc_now()
    kube.install_skupper()
    kube.namespace(NAMESPACE)
    kube.create(a_secret(ca=a_ca(not_before=now - 60, not_after=now + 10**8)))
    kube.create(a_site())
    port, ops = free_port(), free_port()
    environment = {
        "GRANTSERVER_DATA_DIR": str(folder / "data"),
        "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{port}",
        "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
        "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{port}",
        "GRANTSERVER_KUBERNETES_NAMESPACES": "*",
        "GRANTSERVER_KUBERNETES_LEASE": f"{NAMESPACE}/grantserver",
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(kube.kubeconfig(folder / "config")),
    }
    with running(
        ["-m", "app", "serve"],
        port=port,
        ready=lambda: says_ready(ops),
        core=0,
        log=folder / "server.log",
        environment=environment,
    ) as server:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0} or {0})
        one = access_grant("first", expirationWindow="1h")
        kube.create(one)
        kube.wait("AccessGrant", "first", NAMESPACE, _ready, LONGEST_SECONDS)
        idle = server.peak_rss_mb()
        seconds = _until_ready(kube, server, given.grants)
        print(f"peak memory: {idle:.0f} MB before, {server.peak_rss_mb():.0f} MB after")
        # One Event for each of them, and what was on its way has come.
        kube.until(lambda: len(kube.find("Event")) > given.grants, LONGEST_SECONDS)
        kube.requests.clear()
        time.sleep(given.quiet)
        writes = Counter(f"{one.verb} {one.resource}" for one in kube.requests.writes())
    print(f"writes in {given.quiet:.0f} s without a change: {dict(writes)}")
    idle_writes = {name for name in writes if not name.endswith(LEASES)}
    return 0 if seconds < TARGET_SECONDS and not idle_writes else 1


def _until_ready(kube: FakeKube, server: Server, count: int) -> float:
    """Create them, and return the seconds until the last one is Ready."""
    used, began = server.cpu_seconds(), time.monotonic()
    for number in range(count):
        kube.create(access_grant(f"grant-{number}", redemptionsAllowed=2, expirationWindow="1h"))
    created = time.monotonic() - began

    def all_ready() -> bool:
        return all(_ready(one) for one in kube.find("AccessGrant"))

    if not kube.until(all_ready, LONGEST_SECONDS):
        raise NotReadyError(f"not all were Ready within {LONGEST_SECONDS:.0f} s")
    seconds = time.monotonic() - began
    cpu = (server.cpu_seconds() - used) / count * 1000
    print(
        f"{count} AccessGrants: created in {created:.1f} s, all Ready after {seconds:.1f} s "
        f"(target {TARGET_SECONDS:.0f} s); {cpu:.1f} ms of the server's CPU for each"
    )
    return seconds


def _ready(found: Object) -> bool:
    return (found.get("status") or {}).get("status") == "Ready"


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except NotReadyError as error:
        raise SystemExit(str(error)) from error
