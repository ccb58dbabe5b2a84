from app.domain.exposure import TrafficPolicy
from app.kube.exposure.loadbalancer import observed, wanted
from app.kube.exposure.plan import Served
from tests.kube.exposure.scene import OBJECTS, a_plan, made


def test_the_defaults_keep_the_address_of_the_client() -> None:
    (one,) = wanted(a_plan(), Served())
    spec = one.body["spec"]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert spec["ports"][0]["port"] == 9090
    assert {"loadBalancerClass", "loadBalancerIP"} & spec.keys() == set()


def test_every_setting_has_its_place() -> None:
    plan = a_plan(
        annotations={"a": "b"},
        labels={"c": "d"},
        class_name="example.com/one",
        load_balancer_ip="192.0.2.9",
        port=443,
        traffic_policy=TrafficPolicy.CLUSTER,
    )
    (one,) = wanted(plan, Served())
    spec = one.body["spec"]
    assert spec["loadBalancerClass"] == "example.com/one"
    assert spec["loadBalancerIP"] == "192.0.2.9"
    assert spec["externalTrafficPolicy"] == "Cluster"
    assert (spec["ports"][0]["port"], spec["ports"][0]["targetPort"]) == (443, 9090)
    assert one.body["metadata"]["annotations"] == {"a": "b"}
    assert one.body["metadata"]["labels"]["c"] == "d"


def test_an_error_for_our_port_is_told() -> None:
    port = {"port": 443, "error": "SharedIPInUse"}
    point = {"ip": "192.0.2.9", "ports": [port]}
    status = {"loadBalancer": {"ingress": [point]}}
    plan = a_plan(port=443)
    told = observed(plan, made(wanted(plan, Served()), **status))
    assert told.waiting == f"waiting for an address of Service {OBJECTS}: SharedIPInUse"
    assert observed(plan, made(wanted(a_plan(), Served()), **status)).addresses[0].port == 9090


def test_a_host_of_ours_waits_for_the_balancer_too() -> None:
    assert observed(a_plan(host="grants.example"), {"Service": {}}).addresses == ()
