"""A flood of wrong codes from one address: what the right code from another waits meanwhile.

One server on core 0; flood and measuring client share the other core, which makes the figures
worse than they are. Stays on loopback, is bounded, and removes what it made.
"""

import argparse
import asyncio
import contextlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench import grants
from bench.servers import ROOT, NotReadyError, clean_environment, free_port, running, says_ready

GUESSER = "127.0.0.2"
RIGHTFUL = "127.0.0.3"
TARGET_MS = 100.0


def trusting_nobody() -> ssl.SSLContext:
    """Make a context that does not look at certificates: only the time is of interest."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def post(
    port: int, context: ssl.SSLContext, source: str, uid: str, code: str, who: int
) -> int:
    """Post a code on a connection of its own; return the status, 0 when it was cut."""
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, local_addr=(source, 0)
        )
    except OSError:
        return 0
    try:
        writer.write(
            f"POST /{uid} HTTP/1.1\r\nHost: x\r\nname: link-{who}\r\nsubject: site-{who}\r\n"
            f"Content-Length: {len(code)}\r\n\r\n{code}".encode()
        )
        return int((await reader.read(-1)).split(b" ", 2)[1])
    except (OSError, IndexError):
        return 0
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


async def flood(port: int, uid: str, count: int, clients: int) -> Counter[int]:
    """Post `count` wrong codes, `clients` at a time."""
    context, todo, found = trusting_nobody(), iter(range(count)), Counter[int]()

    async def client() -> None:
        for number in todo:
            found[await post(port, context, GUESSER, uid, "W" * 24, number)] += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


def measure(port: int, uid: str, code: str, attack: "subprocess.Popen[str]") -> list[float]:
    """Redeem one after the other until the attack is over; return milliseconds of each."""
    context = trusting_nobody()
    taken: list[float] = []
    while attack.poll() is None:
        began = time.monotonic()
        status = asyncio.run(post(port, context, RIGHTFUL, uid, code, len(taken)))
        taken.append((time.monotonic() - began) * 1000)
        if status != 200:
            raise SystemExit(f"the right code was answered {status}")
    return sorted(taken)


def main() -> int:
    """Measure, and exit with 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--guesses", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--attack", nargs=2, metavar=("PORT", "UID"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.attack:
        port, uid = given.attack
        print(dict(asyncio.run(flood(int(port), uid, given.guesses, given.clients))))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="grantserver-flood-"))
    try:
        return play(folder, given.guesses, given.clients)
    finally:
        shutil.rmtree(folder)


def play(folder: Path, guesses: int, clients: int) -> int:
    """Start a server, attack it, and measure beside that."""
    port, ops = free_port(), free_port()
    environment = {
        "GRANTSERVER_DATA_DIR": str(folder),
        "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{port}",
        "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
        "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{port}",
    }
    grants.make_site(environment)
    [(uid, code)] = grants.make_grants(environment, 1, 1_000_000)
    with running(
        ["-m", "app", "serve"],
        port=port,
        ready=lambda: says_ready(ops),
        core=0,
        log=folder / "server.log",
        environment=environment,
    ):
        command = [sys.executable, "-m", "bench.flood", "--attack", str(port), uid]
        attack = subprocess.Popen(
            [*command, "--guesses", str(guesses), "--clients", str(clients)],
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        began = time.monotonic()
        taken = measure(port, uid, code, attack)
        seconds = time.monotonic() - began
        answers = attack.communicate()[0].strip()
    p50, p99 = (taken[min(len(taken) - 1, int(len(taken) * share))] for share in (0.5, 0.99))
    print(f"{guesses} wrong codes from {GUESSER} in {seconds:.1f} s, answered {answers}")
    print(f"{len(taken)} redemptions from {RIGHTFUL}, each answered 200")
    print(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms (target {TARGET_MS:.0f}), worst {taken[-1]:.1f} ms")
    return 0 if p99 < TARGET_MS else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except NotReadyError as error:
        raise SystemExit(str(error)) from error
