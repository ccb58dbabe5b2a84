"""Each way in from nothing to a grant, with others doing their part as they would; and then."""

import pytest

from app.domain.exposure import TrafficPolicy, Way
from app.kube.exposure import exposure
from app.kube.exposure.plan import MARK, Plan
from app.kube.resources import Key
from app.store.addresses import AddressRow
from tests.kube.api_server import FakeKube
from tests.kube.exposure.scene import (
    INSTALLATION,
    NAME,
    OBJECTS,
    OUR_LABELS,
    PLACE,
    RIGHTS,
    SELECTOR,
    Scene,
    a_plan,
    condition,
)
from tests.kube.objects import GRANT, NAMESPACE, a_deployment
from tests.kube.stage import conditions

WAITING = f"waiting for an address of Service {OBJECTS}"
HOST = "grants.example"


def pending(scene: Scene, message: str) -> None:
    """Wait until the grant says what it waits for."""
    found = scene.stage.found(lambda status: status.get("message") == message)
    told = conditions(found["status"])
    assert told["Resolved"] == told["Ready"] == ("False", "Pending", message)
    assert found["status"]["status"] == "Pending"


def ready_at(scene: Scene, url: str) -> None:
    """Wait until the grant can be redeemed there."""
    found = scene.stage.found(
        lambda status: status.get("status") == "Ready" and status["url"].startswith(f"{url}/")
    )
    assert scene.url_of(found) == url


# From nothing to a grant.


def test_a_load_balancer(scene: Scene) -> None:
    plan = a_plan(
        annotations={"example.com/internal": "false"},
        labels={"tier": "front"},
        load_balancer_ip="192.0.2.9",
    )
    with scene.serving(plan):
        scene.stage.grant()
        pending(scene, WAITING)
        service = scene.object("Service")
        assert service["metadata"]["labels"] == OUR_LABELS | {"tier": "front"}
        assert service["metadata"]["annotations"] == {"example.com/internal": "false"}
        spec = service["spec"]
        assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
        assert spec["selector"] == SELECTOR
        assert spec["loadBalancerIP"] == "192.0.2.9"
        (port,) = spec["ports"]
        assert (port["name"], port["port"], port["targetPort"]) == ("redemption", 9090, 9090)
        scene.balance({"ip": "192.0.2.9"})
        ready_at(scene, "https://192.0.2.9:9090")
        assert scene.row() == AddressRow(url="https://192.0.2.9:9090", hosts=("192.0.2.9",))


def test_what_is_made_belongs_to_the_deployment(scene: Scene) -> None:
    deployment = scene.kube.get("Deployment", "grantserver", PLACE)
    with scene.serving(a_plan()):
        (owner,) = scene.object("Service")["metadata"]["ownerReferences"]
        assert owner == {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": "grantserver",
            "uid": deployment["metadata"]["uid"],
        }
        # One that was made anew owns it when it is looked at next.
        scene.kube.delete("Deployment", "grantserver", PLACE)
        anew = scene.kube.create(a_deployment(namespace=PLACE))
        scene.balance({"ip": "192.0.2.9"})
        uid = anew["metadata"]["uid"]
        scene.object(
            "Service",
            lambda found: [one["uid"] for one in found["metadata"]["ownerReferences"]] == [uid],
        )


@pytest.mark.parametrize("deployment", ["", "nobody"])
def test_without_a_deployment_it_belongs_to_nobody(fake_scene: Scene, deployment: str) -> None:
    scene = fake_scene
    rights = [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
        *RIGHTS,
    ]
    with scene.serving(a_plan(deployment=deployment), rights=rights):
        scene.balance({"ip": "192.0.2.9"})
        scene.reached("https://192.0.2.9:9090")
        assert "ownerReferences" not in scene.object("Service")["metadata"]


