"""What GrantServer's database must hold before a run, and what it must hold after it."""

import contextlib
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import yaml

from bench.servers import ROOT, clean_environment

SITE = "west"
DATABASE = "grantserver.db"
COMMAND_SECONDS = 30.0


class CommandError(Exception):
    """A grantserver command failed."""


def make_site(data_dir: Path) -> None:
    """Make the listening site that all grants lead to."""
    _command(
        data_dir,
        *("site", "set", SITE),
        *("--endpoint", "inter-router=127.0.0.1:55671"),
        *("--endpoint", "edge=127.0.0.1:45671"),
    )


def make_grants(data_dir: Path, count: int, redemptions: int) -> list[tuple[str, str]]:
    """Make `count` grants of `redemptions` each; return uid and code of every one.

    The first is issued by the command line, the others are copies of its row, in one
    transaction: thousands of commands would take longer than the run. Copies share the code,
    which costs a redemption neither more nor less. No server may be running meanwhile.
    """
    token = yaml.safe_load(
        _command(
            data_dir,
            *("token", "issue", "-", "--site", SITE),
            *("--redemptions", str(redemptions), "--window", "1h"),
        )
    )
    uid = token["spec"]["url"].rpartition("/")[2]
    code = token["spec"]["code"]
    uids = [uid, *(str(uuid.uuid4()) for _ in range(count - 1))]
    with contextlib.closing(sqlite3.connect(data_dir / DATABASE)) as database, database:
        rows = database.execute("SELECT * FROM grants WHERE id = ?", (uid,))
        columns = [column[0] for column in rows.description]
        row = dict(zip(columns, rows.fetchone(), strict=True))
        database.executemany(
            f"INSERT INTO grants ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            ([*(row | {"id": copy, "name": f"copy-{copy}"}).values()] for copy in uids[1:]),
        )
    return [(uid, code) for uid in uids]


def count_redemptions(data_dir: Path) -> tuple[int, int]:
    """Return the number of redemption rows and the sum of what all grants count as spent."""
    with contextlib.closing(sqlite3.connect(data_dir / DATABASE)) as database:
        (rows,) = database.execute("SELECT count(*) FROM redemptions").fetchone()
        (spent,) = database.execute("SELECT coalesce(sum(spent), 0) FROM grants").fetchone()
        return rows, spent


def _command(data_dir: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env={**clean_environment(), "GRANTSERVER_DATA_DIR": str(data_dir)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode:
        raise CommandError(f"grantserver {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout
