import pytest

from app.kube.exposure.service import (
    LOAD_BALANCER,
    NODE_PORT,
    addresses,
    is_fixed_otherwise,
    points_of_ingress,
    service,
    trouble_of_ingress,
)
from app.kube.resources import Object
from tests.kube.exposure.scene import SELECTOR, a_plan


def with_ingress(*points: object) -> Object:
    return {"status": {"loadBalancer": {"ingress": list(points)}}}


def test_a_service_leads_to_the_port_that_pods_listen_on() -> None:
    spec = service(a_plan(pod_port=8443), port=443).body["spec"]
    assert spec == {
        "type": "ClusterIP",
        "selector": SELECTOR,
        "ports": [{"name": "redemption", "protocol": "TCP", "port": 443, "targetPort": 8443}],
    }


def test_what_a_type_needs_is_added() -> None:
    made = service(a_plan(), NODE_PORT, more={"a": 1}, of_port={"nodePort": 31000}).body["spec"]
    assert (made["type"], made["a"], made["ports"][0]["nodePort"]) == ("NodePort", 1, 31000)


def test_points_of_ingress_are_names_and_addresses_in_one_order() -> None:
    found = with_ingress({"ip": "192.0.2.1"}, {"hostname": "lb.example", "ip": "2001:db8::1"})
    assert points_of_ingress(found) == ("lb.example", "192.0.2.1", "2001:db8::1")
    assert points_of_ingress(with_ingress({"ip": ""}, {}, "x", {"ip": "bad host"})) == ()
    assert points_of_ingress(None) == points_of_ingress({}) == ()


def test_a_point_that_has_an_error_for_the_port_is_none() -> None:
    ports = [{"port": 80, "error": "Other"}, {"port": 9090, "error": "PortInUse"}]
    found = with_ingress({"ip": "192.0.2.1", "ports": ports}, {"ip": "192.0.2.2"})
    assert points_of_ingress(found, 9090) == ("192.0.2.2",)
    assert points_of_ingress(found, 443) == ("192.0.2.1", "192.0.2.2")
    assert trouble_of_ingress(found, 9090) == "PortInUse"
    assert trouble_of_ingress(found, 443) == trouble_of_ingress(None, 443) == ""


def test_each_host_gets_the_port() -> None:
    assert [one.url for one in addresses(("a", "::1"), 9)] == ["https://a:9", "https://[::1]:9"]


@pytest.mark.parametrize(
    ("now", "then", "fixed"),
    [
        ({"type": LOAD_BALANCER, "loadBalancerClass": "a/b"}, {"loadBalancerClass": "a/c"}, True),
        ({"type": LOAD_BALANCER, "loadBalancerClass": "a/b"}, {}, True),
        ({"type": LOAD_BALANCER}, {"loadBalancerClass": "a/b"}, True),
        ({"type": LOAD_BALANCER, "loadBalancerClass": "a/b"}, {"loadBalancerClass": "a/b"}, False),
        ({"type": LOAD_BALANCER}, {}, False),
        ({"type": "ClusterIP"}, {"loadBalancerClass": "a/b"}, False),
    ],
)
def test_the_class_of_a_load_balancer_is_for_life(now: Object, then: Object, fixed: bool) -> None:
    wanted = {"spec": {"type": LOAD_BALANCER} | then}
    assert is_fixed_otherwise({"spec": now}, wanted) is fixed
    assert not is_fixed_otherwise({"spec": now}, {"spec": {"type": "ClusterIP"}})
