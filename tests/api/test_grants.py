from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.api.grants import (
    LABEL,
    LABEL_VALUE,
    CreatedGrant,
    GrantListing,
    NewGrant,
    Policy,
    Revocation,
)
from app.domain.policies import check_labels


@given(
    st.from_regex(LABEL, fullmatch=True).filter(lambda key: key[-1] != "\n"),
    st.from_regex(LABEL_VALUE, fullmatch=True).filter(lambda value: not value.endswith("\n")),
)
def test_labels_of_the_description_are_labels_of_ours(key: str, value: str) -> None:
    check_labels({key: value})
    assert NewGrant(name="lab", labels={key: value}).labels == {key: value}


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"name": "lab", "redemptions": "1"},
        {"name": "lab", "redemptions": True},
        {"name": "lab", "redemptions": 1.5},
        {"name": "lab", "cost": 0},
        {"name": "lab", "code": "with a blank in it"},
        {"name": "lab", "labels": {"a": "b c"}},
        {"name": "lab", "labels": {f"l{number}": "" for number in range(33)}},
        {"name": "lab", "description": "x" * 1001},
        {"name": "lab", "policy": {"key_type": "dsa"}},
        {"name": "lab", "policy": {"per_subject": 0}},
        {"name": "lab", "policy": {"name_prefix": "-a"}},
        {"name": "lab", "policy": {"subjects": [""]}},
    ],
)
def test_a_wish_that_cannot_be_is_refused(wish: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NewGrant.model_validate(wish)


def test_what_is_left_out_has_a_meaning() -> None:
    wish = NewGrant(name="lab")
    assert (wish.redemptions, wish.window, wish.cost, wish.labels) == (1, "15m", 1, {})
    assert Policy() == Policy(subjects=(), networks=())
    assert Revocation().certificates
    assert GrantListing().order == "asc"


def test_only_true_and_false_say_whether_certificates_are_revoked() -> None:
    for value in ("yes", 0, 1, "false"):
        with pytest.raises(ValidationError):
            Revocation.model_validate({"certificates": value})


def test_a_code_is_not_in_what_is_shown_of_an_answer() -> None:
    assert not any(CreatedGrant.model_fields[name].repr for name in ("code", "token"))
