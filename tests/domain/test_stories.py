from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from app.domain.audit import Act
from app.domain.policies import Policy, written
from app.domain.prospects import Hindrance, Obstacle, hindrances
from app.domain.stories import Moment, Standing, Story, moments, of_entry, of_redemption, standing
from app.domain.theft import theft_entry
from tests.builders import (
    GRANT_ID,
    NOW,
    SUBJECT,
    WINDOW,
    a_grant,
    a_redemption,
    a_suspicion,
    an_entry,
)

LATER = "2026-09-21T14:13:21Z"


def words(act: Act, **details: Any) -> str:
    return of_entry(an_entry(act=act, details=details)).what


@pytest.mark.parametrize(
    ("act", "details", "what"),
    [
        (
            Act.GRANT_CREATED,
            {"allowed": 2, "expires_at": NOW + 1, "cost": 3, "issuer": "other-ca", "name": "x"},
            f"made: 2 redemptions; until {LATER}; cost 3; issuer other-ca",
        ),
        (
            Act.GRANT_CREATED,
            {
                "allowed": 1,
                "not_before": NOW + 1,
                "policy": written(Policy(networks=("10.0.0.0/8",), name_prefix="east-")),
                "labels": "team=ops",
                "description": "for\nthe east",
            },
            (
                f"made: 1 redemption; not before {LATER}; it comes from 10.0.0.0/8; "
                "the name begins with east-; labels team=ops; description for the east"
            ),
        ),
        (
            Act.GRANT_CREATED,
            {"revoked_at": NOW + 1},
            f"made: revoked at {LATER}, as its status says",
        ),
        (
            Act.GRANT_EXTENDED,
            {"allowed": 5, "allowed_before": 2, "expires_at": NOW + 1, "expired_at_before": NOW},
            f"extended: 5 redemptions (were 2); until {LATER} (was 2026-09-21T14:13:20Z)",
        ),
        (Act.GRANT_CHANGED, {"labels": "a=b", "spent": 1}, "changed: labels a=b"),
        (Act.GRANT_CHANGED, {"code": "replaced"}, "changed: another code"),
        (
            Act.GRANT_CHANGED,
            {"spent": 3, "by": "its status"},
            "changed: used 3 times, as its status says",
        ),
        (Act.GRANT_CHANGED, {"labels": ""}, "changed"),
        (Act.GRANT_REVOKED, {}, "revoked"),
        (Act.GRANT_REVOKED, {"by": "its status"}, "revoked, as its status says"),
        (Act.GRANT_REMOVED, {}, "removed"),
        (
            Act.GRANT_REFUSED,
            {"why": "used_up", "name": "east", "times": 1},
            "refused, though the code was right: used up (Link east)",
        ),
        (
            Act.GRANT_REFUSED,
            {"why": "policy", "detail": "the grant begins at noon", "name": "east", "times": 7},
            "refused, though the code was right: the grant begins at noon (Link east, 7 times)",
        ),
        (
            Act.GRANT_ANSWERED_AGAIN,
            {"name": "east", "times": 2},
            "the same answer given once more (Link east, 2 times)",
        ),
        (
            Act.GRANT_LOCKED,
            {"wrong_codes": 40},
            "locked for those who guess: 40 wrong codes until then",
        ),
        (Act.GRANT_CERTIFICATES_REVOKED, {"certificates": 1}, "1 certificate revoked"),
        (
            Act.GRANT_CERTIFICATES_REVOKED,
            {"certificates": 2, "why": "suspected token theft"},
            "2 certificates revoked: suspected token theft",
        ),
        (
            Act.CERTIFICATE_RENEWED,
            {"ordinal": 2, "not_after": NOW + 1, "replaces": "0a"},
            f"certificate of redemption 2 renewed, until {LATER}; the one before was 0a",
        ),
        (
            Act.CERTIFICATE_REVOKED,
            {"ordinal": 2, "certificates": 1},
            "redemption 2: 1 certificate revoked",
        ),
        (Act.SITE_SET, {}, "site.set"),
    ],
)
def test_what_happened_is_told_in_words(act: Act, details: dict[str, Any], what: str) -> None:
    assert words(act, **details) == what


@pytest.mark.parametrize("act", Act)
def test_no_act_needs_details_to_be_told(act: Act) -> None:
    assert words(act)
    assert words(act, allowed="x", expires_at="x", times="x", policy="x", certificates=None)


