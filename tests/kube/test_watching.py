from math import isnan

import pytest
from prometheus_client import CollectorRegistry

from app.kube.resources import ACCESS_GRANTS, ACCESS_TOKENS, SECRETS, SITES, Resource
from app.kube.watching import watching
from app.metrics import Metrics, Watched
from tests.builders import NOW


@pytest.mark.parametrize("resource", [ACCESS_GRANTS, ACCESS_TOKENS, SECRETS, SITES])
def test_the_metrics_are_told_when_something_was_heard(resource: Resource) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, version="1", count_grants=dict)
    watching(metrics, resource, lambda: NOW)()
    told = {
        one.value: registry.get_sample_value(
            "grantserver_watch_last_seen_timestamp_seconds", {"resource": one.value}
        )
        for one in Watched
    }
    assert told.pop(resource.plural) == NOW
    assert all(isnan(one or 0) for one in told.values())


def test_without_metrics_nobody_is_told() -> None:
    watching(None, SECRETS, lambda: NOW)()
