from app.kube.exposure.clusterip import observed, wanted
from app.kube.exposure.plan import Served
from tests.kube.exposure.scene import NAME, PLACE, a_plan, made


def test_the_service_is_of_the_cluster_alone() -> None:
    (one,) = wanted(a_plan(port=443), Served())
    assert one.body["spec"]["type"] == "ClusterIP"
    assert one.body["spec"]["ports"][0]["port"] == 443
    assert "externalTrafficPolicy" not in one.body["spec"]


def test_it_is_reached_by_all_names_that_the_dns_gives_it() -> None:
    found = made(wanted(a_plan(port=443), Served()))
    assert observed(a_plan(port=443), {}).addresses == ()
    found["Service"]["spec"]["clusterIP"] = "10.0.0.7"
    told = observed(a_plan(port=443), found)
    name = f"{NAME}.{PLACE}"
    assert [one.url for one in told.addresses] == [f"https://{name}.svc:443"]
    assert set(told.hosts) == {name, f"{name}.svc", f"{name}.svc.cluster.local", "10.0.0.7"}


def test_a_name_of_ours_comes_first() -> None:
    found = made(wanted(a_plan(), Served()))
    found["Service"]["spec"]["clusterIP"] = "None"
    told = observed(a_plan(host="grants.example"), found)
    assert [one.url for one in told.addresses] == ["https://grants.example:9090"]
    assert "none" not in told.hosts


def test_the_addresses_of_both_families_lead_to_it() -> None:
    found = made(wanted(a_plan(), Served()))
    ips = ["10.0.0.7", "fd00::7"]
    found["Service"]["spec"] |= {"clusterIP": ips[0], "clusterIPs": ips}
    assert set(ips) <= set(observed(a_plan(), found).hosts)


def test_its_port_is_the_one_that_it_has_and_not_the_one_that_was_asked_for() -> None:
    found = made(wanted(a_plan(port=443), Served()))
    assert [one.port for one in observed(a_plan(port=444), found).addresses] == [443]
