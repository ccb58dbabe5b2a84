"""`Idempotency-Key`: a creation is done once, however often it is asked for under the same key.

Whoever asks again, because the answer was lost, gets the answer that there was.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Header
from pydantic import BaseModel

from app.services import idempotency
from app.services.admission import Admitted
from app.store.engine import Connection
from app.web.admin.office import Office, run

Answer = TypeVar("Answer", bound=BaseModel)
Thing = TypeVar("Thing")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]+$",
        min_length=1,
        max_length=255,
        description="A text of the caller's own: the same request with it is done once.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation(Generic[Answer]):
    """One creation that may have been asked for before; `asked` is None where nobody minds."""

    office: Office
    asked: idempotency.Asked | None
    answer: type[Answer]

    def recorder(
        self, say: Callable[[Thing], Answer]
    ) -> Callable[[Connection, Thing], None] | None:
        """Make what keeps the answer, in the transaction of what it tells of."""
        asked = self.asked
        if asked is None:
            return None

        def record(connection: Connection, thing: Thing) -> None:
            idempotency.keep(
                connection,
                asked,
                say(thing).model_dump_json().encode(),
                keyring=self.office.keyring,
                now=self.office.clock(),
                random_bytes=self.office.random_bytes,
            )

        return record


def created(
    operation: str,
    caller: Admitted,
    office: Office,
    key: str | None,
    body: BaseModel,
    answer: type[Answer],
) -> Creation[Answer]:
    """Name what is asked for: by whom, what, under which key, and with which body."""
    asked = None
    if key is not None:
        asked = idempotency.Asked.of(
            actor=caller.caller.actor,
            operation=operation,
            key=key,
            body=hashlib.sha256(body.model_dump_json().encode()).digest(),
        )
    return Creation(office=office, asked=asked, answer=answer)


async def repeated(creation: Creation[Answer]) -> Answer | None:
    """The answer that was given before, if it was. Raises Conflict for another body."""
    if creation.asked is None:
        return None
    office = creation.office
    kept = await run(
        idempotency.find,
        office.database,
        creation.asked,
        keyring=office.keyring,
        now=office.clock(),
    )
    return None if kept is None else creation.answer.model_validate_json(kept)
