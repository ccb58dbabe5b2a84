import asyncio
from typing import Any

import pytest

from app.domain.grants import Grant
from app.domain.limits import Allowance
from app.domain.policies import Policy
from app.domain.stories import Story
from app.errors import Forbidden, GrantServerError, Invalid, Missing
from app.services import grants, timeline
from app.services.grants import Change
from app.store import audit as audit_rows
from app.store import schema
from tests.builders import NOW, SUBJECT, Stand, a_claim
from tests.services.renewals import a_key, redeem, renew

OTHER = SUBJECT.replace("5", "6")


@pytest.fixture
def west(stand: Stand) -> Stand:
    stand.set_site()
    return stand


def explain(stand: Stand, name: str = "to-west", **changes: Any) -> Story:
    options: dict[str, Any] = {"now": stand.clock.now, "limit": 100}
    return timeline.explain(stand.database, name, **(options | changes))


def acts(story: Story) -> list[str]:
    return [one.act for one in story.moments]


def come(stand: Stand, grant: Grant, **claim: Any) -> None:
    """Redeem, or be refused, and have it written down."""

    async def main() -> None:
        locks = stand.locks(Allowance(burst=1, interval=1_000_000))
        redeemer = stand.redeemer(locks=locks, attempts=stand.attempts(write_seconds=0.0))
        try:
            await redeemer.redeem(a_claim(key=grant.id, **claim))
        except GrantServerError:
            pass
        finally:
            await redeemer.attempts.close()
            await redeemer.thefts.close()
            await locks.close()
            await redeemer.ledger.close()

    asyncio.run(main())
    stand.clock.now += 1


def test_the_whole_life_of_a_grant_is_told(west: Stand) -> None:
    policy = Policy(name_prefix="east", networks=("192.0.2.0/24",))
    grant = west.make_grant(redemptions=1, policy=policy, not_before=NOW + 1).grant
    come(west, grant)  # too early
    come(west, grant)
    come(west, grant)  # the answer was lost
    come(west, grant, subject=OTHER, name="east-2", peer="192.0.2.66")  # a thief
    come(west, grant, presented_code=b"wrong", peer="192.0.2.67")
    grants.extend(west.database, "to-west", allowed=2, actor="cli:ops", now=west.clock.now)
    west.clock.now += 1
    held = redeem(west, grant, subject=OTHER)
    west.clock.now += 1
    renew(west, held.wish(a_key()))
    west.clock.now += 1
    grants.revoke(west.database, "to-west", actor="cli:ops", now=west.clock.now)
    story = explain(west)
    assert [one.partition(".")[2] for one in acts(story)] == [
        *("created", "refused", "redeemed", "answered_again", "theft_suspected", "refused"),
        *("locked", "extended", "redeemed", "renewed", "revoked", "certificates_revoked"),
    ]
    made, early, first, *_, revoked, _ = story.moments
    assert made.who == "cli:test"
    assert "the name begins with east" in made.what
    assert "the grant begins at 2026-" in early.what
    assert (first.who, first.peer) == (f"site:{SUBJECT}", "192.0.2.7")
    assert first.serial == grants.show(west.database, "to-west")[1][0].serial
    assert (revoked.who, revoked.at) == ("cli:ops", west.clock.now)
    assert [one.at for one in story.moments] == sorted(one.at for one in story.moments)
    assert story.left_out == 0
    assert (story.id, story.name, story.site) == (grant.id, "to-west", "west")
    stands = story.standing
    assert (stands.state, stands.spent, stands.left, stands.wrong_codes) == ("revoked", 2, 0, 1)
    assert stands.next_claim.startswith("refused: it was revoked at 2026-")
    assert [one.reason for one in stands.obstructions] == ["revoked", "used_up"]


def test_a_grant_that_can_be_redeemed_says_what_a_claim_would_get(west: Stand) -> None:
    west.make_grant()
    story = explain(west)
    assert acts(story) == ["grant.created"]
    assert story.standing.next_claim == "redemption 1 of 2"
    assert story.standing.obstructions == ()


def test_of_a_long_story_the_newest_is_kept_and_the_rest_counted(west: Stand) -> None:
    grant = west.make_grant(redemptions=9).grant
    for number in range(4):
        come(west, grant, subject=f"{number}{SUBJECT[1:]}")
    for number in range(3):
        change = Change(labels={"n": str(number)})
        grants.change(west.database, "to-west", change, actor="cli:ops", now=west.clock.now)
        west.clock.now += 1
    whole = explain(west)
    assert len(whole.moments) == 8
    for limit in range(1, 9):
        story = explain(west, limit=limit)
        assert story.moments == whole.moments[-limit:]
        assert story.left_out == 8 - limit
        assert story.standing == whole.standing


def test_a_grant_whose_beginning_nobody_wrote_down_is_told_from_what_it_says(west: Stand) -> None:
    west.make_grant()
    with west.database.writing() as connection:
        connection.execute(schema.audit.delete())
    (made,) = explain(west).moments
    assert (made.at, made.act, made.who) == (NOW, "grant.created", "")


def test_what_happened_to_others_is_not_told(west: Stand) -> None:
    west.make_grant()
    other = west.make_grant(name="other").grant
    come(west, other)
    assert acts(explain(west)) == ["grant.created"]
    assert len(explain(west, other.id).moments) == 2


def test_who_may_not_see_a_grant_is_told_nothing_of_it(west: Stand) -> None:
    grant = west.make_grant().grant
    asked: list[Grant] = []

    def check(found: Grant) -> None:
        asked.append(found)
        raise Forbidden("no")

    with pytest.raises(Forbidden):
        explain(west, check=check)
    assert asked == [grant]


def test_a_grant_that_is_not_there_has_no_story(west: Stand) -> None:
    with pytest.raises(Missing):
        explain(west)
    west.set_site("north")
    for site in ("west", "north"):
        west.make_grant(site=site)
    with pytest.raises(Invalid, match="say which"):
        explain(west)
    assert explain(west, site="north").site == "north"


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_the_number_of_moments_is_bounded(west: Stand, limit: int) -> None:
    west.make_grant()
    with pytest.raises(Invalid, match="limit: expected 1 to 1000"):
        explain(west, limit=limit)


def test_no_story_tells_a_secret(west: Stand) -> None:
    issued = west.make_grant()
    come(west, issued.grant)
    told = repr(explain(west))
    with west.database.reading() as connection:
        assert audit_rows.latest(connection, 9)
    assert issued.code not in told
    assert issued.grant.concealed_code not in told
