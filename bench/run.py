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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from app.errors import GrantServerError
from bench import database, grants, machine, material, report
from bench.installed import Installation, install
from bench.load import DRAIN_SECONDS, Figures, Plan
from bench.promises import BARE, INCUMBENT, SHARED, SINGLE, several, targets
from bench.report import Slice
from bench.servers import (
    ROOT,
    NotReadyError,
    Server,
    free_port,
    running,
    shakes_hands,
)

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
    workers: int = 1
    slices: list[Slice] = field(default_factory=list)
    succeeded: int = 0
    """Answers 200, the warming up included."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """One run: its options, its two cores, and the number of the next request."""

    seconds: float
    concurrency: int
    server_core: int
    load_core: int
    number: int = 0

    def turn(self, contender: Contender, seconds: float) -> Slice:
        """Put load on one contender for `seconds`."""
        targets = contender.targets
        if contender.single_use:
            take = int(seconds * FASTEST * contender.workers) + self.concurrency
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


def database_name(text: str) -> str:
    """Read what `--database` may say."""
    if text in {database.SQLITE, database.POSTGRESQL} or text.startswith(database.SCHEMES):
        return text
    raise argparse.ArgumentTypeError("expected sqlite, postgresql, or a postgresql:// URL")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    parser.add_argument("--slices", type=int, default=5, help="turns of each contender")
    parser.add_argument("--concurrency", type=int, default=32, help="connections in flight")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="measure GrantServer with so many processes too, on as many cores if there are any",
    )
    parser.add_argument(
        "--database",
        type=database_name,
        default=database.SQLITE,
        help="sqlite, postgresql (one of its own), or the postgresql:// URL of an empty database",
    )
    parser.add_argument("--dir", type=Path, help="where the database lies (a temporary folder)")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument(
        "--yardsticks-only", action="store_true", help="measure without GrantServer itself"
    )
    return parser.parse_args()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What is measured of GrantServer itself: contenders on one installation."""

    installation: Installation
    server: Server
    """The one with a single worker."""
    contenders: Mapping[str, Contender]

    def answered(self) -> int:
        """Count all answers 200."""
        return sum(contender.succeeded for contender in self.contenders.values())


def our_own(
    arguments: argparse.Namespace,
    folder: Path,
    chosen: Mapping[str, str],
    cores: Sequence[int],
    servers: contextlib.ExitStack,
) -> Ours:
    """Install GrantServer and start its servers, with grants enough for every turn."""
    workers = arguments.workers
    turns = WARM_SECONDS + arguments.slices * arguments.seconds
    each = int(turns * FASTEST) + (1 + arguments.slices) * arguments.concurrency
    count = each if workers == 1 else (1 + workers) * each
    installation = install(folder, chosen, cores[0], count)
    server = servers.enter_context(installation.serving({cores[0]}, 1))
    contenders = {
        SINGLE: Contender(server=server, targets=installation.single[:each], single_use=True),
        SHARED: Contender(server=server, targets=installation.shared),
    }
    if workers > 1:
        contenders[several(workers)] = Contender(
            server=servers.enter_context(installation.serving(set(cores[:workers]), workers)),
            targets=installation.single[each:],
            single_use=True,
            workers=workers,
        )
    return Ours(installation=installation, server=server, contenders=contenders)


def play(
    bench: Bench, contenders: Mapping[str, Contender], rounds: int, folder: Path
) -> list[float]:
    """Give everybody their turns; return what a durable write cost meanwhile, per second."""
    for contender in contenders.values():
        bench.turn(contender, WARM_SECONDS)
    syncs = []
    for number in range(rounds):
        order = list(contenders.values())
        # To and fro, so that a drift favours nobody.
        for contender in order if number % 2 == 0 else reversed(order):
            contender.slices.append(bench.turn(contender, bench.seconds))
        syncs.append(machine.syncs_per_second(folder, SYNC_SECONDS))
    return syncs


def measure(
    arguments: argparse.Namespace,
    folder: Path,
    chosen: Mapping[str, str],
    facts: dict[str, object],
    cores: Sequence[int],
) -> list[str]:
    """Run everything, print the tables, fill `facts`; return what went wrong, if anything."""
    bench = Bench(
        seconds=arguments.seconds,
        concurrency=arguments.concurrency,
        server_core=cores[0],
        load_core=cores[-1],
    )
    ours: Ours | None = None
    with contextlib.ExitStack() as servers:
        contenders = yardsticks(folder, cores[0], servers)
        if not arguments.yardsticks_only:
            ours = our_own(arguments, folder, chosen, cores, servers)
            contenders |= ours.contenders
        syncs = play(bench, contenders, arguments.slices, folder)
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
        wrong = report.failures(slices)
        if ours is not None:
            judged = targets(
                slices,
                rss_mb=ours.server.peak_rss_mb(),
                first_start=ours.installation.first_start,
                start=ours.server.started_in,
                postgresql=database.is_postgresql(chosen),
                workers=arguments.workers,
            )
            print(report.verdicts(judged))
            facts["targets"] = [asdict(each) | {"verdict": each.verdict()} for each in judged]
    if ours is not None:
        answered = ours.answered()
        rows, spent = grants.count_redemptions(ours.installation.settings)
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
    if arguments.dir is not None:
        tempfile.tempdir = str(arguments.dir.resolve())  # of everybody who makes a folder here
    facts: dict[str, object] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="grantserver-bench-")))
        wanted = database.SQLITE if arguments.yardsticks_only else arguments.database
        try:
            chosen = stack.enter_context(database.chosen(wanted, set(cores[1:]) or set(cores)))
            about = machine.describe(folder, cores[0], cores[-1])
            about["database"] = database.describe(chosen)
            print("\n".join(f"{key:13} {value}" for key, value in about.items()), end="\n\n")
            facts["machine"] = about
            if len(cores) == 1:
                print("Only one core: server and generator share it, so the rates are too low.")
            elif 1 < arguments.workers >= len(cores):
                print("The generator shares a core with the workers: look at them by CPU time.")
            if about["file system"] in machine.IN_MEMORY:
                print("This file system keeps nothing: no commit is durable here. Try --dir.")
            wrong = measure(arguments, folder, chosen, facts, cores)
        except (
            NotReadyError,
            database.NoDatabaseError,
            grants.CommandError,
            GrantServerError,
        ) as error:
            print(error, file=sys.stderr)
            return 1
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    for failure in wrong:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
