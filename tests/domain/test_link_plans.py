from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.link_plans import (
    MOST_CONNECTIONS,
    LinkPlan,
    NetworkLink,
    Question,
    plan,
    read_question,
)
from app.errors import Invalid

ONE_FILE = """
sites: [east, hub, west]
links:
  - {from: east, to: hub, cost: 2}
  - {from: hub, to: west}
  - {from: east, to: west, cost: 5}
from: east
to: [hub, west]
connections: 10
"""


def asked(
    *links: tuple[str, str, int],
    client: str = "c",
    servers: Sequence[str] = ("a", "b"),
    connections: int = 0,
) -> LinkPlan:
    return plan(
        Question(
            links=tuple(NetworkLink(*link) for link in links),
            client=client,
            servers=tuple(servers),
            connections=connections,
        )
    )


def test_a_file_is_read_and_answered() -> None:
    answer = plan(read_question(ONE_FILE))
    first, second = answer.routes
    assert (first.server, first.cost, first.path) == ("hub", 2, ("east", "hub"))
    assert (second.server, second.cost, second.path) == ("west", 3, ("east", "hub", "west"))
    assert first.connections + second.connections == 10


def test_a_cost_that_is_absent_or_zero_is_one() -> None:
    text = "links: [{from: a, to: b}, {from: b, to: c, cost: 0}]"
    assert [link.cost for link in read_question(text).links] == [1, 1]


def test_a_way_costs_what_its_links_cost_together() -> None:
    answer = asked(("c", "x", 3), ("x", "a", 4), ("c", "b", 8))
    assert [(one.server, one.cost) for one in answer.routes] == [("a", 7), ("b", 8)]


def test_links_are_taken_in_both_directions() -> None:
    assert asked(("a", "c", 2), servers=["a"]).routes[0].cost == 2


def test_of_several_links_between_two_sites_the_cheapest_counts() -> None:
    assert asked(("c", "a", 9), ("a", "c", 2), servers=["a"]).routes[0].cost == 2


def test_of_two_ways_that_cost_the_same_the_shorter_one_is_taken() -> None:
    answer = asked(("c", "m", 1), ("m", "a", 1), ("c", "a", 2), servers=["a"])
    assert answer.routes[0].path == ("c", "a")


def test_a_server_at_the_clients_own_site_costs_nothing() -> None:
    answer = asked(("c", "a", 1), servers=["a", "c"])
    assert [(one.server, one.cost) for one in answer.routes] == [("c", 0), ("a", 1)]


def test_connections_spread_once_those_that_are_open_exceed_the_other_cost() -> None:
    answer = asked(("c", "a", 1), servers=["c", "a"], connections=2)
    assert [one.connections for one in answer.routes] == [2, 0]
    assert [one.first_at for one in answer.routes] == [1, 3]
    answer = asked(("c", "a", 1), servers=["c", "a"], connections=7)
    assert [one.connections for one in answer.routes] == [4, 3]


def test_servers_of_one_cost_share_evenly() -> None:
    answer = asked(("c", "a", 4), ("c", "b", 4), connections=9)
    assert [one.connections for one in answer.routes] == [5, 4]


def test_a_backup_gets_nothing_until_many_thousands_are_open() -> None:
    answer = asked(("c", "a", 1), ("c", "b", 99999), connections=50_000)
    assert [one.connections for one in answer.routes] == [50_000, 0]
    assert answer.routes[1].first_at == 100_000


def test_the_order_of_failover_is_that_of_the_costs() -> None:
    servers = ["z", "y", "x"]
    answer = asked(("c", "x", 3), ("c", "y", 2), ("c", "z", 1), servers=servers)
    assert [one.server for one in answer.routes] == servers


def test_each_link_of_the_first_route_is_taken_away_once() -> None:
    answer = asked(("c", "m", 1), ("m", "a", 1), ("c", "b", 9))
    assert [(str(one.link), one.path, one.cost) for one in answer.losses] == [
        ("c - m", ("c", "b"), 9),
        ("m - a", ("c", "b"), 9),
    ]


def test_a_second_link_between_two_sites_takes_over_from_the_first() -> None:
    answer = asked(("c", "a", 1), ("c", "a", 7), servers=["a"])
    assert [(one.path, one.cost) for one in answer.losses] == [(("c", "a"), 7)]


def test_a_link_that_everything_depends_on_is_told() -> None:
    (loss,) = asked(("c", "a", 1), servers=["a"]).losses
    assert (loss.path, loss.cost) == ((), None)


