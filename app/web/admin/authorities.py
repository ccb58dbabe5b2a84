"""Routes of authorities: what of them is public."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api import authorities as shapes
from app.api.problems import Kind
from app.api.shapes import Listing, Name
from app.domain.authorities import Authority
from app.domain.callers import Verb
from app.domain.times import rfc3339
from app.errors import Forbidden
from app.services import authorities, sites
from app.services.admission import Admitted
from app.web.admin import cursors
from app.web.admin.document import answers
from app.web.admin.office import PREFIX, Caller, Given, Office, run

router = APIRouter(prefix=PREFIX, tags=["authorities"])
_ORDER = "authorities"


@router.get(
    "/authorities",
    operation_id="list_authorities",
    responses=answers(Kind.FORBIDDEN, Kind.INVALID),
)
async def list_authorities(
    asked: Annotated[Listing, Query()], caller: Caller, office: Given
) -> shapes.AuthorityPage:
    """List all generations of all authorities, in the order in which they were made.

    Whoever may read at any site may read them.
    """
    await _want_to_read(caller, office)
    after = cursors.number(asked.cursor, _ORDER)
    there = await run(authorities.every, office.database)
    rows = sorted((one for one in there if one.id > after), key=lambda one: one.id)
    page = rows[: asked.limit]
    return shapes.AuthorityPage(
        items=tuple(map(_shape, page)),
        next=cursors.write(_ORDER, page[-1].id) if len(rows) > len(page) else None,
    )


@router.get(
    "/authorities/{name}",
    operation_id="get_authority",
    responses=answers(Kind.FORBIDDEN, Kind.MISSING),
)
async def get_authority(name: Name, caller: Caller, office: Given) -> shapes.Authority:
    """Show the generation that goes by this name: of a rotated authority the one that signs."""
    await _want_to_read(caller, office)
    authority, _ = await run(authorities.show, office.database, name)
    return _shape(authority)


async def _want_to_read(caller: Admitted, office: Office) -> None:
    readable = await caller.sites(
        Verb.READ, lambda: [one.name for one in sites.every(office.database)]
    )
    if readable is not None and not readable:
        raise Forbidden('you have no right to "read" anywhere')


def _shape(authority: Authority) -> shapes.Authority:
    return shapes.Authority(
        name=authority.name,
        purpose=authority.purpose,
        state=authority.state,
        certificate=authority.certificate_pem,
        fingerprint=authority.fingerprint,
        not_before=rfc3339(authority.not_before),
        not_after=rfc3339(authority.not_after),
        imported=authority.imported,
        created_at=rfc3339(authority.created_at),
        origin=authority.origin,
    )
