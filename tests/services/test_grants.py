import re
import traceback
import uuid
from dataclasses import replace
from typing import Any

import pytest
import yaml

from app import ambient
from app.domain import codes
from app.domain.audit import Act
from app.domain.grants import Filter, Grant, Sort
from app.domain.policies import NO_CEILINGS, Ceilings, Policy
from app.domain.reach import Reach
from app.errors import Conflict, GrantServerError, Invalid, Missing
from app.services import audit, authorities, grants
from app.services.grants import Change
from app.store import audit as audit_rows
from app.store import grants as grant_rows
from tests.builders import CODE, GRANT_ID, NOW, PEM, WINDOW, Stand, a_wish
from tests.services.clusters import a_cluster, a_secret, admit, put, sign
from tests.services.renewals import redeem as redeem_with_key


@pytest.fixture
def west(stand: Stand) -> Stand:
    stand.set_site()
    return stand


def acts(stand: Stand, grant: Grant) -> list[Act]:
    return [one.act for one in audit.latest(stand.database, limit=99, target=f"grant/{grant.id}")]


def test_a_grant_is_made_as_it_was_wished(west: Stand) -> None:
    authorities.create(
        west.database,
        west.keyring,
        name="other-ca",
        actor="cli:test",
        now=NOW,
        random_bytes=ambient.random_bytes,
    )
    issued = west.make_grant(redemptions=7, window_seconds=60, cost=99999, issuer="other-ca")
    grant = issued.grant
    assert issued.code == CODE
    assert uuid.UUID(grant.id).version == 7
    assert uuid.UUID(grant.id).int >> 80 == NOW * 1000
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", grant.id)
    assert (grant.name, grant.site, grant.issuer) == ("to-west", "west", "other-ca")
    assert (grant.allowed, grant.spent, grant.cost) == (7, 0, 99999)
    assert (grant.created_at, grant.expires_at, grant.revoked_at) == (NOW, NOW + 60, None)
    assert grants.show(west.database, "to-west") == (grant, [])
    codes.check(CODE.encode(), grant.concealed_code, west.code_keys)
    (entry,) = audit.latest(west.database, limit=9, target=f"grant/{grant.id}")
    assert (entry.act, entry.actor, entry.at) == (Act.GRANT_CREATED, "cli:test", NOW)
    assert entry.details == {
        "name": "to-west", "site": "west", "issuer": "other-ca", "cost": 99999, "allowed": 7,
        "expires_at": NOW + 60,
    }  # fmt: skip


