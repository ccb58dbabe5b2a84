from typing import Any

import pytest

from app.domain.known_links import known_link

LINK: dict[str, Any] = {
    "apiVersion": "skupper.io/v2alpha1",
    "kind": "Link",
    "metadata": {"name": "west"},
    "spec": {
        "endpoints": [
            {"name": "inter-router", "host": "west.example.com", "port": "55671"},
            {"name": "edge", "host": "2001:db8::1", "port": "45671"},
        ],
        "cost": 7,
    },
    "status": {"status": "Ready", "remoteSiteName": "west-site", "message": "OK"},
}


def test_a_link_is_told_as_it_stands() -> None:
    link = known_link(LINK)
    assert (link.name, link.cost) == ("west", 7)
    assert (link.state, link.remote_site, link.message) == ("Ready", "west-site", "OK")
    assert link.endpoints == ("inter-router=west.example.com:55671", "edge=[2001:db8::1]:45671")


@pytest.mark.parametrize("cost", [None, 0, -3, "7", True, 1.5])
def test_a_cost_that_is_none_counts_as_one(cost: object) -> None:
    assert known_link({**LINK, "spec": {"cost": cost}}).cost == 1


@pytest.mark.parametrize("odd", [{}, {"metadata": []}, {"spec": 1, "status": []}])
def test_an_odd_one_is_told_all_the_same(odd: dict[str, Any]) -> None:
    link = known_link(odd)
    assert (link.cost, link.state, link.endpoints) == (1, None, ())
