"""`python -m fuzz`: tries what reads strangers' input, for minutes; `make fuzz` runs it.

    python -m fuzz [--minutes 5] [--seed N] [--only TARGET]... [--findings DIR]
    python -m fuzz --replay FILE

Prints what was run: target, examples, time, findings. Exits with 1 when there is a finding; its
smallest example is in a file then, to be tried again with --replay.
"""

import argparse
import ast
import contextlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from app import ambient
from fuzz import keys, requests, texts
from fuzz.campaign import Finding, Run, Target, run, table
from fuzz.live import Live, live

END = "at the end"


def targets(server: Live) -> list[Target]:
    """List everything that is tried; `share` is of the time."""
    return [
        Target(name="durations", examples=texts.DURATIONS, check=texts.check_duration, share=0.5),
        Target(name="yaml-answers", examples=texts.ANSWERS, check=texts.check_answer, share=1.5),
        Target(name="yaml-tokens", examples=texts.TOKENS, check=texts.check_token, share=0.5),
        Target(name="yaml-shown", examples=texts.SHOWN, check=texts.check_shown, share=0.5),
        Target(
            name="yaml-foreign",
            examples=texts.FOREIGN_YAML,
            check=texts.check_foreign_yaml,
            share=1.5,
        ),
        Target(name="far-answers", examples=texts.FAR_ANSWERS, check=texts.check_far_answer),
        Target(name="keys", examples=keys.damaged_keys(), check=keys.check_key, share=1.5),
        Target(
            name="certificates",
            examples=keys.damaged_certificates(),
            check=keys.check_certificates,
            share=1.5,
        ),
        Target(name="paths", examples=server.paths(), check=server.check_path),
        Target(name="headers", examples=requests.FIELDS, check=server.check_fields),
        Target(name="wrong-claims", examples=server.wrong(), check=server.check_wrong, share=3.0),
        Target(name="right-claims", examples=server.right(), check=server.check_right, share=1.5),
        Target(name="handshakes", examples=server.hellos(), check=server.check_hello),
        Target(name="ops", examples=server.questions(), check=server.check_question, share=0.5),
    ]


def fuzz(arguments: argparse.Namespace) -> Sequence[Run]:
    """Try all targets one after another, then look once more at the server."""
    runs = []
    with live() as server:
        chosen = [
            target
            for target in targets(server)
            if not arguments.only or target.name in arguments.only
        ]
        total = sum(target.share for target in chosen)
        for target in chosen:
            seconds = 60 * arguments.minutes * target.share / total
            runs.append(run(target, seconds=seconds, number=arguments.seed))
            print(table(runs[-1:]).splitlines()[-1], flush=True)
        runs.append(_end(server))
    return runs


def _end(server: Live) -> Run:
    finding = None
    began = ambient.monotonic()
    try:
        server.check_end()
    except (AssertionError, OSError) as error:
        finding = Finding(example="", error=error)
    return Run(name=END, examples=1, seconds=ambient.monotonic() - began, finding=finding)


def report(runs: Sequence[Run], folder: Path) -> int:
    """Write down what was found; the exit code."""
    found = [one for one in runs if one.finding is not None]
    for one in found:
        assert one.finding is not None
        folder.mkdir(exist_ok=True)
        path = folder / f"{one.name.replace(' ', '-')}.txt"
        told = "".join(traceback.format_exception(one.finding.error))
        remarks = "".join(f"# {line}\n" for line in told.splitlines())
        path.write_text(f"{one.name}\n{one.finding.example!r}\n{remarks}", "utf-8")
        print(f"\n{one.name}: {told}\nIt is in {path}: python -m fuzz --replay {path}")
    return 1 if found else 0


def replay(path: Path) -> int:
    """Try a written example again; an error is shown as it comes."""
    name, example, *_ = path.read_text("utf-8").splitlines()
    with live() as server:
        for target in targets(server):
            if target.name == name:
                target.check(ast.literal_eval(example))
        server.check_end()
    print("It holds.")
    return 0


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description=sys.modules[__name__].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="of all targets together")
    parser.add_argument("--seed", type=int, help="repeats a run (else a random one, printed)")
    parser.add_argument("--only", action="append", metavar="TARGET", help="one target, or several")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), metavar="DIR")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try a written finding again")
    return parser.parse_args()


def main() -> int:
    """Run, and tell by the exit code whether anything was found."""
    arguments = options()
    if arguments.replay is not None:
        return replay(arguments.replay)
    if arguments.seed is None:
        arguments.seed = int.from_bytes(ambient.random_bytes(4), "big")
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes\n")
    print(table(()), flush=True)
    runs = fuzz(arguments)
    print(table(runs[-1:]).splitlines()[-1])
    return report(runs, arguments.findings)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
