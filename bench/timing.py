"""`python bench/timing.py`: measures whether a refusal's time tells how much of a code was right.

Wrong codes that share all but the last character with the right one, against wrong codes that
differ from the first character on, in random order: in this process through the redeemer up to its
refusal, and over TLS to a server of its own. The two are compared with Welch's t-test, raw and
cropped as dudect does it (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?").
A comparison that stops at the first difference is measured too: it must be found out.
"""

import argparse
import contextlib
import gc
import json
import math
import os
import random
import socket
import ssl
import statistics
import string
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from app import ambient, settings
from app.domain import codes
from app.domain.grants import ID_RANDOM_BYTES, Claim, new_id
from app.errors import Reason, Refused
from app.home import Home, open_home
from app.services.grants import Issued
from app.services.redemption import Redeemer
from app.web import listeners
from bench import inside, machine
from bench.servers import free_port, running, says_ready

DISTINGUISHABLE = 4.5
"""From here on |t| counts as a difference: what dudect and the tests of smart cards take."""
CROPS = 100
LEAST_CROPPED = 500
"""A crop that leaves fewer of either kind says nothing."""
WARM = 2_000
SECONDS = 20.0
ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two samples side by side; times are in microseconds."""

    what: str
    samples: tuple[int, int]
    mean_difference: float
    median_difference: float
    median: float
    t_raw: float
    t_cropped: float
    """The largest |t| of all crops, with its sign."""
    informative: bool
    """It is not judged."""

    def verdict(self) -> str:
        """Say what it comes to."""
        worst = max(abs(self.t_raw), abs(self.t_cropped))
        return "distinguishable" if worst >= DISTINGUISHABLE else "no difference found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked once; `kind` is 0 or 1."""

    kind: int
    key: str
    code: bytes = field(repr=False)


