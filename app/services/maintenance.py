"""Keeping the database sound: whether it is, and copies of it while the server goes on working."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.errors import Conflict, Invalid, Unavailable
from app.store import backup, health
from app.store.engine import Database

_SCHEME = "sqlite:///"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What a check has found; `problems` is empty when the database is sound."""

    revision: str | None
    problems: tuple[str, ...]


def existing(url: str) -> Database:
    """Open a database whatever its revision, without making one. Raises Missing."""
    return Database(url, make=False)


def examine(database: Database, now: int) -> Examination:
    """Check the whole database, all references, and that the books agree.

    Takes as long as reading it all. Raises Unavailable when it cannot be read at all.
    """
    problems = health.integrity_problems(database, now)
    return Examination(revision=database.revision(), problems=tuple(problems))


def back_up(database: Database, target: Path, now: int) -> Examination:
    """Copy the database into one new file with mode 0600, while others go on using it.

    The copy is one state of the database; it is checked before it gets its name. Returns what
    was found in it, which is sound. Raises Conflict when `target` is there already,
    Invalid("file", …) when it cannot be made there, Invalid("database", …) when the database
    comes with better tools, Unavailable when copying fails or the copy is not sound.
    """
    backup.check_possible(database)
    if os.path.lexists(target):
        raise Conflict(f"{target} is there already: a backup replaces nothing")
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    except OSError as error:
        raise Invalid("file", f"{target} cannot be written: {error.strerror}") from error
    os.close(descriptor)
    try:
        with _explained(target):
            backup.copy(database, temporary)
            found = _examine_copy(temporary, now)
            _sync(temporary)
            os.link(temporary, target)
            _sync(target.parent)
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(temporary + suffix).unlink(missing_ok=True)
    return found


def _examine_copy(path: str, now: int) -> Examination:
    copy = Database(f"{_SCHEME}{path}")
    try:
        found = examine(copy, now)
    finally:
        copy.close()
    if found.problems:
        raise Unavailable(f"the copy is not sound: {found.problems[0]}")
    backup.make_whole(path)
    return found


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise Conflict(f"{target} is there already: a backup replaces nothing") from error
    except OSError as error:
        raise Unavailable(f"{target} cannot be written: {error.strerror}") from error
