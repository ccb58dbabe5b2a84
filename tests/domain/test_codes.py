import string
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import ambient
from app.domain import codes
from app.errors import Broken, Invalid, Reason, Refused
from tests.builders import CODE, CODE_KEYS

ALPHABET = string.ascii_letters + string.digits


def feed(answers: Iterator[bytes]) -> Callable[[int], bytes]:
    def draw(count: int) -> bytes:
        drawn = next(answers)
        assert len(drawn) == count
        return drawn

    return draw


def test_a_code_is_24_letters_and_digits() -> None:
    made = {codes.generate(ambient.random_bytes) for _ in range(200)}
    assert len(made) == 200
    for code in made:
        assert len(code) == 24
        assert set(code) <= set(ALPHABET)
        codes.check_chosen(code)


def test_each_character_is_equally_likely_over_all_bytes() -> None:
    drawn = Counter[str]()
    for start in range(0, 256, 8):  # every byte value as often as every other
        block = bytes(range(start, start + 8)) * 3
        answers = iter([block, bytes(range(24))])
        fair = sum(byte < 248 for byte in block)
        drawn.update(codes.generate(feed(answers))[:fair])
    assert set(drawn) == set(ALPHABET)
    assert set(drawn.values()) == {12}  # 4 bytes each of 248, three times


def test_bytes_that_would_favour_some_letters_are_thrown_away() -> None:
    answers = iter([bytes([255] * 24), bytes([248, 0] * 12), bytes([61] * 24)])
    assert codes.generate(feed(answers)) == "a" * 12 + "9" * 12


def test_the_stored_form_has_a_constant_shape_and_does_not_contain_the_code() -> None:
    stored = codes.conceal(CODE, CODE_KEYS)
    scheme, key_id, digest = stored.split(":")
    assert (scheme, key_id, len(digest)) == ("hmac-sha256", "0a1b2c3d", 64)
    assert set(digest) <= set("0123456789abcdef")
    assert CODE not in stored
    assert stored == codes.conceal(CODE, CODE_KEYS)
    # Pinned: a release that stores another value must still open this one.
    assert digest == "262bdd97e837326bda57fa3235d6eca405e8758547e3c8a5c3ce2a8943c8f9d7"


def test_the_right_code_passes() -> None:
    codes.check(CODE.encode(), codes.conceal(CODE, CODE_KEYS), CODE_KEYS)


@pytest.mark.parametrize(
    "presented",
    [b"", CODE[:-1].encode(), CODE.encode() + b"\n", CODE.lower().encode(), b" ", b"\xff" * 24],
)
def test_any_other_code_is_refused(presented: bytes) -> None:
    with pytest.raises(Refused) as refused:
        codes.check(presented, codes.conceal(CODE, CODE_KEYS), CODE_KEYS)
    assert refused.value.reason is Reason.WRONG_CODE
    assert CODE not in str(refused.value)


@given(code=st.text(string.printable.strip(), min_size=1), presented=st.binary())
def test_a_wrong_code_is_never_accepted(code: str, presented: bytes) -> None:
    stored = codes.conceal(code, CODE_KEYS)
    codes.check(code.encode(), stored, CODE_KEYS)
    if presented != code.encode():
        with pytest.raises(Refused):
            codes.check(presented, stored, CODE_KEYS)


@given(code=st.text(string.ascii_letters, min_size=16, max_size=64), data=st.data())
def test_a_code_with_one_bit_turned_is_refused(code: str, data: st.DataObject) -> None:
    presented = bytearray(code.encode())
    position = data.draw(st.integers(0, len(presented) - 1))
    presented[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Refused):
        codes.check(bytes(presented), codes.conceal(code, CODE_KEYS), CODE_KEYS)


def test_a_code_under_an_older_key_is_still_known_after_a_rotation() -> None:
    stored = codes.conceal(CODE, CODE_KEYS)
    rotated = {"ffffffff": b"\xff" * 32, **CODE_KEYS}
    codes.check(CODE.encode(), stored, rotated)
    renewed = codes.conceal(CODE, rotated)
    assert renewed.startswith("hmac-sha256:ffffffff:")
    assert renewed.split(":")[2] != stored.split(":")[2]
    codes.check(CODE.encode(), renewed, rotated)


def test_the_same_code_under_another_key_of_the_same_name_is_refused() -> None:
    stored = codes.conceal(CODE, CODE_KEYS)
    with pytest.raises(Refused):
        codes.check(CODE.encode(), stored, {"0a1b2c3d": b"\x00" * 32})


def test_a_key_that_was_taken_away_is_our_fault_and_is_named() -> None:
    with pytest.raises(Broken, match="0a1b2c3d"):
        codes.check(CODE.encode(), codes.conceal(CODE, CODE_KEYS), {"ffffffff": b"\xff" * 32})


DIGEST = "0" * 64


@pytest.mark.parametrize(
    "stored",
    [
        "",
        CODE,
        ":",
        "::",
        f"hmac-sha512:0a1b2c3d:{DIGEST}",
        f"hmac-sha256::{DIGEST}",
        "hmac-sha256:0a1b2c3d",
        "hmac-sha256:0a1b2c3d:",
        f"hmac-sha256:0a1b2c3d:{DIGEST[1:]}",
        f"hmac-sha256:0a1b2c3d:{DIGEST}0",
        f"hmac-sha256:0a1b2c3d:{DIGEST[1:]}\u00e9",
    ],
)
def test_a_stored_text_that_is_not_ours_is_broken(stored: str) -> None:
    with pytest.raises(Broken) as broken:
        codes.check(CODE.encode(), stored, CODE_KEYS)
    assert CODE not in str(broken.value)


@given(presented=st.binary(), stored=st.text())
def test_nothing_stored_lets_a_check_raise_anything_else(presented: bytes, stored: str) -> None:
    with pytest.raises((Broken, Refused)):
        codes.check(presented, stored, CODE_KEYS)


@given(st.binary(max_size=5000))
def test_checking_against_nothing_accepts_any_bytes_and_says_nothing(presented: bytes) -> None:
    codes.check_against_nothing(presented, CODE_KEYS)


@pytest.mark.parametrize("code", ["a" * 16, "~" * 256, "!\"#$%&'()*+,-./:;<=>?"])
def test_a_chosen_code_may_be_any_16_to_256_visible_ascii_characters(code: str) -> None:
    codes.check_chosen(code)


@pytest.mark.parametrize(
    "code",
    ["", "a" * 15, "a" * 257, "a" * 16 + " ", " " * 16, "a" * 16 + "\n", "\u00e9" * 16,
     "a" * 16 + "\x7f", "a" * 16 + "\x00", "\u0661" * 16, "a" * 16 + "\ud800"],
)  # fmt: skip
def test_a_chosen_code_that_is_easy_to_guess_or_mistype_is_refused(code: str) -> None:
    with pytest.raises(Invalid) as refused:
        codes.check_chosen(code)
    assert refused.value.field == "code"
    assert "16 to 256" in refused.value.why
    if code:
        assert code not in str(refused.value)
