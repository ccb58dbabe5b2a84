import pytest
from pydantic import ValidationError

from app.api.redemptions import Redemption, RedemptionPage

ONE = Redemption(
    ordinal=1,
    name="link",
    subject="east",
    peer="127.0.0.1",
    redeemed_at="2026-11-23T10:00:00Z",
    serial="ab",
    fingerprint="cd",
    not_after="2027-11-23T10:00:00Z",
    revoked_at=None,
)


def test_a_page_is_read_as_it_was_written() -> None:
    page = RedemptionPage(items=(ONE,), next=None)
    assert RedemptionPage.model_validate_json(page.model_dump_json()) == page


def test_what_is_not_described_is_refused() -> None:
    with pytest.raises(ValidationError):
        Redemption.model_validate(ONE.model_dump() | {"key": "x"})
