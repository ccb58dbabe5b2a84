from collections.abc import Iterator
from pathlib import Path

import pytest

from app.api.problems import Kind
from app.cli.administration import Wanted
from app.cli.remote import Remote
from app.errors import Invalid, Missing, Unavailable
from app.services.grants import Wish
from tests.client.servers import Misbehaving, answer, misbehaving, problem
from tests.client.test_client import GRANT, MADE, SITE

WISH = Wish(name="lab", site="west", redemptions=1, window_seconds=600, cost=1)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Misbehaving]:
    with misbehaving(tmp_path) as made:
        yield made


@pytest.fixture
def remote(there: Misbehaving) -> Remote:
    return Remote(there.client())


def page(*items: object) -> bytes:
    return answer(body={"items": items, "next": None})


def test_a_grant_is_found_by_its_whole_name(there: Misbehaving, remote: Remote) -> None:
    there.answers += [page(GRANT | {"name": "lab-2"}, GRANT), answer(204)]
    assert remote.remove_grant("lab", "west").name == "lab"
    assert "name_prefix=lab" in there.asked[0].path
    assert "site=west" in there.asked[0].path


def test_one_whose_name_has_dots_is_found_too(there: Misbehaving, remote: Remote) -> None:
    there.answers += [page(GRANT | {"name": "lab.one"}, GRANT), answer(204)]
    assert remote.remove_grant("lab.one", None).name == "lab.one"


def test_a_name_of_two_sites_has_to_be_told_apart(there: Misbehaving, remote: Remote) -> None:
    there.answers += [page(GRANT, GRANT | {"site": "east"})]
    with pytest.raises(Invalid, match='sites east, west each have a grant "lab"'):
        remote.remove_grant("lab", None)


def test_an_id_of_another_site_is_a_name_at_most(there: Misbehaving, remote: Remote) -> None:
    there.answers += [answer(body=GRANT), page()]
    with pytest.raises(Missing):
        remote.remove_grant(str(GRANT["id"]), "east")


def test_a_name_that_no_grant_has_is_not_asked_for(there: Misbehaving, remote: Remote) -> None:
    with pytest.raises(Missing):
        remote.remove_grant("_", None)
    assert not there.asked


def test_a_grant_without_a_token_is_taken_back(there: Misbehaving, remote: Remote) -> None:
    there.answers += [answer(201, MADE), answer(204)]
    with pytest.raises(Unavailable):
        remote.create_grant(WISH)
    assert [one.method for one in there.asked] == ["POST", "DELETE"]


def test_whoever_may_not_delete_revokes_what_is_taken_back(
    there: Misbehaving, remote: Remote, capsys: pytest.CaptureFixture[str]
) -> None:
    there.answers += [answer(201, MADE), problem(Kind.FORBIDDEN), problem(Kind.FORBIDDEN)]
    with pytest.raises(Unavailable):
        remote.create_grant(WISH)
    assert there.asked[-1].path.endswith("/revoke")
    assert "revoke it" in capsys.readouterr().err


def test_endpoints_that_are_kept_are_those_that_were_seen(
    there: Misbehaving, remote: Remote
) -> None:
    endpoint = {"role": "edge", "host": "a.example.com", "port": 1, "group": "x"}
    seen = SITE | {"endpoints": [endpoint]}
    there.answers += [answer(body=seen, headers='ETag: "a"\r\n'), problem(Kind.STALE)]
    with pytest.raises(Exception, match="it is so"):
        remote.set_site("west", [], "other-ca")
    assert there.asked[-1].headers["If-Match"] == '"a"'


@pytest.mark.parametrize(("field", "value"), [("act", "later.act"), ("at", "soon")])
def test_what_a_later_release_says_is_told_apart(
    there: Misbehaving, remote: Remote, field: str, value: str
) -> None:
    entry = {"id": 1, "at": "2026-11-23T10:00:00Z", "act": "grant.created", "actor": "cli:root"}
    there.answers += [page(entry | {"target": "grant/x", "details": {}, field: value})]
    wanted = Wanted(limit=5, target=None, act=None, actor=None, since=None, until=None)
    with pytest.raises(Invalid) as caught:
        remote.entries(wanted)
    assert caught.value.field == "server"


def test_a_server_without_an_address_is_unavailable(there: Misbehaving, remote: Remote) -> None:
    info = {
        "version": "1",
        "caller": {"kind": "token", "name": "ci", "verbs": None, "sites": None},
        "reach": {"url": None, "ca": None, "waiting": "for a load balancer"},
        "ceilings": {"window": None, "redemptions": None, "lifetime": None},
    }
    there.answers += [answer(body=info)]
    with pytest.raises(Unavailable, match="for a load balancer"):
        remote.reach()


def test_grants_of_one_second_are_listed_by_their_names(there: Misbehaving, remote: Remote) -> None:
    there.answers += [page(GRANT | {"name": "b"}, GRANT | {"name": "a"})]
    assert [one.grant.name for one in remote.grants(None)] == ["a", "b"]
