"""`python -m bench.audit_chain`: measures what the chain of the audit log costs redemptions.

Two servers, each with a database of its own and pinned to the same core; one of them seals no
entry. They take turns, so that whatever else the machine does hits both alike.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from bench import database, grants, machine, report
from bench.installed import PROGRAM, install
from bench.report import Limit
from bench.run import FASTEST, WARM_SECONDS, Bench, Contender, database_name, play

SEALED = "sealed"
UNSEALED = "not sealed"
MOST_SHARE = 0.05
"""Of the rate and of the CPU time; above it the promise is broken."""

# The thread is there and wakes up, and has nothing to do.
_SEALS_NOTHING = """\
from app.services.audit_chain import Sealing
Sealing.turn = lambda *_, **__: None
from app.cli import main
main()
"""


def main() -> int:
    """Measure and print; return 0 when the promise is kept and all answers were right."""
    arguments = _options()
    cores = sorted(os.sched_getaffinity(0))
    if arguments.dir is not None:
        tempfile.tempdir = str(arguments.dir.resolve())  # of everybody who makes a folder here
    bench = Bench(
        seconds=arguments.seconds,
        concurrency=arguments.concurrency,
        server_core=cores[0],
        load_core=cores[-1],
    )
    turns = WARM_SECONDS + arguments.slices * arguments.seconds
    count = int(turns * FASTEST) + (1 + arguments.slices) * arguments.concurrency
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="grantserver-bench-")))
        contenders, installations = {}, {}
        for title, program in ((SEALED, PROGRAM), (UNSEALED, ("-c", _SEALS_NOTHING))):
            chosen = stack.enter_context(
                database.chosen(arguments.database, set(cores[1:]) or set(cores))
            )
            place = folder / title.replace(" ", "-")
            place.mkdir()
            installation = installations[title] = install(place, chosen, cores[0], count)
            contenders[title] = Contender(
                server=stack.enter_context(installation.serving({cores[0]}, 1, program)),
                targets=installation.single,
                single_use=True,
            )
        about = machine.describe(folder, cores[0], cores[-1])
        print("\n".join(f"{key:13} {value}" for key, value in about.items()), end="\n\n")
        play(bench, contenders, arguments.slices, folder)
        slices = {title: contender.slices for title, contender in contenders.items()}
        print(report.table(slices))
        print("".join(f"note: {doubt}\n" for doubt in report.doubts(slices)))
        sealed, unsealed = slices[SEALED], slices[UNSEALED]
        judged = [
            Limit(
                what="rate that sealing takes",
                value=1 - report.ratio(sealed, unsealed, lambda each: each.figures.rate),
                target=MOST_SHARE,
                stretch=0.0,
            ),
            Limit(
                what="CPU time that sealing adds",
                value=report.ratio(sealed, unsealed, lambda each: each.cpu_each) - 1,
                target=MOST_SHARE,
                stretch=0.0,
            ),
        ]
        print(report.verdicts(judged))
        wrong += report.failures(slices)
        wrong += [each.what for each in judged if each.verdict() == "MISSED"]
        for title, installation in installations.items():
            rows, _ = grants.count_redemptions(installation.settings)
            if rows != contenders[title].succeeded:
                wrong.append(f"{title}: answers and database do not agree")
    for failure in wrong:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    parser.add_argument("--slices", type=int, default=9, help="turns of each server")
    parser.add_argument("--concurrency", type=int, default=32, help="connections in flight")
    parser.add_argument(
        "--database",
        type=database_name,
        default=database.SQLITE,
        help="sqlite, or postgresql (one of its own for each server)",
    )
    parser.add_argument("--dir", type=Path, help="where the databases lie (a temporary folder)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
