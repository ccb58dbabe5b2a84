import click
import pytest

from app.cli.answers import _MEANINGS, check
from app.errors import Reason, Refused, Unavailable
from app.outbound import Answer
from app.web.wire import REFUSALS

NOT_SAID_TO_A_CLAIM = {
    Reason.RENEWAL,
    Reason.RENEWED_TOO_OFTEN,
    Reason.UNKNOWN_AUTHORITY,
}


def an_answer(status: int, body: bytes, reason: str = "Not Found") -> Answer:
    return Answer(status=status, reason=reason, body=body)


def test_success_is_no_error() -> None:
    check(an_answer(200, b"x"))


def test_every_refusal_of_our_server_is_explained() -> None:
    for reason, refusal in REFUSALS.items():
        if reason in NOT_SAID_TO_A_CLAIM:
            continue
        later = reason is Reason.RATE_LIMITED  # a matter of time alone
        assert ((refusal.status, refusal.text) in _MEANINGS) is not later
        with pytest.raises(Unavailable if later else Refused, match=r"\(.+\)"):
            check(an_answer(refusal.status, f"{refusal.text}\n".encode()))


def test_a_refusal_carries_its_reason_and_the_servers_text() -> None:
    with pytest.raises(Refused, match="404 Not Found: No such claim") as caught:
        check(an_answer(404, b"No such claim\n"))
    assert caught.value.reason is Reason.UNKNOWN_GRANT


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_worth_another_try(status: int) -> None:
    with pytest.raises(Unavailable, match="nothing was used up"):
        check(an_answer(status, b"Internal error\n"))


@pytest.mark.parametrize("status", [429, 503])
def test_when_another_try_is_wanted_is_handed_on(status: int) -> None:
    with pytest.raises(Unavailable) as caught:
        check(Answer(status=status, reason="", body=b"", retry_after=7))
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(("status", "words"), [(302, "redirect"), (201, "grant"), (404, "grant")])
def test_what_no_grant_server_says_is_a_failure(status: int, words: str) -> None:
    with pytest.raises(click.ClickException, match=words):
        check(an_answer(status, b"<html>"))


def test_a_strangers_text_is_cut_and_cannot_move_the_cursor() -> None:
    with pytest.raises(click.ClickException) as caught:
        check(an_answer(404, b"\x1b[2J\xff" + b"x" * 5000))
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 600
