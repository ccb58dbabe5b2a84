"""Keeping the database sound: whether it is, and copies of it while the server goes on working."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.crypto.sealing import Keyring, load_or_create
from app.errors import Broken, Conflict, Invalid, Misconfigured, Unavailable
from app.services import admin_tokens, authorities, idempotency, reach
from app.services.cluster import code_purpose
from app.services.webhooks import secret_purpose
from app.store import backup, health, sealed
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


def sealed_problems(
    database: Database, key_file: Path, random_bytes: Callable[[int], bytes]
) -> tuple[str, ...]:
    """What is sealed in the database and cannot be opened with the keys of `key_file`.

    Admin tokens that another key conceals are among it. Empty when all can be. Kept answers are
    not tried: only the code of their grant opens them. Makes no key file.
    Raises Unavailable when the database cannot be read.
    """
    values = _sealed_values(database)
    if not values:
        return ()
    if not key_file.exists():
        problem = (
            f"the sealing key file {key_file} is missing, and nothing else opens the keys in the "
            "database: restore it from its copy"
        )
        return (problem,)
    try:
        keyring = load_or_create(key_file, random_bytes)
    except Misconfigured as error:
        return tuple(error.problems)
    tokens = (
        f"the admin token {name} needs the sealing key {key}, which is not in {key_file}; put its "
        "line back, below the first one, or revoke it and make another"
        for name, key in admin_tokens.lost(database, keyring.keys).items()
    )
    return (*dict.fromkeys(_unopened(values, keyring)), *tokens)


def _sealed_values(database: Database) -> list[tuple[str, bytes]]:
    """Everything that is sealed, each with its purpose."""
    with database.reading("examining") as connection:
        return [
            *(
                (authorities.key_purpose(of), value)
                for of, value in sealed.authority_keys(connection)
            ),
            *((reach.key_purpose(of), value) for of, value in sealed.server_keys(connection)),
            *((code_purpose(of), value) for of, value in sealed.codes(connection)),
            *((idempotency.purpose(of), value) for of, value in sealed.creations(connection)),
            *((secret_purpose(of), value) for of, value in sealed.webhook_secrets(connection)),
        ]


def _unopened(values: list[tuple[str, bytes]], keyring: Keyring) -> Iterator[str]:
    for purpose, value in values:
        try:
            keyring.open(value, purpose=purpose)
        except (Misconfigured, Broken) as error:
            yield str(error)


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
