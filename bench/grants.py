"""What GrantServer's database must hold before a run, and what it must hold after it.

An installation is named by its settings, as the server gets them: `GRANTSERVER_DATA_DIR` and,
unless it is SQLite in there, `GRANTSERVER_DATABASE_URL`.
"""

import contextlib
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping

import yaml
from sqlalchemy import func, insert, select, text

from app import settings
from app.store.engine import Database
from app.store.schema import grants, redemptions
from bench.servers import ROOT, clean_environment

SITE = "west"
COMMAND_SECONDS = 100.0


class CommandError(Exception):
    """A grantserver command failed."""


def make_site(installation: Mapping[str, str]) -> None:
    """Make the listening site that all grants lead to."""
    _command(
        installation,
        *("site", "set", SITE),
        *("--endpoint", "inter-router=127.0.0.1:55671"),
        *("--endpoint", "edge=127.0.0.1:45671"),
    )


def make_grants(
    installation: Mapping[str, str], count: int, redemptions: int
) -> list[tuple[str, str]]:
    """Make `count` grants of `redemptions` each; return uid and code of every one.

    The first is issued by the command line, the others are copies of its row, in one
    transaction: thousands of commands would take longer than the run. Copies share the code,
    which costs a redemption neither more nor less. No server may be running meanwhile.
    """
    token = yaml.safe_load(
        _command(
            installation,
            *("token", "issue", "-", "--site", SITE),
            *("--redemptions", str(redemptions), "--window", "1h"),
        )
    )
    uid = token["spec"]["url"].rpartition("/")[2]
    code = token["spec"]["code"]
    uids = [uid, *(str(uuid.uuid4()) for _ in range(count - 1))]
    with _opened(installation) as database, database.writing() as connection:
        row = connection.execute(select(grants).where(grants.c.id == uid)).mappings().one()
        copies = [{**row, "id": copy, "name": f"copy-{copy}"} for copy in uids[1:]]
        if copies:
            connection.execute(insert(grants), copies)
        if connection.dialect.name == "postgresql":
            # It would do so by itself within a minute, in the middle of a turn.
            connection.execute(text("ANALYZE"))
    return [(uid, code) for uid in uids]


def count_redemptions(installation: Mapping[str, str]) -> tuple[int, int]:
    """Return the number of redemption rows and the sum of what all grants count as spent."""
    with _opened(installation) as database, database.reading() as connection:
        rows = connection.scalars(select(func.count()).select_from(redemptions)).one()
        spent = connection.scalars(select(func.coalesce(func.sum(grants.c.spent), 0))).one()
        return int(rows), int(spent)


@contextlib.contextmanager
def _opened(installation: Mapping[str, str]) -> Iterator[Database]:
    with contextlib.closing(Database(settings.load(installation).database.url)) as database:
        yield database


def _command(installation: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env={**clean_environment(), **installation},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode:
        raise CommandError(f"grantserver {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout
