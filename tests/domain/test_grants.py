import re
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import codes
from app.domain.grants import (
    ID_RANDOM_BYTES,
    MOST_REDEMPTIONS,
    SHORT_WINDOW,
    Grant,
    State,
    check_redemptions,
    judge,
    new_id,
)
from app.errors import Invalid, Reason, Refused
from tests.builders import CODE, CODE_KEYS, NOW, WINDOW, a_claim, a_grant, a_redemption

CONCEALED = codes.conceal(CODE, CODE_KEYS)
GRANTS = st.builds(
    lambda spent, revoked, ends: a_grant(
        concealed_code=CONCEALED,
        allowed=3,
        spent=spent,
        revoked_at=revoked,
        expires_at=ends,
    ),
    st.integers(0, 3),
    st.sampled_from([None, NOW]),
    st.integers(NOW - 2, NOW + 2),
)


def reason(grant: Grant, *, now: int = NOW) -> Reason | None:
    try:
        judge(grant, now=now)
    except Refused as refused:
        return refused.reason
    return None


def test_an_open_grant_can_be_redeemed() -> None:
    assert reason(a_grant()) is None
    assert reason(a_grant(spent=1)) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"revoked_at": NOW}, Reason.REVOKED),
        ({"revoked_at": NOW + 99}, Reason.REVOKED),
        ({"expires_at": NOW}, Reason.EXPIRED),
        ({"spent": 2}, Reason.USED_UP),
        ({"spent": 2, "expires_at": NOW}, Reason.EXPIRED),
        ({"spent": 2, "expires_at": NOW, "revoked_at": NOW}, Reason.REVOKED),
    ],
)
def test_a_grant_that_is_over_says_why(changes: dict[str, int], expected: Reason) -> None:
    assert reason(a_grant(**changes)) is expected


def test_the_last_second_of_the_window_is_outside_of_it() -> None:
    grant = a_grant()
    assert reason(grant, now=NOW + WINDOW - 1) is None
    assert reason(grant, now=NOW + WINDOW) is Reason.EXPIRED


@given(GRANTS)
def test_a_grant_can_be_redeemed_exactly_while_it_is_active(grant: Grant) -> None:
    assert (reason(grant) is None) == (grant.state(NOW) is State.ACTIVE)


@pytest.mark.parametrize(
    ("changes", "now", "state"),
    [
        ({}, NOW, State.ACTIVE),
        ({"spent": 1}, NOW + WINDOW - 1, State.ACTIVE),
        ({}, NOW + WINDOW, State.EXPIRED),
        ({"spent": 2}, NOW, State.USED_UP),
        ({"spent": 2}, NOW + WINDOW, State.USED_UP),
        ({"spent": 2, "revoked_at": NOW}, NOW + WINDOW, State.REVOKED),
        ({"revoked_at": NOW}, NOW, State.REVOKED),
    ],
)
def test_the_state_of_a_grant_is_revoked_before_used_up_before_expired_before_active(
    changes: dict[str, int], now: int, state: State
) -> None:
    assert a_grant(**changes).state(now) is state


def test_no_secret_shows_in_a_grant_or_a_claim() -> None:
    assert CODE not in repr(a_claim())
    assert "hmac-sha256" not in repr(a_grant(concealed_code=CONCEALED))
    assert CONCEALED not in repr(a_grant(concealed_code=CONCEALED))


@pytest.mark.parametrize("allowed", [1, 2, MOST_REDEMPTIONS])
def test_a_grant_may_be_used_once_to_a_million_times(allowed: int) -> None:
    check_redemptions(allowed)


@pytest.mark.parametrize("allowed", [0, -1, MOST_REDEMPTIONS + 1])
def test_a_grant_that_may_be_used_never_or_for_ever_is_refused(allowed: int) -> None:
    with pytest.raises(Invalid) as refused:
        check_redemptions(allowed)
    assert refused.value.field == "redemptions"


def test_a_window_under_a_minute_is_short() -> None:
    assert SHORT_WINDOW == 60


def test_a_numbered_redemption_is_the_same_but_for_its_number() -> None:
    redemption = a_redemption(ordinal=1)
    assert redemption.numbered(7) == replace(redemption, ordinal=7)


MILLISECONDS = st.integers(0, 2**48 - 1)
DRAWN = st.binary(min_size=ID_RANDOM_BYTES, max_size=ID_RANDOM_BYTES)


def test_an_id_is_that_of_the_standards_example() -> None:
    """The example of RFC 9562, appendix A.6."""
    drawn = (0xCC3 << 62 | 0x18C4DC0C0C07398F).to_bytes(ID_RANDOM_BYTES, "big")
    assert new_id(0x017F22E279B0, drawn) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(MILLISECONDS, DRAWN)
def test_an_id_is_a_uuid_of_version_7_that_tells_its_time(milliseconds: int, drawn: bytes) -> None:
    made = new_id(milliseconds, drawn)
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made
    )
    assert uuid.UUID(made).version == 7
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert uuid.UUID(made).int >> 80 == milliseconds


@given(MILLISECONDS, MILLISECONDS, DRAWN, DRAWN)
def test_ids_as_texts_stand_in_the_order_of_their_times(
    one: int, other: int, first: bytes, second: bytes
) -> None:
    if one != other:
        assert (new_id(one, first) < new_id(other, second)) == (one < other)


@given(MILLISECONDS, DRAWN)
def test_each_of_74_random_bits_makes_another_id(milliseconds: int, drawn: bytes) -> None:
    number = int.from_bytes(drawn, "big")
    flipped = [(number ^ 1 << bit).to_bytes(ID_RANDOM_BYTES, "big") for bit in range(74)]
    assert len({new_id(milliseconds, one) for one in [drawn, *flipped]}) == 75
