import pytest
from pydantic import ValidationError

from app.api.admin_tokens import CreatedAdminToken, NewAdminToken
from app.domain.callers import Verb, read_rights


def test_rights_of_the_description_are_rights_of_ours() -> None:
    for verb in (*Verb, "*"):
        wish = NewAdminToken.model_validate({"name": "ci", "verbs": [verb], "sites": ["west"]})
        read_rights(wish.verbs, wish.sites)


@pytest.mark.parametrize(
    "change", [{"verbs": []}, {"verbs": ["write"]}, {"sites": []}, {"sites": ["A"]}, {"name": ""}]
)
def test_those_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NewAdminToken.model_validate({"name": "ci", "verbs": ["read"], "sites": ["*"]} | change)


def test_a_secret_is_not_in_what_is_shown_of_an_answer() -> None:
    assert not any(CreatedAdminToken.model_fields[name].repr for name in ("secret",))
