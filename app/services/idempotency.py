"""Answers of creations that are kept for a day, for who asks again under the same key.

An answer is written in the transaction of what it tells of: it is there exactly when that is.
It may hold a secret that is shown once, so it is sealed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from app.crypto.sealing import NONCE_BYTES, Keyring
from app.errors import Conflict, Misconfigured
from app.store import idempotency as rows
from app.store.engine import Connection, Database

KEPT_SECONDS: Final = 24 * 3600
"""So long the same request under the same key gets the same answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A creation: the hash of who asks for what under which key, and the hash of its body."""

    id: bytes = field(repr=False)
    body: bytes = field(repr=False)

    @classmethod
    def of(cls, *, actor: str, operation: str, key: str, body: bytes) -> "Asked":
        """Name a creation; `body` is 32 bytes, the SHA-256 of what is asked for."""
        parts = (actor.encode(), operation.encode(), key.encode())
        named = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return cls(id=hashlib.sha256(named).digest(), body=body)


def purpose(asked: str) -> str:
    """What an answer is sealed for, by the id of what was asked, in hexadecimal."""
    return f"kept answer of creation {asked}"


def find(database: Database, asked: Asked, *, keyring: Keyring, now: int) -> bytes | None:
    """The answer that was given before; None when there was none, or it is over.

    Raises Conflict when the key was used for something else, and when the answer was sealed under
    a key that is lost: what was made is there all the same.
    """
    with database.reading() as connection:
        row = rows.find(connection, asked.id)
    if row is None or row.expires_at <= now:
        return None
    if row.body != asked.body:
        raise Conflict("this Idempotency-Key was used for another request: choose a new one")
    try:
        return keyring.open(row.sealed, purpose=purpose(asked.id.hex()))
    except Misconfigured as error:
        raise Conflict(
            "this Idempotency-Key was used, and its answer cannot be read any more: look at what "
            "was made, and choose a new one"
        ) from error


def keep(
    connection: Connection,
    asked: Asked,
    answer: bytes,
    *,
    keyring: Keyring,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> None:
    """Keep an answer. Raises Conflict when the same request is answered at this moment."""
    rows.keep(
        connection,
        rows.Row(
            asked=asked.id,
            body=asked.body,
            sealed=keyring.seal(
                answer, purpose=purpose(asked.id.hex()), random=random_bytes(NONCE_BYTES)
            ),
            expires_at=now + KEPT_SECONDS,
        ),
        now=now,
    )
