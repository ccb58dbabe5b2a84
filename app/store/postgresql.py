"""What is PostgreSQL's own: how connections are made and set up, and what its errors mean.

Transactions are opened in `app.store.engine`; the ledger on PostgreSQL is a module of its own.
"""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.errors import Broken, Conflict, GrantServerError, Invalid, Misconfigured, Unavailable
from app.store.sqlite import Purpose

CONNECT_SECONDS: Final = 3
_POOL_SECONDS: Final = 3  # how long a thread waits for a connection of the pool
_RECYCLE_SECONDS: Final = 1800
# What a user says in the URL comes before these.
_CONNECTION: Final[Mapping[str, str]] = {
    "application_name": "grantserver",
    "client_encoding": "utf8",
    "connect_timeout": str(CONNECT_SECONDS),
    # A peer that vanished without a word is noticed: idle ones after a minute, busy ones sooner.
    "keepalives_idle": "30",
    "keepalives_interval": "5",
    "keepalives_count": "6",
    "tcp_user_timeout": "10000",
}
_SESSION: Final[Mapping[str, str]] = {
    "default_transaction_isolation": r"read\ committed",
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "20s",
}
# A commit that was answered survives the loss of power; whoever asked for more than that gets it.
DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)
# Two numbers that only we use: they are what processes on any machine wait for.
_WRITER: Final = 0x6772616E74310001
_UPGRADE: Final = 0x6772616E74310002
_FIRST: Final[Mapping[str | None, Sequence[str]]] = {
    "examining": ("SET LOCAL statement_timeout = 0",),
    # One writer at a time, as on SQLite: what it has read stays true until it has committed.
    # Redemptions do not queue here; their statement needs nobody's forbearance.
    "writing": (f"SELECT pg_advisory_xact_lock({_WRITER})",),
    # A migration takes its time, and so does waiting for that of another process. What it must
    # not do is to wait for a table for long: everybody else would stand in line behind it.
    "upgrading": (
        "SET LOCAL statement_timeout = 0",
        "SET LOCAL lock_timeout = 0",
        f"SELECT pg_advisory_xact_lock({_UPGRADE})",
        "SET LOCAL lock_timeout = '5s'",
    ),
}
_MENDED_BY_SETTINGS: Final = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry"
    r'|role "[^"]*" (?:does not exist|is not permitted)|database "[^"]*" does not exist'
    r"|authentication failed for user|requires a (?:valid )?client certificate"
    r"|server does not support SSL|certificate verify failed|root certificate"
    r"|invalid (?:port|integer|sslmode|connection option|[a-z_]+ value)"
)
_MENDED_BY_PRIVILEGES: Final = "42501"
_WRONG_NAME_OR_PASSWORD: Final = ("28", "3D")  # classes of states
_CONSTRAINTS: Final = "23"
_VALUES: Final = "22"


