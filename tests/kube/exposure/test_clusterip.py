from app.kube.exposure.clusterip import observed, wanted
from app.kube.exposure.plan import Served
from tests.kube.exposure.scene import NAME, PLACE, a_plan


def test_the_service_is_of_the_cluster_alone() -> None:
    (one,) = wanted(a_plan(port=443), Served())
    assert one.body["spec"]["type"] == "ClusterIP"
    assert one.body["spec"]["ports"][0]["port"] == 443
    assert "externalTrafficPolicy" not in one.body["spec"]


def test_it_is_reached_by_all_names_that_the_dns_gives_it() -> None:
    told = observed(a_plan(port=443), {"Service": {"spec": {"clusterIP": "10.0.0.7"}}})
    name = f"{NAME}.{PLACE}"
    assert [one.url for one in told.addresses] == [f"https://{name}.svc:443"]
    assert set(told.hosts) == {name, f"{name}.svc", f"{name}.svc.cluster.local", "10.0.0.7"}


def test_a_name_of_ours_comes_first() -> None:
    told = observed(a_plan(host="grants.example"), {"Service": {"spec": {"clusterIP": "None"}}})
    assert [one.url for one in told.addresses] == ["https://grants.example:9090"]
    assert "none" not in told.hosts