def welch(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Welch's t statistic of two samples."""
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return (statistics.fmean(one) - statistics.fmean(other)) / math.sqrt(spread) if spread else 0.0


def cropped(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the t that is farthest from 0 when all above a percentile is left out.

    There are `CROPS` percentiles, closer to each other the higher they are: the slow end is what
    the machine did besides.
    """
    pooled = sorted((*one, *other))
    found = 0.0
    for number in range(1, CROPS + 1):
        place = int((1 - 0.5 ** (10 * number / CROPS)) * len(pooled))
        limit = pooled[min(place, len(pooled) - 1)]
        left = [[value for value in sample if value < limit] for sample in (one, other)]
        if min(map(len, left)) >= LEAST_CROPPED:
            found = max(found, welch(*left), key=abs)
    return found


def compare(
    what: str, one: Sequence[float], other: Sequence[float], *, informative: bool = False
) -> Comparison:
    """Compare the seconds of two kinds of question."""
    first, second = ([1e6 * value for value in sample] for sample in (one, other))
    return Comparison(
        what=what,
        samples=(len(first), len(second)),
        mean_difference=statistics.fmean(first) - statistics.fmean(second),
        median_difference=statistics.median(first) - statistics.median(second),
        median=statistics.median(second),
        t_raw=welch(first, second),
        t_cropped=cropped(first, second),
        informative=informative,
    )


def questions(issued: Issued, count: int, chance: random.Random) -> list[Question]:
    """Make `count` codes with a right prefix (0) and as many without (1), in random order."""
    right = issued.code

    def other_than(character: str) -> str:
        return chance.choice(ALPHABET.replace(character, ""))

    made = []
    for _ in range(count):
        near = right[:-1] + other_than(right[-1])
        rest = "".join(chance.choices(ALPHABET, k=len(right) - 1))
        far = other_than(right[0]) + rest
        made += [
            Question(kind=kind, key=issued.grant.id, code=code.encode())
            for kind, code in enumerate((near, far))
        ]
    chance.shuffle(made)
    return made


def strangers(issued: Issued, count: int, chance: random.Random) -> list[Question]:
    """Make `count` questions for grants that there are not (0), and as many wrong codes (1)."""
    now = ambient.utc_now() * 1000
    made = [one for one in questions(issued, count, chance) if one.kind == 1]
    made += [
        Question(kind=0, key=new_id(now, ambient.random_bytes(ID_RANDOM_BYTES)), code=one.code)
        for one in made
    ]
    chance.shuffle(made)
    return made


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the garbage collector out."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def time_refusals(
    asked: Sequence[Question], refuse: Callable[[Question], Awaitable[float]]
) -> tuple[list[float], list[float]]:
    """Ask everything, one after another; the seconds of either kind."""
    for question in asked[:WARM]:
        await refuse(question)
    taken: tuple[list[float], list[float]] = ([], [])
    with undisturbed():
        for question in asked:
            taken[question.kind].append(await refuse(question))
    return taken


def in_process(own: Redeemer) -> Callable[[Question], Awaitable[float]]:
    """Ask the redeemer itself."""

    async def refuse(question: Question) -> float:
        claim = Claim(
            key=question.key,
            presented_code=question.code,
            name="lab",
            subject="east",
            peer="192.0.2.7",
        )
        began = time.perf_counter()
        try:
            await own.redeem(claim)
        except Refused as refused:
            taken = time.perf_counter() - began
            if refused.reason in {Reason.WRONG_CODE, Reason.UNKNOWN_GRANT}:
                return taken
        raise AssertionError("it was not refused as it should be")

    return refuse


def over_tls(port: int, context: ssl.SSLContext) -> Callable[[Question], Awaitable[float]]:
    """Ask a server, each time over a connection of its own whose handshake is over."""

    async def refuse(question: Question) -> float:
        request = (
            b"POST /%b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n"
            b"Name: lab\r\nSubject: east\r\n\r\n%b"
        ) % (question.key.encode(), len(question.code), question.code)
        plain = socket.create_connection(("127.0.0.1", port), SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            began = time.perf_counter()
            connection.sendall(request)
            received = connection.recv(65_536)
            taken = time.perf_counter() - began
        if received[9:12] not in {b"403", b"404"}:
            raise AssertionError("it was not refused as it should be")
        return taken

    return refuse


@contextlib.contextmanager
def planted(right: bytes) -> Iterator[None]:
    """Let the redeemer compare as nobody should: until the first difference."""

    def check(presented_code: bytes, stored: str, keys: Mapping[str, bytes]) -> None:
        del stored, keys
        for one, other in zip(presented_code, right, strict=True):
            if one != other:
                raise Refused(Reason.WRONG_CODE)

    original = codes.check
    codes.check = check
    try:
        yield
    finally:
        codes.check = original


async def measure(
    arguments: argparse.Namespace, home: Home, issued: Issued, port: int
) -> list[Comparison]:
    """Measure everything."""
    chance = random.Random(arguments.seed)
    own = inside.redeemer(home)
    context = ssl.create_default_context(cadata=home.reach().ca_pem)
    directly, remotely = in_process(own), over_tls(port, context)
    count, few = arguments.codes, arguments.tls_codes
    fewer = min(count, max(1000, count // 5))
    done = []

    async def add(
        what: str,
        asked: Sequence[Question],
        refuse: Callable[[Question], Awaitable[float]],
        *,
        informative: bool = False,
    ) -> None:
        taken = await time_refusals(asked, refuse)
        done.append(compare(what, *taken, informative=informative))
        print(row(done[-1]), flush=True)

    await add("right prefix or not, in process", questions(issued, count, chance), directly)
    await add("right prefix or not, over TLS", questions(issued, few, chance), remotely)
    await add(
        "unknown grant or wrong code, in process",
        strangers(issued, fewer, chance),
        directly,
        informative=True,
    )
    await add(
        "unknown grant or wrong code, over TLS",
        strangers(issued, few, chance),
        remotely,
        informative=True,
    )
    with planted(issued.code.encode()):
        await add(
            "a planted leak, in process",
            questions(issued, fewer, chance),
            directly,
            informative=True,
        )
    await inside.close(own)
    return done


HEAD = (
    f"{'compared':42} {'samples':>17} {'median':>9} {'difference of':>9} {'':>6} {'t':>7}"
    f" {'t cropped':>10}\n"
    f"{'':42} {'':>17} {'us':>9} {'means':>9} {'medians':>7} {'raw':>6} {'':>10}"
)


def row(one: Comparison) -> str:
    """Lay out one line of the table."""
    first, second = one.samples
    return (
        f"{one.what:42} {f'{first:,} + {second:,}':>17} {one.median:9.1f}"
        f" {one.mean_difference:+9.3f} {one.median_difference:+7.3f}"
        f" {one.t_raw:+6.2f} {one.t_cropped:+10.2f}  {one.verdict()}"
    )


def judge(done: Sequence[Comparison]) -> int:
    """Say what it comes to; 1 when codes can be told apart, or the planted leak cannot."""
    print("raw: all samples. cropped: the largest |t| when the slowest are left out.")
    print(f"|t| from {DISTINGUISHABLE} on counts as distinguishable.")
    apart = [one.what for one in done if not one.informative and "no " not in one.verdict()]
    blind = "no " in done[-1].verdict()
    for what in apart:
        print(f"DISTINGUISHABLE: {what}")
    if blind:
        print("NOT FOUND: the planted leak; nothing above proves anything")
    return 1 if apart or blind else 0


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--codes", type=int, default=100_000, help="of each kind, in process")
    parser.add_argument("--tls-codes", type=int, default=1_000, help="of each kind, over TLS")
    parser.add_argument("--seed", type=int, default=1, help="of codes and order")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser.parse_args()


def main() -> int:
    """Run, and tell by the exit code whether a difference was found."""
    arguments = options()
    with tempfile.TemporaryDirectory(prefix="grantserver-timing-") as folder:
        port, ops_port = free_port(), free_port()
        environment = {
            "GRANTSERVER_DATA_DIR": f"{folder}/data",
            "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{port}",
            "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops_port}",
            "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{port}",
            "GRANTSERVER_LIMITS_PEER_FAILURES": "0",
            "GRANTSERVER_LIMITS_GRANT_FAILURES": "0",
            "GRANTSERVER_LOGS_LEVEL": "warning",
        }
        home = open_home(settings.load(environment))
        done: list[Comparison] = []
        try:
            issued = inside.make_grant(home, "timed", 86_400)
            about = machine.describe(Path(folder), 0, 0)
            print(", ".join(about[key] for key in ("processor", "kernel", "python")))
            print(f"load average {about['load average']}, seed {arguments.seed}\n\n{HEAD}")
            with running(
                ["-m", "app", "serve"],
                port=port,
                ready=lambda: says_ready(ops_port),
                core=os.sched_getaffinity(0),
                log=Path(folder) / "server.log",
                environment=environment,
            ):

                async def run() -> None:
                    done.extend(await measure(arguments, home, issued, port))

                listeners.run(run)
        finally:
            home.database.close()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(one) for one in done], indent=2), "utf-8")
    return judge(done)


if __name__ == "__main__":
    sys.exit(main())
