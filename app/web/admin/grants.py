"""Routes of grants."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api import grants as shapes
from app.api.problems import Kind
from app.api.shapes import Id
from app.domain import policies
from app.domain.callers import Verb
from app.domain.durations import format_seconds, parse_window
from app.domain.grants import Filter, Grant, Sort
from app.domain.times import parse_rfc3339, rfc3339
from app.errors import Forbidden, Invalid
from app.services import grants, sites
from app.services.admission import Admitted
from app.services.grants import Change, Issued, Wish
from app.store.engine import Database
from app.web.admin import cursors, etags
from app.web.admin.document import UNCHANGED, answers
from app.web.admin.idempotency import IdempotencyKey, created, repeated
from app.web.admin.office import PREFIX, Caller, Given, Office, run, want, want_of

router = APIRouter(prefix=PREFIX, tags=["grants"])


def shape(grant: Grant, now: int) -> shapes.Grant:
    """Show a grant as it stands at `now`."""
    return shapes.Grant(
        id=grant.id,
        name=grant.name,
        site=grant.site,
        state=grant.state(now),
        redemptions=grant.allowed,
        redeemed=grant.spent,
        cost=grant.cost,
        created_at=rfc3339(grant.created_at),
        expires_at=rfc3339(grant.expires_at),
        revoked_at=moment(grant.revoked_at),
        issuer=grant.issuer,
        policy=None if grant.policy is None else _policy(grant.policy),
        not_before=moment(grant.not_before),
        labels=dict(grant.labels),
        description=grant.description,
    )


def moment(seconds: int | None) -> str | None:
    """Write a time, where there is one."""
    return None if seconds is None else rfc3339(seconds)


def wish(asked: shapes.GrantWish, *, name: str, site: str) -> Wish:
    """Read what is asked for. Raises Invalid."""
    policy = asked.policy
    return Wish(
        name=name,
        site=site,
        redemptions=asked.redemptions,
        window_seconds=parse_window(asked.window),
        cost=asked.cost,
        code=asked.code,
        issuer=asked.issuer,
        policy=None
        if policy is None
        else policies.Policy(
            subjects=policy.subjects,
            networks=policy.networks,
            lifetime_seconds=None
            if policy.lifetime is None
            else parse_window(policy.lifetime, field="lifetime"),
            key_type=policy.key_type,
            per_subject=policy.per_subject,
            name_prefix=policy.name_prefix,
        ),
        not_before=read_time("not_before", asked.not_before),
        labels=asked.labels,
        description=asked.description,
    )


def read_time(field: str, text: str | None) -> int | None:
    """Read a time, where one is given. Raises Invalid naming the field."""
    if text is None:
        return None
    seconds = parse_rfc3339(text)
    if seconds is None:
        raise Invalid(field, "expected RFC 3339, such as 2026-11-23T10:00:00Z")
    return seconds


async def where_to_create(caller: Admitted, office: Office, site: str | None) -> str:
    """The site that is asked for, or the only one.

    Raises Forbidden unless the caller may create there, and Invalid where there are several.
    """
    if site is None:
        there = [one.name for one in await run(sites.every, office.database)]
        if await caller.sites(Verb.CREATE, lambda: there) == frozenset():
            raise Forbidden('you have no right to "create" anywhere')
        if len(there) != 1:
            raise Invalid("site", "say which one" if there else "there is none yet: make one")
        (site,) = there
    await want(caller, Verb.CREATE, site)
    return site


def token(issued: Issued, office: Office, now: int) -> str | None:
    """The AccessToken of a new grant, if anybody knows how we are reached."""
    reach, _ = office.reach()
    return None if reach is None else grants.token(issued, reach, now)


async def found(caller: Admitted, database: Database, grant_id: str, verb: Verb) -> Grant:
    """The grant of this id, with which the caller may do that. Raises Missing and Forbidden."""
    grant = await run(grants.by_id, database, grant_id)
    await want_of(caller, verb, grant.site, "grant", grant_id)
    return grant


@router.get(
    "/grants",
    operation_id="list_grants",
    responses=answers(Kind.INVALID),
)
async def list_grants(
    asked: Annotated[shapes.GrantListing, Query()], caller: Caller, office: Given
) -> shapes.GrantPage:
    """List grants, those of sites that the caller may read."""
    readable = await caller.sites(
        Verb.READ, lambda: [one.name for one in sites.every(office.database)]
    )
    if asked.site is not None:
        wanted = frozenset({asked.site})
        readable = wanted if readable is None else readable & wanted
    label: tuple[str, str] | None = None
    if asked.label is not None:
        key, _, value = asked.label.partition("=")
        label = (key, value)
    now, descending = office.clock(), asked.order == "desc"
    order = f"grants {asked.sort.value} {asked.order}"
    after = None
    if asked.cursor is not None:
        kind = str if asked.sort is Sort.NAME else int
        sorted_by, grant_id = cursors.read(asked.cursor, order, kind, str)
        after = (sorted_by, str(grant_id))
    page = await run(
        grants.page,
        office.database,
        Filter(sites=readable, state=asked.state, name_prefix=asked.name_prefix or "", label=label),
        now=now,
        sort=asked.sort,
        descending=descending,
        limit=asked.limit,
        after=after,
    )
    return shapes.GrantPage(
        items=tuple(shape(grant, now) for grant in page.grants),
        next=None if page.next is None else cursors.write(order, *page.next),
    )


@router.post(
    "/grants",
    operation_id="create_grant",
    status_code=201,
    responses=answers(
        Kind.FORBIDDEN,
        Kind.MISSING,
        Kind.CONFLICT,
        Kind.INVALID,
        ok=201,
        headers=("ETag", "Location"),
    ),
)
async def create_grant(
    asked: shapes.NewGrant,
    caller: Caller,
    office: Given,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> shapes.CreatedGrant:
    """Create a grant; its code is in this answer and nowhere else.

    With an `Idempotency-Key`, the same request gets the same answer for a day.
    """
    site = await where_to_create(caller, office, asked.site)
    made = created("create_grant", caller, office, idempotency_key, asked, shapes.CreatedGrant)
    answer = await repeated(made)
    if answer is None:
        now = office.clock()

        def say(issued: Issued) -> shapes.CreatedGrant:
            return shapes.CreatedGrant(
                grant=shape(issued.grant, now), code=issued.code, token=token(issued, office, now)
            )

        issued = await run(
            grants.create,
            office.database,
            wish(asked, name=asked.name, site=site),
            code_keys=office.code_keys,
            actor=caller.caller.actor,
            now=now,
            random_bytes=office.random_bytes,
            ceilings=office.ceilings,
            record=made.recorder(say),
        )
        answer = say(issued)
    response.headers["Location"] = f"{PREFIX}/grants/{answer.grant.id}"
    etags.answer(answer.grant, response)
    return answer


@router.get(
    "/grants/{grant_id}",
    operation_id="get_grant",
    responses=answers(Kind.MISSING, headers=("ETag",)) | UNCHANGED,
    response_model=shapes.Grant,
)
async def get_grant(
    grant_id: Id,
    caller: Caller,
    office: Given,
    response: Response,
    if_none_match: etags.IfNoneMatch = None,
) -> shapes.Grant | Response:
    """Show a grant."""
    grant = await found(caller, office.database, grant_id, Verb.READ)
    shown = shape(grant, office.clock())
    if etags.answer(shown, response, if_none_match):
        return Response(status_code=304, headers=dict(response.headers))
    return shown


@router.patch(
    "/grants/{grant_id}",
    operation_id="change_grant",
    responses=answers(
        *(Kind.FORBIDDEN, Kind.MISSING, Kind.CONFLICT, Kind.STALE, Kind.INVALID), headers=("ETag",)
    ),
)
async def change_grant(
    grant_id: Id,
    asked: shapes.GrantChange,
    caller: Caller,
    office: Given,
    response: Response,
    if_match: etags.IfMatch = None,
) -> shapes.Grant:
    """Change what is given; what is left out, or null, stays as it is."""
    change = Change(
        expires_at=read_time("expires_at", asked.expires_at),
        allowed=asked.redemptions,
        labels=asked.labels,
        description=asked.description,
    )
    return await _changed(grant_id, change, caller, office, response, if_match)


@router.post(
    "/grants/{grant_id}/extend",
    operation_id="extend_grant",
    responses=answers(
        *(Kind.FORBIDDEN, Kind.MISSING, Kind.CONFLICT, Kind.STALE, Kind.INVALID), headers=("ETag",)
    ),
)
async def extend_grant(
    grant_id: Id,
    asked: shapes.Extension,
    caller: Caller,
    office: Given,
    response: Response,
    if_match: etags.IfMatch = None,
) -> shapes.Grant:
    """Let a grant be redeemed for longer, counted from now, or more often."""
    if asked.window is None and asked.redemptions is None:
        raise Invalid("window", "say for how long, or how often (redemptions), or both")
    window = None if asked.window is None else parse_window(asked.window)
    change = Change(
        expires_at=None if window is None else office.clock() + window,
        allowed=asked.redemptions,
    )
    return await _changed(grant_id, change, caller, office, response, if_match)


@router.post(
    "/grants/{grant_id}/revoke",
    operation_id="revoke_grant",
    responses=answers(Kind.FORBIDDEN, Kind.MISSING, Kind.STALE, headers=("ETag",)),
)
async def revoke_grant(
    grant_id: Id,
    caller: Caller,
    office: Given,
    response: Response,
    asked: shapes.Revocation | None = None,
    if_match: etags.IfMatch = None,
) -> shapes.RevokedGrant:
    """End a grant for good, and revoke the certificates that it gave out."""
    grant = await found(caller, office.database, grant_id, Verb.REVOKE)
    now = office.clock()
    revoked = await run(
        grants.revoke,
        office.database,
        grant.id,
        actor=caller.caller.actor,
        now=now,
        certificates=asked is None or asked.certificates,
        check=etags.guard(if_match, lambda held: shape(held, now)),
    )
    shown = shape(revoked.grant, now)
    etags.answer(shown, response)
    return shapes.RevokedGrant(grant=shown, certificates=revoked.certificates)


@router.delete(
    "/grants/{grant_id}",
    operation_id="delete_grant",
    status_code=204,
    responses=answers(Kind.FORBIDDEN, Kind.MISSING, Kind.CONFLICT, Kind.STALE, ok=204),
)
async def delete_grant(
    grant_id: Id, caller: Caller, office: Given, if_match: etags.IfMatch = None
) -> None:
    """Delete a grant with its redemptions; the audit log keeps both."""
    grant = await found(caller, office.database, grant_id, Verb.DELETE)
    now = office.clock()
    await run(
        grants.remove,
        office.database,
        grant.id,
        actor=caller.caller.actor,
        now=now,
        check=etags.guard(if_match, lambda held: shape(held, now)),
    )


async def _changed(
    grant_id: str,
    change: Change,
    caller: Admitted,
    office: Office,
    response: Response,
    if_match: str | None,
) -> shapes.Grant:
    grant = await found(caller, office.database, grant_id, Verb.CHANGE)
    now = office.clock()
    changed = await run(
        grants.change,
        office.database,
        grant.id,
        change,
        actor=caller.caller.actor,
        now=now,
        ceilings=office.ceilings,
        check=etags.guard(if_match, lambda held: shape(held, now)),
    )
    shown = shape(changed, now)
    etags.answer(shown, response)
    return shown


def _policy(policy: policies.Policy) -> shapes.Policy:
    lifetime = policy.lifetime_seconds
    return shapes.Policy.model_construct(
        subjects=policy.subjects,
        networks=policy.networks,
        lifetime=None if lifetime is None else format_seconds(lifetime),
        key_type=policy.key_type,
        per_subject=policy.per_subject,
        name_prefix=policy.name_prefix,
    )
