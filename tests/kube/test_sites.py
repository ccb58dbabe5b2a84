from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.sites import Endpoint, Role
from app.kube.resources import Object
from app.kube.sites import DEFAULT_ISSUER, active, kept
from tests.kube.objects import ENDPOINTS, a_site

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def born(name: str, when: str, **metadata: Any) -> Object:
    made = a_site(name)
    made["metadata"] |= {"creationTimestamp": when} | metadata
    return made


def endpoint(**changes: Any) -> Object:
    return {**ENDPOINTS[0], **changes}


def with_endpoints(*endpoints: Any) -> list[tuple[str, str, int, str]]:
    """What is read of the endpoints of a Site."""
    found = active([a_site(status={"endpoints": list(endpoints)})])
    assert found is not None
    return [(one.role.value, one.host, one.port, one.group) for one in found.endpoints]


def test_a_site_tells_its_endpoints_and_who_signs() -> None:
    found = active([a_site()])
    assert found is not None
    assert (found.name, found.edge, found.issuer) == ("north", False, DEFAULT_ISSUER)
    assert found.endpoints == (
        Endpoint(role=Role.INTER_ROUTER, host="192.0.2.4", port=55671),
        Endpoint(role=Role.EDGE, host="192.0.2.4", port=45671),
    )


def test_where_there_is_no_site_there_is_none() -> None:
    assert active([]) is None


def test_a_site_that_has_just_been_made_has_nothing_yet() -> None:
    made = a_site()
    del made["spec"], made["status"]
    found = active([made])
    assert found is not None
    assert (found.edge, found.issuer, found.endpoints) == (False, DEFAULT_ISSUER, ())


@pytest.mark.parametrize(
    ("spec", "status", "issuer"),
    [
        ("spec-ca", "status-ca", "spec-ca"),
        (None, "status-ca", "status-ca"),
        ("", "status-ca", "status-ca"),
        ("spec-ca", None, "spec-ca"),
        (None, None, DEFAULT_ISSUER),
        ("", "", DEFAULT_ISSUER),
        ("Not A Name", "status-ca", "status-ca"),
        ("../other/ca", "", DEFAULT_ISSUER),
        (7, [], DEFAULT_ISSUER),
    ],
)
def test_the_issuer_is_that_of_the_spec_then_of_the_status_then_skuppers(
    spec: object, status: object, issuer: str
) -> None:
    found = active([a_site(defaultIssuer=spec, status={"defaultIssuer": status})])
    assert found is not None
    assert found.issuer == issuer


@pytest.mark.parametrize(("edge", "is_edge"), [(True, True), (False, False), ("true", False)])
def test_an_edge_site_is_one_that_says_so(edge: object, is_edge: bool) -> None:
    found = active([a_site(edge=edge)])
    assert found is not None
    assert found.edge is is_edge


def test_of_several_sites_the_oldest_counts() -> None:
    young, old = born("a", "2026-09-21T10:00:00Z"), born("b", "2026-09-20T10:00:00Z")
    twin = born("c", "2026-09-20T10:00:00Z")
    for order in ([young, old, twin], [twin, old, young]):
        found = active(order)
        assert found is not None
        assert found.name == "b"


def test_a_site_that_is_being_deleted_counts_no_more() -> None:
    going = born("b", "2026-09-20T10:00:00Z", deletionTimestamp="2026-09-21T11:00:00Z")
    assert active([going]) is None
    found = active([going, born("a", "2026-09-21T10:00:00Z")])
    assert found is not None
    assert found.name == "a"


def test_endpoints_are_read_whatever_their_host_is() -> None:
    assert with_endpoints(
        endpoint(host="north.example"),
        endpoint(host="2001:db8::7", name="edge"),
        endpoint(port=443),
        endpoint(group="skupper-router-2"),
        {one: text for one, text in ENDPOINTS[0].items() if one != "group"},
    ) == [
        ("inter-router", "north.example", 55671, "skupper-router"),
        ("edge", "2001:db8::7", 55671, "skupper-router"),
        ("inter-router", "192.0.2.4", 443, "skupper-router"),
        ("inter-router", "192.0.2.4", 55671, "skupper-router-2"),
        ("inter-router", "192.0.2.4", 55671, "skupper-router"),
    ]


@pytest.mark.parametrize(
    "odd",
    [
        endpoint(name="claims"),
        endpoint(name=["edge"]),
        endpoint(name=None),
        endpoint(host=""),
        endpoint(host=None),
        endpoint(host="two hosts"),
        endpoint(host="a:b"),
        endpoint(port=""),
        endpoint(port="0"),
        endpoint(port="65536"),
        endpoint(port=True),
        endpoint(group="Not A Group"),
        "inter-router",
        None,
    ],
)
def test_an_endpoint_that_is_none_of_ours_or_not_finished_is_left_out(odd: object) -> None:
    assert with_endpoints(odd, ENDPOINTS[1]) == [("edge", "192.0.2.4", 45671, "skupper-router")]


@given(spec=ANYTHING, status=ANYTHING)
def test_whatever_somebody_has_written_can_be_read(spec: object, status: object) -> None:
    made = a_site() | {"spec": spec, "status": status}
    active([kept(made)])


@given(endpoints=ANYTHING, part=ANYTHING)
def test_so_can_whatever_is_in_the_place_of_endpoints(endpoints: object, part: object) -> None:
    for found in (endpoints, [endpoints], [endpoint(name=part)], [endpoint(host=part, port=part)]):
        active([kept(a_site(status={"endpoints": found}))])


def test_what_is_read_of_a_site_is_all_that_is_kept() -> None:
    made = born("north", "2026-09-20T10:00:00Z", managedFields=[{}], annotations={"a": "b"})
    made["metadata"] |= {"uid": "u", "resourceVersion": "7", "namespace": "north"}
    made["spec"] |= {"edge": False, "defaultIssuer": "ca", "ha": True}
    made["status"] |= {"defaultIssuer": "ca", "sitesInNetwork": 3, "conditions": [{}]}
    assert kept(made) == {
        "metadata": {
            "namespace": "north",
            "name": "north",
            "uid": "u",
            "creationTimestamp": "2026-09-20T10:00:00Z",
        },
        "spec": {"edge": False, "defaultIssuer": "ca"},
        "status": {"endpoints": list(ENDPOINTS), "defaultIssuer": "ca"},
    }
    assert active([kept(made)]) == active([made])
