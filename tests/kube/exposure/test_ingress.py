from app.kube.exposure.ingress import observed, wanted
from app.kube.exposure.plan import Served
from tests.kube.exposure.scene import a_plan

PASS = "nginx.ingress.kubernetes.io/ssl-passthrough"


def test_an_ingress_asks_for_tls_to_be_passed_through() -> None:
    service, ingress = wanted(a_plan(host="grants.example"), Served())
    assert ingress.body["spec"]["ingressClassName"] == "nginx"
    assert ingress.body["metadata"]["annotations"][PASS] == "true"
    (rule,) = ingress.body["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    backend = path["backend"]["service"]
    assert backend["name"] == service.body["metadata"]["name"]
    assert backend["port"]["name"] == service.body["spec"]["ports"][0]["name"]


def test_class_and_annotations_can_be_others() -> None:
    notes = {"haproxy.org/ssl-passthrough": "true", PASS: "false"}
    plan = a_plan(host="grants.example", class_name="haproxy", annotations=notes)
    _, ingress = wanted(plan, Served())
    assert ingress.body["spec"]["ingressClassName"] == "haproxy"
    assert notes.items() <= ingress.body["metadata"]["annotations"].items()


def test_it_is_reached_by_its_host_once_a_controller_has_taken_it() -> None:
    plan = a_plan(host="grants.example", port=8443)
    assert observed(plan, {"Ingress": {"status": {"loadBalancer": {}}}}).addresses == ()
    point = {"hostname": "lb.example"}
    found = {"Ingress": {"status": {"loadBalancer": {"ingress": [point]}}}}
    told = observed(plan, found)
    assert [one.url for one in told.addresses] == ["https://grants.example:8443"]
    assert told.hosts == ("grants.example",)  # it knows us by no other
