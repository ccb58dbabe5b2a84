import pytest

from app.domain.exposure import Way
from app.settings import load
from tests.settings.cases import problems_of

CLUSTER = {"GRANTSERVER_KUBERNETES_NAMESPACES": "*"}
HOST = "GRANTSERVER_EXPOSURE_HOST"
TYPE = "GRANTSERVER_EXPOSURE_TYPE"


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ({TYPE: "url"}, ["GRANTSERVER_REACH_URL"]),
        ({TYPE: "nodeport"}, [HOST]),
        ({TYPE: "ingress"}, ["GRANTSERVER_EXPOSURE_HOST or GRANTSERVER_EXPOSURE_DOMAIN"]),
        (
            {TYPE: "gateway"},
            [
                "GRANTSERVER_EXPOSURE_HOST or GRANTSERVER_EXPOSURE_DOMAIN",
                "GRANTSERVER_EXPOSURE_CLASS or GRANTSERVER_EXPOSURE_GATEWAY",
            ],
        ),
        ({TYPE: "route", HOST: "fd00::1"}, [f"a name in {HOST}"]),
        ({TYPE: "ingress", HOST: "192.0.2.1"}, [f"a name in {HOST}"]),
    ],
)
def test_a_way_in_says_what_it_needs(given: dict[str, str], needs: list[str]) -> None:
    problems = problems_of(CLUSTER | given)
    assert len(problems) == len(needs)
    for problem, need in zip(problems, needs, strict=True):
        assert problem.startswith(f"{TYPE}={given[TYPE]} needs {need}")
    # Without a cluster nothing is made, and nothing needed.
    assert load(given).exposure.way == given[TYPE]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {TYPE: "loadbalancer"},
        {TYPE: "clusterip"},
        {TYPE: "route", "GRANTSERVER_EXPOSURE_DOMAIN": "apps.example"},
        {TYPE: "nodeport", HOST: "fd00::1"},
        {TYPE: "ingress", "GRANTSERVER_EXPOSURE_DOMAIN": "apps.example"},
        {TYPE: "gateway", HOST: "a.example", "GRANTSERVER_EXPOSURE_GATEWAY": "shared"},
        {TYPE: "gateway", HOST: "a.example", "GRANTSERVER_EXPOSURE_CLASS": "istio"},
        {TYPE: "url", "GRANTSERVER_REACH_URL": "https://a.example"},
        {TYPE: "loadbalancer", "GRANTSERVER_REACH_URL": "https://a.example"},
    ],
)
def test_what_goes_together_is_taken(given: dict[str, str]) -> None:
    assert load(CLUSTER | given).exposure.way in Way


def test_they_are_told_together_with_all_else() -> None:
    problems = problems_of(CLUSTER | {TYPE: "url", "GRANTSERVER_NONSENSE": "1"})
    assert len(problems) == 2
