"""Grants: created with their code, written as tokens, listed, revoked, removed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from app.domain import codes, policies
from app.domain.access_grants import kept_name
from app.domain.audit import Act, Entry
from app.domain.authorities import can_sign_for_sites
from app.domain.documents import access_token
from app.domain.durations import format_seconds
from app.domain.grants import (
    ID_RANDOM_BYTES,
    LONGEST_WINDOW,
    Filter,
    Grant,
    Redemption,
    Sort,
    check_not_before,
    check_redemptions,
    new_id,
)
from app.domain.names import check_name
from app.domain.policies import (
    NO_CEILINGS,
    NO_LABELS,
    Ceilings,
    Policy,
    check_ceilings,
    check_description,
    check_labels,
    checked,
)
from app.domain.reach import Reach
from app.domain.renewals import Given, check_ordinal
from app.domain.sites import Site, check_cost
from app.domain.times import rfc3339
from app.errors import Conflict, Invalid, Missing
from app.store import access_grants as access_grant_rows
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store import grants as grant_rows
from app.store import renewals as renewal_rows
from app.store import sites as site_rows
from app.store.engine import Connection, Database
from app.store.grants import Key

DEFAULT_PAGE: Final = 100
LARGEST_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a grant shall be like; `site` None means the only one, `code` None a new one.

    `window_seconds` counts from now; `cost` is what the Link will have. `not_before` are UTC
    seconds, before which nobody can redeem it.
    """

    name: str
    site: str | None
    redemptions: int
    window_seconds: int
    cost: int
    code: str | None = field(default=None, repr=False)
    issuer: str | None = None
    policy: Policy | None = None
    not_before: int | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What of a grant shall become otherwise; None stays as it is.

    `expires_at` (UTC seconds) and `allowed` may only become more: revoking is what makes less.
    """

    expires_at: int | None = None
    allowed: int | None = None
    labels: Mapping[str, str] | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some grants in order, and where the next page begins; None when this is the last."""

    grants: Sequence[Grant]
    next: Key | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new grant and its code, which is known here and never again."""

    grant: Grant
    code: str = field(repr=False)


def create(
    database: Database,
    wish: Wish,
    *,
    code_keys: Mapping[str, bytes],
    actor: str,
    now: int,
    random_bytes: Callable[[int], bytes],
    ceilings: Ceilings = NO_CEILINGS,
    record: Callable[[Connection, Issued], None] | None = None,
) -> Issued:
    """Create a grant.

    `record` is called with it in its transaction, and prevents it by raising. Raises Invalid naming
    the field, also for what exceeds the server's `ceilings`, Missing for an unknown site, Conflict
    when the site has a grant of this name.
    """
    check_name("name", wish.name)
    check_redemptions(wish.redemptions)
    check_cost(wish.cost)
    if wish.window_seconds < 1:
        raise Invalid("window", "expected at least one second")
    check_not_before(wish.not_before, now + wish.window_seconds)
    check_labels(wish.labels)
    check_description(wish.description)
    policy = None if wish.policy is None else checked(wish.policy)
    check_ceilings(
        ceilings, window_seconds=wish.window_seconds, redemptions=wish.redemptions, policy=policy
    )
    if wish.code is not None:
        codes.check_chosen(wish.code)
    code = wish.code or codes.generate(random_bytes)
    with database.writing() as connection:
        site = _site(site_rows.every(connection), wish.site)
        if wish.issuer is not None:
            issuer = authority_rows.by_name(connection, wish.issuer)
            if issuer is None or not can_sign_for_sites(issuer):
                raise Invalid("issuer", f'no site authority "{wish.issuer}"')
        if grant_rows.matching(connection, name=wish.name, site=site):
            raise Conflict(f'site "{site}" has a grant "{wish.name}" already: remove it first')
        grant = Grant(
            id=new_id(now * 1000, random_bytes(ID_RANDOM_BYTES)),
            name=wish.name,
            site=site,
            concealed_code=codes.conceal(code, code_keys),
            allowed=wish.redemptions,
            spent=0,
            cost=wish.cost,
            created_at=now,
            expires_at=now + wish.window_seconds,
            issuer=wish.issuer,
            policy=policy,
            not_before=wish.not_before,
            labels=dict(wish.labels),
            description=wish.description,
        )
        grant_rows.add(connection, grant)
        audit_rows.add(
            connection,
            Entry(
                at=now,
                act=Act.GRANT_CREATED,
                actor=actor,
                target=f"grant/{grant.id}",
                details={
                    "name": grant.name,
                    "site": grant.site,
                    "issuer": grant.issuer,
                    "cost": grant.cost,
                    "allowed": grant.allowed,
                    "expires_at": grant.expires_at,
                    **_told_policy(grant),
                },
            ),
        )
        issued = Issued(grant=grant, code=code)
        if record is not None:
            record(connection, issued)
    return issued


def token(issued: Issued, reach: Reach, now: int) -> str:
    """Write the AccessToken of a new grant; the text contains its code."""
    grant = issued.grant
    left = format_seconds(grant.expires_at - now)
    times = "once" if grant.allowed == 1 else f"{grant.allowed} times"
    return access_token(
        name=grant.name,
        url=reach.url_of(grant.id),
        code=issued.code,
        ca_pem=reach.ca_pem,
        cost=grant.cost,
        remarks=(
            f"Links a site to {grant.site}. Keep it secret: it contains the code.",
            f"Good {times}, until {rfc3339(grant.expires_at)} ({left} from when it was issued).",
        ),
    )


def every(database: Database, *, site: str | None = None) -> Sequence[Grant]:
    """All grants, or those of one site; the oldest first."""
    with database.reading() as connection:
        return grant_rows.matching(connection, site=site)


def page(
    database: Database,
    which: Filter,
    *,
    now: int,
    sort: Sort = Sort.CREATED_AT,
    descending: bool = False,
    limit: int = DEFAULT_PAGE,
    after: Key | None = None,
) -> Page:
    """Some of the grants that are asked for, in order, at most `limit`.

    `after` is the `next` of the page before, or what its caller kept of that: the value sorted by
    and the id of a grant, which need not be there any more. Raises Invalid("limit", …), and
    Invalid("after", …) for a key that belongs to another order.
    """
    if not 1 <= limit <= LARGEST_PAGE:
        raise Invalid("limit", f"expected 1 to {LARGEST_PAGE}")
    if after is not None and isinstance(after[0], str) is not (sort is Sort.NAME):
        raise Invalid("after", f"it is no place in a list that is sorted by {sort.value}")
    with database.reading() as connection:
        found = grant_rows.page(
            connection,
            which,
            now=now,
            sort=sort,
            descending=descending,
            limit=limit + 1,
            after=after,
        )
    if len(found) <= limit:
        return Page(grants=found, next=None)
    last = found[limit - 1]
    values: dict[Sort, int | str] = {
        Sort.CREATED_AT: last.created_at,
        Sort.NAME: last.name,
        Sort.EXPIRES_AT: last.expires_at,
    }
    return Page(grants=found[:limit], next=(values[sort], last.id))


def change(
    database: Database,
    name: str,
    wanted: Change,
    *,
    site: str | None = None,
    actor: str,
    now: int,
    ceilings: Ceilings = NO_CEILINGS,
    check: Callable[[Grant], None] | None = None,
) -> Grant:
    """Change a grant by its name or id, all of it or nothing; what is so already is not written.

    `check` is called with the grant as it stands when it is changed, and raises to prevent that.
    Raises as `show` does, Invalid naming the field, also for what exceeds the server's `ceilings`
    (the window counts from when the grant was made), and Conflict for a longer time or more
    redemptions of a grant that is revoked, or stands for an AccessGrant, which says both itself.
    """
    if wanted.labels is not None:
        check_labels(wanted.labels)
    if wanted.description is not None:
        check_description(wanted.description)
    if wanted.allowed is not None:
        check_redemptions(wanted.allowed)
    with database.writing() as connection:
        grant = _held(connection, name, site, check)
        changed = replace(
            grant,
            expires_at=grant.expires_at if wanted.expires_at is None else wanted.expires_at,
            allowed=grant.allowed if wanted.allowed is None else wanted.allowed,
            labels=grant.labels if wanted.labels is None else dict(wanted.labels),
            description=grant.description if wanted.description is None else wanted.description,
        )
        if changed == grant:
            return grant
        extended = changed.expires_at != grant.expires_at or changed.allowed != grant.allowed
        if extended:
            _check_extension(connection, grant, changed, ceilings, now)
        grant_rows.change(connection, changed)
        told = {name_: value for name_, value in _changes(grant, changed) if value is not None}
        _note(
            connection,
            Act.GRANT_EXTENDED if extended else Act.GRANT_CHANGED,
            changed,
            actor,
            now,
            told,
        )
        return changed


def extend(
    database: Database,
    name: str,
    *,
    site: str | None = None,
    expires_at: int | None = None,
    allowed: int | None = None,
    actor: str,
    now: int,
    ceilings: Ceilings = NO_CEILINGS,
) -> Grant:
    """Let a grant be redeemed for longer, or more often; raises as `change` does."""
    return change(
        database,
        name,
        Change(expires_at=expires_at, allowed=allowed),
        site=site,
        actor=actor,
        now=now,
        ceilings=ceilings,
    )


def resources(database: Database) -> Mapping[str, tuple[str, str]]:
    """Namespace and name of the AccessGrant of each grant that has one, or had, by their ids."""
    with database.reading() as connection:
        return access_grant_rows.resources(connection)


def resource_of(database: Database, grant_id: str) -> tuple[str, str] | None:
    """The same of one grant; None when it was made here."""
    with database.reading() as connection:
        row = access_grant_rows.by_id(connection, grant_id)
    return None if row is None else (row.namespace, row.name)


def show(
    database: Database, name: str, *, site: str | None = None
) -> tuple[Grant, Sequence[Redemption]]:
    """A grant by its name or id, and its redemptions, the first one first.

    Raises Missing, and Invalid("site", …) when several sites have a grant of this name.
    """
    with database.reading() as connection:
        grant = named(connection, name, site)
        return grant, grant_rows.redemptions_of(connection, grant.id)


def by_id(database: Database, grant_id: str) -> Grant:
    """The grant of this id, whatever others are called. Raises Missing."""
    with database.reading() as connection:
        grant = grant_rows.by_id(connection, grant_id)
    if grant is None:
        raise Missing("grant", grant_id)
    return grant


def redemptions(
    database: Database, grant_id: str, *, after: int, limit: int
) -> Sequence[Redemption]:
    """Redemptions of a grant whose number is above `after`, at most `limit`, in their order."""
    with database.reading() as connection:
        return grant_rows.redemptions_of(connection, grant_id, limit, after=after)


def certificates(database: Database, grant_id: str) -> Sequence[Given]:
    """All certificates of a grant, by redemption; those of one in the order they followed in."""
    with database.reading() as connection:
        return renewal_rows.of_grant(connection, grant_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """What became of a grant, and how many certificates were revoked with it just now."""

    grant: Grant
    certificates: int


def revoke(
    database: Database,
    name: str,
    *,
    site: str | None = None,
    actor: str,
    now: int,
    certificates: bool = True,
    check: Callable[[Grant], None] | None = None,
) -> Revoked:
    """End a grant at once, and revoke every certificate that was given out with it.

    Without `certificates` those are not marked, so no revocation list has them; they are renewed no
    more all the same. One that was ended before stays so, and its
    certificates are revoked all the same. `check` is as for `change`. Raises as `show` does.
    """
    with database.writing() as connection:
        grant = _held(connection, name, site, check)
        if grant_rows.revoke(connection, grant.id, now):
            _note(connection, Act.GRANT_REVOKED, grant, actor, now)
            grant = replace(grant, revoked_at=now)
        revoked = renewal_rows.revoke(connection, grant.id, now) or 0 if certificates else 0
        if revoked:
            told: dict[str, str | int | None] = {"certificates": revoked}
            _note(connection, Act.GRANT_CERTIFICATES_REVOKED, grant, actor, now, told)
        return Revoked(grant=grant, certificates=revoked)


def revoke_redemption(
    database: Database,
    name: str,
    ordinal: int,
    *,
    site: str | None = None,
    actor: str,
    now: int,
    check: Callable[[Grant], None] | None = None,
) -> Revoked:
    """Revoke the certificates of one redemption, by its number; the grant stays as it is.

    `check` is as for `change`. Raises as `show` does, Invalid("redemption", …), and Missing when
    there is no such redemption.
    """
    check_ordinal(ordinal)
    with database.writing() as connection:
        grant = _held(connection, name, site, check)
        revoked = renewal_rows.revoke(connection, grant.id, now, ordinal=ordinal)
        if revoked is None:
            raise Missing(f'redemption of grant "{grant.name}"', str(ordinal))
        if revoked:
            told: dict[str, str | int | None] = {"ordinal": ordinal, "certificates": revoked}
            _note(connection, Act.CERTIFICATE_REVOKED, grant, actor, now, told)
        return Revoked(grant=grant, certificates=revoked)


def remove(
    database: Database,
    name: str,
    *,
    site: str | None = None,
    actor: str,
    now: int,
    check: Callable[[Grant], None] | None = None,
) -> Grant:
    """Delete a grant and its redemptions; the audit log keeps both.

    `check` is as for `change`. Raises as `show` does, and Conflict while there is an AccessGrant
    that it stands for.
    """
    with database.writing() as connection:
        grant = _held(connection, name, site, check)
        resource = access_grant_rows.by_id(connection, grant.id)
        if resource is not None and resource.sealed_code:
            raise Conflict(
                f'grant "{grant.name}" stands for AccessGrant "{resource.name}" in namespace '
                f'"{resource.namespace}", and would be made again: delete the resource, or revoke '
                "the grant"
            )
        grant_rows.remove(connection, grant.id)
        _note(connection, Act.GRANT_REMOVED, grant, actor, now)
        return grant


def _note(
    connection: Connection,
    act: Act,
    grant: Grant,
    actor: str,
    now: int,
    told: Mapping[str, str | int | None] | None = None,
) -> None:
    audit_rows.add(
        connection,
        Entry(
            at=now,
            act=act,
            actor=actor,
            target=f"grant/{grant.id}",
            details={"name": grant.name, "site": grant.site, "spent": grant.spent, **(told or {})},
        ),
    )


def _told_policy(grant: Grant) -> dict[str, str | int | None]:
    """What the audit log keeps of a new grant that most grants have nothing of."""
    told: dict[str, str | int | None] = {
        "policy": policies.written(grant.policy),
        "not_before": grant.not_before,
        "labels": _labels(grant.labels) or None,
        "description": grant.description or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _changes(before: Grant, after: Grant) -> Iterator[tuple[str, str | int | None]]:
    if after.expires_at != before.expires_at:
        yield "expires_at", after.expires_at
        yield "expired_at_before", before.expires_at
    if after.allowed != before.allowed:
        yield "allowed", after.allowed
        yield "allowed_before", before.allowed
    if after.labels != before.labels:
        yield "labels", _labels(after.labels)
    if after.description != before.description:
        yield "description", after.description


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _check_extension(
    connection: Connection, grant: Grant, changed: Grant, ceilings: Ceilings, now: int
) -> None:
    if grant.revoked_at is not None:
        raise Conflict(f'grant "{grant.name}" is revoked, which is for good: make a new one')
    resource = access_grant_rows.by_id(connection, grant.id)
    if resource is not None and resource.sealed_code:
        raise Conflict(
            f'grant "{grant.name}" stands for AccessGrant "{resource.name}" in namespace '
            f'"{resource.namespace}", which says how long and how often: change the resource'
        )
    if changed.expires_at < grant.expires_at:
        raise Invalid("expires_at", f"it is {rfc3339(grant.expires_at)} now: only later will do")
    if changed.expires_at != grant.expires_at and changed.expires_at <= now:
        raise Invalid("expires_at", "it is over by then: only a time to come will do")
    if changed.expires_at - grant.created_at > LONGEST_WINDOW:
        raise Invalid("expires_at", "expected a century at most")
    if changed.allowed < grant.allowed:
        raise Invalid("redemptions", f"it is {grant.allowed} now: only more will do")
    check_ceilings(
        ceilings,
        window_seconds=(
            changed.expires_at - grant.created_at if changed.expires_at != grant.expires_at else 0
        ),
        redemptions=changed.allowed if changed.allowed != grant.allowed else 0,
        policy=None,
    )


def _held(
    connection: Connection, name: str, site: str | None, check: Callable[[Grant], None] | None
) -> Grant:
    """Find a grant that stays as it is until the transaction ends, and have it checked."""
    found = named(connection, name, site)
    grant = grant_rows.locked(connection, found.id)
    if grant is None:
        raise Missing("grant", name)
    if check is not None:
        check(grant)
    return grant


def named(connection: Connection, name: str, site: str | None) -> Grant:
    """The grant of this name or id; raises as `show` does."""
    # First by id: nobody chooses that, and a name may be made to look like it.
    by_id = grant_rows.by_id(connection, name)
    if by_id is not None and site in {None, by_id.site}:
        return by_id
    found = grant_rows.matching(connection, name=kept_name(name), site=site)
    if not found:
        raise Missing("grant", name)
    if len(found) > 1:
        sites = ", ".join(sorted(grant.site for grant in found))
        raise Invalid("site", f'sites {sites} each have a grant "{name}": say which')
    return found[0]


def _site(sites: Sequence[Site], name: str | None) -> str:
    if name is not None:
        if all(site.name != name for site in sites):
            raise Missing("site", name)
        return name
    if len(sites) != 1:
        names = ", ".join(site.name for site in sites)
        raise Invalid(
            "site",
            f"say which one: {names}"
            if sites
            else "there is none yet: make one with `grantserver site set`",
        )
    return sites[0].name
