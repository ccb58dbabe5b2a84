import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from app.crypto.answers import CLAIM_KEY_BYTES, NONCE_BYTES, AnswerKeys, answer_keys
from app.errors import Broken

SALT = bytes(range(32))
CODE = b"Aa0Bb1Cc2Dd3Ee4Ff5Gg6Hh7"
NONCE = b"n" * NONCE_BYTES


def keys(*claim: str, salt: bytes = SALT, code: bytes = CODE) -> AnswerKeys:
    return answer_keys(salt, code, *(claim or ("grant", "east", "subject", "")))


def test_what_was_sealed_opens_for_the_same_claim_and_shows_nothing() -> None:
    sealed = keys().seal(b"---\nanswer", NONCE)
    assert b"answer" not in sealed
    assert keys().open(sealed) == b"---\nanswer"


@pytest.mark.parametrize(
    "other",
    [
        keys("grant", "east", "subject", "192.0.2.7"),
        keys("grant", "east", "other", ""),
        keys("grant", "west", "subject", ""),
        keys("tnarg", "east", "subject", ""),
        keys(salt=bytes(32)),
        keys(code=b"x"),
    ],
    ids=["peer", "subject", "name", "grant", "salt", "code"],
)
def test_any_other_claim_neither_finds_nor_opens_it(other: AnswerKeys) -> None:
    assert other.claim_key != keys().claim_key
    with pytest.raises(Broken, match="another claim"):
        other.open(keys().seal(b"answer", NONCE))


TEXTS = st.lists(st.text(st.characters()), max_size=4)


@given(TEXTS, TEXTS)
def test_different_claims_have_different_keys(one: list[str], two: list[str]) -> None:
    same = keys("x", *one).claim_key == keys("x", *two).claim_key
    assert same == (one == two)


@given(st.binary(max_size=60))
def test_what_was_not_sealed_here_does_not_open(sealed: bytes) -> None:
    with pytest.raises(Broken):
        keys().open(sealed)


def test_a_changed_byte_is_noticed() -> None:
    sealed = bytearray(keys().seal(b"answer", NONCE))
    for at in range(len(sealed)):
        changed = bytes(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        with pytest.raises(Broken):
            keys().open(changed)


def test_the_keys_are_those_of_hkdf() -> None:
    made = keys("g", "é")
    info = b"grantserver answer 1\0" + b"\0\0\0\1g" + b"\0\0\0\2\xc3\xa9"

    def derived(use: bytes) -> bytes:
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=SALT, info=info + use).derive(CODE)

    assert made.claim_key == derived(b"find")[:CLAIM_KEY_BYTES]
    assert made._sealing_key == derived(b"seal")


def test_too_little_randomness_is_a_fault() -> None:
    with pytest.raises(Broken, match="12 random bytes"):
        keys().seal(b"answer", b"short")


def test_the_keys_are_not_shown() -> None:
    assert repr(keys()) == "AnswerKeys()"