def test_a_route(scene: Scene) -> None:
    scene.kube.install_routes()
    plan = a_plan(Way.AUTO, annotations={"haproxy.router.openshift.io/timeout": "5s"})
    with scene.serving(plan):
        scene.stage.grant()
        pending(scene, f"waiting for an address of Route {OBJECTS}")
        assert scene.object("Service")["spec"]["type"] == "ClusterIP"
        route = scene.object("Route")
        assert route["metadata"]["annotations"] == {"haproxy.router.openshift.io/timeout": "5s"}
        assert route["metadata"]["labels"] == OUR_LABELS
        assert route["spec"] == {
            "to": {"kind": "Service", "name": NAME, "weight": 100},
            "port": {"targetPort": "redemption"},
            "tls": {"termination": "passthrough", "insecureEdgeTerminationPolicy": "None"},
            "wildcardPolicy": "None",
        }
        refused = condition("Admitted", False, "HostAlreadyClaimed", "route other has it")
        scene.status("Route", {"ingress": [{"host": HOST, "conditions": [refused]}]})
        pending(
            scene,
            f"waiting for an address of Route {OBJECTS}: HostAlreadyClaimed: route other has it",
        )
        scene.route_admitted("grantserver-public-gs.apps.example")
        ready_at(scene, "https://grantserver-public-gs.apps.example:443")


def test_a_route_of_a_host_that_was_asked_for(scene: Scene) -> None:
    scene.kube.install_routes()
    with scene.serving(a_plan(Way.ROUTE, domain="apps.example")):
        host = f"{NAME}.{PLACE}.apps.example"
        assert scene.object("Route")["spec"]["host"] == host
        scene.route_admitted(host, "other.apps.example")
        row = scene.reached(f"https://{host}:443")
        assert set(row.hosts) == {host, "other.apps.example"}


def test_a_node_port(scene: Scene) -> None:
    with scene.serving(a_plan(Way.NODE_PORT, host="nodes.example")):
        scene.stage.grant()
        spec = scene.object("Service")["spec"]
        assert (spec["type"], spec["externalTrafficPolicy"]) == ("NodePort", "Local")
        ready_at(scene, f"https://nodes.example:{spec['ports'][0]['nodePort']}")


def test_a_node_port_that_was_asked_for(scene: Scene) -> None:
    plan = a_plan(
        Way.NODE_PORT, host="192.0.2.4", port=31_906, traffic_policy=TrafficPolicy.CLUSTER
    )
    with scene.serving(plan):
        scene.reached("https://192.0.2.4:31906")
        spec = scene.object("Service")["spec"]
        assert spec["externalTrafficPolicy"] == "Cluster"
        assert spec["ports"][0]["nodePort"] == 31_906


def test_an_ingress(scene: Scene) -> None:
    with scene.serving(a_plan(Way.INGRESS, host=HOST)):
        scene.stage.grant()
        pending(scene, f"waiting for an address of Ingress {OBJECTS}")
        ingress = scene.object("Ingress")
        assert ingress["spec"]["ingressClassName"] == "nginx"
        (rule,) = ingress["spec"]["rules"]
        assert rule["host"] == HOST
        (path,) = rule["http"]["paths"]
        assert path["backend"] == {"service": {"name": NAME, "port": {"name": "redemption"}}}
        notes = ingress["metadata"]["annotations"]
        assert notes["nginx.ingress.kubernetes.io/ssl-passthrough"] == "true"
        assert scene.object("Service")["spec"]["type"] == "ClusterIP"
        scene.balance({"ip": "192.0.2.80"}, kind="Ingress")
        ready_at(scene, f"https://{HOST}:443")


def test_a_gateway_of_our_own(scene: Scene) -> None:
    scene.kube.install_gateways()
    with scene.serving(a_plan(Way.GATEWAY, host=HOST, class_name="istio")):
        scene.stage.grant()
        pending(scene, f"waiting for an address of Gateway {OBJECTS}")
        gateway = scene.object("Gateway")["spec"]
        (listener,) = gateway["listeners"]
        assert gateway["gatewayClassName"] == "istio"
        assert (listener["protocol"], listener["port"]) == ("TLS", 8443)
        assert listener["tls"] == {"mode": "Passthrough"}
        scene.status(
            "Gateway",
            {
                "addresses": [{"type": "IPAddress", "value": "192.0.2.44"}],
                "conditions": [condition("Programmed", True, "Programmed")],
            },
        )
        pending(scene, f"waiting for an address of TLSRoute {OBJECTS}")
        route = scene.object("TLSRoute")["spec"]
        assert route["hostnames"] == [HOST]
        (backend,) = route["rules"][0]["backendRefs"]
        assert (backend["name"], backend["port"]) == (NAME, 9090)
        accept(scene, route["parentRefs"][0])
        ready_at(scene, f"https://{HOST}:8443")


