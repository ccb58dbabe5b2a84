from dataclasses import replace
from typing import Any

import pytest

from app.domain.access_grants import Told, read_told
from app.domain.grants import State
from app.domain.reach import Reach
from app.domain.sites import MOST_ENDPOINTS
from app.domain.theft import SuspectedTheft
from app.domain.times import rfc3339
from app.kube.applier import Condition
from app.kube.sites import Site
from app.kube.standing import EDGE, Facts, Standing, standing, theft
from app.services.cluster import Known, Signer
from tests.builders import (
    CODE,
    GRANT_ID,
    NOW,
    PEM,
    WINDOW,
    a_grant,
    a_redemption,
    a_suspicion,
    an_endpoint,
)

SIGNER = Signer(authority_id=7, not_before=NOW - 100, not_after=NOW + 100)
SITE = Site(name="north", edge=False, issuer="skupper-site-ca", endpoints=(an_endpoint(),))
OK = (True, "Ready", "OK")
THEFT = SuspectedTheft(first=a_redemption(), later=(a_suspicion(),))


def a_known(**changes: Any) -> Known:
    made = Known(grant=a_grant(), code=CODE, theft=None, redemptions=())
    return replace(made, **changes)


def facts(**changes: Any) -> Facts:
    made = Facts(
        problem=None,
        site=SITE,
        issuer="skupper-site-ca",
        signer=SIGNER,
        reach=Reach(url="https://grants.example:9090", ca_pem=PEM),
        known=a_known(),
        now=NOW,
    )
    return replace(made, **changes)


def of_grant(*, now: int = NOW, theft: SuspectedTheft | None = None, **changes: Any) -> Standing:
    return standing(facts(known=a_known(grant=a_grant(**changes), theft=theft), now=now))


def said(stands: Standing) -> dict[str, tuple[bool, str, str]]:
    return {one.type: (one.status, one.reason, one.message) for one in stands.conditions}


def test_a_grant_that_can_be_redeemed_is_ready_and_tells_all_that_a_token_needs() -> None:
    stands = standing(facts())
    assert stands.ready
    assert said(stands) == {"Processed": OK, "Resolved": OK, "Ready": OK}
    assert stands.fields == {
        "status": "Ready",
        "message": "OK",
        "code": CODE,
        "redemptions": 0,
        "expirationTime": rfc3339(NOW + WINDOW),
        "url": f"https://grants.example:9090/{GRANT_ID}",
        "ca": PEM,
    }


def test_the_conditions_come_in_one_order() -> None:
    for one in (facts(), facts(problem="bad"), facts(site=None), facts(reach=None)):
        assert [told.type for told in standing(one).conditions] == [
            "Processed",
            "Resolved",
            "Ready",
        ]


def test_a_spec_that_makes_no_sense_is_not_processed() -> None:
    no = (False, "Error", "Invalid duration")
    stands = standing(facts(problem="Invalid duration", known=None))
    assert said(stands) == {"Processed": no, "Resolved": OK, "Ready": no}
    assert stands.fields == {"status": "Error", "message": "Invalid duration"}


def test_an_edge_site_cannot_be_linked_to() -> None:
    stands = standing(facts(site=replace(SITE, edge=True)))
    no = (False, "Error", "Edge sites cannot accept incoming links from remote sites")
    assert no[2] == EDGE
    assert said(stands) == {"Processed": no, "Resolved": OK, "Ready": no}


def test_a_site_with_more_endpoints_than_an_answer_holds_says_what_to_do() -> None:
    most = tuple(an_endpoint(port=1 + number) for number in range(MOST_ENDPOINTS))
    assert standing(facts(site=replace(SITE, endpoints=most))).ready
    stands = standing(facts(site=replace(SITE, endpoints=(*most, an_endpoint(port=9999)))))
    no = said(stands)["Ready"]
    assert no[:2] == (False, "Error")
    assert 'Site "north" has 257 endpoints, and an answer holds at most 256: remove' in no[2]


def test_a_server_without_an_address_leaves_the_grant_unresolved() -> None:
    stands = standing(facts(reach=None))
    no = said(stands)["Resolved"]
    assert no[:2] == (False, "Pending")
    assert "GRANTSERVER_REACH_URL" in no[2]
    assert said(stands) == {"Processed": OK, "Resolved": no, "Ready": no}
    assert {"url", "ca"} & stands.fields.keys() == set()
    assert stands.fields["code"] == CODE


def test_what_is_waited_for_is_told_while_there_is_no_address() -> None:
    stands = standing(facts(reach=None, waiting="waiting for an address of Service a/b"))
    no = (False, "Pending", "waiting for an address of Service a/b")
    assert said(stands) == {"Processed": OK, "Resolved": no, "Ready": no}
    assert standing(facts(waiting="for nothing that matters")).ready


