"""Grants: created with their code, written as tokens, listed, revoked, removed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.domain import codes
from app.domain.access_grants import kept_name
from app.domain.audit import Act, Entry
from app.domain.authorities import can_sign_for_sites
from app.domain.documents import access_token
from app.domain.durations import format_seconds
from app.domain.grants import ID_RANDOM_BYTES, Grant, Redemption, check_redemptions, new_id
from app.domain.names import check_name
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a grant shall be like; `site` None means the only one, `code` None a new one.

    `window_seconds` counts from now; `cost` is what the Link will have.
    """

    name: str
    site: str | None
    redemptions: int
    window_seconds: int
    cost: int
    code: str | None = field(default=None, repr=False)
    issuer: str | None = None


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
) -> Issued:
    """Create a grant.

    Raises Invalid naming the field, Missing for an unknown site, Conflict when the site has a
    grant of this name.
    """
    check_name("name", wish.name)
    check_redemptions(wish.redemptions)
    check_cost(wish.cost)
    if wish.window_seconds < 1:
        raise Invalid("window", "expected at least one second")
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
                },
            ),
        )
    return Issued(grant=grant, code=code)


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
        grant = _one(connection, name, site)
        return grant, grant_rows.redemptions_of(connection, grant.id)


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
    database: Database, name: str, *, site: str | None = None, actor: str, now: int
) -> Revoked:
    """End a grant at once, and revoke every certificate that was given out with it.

    One that was ended before stays so, and its certificates are revoked all the same. Raises as
    `show` does.
    """
    with database.writing() as connection:
        grant = _one(connection, name, site)
        if grant_rows.revoke(connection, grant.id, now):
            _note(connection, Act.GRANT_REVOKED, grant, actor, now)
            grant = replace(grant, revoked_at=now)
        revoked = renewal_rows.revoke(connection, grant.id, now) or 0
        if revoked:
            told: dict[str, str | int | None] = {"certificates": revoked}
            _note(connection, Act.GRANT_CERTIFICATES_REVOKED, grant, actor, now, told)
        return Revoked(grant=grant, certificates=revoked)


def revoke_redemption(
    database: Database, name: str, ordinal: int, *, site: str | None = None, actor: str, now: int
) -> Revoked:
    """Revoke the certificates of one redemption, by its number; the grant stays as it is.

    Raises as `show` does, Invalid("redemption", …), and Missing when there is no such redemption.
    """
    check_ordinal(ordinal)
    with database.writing() as connection:
        grant = _one(connection, name, site)
        revoked = renewal_rows.revoke(connection, grant.id, now, ordinal=ordinal)
        if revoked is None:
            raise Missing(f'redemption of grant "{grant.name}"', str(ordinal))
        if revoked:
            told: dict[str, str | int | None] = {"ordinal": ordinal, "certificates": revoked}
            _note(connection, Act.CERTIFICATE_REVOKED, grant, actor, now, told)
        return Revoked(grant=grant, certificates=revoked)


def remove(
    database: Database, name: str, *, site: str | None = None, actor: str, now: int
) -> Grant:
    """Delete a grant and its redemptions; the audit log keeps both.

    Raises as `show` does, and Conflict while there is an AccessGrant that it stands for.
    """
    with database.writing() as connection:
        grant = _one(connection, name, site)
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


def _one(connection: Connection, name: str, site: str | None) -> Grant:
    found = grant_rows.matching(connection, name=kept_name(name), site=site)
    by_id = grant_rows.by_id(connection, name) if not found else None
    if by_id is not None and site in {None, by_id.site}:
        return by_id
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