def test_a_gateway_of_somebody_else(scene: Scene) -> None:
    scene.kube.install_gateways()
    plan = a_plan(Way.GATEWAY, host=HOST, port=443, gateway=Key("infra", "shared"))
    with scene.serving(plan):
        scene.stage.grant()
        pending(scene, f"waiting for an address of TLSRoute {OBJECTS}")
        (parent,) = scene.object("TLSRoute")["spec"]["parentRefs"]
        assert (parent["namespace"], parent["name"]) == ("infra", "shared")
        no = condition("Accepted", False, "NotAllowedByListeners", "no such listener")
        scene.status("TLSRoute", {"parents": [a_parent(parent, no)]})
        told = "NotAllowedByListeners: no such listener"
        pending(scene, f"waiting for an address of TLSRoute {OBJECTS}: {told}")
        accept(scene, parent)
        ready_at(scene, f"https://{HOST}:443")
        assert not scene.there("Gateway")


def a_parent(reference: dict[str, str], *conditions: dict[str, str]) -> dict[str, object]:
    return {
        "parentRef": reference,
        "controllerName": "example.com/gateway",
        "conditions": list(conditions),
    }


def accept(scene: Scene, reference: dict[str, str]) -> None:
    accepted = condition("Accepted", True, "Accepted")
    resolved = condition("ResolvedRefs", True, "ResolvedRefs")
    scene.status("TLSRoute", {"parents": [a_parent(reference, accepted, resolved)]})


@pytest.mark.parametrize("version", ["v1", "v1alpha3", "v1alpha2"])
def test_a_gateway_in_whichever_version_there_is(fake_scene: Scene, version: str) -> None:
    scene = fake_scene
    scene.kube.install_gateways(version)
    with scene.serving(a_plan(Way.GATEWAY, host=HOST, gateway=Key(PLACE, "shared"))):
        route = scene.object("TLSRoute")
        assert route["apiVersion"] == f"gateway.networking.k8s.io/{version}"
        (parent,) = route["spec"]["parentRefs"]
        accept(scene, parent)
        scene.reached(f"https://{HOST}:8443")


def test_from_within_the_cluster_alone(scene: Scene) -> None:
    with scene.serving(a_plan(Way.CLUSTER_IP)):
        scene.stage.grant()
        ready_at(scene, f"https://{NAME}.{PLACE}.svc:9090")
        ip = scene.object("Service")["spec"]["clusterIP"]
        name = f"{NAME}.{PLACE}"
        assert set(scene.row().hosts) == {f"{name}.svc", name, f"{name}.svc.cluster.local", ip}


def test_by_a_url_nothing_is_made(fake_scene: Scene) -> None:
    scene = fake_scene
    theirs = scene.foreign(a_service_of_theirs())
    with scene.serving(a_plan(Way.URL)):
        scene.kube.requests.clear()
        looked = scene.kube.requests.of
        assert scene.kube.until(lambda: bool(looked(resource="services", verb="list")))
        assert scene.kube.until(lambda: bool(looked(resource="leases", verb="update")))
        assert scene.writes() == []
        assert scene.row() == AddressRow(url="")
    assert scene.kube.get("Service", NAME, PLACE) == theirs


def test_left_to_us_it_is_a_load_balancer_where_there_are_no_routes(fake_scene: Scene) -> None:
    scene = fake_scene
    with scene.serving(a_plan(Way.AUTO)):
        scene.object("Service", lambda found: found["spec"]["type"] == "LoadBalancer")


def test_an_api_that_is_not_served_is_said_and_waited_for(fake_scene: Scene) -> None:
    scene = fake_scene
    with scene.serving(a_plan(Way.ROUTE)):
        scene.stage.grant()
        pending(scene, "the API server serves no Routes: this is not OpenShift")
    with scene.serving(a_plan(Way.GATEWAY, host=HOST, class_name="istio")):
        pending(scene, "the API server serves no TLSRoutes (gateway.networking.k8s.io)")
    assert scene.writes() == []