def test_a_site_that_no_links_lead_to_is_told() -> None:
    answer = asked(("c", "a", 1), ("b", "d", 1))
    assert answer.unreachable == ("b",)
    assert [one.server for one in answer.routes] == ["a"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[]", "file"),
        ("{}", "links"),
        ("links: []", "links"),
        ("links: 7", "links"),
        ("links: [x]", "links[0]"),
        ("links: [{from: a}]", "links[0].to"),
        ("links: [{from: a, to: A!}]", "links[0].to"),
        ("links: [{from: a, to: a}]", "links[0]"),
        ("links: [{from: a, to: b, price: 2}]", "links[0]"),
        ("links: [{from: a, to: b, cost: -1}]", "links[0].cost"),
        ("links: [{from: a, to: b, cost: true}]", "links[0].cost"),
        ("links: [{from: a, to: b, cost: '2'}]", "links[0].cost"),
        ("links: [{from: a, to: b, cost: 2147483648}]", "links[0].cost"),
        ("{links: [{from: a, to: b}], from: 7}", "from"),
        ("{links: [{from: a, to: b}], to: {a: b}}", "to"),
        ("{links: [{from: a, to: b}], to: [[]]}", "to"),
        ("{links: [{from: a, to: b}], sites: a}", "sites"),
        ("{links: [{from: a, to: b}], sites: [a]}", "links"),
        ("{links: [{from: a, to: b}], connections: 1.5}", "connections"),
        ("{links: [{from: a, to: b}], cost: 1}", "file"),
        ("links: [", "file"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_field(text: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_question(text)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("client", "servers", "field"),
    [("", ["a"], "from"), ("c", [], "to"), ("x", ["a"], "from"), ("c", ["x"], "to")],
)
def test_sites_that_are_missing_or_unknown_are_refused(
    client: str, servers: list[str], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        asked(("c", "a", 1), client=client, servers=servers)
    assert refused.value.field == field


def test_more_connections_than_anybody_has_are_refused() -> None:
    with pytest.raises(Invalid):
        read_question(f"{{links: [{{from: a, to: b}}], connections: {MOST_CONNECTIONS + 1}}}")


sites = st.sampled_from("abcdef")
networks = st.lists(
    st.tuples(sites, sites, st.integers(1, 9)).filter(lambda link: link[0] != link[1]),
    min_size=1,
    max_size=12,
)


@given(networks, st.integers(0, 60))
def test_no_way_is_cheaper_than_those_that_are_found(
    links: list[tuple[str, str, int]], connections: int
) -> None:
    known = sorted({end for link in links for end in link[:2]})
    answer = asked(*links, client=known[0], servers=known, connections=connections)
    costs = {route.server: route.cost for route in answer.routes}
    assert costs[known[0]] == 0
    for one, other, cost in links:
        if one in costs or other in costs:
            assert abs(costs[one] - costs[other]) <= cost
    for route in answer.routes:
        steps = zip(route.path, route.path[1:], strict=False)
        assert route.cost == sum(
            min(cost for *ends, cost in links if set(ends) == set(step)) for step in steps
        )


@given(networks, st.integers(0, 60))
def test_every_connection_goes_where_cost_and_open_ones_are_least(
    links: list[tuple[str, str, int]], connections: int
) -> None:
    known = sorted({end for link in links for end in link[:2]})
    answer = asked(*links, client=known[0], servers=known, connections=connections)
    assert sum(route.connections for route in answer.routes) == connections
    for route in answer.routes:
        assert (route.connections > 0) == (route.first_at <= connections)
        for other in answer.routes:
            if route.connections:
                assert route.cost + route.connections - 1 <= other.cost + other.connections


@given(networks)
def test_a_loss_is_what_a_plan_without_that_link_says(links: list[tuple[str, str, int]]) -> None:
    known = sorted({end for link in links for end in link[:2]})
    client, server = known[0], known[-1]
    for loss in asked(*links, client=client, servers=[server]).losses:
        left = list(links)
        left.remove((loss.link.one, loss.link.other, loss.link.cost))
        left.append(("y", "z", 1))
        if client in (linked := {end for link in left for end in link[:2]}) and server in linked:
            (*routes,) = asked(*left, client=client, servers=[server]).routes
            assert (loss.cost, loss.path) == (
                (routes[0].cost, routes[0].path) if routes else (None, ())
            )
        else:
            assert (loss.cost, loss.path) == (None, ())


def test_more_links_than_can_be_answered_soon_are_refused() -> None:
    links = "\n".join(f"- {{from: s{place}, to: s{place + 1}}}" for place in range(2_001))
    with pytest.raises(Invalid) as refused:
        read_question(f"links:\n{links}")
    assert (refused.value.field, refused.value.why) == ("links", "expected 2000 at most")


def test_a_chain_of_all_the_links_that_are_allowed_is_answered() -> None:
    chain = [(f"s{place}", f"s{place + 1}", 1) for place in range(2_000)]
    answer = asked(*chain, client="s0", servers=["s2000"])
    assert len(answer.losses) == answer.routes[0].cost == 2_000
