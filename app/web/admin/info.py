"""The route of what the server says of itself, and of who asks."""

from fastapi import APIRouter

from app.api import info as shapes
from app.domain.callers import written_sites, written_verbs
from app.domain.durations import format_seconds
from app.web.admin.document import answers
from app.web.admin.office import PREFIX, Caller, Given

router = APIRouter(prefix=PREFIX, tags=["info"])


@router.get("/info", operation_id="get_info", responses=answers())
async def get_info(caller: Caller, office: Given) -> shapes.Info:
    """Tell version, reach and ceilings, and who the caller is."""
    reach, waiting = office.reach()
    rights, ceilings = caller.rights, office.ceilings
    return shapes.Info(
        version=office.version,
        caller=shapes.Caller(
            kind=caller.caller.kind,
            name=caller.caller.name,
            verbs=None if rights is None else tuple(written_verbs(rights)),
            sites=None if rights is None else tuple(written_sites(rights)),
        ),
        reach=shapes.Reach(
            url=None if reach is None else reach.url,
            ca=None if reach is None else reach.ca_pem,
            waiting=waiting,
        ),
        ceilings=shapes.Ceilings(
            window=_duration(ceilings.window_seconds),
            redemptions=ceilings.redemptions,
            lifetime=_duration(ceilings.lifetime_seconds),
        ),
    )


def _duration(seconds: int | None) -> str | None:
    return None if seconds is None else format_seconds(seconds)
