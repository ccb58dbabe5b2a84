from app.domain.audit import Act, Entry
from app.store.ledger import Keeping, Kept, audit_entry
from tests.builders import NOW, a_redemption


def test_a_redemption_is_written_down_with_who_and_what_was_given() -> None:
    made = a_redemption(ordinal=3, serial="0a", fingerprint="0b")
    assert audit_entry(made) == Entry(
        at=NOW,
        act=Act.GRANT_REDEEMED,
        actor=f"site:{made.subject}",
        target=f"grant/{made.grant_id}",
        details={
            "ordinal": 3,
            "name": "east",
            "peer": "192.0.2.7",
            "serial": "0a",
            "fingerprint": "0b",
        },
    )


def test_what_is_kept_is_not_shown() -> None:
    assert repr(Kept(sealed=b"secret", ordinal=1)) == "Kept(ordinal=1)"
    assert repr(Keeping(claim_key=b"k", sealed=b"s", until=9)) == "Keeping(until=9)"
