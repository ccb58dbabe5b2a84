from typing import Any

import pytest
from pydantic import ValidationError

from app.api.sites import Endpoint, SiteWish

ENDPOINT: dict[str, Any] = {"role": "edge", "host": "west.example.com", "port": 45671}


def test_an_endpoint_is_of_the_only_router_unless_it_says_another() -> None:
    assert Endpoint.model_validate(ENDPOINT).group == "skupper-router"


@pytest.mark.parametrize(
    "change",
    [{"role": "hub"}, {"port": 0}, {"port": "1"}, {"port": 65536}, {"host": ""}, {"group": "A"}],
)
def test_one_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Endpoint.model_validate(ENDPOINT | change)


def test_a_site_has_few_endpoints() -> None:
    endpoints = [ENDPOINT | {"port": 1 + number} for number in range(257)]
    with pytest.raises(ValidationError):
        SiteWish.model_validate({"endpoints": endpoints})
