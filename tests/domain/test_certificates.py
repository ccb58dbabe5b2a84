from app.domain.certificates import KeyType
from tests.builders import a_minted


def test_a_minted_certificate_shows_its_facts_and_never_its_key() -> None:
    shown = repr(a_minted(key_pem=b"k3y", certificate_pem=b"l3af", ca_pem=b"c4", serial="0a0b"))
    assert "0a0b" in shown
    for hidden in ("k3y", "l3af", "c4"):
        assert hidden not in shown


def test_the_kinds_of_key_are_named_as_in_the_settings() -> None:
    assert [kind.value for kind in KeyType] == ["p256", "rsa-2048", "ed25519"]