def test_without_a_code_one_is_made_and_shown_nowhere(west: Stand) -> None:
    issued = west.make_grant(code=None)
    assert len(issued.code) == 24
    assert issued.code != west.make_grant(name="other", code=None).code
    codes.check(issued.code.encode(), issued.grant.concealed_code, west.code_keys)
    assert issued.code not in repr(issued)
    assert CODE not in repr(a_wish(code=CODE))
    west.database.close()
    for path in west.database.sqlite.path.parent.glob("grantserver.db*"):
        assert issued.code.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "To-West"}, "name"),
        ({"name": ""}, "name"),
        ({"redemptions": 0}, "redemptions"),
        ({"redemptions": 1_000_001}, "redemptions"),
        ({"cost": 0}, "cost"),
        ({"cost": 2**31}, "cost"),
        ({"window_seconds": 0}, "window"),
        ({"window_seconds": -60}, "window"),
        ({"code": ""}, "code"),
        ({"code": "short"}, "code"),
        ({"issuer": "nobody"}, "issuer"),
        ({"issuer": "server-ca"}, "issuer"),
    ],
)
def test_a_wish_that_cannot_be_met_names_the_field(
    west: Stand, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        west.make_grant(**changes)
    assert refused.value.field == field
    assert grants.every(west.database) == []


def test_the_only_site_need_not_be_named(west: Stand) -> None:
    assert west.make_grant(site=None).grant.site == "west"


def test_of_several_sites_one_must_be_named(west: Stand) -> None:
    west.set_site("south")
    with pytest.raises(Invalid, match="south, west") as refused:
        west.make_grant(site=None)
    assert refused.value.field == "site"


def test_without_a_site_it_says_how_to_make_one(stand: Stand) -> None:
    with pytest.raises(Invalid, match="grantserver site set") as refused:
        stand.make_grant(site=None)
    assert refused.value.field == "site"
    with pytest.raises(Missing, match='no site "west"'):
        stand.make_grant()


def test_a_name_is_given_once_in_a_site_and_once_in_each(west: Stand) -> None:
    first = west.make_grant().grant
    with pytest.raises(Conflict, match="remove it first"):
        west.make_grant()
    west.set_site("south")
    second = west.make_grant(site="south").grant
    assert {grant.id for grant in grants.every(west.database)} == {first.id, second.id}
    assert grants.every(west.database, site="south") == [second]
    assert grants.every(west.database, site="nowhere") == []


def test_a_grant_is_found_by_name_or_id_and_of_several_by_site(west: Stand) -> None:
    west.set_site("south")
    first, second = west.make_grant().grant, west.make_grant(site="south").grant
    with pytest.raises(Invalid, match="south, west") as refused:
        grants.show(west.database, "to-west")
    assert refused.value.field == "site"
    assert grants.show(west.database, "to-west", site="west")[0] == first
    assert grants.show(west.database, second.id)[0] == second
    assert grants.show(west.database, second.id, site="south")[0] == second
    for name, site in ((second.id, "west"), ("x", None), ("to-west", "x"), ("", None)):
        with pytest.raises(Missing):
            grants.show(west.database, name, site=site)


def test_text_that_is_no_unicode_is_refused_and_no_crash(west: Stand) -> None:
    with pytest.raises(GrantServerError):
        grants.show(west.database, "\udcff")


def test_a_grant_is_revoked_once(west: Stand) -> None:
    grant = west.make_grant().grant
    for now in (NOW + 1, NOW + 2):
        revoked = grants.revoke(west.database, "to-west", actor="cli:test", now=now)
        assert (revoked.grant.revoked_at, revoked.certificates) == (NOW + 1, 0)
    assert acts(west, grant) == [Act.GRANT_CREATED, Act.GRANT_REVOKED]
    assert grants.show(west.database, grant.id)[0].revoked_at == NOW + 1


def test_a_grant_that_is_named_as_another_is_identified_is_not_taken_for_it(west: Stand) -> None:
    grant = west.make_grant().grant
    namesake = west.make_grant(name=grant.id).grant
    revoked = grants.revoke(west.database, "to-west", actor="cli:test", now=NOW).grant
    assert revoked.id == grant.id
    assert grants.show(west.database, namesake.id)[0].revoked_at is None


def test_a_grant_is_removed_and_the_audit_log_keeps_it(west: Stand) -> None:
    grant = west.make_grant().grant
    west.make_grant(name="other")
    assert grants.remove(west.database, "to-west", actor="cli:test", now=NOW) == grant
    assert [one.name for one in grants.every(west.database)] == ["other"]
    assert acts(west, grant) == [Act.GRANT_CREATED, Act.GRANT_REMOVED]
    last = audit.latest(west.database, limit=1)[0]
    assert last.details == {"name": "to-west", "site": "west", "spent": 0}
    for act in (grants.remove, grants.revoke):
        with pytest.raises(Missing):
            act(west.database, "to-west", actor="cli:test", now=NOW)


def test_the_grant_of_a_resource_is_removed_when_that_is_gone(stand: Stand) -> None:
    cluster = a_cluster(stand)
    put(cluster)
    known = admit(cluster, name="n" * 99)
    names = ("n" * 99, known.grant.name, GRANT_ID)
    for name in names:
        assert grants.show(stand.database, name)[0] == known.grant
        with pytest.raises(Conflict, match="delete the resource, or revoke"):
            grants.remove(stand.database, name, actor="cli:test", now=NOW)
    assert grants.resources(stand.database) == {GRANT_ID: ("west", "n" * 99)}
    assert grants.resource_of(stand.database, GRANT_ID) == ("west", "n" * 99)
    revoked = grants.revoke(stand.database, "n" * 99, site="west", actor="cli:test", now=NOW)
    assert revoked.grant.revoked_at == NOW
    with pytest.raises(Conflict):
        grants.remove(stand.database, GRANT_ID, actor="cli:test", now=NOW)
    cluster.revoke("west", "n" * 99)
    assert grants.resource_of(stand.database, GRANT_ID) == ("west", "n" * 99)
    grants.remove(stand.database, "n" * 99, actor="cli:test", now=NOW)
    assert grants.every(stand.database) == []
    assert grants.resources(stand.database) == {}


def test_a_grant_that_was_made_here_is_of_no_resource(west: Stand) -> None:
    grant = west.make_grant().grant
    assert grants.resources(west.database) == {}
    assert grants.resource_of(west.database, grant.id) is None
    assert grants.resource_of(west.database, "x") is None


def test_a_grant_may_lead_to_a_namespace_but_not_be_signed_by_a_ca_that_is_gone(
    stand: Stand,
) -> None:
    cluster = a_cluster(stand)
    gone, signing = (sign(cluster, "west", a_secret()) for _ in range(2))
    put(cluster, "west", signing)
    cluster.forget_unused_keys()
    names = {one.id: one.name for one in authorities.every(stand.database)}
    assert stand.make_grant(site=None).grant.site == "west"
    assert stand.make_grant(name="own", issuer=names[signing]).grant.issuer == names[signing]
    for name in (names[gone], "(none)"):
        with pytest.raises(Invalid) as refused:
            stand.make_grant(name="another", issuer=name)
        assert refused.value.field == "issuer"


def test_every_act_is_one_transaction_with_its_audit_row(
    west: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = west.make_grant().grant

    def fail(*_: object) -> None:
        raise GrantServerError

    monkeypatch.setattr(audit_rows, "add", fail)
    with pytest.raises(GrantServerError):
        west.make_grant(name="other")
    with pytest.raises(GrantServerError):
        grants.revoke(west.database, "to-west", actor="cli:test", now=NOW)
    with pytest.raises(GrantServerError):
        grants.remove(west.database, "to-west", actor="cli:test", now=NOW)
    assert grants.every(west.database) == [grant]


def test_the_code_shows_in_no_error(west: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    west.make_grant()
    # As if another process had made the grant between the question and the insert.
    monkeypatch.setattr(grant_rows, "matching", lambda *_, **__: [])
    with pytest.raises(Conflict) as conflict:
        west.make_grant()
    shown = "".join(traceback.format_exception(conflict.value))
    assert CODE not in shown
    assert "hmac-sha256" not in shown


@pytest.mark.parametrize(("redemptions", "times"), [(1, "Good once"), (3, "Good 3 times")])
def test_the_token_carries_all_that_is_needed_and_says_how_long_it_is_good(
    west: Stand, redemptions: int, times: str
) -> None:
    issued = west.make_grant(redemptions=redemptions, cost=5)
    reach = Reach(url="https://[2001:db8::1]:9090", ca_pem=PEM)
    text = grants.token(issued, reach, NOW)
    assert f"# {times}, until 2026-09-21T14:38:20Z (25m from when it was issued).\n" in text
    assert "# Links a site to west. Keep it secret" in text
    assert yaml.safe_load(text) == {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "AccessToken",
        "metadata": {"name": "to-west"},
        "spec": {
            "url": f"https://[2001:db8::1]:9090/{issued.grant.id}",
            "code": CODE,
            "linkCost": 5,
            "ca": PEM,
        },
    }
    assert issued.grant.expires_at == NOW + WINDOW


def test_with_a_grant_every_certificate_of_it_is_revoked(west: Stand) -> None:
    grant = west.make_grant(redemptions=3).grant
    for subject in ("a", "b"):
        redeem_with_key(west, grant, subject=subject)
    other = west.make_grant(name="other").grant
    redeem_with_key(west, other)
    revoked = grants.revoke(west.database, "to-west", actor="cli:test", now=NOW + 1)
    assert revoked.certificates == 2
    given = grants.certificates(west.database, grant.id)
    assert [one.revoked_at for one in given] == [NOW + 1] * 2
    assert [one.revoked_at for one in grants.certificates(west.database, other.id)] == [None]
    # Done again, it changes nothing, and does what was not done before it meant that.
    assert grants.revoke(west.database, "to-west", actor="cli:test", now=NOW + 9).certificates == 0
    last = audit.latest(west.database, limit=1, target=f"grant/{grant.id}")[0]
    assert (last.act, last.at) == (Act.GRANT_CERTIFICATES_REVOKED, NOW + 1)
    assert last.details["certificates"] == 2


def test_one_redemption_is_revoked_and_the_grant_goes_on(west: Stand) -> None:
    grant = west.make_grant(redemptions=3).grant
    for subject in ("a", "b"):
        redeem_with_key(west, grant, subject=subject)
    revoked = grants.revoke_redemption(west.database, "to-west", 2, actor="cli:test", now=NOW + 1)
    assert (revoked.grant.revoked_at, revoked.certificates) == (None, 1)
    given = grants.certificates(west.database, grant.id)
    assert [one.revoked_at for one in given] == [None, NOW + 1]
    last = audit.latest(west.database, limit=1)[0]
    assert (last.act, last.details["ordinal"]) == (Act.CERTIFICATE_REVOKED, 2)
    again = grants.revoke_redemption(west.database, "to-west", 2, actor="cli:test", now=NOW + 9)
    assert again.certificates == 0
    assert audit.latest(west.database, limit=1)[0] == last
    with pytest.raises(Missing, match='no redemption of grant "to-west" "3"'):
        grants.revoke_redemption(west.database, "to-west", 3, actor="x", now=NOW)
    with pytest.raises(Invalid, match="the first one has number 1"):
        grants.revoke_redemption(west.database, "to-west", 0, actor="x", now=NOW)


POLICY = Policy(subjects=("east-*",), networks=("10.0.0.0/8",), lifetime_seconds=600, per_subject=1)


def test_a_grant_is_made_with_all_that_was_wished_and_the_audit_log_says_so(west: Stand) -> None:
    grant = west.make_grant(
        policy=POLICY, not_before=NOW + 60, labels={"team": "ops"}, description="For the lab"
    ).grant
    assert grants.show(west.database, grant.id)[0] == grant
    assert (grant.policy, grant.not_before) == (POLICY, NOW + 60)
    (entry,) = audit.latest(west.database, limit=9, target=f"grant/{grant.id}")
    assert entry.details["policy"] == (
        '{"subjects":["east-*"],"networks":["10.0.0.0/8"],"lifetime":600,"perSubject":1}'
    )
    assert entry.details["not_before"] == NOW + 60
    assert entry.details["labels"] == "team=ops"
    assert entry.details["description"] == "For the lab"


def test_a_policy_that_asks_for_nothing_is_none(west: Stand) -> None:
    assert west.make_grant(policy=Policy()).grant.policy is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"policy": Policy(networks=("x",))}, "networks"),
        ({"labels": {"a b": ""}}, "labels"),
        ({"description": "\0"}, "description"),
        ({"not_before": NOW + WINDOW}, "not_before"),
        ({"window_seconds": 3601}, "window"),
        ({"redemptions": 11}, "redemptions"),
        ({"policy": Policy(lifetime_seconds=7201)}, "lifetime"),
    ],
)
def test_a_wish_beyond_what_the_server_allows_makes_no_grant(
    west: Stand, changes: Any, field: str
) -> None:
    with pytest.raises(Invalid) as invalid:
        grants.create(
            west.database,
            a_wish(**changes),
            code_keys=west.code_keys,
            actor="cli:test",
            now=NOW,
            random_bytes=ambient.random_bytes,
            ceilings=CEILINGS,
        )
    assert invalid.value.field == field
    assert grants.every(west.database) == []


