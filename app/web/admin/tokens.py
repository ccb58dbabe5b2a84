"""The route of tokens."""

from fastapi import APIRouter, Response

from app.api import tokens as shapes
from app.api.problems import Kind
from app.errors import Unavailable
from app.services import grants
from app.services.grants import Issued
from app.web.admin.document import answers
from app.web.admin.grants import shape, where_to_create, wish
from app.web.admin.idempotency import IdempotencyKey, created, repeated
from app.web.admin.office import PREFIX, Caller, Given, run

router = APIRouter(prefix=PREFIX, tags=["tokens"])
_NAME_BYTES = 5


@router.post(
    "/tokens",
    operation_id="issue_token",
    status_code=201,
    responses=answers(
        Kind.FORBIDDEN, Kind.MISSING, Kind.CONFLICT, Kind.INVALID, ok=201, headers=("Location",)
    ),
)
async def issue_token(
    asked: shapes.NewToken,
    caller: Caller,
    office: Given,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> shapes.IssuedToken:
    """Make a grant and its AccessToken in one; the token is in this answer and nowhere else.

    With an `Idempotency-Key`, the same request gets the same answer for a day.
    """
    site = await where_to_create(caller, office, asked.site)
    made = created("issue_token", caller, office, idempotency_key, asked, shapes.IssuedToken)
    answer = await repeated(made)
    if answer is None:
        now = office.clock()
        reach, waiting = office.reach()
        if reach is None:
            raise Unavailable(waiting)

        def say(issued: Issued) -> shapes.IssuedToken:
            return shapes.IssuedToken(
                grant=shape(issued.grant, now),
                code=issued.code,
                token=grants.token(issued, reach, now),
            )

        name = asked.name or f"token-{office.random_bytes(_NAME_BYTES).hex()}"
        issued = await run(
            grants.create,
            office.database,
            wish(asked, name=name, site=site),
            code_keys=office.code_keys,
            actor=caller.caller.actor,
            now=now,
            random_bytes=office.random_bytes,
            ceilings=office.ceilings,
            record=made.recorder(say),
        )
        answer = say(issued)
    response.headers["Location"] = f"{PREFIX}/grants/{answer.grant.id}"
    return answer
