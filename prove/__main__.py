"""`python -m prove`: run the proof and print what it counted; non-zero at a disagreement."""

import argparse
import secrets
import sys
import time
from pathlib import Path

from prove import campaign
from prove.executors import ExecutorFailed
from prove.replicas import ServerFailed


def main() -> int:
    """Run the proof; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m prove",
        description="Prove that a grant of N gives exactly N redemptions, whatever races or dies.",
    )
    parser.add_argument("--attempts", type=int, default=1_000_000, help="attempts in all")
    parser.add_argument(
        "--tls", type=int, help="how many over TLS connections; 1 of 20 attempts if not given"
    )
    parser.add_argument("--kills", type=int, default=1_000, help="servers to kill in all")
    parser.add_argument(
        "--database", default=campaign.BOTH, help="sqlite, postgresql, both, or a postgresql:// URL"
    )
    parser.add_argument("--seed", type=int, help="draw the same plan as an earlier run")
    parser.add_argument("--dir", type=Path, help="where to work, and to leave everything")
    given = parser.parse_args()
    tls = given.attempts // 20 if given.tls is None else given.tls
    plan = campaign.Plan(
        attempts=given.attempts,
        tls=min(tls, given.attempts),
        kills=given.kills,
        database=given.database,
        seed=secrets.randbits(32) if given.seed is None else given.seed,
    )
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {line}", file=sys.stderr, flush=True)

    try:
        with campaign.working_directory(given.dir) as directory:
            say(f"seed {plan.seed}, in {directory}")
            done = campaign.run(plan, directory, say)
            print(campaign.report(plan, done, directory, time.monotonic() - began))
    except (campaign.Failed, ExecutorFailed, ServerFailed) as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
