"""Routes of admin tokens."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api import admin_tokens as shapes
from app.api.problems import Kind
from app.api.shapes import Listing, Name
from app.domain.admin_tokens import AdminToken
from app.domain.callers import Rights, Verb, read_rights, written_sites, written_verbs
from app.domain.durations import parse_window
from app.domain.times import rfc3339
from app.services import admin_tokens
from app.services.admin_tokens import Made
from app.web.admin import cursors
from app.web.admin.document import answers
from app.web.admin.grants import moment
from app.web.admin.idempotency import IdempotencyKey, created, repeated
from app.web.admin.office import PREFIX, Caller, Given, run, want

router = APIRouter(prefix=PREFIX, tags=["admin tokens"])
_ORDER = "admin tokens"
_NONE = Rights(verbs=frozenset(), sites=frozenset())


@router.get(
    "/admin-tokens",
    operation_id="list_admin_tokens",
    responses=answers(Kind.FORBIDDEN, Kind.INVALID),
)
async def list_admin_tokens(
    asked: Annotated[Listing, Query()], caller: Caller, office: Given
) -> shapes.AdminTokenPage:
    """List admin tokens by name, those that are revoked as well."""
    await want(caller, Verb.MANAGE, None)
    after = None
    if asked.cursor is not None:
        name, token_id = cursors.read(asked.cursor, _ORDER, str, str)
        after = (str(name), str(token_id))
    page = await run(admin_tokens.page, office.database, limit=asked.limit, after=after)
    now = office.clock()
    return shapes.AdminTokenPage(
        items=tuple(_shape(one, now) for one in page.tokens),
        next=None if page.next is None else cursors.write(_ORDER, *page.next),
    )


@router.post(
    "/admin-tokens",
    operation_id="create_admin_token",
    status_code=201,
    responses=answers(Kind.FORBIDDEN, Kind.CONFLICT, Kind.INVALID, ok=201, headers=("Location",)),
)
async def create_admin_token(
    asked: shapes.NewAdminToken,
    caller: Caller,
    office: Given,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> shapes.CreatedAdminToken:
    """Make an admin token with no more rights than the caller has; it is shown here and only here.

    With an `Idempotency-Key`, the same request gets the same answer for a day.
    """
    await want(caller, Verb.MANAGE, None)
    made = created(
        "create_admin_token", caller, office, idempotency_key, asked, shapes.CreatedAdminToken
    )
    answer = await repeated(made)
    if answer is None:
        now = office.clock()

        def say(token: Made) -> shapes.CreatedAdminToken:
            return shapes.CreatedAdminToken(
                admin_token=_shape(token.token, now), secret=token.secret
            )

        answer = say(
            await run(
                admin_tokens.create,
                office.database,
                name=asked.name,
                rights=read_rights(asked.verbs, asked.sites),
                window_seconds=None if asked.window is None else parse_window(asked.window),
                keys=office.token_keys,
                actor=caller.caller.actor,
                now=now,
                random_bytes=office.random_bytes,
                granted_by=caller.rights or _NONE,
                record=made.recorder(say),
            )
        )
    response.headers["Location"] = f"{PREFIX}/admin-tokens/{answer.admin_token.name}"
    return answer


@router.get(
    "/admin-tokens/{name}",
    operation_id="get_admin_token",
    responses=answers(Kind.FORBIDDEN, Kind.MISSING),
)
async def get_admin_token(name: Name, caller: Caller, office: Given) -> shapes.AdminToken:
    """Show the admin token of this name that is not revoked, or that was last."""
    await want(caller, Verb.MANAGE, None)
    return _shape(await run(admin_tokens.show, office.database, name), office.clock())


@router.delete(
    "/admin-tokens/{name}",
    operation_id="revoke_admin_token",
    responses=answers(Kind.FORBIDDEN, Kind.MISSING),
)
async def revoke_admin_token(name: Name, caller: Caller, office: Given) -> shapes.AdminToken:
    """Revoke an admin token: it is good for nothing at once, and stays in the list."""
    await want(caller, Verb.MANAGE, None)
    now = office.clock()
    revoked = await run(
        admin_tokens.revoke, office.database, name, actor=caller.caller.actor, now=now
    )
    return _shape(revoked, now)


def _shape(token: AdminToken, now: int) -> shapes.AdminToken:
    return shapes.AdminToken(
        id=token.id,
        name=token.name,
        verbs=tuple(written_verbs(token.rights)),
        sites=tuple(written_sites(token.rights)),
        state=token.state(now),
        created_at=rfc3339(token.created_at),
        created_by=token.created_by,
        expires_at=moment(token.expires_at),
        revoked_at=moment(token.revoked_at),
        last_used_at=moment(token.last_used_at),
        last_used_from=token.last_used_from,
    )
