"""A PostgreSQL server of the tests' own, on the loopback, gone when they are done."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from app.store import schema
from app.store.engine import Database

USER: Final = "grantserver"
PASSWORD: Final = "Hunter2Hunter2"
ABSENT: Final = "there is no PostgreSQL on this machine: apt-get install postgresql"
# It outlives us, however we end, by as long as it takes to leave nothing behind.
_GUARD: Final = """
trap '' HUP INT TERM
read -r _
"$0" stop --wait --mode=immediate --pgdata="$1/data"
rm -rf "$1"
"""
_LOCALE: Final = {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
_PACKAGED: Final = Path("/usr/lib/postgresql")

_TABLES: Final = [table.name for table in reversed(schema.metadata.sorted_tables)]
_ONE_ROW: Final = {"heartbeat", "compatibility", "addresses", "leadership"}
_ALONE: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_EMPTIED: Final = "; ".join(
    (
        _ALONE,
        *(f"DELETE FROM {table}" for table in _TABLES if table not in _ONE_ROW),
        "SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'",
        "DELETE FROM heartbeat; INSERT INTO heartbeat (id, at) VALUES (1, 0)",
        "DELETE FROM addresses",
        "INSERT INTO addresses (id, url, hosts, problem, changed_at) VALUES (1, '', '', '', 0)",
        "DELETE FROM leadership; INSERT INTO leadership (id, term) VALUES (1, 0)",
        "DELETE FROM compatibility",
        f"INSERT INTO compatibility (id, oldest_revision) VALUES (1, '{schema.OLDEST_SERVED}')",
        f"UPDATE alembic_version SET version_num = '{schema.REVISION}'",
    )
)


class Cluster:
    """A server with one user, whose databases are copies of a migrated one."""

    def __init__(self, programs: Path, **settings: str) -> None:
        self._programs = programs
        self._owner = _unprivileged()
        # Not below pytest's own directory, which nobody but its user can enter.
        self._directory = Path(tempfile.mkdtemp(prefix="gspg"))
        self._numbers = count(1)
        self._settings: Mapping[str, str] = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
            "autovacuum": "off",
            "log_min_messages": "fatal",
        } | settings
        self._shared = False
        self._guard: subprocess.Popen[bytes] | None = None
        self.port = 0
        if self._owner is not None:
            os.chown(self._directory, *self._owner)

    def make(self) -> None:
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, self._programs / "pg_ctl", self._directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_LOCALE,
            start_new_session=True,
            **self._as_whom(),
        )
        password = self._directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", "--no-sync", "--encoding=UTF8", "--locale=C", f"--username={USER}",
            "--auth=scram-sha-256", f"--pwfile={password}", f"--pgdata={self.data}",
        )  # fmt: skip
        self.port = _free_port()
        self.start()
        database = Database(self.create("migrated", template="template0"))
        database.upgrade()
        database.close()

    def start(self) -> None:
        options = " ".join(
            f"-c {name}={value or repr('')}" for name, value in self._settings.items()
        )
        log = self._directory / "log"
        self._run(
            "pg_ctl", "start", "--wait", f"--pgdata={self.data}", f"--log={log}",
            f"--options=-p {self.port} {options}",
        )  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}", f"--pgdata={self.data}")

    def remove(self) -> None:
        if self._guard is None:
            shutil.rmtree(self._directory)
        else:
            self._guard.communicate(timeout=100)

    def url(self, name: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def create(self, name: str | None = None, template: str = "migrated") -> str:
        """Make a database, and give its URL."""
        name = name or f"made{next(self._numbers)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def clean(self) -> str:
        """Give the URL of a migrated database without rows; the same one again, emptied.

        Making and dropping one costs a hundred times as much. Whoever changes tables makes one.
        """
        name = "shared"
        if self._shared:
            self.execute(_EMPTIED, name)
        else:
            self.create(name)
            self._shared = True
        return self.url(name)

    def drop(self, url: str) -> None:
        name = sql.Identifier(url.rpartition("/")[2])
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def execute(self, statement: sql.Composed | str, name: str = "postgres") -> list[Any]:
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def data(self) -> Path:
        """Where its files are."""
        return self._directory / "data"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._directory,
            env=_LOCALE,
            timeout=100,
            **self._as_whom(),
        )

    def _as_whom(self) -> dict[str, Any]:
        """PostgreSQL refuses to run as root."""
        if self._owner is None:
            return {}
        return {"user": self._owner[0], "group": self._owner[1], "extra_groups": []}


def programs() -> Path | None:
    """Where PostgreSQL's programs are; None when there are none."""
    found = shutil.which("initdb")
    packaged: Sequence[Path] = sorted(_PACKAGED.glob("*/bin/initdb")) if _PACKAGED.exists() else ()
    if found is None and not packaged:
        return None
    return Path(found or packaged[-1]).resolve().parent


@contextlib.contextmanager
def running(**settings: str) -> Iterator[Cluster | None]:
    """Run a cluster; None where there is no PostgreSQL."""
    where = programs()
    if where is None:
        yield None
        return
    cluster = Cluster(where, **settings)
    try:
        cluster.make()
        yield cluster
    finally:
        cluster.remove()


def _unprivileged() -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam("postgres")
        return entry.pw_uid, entry.pw_gid
    return 65534, 65534


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
