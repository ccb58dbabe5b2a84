from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.kept_answers import KeptAnswer, unpacked
from app.errors import Broken, Unavailable

ANSWER = KeptAnswer(
    issuer_id=7, certificate_pem=b"certificate", key_pem=b"the key", links=b"---\nlinks\n"
)
PARTS = st.binary(max_size=2**16 - 1)


@given(
    st.builds(
        KeptAnswer,
        issuer_id=st.integers(1, 2**63 - 1),
        certificate_pem=PARTS,
        key_pem=PARTS,
        links=st.binary(min_size=1),
    )
)
def test_what_is_packed_is_unpacked_as_it_was(answer: KeptAnswer) -> None:
    assert unpacked(answer.packed()) == answer


def test_an_answer_is_little_longer_than_its_parts() -> None:
    parts = len(ANSWER.certificate_pem) + len(ANSWER.key_pem) + len(ANSWER.links)
    assert len(ANSWER.packed()) == parts + 13


@pytest.mark.parametrize("length", range(13 + 11 + 7 + 1))
def test_an_answer_that_is_cut_off_is_no_answer(length: int) -> None:
    with pytest.raises(Broken, match="cut off"):
        unpacked(ANSWER.packed()[:length])


def test_an_answer_of_another_form_is_not_guessed_at() -> None:
    with pytest.raises(Unavailable, match="form 2"):
        unpacked(b"\x02" + ANSWER.packed()[1:])


def test_no_part_shows_in_a_representation() -> None:
    assert repr(ANSWER) == "KeptAnswer(issuer_id=7)"
    assert "the key" not in repr(replace(ANSWER, key_pem=b"the key"))
