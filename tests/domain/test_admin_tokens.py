import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import ambient
from app.domain.admin_tokens import AdminToken, generate, parse
from app.domain.callers import Caller, Kind, read_rights
from app.errors import Invalid
from tests.builders import NOW

TEXT = generate(lambda count: bytes(range(count))).text
LETTERS = string.ascii_letters + string.digits + "_"


def a_token(**changes: int | None) -> AdminToken:
    return AdminToken(
        id="a" * 12,
        name="ci",
        rights=read_rights(["read"], ["west"]),
        created_at=NOW,
        created_by="cli:root",
        **changes,  # type: ignore[arg-type]
    )


def test_a_token_is_made_of_prefix_id_secret_and_checksum() -> None:
    made = [generate(ambient.random_bytes) for _ in range(50)]
    for one in made:
        prefix, identifier, secret, checksum = one.text.split("_")
        assert (prefix, identifier, len(secret)) == ("gsa", one.id, 40)
        assert checksum == f"{zlib.crc32(one.text[:-8].encode()):08x}"
        assert one.text not in repr(one)
    assert len({one.id for one in made}) == len({one.text for one in made}) == 50


@given(st.integers(min_value=0, max_value=2**64))
def test_what_is_made_is_read_again(seed: int) -> None:
    state = seed

    def random_bytes(count: int) -> bytes:
        nonlocal state
        drawn = bytearray()
        for _ in range(count):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            drawn.append(state >> 56)
        return bytes(drawn)

    made = generate(random_bytes)
    assert parse(made.text) == made


@given(st.integers(0, len(TEXT) - 1), st.sampled_from(LETTERS))
def test_one_wrong_letter_is_seen(at: int, letter: str) -> None:
    wrong = TEXT[:at] + letter + TEXT[at + 1 :]
    if wrong != TEXT:
        with pytest.raises(Invalid) as caught:
            parse(wrong)
        assert caught.value.field == "token"


@given(st.one_of(st.text(), st.text(LETTERS).map(lambda text: f"gsa_{text}")))
def test_nothing_else_is_taken_for_a_token_or_shown(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert caught.value.why in {
        "it is no admin token: those begin with gsa_",
        "it was cut off or mistyped: its checksum does not fit",
    }


@pytest.mark.parametrize(
    "wrong", [TEXT[:-1], TEXT + "0", f" {TEXT}", f"{TEXT}\n", TEXT.upper(), TEXT[:20]]
)
def test_a_token_that_was_cut_or_padded_is_none(wrong: str) -> None:
    with pytest.raises(Invalid):
        parse(wrong)


def test_a_token_is_good_until_it_ends_or_is_revoked() -> None:
    assert a_token().state(NOW + 10**9) == "active"
    assert a_token(expires_at=NOW + 1).state(NOW) == "active"
    assert a_token(expires_at=NOW + 1).state(NOW + 1) == "expired"
    assert a_token(expires_at=NOW + 1, revoked_at=NOW).state(NOW + 1) == "revoked"
    assert a_token().caller == Caller(kind=Kind.TOKEN, name="ci")