def test_who_from_where_how_often_and_which_certificate_are_told() -> None:
    entry = an_entry(
        act=Act.CERTIFICATE_RENEWED,
        actor="site:east",
        details={"peer": "192.0.2.7", "serial": "0b", "ordinal": 1, "times": 3},
    )
    told = of_entry(entry)
    assert (told.at, told.time) == (NOW, "2026-09-21T14:13:20Z")
    assert (told.act, told.who) == ("certificate.renewed", "site:east")
    assert (told.peer, told.serial, told.times) == ("192.0.2.7", "0b", 3)
    bare = of_entry(an_entry())
    assert (bare.who, bare.peer, bare.serial, bare.times) == ("cli:root", "", "", 1)


def test_both_parties_of_a_theft_are_told() -> None:
    told = of_entry(theft_entry(a_redemption(), a_suspicion()))
    assert told.peer == "198.51.100.66"
    for part in (SUBJECT, "192.0.2.7", "mallory", "copy"):
        assert part in told.what


def test_a_redemption_is_told() -> None:
    told = of_redemption(a_redemption(ordinal=3, serial="0a", not_after=NOW + 1))
    assert told == Moment(
        at=NOW,
        time="2026-09-21T14:13:20Z",
        act="grant.redeemed",
        what=f"redemption 3: Link east, certificate until {LATER}",
        who=f"site:{SUBJECT}",
        peer="192.0.2.7",
        serial="0a",
    )


def test_the_oldest_comes_first_and_one_second_is_in_order_as_far_as_is_known() -> None:
    entries = [
        an_entry(at=NOW, act=Act.GRANT_REFUSED),
        an_entry(at=NOW, act=Act.GRANT_CREATED, details={"spent": 0}),
        an_entry(at=NOW, act=Act.GRANT_EXTENDED, details={"spent": 1}),
        an_entry(at=NOW, act=Act.GRANT_CHANGED, details={"spent": 0}),
        an_entry(at=NOW + 5, act=Act.GRANT_REVOKED, details={"spent": 3}),
    ]
    redemptions = [
        a_redemption(ordinal=1),
        a_redemption(ordinal=2),
        a_redemption(ordinal=3, redeemed_at=NOW + 5),
    ]
    told = moments(a_grant(), entries, redemptions, whole=True)
    assert [one.act.partition(".")[2] for one in told] == [
        *("created", "changed", "redeemed", "extended", "redeemed", "refused"),
        *("redeemed", "revoked"),
    ]


def test_when_it_was_made_is_told_where_nobody_wrote_down_by_whom() -> None:
    (told,) = moments(a_grant(), [], [], whole=True)
    assert (told.act, told.at, told.who) == ("grant.created", NOW, "")
    assert moments(a_grant(), [], [], whole=False) == ()


def test_what_a_next_claim_would_get_is_told() -> None:
    good = standing(a_grant(spent=1), now=NOW, found=())
    assert good.next_claim == "redemption 2 of 2"
    assert (good.state, good.allowed, good.spent, good.left) == ("active", 2, 1, 1)
    assert (good.begins_at, good.expires_at, good.revoked_at) == (NOW, NOW + WINDOW, 0)
    narrow = standing(
        a_grant(policy=Policy(networks=("10.0.0.0/8",), per_subject=1)), now=NOW, found=()
    )
    assert narrow.next_claim == (
        "redemption 1 of 2, if it comes from 10.0.0.0/8; one subject redeems it once at most"
    )
    over = a_grant(spent=2, revoked_at=NOW)
    bad = standing(over, now=NOW, found=hindrances(over, now=NOW), wrong_codes=4)
    assert (
        bad.next_claim
        == "refused: it was revoked at 2026-09-21T14:13:20Z; all 2 redemptions are used"
    )
    assert [one.reason for one in bad.obstructions] == ["revoked", "used_up"]
    assert (bad.left, bad.revoked_at, bad.wrong_codes) == (0, NOW, 4)


def test_a_story_is_plain_to_the_last() -> None:
    grant = a_grant(policy=Policy(per_subject=1))
    found = [Hindrance(obstacle=Obstacle.NO_ISSUER, why="none")]
    stands = standing(grant, now=NOW, found=found)
    assert isinstance(stands, Standing)
    told = moments(grant, [an_entry()], [a_redemption()], whole=True)
    story = Story(
        id=GRANT_ID,
        name="lab",
        site="west",
        created_at=NOW,
        now=NOW,
        moments=told,
        left_out=0,
        standing=stands,
    )
    assert all(type(leaf) in {str, int} for leaf in leaves(story))


def leaves(value: Any) -> list[Any]:
    if is_dataclass(value):
        return [leaf for one in fields(value) for leaf in leaves(getattr(value, one.name))]
    if isinstance(value, tuple):
        return [leaf for one in value for leaf in leaves(one)]
    return [value]
