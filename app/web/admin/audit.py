"""The route of the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api import audit as shapes
from app.api.problems import Kind
from app.domain.callers import Verb
from app.domain.times import rfc3339
from app.services import audit
from app.store.audit import Filter
from app.web.admin import cursors
from app.web.admin.document import answers
from app.web.admin.grants import read_time
from app.web.admin.office import PREFIX, Caller, Given, run, want

router = APIRouter(prefix=PREFIX, tags=["audit"])
_ORDER = "audit"


@router.get("/audit", operation_id="list_audit", responses=answers(Kind.FORBIDDEN, Kind.INVALID))
async def list_audit(
    asked: Annotated[shapes.EntryListing, Query()], caller: Caller, office: Given
) -> shapes.EntryPage:
    """List entries of the audit log, the newest ones first."""
    await want(caller, Verb.AUDIT, None)
    page = await run(
        audit.page,
        office.database,
        Filter(
            target=asked.target,
            act=asked.act,
            actor=asked.actor,
            since=read_time("since", asked.since),
            until=read_time("until", asked.until),
        ),
        limit=asked.limit,
        before=cursors.number(asked.cursor, _ORDER) or None,
    )
    return shapes.EntryPage(
        items=tuple(
            shapes.Entry(
                id=number,
                at=rfc3339(entry.at),
                act=entry.act.value,
                actor=entry.actor,
                target=entry.target,
                details=dict(entry.details),
            )
            for number, entry in page.entries
        ),
        next=None if page.next is None else cursors.write(_ORDER, page.next),
    )
