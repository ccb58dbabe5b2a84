"""What stands between a grant and its next claim, the listening site included."""

from collections.abc import Iterator, Sequence

from app.domain.grants import Grant
from app.domain.prospects import Hindrance, Obstacle, hindrances
from app.store import authorities as authority_rows
from app.store import sites as site_rows
from app.store.engine import Connection


def in_the_way(
    connection: Connection, grant: Grant, *, now: int, peer: str | None = None
) -> Sequence[Hindrance]:
    """Tell all that a claim would be refused for now; `peer` is as for the domain's `hindrances`.

    Whether the key of the authority can be opened is not tried.
    """
    return (*hindrances(grant, now=now, peer=peer), *_of_site(connection, grant, now))


def _of_site(connection: Connection, grant: Grant, now: int) -> Iterator[Hindrance]:
    site = site_rows.by_name(connection, grant.site)
    if site is None or not site.endpoints:
        yield Hindrance(obstacle=Obstacle.NO_ENDPOINTS, why="its site has no endpoints yet")
    name = grant.issuer or (None if site is None else site.issuer)
    issuer = None if name is None else authority_rows.by_name(connection, name)
    if issuer is None or not issuer.sealed_key:
        yield Hindrance(obstacle=Obstacle.NO_ISSUER, why="its site has no authority that can sign")
    elif not issuer.not_before <= now <= issuer.not_after:
        yield Hindrance(
            obstacle=Obstacle.NO_ISSUER, why="the authority of its site is not valid at this time"
        )
