import pytest

from app.domain.attempts import SEVERAL, attempt, attempt_entry
from app.domain.audit import Act
from tests.builders import GRANT_ID, NOW


def test_a_refusal_is_told_with_its_reason_and_how_often_it_was_made() -> None:
    made = attempt(grant_id=GRANT_ID, name="east", subject="a", peer="192.0.2.1", refused="used_up")
    entry = attempt_entry(made, at=NOW, times=3)
    assert (entry.at, entry.act) == (NOW, Act.GRANT_REFUSED)
    assert (entry.actor, entry.target) == ("site:a", f"grant/{GRANT_ID}")
    assert entry.details == {"name": "east", "peer": "192.0.2.1", "times": 3, "why": "used_up"}


def test_an_answer_given_again_has_no_reason() -> None:
    made = attempt(grant_id=GRANT_ID, name="east", subject="a", peer="192.0.2.1")
    entry = attempt_entry(made, at=NOW, times=1)
    assert entry.act is Act.GRANT_ANSWERED_AGAIN
    assert entry.details == {"name": "east", "peer": "192.0.2.1", "times": 1}


def test_what_came_of_it_remains_where_it_is_told_of_nobody() -> None:
    made = attempt(grant_id=GRANT_ID, name="a", subject="b", peer="c", refused="expired").anybody()
    assert (made.act, made.why) == (Act.GRANT_REFUSED, "expired")
    assert (made.name, made.subject, made.peer) == (SEVERAL, SEVERAL, SEVERAL)


@pytest.mark.parametrize("sent", ["a\x00b\n", "\ud800", "a" * 300])
def test_what_nobody_has_checked_can_be_stored(sent: str) -> None:
    made = attempt(grant_id=GRANT_ID, name=sent, subject=sent, peer=sent)
    for stored in (made.name, made.subject, made.peer):
        assert stored.isprintable()
        assert stored.encode()
    assert (len(made.name) <= 253, len(made.peer) <= 64) == (True, True)
