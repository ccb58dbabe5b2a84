import pytest

from app.kube.resources import (
    ACCESS_GRANTS,
    DEPLOYMENTS,
    EVENTS,
    GATEWAY_API,
    INGRESSES,
    LEASES,
    ROUTES,
    SECRETS,
    SERVICES,
    SITES,
    Key,
    Resource,
    gateways,
    key_of,
    tls_routes,
)

LEASE = "leases.coordination.k8s.io"
INGRESS = "ingresses.networking.k8s.io"
ROUTE = "routes.route.openshift.io"
GRANT = "accessgrants.skupper.io"


@pytest.mark.parametrize(
    ("resource", "api_version", "root", "shown"),
    [
        (SECRETS, "v1", "/api/v1", "secrets"),
        (EVENTS, "v1", "/api/v1", "events"),
        (LEASES, "coordination.k8s.io/v1", "/apis/coordination.k8s.io/v1", LEASE),
        (ACCESS_GRANTS, "skupper.io/v2alpha1", "/apis/skupper.io/v2alpha1", GRANT),
        (SERVICES, "v1", "/api/v1", "services"),
        (DEPLOYMENTS, "apps/v1", "/apis/apps/v1", "deployments.apps"),
        (INGRESSES, "networking.k8s.io/v1", "/apis/networking.k8s.io/v1", INGRESS),
        (ROUTES, "route.openshift.io/v1", "/apis/route.openshift.io/v1", ROUTE),
        (gateways("v1"), f"{GATEWAY_API}/v1", f"/apis/{GATEWAY_API}/v1", f"gateways.{GATEWAY_API}"),
        (
            tls_routes("v1alpha3"),
            f"{GATEWAY_API}/v1alpha3",
            f"/apis/{GATEWAY_API}/v1alpha3",
            f"tlsroutes.{GATEWAY_API}",
        ),
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
