from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.sites import (
    HIGHEST_COST,
    Endpoint,
    Role,
    check_cost,
    check_host,
    in_stable_order,
    links,
    parse_endpoint,
)
from app.errors import Invalid, Lack, Reason, Refused, Unready
from tests.builders import an_endpoint

GROUPS = ("a", "b", "c", "router-10", "router-2", "skupper-router")
ENDPOINTS = st.builds(
    Endpoint,
    role=st.sampled_from(Role),
    host=st.sampled_from(["h1", "h2", "h3"]),
    port=st.integers(1, 5),
    group=st.sampled_from(GROUPS),
)


@pytest.mark.parametrize(
    ("text", "role", "host", "port"),
    [
        ("inter-router=west.example:55671", Role.INTER_ROUTER, "west.example", 55671),
        ("edge=west.example:45671", Role.EDGE, "west.example", 45671),
        ("edge=localhost:1", Role.EDGE, "localhost", 1),
        ("edge=192.0.2.1:65535", Role.EDGE, "192.0.2.1", 65535),
        ("edge=[2001:db8::1]:443", Role.EDGE, "2001:db8::1", 443),
        ("edge=[::ffff:192.0.2.1]:443", Role.EDGE, "::ffff:192.0.2.1", 443),
        ("edge=a_b.example:443", Role.EDGE, "a_b.example", 443),
        ("edge=west.example.:443", Role.EDGE, "west.example.", 443),
        ("edge=West.Example:0443", Role.EDGE, "West.Example", 443),
    ],
)
def test_an_endpoint_is_read(text: str, role: Role, host: str, port: int) -> None:
    assert parse_endpoint(text) == Endpoint(role=role, host=host, port=port)
    assert parse_endpoint(text, "router-2").group == "router-2"


