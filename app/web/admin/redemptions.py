"""Routes of redemptions."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.api import redemptions as shapes
from app.api.problems import Kind
from app.api.shapes import Id, Listing
from app.domain.callers import Verb
from app.domain.grants import MOST_REDEMPTIONS, Redemption
from app.domain.times import rfc3339
from app.errors import Missing
from app.services import grants
from app.web.admin import cursors
from app.web.admin.document import answers
from app.web.admin.grants import found, moment
from app.web.admin.office import PREFIX, Caller, Given, Office, run

router = APIRouter(prefix=PREFIX, tags=["redemptions"])
Ordinal = Annotated[int, Path(ge=1, le=MOST_REDEMPTIONS, description="Its number.")]


@router.get(
    "/grants/{grant_id}/redemptions",
    operation_id="list_redemptions",
    responses=answers(Kind.MISSING, Kind.INVALID),
)
async def list_redemptions(
    grant_id: Id, asked: Annotated[Listing, Query()], caller: Caller, office: Given
) -> shapes.RedemptionPage:
    """List the redemptions of a grant, the first ones first."""
    grant = await found(caller, office.database, grant_id, Verb.READ)
    order = f"redemptions {grant.id}"
    after = cursors.number(asked.cursor, order)
    rows = await run(
        grants.redemptions, office.database, grant.id, after=after, limit=asked.limit + 1
    )
    page = rows[: asked.limit]
    return shapes.RedemptionPage(
        items=tuple(map(_shape, page)),
        next=cursors.write(order, page[-1].ordinal) if len(rows) > len(page) else None,
    )


@router.get(
    "/grants/{grant_id}/redemptions/{ordinal}",
    operation_id="get_redemption",
    responses=answers(Kind.MISSING),
)
async def get_redemption(
    grant_id: Id, ordinal: Ordinal, caller: Caller, office: Given
) -> shapes.Redemption:
    """Show a redemption by its number."""
    grant = await found(caller, office.database, grant_id, Verb.READ)
    return _shape(await run(_one, office, grant.id, ordinal))


@router.post(
    "/grants/{grant_id}/redemptions/{ordinal}/revoke",
    operation_id="revoke_redemption",
    responses=answers(Kind.FORBIDDEN, Kind.MISSING),
)
async def revoke_redemption(
    grant_id: Id, ordinal: Ordinal, caller: Caller, office: Given
) -> shapes.RevokedRedemption:
    """Revoke the certificates of a redemption; the grant stays as it is."""
    grant = await found(caller, office.database, grant_id, Verb.REVOKE)
    revoked = await run(
        grants.revoke_redemption,
        office.database,
        grant.id,
        ordinal,
        actor=caller.caller.actor,
        now=office.clock(),
    )
    redemption = await run(_one, office, grant.id, ordinal)
    return shapes.RevokedRedemption(
        redemption=_shape(redemption), certificates=revoked.certificates
    )


def _one(office: Office, grant_id: str, ordinal: int) -> Redemption:
    rows = grants.redemptions(office.database, grant_id, after=ordinal - 1, limit=1)
    if not rows or rows[0].ordinal != ordinal:
        raise Missing("redemption", str(ordinal))
    return rows[0]


def _shape(redemption: Redemption) -> shapes.Redemption:
    return shapes.Redemption(
        ordinal=redemption.ordinal,
        name=redemption.name,
        subject=redemption.subject,
        peer=redemption.peer,
        redeemed_at=rfc3339(redemption.redeemed_at),
        serial=redemption.serial,
        fingerprint=redemption.fingerprint,
        not_after=rfc3339(redemption.not_after),
        revoked_at=moment(redemption.revoked_at),
    )
