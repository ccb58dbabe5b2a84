import pytest

from app.kube.resources import (
    ACCESS_GRANTS,
    EVENTS,
    LEASES,
    SECRETS,
    SITES,
    Key,
    Resource,
    key_of,
)

LEASE = "leases.coordination.k8s.io"
GRANT = "accessgrants.skupper.io"


@pytest.mark.parametrize(
    ("resource", "api_version", "root", "shown"),
    [
        (SECRETS, "v1", "/api/v1", "secrets"),
        (EVENTS, "v1", "/api/v1", "events"),
        (LEASES, "coordination.k8s.io/v1", "/apis/coordination.k8s.io/v1", LEASE),
        (ACCESS_GRANTS, "skupper.io/v2alpha1", "/apis/skupper.io/v2alpha1", GRANT),
        (SITES, "skupper.io/v2alpha1", "/apis/skupper.io/v2alpha1", "sites.skupper.io"),
    ],
)
def test_a_kind_knows_where_it_is_kept(
    resource: Resource, api_version: str, root: str, shown: str
) -> None:
    assert (resource.api_version, resource.root, str(resource)) == (api_version, root, shown)


def test_an_object_is_named_by_namespace_and_name() -> None:
    key = key_of({"metadata": {"namespace": "west", "name": "grant"}})
    assert key == Key("west", "grant")
    assert str(key) == "west/grant"


def test_an_object_of_the_whole_cluster_has_no_namespace() -> None:
    assert key_of({"metadata": {"name": "west"}}) == Key("", "west")
