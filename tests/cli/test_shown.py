import pytest

from app.api import grants as shapes
from app.cli import shown
from app.domain.certificates import KeyType
from app.domain.policies import Policy
from app.errors import Invalid
from tests.client.test_client import GRANT

POLICY = Policy(
    subjects=("east-*",),
    networks=("10.1.0.0/16",),
    lifetime_seconds=5400,
    key_type=KeyType.P256,
    per_subject=2,
    name_prefix="east-",
)


def test_a_policy_comes_back_as_it_was_asked_for() -> None:
    assert shown.policy(shown.asked_policy(POLICY) or shapes.Policy()) == POLICY
    assert shown.asked_policy(None) is None


def test_what_cannot_be_asked_for_names_the_field() -> None:
    with pytest.raises(Invalid) as caught:
        shown.asked_policy(Policy(name_prefix="No Prefix"))
    assert caught.value.field == "name_prefix"


def test_a_grant_has_the_state_that_the_server_says_whatever_the_time_is_here() -> None:
    seen = shown.seen_grant(shapes.Grant.model_validate(GRANT | {"state": "expired"}))
    assert seen.state == "expired"
    assert seen.suspected is None


def test_a_time_that_is_none_is_the_fault_of_the_server() -> None:
    assert shown.seconds("at", "1970-01-01T00:01:00Z") == 60
    assert shown.moment("at", None) is None
    with pytest.raises(Invalid) as caught:
        shown.seconds("at", "2026-11-23T10:00:00")
    assert caught.value.field == "server"
