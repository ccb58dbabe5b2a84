import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import policies
from app.domain.certificates import KeyType
from app.domain.policies import Ceilings, Policy
from app.errors import Invalid, Reason, Refused

FULL = Policy(
    subjects=("east-*", "5f0f8f8e"),
    networks=("10.1.0.0/16", "2001:db8::/32"),
    lifetime_seconds=3600,
    key_type=KeyType.ED25519,
    per_subject=2,
    name_prefix="east-",
)


def why_not(policy: Policy, **changes: str) -> str | None:
    claim = {"name": "east-1", "subject": "east-7", "peer": "10.1.2.3"} | changes
    try:
        policies.judge(policy, **claim)
    except Refused as refused:
        return str(refused) if refused.reason is Reason.POLICY else refused.reason
    return None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"subject": "5f0f8f8e"}, None),
        ({"subject": "5f0f8f8e-more"}, "subject"),
        ({"subject": "EAST-7"}, "subject"),
        ({"subject": "north-east-7"}, "subject"),
        ({"peer": "::ffff:10.1.2.3"}, None),
        ({"peer": "2001:db8::7%eth0"}, None),
        ({"peer": "10.2.0.1"}, "address"),
        ({"peer": "2001:db9::7"}, "address"),
        ({"peer": ""}, "address"),
        ({"peer": "somebody"}, "address"),
        ({"name": "west"}, "name"),
        ({"name": "east"}, "name"),
    ],
)
def test_a_claim_has_to_fulfil_all_of_a_policy(changes: dict[str, str], why: str | None) -> None:
    told = why_not(FULL, **changes)
    assert told is None if why is None else why in str(told)


def test_what_a_policy_does_not_ask_is_open_to_everybody() -> None:
    assert why_not(Policy(per_subject=1), subject="x", peer="", name="y") is None


def test_an_address_fits_where_networks_are_asked_for() -> None:
    assert policies.is_address_fit(FULL, "10.1.2.3") is True
    assert policies.is_address_fit(FULL, "10.2.0.1") is False
    assert policies.is_address_fit(Policy(), "10.2.0.1") is None


def test_brackets_in_a_pattern_mean_themselves() -> None:
    policy = Policy(subjects=("router[1]?",))
    assert why_not(policy, subject="router[1]a") is None
    assert why_not(policy, subject="router1a") is not None


@given(st.text(alphabet="a*", min_size=1, max_size=40), st.text(alphabet="ab", max_size=253))
def test_no_pattern_takes_long_for_any_subject(pattern: str, subject: str) -> None:
    why_not(Policy(subjects=(pattern,)), subject=subject)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"subjects": ("",)}, "subjects"),
        ({"subjects": ("a\n",)}, "subjects"),
        ({"subjects": ("a" * 254,)}, "subjects"),
        ({"subjects": tuple(map(str, range(65)))}, "subjects"),
        ({"networks": ("10.0.0.1/8",)}, "networks"),
        ({"networks": ("example.com",)}, "networks"),
        ({"networks": ("::ffff:10.0.0.0/104",)}, "networks"),
        ({"networks": tuple(f"10.0.0.{each}" for each in range(65))}, "networks"),
        ({"lifetime_seconds": 0}, "lifetime"),
        ({"per_subject": 0}, "per_subject"),
        ({"per_subject": 1_000_001}, "per_subject"),
        ({"name_prefix": "East"}, "name_prefix"),
        ({"name_prefix": "a" * 64}, "name_prefix"),
        ({"name_prefix": "../"}, "name_prefix"),
    ],
)
def test_a_policy_that_makes_no_sense_names_its_field(changes: Any, field: str) -> None:
    with pytest.raises(Invalid) as invalid:
        policies.checked(replace(Policy(), **changes))
    assert invalid.value.field == field


def test_a_policy_is_kept_in_one_form_and_none_that_asks_nothing() -> None:
    assert policies.checked(Policy(name_prefix="")) is None
    made = policies.checked(Policy(networks=("192.0.2.1", "192.0.2.1/32"), subjects=("a", "a")))
    assert made == Policy(networks=("192.0.2.1/32",), subjects=("a",))


def test_a_policy_is_read_as_it_was_written() -> None:
    text = policies.written(FULL)
    assert text is not None
    assert policies.read(text) == FULL
    assert policies.written(None) is None


