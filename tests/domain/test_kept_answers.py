from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.kept_answers import KeptAnswer, unpacked
from app.errors import Broken, Unavailable

ANSWER = KeptAnswer(
    issuer_ids=(7,), certificate_pem=b"certificate", key_pem=b"the key", links=b"---\nlinks\n"
)
PARTS = st.binary(max_size=2**16 - 1)


@given(
    st.builds(
        KeptAnswer,
        issuer_ids=st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=255).map(tuple),
        certificate_pem=PARTS,
        key_pem=PARTS,
        links=st.binary(min_size=1),
    )
)
def test_what_is_packed_is_unpacked_as_it_was(answer: KeptAnswer) -> None:
    assert unpacked(answer.packed()) == answer


def test_an_answer_of_one_authority_is_written_as_the_first_release_did() -> None:
    head = bytes([1]) + (7).to_bytes(8, "big") + bytes([0, 11, 0, 7])
    assert ANSWER.packed() == head + b"certificate" + b"the key" + b"---\nlinks\n"
    assert unpacked(head + b"certificate" + b"the key" + b"---\nlinks\n") == ANSWER


def test_an_answer_without_a_key_is_kept_as_one() -> None:
    assert unpacked(replace(ANSWER, key_pem=b"").packed()) == replace(ANSWER, key_pem=b"")


def test_an_answer_of_several_names_them_in_their_order() -> None:
    several = replace(ANSWER, issuer_ids=(9, 12, 7))
    packed = several.packed()
    assert packed[0] == 2
    assert unpacked(packed).issuer_ids == (9, 12, 7)
    assert len(packed) == len(ANSWER.packed()) - 13 + 6 + 3 * 8


@pytest.mark.parametrize("count", [0, 256])
def test_an_answer_trusts_one_authority_at_least_and_not_hundreds(count: int) -> None:
    with pytest.raises(Broken, match=f"does not trust {count}"):
        replace(ANSWER, issuer_ids=tuple(range(1, count + 1))).packed()


def test_an_answer_is_little_longer_than_its_parts() -> None:
    parts = len(ANSWER.certificate_pem) + len(ANSWER.key_pem) + len(ANSWER.links)
    assert len(ANSWER.packed()) == parts + 13


@pytest.mark.parametrize("answer", [ANSWER, replace(ANSWER, issuer_ids=(7, 8))], ids=["one", "two"])
def test_an_answer_that_is_cut_off_is_no_answer(answer: KeptAnswer) -> None:
    packed = answer.packed()
    for length in range(len(packed) - len(answer.links) + 1):
        with pytest.raises(Broken, match="cut off"):
            unpacked(packed[:length])


def test_an_answer_of_another_form_is_not_guessed_at() -> None:
    with pytest.raises(Unavailable, match="form 3"):
        unpacked(b"\x03" + ANSWER.packed()[1:])


def test_no_part_shows_in_a_representation() -> None:
    assert repr(ANSWER) == "KeptAnswer(issuer_ids=(7,))"
    assert "the key" not in repr(replace(ANSWER, key_pem=b"the key"))
