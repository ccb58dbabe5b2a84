import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.exposure import Way, read_host
from app.kube.exposure.plan import MARK, Observed, Plan, Served
from app.kube.exposure.ways import WAYS, chosen
from app.kube.resources import SERVICES, Key, Object
from tests.kube.exposure.scene import INSTALLATION, OBJECTS, a_plan
from tests.kube.exposure.statuses import OBJECTS as ANY_OBJECT

SERVED = Served(routes=True, gateways="v1", tls_routes="v1")
PLANS = [
    a_plan(way, host=host, class_name=name, gateway=gateway)
    for way in WAYS
    for host in ("", "grants.example")
    for name in ("", "any")
    for gateway in (None, Key("infra", "shared"))
]
KINDS = ("Service", "Route", "Ingress", "Gateway", "TLSRoute")


def test_every_way_but_auto_is_in_the_table() -> None:
    assert WAYS.keys() == set(Way) - {Way.AUTO}


def test_left_to_us_it_is_a_route_where_there_are_some_and_else_a_load_balancer() -> None:
    assert chosen(Way.AUTO, Served(routes=True)) is Way.ROUTE
    assert chosen(Way.AUTO, Served(gateways="v1")) is Way.LOAD_BALANCER
    for way in WAYS:
        assert chosen(way, Served(routes=True)) is way


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(plan.way))
def test_all_that_is_wanted_is_named_and_marked_and_of_one_kind_each(plan: Plan) -> None:
    wanted = WAYS[plan.way].wanted(plan, SERVED)
    for one in wanted:
        metadata = one.body["metadata"]
        assert Key(metadata["namespace"], metadata["name"]) == OBJECTS
        assert metadata["labels"][MARK] == INSTALLATION
    assert len({one.resource for one in wanted}) == len(wanted)
    assert [one.resource for one in wanted[:1]] == ([] if plan.way is Way.URL else [SERVICES])
    assert WAYS[plan.way].wanted(plan, SERVED) == wanted


@pytest.mark.parametrize("way", [way for way in WAYS if way is not Way.URL])
def test_without_objects_there_is_no_address_and_it_is_said_what_for(way: Way) -> None:
    observed = WAYS[way].observed(a_plan(way, host="grants.example"), {})
    assert observed.addresses == ()
    assert observed.hosts == ()
    assert observed.waiting.startswith("waiting for an address of ")
    assert str(OBJECTS) in observed.waiting


def test_of_a_url_nothing_is_seen_and_nothing_waited_for() -> None:
    assert WAYS[Way.URL].observed(a_plan(Way.URL), {}) == Observed()


@given(st.sampled_from(PLANS), st.dictionaries(st.sampled_from(KINDS), ANY_OBJECT, max_size=5))
def test_whatever_others_write_there_is_a_good_address_or_a_reason(
    plan: Plan, found: dict[str, Object]
) -> None:
    observed = WAYS[plan.way].observed(plan, found)
    assert bool(observed.addresses) != bool(observed.waiting) or plan.way is Way.URL
    for host in observed.hosts:
        assert read_host(host) == host
    assert all(1 <= one.port <= 65535 for one in observed.addresses)
    assert "\n" not in observed.waiting
    assert observed.waiting.isprintable()


@pytest.mark.parametrize(
    ("way", "served", "lacks"),
    [
        (Way.ROUTE, Served(), "Routes"),
        (Way.ROUTE, Served(routes=True), ""),
        (Way.GATEWAY, Served(gateways="v1"), "TLSRoutes"),
        (Way.GATEWAY, Served(tls_routes="v1"), "Gateways"),
        (Way.GATEWAY, Served(tls_routes="v1", gateways="v1"), ""),
        (Way.LOAD_BALANCER, Served(), ""),
        (Way.INGRESS, Served(), ""),
    ],
)
def test_a_way_says_what_it_cannot_do_without(way: Way, served: Served, lacks: str) -> None:
    told = WAYS[way].lacking(a_plan(way), served)
    assert bool(told) == bool(lacks)
    assert lacks in told
