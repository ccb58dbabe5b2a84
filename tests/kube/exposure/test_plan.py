import re

import pytest

from app.domain.exposure import Address
from app.kube.exposure.plan import (
    MARK,
    Observed,
    condition,
    installation,
    line_of,
    metadata,
    part,
    parts,
    said,
    waiting_for,
)
from app.kube.resources import SERVICES, Key
from tests.kube.exposure.scene import NAME, OBJECTS, OUR_LABELS, PLACE, a_plan


def test_the_host_is_the_one_that_was_asked_for_or_one_below_the_domain() -> None:
    assert a_plan().public_host == ""
    assert a_plan(domain="apps.example").public_host == f"{NAME}.{PLACE}.apps.example"
    assert a_plan(host="a.example", domain="apps.example").public_host == "a.example"


def test_an_installation_is_named_by_its_lease_as_a_label_can_be() -> None:
    assert installation(Key("ops", "gs")) == "ops.gs"
    names = {installation(Key("n" * 60, f"gs{number}")) for number in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"[a-z0-9]{1,63}", name) for name in names)


def test_only_what_faces_outside_has_what_was_asked_for() -> None:
    plan = a_plan(annotations={"a": "b"}, labels={"c": "d", MARK: "stolen"})
    outside, inside = metadata(plan, facing=True), metadata(plan, facing=False)
    place = {"name": NAME, "namespace": PLACE}
    assert outside == place | {"labels": OUR_LABELS | {"c": "d"}, "annotations": {"a": "b"}}
    assert inside == place | {"labels": OUR_LABELS}


def test_annotations_that_were_asked_for_win() -> None:
    plan = a_plan(annotations={"a": "theirs"})
    made = metadata(plan, facing=True, annotations={"a": "ours", "b": "ours"})
    assert made["annotations"] == {"a": "theirs", "b": "ours"}


def test_what_is_waited_for_is_one_line() -> None:
    assert waiting_for(SERVICES, OBJECTS) == Observed(
        waiting=f"waiting for an address of Service {OBJECTS}"
    )
    told = waiting_for(SERVICES, OBJECTS, "a\nb" + "c" * 1000).waiting
    assert told.startswith(f"waiting for an address of Service {OBJECTS}: a bccc")
    assert len(told) < 300


def test_all_hosts_are_listed_once() -> None:
    observed = Observed(
        addresses=(Address(host="a", port=1), Address(host="b", port=1)), names=("b", "c")
    )
    assert observed.hosts == ("a", "b", "c")


@pytest.mark.parametrize("found", [None, "x", 1, [], {}, {"a": None}, {"a": "x"}, {"a": {"b": 1}}])
def test_in_a_status_may_be_anything(found: object) -> None:
    assert part(found, "a", "b", "c") is None
    assert parts(found, "a", "b") == []
    assert condition(found, "Ready") is None


def test_conditions_are_found_by_their_type() -> None:
    ready = {"type": "Ready", "reason": "Because", "message": "of\tthis"}
    found = {"conditions": ["x", {"type": "Other"}, ready]}
    assert condition(found, "Ready") == ready
    assert line_of(said(ready)) == "Because: of this"
    assert said({"reason": "Because"}) == "Because"
    assert said(None) == ""
