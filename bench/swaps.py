"""Redemptions at a steady pace while the server's certificate is swapped: how many notice.

Real clients: each verifies the certificate against the one CA, and the host. Certificates with keys
of all kinds take turns, written file by file while the server looks, and told of by SIGHUP. The
server has core 0, the clients have the other. Stays on loopback and removes what it made.
"""

import argparse
import asyncio
import os
import shutil
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Literal

from bench import grants
from bench.material import Authority
from bench.servers import NotReadyError, free_port, running, says_ready

LONGEST_SECONDS = 10.0
KINDS: tuple[Literal["rsa", "ed25519", "p256"], ...] = ("rsa", "ed25519", "p256")


class Clients:
    """Posts codes, each on a connection of its own, and remembers how that went."""

    def __init__(self, port: int, uid: str, code: str, ca_pem: bytes) -> None:
        self._port, self._uid, self._code = port, uid, code
        self._context = ssl.create_default_context(cadata=ca_pem.decode())
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.answers = Counter[str]()
        self.shown = set[bytes]()
        self.taken: list[float] = []

    async def redeem(self, number: int) -> None:
        """Redeem once."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                status = await self._post(number)
        except (OSError, TimeoutError, ValueError) as error:
            status = type(error).__name__
        self.answers[status] += 1
        self.taken.append((time.monotonic() - began) * 1000)

    async def _post(self, number: int) -> str:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, server_hostname="127.0.0.1"
        )
        try:
            self.shown.add(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            writer.write(
                f"POST /{self._uid} HTTP/1.1\r\nHost: x\r\nname: link-{number}\r\n"
                f"subject: site-{number}\r\nContent-Length: {len(self._code)}\r\n\r\n"
                f"{self._code}".encode()
            )
            head, _, _ = (await reader.read(-1)).partition(b"\r\n")
            return head.decode().partition(" ")[2]
        finally:
            writer.close()


async def pace(clients: Clients, count: int, per_second: float) -> None:
    """Begin a redemption every so often, whatever became of those before."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
            group.create_task(clients.redeem(number))


class Swapper:
    """Writes one certificate after the other, and counts them."""

    def __init__(self, authority: Authority, folder: Path, pid: int) -> None:
        self._authority, self._folder, self._pid = authority, folder, pid
        self.swaps = 0

    async def run(self, every: float) -> None:
        """Swap until cancelled."""
        for kind in cycle(KINDS):
            await asyncio.sleep(every)
            await asyncio.to_thread(self._authority.write_server_files, self._folder, kind)
            os.kill(self._pid, signal.SIGHUP)
            self.swaps += 1


async def play(clients: Clients, swapper: Swapper, given: argparse.Namespace) -> float:
    """Redeem and swap at the same time; return the seconds that it took."""
    began = time.monotonic()
    swapping = asyncio.create_task(swapper.run(given.every))
    try:
        await pace(clients, round(given.seconds * given.rate), given.rate)
    finally:
        swapping.cancel()
        await asyncio.wait([swapping])
    return time.monotonic() - began


def main() -> int:
    """Play it, and exit with 1 when anybody noticed."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=200.0, help="redemptions per second")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two swaps")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="grantserver-swaps-"))
    try:
        return measure(folder, given)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, given: argparse.Namespace) -> int:
    """Start a server, and let both go at it."""
    port, ops = free_port(), free_port()
    authority = Authority()
    authority.write_server_files(folder, "p256")
    environment = {
        "GRANTSERVER_DATA_DIR": str(folder / "data"),
        "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{port}",
        "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
        "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{port}",
        "GRANTSERVER_WORKERS": str(given.workers),
        "GRANTSERVER_TLS_CERTIFICATE_FILE": str(folder / "tls.crt"),
        "GRANTSERVER_TLS_KEY_FILE": str(folder / "tls.key"),
        "GRANTSERVER_TLS_CA_FILE": str(folder / "ca.crt"),
    }
    grants.make_site(environment)
    [(uid, code)] = grants.make_grants(environment, 1, 1_000_000)
    clients = Clients(port, uid, code, authority.pem)
    with running(
        ["-m", "app", "serve"],
        port=port,
        ready=lambda: says_ready(ops),
        core=0,
        log=folder / "server.log",
        environment=environment,
    ) as server:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0} or {0})
        swapper = Swapper(authority, folder, server.pid)
        seconds = asyncio.run(play(clients, swapper, given))
    taken = sorted(clients.taken)
    p50, p99 = (taken[min(len(taken) - 1, int(len(taken) * share))] for share in (0.5, 0.99))
    print(f"{len(taken)} redemptions in {seconds:.1f} s, {len(taken) / seconds:.0f} a second")
    print(f"{swapper.swaps} swaps, {len(clients.shown)} certificates were seen")
    print(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {taken[-1]:.1f} ms")
    print(f"answers: {dict(clients.answers)}")
    return 0 if set(clients.answers) == {"200 OK"} else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except NotReadyError as error:
        raise SystemExit(str(error)) from error
