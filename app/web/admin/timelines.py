"""The route of the story of a grant."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api import timelines as shapes
from app.api.problems import Kind
from app.api.shapes import Id
from app.domain.callers import Verb
from app.domain.stories import Story
from app.domain.times import rfc3339
from app.services import timeline
from app.web.admin.document import answers
from app.web.admin.grants import found
from app.web.admin.office import PREFIX, Caller, Given, run

router = APIRouter(prefix=PREFIX, tags=["grants"])


@router.get(
    "/grants/{grant_id}/timeline", operation_id="explain_grant", responses=answers(Kind.MISSING)
)
async def explain_grant(
    grant_id: Id,
    asked: Annotated[shapes.TimelineListing, Query()],
    caller: Caller,
    office: Given,
) -> shapes.Timeline:
    """Tell the story of a grant: what happened, and what a next claim would get and why."""
    grant = await found(caller, office.database, grant_id, Verb.READ)
    story = await run(
        timeline.explain, office.database, grant.id, now=office.clock(), limit=asked.limit
    )
    return _shape(story)


def _shape(story: Story) -> shapes.Timeline:
    standing = story.standing
    return shapes.Timeline(
        id=story.id,
        name=story.name,
        site=story.site,
        moments=tuple(
            shapes.Moment(
                at=one.time,
                act=one.act,
                what=one.what,
                who=one.who,
                peer=one.peer,
                serial=one.serial,
                times=one.times,
            )
            for one in story.moments
        ),
        left_out=story.left_out,
        standing=shapes.Standing(
            state=standing.state,
            redemptions=standing.allowed,
            redeemed=standing.spent,
            left=standing.left,
            begins_at=rfc3339(standing.begins_at),
            expires_at=rfc3339(standing.expires_at),
            revoked_at=rfc3339(standing.revoked_at) if standing.revoked_at else None,
            wrong_codes=standing.wrong_codes,
            next_claim=standing.next_claim,
            obstructions=tuple(
                shapes.Obstruction(reason=one.reason, text=one.text)
                for one in standing.obstructions
            ),
            conditions=standing.conditions,
        ),
    )