def test_an_upgrade_that_serves_another_version_is_noticed(
    fake_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = fake_scene
    monkeypatch.setattr(exposure, "_SERVED_SECONDS", 0.05)
    monkeypatch.setattr(exposure, "_LACKING_SECONDS", 0.05)
    plan = a_plan(Way.GATEWAY, host=HOST, gateway=Key(PLACE, "shared"))

    def serve(version: str) -> None:
        name = "tlsroutes.gateway.networking.k8s.io"
        (served,) = scene.kube.get("CustomResourceDefinition", name, "")["spec"]["versions"]
        change = {"spec": {"versions": [served | {"name": version}]}}
        scene.kube.patch("CustomResourceDefinition", name, change, "")

    with scene.serving(plan):
        scene.lost("the API server serves no TLSRoutes (gateway.networking.k8s.io)")
        scene.kube.install_gateways("v1alpha2")
        (parent,) = scene.object("TLSRoute")["spec"]["parentRefs"]
        accept(scene, parent)
        scene.reached(f"https://{HOST}:8443")
        serve("v1")
        no = condition("Accepted", False, "NotAllowed")
        scene.status("TLSRoute", {"parents": [a_parent(parent, no)]})
        scene.lost(f"waiting for an address of TLSRoute {OBJECTS}: NotAllowed")
        accept(scene, parent)
        scene.reached(f"https://{HOST}:8443")
        serve("v9")
        scene.lost("the API server serves no TLSRoutes (gateway.networking.k8s.io)")


def test_what_goes_away_before_it_was_seen_is_noticed_too(
    fake_kube: FakeKube, fake_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was served when the way in was chosen, and is not when its objects are listed."""
    scene = fake_scene
    monkeypatch.setattr(exposure, "_SERVED_SECONDS", 0.05)
    monkeypatch.setattr(exposure, "_LACKING_SECONDS", 0.05)
    plan = a_plan(Way.GATEWAY, host=HOST, gateway=Key(PLACE, "shared"))
    scene.kube.install_gateways("v1alpha2")
    listing = fake_kube.faults.fail(404, times=None, verb="list", resource="tlsroutes")
    with scene.serving(plan):
        listing.wait(hits=1)
        name = "tlsroutes.gateway.networking.k8s.io"
        (served,) = scene.kube.get("CustomResourceDefinition", name, "")["spec"]["versions"]
        change = {"spec": {"versions": [served | {"name": "v9"}]}}
        scene.kube.patch("CustomResourceDefinition", name, change, "")
        scene.lost("the API server serves no TLSRoutes (gateway.networking.k8s.io)")
        listing.release()
        change = {"spec": {"versions": [served]}}
        scene.kube.patch("CustomResourceDefinition", name, change, "")
        (parent,) = scene.object("TLSRoute")["spec"]["parentRefs"]
        accept(scene, parent)
        scene.reached(f"https://{HOST}:8443")


def test_what_cannot_be_seen_is_said(fake_scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = fake_scene
    monkeypatch.setattr(exposure, "_SEEN_SECONDS", 0.05)
    rights = [one for one in RIGHTS if one["resources"] != ["services"]]
    with scene.serving(a_plan(), rights=rights):
        scene.lost("the API server does not show us a Service: the log says why")


# Addresses.


@pytest.mark.parametrize(
    ("points", "url", "hosts"),
    [
        ([{"ip": "2001:DB8:0::9"}], "https://[2001:db8::9]:9090", {"2001:db8::9"}),
        ([{"hostname": "lb.example"}], "https://lb.example:9090", {"lb.example"}),
        (
            [{"ip": "2001:db8::9"}, {"ip": "192.0.2.9"}, {"hostname": "lb.example"}],
            "https://lb.example:9090",
            {"2001:db8::9", "192.0.2.9", "lb.example"},
        ),
        (
            [{"ip": "192.0.2.9", "hostname": "lb.example"}],
            "https://lb.example:9090",
            {"192.0.2.9", "lb.example"},
        ),
    ],
)
def test_every_form_of_an_address(
    scene: Scene, points: list[dict[str, str]], url: str, hosts: set[str]
) -> None:
    with scene.serving(a_plan()):
        scene.stage.grant()
        scene.balance(*points)
        ready_at(scene, url)
        assert set(scene.row().hosts) == hosts


def test_a_name_that_leads_to_the_balancer_is_what_tokens_carry(scene: Scene) -> None:
    with scene.serving(a_plan(host="grants.example", port=443)):
        scene.balance({"ip": "192.0.2.9"})
        row = scene.reached("https://grants.example:443")
        assert set(row.hosts) == {"grants.example", "192.0.2.9"}


def test_the_address_that_tokens_carry_stays_while_it_is_one_of_them(scene: Scene) -> None:
    with scene.serving(a_plan()):
        scene.balance({"ip": "192.0.2.9"})
        scene.reached("https://192.0.2.9:9090")
        scene.balance({"ip": "192.0.2.1"}, {"ip": "192.0.2.9"}, {"hostname": "lb.example"})
        assert scene.kube.until(lambda: len(scene.row().hosts) == 3)
        assert scene.row().url == "https://192.0.2.9:9090"


def test_a_change_of_address_reaches_every_grant_and_tokens_of_before_stay_good(
    scene: Scene,
) -> None:
    with scene.serving(a_plan()):
        scene.stage.grant(redemptionsAllowed=3)
        scene.stage.grant("other")
        scene.balance({"ip": "192.0.2.9"})
        ready_at(scene, "https://192.0.2.9:9090")
        before = scene.stage.ready()
        scene.balance({"ip": "192.0.2.10"})
        ready_at(scene, "https://192.0.2.10:9090")
        other = scene.stage.found(lambda status: "192.0.2.10" in status.get("url", ""), "other")
        assert scene.url_of(other) == "https://192.0.2.10:9090"
        assert scene.stage.redeem(before).ordinal == 1


def test_an_address_that_vanishes_takes_readiness_away_and_no_token(scene: Scene) -> None:
    with scene.serving(a_plan()):
        scene.stage.grant(redemptionsAllowed=2)
        scene.balance({"ip": "192.0.2.9"})
        ready_at(scene, "https://192.0.2.9:9090")
        before = scene.stage.ready()
        scene.balance()
        pending(scene, WAITING)
        assert scene.stage.redeem(before).ordinal == 1
        scene.balance({"ip": "192.0.2.9"})
        ready_at(scene, "https://192.0.2.9:9090")
        assert scene.stage.redeem(before, subject="another").ordinal == 2


def test_a_point_of_ingress_that_does_not_serve_our_port_is_none(fake_scene: Scene) -> None:
    scene = fake_scene
    with scene.serving(a_plan()):
        port = {"port": 9090, "protocol": "TCP", "error": "PortInUse"}
        scene.balance({"ip": "192.0.2.9", "ports": [port]})
        scene.lost(f"{WAITING}: PortInUse")
        scene.balance({"ip": "192.0.2.9", "ports": [port]}, {"ip": "192.0.2.10"})
        assert scene.reached("https://192.0.2.10:9090").hosts == ("192.0.2.10",)


def test_the_address_stays_while_the_api_server_is_away(
    fake_scene: Scene, fake_kube: FakeKube
) -> None:
    scene = fake_scene
    with scene.serving(a_plan()) as replica:
        scene.balance({"ip": "192.0.2.9"})
        scene.reached("https://192.0.2.9:9090")
        fake_kube.stop()
        replica.stop()
        assert scene.row().url == "https://192.0.2.9:9090"
        with scene.serving(a_plan(), "next"):
            fake_kube.start()
            scene.balance({"ip": "192.0.2.10"})
            scene.reached("https://192.0.2.10:9090")


def test_the_address_stays_while_the_api_server_fails(
    fake_scene: Scene, fake_kube: FakeKube
) -> None:
    scene = fake_scene
    with scene.serving(a_plan()):
        scene.balance({"ip": "192.0.2.9"})
        scene.reached("https://192.0.2.9:9090")
        failing = fake_kube.faults.fail(500, times=None, verb="get", resource="deployments")
        scene.balance({"ip": "192.0.2.10"})
        failing.wait(hits=3)
        assert scene.row().url == "https://192.0.2.9:9090"
        failing.release()
        scene.reached("https://192.0.2.10:9090")


def test_what_the_role_does_not_allow_is_said(fake_scene: Scene) -> None:
    scene = fake_scene
    rights = [one for one in RIGHTS if one["resources"] != ["deployments"]]
    with scene.serving(a_plan(), rights=rights):
        assert scene.kube.until(lambda: "forbids it: look at the role" in scene.row().problem)


# What others do to it.


def test_what_is_edited_by_hand_is_set_right_and_what_others_add_is_theirs(scene: Scene) -> None:
    plan = a_plan(annotations={"a": "b"})
    with scene.serving(plan):
        service = scene.object("Service")
        ports = service["spec"]["ports"]
        change = {
            "metadata": {"annotations": {"a": "c", "theirs": "d"}},
            "spec": {
                "externalTrafficPolicy": "Cluster",
                "selector": {"app.kubernetes.io/name": "other"},
                "ports": [{**ports[0], "targetPort": 1}],
            },
        }
        scene.kube.patch("Service", NAME, change, PLACE)

        def is_right(found: dict[str, dict[str, object]]) -> bool:
            return (
                found["metadata"]["annotations"] == {"a": "b", "theirs": "d"}
                and found["spec"]["externalTrafficPolicy"] == "Local"
                and found["spec"]["selector"] == SELECTOR
                and found["spec"]["ports"] == ports
            )

        scene.object("Service", is_right)


def test_what_is_deleted_by_hand_is_made_anew(scene: Scene) -> None:
    scene.kube.install_routes()
    with scene.serving(a_plan(Way.ROUTE)):
        scene.stage.grant()
        for kind in ("Service", "Route"):
            before = scene.object(kind)["metadata"]["uid"]
            scene.kube.delete(kind, NAME, PLACE)
            scene.object(kind, lambda found, uid=before: found["metadata"]["uid"] != uid)  # type: ignore[misc]
        pending(scene, f"waiting for an address of Route {OBJECTS}")
        scene.route_admitted(HOST)
        ready_at(scene, f"https://{HOST}:443")


def test_somebody_else_who_insists_is_not_fought_without_end(
    fake_scene: Scene, fake_kube: FakeKube
) -> None:
    scene = fake_scene
    with scene.serving(a_plan()):
        scene.balance({"ip": "192.0.2.9"})
        scene.reached("https://192.0.2.9:9090")
        fake_kube.requests.clear()
        for _ in range(60):
            change = {"spec": {"externalTrafficPolicy": "Cluster"}}
            fake_kube.patch("Service", NAME, change, PLACE)
            written = len(scene.writes())
            if not fake_kube.until(lambda written=written: len(scene.writes()) > written, 0.3):  # type: ignore[misc]
                break
        assert 10 < len(scene.writes()) < 40
        assert scene.row().url == "https://192.0.2.9:9090"


# What is not ours.


def a_service_of_theirs(**labels: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"labels": labels},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
    }


@pytest.mark.parametrize("labels", [{}, {MARK: INSTALLATION}], ids=["unmarked", "mark copied"])
def test_a_service_of_somebody_else_is_reported_and_left_alone(
    scene: Scene, labels: dict[str, str]
) -> None:
    theirs = scene.foreign(a_service_of_theirs(**labels))
    with scene.serving(a_plan()):
        scene.stage.grant()
        pending(scene, f"Service {OBJECTS} is there and not ours, so it is left alone")

        def is_told() -> bool:
            return [one["involvedObject"]["name"] for one in events(scene, "NotOurs")] == [NAME]

        assert scene.kube.until(is_told)
        assert scene.kube.get("Service", NAME, PLACE) == theirs
        scene.kube.requests.clear()
    assert scene.kube.get("Service", NAME, PLACE) == theirs


def events(scene: Scene, reason: str) -> list[dict[str, dict[str, str]]]:
    return [one for one in scene.kube.find("Event", PLACE) if one["reason"] == reason]


def test_nothing_is_led_to_a_service_of_somebody_else(scene: Scene) -> None:
    scene.kube.install_routes()
    scene.foreign(a_service_of_theirs())
    with scene.serving(a_plan(Way.ROUTE)):
        scene.lost(f"Service {OBJECTS} is there and not ours, so it is left alone")
        assert not scene.there("Route")


def test_a_route_of_somebody_else_is_no_address_of_ours(scene: Scene) -> None:
    scene.kube.install_routes()
    admitted = {"ingress": [{"host": HOST, "conditions": [condition("Admitted", True, "")]}]}
    about = {"apiVersion": "route.openshift.io/v1", "kind": "Route"}
    theirs = scene.foreign({**about, "spec": {"to": {"name": "theirs"}}, "status": admitted})
    with scene.serving(a_plan(Way.ROUTE)):
        scene.lost(f"Route {OBJECTS} is there and not ours, so it is left alone")
        assert scene.kube.get("Route", NAME, PLACE) == theirs


def test_who_takes_the_mark_off_takes_the_object_over(scene: Scene) -> None:
    with scene.serving(a_plan()):
        scene.balance({"ip": "192.0.2.9"})
        scene.reached("https://192.0.2.9:9090")
        scene.kube.patch("Service", NAME, {"metadata": {"labels": {MARK: None}}}, PLACE)
        scene.lost(f"Service {OBJECTS} is there and not ours, so it is left alone")
    with scene.serving(a_plan(Way.URL)):
        assert scene.kube.until(lambda: scene.row() == AddressRow(url=""))
    assert scene.there("Service")


def test_another_installation_has_its_own(scene: Scene) -> None:
    other = a_plan(installation="default.second", objects=Key(PLACE, "second"), way=Way.CLUSTER_IP)
    with scene.serving(other):
        scene.reached("https://second.gs.svc:9090")
    with scene.serving(a_plan(Way.CLUSTER_IP)):
        scene.reached(f"https://{NAME}.gs.svc:9090")
    assert scene.there("Service", "second")


# What is left of other ways in.

EVERY_WAY: dict[str, Plan] = {
    "route": a_plan(Way.ROUTE),
    "ingress": a_plan(Way.INGRESS, host=HOST),
    "gateway": a_plan(Way.GATEWAY, host=HOST, class_name="istio"),
    "loadbalancer": a_plan(),
    "nodeport": a_plan(Way.NODE_PORT, host=HOST),
    "clusterip": a_plan(Way.CLUSTER_IP),
}
KINDS = {
    "route": {"Service", "Route"},
    "ingress": {"Service", "Ingress"},
    "gateway": {"Service", "Gateway", "TLSRoute"},
    "loadbalancer": {"Service"},
    "nodeport": {"Service"},
    "clusterip": {"Service"},
    "url": set[str](),
}


def test_a_way_in_that_is_changed_is_cleaned_up_and_what_is_not_ours_is_not(scene: Scene) -> None:
    scene.kube.install_routes()
    scene.kube.install_gateways()
    every = set().union(*KINDS.values())
    theirs = scene.foreign(
        {**a_service_of_theirs(**{MARK: INSTALLATION}), "metadata": {"name": "theirs"}}
    )
    ways = ["route", "gateway", "ingress", "loadbalancer", "clusterip", "nodeport", "url"]
    for way in [*ways, "loadbalancer", "route"]:
        plan = EVERY_WAY.get(way, a_plan(Way.URL))
        with scene.serving(plan):
            for kind in KINDS[way]:
                scene.object(kind)
            for kind in every - KINDS[way]:
                scene.gone(kind)
    assert scene.kube.get("Service", "theirs", PLACE) == theirs


def test_what_was_made_under_another_name_is_removed(scene: Scene) -> None:
    with scene.serving(a_plan(objects=Key(PLACE, "before"))):
        scene.kube.wait("Service", "before", PLACE, bool)
    with scene.serving(a_plan()):
        scene.object("Service")
        scene.gone("Service", "before")


def test_rights_to_one_way_in_are_enough_for_it(fake_scene: Scene, fake_kube: FakeKube) -> None:
    scene = fake_scene
    scene.kube.install_routes()
    rights = [one for one in RIGHTS if one["resources"] in (["services"], ["deployments"])]
    with scene.serving(a_plan(), rights=rights):
        scene.balance({"ip": "192.0.2.9"})
        scene.reached("https://192.0.2.9:9090")
        refused = [one.resource for one in fake_kube.requests if one.code == 403]
        assert set(refused) <= {"routes", "ingresses", "events"}


def test_a_class_that_is_changed_takes_another_service(fake_scene: Scene) -> None:
    scene = fake_scene
    with scene.serving(a_plan(class_name="example.com/one")):
        before = scene.object("Service")
    with scene.serving(a_plan(class_name="example.com/two")):
        scene.object("Service", lambda now: now["spec"]["loadBalancerClass"] == "example.com/two")
    assert scene.object("Service")["metadata"]["uid"] != before["metadata"]["uid"]


def test_a_service_that_is_on_its_way_out_is_waited_for(fake_scene: Scene) -> None:
    scene = fake_scene
    with scene.serving(a_plan()):
        service = scene.object("Service")
        held = {"metadata": {"finalizers": ["service.kubernetes.io/load-balancer-cleanup"]}}
        scene.kube.patch("Service", NAME, held, PLACE)
        scene.kube.delete("Service", NAME, PLACE)
        scene.lost(f"waiting for the end of Service {OBJECTS}")
        scene.kube.patch("Service", NAME, {"metadata": {"finalizers": None}}, PLACE)
        uid = service["metadata"]["uid"]
        scene.object("Service", lambda found: found["metadata"]["uid"] != uid)


def test_what_the_api_server_does_not_accept_is_said_once_and_takes_nothing_away(
    fake_scene: Scene, fake_kube: FakeKube
) -> None:
    scene = fake_scene
    with scene.serving(a_plan(Way.NODE_PORT, host=HOST, port=31_900)):
        scene.reached(f"https://{HOST}:31900")
    with scene.serving(a_plan(Way.NODE_PORT, host=HOST, port=80), "next"):
        refused = fake_kube.requests.of
        assert fake_kube.until(
            lambda: (
                [one.code for one in refused(resource="services", verb="patch", user="next")]
                == [422]
            )
        )
        scene.kube.patch("Service", NAME, {"metadata": {"labels": {"a": "b"}}}, PLACE)
        scene.stage.grant()
        ready_at(scene, f"https://{HOST}:31900")
        assert len(refused(resource="services", verb="patch", user="next")) == 1
    scene.kube.delete("Service", NAME, PLACE)
    with scene.serving(a_plan(Way.NODE_PORT, host=HOST, port=80), "last"):
        pattern = f"Service {OBJECTS} was not accepted"
        assert fake_kube.until(lambda: scene.row().problem.startswith(pattern))


def test_a_host_that_nobody_of_us_asked_for_is_told_to_nobody(
    fake_scene: Scene, fake_kube: FakeKube
) -> None:
    scene = fake_scene
    with scene.serving(EVERY_WAY["ingress"]):
        rules = scene.object("Ingress")["spec"]["rules"]
        rules[0]["host"] = "evil.example"
        fake_kube.faults.fail(400, None, reason="BadRequest", verb="patch", resource="ingresses")
        point = {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}
        scene.kube.patch("Ingress", NAME, {"spec": {"rules": rules}}, PLACE)
        scene.status("Ingress", point)
        assert fake_kube.until(lambda: "another host" in scene.row().problem)
        assert scene.row().url == ""


# What it costs.


@pytest.mark.parametrize("way", sorted(EVERY_WAY))
def test_when_nothing_changes_nothing_is_written(
    fake_scene: Scene, fake_kube: FakeKube, way: str
) -> None:
    scene = fake_scene
    scene.kube.install_routes()
    scene.kube.install_gateways()

    def renewals() -> int:
        return len(fake_kube.requests.of(resource="leases", verb="update"))

    with scene.serving(EVERY_WAY[way]):
        for kind in KINDS[way]:
            scene.object(kind)
        assert fake_kube.until(lambda: scene.row() != AddressRow(url=""))
        first = renewals()
        assert fake_kube.until(lambda: renewals() >= first + 3)
        fake_kube.requests.clear()
        # What happens around it is looked at, and changes nothing.
        for kind in KINDS[way]:
            labels = {"metadata": {"labels": {"touched": "yes"}}}
            scene.kube.patch(kind, NAME, labels, PLACE)
        assert fake_kube.until(lambda: renewals() >= 5)
        assert scene.writes() == []
    # Nor does the next one who leads find anything to write.
    fake_kube.requests.clear()
    with scene.serving(EVERY_WAY[way], "next"):
        assert fake_kube.until(
            lambda: len(fake_kube.requests.of(resource="leases", verb="update", user="next")) >= 4
        )
        assert scene.writes("next") == []


def test_only_the_namespace_of_the_objects_is_looked_at(
    fake_scene: Scene, fake_kube: FakeKube
) -> None:
    scene = fake_scene
    scene.kube.install_routes()
    with scene.serving(a_plan(Way.ROUTE)):
        scene.route_admitted(HOST)
        scene.reached(f"https://{HOST}:443")
        kinds = {"services", "routes", "ingresses", "deployments"}
        asked = [one for one in fake_kube.requests.of(user="grantserver") if one.resource in kinds]
        assert {one.namespace for one in asked} == {PLACE}
        assert {one.code for one in asked} <= {0, 200, 201, 404}


def test_a_grant_that_is_deleted_while_there_is_no_address_is_no_trouble(scene: Scene) -> None:
    with scene.serving(a_plan()):
        scene.stage.grant()
        pending(scene, WAITING)
        scene.kube.delete("AccessGrant", GRANT, NAMESPACE)
        scene.balance({"ip": "192.0.2.9"})
        scene.reached("https://192.0.2.9:9090")
        scene.stage.grant("other")
        scene.stage.ready("other")
