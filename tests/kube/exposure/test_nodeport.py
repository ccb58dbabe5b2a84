from app.kube.exposure.nodeport import observed, wanted
from app.kube.exposure.plan import Served
from app.kube.resources import Object
from tests.kube.exposure.scene import SELECTOR, a_plan, made


def with_port(number: object) -> dict[str, Object]:
    others = {"name": "of-somebody-else", "port": 9091, "nodePort": 31999}
    found = made(wanted(a_plan(), Served()))
    (ours,) = found["Service"]["spec"]["ports"]
    found["Service"]["spec"]["ports"] = [others, {**ours, "nodePort": number}]
    return found


def test_the_node_port_is_left_to_the_api_server_or_asked_for() -> None:
    (free,) = wanted(a_plan(), Served())
    assert "nodePort" not in free.body["spec"]["ports"][0]
    (fixed,) = wanted(a_plan(port=31000), Served())
    (port,) = fixed.body["spec"]["ports"]
    assert (port["port"], port["nodePort"]) == (9090, 31000)
    assert fixed.body["spec"]["externalTrafficPolicy"] == "Local"


def test_it_is_reached_at_the_nodes_and_the_port_that_was_given() -> None:
    told = observed(a_plan(host="2001:db8::4"), with_port(31000))
    assert [one.url for one in told.addresses] == ["https://[2001:db8::4]:31000"]


def test_without_a_port_or_an_address_of_the_nodes_there_is_none() -> None:
    for number in (None, 0, "31000"):
        assert observed(a_plan(host="192.0.2.4"), with_port(number)).addresses == ()
    told = observed(a_plan(), with_port(31000))
    assert "GRANTSERVER_EXPOSURE_HOST" in told.waiting


def test_a_service_that_leads_to_other_pods_is_no_way_in() -> None:
    for change in ({"selector": {"app": "other"}}, {"selector": {**SELECTOR, "more": "x"}}):
        found = with_port(31000)
        found["Service"]["spec"] |= change
        assert "leads to others" in observed(a_plan(host="192.0.2.4"), found).waiting
    found = with_port(31000)
    found["Service"]["spec"]["ports"][1]["targetPort"] = 1
    assert "leads to others" in observed(a_plan(host="192.0.2.4"), found).waiting