CEILINGS = Ceilings(window_seconds=3600, redemptions=10, lifetime_seconds=7200)


def change(stand: Stand, wanted: Change, **options: Any) -> Grant:
    given: dict[str, Any] = {"actor": "cli:test", "now": NOW + 5, "ceilings": CEILINGS}
    return grants.change(stand.database, "to-west", wanted, **(given | options))


def test_a_grant_is_extended_and_the_audit_log_says_from_what(west: Stand) -> None:
    grant = west.make_grant().grant
    changed = grants.extend(
        west.database,
        "to-west",
        expires_at=NOW + 3600,
        allowed=10,
        actor="cli:test",
        now=NOW + 5,
        ceilings=CEILINGS,
    )
    assert (changed.expires_at, changed.allowed) == (NOW + 3600, 10)
    assert grants.show(west.database, grant.id)[0] == changed
    entry = audit.latest(west.database, limit=1, target=f"grant/{grant.id}")[0]
    assert (entry.act, entry.at) == (Act.GRANT_EXTENDED, NOW + 5)
    assert entry.details == {
        "name": "to-west", "site": "west", "spent": 0, "expires_at": NOW + 3600,
        "expired_at_before": NOW + WINDOW, "allowed": 10, "allowed_before": 2,
    }  # fmt: skip