@pytest.mark.parametrize(
    ("changes", "word", "message"),
    [
        ({"known": None}, "Pending", "Pending"),
        ({"site": None}, "Pending", "There is no Site in this namespace yet"),
        (
            {"site": replace(SITE, endpoints=())},
            "Pending",
            (
                'Site "north" has no endpoints yet: enable link access '
                "(spec.linkAccess: default), and wait until its router has an address"
            ),
        ),
        (
            {"signer": Signer()},
            "Pending",
            'Issuer Secret "skupper-site-ca" does not exist in this namespace',
        ),
        (
            {"signer": Signer(problem="tls.key: expected a key")},
            "Error",
            'Issuer Secret "skupper-site-ca" cannot sign: tls.key: expected a key',
        ),
        (
            {"signer": replace(SIGNER, not_after=NOW - 1)},
            "Error",
            f'Issuer Secret "skupper-site-ca" cannot sign: it expired at {rfc3339(NOW - 1)}',
        ),
        (
            {"signer": replace(SIGNER, not_before=NOW + 1)},
            "Pending",
            f'Issuer Secret "skupper-site-ca" cannot sign before {rfc3339(NOW + 1)}',
        ),
    ],
)
def test_what_keeps_a_redemption_from_succeeding_keeps_the_grant_from_being_ready(
    changes: dict[str, Any], word: str, message: str
) -> None:
    stands = standing(facts(**changes))
    assert not stands.ready
    assert said(stands) == {"Processed": OK, "Resolved": OK, "Ready": (False, word, message)}
    assert (stands.fields["status"], stands.fields["message"]) == (word, message)


@pytest.mark.parametrize(
    ("now", "ready"),
    [(NOW - 101, False), (NOW - 100, True), (NOW + 100, True), (NOW + 101, False)],
)
def test_an_issuer_signs_from_its_first_to_its_last_second(now: int, ready: bool) -> None:
    """Both belong to its time, as they do when it signs."""
    assert standing(facts(now=now)).ready is ready


@pytest.mark.parametrize(
    ("changes", "state", "message"),
    [
        (
            {"now": NOW + WINDOW},
            State.EXPIRED,
            f"Expired at {rfc3339(NOW + WINDOW)}",
        ),
        ({"allowed": 1, "spent": 1}, State.USED_UP, "The one redemption is used"),
        ({"allowed": 20, "spent": 20}, State.USED_UP, "All 20 redemptions are used"),
        ({"revoked_at": NOW - 5}, State.REVOKED, f"Revoked at {rfc3339(NOW - 5)}"),
    ],
)
def test_an_ended_grant_says_how_it_ended_and_stays_readable(
    changes: dict[str, Any], state: State, message: str
) -> None:
    now = changes.pop("now", NOW)
    assert a_grant(**changes).state(now) is state
    stands = of_grant(now=now, **changes)
    assert said(stands) == {"Processed": OK, "Resolved": OK, "Ready": (False, "Error", message)}
    kept = {"url", "ca", "code", "redemptions", "expirationTime"}
    assert stands.fields.keys() == {"status", "message"} | kept
    assert stands.fields["redemptions"] == changes.get("spent", 0)


def test_the_last_second_of_a_grant_is_the_one_before_it_expires() -> None:
    assert standing(facts(known=a_known(), now=NOW + WINDOW - 1, signer=long_lived())).ready
    assert not standing(facts(known=a_known(), now=NOW + WINDOW, signer=long_lived())).ready


def long_lived() -> Signer:
    return replace(SIGNER, not_after=NOW + 10 * WINDOW)


def test_that_it_has_ended_goes_before_what_could_be_mended() -> None:
    known = a_known(grant=a_grant(spent=2))
    stands = standing(facts(known=known, site=None, signer=Signer()))
    assert stands.fields["message"] == "All 2 redemptions are used"


@pytest.mark.parametrize(
    "changes", [{"problem": "bad"}, {"site": replace(SITE, edge=True)}, {"reach": None}]
)
def test_a_revocation_is_told_whatever_else_is_wrong(changes: dict[str, Any]) -> None:
    """A lost database finds it there again."""
    known = a_known(grant=a_grant(revoked_at=NOW))
    stands = standing(facts(known=known, **changes))
    assert stands.fields["message"] == f"Revoked at {rfc3339(NOW)}"
    assert read_told({"conditions": [vars_of(stands.conditions[2])]}) == Told(revoked_at=NOW)


def vars_of(condition: Condition) -> dict[str, str]:
    return {"type": condition.type, "message": condition.message}


def test_what_is_wrong_with_the_spec_goes_before_what_is_missing() -> None:
    stands = standing(facts(problem="bad", reach=None, site=None, known=None))
    no = (False, "Error", "bad")
    assert said(stands)["Processed"] == said(stands)["Ready"] == no
    assert said(stands)["Resolved"][1] == "Pending"


def test_a_suspected_theft_stands_beside_how_the_grant_ended() -> None:
    message = of_grant(allowed=1, spent=1, theft=THEFT).fields["message"]
    assert message == (
        "The one redemption is used; suspected token theft: redeemed by "
        '"5f0f8f8e-3f3b-4f7a-9a55-6f2f1c6f3a77" from 192.0.2.7, then tried by "mallory" '
        "from 198.51.100.66"
    )


def test_of_many_who_came_too_late_the_first_is_named() -> None:
    many = replace(THEFT, later=(a_suspicion(), a_suspicion(), a_suspicion()))
    assert theft(many).endswith('then tried by "mallory" from 198.51.100.66 and 2 more')


def test_a_first_redemption_that_is_kept_no_more_was_somebodys() -> None:
    assert "redeemed by somebody, then tried by" in theft(replace(THEFT, first=None))


def test_a_live_grant_is_ready_whoever_came_too_late_before_it_was_given_more() -> None:
    assert of_grant(spent=1, theft=THEFT).fields["message"] == "OK"


def test_no_code_is_in_what_the_log_might_show() -> None:
    shown = f"{facts()!r} {standing(facts())!r}"
    assert CODE not in shown
