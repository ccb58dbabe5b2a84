"""Routes of sites."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api import sites as shapes
from app.api.problems import Kind
from app.api.shapes import Listing, Name
from app.domain.callers import Verb
from app.domain.sites import Endpoint, Site, check_host
from app.domain.times import rfc3339
from app.errors import Missing, Stale
from app.services import sites
from app.web.admin import cursors, etags
from app.web.admin.document import UNCHANGED, answers
from app.web.admin.office import PREFIX, Caller, Given, run, want, want_of

router = APIRouter(prefix=PREFIX, tags=["sites"])
_ORDER = "sites"


@router.get("/sites", operation_id="list_sites", responses=answers(Kind.INVALID))
async def list_sites(
    asked: Annotated[Listing, Query()], caller: Caller, office: Given
) -> shapes.SitePage:
    """List the sites that the caller may read, by name."""
    after = cursors.text(asked.cursor, _ORDER)
    there = await run(sites.every, office.database)
    readable = await caller.sites(Verb.READ, lambda: [one.name for one in there])
    rows = sorted(
        (one for one in there if one.name > after and (readable is None or one.name in readable)),
        key=lambda one: one.name,
    )
    page = rows[: asked.limit]
    return shapes.SitePage(
        items=tuple(map(_shape, page)),
        next=cursors.write(_ORDER, page[-1].name) if len(rows) > len(page) else None,
    )


@router.get(
    "/sites/{name}",
    operation_id="get_site",
    responses=answers(Kind.MISSING, headers=("ETag",)) | UNCHANGED,
    response_model=shapes.Site,
)
async def get_site(
    name: Name,
    caller: Caller,
    office: Given,
    response: Response,
    if_none_match: etags.IfNoneMatch = None,
) -> shapes.Site | Response:
    """Show a site."""
    await want_of(caller, Verb.READ, name, "site", name)
    shown = _shape(await run(sites.show, office.database, name))
    if etags.answer(shown, response, if_none_match):
        return Response(status_code=304, headers=dict(response.headers))
    return shown


@router.put(
    "/sites/{name}",
    operation_id="set_site",
    responses=answers(Kind.FORBIDDEN, Kind.CONFLICT, Kind.STALE, Kind.INVALID, headers=("ETag",)),
)
async def set_site(
    name: Name,
    asked: shapes.SiteWish,
    caller: Caller,
    office: Given,
    response: Response,
    if_match: etags.IfMatch = None,
    if_none_match: etags.IfNoneMatch = None,
) -> shapes.Site:
    """Make a site, or put other endpoints in the place of those that it has.

    With `If-None-Match: *` only where there is none.
    """
    await want(caller, Verb.MANAGE, name)
    for endpoint in asked.endpoints:
        check_host("endpoints", endpoint.host)
    site = await run(
        sites.put,
        office.database,
        name=name,
        endpoints=[
            Endpoint(role=one.role, host=one.host, port=one.port, group=one.group)
            for one in asked.endpoints
        ],
        issuer=asked.issuer,
        actor=caller.caller.actor,
        now=office.clock(),
        check=lambda known: _guard(known, if_match, if_none_match),
    )
    shown = _shape(site)
    etags.answer(shown, response)
    return shown


@router.delete(
    "/sites/{name}",
    operation_id="delete_site",
    status_code=204,
    responses=answers(Kind.FORBIDDEN, Kind.MISSING, Kind.CONFLICT, Kind.STALE, ok=204),
)
async def delete_site(
    name: Name, caller: Caller, office: Given, if_match: etags.IfMatch = None
) -> None:
    """Remove a site to which no grant leads."""
    await want_of(caller, Verb.MANAGE, name, "site", name)

    def check(known: Site | None) -> None:
        if known is None:
            raise Missing("site", name)
        _guard(known, if_match, None)

    await run(
        sites.remove,
        office.database,
        name=name,
        actor=caller.caller.actor,
        now=office.clock(),
        check=check,
    )


def _guard(known: Site | None, if_match: str | None, if_none_match: str | None) -> None:
    current = None if known is None else etags.tag(_shape(known))
    if if_match is not None and (current is None or not etags.matches(if_match, current)):
        raise Stale("it is not what it was when it was looked at: look again")
    if if_none_match is not None and current and etags.matches(if_none_match, current):
        raise Stale("there is such a site already")


def _shape(site: Site) -> shapes.Site:
    return shapes.Site(
        name=site.name,
        issuer=site.issuer,
        endpoints=tuple(
            shapes.Endpoint.model_construct(
                role=one.role, host=one.host, port=one.port, group=one.group
            )
            for one in site.endpoints
        ),
        created_at=rfc3339(site.created_at),
        origin=site.origin,
    )