def test_labels_and_description_are_changed_and_the_rest_stays(west: Stand) -> None:
    grant = west.make_grant(policy=POLICY, labels={"a": "b"}, description="old").grant
    changed = change(west, Change(labels={}, description="new"))
    assert changed == replace(grant, labels={}, description="new")
    assert grants.show(west.database, grant.id)[0] == changed
    entry = audit.latest(west.database, limit=1, target=f"grant/{grant.id}")[0]
    assert entry.act is Act.GRANT_CHANGED
    assert (entry.details["labels"], entry.details["description"]) == ("", "new")
    assert "expires_at" not in entry.details


def test_what_is_so_already_is_not_written(west: Stand) -> None:
    grant = west.make_grant(labels={"a": "b"}).grant
    wanted = Change(labels={"a": "b"}, description="", expires_at=grant.expires_at, allowed=2)
    assert change(west, wanted) == grant
    assert acts(west, grant) == [Act.GRANT_CREATED]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (Change(expires_at=NOW + WINDOW - 1), "expires_at"),
        (Change(expires_at=NOW + 3601), "window"),
        (Change(expires_at=NOW + 2**40), "expires_at"),
        (Change(allowed=1), "redemptions"),
        (Change(allowed=11), "redemptions"),
        (Change(allowed=0), "redemptions"),
        (Change(labels={"-": ""}), "labels"),
        (Change(description="a" * 1001), "description"),
    ],
)
def test_a_grant_is_made_neither_less_nor_more_than_the_server_allows(
    west: Stand, wanted: Change, field: str
) -> None:
    grant = west.make_grant().grant
    with pytest.raises(Invalid) as invalid:
        change(west, wanted)
    assert invalid.value.field == field
    assert grants.show(west.database, grant.id)[0] == grant
    assert acts(west, grant) == [Act.GRANT_CREATED]


