from dataclasses import replace

import pytest

from app.crypto.audit_heads import HeadKeys
from app.domain.audit_chain import BEGINNING, Head, HeadKind
from app.errors import Invalid

HEAD = Head(kind=HeadKind.SEALED, position=1, at=5, highest_id=9, hash=BEGINNING)
KEYS = HeadKeys.of({"new": bytes(32), "old": b"\1" * 32})


def test_a_head_is_signed_by_the_current_key_and_known_by_all_of_them() -> None:
    signed = KEYS.sign(HEAD)
    assert signed.key_id == "new"
    assert KEYS.has_signed(signed)
    assert KEYS.has_signed(HeadKeys.of({"old": b"\1" * 32}).sign(HEAD))
    assert not HeadKeys.of({"old": b"\1" * 32}).has_signed(signed)


def test_who_has_the_public_keys_can_check_and_not_sign() -> None:
    public = HeadKeys.read(KEYS.written())
    assert public.has_signed(KEYS.sign(HEAD))
    with pytest.raises(Invalid):
        public.sign(HEAD)


def test_a_signature_is_for_one_head_and_one_key() -> None:
    signed = KEYS.sign(HEAD)
    for other in (
        replace(signed, position=2),
        replace(signed, key_id="old"),
        replace(signed, key_id="none"),
        replace(signed, signature=bytes(64)),
        replace(signed, signature=b""),
    ):
        assert not KEYS.has_signed(other)


@pytest.mark.parametrize("written", ["?", "AAAA", ""])
def test_what_is_no_public_key_is_refused(written: str) -> None:
    with pytest.raises(Invalid):
        HeadKeys.read({"one": written})


def test_no_key_is_shown() -> None:
    assert "private" not in repr(HeadKeys.of({"one": bytes(32)})).lower()
