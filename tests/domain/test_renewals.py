from typing import Any

import pytest

from app.domain.audit import Act
from app.domain.renewals import (
    Follower,
    Given,
    check_ordinal,
    ends_soon,
    expiry_entry,
    judge,
    renewal_entry,
)
from app.errors import Invalid, Reason, Refused
from tests.builders import GRANT_ID, NOW


def a_given(**changes: Any) -> Given:
    usual: dict[str, Any] = {
        "redemption_id": 1, "grant_id": GRANT_ID, "ordinal": 1, "name": "east", "subject": "s",
        "serial": "0a", "fingerprint": "f", "issued_at": NOW, "not_after": NOW + 100,
    }  # fmt: skip
    return Given(**(usual | changes))


def test_one_that_is_good_may_be_renewed_to_its_last_second() -> None:
    judge(a_given(), now=NOW + 100)
    judge(a_given(superseded_at=NOW + 10), now=NOW + 9)
    assert a_given().counts(NOW + 100)


@pytest.mark.parametrize(
    ("changes", "now", "reason"),
    [
        ({}, NOW + 101, Reason.CERTIFICATE_ENDED),
        ({"revoked_at": NOW}, NOW, Reason.CERTIFICATE_REVOKED),
        ({"revoked_at": NOW}, NOW + 101, Reason.CERTIFICATE_REVOKED),
        ({"superseded_at": NOW + 10}, NOW + 10, Reason.CERTIFICATE_SUPERSEDED),
        ({"superseded_at": NOW + 10}, NOW + 101, Reason.CERTIFICATE_ENDED),
    ],
)
def test_one_that_is_over_is_refused_and_counts_no_more(
    changes: dict[str, Any], now: int, reason: Reason
) -> None:
    with pytest.raises(Refused) as refused:
        judge(a_given(**changes), now=now)
    assert refused.value.reason is reason
    assert not a_given(**changes).counts(now)


def test_redemptions_are_counted_from_one() -> None:
    check_ordinal(1)
    with pytest.raises(Invalid, match="the first one has number 1"):
        check_ordinal(0)


def test_the_audit_log_is_told_what_took_whose_place_and_no_certificate() -> None:
    follower = Follower(
        redemption_id=1, replaces="0a", key_hash=bytes(32), certificate_pem="PEM", serial="0b",
        fingerprint="g", issuer_id=3, issued_at=NOW + 5, not_after=NOW + 99,
    )  # fmt: skip
    entry = renewal_entry(a_given(), follower, peer="192.0.2.7")
    assert (entry.at, entry.act) == (NOW + 5, Act.CERTIFICATE_RENEWED)
    assert (entry.actor, entry.target) == ("site:s", f"grant/{GRANT_ID}")
    assert (entry.details["replaces"], entry.details["serial"]) == ("0a", "0b")
    assert "PEM" not in str(entry)


def test_a_certificate_ends_soon_when_a_quarter_of_its_life_is_left() -> None:
    assert not ends_soon(a_given(), now=NOW + 74)
    assert ends_soon(a_given(), now=NOW + 75)


def test_of_one_that_ends_it_is_told_whose_it_is_and_when() -> None:
    entry = expiry_entry(a_given(), now=NOW + 80)
    assert (entry.at, entry.act, entry.actor) == (NOW + 80, Act.CERTIFICATE_EXPIRING, "server")
    assert entry.target == f"grant/{GRANT_ID}"
    assert entry.details == {
        "ordinal": 1, "name": "east", "subject": "s", "serial": "0a", "fingerprint": "f",
        "not_after": NOW + 100,
    }  # fmt: skip