def test_an_expired_grant_is_opened_again_but_not_into_the_past(west: Stand) -> None:
    west.make_grant()
    now = NOW + WINDOW + 100
    with pytest.raises(Invalid, match="time to come"):
        change(west, Change(expires_at=now - 50), now=now, ceilings=NO_CEILINGS)
    assert change(west, Change(expires_at=now + 1), now=now, ceilings=NO_CEILINGS).expires_at > now


def test_what_was_made_before_there_was_a_ceiling_can_be_described_all_the_same(
    west: Stand,
) -> None:
    west.make_grant(window_seconds=9999, redemptions=99)
    assert change(west, Change(description="x")).description == "x"
    assert change(west, Change(description="y"), ceilings=Ceilings(redemptions=1)).description


def test_a_revoked_grant_stays_so(west: Stand) -> None:
    west.make_grant()
    grants.revoke(west.database, "to-west", actor="cli:test", now=NOW)
    with pytest.raises(Conflict, match="revoked"):
        change(west, Change(allowed=3))
    assert change(west, Change(description="x")).description == "x"


def test_a_grant_of_an_access_grant_is_extended_by_its_resource(stand: Stand) -> None:
    cluster = a_cluster(stand)
    put(cluster, authority_id=sign(cluster, "west", a_secret()))
    admit(cluster)
    with pytest.raises(Conflict, match='AccessGrant "to-west"'):
        change(stand, Change(allowed=3))
    assert change(stand, Change(labels={"a": "b"})).labels == {"a": "b"}


def test_whoever_has_seen_another_state_changes_nothing(west: Stand) -> None:
    grant = west.make_grant().grant
    seen: list[Grant] = []

    def check(found: Grant) -> None:
        seen.append(found)
        raise Conflict("it has changed meanwhile")

    common: Any = {"actor": "cli:test", "now": NOW, "check": check}
    for attempt in (
        lambda: grants.change(west.database, grant.id, Change(allowed=5), **common),
        lambda: grants.revoke(west.database, grant.id, **common),
        lambda: grants.remove(west.database, grant.id, **common),
    ):
        with pytest.raises(Conflict):
            attempt()
    assert seen == [grant] * 3
    assert grants.show(west.database, grant.id)[0] == grant


def test_a_grant_is_ended_without_marking_its_certificates(west: Stand) -> None:
    grant = west.make_grant().grant
    redeem_with_key(west, grant)
    ended = grants.revoke(
        west.database, grant.id, actor="cli:test", now=NOW + 1, certificates=False
    )
    assert (ended.certificates, ended.grant.revoked_at) == (0, NOW + 1)
    assert grants.show(west.database, grant.id)[1][0].revoked_at is None
    marked = grants.revoke(west.database, grant.id, actor="cli:test", now=NOW + 2)
    assert marked.certificates == 1


def test_grants_are_listed_page_by_page(west: Stand) -> None:
    for number in range(5):
        west.make_grant(name=f"g{number}")
    for sort in Sort:
        names: list[str] = []
        page = grants.page(west.database, Filter(), now=NOW, sort=sort, limit=2)
        while page.next is not None:
            names += [one.name for one in page.grants]
            page = grants.page(
                west.database, Filter(), now=NOW, sort=sort, limit=2, after=page.next
            )
        names += [one.name for one in page.grants]
        assert sorted(names) == [f"g{number}" for number in range(5)]
    whole = grants.page(west.database, Filter(), now=NOW, limit=5)
    assert (len(whole.grants), whole.next) == (5, None)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 501}, "limit"),
        ({"after": ("a", "b")}, "after"),
        ({"after": (1, "b"), "sort": Sort.NAME}, "after"),
    ],
)
def test_a_page_is_bounded_and_a_place_belongs_to_its_order(
    west: Stand, options: Any, field: str
) -> None:
    with pytest.raises(Invalid) as invalid:
        grants.page(west.database, Filter(), now=NOW, **options)
    assert invalid.value.field == field
