"""Rows of sites and their endpoints. The caller holds the transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select, update

from app.domain.sites import Endpoint, Role, Site
from app.store.schema import authorities, endpoints, grants, sites


def put(
    connection: Connection,
    *,
    name: str,
    issuer_id: int,
    wanted: Sequence[Endpoint],
    now: int,
) -> None:
    """Insert the site, or replace issuer and endpoints of the one of this name."""
    revised = connection.execute(
        update(sites)
        .where(sites.c.name == name)
        .values(issuer_id=issuer_id, revision=sites.c.revision + 1)
        .returning(sites.c.id)
    ).scalar()
    if revised is None:
        revised = connection.execute(
            insert(sites)
            .values(name=name, issuer_id=issuer_id, revision=1, created_at=now)
            .returning(sites.c.id)
        ).scalar_one()
    connection.execute(delete(endpoints).where(endpoints.c.site_id == revised))
    if wanted:
        connection.execute(
            insert(endpoints),
            [
                {
                    "site_id": revised,
                    "position": position,
                    "role": endpoint.role.value,
                    "host": endpoint.host,
                    "port": endpoint.port,
                    "group_name": endpoint.group,
                }
                for position, endpoint in enumerate(wanted)
            ],
        )


def every(connection: Connection) -> Sequence[Site]:
    """All sites, in the order of their names."""
    return _sites(connection, None)


def by_name(connection: Connection, name: str) -> Site | None:
    """The site of this name."""
    found = _sites(connection, name)
    return found[0] if found else None


def of_namespaces(connection: Connection) -> frozenset[str]:
    """The names of all sites that stand for a namespace."""
    return frozenset(
        connection.execute(select(sites.c.name).where(sites.c.origin.is_not(None))).scalars()
    )


def endpoints_of(connection: Connection, site_id: int) -> tuple[Endpoint, ...]:
    """The endpoints of a site, in their stable order."""
    rows = connection.execute(
        select(endpoints).where(endpoints.c.site_id == site_id).order_by(endpoints.c.position)
    )
    return tuple(
        Endpoint(role=Role(row.role), host=row.host, port=row.port, group=row.group_name)
        for row in rows
    )


def grants_of(connection: Connection, name: str) -> int:
    """How many grants lead to the site of this name."""
    return connection.execute(
        select(func.count())
        .select_from(grants.join(sites, grants.c.site_id == sites.c.id))
        .where(sites.c.name == name)
    ).scalar_one()


def remove(connection: Connection, name: str) -> bool:
    """Delete the site; tells whether there was one. Conflicts while grants lead to it."""
    return connection.execute(delete(sites).where(sites.c.name == name)).rowcount > 0


def _sites(connection: Connection, name: str | None) -> list[Site]:
    query = select(sites, authorities.c.name.label("issuer")).join(
        authorities, sites.c.issuer_id == authorities.c.id
    )
    if name is not None:
        query = query.where(sites.c.name == name)
    return [
        Site(
            id=row.id,
            name=row.name,
            issuer=row.issuer,
            endpoints=endpoints_of(connection, row.id),
            revision=row.revision,
            created_at=row.created_at,
            origin=row.origin,
        )
        for row in connection.execute(query.order_by(sites.c.name)).all()
    ]
