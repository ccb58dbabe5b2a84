from app.kube.exposure.ingress import observed, wanted
from app.kube.exposure.plan import Served
from tests.kube.exposure.scene import OBJECTS, a_plan, made

TAKEN = {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}
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
    assert observed(plan, made(wanted(plan, Served()), loadBalancer={})).addresses == ()
    told = observed(plan, made(wanted(plan, Served()), **TAKEN))
    assert [one.url for one in told.addresses] == ["https://grants.example:8443"]
    assert told.hosts == ("grants.example",)  # it knows us by no other


def test_its_host_is_the_one_that_it_has_and_not_the_one_that_was_asked_for() -> None:
    found = made(wanted(a_plan(host="old.example"), Served()), **TAKEN)
    assert observed(a_plan(host="new.example"), found).hosts == ("old.example",)


def test_an_ingress_that_passes_nothing_through_any_more_is_no_way_in() -> None:
    plan = a_plan(host="grants.example")
    found = made(wanted(plan, Served()), **TAKEN)
    found["Ingress"]["metadata"]["annotations"] = {PASS: "false"}
    told = observed(plan, found)
    assert told.addresses == ()
    assert told.waiting.startswith(f"waiting for an address of Ingress {OBJECTS}: somebody has")


def test_what_another_controller_needs_is_nobody_elses_change() -> None:
    plan = a_plan(host="grants.example", annotations={PASS: "false"})
    assert observed(plan, made(wanted(plan, Served()), **TAKEN)).hosts == ("grants.example",)


def test_an_ingress_to_another_service_is_no_way_in() -> None:
    plan = a_plan(host="grants.example")
    found = made(wanted(plan, Served()), **TAKEN)
    (rule,) = found["Ingress"]["spec"]["rules"]
    rule["http"]["paths"][0]["backend"]["service"]["name"] = "other"
    assert "it leads to another Service" in observed(plan, found).waiting
