"""`python bench/run.py`: measures GrantServer beside bare handshakes and the incumbent's way.

All contenders run at once, each pinned to the same core and idle until its turn; the load comes
from another core, in short turns, round after round, so that whatever else the machine does hits
all of them alike. Everything is on loopback and in a folder that is removed in the end.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import grants, machine, material, report
from bench.load import DRAIN_SECONDS, Figures, Plan
from bench.report import Limit, Slice, Target
from bench.servers import (
    ROOT,
    NotReadyError,
    Server,
    free_port,
    running,
    says_ready,
    shakes_hands,
)

BARE = "bare uvicorn: handshake and empty answer"
INCUMBENT = "the incumbent's way: RSA key and RSA CA each"
SINGLE = "GrantServer: single-use grants, durable"
SHARED = "GrantServer: one grant for all, durable"

MOST_REDEMPTIONS = 1_000_000
FASTEST = 2_500
"""Redemptions per second that grants are prepared for; a run that gets there ends early."""
WARM_SECONDS = 0.5
SYNC_SECONDS = 0.3


@dataclass(slots=True, kw_only=True)
class Contender:
    """A server with what to ask it, and the slices it has run so far."""

    server: Server
    targets: list[tuple[str, str]] = field(repr=False)
    single_use: bool = False
    slices: list[Slice] = field(default_factory=list)
    succeeded: int = 0
    """Answers 200, the warming up included."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """One run: its options, its two cores, and the number of the next request."""

    seconds: float
    concurrency: int
    workers: int
    server_core: int
    load_core: int
    number: int = 0

    def turn(self, contender: Contender, seconds: float) -> Slice:
        """Put load on one contender for `seconds`."""
        targets = contender.targets
        if contender.single_use:
            take = int(seconds * FASTEST * self.workers) + self.concurrency
            targets, contender.targets = targets[:take], targets[take:]
        plan = Plan(
            port=contender.server.port,
            seconds=seconds,
            targets=targets,
            concurrency=self.concurrency,
            first=self.number,
            core=self.load_core,
            server_core=self.server_core,
        )
        before = contender.server.cpu_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "bench.load"],
            cwd=ROOT,
            input=json.dumps(asdict(plan)),
            capture_output=True,
            text=True,
            timeout=seconds + 2 * DRAIN_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
        figures = Figures(**json.loads(done.stdout))
        self.number += sum(figures.statuses.values())
        contender.succeeded += figures.statuses.get("200", 0)
        return Slice(figures=figures, server_cpu=contender.server.cpu_seconds() - before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A GrantServer that is running, with what it was given and what starting it took."""

    server: Server
    data_dir: Path
    first_start: float
    single: list[tuple[str, str]] = field(repr=False)
    shared: list[tuple[str, str]] = field(repr=False)


@contextlib.contextmanager
def grantserver(
    folder: Path, core: int | set[int], count: int, workers: int = 1
) -> Iterator[Started]:
    """Start GrantServer on an empty folder, give it a site and `count` grants, start it again."""
    data_dir = folder / "data"
    port, ops = free_port(), free_port()
    environment = {
        "GRANTSERVER_DATA_DIR": str(data_dir),
        "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{port}",
        "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
        "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{port}",
        "GRANTSERVER_WORKERS": str(workers),
    }

    def start() -> contextlib.AbstractContextManager[Server]:
        return running(
            ("-m", "app", "serve"),
            port=port,
            ready=lambda: says_ready(ops),
            core=core,
            log=folder / "grantserver.log",
            environment=environment,
        )

    with start() as server:
        first_start = server.started_in
    grants.make_site(data_dir)
    single = grants.make_grants(data_dir, count, 1)
    shared = grants.make_grants(data_dir, 1, MOST_REDEMPTIONS)
    with start() as server:
        yield Started(
            server=server,
            data_dir=data_dir,
            first_start=first_start,
            single=single,
            shared=shared,
        )


def yardsticks(folder: Path, core: int, stack: contextlib.ExitStack) -> dict[str, Contender]:
    """Start the two servers that GrantServer is compared with."""
    certificate, authority = folder / "server.pem", folder / "authority.pem"
    material.write_server_certificate(certificate)
    material.write_authority(authority)
    found = {}
    for title, module, files in (
        (BARE, "bench.bare", (certificate,)),
        (INCUMBENT, "bench.incumbent", (certificate, authority)),
    ):
        port = free_port()
        server = stack.enter_context(
            running(
                ("-m", module, str(port), *map(str, files)),
                port=port,
                ready=lambda port=port: shakes_hands(port),  # type: ignore[misc]
                core=core,
                log=folder / f"{module}.log",
            )
        )
        found[title] = Contender(server=server, targets=[("none", "none")])
    return found


