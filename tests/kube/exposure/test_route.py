from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.kube.exposure.plan import Observed, Served
from app.kube.exposure.route import observed, wanted
from app.kube.resources import ROUTES
from tests.kube.exposure.scene import OBJECTS, a_plan, condition, made

YES = condition("Admitted", True, "")
WAITING = f"waiting for an address of Route {OBJECTS}"


def seen(*routers: Any, **plan: Any) -> Observed:
    asked = a_plan(**plan)
    return observed(asked, made(wanted(asked, Served(routes=True)), ingress=list(routers)))


def router(host: object, *conditions: object) -> dict[str, object]:
    return {"host": host, "conditions": list(conditions)}


def test_a_route_passes_tls_through_to_the_service() -> None:
    service, route = wanted(a_plan(host="grants.example"), Served(routes=True))
    assert service.body["spec"]["type"] == "ClusterIP"
    assert route.resource == ROUTES
    assert route.body["spec"]["tls"]["termination"] == "passthrough"
    assert route.body["spec"]["host"] == "grants.example"
    assert route.body["spec"]["port"]["targetPort"] == service.body["spec"]["ports"][0]["name"]
    assert route.body["spec"]["to"]["name"] == service.body["metadata"]["name"]


def test_only_the_route_has_what_was_asked_for_of_what_faces_outside() -> None:
    service, route = wanted(a_plan(annotations={"a": "b"}), Served(routes=True))
    assert "annotations" not in service.body["metadata"]
    assert route.body["metadata"]["annotations"] == {"a": "b"}


def test_a_host_counts_when_a_router_has_admitted_it() -> None:
    no = condition("Admitted", False, "HostAlreadyClaimed", "it is taken")
    assert seen(router("a.example", no)).waiting == f"{WAITING}: HostAlreadyClaimed: it is taken"
    assert seen(router("a.example")).waiting == WAITING
    assert seen(router("", YES)).waiting == WAITING
    told = seen(router("b.example", no), router("a.example", YES))
    assert [one.url for one in told.addresses] == ["https://a.example:443"]
    assert told.hosts == ("a.example",)


def test_a_route_that_ends_tls_is_no_way_in() -> None:
    found = made(wanted(a_plan(), Served(routes=True)), ingress=[router("a.example", YES)])
    found["Route"]["spec"] = {**found["Route"]["spec"], "tls": {"termination": "edge"}}
    told = observed(a_plan(), found)
    assert (told.addresses, told.waiting) == ((), f"{WAITING}: it does not pass TLS through")


@given(st.permutations(["a.example", "b.example", "c.example"]))
def test_several_routers_give_as_many_hosts_in_one_order(hosts: list[str]) -> None:
    told = seen(*(router(host, YES) for host in hosts), port=8443)
    assert told.hosts == ("a.example", "b.example", "c.example")
    assert {one.port for one in told.addresses} == {8443}


def test_a_route_to_another_service_is_no_way_in() -> None:
    found = made(wanted(a_plan(), Served(routes=True)), ingress=[router("a.example", YES)])
    found["Route"]["spec"]["to"]["name"] = "other"
    told = observed(a_plan(), found)
    assert (told.addresses, told.waiting) == ((), f"{WAITING}: it leads to another Service")
