"""Listening sites: set, listed, removed."""

from collections.abc import Callable, Sequence

from app.domain.audit import Act, Entry
from app.domain.authorities import Authority, can_sign_for_sites
from app.domain.names import check_name
from app.domain.sites import Endpoint, Site, in_stable_order
from app.errors import Conflict, Invalid, Missing
from app.services.authorities import DEFAULT_SITE_AUTHORITY
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store import sites as site_rows
from app.store.engine import Database


def put(
    database: Database,
    *,
    name: str,
    endpoints: Sequence[Endpoint],
    issuer: str | None,
    actor: str,
    now: int,
    check: Callable[[Site | None], None] | None = None,
) -> Site:
    """Make a site, or replace endpoints and authority of the one of this name.

    Without `issuer`, a site keeps the authority that it has, and a new one gets the default
    one (or the only one). `check` is called with the site as it stands, None where there is none,
    and raises to prevent it. Raises Invalid when a name is bad or the authority cannot be chosen.
    """
    check_name("site", name)
    wanted = in_stable_order(endpoints)
    with database.writing() as connection:
        known = site_rows.by_name(connection, name)
        if check is not None:
            check(known)
        _check_is_ours(known)
        chosen = _choose(
            authority_rows.every(connection), issuer or (known.issuer if known else None)
        )
        site_rows.put(connection, name=name, issuer_id=chosen.id, wanted=wanted, now=now)
        audit_rows.add(
            connection,
            Entry(
                at=now,
                act=Act.SITE_SET,
                actor=actor,
                target=f"site/{name}",
                details={
                    "issuer": chosen.name,
                    "endpoints": ", ".join(
                        f"{one.group} {one.role}={one.host}:{one.port}" for one in wanted
                    ),
                },
            ),
        )
        site = site_rows.by_name(connection, name)
    if site is None:
        raise Missing("site", name)
    return site


def every(database: Database) -> Sequence[Site]:
    """All sites, by name."""
    with database.reading() as connection:
        return site_rows.every(connection)


def show(database: Database, name: str) -> Site:
    """The site of this name. Raises Missing."""
    with database.reading() as connection:
        site = site_rows.by_name(connection, name)
    if site is None:
        raise Missing("site", name)
    return site


def remove(
    database: Database,
    *,
    name: str,
    actor: str,
    now: int,
    check: Callable[[Site | None], None] | None = None,
) -> None:
    """Remove a site; `check` is as for `put`.

    Raises Missing, and Conflict while grants lead to it.
    """
    with database.writing() as connection:
        known = site_rows.by_name(connection, name)
        if check is not None:
            check(known)
        _check_is_ours(known)
        leading = site_rows.grants_of(connection, name)
        if leading:
            grants = "1 grant leads" if leading == 1 else f"{leading} grants lead"
            them = "it" if leading == 1 else "them"
            raise Conflict(f'{grants} to site "{name}": remove {them} first')
        if not site_rows.remove(connection, name):
            raise Missing("site", name)
        audit_rows.add(
            connection,
            Entry(at=now, act=Act.SITE_REMOVED, actor=actor, target=f"site/{name}"),
        )


def _check_is_ours(site: Site | None) -> None:
    if site is not None and site.origin is not None:
        raise Conflict(
            f'site "{site.name}" stands for the namespace of this name: change its Site resource'
        )


def _choose(authorities: Sequence[Authority], name: str | None) -> Authority:
    signing = {one.name: one for one in authorities if can_sign_for_sites(one)}
    if name is None:
        ours = [one.name for one in signing.values() if one.origin is None]
        name = DEFAULT_SITE_AUTHORITY if len(ours) != 1 else ours[0]
    if name not in signing:
        raise Invalid(
            "issuer",
            f'no site authority "{name}": choose one of {", ".join(signing) or "none"}',
        )
    return signing[name]