def targets(
    contenders: dict[str, Contender], *, rss_mb: float, first_start: float, start: float
) -> list[Target]:
    """Compare what was measured with what was promised."""
    single, bare = contenders[SINGLE].slices, contenders[BARE].slices
    incumbent = contenders[INCUMBENT].slices
    rate = report.ratio(single, bare, lambda each: each.figures.rate)
    cpu = report.ratio(bare, single, lambda each: each.cpu_each)
    times = report.ratio(single, incumbent, lambda each: each.figures.rate)
    tail = report.median(single, lambda each: each.tail)
    return [
        Target(what="redemptions/s to bare handshakes/s", value=rate, target=0.55, stretch=0.7),
        Target(what="the same by CPU time", value=cpu, target=0.55, stretch=0.7),
        Target(what="times the incumbent's way", value=times, target=50, stretch=80),
        Limit(what="p99 to p50 at full load", value=tail, target=2, stretch=1.5),
        Limit(what="peak memory", value=rss_mb, target=100, stretch=70, unit=" MB"),
        Limit(what="start to ready", value=start, target=2, stretch=1, unit=" s"),
        Limit(what="the first start to ready", value=first_start, target=2, stretch=1, unit=" s"),
    ]


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    parser.add_argument("--slices", type=int, default=5, help="turns of each contender")
    parser.add_argument("--concurrency", type=int, default=32, help="connections in flight")
    parser.add_argument(
        "--workers", type=int, default=1, help="GrantServer's processes, and cores if there are any"
    )
    parser.add_argument("--dir", type=Path, help="where the database lies (a temporary folder)")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument(
        "--yardsticks-only", action="store_true", help="measure without GrantServer itself"
    )
    return parser.parse_args()


def measure(
    arguments: argparse.Namespace, folder: Path, facts: dict[str, object], cores: Sequence[int]
) -> list[str]:
    """Run everything, print the tables, fill `facts`; return what went wrong, if anything."""
    server_core, load_core = cores[0], cores[-1]
    bench = Bench(
        seconds=arguments.seconds,
        concurrency=arguments.concurrency,
        workers=arguments.workers,
        server_core=server_core,
        load_core=load_core,
    )
    syncs: list[float] = []
    wrong: list[str] = []
    started: Started | None = None
    with contextlib.ExitStack() as stack:
        contenders = yardsticks(folder, server_core, stack)
        if not arguments.yardsticks_only:
            turns = WARM_SECONDS + arguments.slices * arguments.seconds
            fastest = FASTEST * arguments.workers
            count = int(turns * fastest) + (1 + arguments.slices) * arguments.concurrency
            workers = arguments.workers
            own = server_core if workers == 1 else set(cores[:workers])
            started = stack.enter_context(grantserver(folder, own, count, workers))
            contenders[SINGLE] = Contender(
                server=started.server, targets=started.single, single_use=True
            )
            contenders[SHARED] = Contender(server=started.server, targets=started.shared)
        for contender in contenders.values():
            bench.turn(contender, WARM_SECONDS)
        for number in range(arguments.slices):
            order = list(contenders.values())
            # To and fro, so that a drift favours nobody.
            for contender in order if number % 2 == 0 else reversed(order):
                contender.slices.append(bench.turn(contender, arguments.seconds))
            syncs.append(machine.syncs_per_second(folder, SYNC_SECONDS))
        slices = {title: contender.slices for title, contender in contenders.items()}
        print(report.table(slices))
        print(f"fdatasync of 4 KiB alone: {statistics.median(syncs):.0f}/s\n")
        facts |= {
            "fdatasync_per_second": syncs,
            "contenders": {
                title: [asdict(each) for each in turns] for title, turns in slices.items()
            },
        }
        print("".join(f"note: {doubt}\n" for doubt in report.doubts(slices)))
        wrong += report.failures(slices)
        if started is not None:
            judged = targets(
                contenders,
                rss_mb=started.server.peak_rss_mb(),
                first_start=started.first_start,
                start=started.server.started_in,
            )
            print(report.verdicts(judged))
            facts["targets"] = [asdict(each) | {"verdict": each.verdict()} for each in judged]
    if started is not None:
        answered = contenders[SINGLE].succeeded + contenders[SHARED].succeeded
        rows, spent = grants.count_redemptions(started.data_dir)
        print(f"\n{answered} answers 200, {rows} redemptions stored, {spent} counted as spent")
        facts["consistency"] = {"answered": answered, "rows": rows, "spent": spent}
        if not answered == rows == spent:
            wrong.append("answers and database do not agree")
    return wrong


def main() -> int:
    """Measure and print; return 0 unless an answer or the database was wrong."""
    arguments = options()
    # Ended from outside, we still end what we started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="grantserver-bench-", dir=arguments.dir) as name:
        folder = Path(name)
        about = machine.describe(folder, cores[0], cores[-1])
        print("\n".join(f"{key:13} {value}" for key, value in about.items()), end="\n\n")
        facts: dict[str, object] = {"machine": about}
        if len(cores) == 1:
            print("Only one core: server and generator share it, so the rates are too low.")
        if about["file system"] in machine.IN_MEMORY:
            print("This file system keeps nothing: no commit is durable here. Try --dir.")
        try:
            wrong = measure(arguments, folder, facts, cores)
        except (NotReadyError, grants.CommandError) as error:
            print(error, file=sys.stderr)
            return 1
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    for failure in wrong:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
