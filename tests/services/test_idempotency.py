from pathlib import Path

import pytest
from sqlalchemy import select

from app import ambient
from app.crypto.sealing import Keyring
from app.errors import Conflict
from app.services import idempotency
from app.services.idempotency import KEPT_SECONDS, Asked
from app.store import schema
from app.store.engine import Database
from tests.builders import NOW


def asked(key: str = "key", *, body: bytes = bytes(32), actor: str = "token:ci") -> Asked:
    return Asked.of(actor=actor, operation="create_grant", key=key, body=body)


@pytest.fixture
def keyring() -> Keyring:
    return Keyring(path=Path("sealing.keys"), keys={"0a0a0a0a": bytes(32)})


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """Run the test on each of the databases."""
    made = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(made, Database)
    return made


def keep(database: Database, keyring: Keyring, one: Asked, answer: bytes, now: int = NOW) -> None:
    with database.writing() as connection:
        idempotency.keep(
            connection,
            one,
            answer,
            keyring=keyring,
            now=now,
            random_bytes=ambient.random_bytes,
        )


def test_an_answer_is_found_again_for_a_day(database: Database, keyring: Keyring) -> None:
    assert idempotency.find(database, asked(), keyring=keyring, now=NOW) is None
    keep(database, keyring, asked(), b"answer")
    last = NOW + KEPT_SECONDS - 1
    assert idempotency.find(database, asked(), keyring=keyring, now=last) == b"answer"
    assert idempotency.find(database, asked(), keyring=keyring, now=last + 1) is None


def test_after_that_the_key_may_be_used_again(database: Database, keyring: Keyring) -> None:
    keep(database, keyring, asked(), b"first")
    with pytest.raises(Conflict):
        keep(database, keyring, asked(), b"second", NOW + KEPT_SECONDS - 1)
    keep(database, keyring, asked(), b"second", NOW + KEPT_SECONDS)
    found = idempotency.find(database, asked(), keyring=keyring, now=NOW + KEPT_SECONDS)
    assert found == b"second"


def test_another_body_under_the_same_key_is_refused(database: Database, keyring: Keyring) -> None:
    keep(database, keyring, asked(), b"answer")
    with pytest.raises(Conflict, match="choose a new one"):
        idempotency.find(database, asked(body=b"x" * 32), keyring=keyring, now=NOW)


def test_an_answer_whose_sealing_key_is_lost_is_a_conflict_and_no_fault(
    database: Database, keyring: Keyring
) -> None:
    keep(database, keyring, asked(), b"answer")
    other = Keyring(path=Path("sealing.keys"), keys={"0b0b0b0b": bytes(32)})
    with pytest.raises(Conflict, match="cannot be read any more"):
        idempotency.find(database, asked(), keyring=other, now=NOW)


def test_callers_keys_and_operations_are_told_apart() -> None:
    parts = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("", "ab", "c")]
    ids = {
        Asked.of(actor=actor, operation=operation, key=key, body=b"").id
        for actor, operation, key in parts
    }
    assert len(ids) == len(parts)


def test_nothing_of_an_answer_can_be_read_in_the_database(
    database: Database, keyring: Keyring
) -> None:
    keep(database, keyring, asked("my-key"), b"the code is s3cret")
    with database.reading() as connection:
        row = connection.execute(select(schema.creations)).one()
    assert b"s3cret" not in row.sealed
    assert b"my-key" not in b"".join((row.asked, row.body, row.sealed))
