"""A whole run: each database in turn, both phases, and what remains when something disagrees."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from sqlalchemy import make_url

from bench.machine import describe
from prove import attempts, kills, postgresql
from prove.agreement import Auditor, Disagreement
from prove.executors import ExecutorFailed
from prove.figures import Figures
from prove.history import write
from prove.replicas import ServerFailed
from prove.stand import Stand

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
BOTH: Final = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do, on all databases together; `wrapper` plants a bug (`MODULE:FUNCTION`)."""

    attempts: int
    tls: int
    kills: int
    database: str
    seed: int
    wrapper: str | None = None


class Failed(Exception):
    """Something disagreed; the message says what, and where to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one database gets of the plan."""

    database: str
    url: str | None
    attempts: int
    tls: int
    kills: int


def run(plan: Plan, directory: Path, say: Callable[[str], None]) -> Sequence[Figures]:
    """Do all of it in `directory`, and return what was counted.

    Raises Failed at the first disagreement; the database is left in `directory` then.
    """
    with contextlib.ExitStack() as stack:
        done = []
        for part in _parts(plan, stack, say):
            place = directory / part.database
            say(f"{part.database}: {part.attempts:,} attempts, {part.kills} kills")
            done.append(_prove(plan, part, place, say))
        return done


def _parts(plan: Plan, stack: contextlib.ExitStack, say: Callable[[str], None]) -> Iterator[_Part]:
    wanted = [SQLITE, POSTGRESQL] if plan.database == BOTH else [plan.database]
    urls: dict[str, str | None] = {}
    for name in wanted:
        if name == SQLITE:
            urls[name] = None
        elif name != POSTGRESQL:
            urls[POSTGRESQL] = name
        else:
            try:
                urls[name] = stack.enter_context(postgresql.private(say))
            except postgresql.NotInstalledError as reason:
                say(f"PostgreSQL is left out: {reason}")
    for number, (name, url) in enumerate(urls.items()):

        def share(whole: int, number: int = number) -> int:
            return whole * (number + 1) // len(urls) - whole * number // len(urls)

        yield _Part(
            database=name,
            url=url,
            attempts=share(plan.attempts),
            tls=share(plan.tls),
            kills=share(plan.kills),
        )


def _prove(plan: Plan, part: _Part, place: Path, say: Callable[[str], None]) -> Figures:
    stand = Stand(place, part.url)
    if stand.is_used():
        stand.close()
        raise Failed(f"{_shown(part.url or str(place))} holds grants already: give an empty one")
    random = Random(f"{plan.seed} {part.database}")
    figures = Figures(database=part.database)
    try:
        auditor = Auditor(stand.home)
        figures.tally = auditor.tally
        attempts.run(
            stand,
            auditor,
            figures,
            attempts=part.attempts,
            tls=part.tls,
            random=random,
            wrapper=plan.wrapper,
            say=say,
        )
        kills.run(
            stand,
            auditor,
            figures,
            kills=part.kills,
            random=random,
            wrapper=plan.wrapper,
            say=say,
        )
        auditor.finish()
    except (Disagreement, ServerFailed, ExecutorFailed) as problem:
        found = _disagreement_behind(problem)
        if found is None:
            raise
        raise Failed(_remains(plan, part, place, found)) from problem
    finally:
        stand.close()
    return figures


def _disagreement_behind(problem: BaseException | None) -> Disagreement | None:
    """Find what went wrong first: a server may have failed to end well because of it."""
    while problem is not None and not isinstance(problem, Disagreement):
        problem = problem.__context__
    return problem


def _remains(plan: Plan, part: _Part, place: Path, found: Disagreement) -> str:
    """Write down what is needed to look into it, and say where it is."""
    again = (
        f"python -m prove --attempts {plan.attempts} --tls {plan.tls} --kills {plan.kills} "
        f"--database {_shown(plan.database)} --seed {plan.seed}"
    )
    lines = [f"DISAGREEMENT on {part.database}: {found}"]
    if found.history is not None:
        path = place / f"history-{found.grant}.json"
        write(found.history, path, grant=found.grant, why=str(found), again=again)
        lines.append(f"  grant     {found.grant}, its history in {path}")
    lines.append(f"  database  {_shown(part.url or str(place / 'data' / 'grantserver.db'))}")
    lines.append(f"  logs      {place}")
    lines.append(f"  again     {again}")
    return "\n".join(lines)


def _shown(database: str) -> str:
    """Leave the password out of a URL."""
    return make_url(database).render_as_string() if "://" in database else database


def report(plan: Plan, done: Sequence[Figures], directory: Path, seconds: float) -> str:
    """Lay out everything that was counted."""
    facts = describe(directory, 0, 0)
    machine = ", ".join(value for name, value in facts.items() if name != "cores")
    lines = [line for figures in done for line in figures.lines()]
    total = sum(figures.attempts for figures in done)
    tls = sum(figures.tls for figures in done)
    killed = sum(sum(figures.kills.values()) for figures in done)
    lines += [
        "",
        f"{total:,} attempts, {tls:,} connections over TLS, {killed:,} kills: 0 extra, 0 lost",
        f"seed {plan.seed}, {seconds / 60:.1f} minutes",
        f"machine: {machine}",
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def working_directory(chosen: Path | None) -> Iterator[Path]:
    """Make the directory of a run; it is removed when all went well and nobody chose it."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen
        return
    directory = Path(tempfile.mkdtemp(prefix="grantserver-prove-"))
    yield directory
    shutil.rmtree(directory)