@pytest.mark.parametrize(
    "text",
    [
        "", "=", "edge", "edge=", "edge=:", "edge=:443", "edge=h", "edge=h:", "edge= h:1",
        "Edge=h:443", "inter_router=h:443", "interior=h:1", "=h:443", "edge=h:0", "edge=h:65536",
        "edge=h:-1", "edge=h:+1", "edge=h:1e3", "edge=h: 1", "edge=h:1 ", "edge=h:http",
        "edge=h:\u0661", "edge=h:\u00b2", "edge=2001:db8::1:443", "edge=::1:443", "edge=[::1]",
        "edge=[::1]443", "edge=[192.0.2.1]:443", "edge=[h]:443", "edge=[]:443", "edge=[::1:443",
        "edge=::1]:443", "edge=[[::1]]:443", "edge=[fe80::1%eth0]:443", "edge=[::g]:443",
        "edge=1.2.3:443", "edge=1.2.3.4.5:443", "edge=256.0.0.1:443", "edge=1:443",
        "edge=\u0661.1.1.1:443", "edge=-a:443", "edge=a-:443", "edge=a..b:443", "edge=.:443",
        "edge=...:443", "edge=a b:443", "edge=a/b:443", "edge=a\n:443", "edge=a\x00b:443",
        "edge=\u00e9:443", "edge=\ud800:443", 'edge=a":443', "edge=" + "a" * 64 + ":443",
        "edge=" + "a." * 127 + ":443", "edge=https://h:443", "edge=user@h:443", "edge=*.h:443",
        "edge=h:00000199999", "edge=h:000001" + "9" * 5000, "edge=h:" + "1" * 5000, "x" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_endpoint(text)
    assert refused.value.field == "endpoint"
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize("group", ["", "A", "a.b", "a b", "a\n", "a" * 64])
def test_a_group_that_is_no_label_is_refused(group: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_endpoint("edge=h:1", group)
    assert refused.value.field == "group"


HOSTILE = st.one_of(
    st.text(max_size=80),
    st.text("edginter-ou=:[]%.0123456789ab_ \n\u0661\ud800/", max_size=80),
    st.builds(
        "{}={}:{}".format,
        st.sampled_from(["edge", "inter-router", "EDGE"]),
        st.one_of(st.text(max_size=30), st.text("0123456789.:[]%abf", max_size=30)),
        st.one_of(st.text(max_size=6), st.text("0123456789", max_size=12)),
    ),
)


@example("edge=h:00000199999")
@given(HOSTILE)
def test_hostile_text_gives_a_valid_endpoint_or_invalid_and_nothing_else(text: str) -> None:
    try:
        read = parse_endpoint(text)
    except Invalid:
        return
    assert 1 <= read.port <= 65535
    assert read.host.isascii()
    assert 1 <= len(read.host) <= 253
    assert not set(read.host) & set("[]%/@ \"'\\")
    if ":" in read.host:
        ip_address(read.host)


@given(st.text(max_size=80))
def test_no_host_raises_anything_but_invalid_naming_the_field(host: str) -> None:
    try:
        check_host("host", host)
    except Invalid as refused:
        assert refused.field == "host"  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize("cost", [1, 2, 99999, HIGHEST_COST])
def test_a_link_cost_within_the_routers_range_is_taken(cost: int) -> None:
    check_cost(cost)


@pytest.mark.parametrize("cost", [0, -1, HIGHEST_COST + 1])
def test_a_link_cost_out_of_range_is_refused(cost: int) -> None:
    with pytest.raises(Invalid) as refused:
        check_cost(cost)
    assert refused.value.field == "cost"


def test_one_group_makes_one_link_of_the_very_name() -> None:
    edge = an_endpoint(role=Role.EDGE, port=45671)
    (link,) = links("east", [an_endpoint(), edge], 7)
    assert (link.name, link.cost) == ("east", 7)
    assert link.endpoints == (an_endpoint(), edge)


def test_several_groups_make_numbered_links_in_the_order_of_the_groups() -> None:
    given_endpoints = [an_endpoint(group=group, host=group) for group in ("c", "a", "b", "a")]
    made = links("east", in_stable_order([*given_endpoints, an_endpoint(group="a")]), 3)
    assert [link.name for link in made] == ["east-1", "east-2", "east-3"]
    assert [{one.group for one in link.endpoints} for link in made] == [{"a"}, {"b"}, {"c"}]
    assert [one.host for one in made[0].endpoints] == ["a", "west.example"]
    assert {link.cost for link in made} == {3}


def test_a_site_without_endpoints_is_not_ready() -> None:
    with pytest.raises(Unready) as unready:
        links("east", [], 1)
    assert unready.value.lack is Lack.ENDPOINTS


def test_a_name_that_is_too_long_once_numbered_is_refused() -> None:
    two = [an_endpoint(group="a"), an_endpoint(group="b")]
    assert len(links("a" * 253, two[:1], 1)) == 1
    assert len(links("a" * 251, two, 1)) == 2
    with pytest.raises(Refused) as refused:
        links("a" * 252, two, 1)
    assert refused.value.reason is Reason.NAME


@given(st.lists(ENDPOINTS, min_size=1, max_size=12), st.permutations(GROUPS))
def test_links_do_not_depend_on_the_order_in_which_groups_were_given(
    endpoints: list[Endpoint], order: list[str]
) -> None:
    """Groups are shuffled; the order within a group is the operator's and must be kept."""
    shuffled = sorted(endpoints, key=lambda one: order.index(one.group))
    made = links("n", in_stable_order(endpoints), 1)
    assert made == links("n", in_stable_order(shuffled), 1)
    assert len(made) == len({one.group for one in endpoints})
    assert {one for link in made for one in link.endpoints} == set(endpoints)
    assert all(len({one.group for one in link.endpoints}) == 1 for link in made)
    for link in made:
        kept = [one for one in dict.fromkeys(endpoints) if one.group == link.endpoints[0].group]
        assert list(link.endpoints) == kept


@given(st.lists(ENDPOINTS, max_size=12))
def test_the_stable_order_holds_each_endpoint_once_and_is_its_own_order(
    endpoints: list[Endpoint],
) -> None:
    ordered = in_stable_order([*endpoints, *endpoints])
    assert sorted(map(repr, ordered)) == sorted(map(repr, set(endpoints)))
    assert in_stable_order(ordered) == ordered
