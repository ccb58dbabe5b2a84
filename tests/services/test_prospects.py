from collections.abc import Callable

import pytest
from sqlalchemy import delete, update

from app.domain.grants import Grant
from app.domain.prospects import Obstacle
from app.services.prospects import in_the_way
from app.store import schema
from tests.builders import Stand


@pytest.fixture
def grant(stand: Stand) -> Grant:
    stand.set_site()
    return stand.make_grant().grant


def obstacles(stand: Stand, grant: Grant, now: int | None = None) -> list[Obstacle]:
    with stand.database.reading() as connection:
        found = in_the_way(connection, grant, now=now or stand.clock.now, peer="192.0.2.7")
    assert all(one.why for one in found)
    return [one.obstacle for one in found]


def without_endpoints(stand: Stand) -> None:
    with stand.database.writing() as connection:
        connection.execute(delete(schema.endpoints))


def without_keys(stand: Stand) -> None:
    with stand.database.writing() as connection:
        connection.execute(update(schema.authorities).values(sealed_key=b""))


def with_what_has_ended(stand: Stand) -> None:
    with stand.database.writing() as connection:
        connection.execute(update(schema.authorities).values(not_after=stand.clock.now - 1))


def test_nothing_is_in_the_way_of_a_grant_that_can_be_redeemed(stand: Stand, grant: Grant) -> None:
    assert obstacles(stand, grant) == []


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (without_endpoints, Obstacle.NO_ENDPOINTS),
        (without_keys, Obstacle.NO_ISSUER),
        (with_what_has_ended, Obstacle.NO_ISSUER),
    ],
)
def test_what_the_site_lacks_is_in_the_way(
    stand: Stand, grant: Grant, spoil: Callable[[Stand], None], found: Obstacle
) -> None:
    spoil(stand)
    assert obstacles(stand, grant) == [found]


def test_what_is_wrong_with_the_grant_comes_before_what_its_site_lacks(
    stand: Stand, grant: Grant
) -> None:
    without_endpoints(stand)
    assert obstacles(stand, grant, now=grant.expires_at) == [
        Obstacle.EXPIRED,
        Obstacle.NO_ENDPOINTS,
    ]