@pytest.mark.parametrize(
    "text",
    [
        *('{"perSubject":1,"moonPhase":"full"}', "[]", "", "null", '{"keyType":"rsa-9"}', '"a"'),
        '{"networks":["10.0.0.0/8","everywhere"]}',
    ],
)
def test_a_policy_that_is_not_understood_is_fulfilled_by_nobody(text: str) -> None:
    assert "later release" in str(why_not(policies.read(text)))


def test_settings_of_an_access_grant_are_read_and_those_of_others_left_alone() -> None:
    assert policies.read_settings({"other": "x", "policyx": "y"}) is None
    found = policies.read_settings(
        {
            "policy-subjects": "east-*, 5f0f8f8e",
            "policy-networks": "10.1.0.0/16,2001:db8::/32",
            "policy-lifetime": "1h",
            "policy-key-type": "ed25519",
            "policy-per-subject": "2",
            "policy-name-prefix": "east-",
            "other": "x",
        }
    )
    assert found == FULL


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"policy-network": "10.0.0.0/8"}, "settings"),
        ({"policy-networks": ""}, "policy-networks"),
        ({"policy-networks": "10.0.0.0/8,"}, "policy-networks"),
        ({"policy-networks": ["10.0.0.0/8"]}, "policy-networks"),
        ({"policy-subjects": " "}, "policy-subjects"),
        ({"policy-subjects": "a," * 5000}, "policy-subjects"),
        ({"policy-lifetime": "1d"}, "policy-lifetime"),
        ({"policy-lifetime": "1500ms"}, "policy-lifetime"),
        ({"policy-key-type": "dsa"}, "policy-key-type"),
        ({"policy-per-subject": "0"}, "policy-per-subject"),
        ({"policy-per-subject": "-1"}, "policy-per-subject"),
        ({"policy-per-subject": "9" * 99}, "policy-per-subject"),
        ({"policy-name-prefix": "A"}, "policy-name-prefix"),
    ],
)
def test_a_setting_that_is_spelt_wrong_lets_nobody_in(settings: Any, field: str) -> None:
    with pytest.raises(Invalid) as invalid:
        policies.read_settings(settings)
    assert invalid.value.field == field


@given(
    st.dictionaries(
        st.sampled_from(["networks", "subjects", "lifetime", "key-type", "per-subject", "x"]).map(
            "policy-{}".format
        ),
        st.text() | st.integers() | st.none(),
    )
)
def test_any_settings_are_a_policy_or_invalid(settings: dict[str, Any]) -> None:
    try:
        found = policies.read_settings(settings)
    except Invalid:
        return
    text = policies.written(found)
    assert found == (None if text is None else policies.read(text))
    assert text is None or json.loads(text)


@pytest.mark.parametrize(
    ("labels", "good"),
    [
        ({"team": "ops", "example.com/ticket": "A-1", "empty": ""}, True),
        ({"": "x"}, False),
        ({"a b": "x"}, False),
        ({"-a": "x"}, False),
        ({"/a": "x"}, False),
        ({"Example/a": "x"}, False),
        ({"a": "x y"}, False),
        ({"a": "x" * 64}, False),
        ({str(each): "" for each in range(33)}, False),
    ],
)
def test_labels_are_those_that_kubernetes_takes(labels: dict[str, str], *, good: bool) -> None:
    if good:
        policies.check_labels(labels)
        return
    with pytest.raises(Invalid, match="labels"):
        policies.check_labels(labels)


def test_a_description_is_text_of_bounded_length() -> None:
    policies.check_description("For the lab,\nuntil March. Grüße")
    for text in ("a" * 1001, "\x1b[31m"):
        with pytest.raises(Invalid, match="description"):
            policies.check_description(text)


@pytest.mark.parametrize(
    ("ceilings", "field"),
    [
        (Ceilings(), None),
        (Ceilings(window_seconds=60, redemptions=2, lifetime_seconds=3600), None),
        (Ceilings(window_seconds=59), "window"),
        (Ceilings(redemptions=1), "redemptions"),
        (Ceilings(lifetime_seconds=3599), "lifetime"),
    ],
)
def test_no_grant_exceeds_a_ceiling(ceilings: Ceilings, field: str | None) -> None:
    asked: Any = {"window_seconds": 60, "redemptions": 2, "policy": FULL}
    if field is None:
        policies.check_ceilings(ceilings, **asked)
        return
    with pytest.raises(Invalid) as invalid:
        policies.check_ceilings(ceilings, **asked)
    assert invalid.value.field == field