class Postgresql:
    """One database of a PostgreSQL server. Any number of processes may use it.

    A connection that was lost is noticed when the next transaction wants to begin, and replaced.
    """

    def __init__(self, url: str, connections: int) -> None:
        """Prepare to connect to what a libpq URL names, with at most so many pooled connections.

        Raises Misconfigured when the URL cannot be read; no message of ours ever quotes it.
        """
        self._parameters: Final = {**_CONNECTION, **_parse(url)}
        self._opened: Final[WeakSet[psycopg.Connection[Any]]] = WeakSet()
        self._abandoned: Final = threading.Event()
        self._lock: Final = threading.Lock()  # while either of these two changes
        self.name = _name(self._parameters)
        # hide_parameters: what was to be stored must not appear in the text of an error.
        self.engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            isolation_level="READ COMMITTED",
            pool_size=connections,
            max_overflow=0,
            pool_timeout=_POOL_SECONDS,
            pool_recycle=_RECYCLE_SECONDS,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        event.listen(self.engine, "begin", _begin)

    def options(self, purpose: Purpose) -> Mapping[str, Any]:
        """Say how a transaction for this purpose is begun."""
        if purpose in {"reading", "examining"}:
            return {"isolation_level": "REPEATABLE READ", "begin": purpose}
        return {"begin": purpose}

    def private_paths(self) -> Sequence[Path]:
        """Name the files that nobody else may read: none that we know of."""
        return ()

    def parameters(self, session: Mapping[str, str]) -> dict[str, str]:
        """What to connect with, for a session that is set up in a way of its own."""
        options = " ".join(f"-c {name}={value}" for name, value in session.items())
        given = self._parameters.get("options", "")
        return {**self._parameters, "options": f"{given} {options}".strip()}

    def check_in_place(self) -> None:
        """Raise Unavailable or Misconfigured when the server does not let us in."""
        try:
            self.engine.connect().close()  # the pool asks something before it hands one out
        except Exception as error:
            told = self.explained(error)
            if told is None:
                raise
            raise told from told.__cause__

    def explained(self, error: Exception) -> GrantServerError | None:
        """Turn an error of the library or the driver into ours.

        What PostgreSQL adds under DETAIL may quote a row, so of the error only its first line is
        shown, and its cause is one that holds no more than that.
        """
        found = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(found, psycopg.Error):
            if isinstance(error, SQLAlchemyError):
                return Unavailable(f"database: {type(error).__name__}")
            return None
        told = _told(found)
        told.__cause__ = type(found)(_first_line(found))
        return told

    def damages(self, connection: Connection) -> list[str]:
        """What the catalog says of indexes and constraints."""
        invalid = connection.execute(
            text(
                "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                " JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = current_schema() AND NOT (i.indisvalid AND i.indisready)"
            )
        ).scalars()
        unchecked = connection.execute(
            text(
                "SELECT c.conname FROM pg_constraint c JOIN pg_namespace n"
                " ON n.oid = c.connamespace"
                " WHERE n.nspname = current_schema() AND NOT c.convalidated"
            )
        ).scalars()
        return [f"the index {name} is not valid" for name in invalid] + [
            f"the constraint {name} was never checked" for name in unchecked
        ]

    def abandon(self) -> None:
        """Cut all connections of the pool, and open none any more."""
        with self._lock:
            self._abandoned.set()
            for connection in self._opened:
                cut(connection)

    def _connect(self) -> psycopg.Connection[Any]:
        if self._abandoned.is_set():
            raise psycopg.OperationalError("the server is stopping")
        options = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
        given = self._parameters.get("options", "")
        parameters = {**self._parameters, "options": f"{options} {given}".strip()}
        connection = psycopg.connect(make_conninfo(**parameters), autocommit=True)
        with self._lock:
            self._opened.add(connection)
            if self._abandoned.is_set():
                cut(connection)
        connection.execute(DURABLE)
        connection.autocommit = False
        return connection


def cut(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """End a statement that takes too long by taking the connection away from it.

    Cancelling it would mean asking the very server that does not answer.
    """
    with (
        contextlib.suppress(psycopg.Error, OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as handle,
    ):
        handle.shutdown(socket.SHUT_RDWR)


def _parse(url: str) -> dict[str, str]:
    try:
        found = conninfo_to_dict(url)
    except (psycopg.Error, UnicodeError):
        # Not chained: libpq quotes what it cannot read, and there may be a password in it.
        problem = (
            "GRANTSERVER_DATABASE_URL: libpq cannot read it as "
            "postgresql://USER:PASSWORD@HOST:PORT/NAME?sslmode=...; "
            "special letters of a password are written as %XX"
        )
        raise Misconfigured([problem]) from None
    return {name: str(value) for name, value in found.items() if value is not None}


def _name(parameters: Mapping[str, str]) -> str:
    """Name a database in messages: without user and password."""
    hosts = parameters.get("host", "").split(",")
    ports = parameters.get("port", "").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    places = (
        (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports, strict=True)
    )
    return f"postgresql://{','.join(places)}/{parameters.get('dbname', '')}"


def _begin(connection: Connection) -> None:
    for statement in _FIRST.get(connection.get_execution_options().get("begin"), ()):
        connection.exec_driver_sql(statement)


def _told(error: psycopg.Error) -> GrantServerError:
    state = error.sqlstate or ""
    line = _first_line(error)
    if state.startswith(_CONSTRAINTS):
        return Conflict(f"the database refused it: {line}")
    if isinstance(error, psycopg.DataError):
        if not state:  # the driver's own: PostgreSQL knows no NUL in a text
            return Invalid("text", "it holds a character that cannot be stored")
        return Broken(f"the database does not take a value: {line}")
    if state == _MENDED_BY_PRIVILEGES:
        return Misconfigured(
            [f"the database says no ({line}): make its user the owner of the database"]
        )
    if state.startswith(_WRONG_NAME_OR_PASSWORD) or (
        not state and _MENDED_BY_SETTINGS.search(line)
    ):
        return Misconfigured([f"the database cannot be used: {line}"])
    return Unavailable(f"database: {line}")


def _first_line(error: psycopg.Error) -> str:
    """What may be shown of an error: no values, no rows."""
    state = error.sqlstate or ""
    if state.startswith(_VALUES):
        return f"{type(error).__name__} ({state})"  # the line itself quotes the value
    lines = (error.diag.message_primary or str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
