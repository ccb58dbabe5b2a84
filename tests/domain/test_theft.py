import pytest

from app.domain.audit import Act
from app.domain.theft import revocation_entry, suspicion, theft_entry
from tests.builders import GRANT_ID, NOW, a_redemption, a_suspicion


def test_an_entry_names_both_parties() -> None:
    first = a_redemption(name="east", subject="a", peer="192.0.2.1", redeemed_at=NOW)
    entry = theft_entry(first, a_suspicion(at=NOW + 5))
    assert (entry.at, entry.act) == (NOW + 5, Act.GRANT_THEFT_SUSPECTED)
    assert (entry.actor, entry.target) == ("site:mallory", f"grant/{GRANT_ID}")
    assert entry.details == {
        "first_name": "east",
        "first_subject": "a",
        "first_peer": "192.0.2.1",
        "first_at": NOW,
        "first_serial": first.serial,
        "later_name": "copy",
        "later_subject": "mallory",
        "later_peer": "198.51.100.66",
    }


def test_a_revocation_says_how_many_certificates_and_why() -> None:
    entry = revocation_entry(a_suspicion(at=NOW), 3)
    assert (entry.act, entry.actor) == (Act.GRANT_CERTIFICATES_REVOKED, "server")
    assert entry.details == {"certificates": 3, "why": "suspected token theft"}


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("east", "east"),
        ("sitio-\u00f1", "sitio-\u00f1"),
        ("a\x00b\n", "a\\x00b\\n"),
        ("\ud800", "\\ud800"),
        ("../x", "../x"),
        ("a" * 300, "a" * 253),
        ("\x00" * 300, ("\\x00" * 300)[:253]),
    ],
)
def test_what_nobody_has_checked_can_be_stored(sent: str, stored: str) -> None:
    found = suspicion(grant_id=GRANT_ID, at=NOW, name=sent, subject=sent, peer=sent)
    assert (found.name, found.subject, found.peer) == (stored, stored, stored[:64])
    assert found.name.encode()
