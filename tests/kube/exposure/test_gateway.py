from typing import Any

import pytest

from app.kube.exposure.gateway import observed, wanted
from app.kube.exposure.plan import Observed, Served
from app.kube.resources import Key
from tests.kube.exposure.scene import NAME, OBJECTS, PLACE, a_plan, condition, made

SERVED = Served(gateways="v1beta1", tls_routes="v1alpha2")
YES = condition("Accepted", True, "Accepted")
OWN = {"name": NAME}
GATEWAY = {
    "status": {
        "addresses": [{"value": "192.0.2.4"}],
        "conditions": [condition("Programmed", True, "Programmed")],
    }
}
WAITING = f"waiting for an address of TLSRoute {OBJECTS}"


def seen(*parents: Any, gateway: Any = GATEWAY, **plan: Any) -> Observed:
    asked = a_plan(**{"host": "grants.example"} | plan)
    found = made(wanted(asked, SERVED), parents=list(parents))
    return observed(asked, {**found, "Gateway": {**found["Gateway"], **gateway}})


def parent(reference: object, *conditions: object) -> dict[str, object]:
    return {"parentRef": reference, "conditions": list(conditions)}


def test_objects_are_of_the_versions_that_are_served() -> None:
    made = wanted(a_plan(host="grants.example", class_name="istio"), SERVED)
    assert [one.resource.api_version for one in made] == [
        "v1",
        "gateway.networking.k8s.io/v1beta1",
        "gateway.networking.k8s.io/v1alpha2",
    ]


def test_the_route_is_on_the_listener_of_our_own_gateway() -> None:
    _, gateway, route = wanted(a_plan(host="grants.example", class_name="istio"), SERVED)
    (listener,) = gateway.body["spec"]["listeners"]
    (reference,) = route.body["spec"]["parentRefs"]
    assert reference["sectionName"] == listener["name"]
    assert reference["name"] == gateway.body["metadata"]["name"]
    assert "namespace" not in reference
    assert [listener["hostname"]] == route.body["spec"]["hostnames"] == ["grants.example"]


@pytest.mark.parametrize(
    ("key", "reference"),
    [(Key(PLACE, "shared"), {}), (Key("infra", "shared"), {"namespace": "infra"})],
)
def test_on_somebody_elses_gateway_there_is_only_a_route(
    key: Key, reference: dict[str, str]
) -> None:
    _, route = wanted(a_plan(host="grants.example", gateway=key), SERVED)
    (found,) = route.body["spec"]["parentRefs"]
    about = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "shared"}
    assert found == about | reference


def test_it_is_reached_when_gateway_and_route_are_accepted() -> None:
    told = seen(parent(OWN, YES))
    assert [one.url for one in told.addresses] == ["https://grants.example:8443"]
    assert [one.port for one in seen(parent(OWN, YES), port=443).addresses] == [443]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({}, ""),
        ({"conditions": [condition("Programmed", False, "Invalid", "no")]}, ": Invalid: no"),
        ({"conditions": [condition("Programmed", True, "Programmed")]}, ""),
        ({"addresses": [{"value": "192.0.2.4"}]}, ""),
    ],
)
def test_a_gateway_that_does_not_work_is_waited_for(status: dict[str, Any], why: str) -> None:
    told = seen(parent(OWN, YES), gateway={"status": status})
    assert told.waiting == f"waiting for an address of Gateway {OBJECTS}{why}"


def test_a_route_that_is_not_accepted_says_why() -> None:
    no = condition("Accepted", False, "NoMatchingListenerHostname", "none")
    assert seen(parent(OWN, no)).waiting == f"{WAITING}: NoMatchingListenerHostname: none"
    unresolved = condition("ResolvedRefs", False, "BackendNotFound", "gone")
    assert seen(parent(OWN, YES, unresolved)).waiting == f"{WAITING}: BackendNotFound: gone"
    assert seen().waiting == seen(parent(OWN)).waiting == WAITING


def test_what_another_gateway_says_is_not_for_us() -> None:
    other = parent({"name": "other"}, YES)
    elsewhere = parent({"name": NAME, "namespace": "elsewhere"}, YES)
    assert seen(other, elsewhere).waiting == WAITING
    plan = a_plan(host="a.example", gateway=Key("infra", "shared"))
    assert observed(plan, {}).addresses == ()
    accepted = parent({"name": "shared", "namespace": "infra"}, YES)
    assert observed(plan, made(wanted(plan, SERVED), parents=[accepted])).hosts == ("a.example",)


def test_host_and_port_are_those_that_are_there_and_not_those_that_were_asked_for() -> None:
    found = made(wanted(a_plan(host="old.example"), SERVED), parents=[parent(OWN, YES)])
    found["Gateway"] |= GATEWAY
    (told,) = observed(a_plan(host="new.example", port=443), found).addresses
    assert told.url == "https://old.example:8443"


@pytest.mark.parametrize("kind", ["Gateway", "TLSRoute"])
def test_what_was_said_of_an_earlier_wish_does_not_count(kind: str) -> None:
    plan = a_plan(host="grants.example")
    known = {**YES, "observedGeneration": 2}
    programmed = {**condition("Programmed", True, "Programmed"), "observedGeneration": 2}
    found = made(wanted(plan, SERVED), parents=[parent(OWN, known)])
    found["Gateway"]["status"] = {**GATEWAY["status"], "conditions": [programmed]}
    for one in ("Gateway", "TLSRoute"):
        found[one]["metadata"] = {**found[one]["metadata"], "generation": 2}
    assert observed(plan, found).hosts == ("grants.example",)
    found[kind]["metadata"]["generation"] = 3
    assert observed(plan, found).waiting.startswith(f"waiting for an address of {kind}")


def test_a_listener_that_ends_tls_is_no_way_in() -> None:
    plan = a_plan(host="grants.example")
    found = made(wanted(plan, SERVED), parents=[parent(OWN, YES)])
    found["Gateway"] |= GATEWAY
    found["Gateway"]["spec"]["listeners"][0]["tls"]["mode"] = "Terminate"
    assert "it does not pass TLS through" in observed(plan, found).waiting


@pytest.mark.parametrize(
    "spec", [{"hostnames": 5}, {"hostnames": "abc"}, {"rules": [{"backendRefs": [{"name": "x"}]}]}]
)
def test_a_route_that_others_have_changed_is_no_way_in(spec: dict[str, Any]) -> None:
    plan = a_plan(host="grants.example")
    found = made(wanted(plan, SERVED), parents=[parent(OWN, YES)])
    found["Gateway"] |= GATEWAY
    found["TLSRoute"]["spec"] |= spec
    assert observed(plan, found).addresses == ()
