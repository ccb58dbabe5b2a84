from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.administration import Wanted
from app.cli.local import Local
from app.cli.opening import actor
from app.domain.sites import parse_endpoint
from app.errors import Missing
from app.home import open_home
from app.services.grants import Wish
from app.settings import load
from tests.running import environment

WISH = Wish(name="lab", site=None, redemptions=1, window_seconds=600, cost=1)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    home = open_home(load(environment(tmp_path)))
    made = Local(home)
    made.set_site("west", [parse_endpoint("edge=west.example.com:45671")], None)
    yield made
    home.database.close()


def test_what_is_done_is_noted_under_the_user_of_the_process(local: Local) -> None:
    local.create_grant(WISH)
    every = Wanted(limit=50, target=None, act="grant", actor=None, since=None, until=None)
    assert [one.actor for one in local.entries(every)] == [actor()]


def test_a_token_carries_the_code_of_its_grant(local: Local) -> None:
    made = local.create_grant(WISH)
    assert made.code in made.token
    assert local.grant("lab", None).seen.grant == made.grant


def test_a_grant_that_is_withdrawn_is_not_there(local: Local) -> None:
    local.withdraw_grant(local.create_grant(WISH).grant)
    with pytest.raises(Missing):
        local.grant("lab", "west")


def test_a_site_that_is_set_without_endpoints_keeps_its_own(local: Local) -> None:
    before = local.site("west")
    assert local.set_site("west", [], None).endpoints == before.endpoints
    with pytest.raises(Missing):
        local.set_site("east", [], None)
