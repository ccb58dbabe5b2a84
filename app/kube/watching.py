"""What the metrics are told of watches: when something was last heard of a resource."""

from collections.abc import Callable

from app.kube.resources import Resource
from app.metrics import Metrics, Watched


def watching(
    metrics: Metrics | None, resource: Resource, clock: Callable[[], int]
) -> Callable[[], None]:
    """Give what is to be called at each news of a resource; `clock` gives UTC seconds."""
    if metrics is None:
        return lambda: None
    which = Watched(resource.plural)
    return lambda: metrics.watched(which, clock())
