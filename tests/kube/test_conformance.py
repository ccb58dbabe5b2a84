"""What we rely on of a Kubernetes API server, tried on the fake one and on a real one.

Whatever a controller's test can see of the fake, it has from here: a behaviour that only the fake
has would make those tests worth nothing. The real half runs where KUBEBUILDER_ASSETS names a
folder with kube-apiserver and etcd.
"""

import base64
import json
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.kube.questions import METADATA, METADATA_LIST
from tests.kube.api_server import FakeKube, Kube, Object
from tests.kube.asking import Asking, Event
from tests.kube.objects import a_deployment
from tests.kube.real import ABSENT, assets

GRANTS_GROUP = "/apis/skupper.io/v2alpha1"
NOW = "2026-11-22T12:00:00Z"
MICRO = "2026-11-22T12:00:00.000000Z"
CONDITION = {
    "type": "Ready",
    "status": "True",
    "lastTransitionTime": NOW,
    "reason": "Ready",
    "message": "OK",
}


# As a mark, the run says once that this half is missing, and not once for each test.
MISSING = [pytest.mark.skip(reason=ABSENT)] if assets() is None else []


@pytest.fixture(params=["fake", pytest.param("real", marks=MISSING)])
def api(request: pytest.FixtureRequest) -> Kube:
    """Each of the two, with our definitions."""
    made = request.getfixturevalue(f"{request.param}_kube")
    assert isinstance(made, Kube)
    made.install_skupper()
    made.install_routes()
    return made


@pytest.fixture
def west(api: Kube) -> str:
    """A namespace that no test has used."""
    return api.namespace(f"west-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def east(api: Kube) -> str:
    """Another one."""
    return api.namespace(f"east-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def asking(api: Kube) -> Asking:
    """A client that may do everything."""
    return Asking(api)


def grants(namespace: str = "", name: str = "", part: str = "") -> str:
    return path("/apis/skupper.io/v2alpha1", "accessgrants", namespace, name, part)


def leases(namespace: str = "", name: str = "") -> str:
    return path("/apis/coordination.k8s.io/v1", "leases", namespace, name)


def routes(namespace: str = "", name: str = "") -> str:
    return path("/apis/route.openshift.io/v1", "routes", namespace, name)


def core(plural: str, namespace: str = "", name: str = "", part: str = "") -> str:
    return path("/api/v1", plural, namespace, name, part)


def path(root: str, plural: str, namespace: str, name: str, part: str = "") -> str:
    steps = [root, *(["namespaces", namespace] if namespace else []), plural, name, part]
    return "/".join(step for step in steps if step)


def a_grant(
    name: str = "grant-west", /, spec: Mapping[str, Any] | None = None, **metadata: Any
) -> Object:
    return {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "AccessGrant",
        "metadata": {"name": name, **metadata},
        "spec": {"redemptionsAllowed": 1} if spec is None else dict(spec),
    }


def a_config_map(name: str = "notes", data: Mapping[str, str] | None = None) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"text": "one"} if data is None else dict(data),
    }


def a_secret(name: str = "ca", **fields: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, **fields}


def a_lease(**spec: Any) -> Object:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader"},
        "spec": spec,
    }


def a_route(**spec: Any) -> Object:
    return {
        "apiVersion": "route.openshift.io/v1",
        "kind": "Route",
        "metadata": {"name": "door"},
        "spec": {"to": {"name": "grantserver"}, **spec},
    }


def a_service(*ports: Mapping[str, Any]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "door"},
        "spec": {"ports": list(ports), "selector": {"app": "door"}},
    }


def named(given: Object, name: str) -> Object:
    return {**given, "metadata": {**given["metadata"], "name": name}}


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(type_, found["metadata"]["name"]) for type_, found in events]


class TestCreating:
    def test_a_new_object_gets_an_identity(self, asking: Asking, west: str) -> None:
        made = asking.post(grants(west), a_grant())
        assert made.code == 201
        metadata = made.body["metadata"]
        assert str(uuid.UUID(metadata["uid"])) == metadata["uid"]
        assert metadata["creationTimestamp"].endswith("Z")
        assert (metadata["namespace"], metadata["generation"]) == (west, 1)
        assert int(metadata["resourceVersion"]) > 0
        assert asking.get(grants(west, "grant-west")).body == made.body

    def test_every_change_gets_a_later_version_whatever_it_changes(
        self, asking: Asking, west: str
    ) -> None:
        versions = [
            int(asking.post(grants(west), a_grant("one")).version),
            int(asking.post(core("configmaps", west), a_config_map()).version),
            int(asking.merge(grants(west, "one"), {"spec": {"code": "x"}}).version),
        ]
        assert versions == sorted(set(versions))

    def test_a_name_is_there_once_in_each_namespace(
        self, asking: Asking, west: str, east: str
    ) -> None:
        assert asking.post(grants(west), a_grant()).code == 201
        again = asking.post(grants(west), a_grant())
        assert (again.code, again.reason) == (409, "AlreadyExists")
        assert again.body["details"]["name"] == "grant-west"
        assert asking.post(grants(east), a_grant()).code == 201

    def test_a_name_can_be_left_to_the_server(self, asking: Asking, west: str) -> None:
        asked = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "note-"}}
        made = [asking.post(core("configmaps", west), asked) for _ in range(2)]
        names = {one.body["metadata"]["name"] for one in made}
        assert len(names) == 2
        assert all(name.startswith("note-") and len(name) == 10 for name in names)

    @pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "a" * 254, "a b"])
    def test_a_name_has_its_form(self, asking: Asking, west: str, name: str) -> None:
        refused = asking.post(grants(west), a_grant(name))
        assert (refused.code, refused.reason) == (422, "Invalid")

    def test_a_namespace_must_be_there(self, asking: Asking) -> None:
        refused = asking.post(grants("nowhere"), a_grant())
        assert (refused.code, refused.reason) == (404, "NotFound")
        assert refused.body["details"] == {"name": "nowhere", "kind": "namespaces"}

    def test_a_version_is_not_for_those_who_create(self, asking: Asking, west: str) -> None:
        assert asking.post(grants(west), a_grant(resourceVersion="7")).code in {400, 500}

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            json.dumps({**a_grant(), "apiVersion": "v1"}).encode(),
            json.dumps(a_grant(namespace="other")).encode(),
            json.dumps(a_grant(labels={"a": 1})).encode(),
        ],
        ids=["no JSON", "another group", "another namespace", "not a label"],
    )
    def test_what_is_not_an_object_of_this_path_is_a_bad_request(
        self, asking: Asking, west: str, body: bytes
    ) -> None:
        refused = asking.post(grants(west), body)
        assert (refused.code, refused.reason) == (400, "BadRequest")

    def test_nor_is_an_object_of_another_kind(self, asking: Asking, west: str) -> None:
        assert asking.post(grants(west), {**a_grant(), "kind": "Site"}).code == 422
        asked = {**a_config_map(), "kind": "Secret"}
        assert asking.post(core("configmaps", west), asked).code == 400


class TestReading:
    def test_what_is_not_there_is_not_found(self, asking: Asking, west: str) -> None:
        missing = asking.get(grants(west, "nobody"))
        assert (missing.code, missing.reason) == (404, "NotFound")
        assert missing.body["kind"] == "Status"
        assert missing.body["status"] == "Failure"
        assert missing.body["details"] == {
            "name": "nobody",
            "group": "skupper.io",
            "kind": "accessgrants",
        }

    @pytest.mark.parametrize(
        "where", ["/apis/skupper.io/v2alpha1/nothings", "/apis/nobody.io/v1/things", "/nowhere"]
    )
    def test_a_kind_that_is_not_served_is_not_found(self, asking: Asking, where: str) -> None:
        assert asking.get(where).code == 404

    def test_a_list_is_of_one_namespace_or_of_all(
        self, asking: Asking, west: str, east: str
    ) -> None:
        asking.post(grants(west), a_grant("a"))
        asking.post(grants(east), a_grant("b"))
        here = asking.get(grants(west))
        assert here.code == 200
        assert here.body["kind"] == "AccessGrantList"
        assert [one["metadata"]["name"] for one in here.body["items"]] == ["a"]
        assert here.body["items"][0]["kind"] == "AccessGrant"
        everywhere = asking.get(grants()).body["items"]
        found = {one["metadata"]["name"] for one in everywhere}
        assert found >= {"a", "b"}

    def test_the_version_of_a_list_is_not_before_what_is_in_it(
        self, asking: Asking, west: str
    ) -> None:
        made = asking.post(grants(west), a_grant())
        assert int(asking.get(grants(west)).version) >= int(made.version)

    def test_a_list_comes_in_pages_of_one_moment(self, asking: Asking, west: str) -> None:
        for name in "abcde":
            asking.post(grants(west), a_grant(name))
        first = asking.get(grants(west), limit=2)
        metadata = first.body["metadata"]
        assert [one["metadata"]["name"] for one in first.body["items"]] == ["a", "b"]
        assert metadata["remainingItemCount"] == 3
        asking.post(grants(west), a_grant("cc"))
        asking.delete(grants(west, "d"))
        second = asking.get(grants(west), limit=2, **{"continue": metadata["continue"]})
        assert [one["metadata"]["name"] for one in second.body["items"]] == ["c", "d"]
        assert second.version == first.version
        rest = asking.get(
            grants(west), limit=2, **{"continue": second.body["metadata"]["continue"]}
        )
        assert [one["metadata"]["name"] for one in rest.body["items"]] == ["e"]
        assert not rest.body["metadata"].get("continue")
        assert "remainingItemCount" not in rest.body["metadata"]

    def test_a_page_of_long_ago_has_expired(self, api: Any, asking: Asking, west: str) -> None:
        for name in "abc":
            asking.post(grants(west), a_grant(name))
        first = asking.get(grants(west), limit=1)
        asking.post(grants(west), a_grant("d"))
        api.compact()
        refused = asking.get(
            grants(west), limit=1, **{"continue": first.body["metadata"]["continue"]}
        )
        assert (refused.code, refused.reason) == (410, "Expired")

    def test_what_is_no_page_is_a_bad_request(self, asking: Asking, west: str) -> None:
        assert asking.get(grants(west), limit=1, **{"continue": "!"}).code == 400

    @pytest.mark.parametrize(
        ("selector", "names"),
        [
            ("zone=a", ["one", "three"]),
            ("zone==a,tier=x", ["one"]),
            ("zone!=a", ["none", "two"]),
            ("zone in (a,b),tier", ["one", "two"]),
            ("zone notin (a)", ["none", "two"]),
            ("!tier", ["none", "three"]),
            ("tier", ["one", "two"]),
            ("zone=c", []),
        ],
    )
    def test_labels_select(
        self, asking: Asking, west: str, selector: str, names: list[str]
    ) -> None:
        for name, labels in {
            "one": {"zone": "a", "tier": "x"},
            "two": {"zone": "b", "tier": "x"},
            "three": {"zone": "a"},
            "none": {},
        }.items():
            asking.post(grants(west), a_grant(name, labels=labels))
        found = asking.get(grants(west), labelSelector=selector).body["items"]
        assert [one["metadata"]["name"] for one in found] == names

    def test_names_and_namespaces_select(self, asking: Asking, west: str, east: str) -> None:
        for namespace in (west, east):
            for name in ("one", "two"):
                asking.post(grants(namespace), a_grant(name))
        for selector, names in {
            f"metadata.name=one,metadata.namespace={west}": ["one"],
            f"metadata.namespace={east}": ["one", "two"],
            f"metadata.namespace={east},metadata.name!=one": ["two"],
        }.items():
            found = asking.get(grants(), fieldSelector=selector).body["items"]
            assert [one["metadata"]["name"] for one in found] == names

    @pytest.mark.parametrize(
        "query", [{"fieldSelector": "spec.code=x"}, {"labelSelector": "a=b=c"}], ids=str
    )
    def test_other_selectors_are_bad_requests(
        self, asking: Asking, west: str, query: dict[str, str]
    ) -> None:
        assert asking.get(grants(west), **query).code == 400

    def test_kubectl_gets_the_columns_of_the_contract(self, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant())
        status = {
            "redemptions": 0,
            "expirationTime": NOW,
            "status": "Ready",
            "message": "OK",
        }
        asking.merge(grants(west, "grant-west", "status"), {"status": status})
        shown = asking.get(grants(west), accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
        assert shown["kind"] == "Table"
        assert [one["name"] for one in shown["columnDefinitions"]] == [
            "Name",
            "Redemptions Allowed",
            "Redemptions Made",
            "Expiration",
            "Status",
            "Message",
        ]
        assert [row["cells"] for row in shown["rows"]] == [["grant-west", 1, 0, NOW, "Ready", "OK"]]
        assert shown["rows"][0]["object"]["metadata"]["name"] == "grant-west"

    def test_objects_come_without_their_content_if_it_is_not_wanted(
        self, asking: Asking, west: str
    ) -> None:
        helm = a_secret("sh.helm.release", type="helm.sh/release.v1")
        for secret in (a_secret("one", stringData={"key": "s3cret"}), a_secret("two"), helm):
            asking.post(core("secrets", west), secret)
        selected = {"limit": 1, "fieldSelector": "type!=helm.sh/release.v1"}
        found = asking.get(core("secrets", west), accept=METADATA_LIST, **selected).body
        more = found["metadata"]["continue"]
        rest = asking.get(
            core("secrets", west), accept=METADATA_LIST, **selected, **{"continue": more}
        ).body
        assert (found["kind"], found["apiVersion"]) == (
            "PartialObjectMetadataList",
            "meta.k8s.io/v1",
        )
        whole = [asking.get(core("secrets", west, name)).body for name in ("one", "two")]
        assert [one["metadata"] for one in [*found["items"], *rest["items"]]] == [
            one["metadata"] for one in whole
        ]
        assert found["items"][0].keys() <= {"kind", "apiVersion", "metadata"}
        version = found["metadata"]["resourceVersion"]
        with asking.watch(
            core("secrets", west), accept=METADATA, resourceVersion=version
        ) as watching:
            changed = asking.merge(core("secrets", west, "one"), {"data": {"key": "eA=="}}).body
            asking.delete(core("secrets", west, "one"))
            first, second = watching.take(2)
        assert first == (
            "MODIFIED",
            {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": changed["metadata"],
            },
        )
        assert second[0] == "DELETED"
        assert second[1].keys() == {"kind", "apiVersion", "metadata"}

    def test_what_is_served_can_be_discovered(self, asking: Asking) -> None:
        assert asking.get("/version").body["gitVersion"].startswith("v1.")
        found = {
            one["name"]: one for one in asking.get("/apis/skupper.io/v2alpha1").body["resources"]
        }
        grant = found["accessgrants"]
        assert (grant["kind"], grant["namespaced"], grant["shortNames"]) == (
            "AccessGrant",
            True,
            ["grant", "gr"],
        )
        assert {"get", "list", "watch", "create", "update", "patch", "delete"} <= {*grant["verbs"]}
        assert {*found["accessgrants/status"]["verbs"]} == {"get", "patch", "update"}
        groups = asking.get("/apis").body["groups"]
        assert {"skupper.io", "coordination.k8s.io", "route.openshift.io"} <= {
            one["name"] for one in groups
        }
        assert asking.get("/apis/nobody.example/v1").code == 404
        assert asking.get("/readyz").code == 200


class TestWritingTheStatus:
    def test_a_status_is_not_created_with_the_object(self, asking: Asking, west: str) -> None:
        made = asking.post(grants(west), {**a_grant(), "status": {"url": "https://x"}})
        assert "status" not in made.body

    def test_the_object_and_its_status_are_written_apart(self, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant())
        both = {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"code": "x"},
            "status": {"url": "https://x"},
        }
        plain = asking.merge(grants(west, "grant-west"), both).body
        assert (plain["spec"]["code"], plain["metadata"]["labels"]) == ("x", {"a": "b"})
        assert "status" not in plain
        both = {
            "metadata": {"labels": {"a": "c"}},
            "spec": {"code": "y"},
            "status": {"url": "https://y"},
        }
        status = asking.merge(grants(west, "grant-west", "status"), both).body
        assert (status["spec"]["code"], status["metadata"]["labels"]) == ("x", {"a": "b"})
        assert status["status"] == {"url": "https://y"}

    def test_it_can_be_put_as_well_and_read_by_itself(self, asking: Asking, west: str) -> None:
        made = asking.post(grants(west), a_grant()).body
        put = asking.put(
            grants(west, "grant-west", "status"),
            {**made, "spec": {"code": "y"}, "status": {"url": "https://x"}},
        )
        assert put.code == 200
        assert put.body["spec"] == made["spec"]
        assert put.body["status"] == {"url": "https://x"}
        assert asking.get(grants(west, "grant-west", "status")).body == put.body
        # And the object is put without it.
        without = asking.put(
            grants(west, "grant-west"),
            {**a_grant(resourceVersion=put.version), "status": {"url": "https://z"}},
        )
        assert without.body["status"] == {"url": "https://x"}

    def test_only_what_is_wanted_of_an_object_is_another_generation_of_it(
        self, asking: Asking, west: str
    ) -> None:
        here = grants(west, "grant-west")
        asking.post(grants(west), a_grant())
        status = {"status": {"url": "https://x"}}
        assert asking.merge(f"{here}/status", status).generation == 1
        assert asking.merge(here, {"metadata": {"labels": {"a": "b"}}}).generation == 1
        assert asking.merge(here, {"metadata": {"annotations": {"a": "b"}}}).generation == 1
        assert asking.merge(here, {"spec": {"code": "x"}}).generation == 2
        assert asking.merge(here, {"spec": {"code": "x"}}).generation == 2
        assert asking.merge(here, {"metadata": {"generation": 7}}).generation == 2

    def test_a_write_that_changes_nothing_is_no_change(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        made = asking.post(grants(west), a_grant())
        assert asking.merge(here, {"spec": {"redemptionsAllowed": 1}}).version == made.version
        assert asking.put(here, made.body).version == made.version
        status = {"status": {"conditions": [CONDITION], "url": "https://x"}}
        written = asking.merge(f"{here}/status", status)
        assert written.version != made.version
        assert asking.merge(f"{here}/status", status).version == written.version

    def test_conditions_are_replaced_as_a_whole(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west", "status")
        asking.post(grants(west), a_grant())
        resolved = {**CONDITION, "type": "Resolved"}
        asking.merge(here, {"status": {"conditions": [CONDITION, resolved]}})
        written = asking.merge(here, {"status": {"conditions": [resolved]}})
        assert written.body["status"]["conditions"] == [resolved]

    def test_fields_that_nobody_knows_are_dropped_silently(self, asking: Asking, west: str) -> None:
        made = asking.post(
            grants(west),
            {**a_grant(spec={"code": "x", "colour": "red"}), "colour": "red"}
            | {"metadata": {"name": "grant-west", "colour": "red"}},
        )
        assert made.code == 201
        assert made.body["spec"] == {"code": "x"}
        assert "colour" not in made.body
        assert "colour" not in made.body["metadata"]
        status = {"url": "https://x", "colour": "red", "conditions": [{**CONDITION, "colour": 1}]}
        written = asking.merge(grants(west, "grant-west", "status"), {"status": status})
        assert written.body["status"] == {"url": "https://x", "conditions": [CONDITION]}

    def test_a_kind_without_a_status_has_no_path_for_it(self, asking: Asking, west: str) -> None:
        asking.post(core("configmaps", west), a_config_map())
        assert asking.merge(core("configmaps", west, "notes", "status"), {}).code == 404


class TestVersions:
    def test_a_put_of_an_old_version_is_a_conflict(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        made = asking.post(grants(west), a_grant()).body
        later = asking.merge(here, {"spec": {"code": "x"}})
        refused = asking.put(here, {**made, "spec": {"code": "y"}})
        assert (refused.code, refused.reason) == (409, "Conflict")
        assert refused.body["details"]["name"] == "grant-west"
        assert asking.get(here).body == later.body

    @pytest.mark.parametrize("part", ["", "status"])
    def test_a_patch_that_names_an_old_version_is_a_conflict(
        self, asking: Asking, west: str, part: str
    ) -> None:
        made = asking.post(grants(west), a_grant())
        later = asking.merge(grants(west, "grant-west"), {"spec": {"code": "x"}})
        here = grants(west, "grant-west", part)
        change: Object = {"spec": {"code": "y"}, "status": {"url": "https://y"}}
        stale = {"metadata": {"resourceVersion": made.version}, **change}
        refused = asking.merge(here, stale)
        assert (refused.code, refused.reason) == (409, "Conflict")
        fresh = {"metadata": {"resourceVersion": later.version}, **change}
        assert asking.merge(here, fresh).code == 200

    def test_a_patch_that_names_none_always_goes(self, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant())
        for code in "xyz":
            assert asking.merge(grants(west, "grant-west"), {"spec": {"code": code}}).code == 200

    def test_some_kinds_can_be_put_without_a_version_and_some_cannot(
        self, asking: Asking, west: str
    ) -> None:
        asking.post(grants(west), a_grant())
        refused = asking.put(grants(west, "grant-west"), a_grant())
        assert (refused.code, refused.reason) == (422, "Invalid")
        asking.post(leases(west), a_lease())
        assert asking.put(leases(west, "leader"), a_lease()).code == 422
        asking.post(core("configmaps", west), a_config_map())
        put = asking.put(core("configmaps", west, "notes"), a_config_map(data={"text": "two"}))
        assert put.body["data"] == {"text": "two"}

    def test_an_object_of_another_life_is_a_conflict(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        first = asking.post(grants(west), a_grant()).body["metadata"]["uid"]
        asking.delete(here)
        second = asking.post(grants(west), a_grant())
        assert second.body["metadata"]["uid"] != first
        refused = asking.put(here, a_grant(uid=first, resourceVersion=second.version))
        assert refused.code == 409
        refused = asking.merge(here, {"metadata": {"uid": first}, "spec": {"code": "x"}})
        assert refused.code in {409, 422}
        assert asking.get(here).body == second.body

    def test_who_an_object_is_cannot_be_changed(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        made = asking.post(grants(west), a_grant()).body
        renamed = asking.put(here, {**made, "metadata": {**made["metadata"], "name": "other"}})
        assert renamed.code == 400
        older = {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}, "spec": {"code": "x"}}
        patched = asking.merge(here, older).body["metadata"]
        assert patched["creationTimestamp"] == made["metadata"]["creationTimestamp"]

    def test_what_is_not_there_is_neither_put_nor_patched(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        assert asking.merge(here, {"spec": {}}).code == 404
        assert asking.put(here, a_grant(resourceVersion="1")).code in {404, 409}
        assert asking.delete(here).code == 404

    def test_of_those_who_write_at_once_none_is_lost(self, asking: Asking, west: str) -> None:
        here = core("configmaps", west, "notes")
        asking.post(core("configmaps", west), a_config_map(data={"count": "0"}))

        def increment(_: int) -> None:
            while True:
                found = asking.get(here).body
                found["data"]["count"] = str(int(found["data"]["count"]) + 1)
                if asking.put(here, found).code == 200:
                    return

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(increment, range(24)))
        assert asking.get(here).body["data"] == {"count": "24"}


class TestSchemas:
    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            ({"redemptionsAllowed": "1"}, "spec.redemptionsAllowed"),
            ({"redemptionsAllowed": 1.5}, "spec.redemptionsAllowed"),
            ({"expirationWindow": "soon"}, "spec.expirationWindow"),
            ({"expirationWindow": 15}, "spec.expirationWindow"),
            ({"settings": {"a": 1}}, "spec.settings.a"),
            ({"code": ["x"]}, "spec.code"),
        ],
        ids=str,
    )
    def test_a_wrong_spec_is_invalid(
        self, asking: Asking, west: str, spec: Object, field: str
    ) -> None:
        refused = asking.post(grants(west), a_grant(spec=spec))
        assert (refused.code, refused.reason) == (422, "Invalid")
        assert [one["field"] for one in refused.body["details"]["causes"]] == [field]
        assert refused.body["details"]["kind"] == "AccessGrant"
        asking.post(grants(west), a_grant())
        assert asking.merge(grants(west, "grant-west"), {"spec": spec}).code == 422

    @pytest.mark.parametrize(
        "window", ["25m", "1h30m", "1.5h", "90s", "-5m", "2 days", "1w", "0", "15 minutes"]
    )
    def test_the_server_takes_more_durations_than_go_does(
        self, asking: Asking, west: str, window: str
    ) -> None:
        made = asking.post(grants(west), a_grant(spec={"expirationWindow": window}))
        assert made.code == 201

    @pytest.mark.parametrize("window", ["", "15", "m", "1.5", "tomorrow"])
    def test_but_not_everything(self, asking: Asking, west: str, window: str) -> None:
        made = asking.post(grants(west), a_grant(spec={"expirationWindow": window}))
        assert made.code == 422

    @pytest.mark.parametrize(
        ("status", "field"),
        [
            ({"redemptions": "1"}, "status.redemptions"),
            ({"expirationTime": "soon"}, "status.expirationTime"),
            ({"conditions": [{**CONDITION, "status": "true"}]}, "status.conditions.status"),
            ({"conditions": [{**CONDITION, "reason": ""}]}, "status.conditions.reason"),
            ({"conditions": [{**CONDITION, "reason": "no way"}]}, "status.conditions.reason"),
            (
                {"conditions": [{**CONDITION, "observedGeneration": -1}]},
                "status.conditions.observedGeneration",
            ),
            (
                {"conditions": [{**CONDITION, "lastTransitionTime": "soon"}]},
                "status.conditions.lastTransitionTime",
            ),
            ({"conditions": [{"type": "Ready"}]}, "status.conditions."),
        ],
        ids=str,
    )
    def test_a_wrong_status_is_invalid(
        self, asking: Asking, west: str, status: Object, field: str
    ) -> None:
        asking.post(grants(west), a_grant())
        refused = asking.merge(grants(west, "grant-west", "status"), {"status": status})
        assert (refused.code, refused.reason) == (422, "Invalid")
        # Old servers leave the index of an item out.
        causes = refused.body["details"]["causes"]
        assert all(one["field"].replace("[0]", "").startswith(field) for one in causes), causes

    def test_what_is_required_must_be_there(self, asking: Asking, west: str) -> None:
        token = {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "AccessToken",
            "metadata": {"name": "token"},
            "spec": {"url": "https://x", "code": "x"},
        }
        refused = asking.post(path(GRANTS_GROUP, "accesstokens", west, ""), token)
        assert (refused.code, refused.reason) == (422, "Invalid")
        assert [one["field"] for one in refused.body["details"]["causes"]] == ["spec.ca"]

    def test_defaults_are_filled_in(self, asking: Asking, west: str) -> None:
        made = asking.post(routes(west), a_route(tls={"termination": "passthrough"}))
        assert made.code == 201
        assert made.body["spec"] == {
            "to": {"kind": "Service", "name": "grantserver", "weight": 100},
            "tls": {"termination": "passthrough"},
            "wildcardPolicy": "None",
        }

    def test_a_null_is_nothing_unless_there_is_something_to_put_for_it(
        self, asking: Asking, west: str
    ) -> None:
        made = asking.post(grants(west), a_grant(spec={"code": None}))
        assert (made.code, made.body["spec"]) == (201, {})
        made = asking.post(routes(west), a_route(wildcardPolicy=None))
        assert made.body["spec"]["wildcardPolicy"] == "None"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", "grants.skupper.io"),
            ("scope", "Somewhere"),
            ("schema", {"type": "object", "properties": {"spec": {"properties": {}}}}),
            ("schema", {"type": "string"}),
            ("schema", None),
        ],
        ids=str,
    )
    def test_a_definition_must_make_sense(self, asking: Asking, field: str, value: Any) -> None:
        definition = a_definition()
        if field == "name":
            definition["metadata"]["name"] = value
        elif field == "scope":
            definition["spec"]["scope"] = value
        elif value is None:
            del definition["spec"]["versions"][0]["schema"]
        else:
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = value
        refused = asking.post(DEFINITIONS, definition)
        assert (refused.code, refused.reason) == (422, "Invalid")

    def test_a_definition_is_established_and_what_it_defines_is_served(
        self, api: Kube, asking: Asking, west: str
    ) -> None:
        definition = a_definition()
        api.define(definition)
        name = definition["metadata"]["name"]
        found = api.get("CustomResourceDefinition", name)
        assert found["status"]["acceptedNames"]["kind"] == "Thing"
        conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}
        group = definition["spec"]["group"]
        thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "a"}}
        here = path(f"/apis/{group}/v1", "things", west, "")
        assert asking.post(here, thing).code == 201
        again = asking.post(DEFINITIONS, definition)
        assert (again.code, again.reason) == (409, "AlreadyExists")
        assert asking.delete(f"{DEFINITIONS}/{name}").code == 200
        assert api.until(lambda: asking.get(here).code == 404)


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def a_definition() -> Object:
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [version],
        },
    }


class TestPatching:
    def test_null_takes_a_field_away(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        asking.post(grants(west), a_grant(spec={"code": "x", "settings": {"a": "1", "b": "2"}}))
        patched = asking.merge(here, {"spec": {"code": None, "settings": {"a": None}}})
        assert patched.body["spec"] == {"settings": {"b": "2"}}
        assert asking.merge(here, {"spec": {"settings": None}}).body["spec"] == {}

    def test_operations_are_all_done_or_none(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        made = asking.post(grants(west), a_grant(spec={"code": "x", "settings": {"a/b": "1"}}))
        done = asking.operate(
            here,
            [
                {"op": "test", "path": "/metadata/resourceVersion", "value": made.version},
                {"op": "replace", "path": "/spec/code", "value": "y"},
                {"op": "copy", "from": "/spec/code", "path": "/spec/issuer"},
                {"op": "move", "from": "/spec/settings/a~1b", "path": "/spec/settings/c"},
                {"op": "add", "path": "/spec/redemptionsAllowed", "value": 3},
            ],
        )
        assert done.body["spec"] == {
            "code": "y",
            "issuer": "y",
            "settings": {"c": "1"},
            "redemptionsAllowed": 3,
        }
        for operations in (
            [
                {"op": "replace", "path": "/spec/code", "value": "z"},
                {"op": "test", "path": "/spec/issuer", "value": "z"},
            ],
            [{"op": "remove", "path": "/spec/nothing"}],
        ):
            assert asking.operate(here, operations).code == 422
        assert asking.get(here).body == done.body

    def test_lists_are_operated_on_by_index(self, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant(finalizers=["example.com/a", "example.com/c"]))
        operations = [
            {"op": "add", "path": "/metadata/finalizers/1", "value": "example.com/b"},
            {"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/d"},
            {"op": "remove", "path": "/metadata/finalizers/0"},
        ]
        done = asking.operate(grants(west, "grant-west"), operations)
        left = [f"example.com/{one}" for one in "bcd"]
        assert done.body["metadata"]["finalizers"] == left
        asking.merge(grants(west, "grant-west"), {"metadata": {"finalizers": None}})

    def test_other_patches_are_not_for_custom_kinds(self, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant())
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        refused = asking.ask("PATCH", grants(west, "grant-west"), {"spec": {}}, headers=headers)
        assert refused.code == 415

    def test_a_patch_has_the_form_of_its_kind(self, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant())
        here = grants(west, "grant-west")
        assert asking.operate(here, {"spec": {}}).code == 400


class TestApplying:
    def test_what_is_not_there_is_created(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        made = asking.apply(here, a_grant(), "ours")
        assert made.code == 201
        assert made.generation == 1
        again = asking.apply(here, a_grant(), "ours")
        assert (again.code, again.version) == (200, made.version)
        assert asking.get(here).body["spec"] == {"redemptionsAllowed": 1}

    def test_the_name_stands_in_the_object_too(self, asking: Asking, west: str) -> None:
        nameless = {part: one for part, one in a_grant().items() if part != "metadata"}
        assert asking.apply(grants(west, "grant-west"), nameless, "ours").code == 400

    def test_who_applies_must_say_who_that_is(self, asking: Asking, west: str) -> None:
        refused = asking.apply(grants(west, "grant-west"), a_grant())
        assert refused.code in {400, 422}
        other = asking.merge(grants(west, "grant-west"), {"spec": {}}, force="true")
        assert other.code == 422

    def test_ownership_is_not_for_those_who_apply(self, asking: Asking, west: str) -> None:
        owned = a_grant(managedFields=[{"manager": "ours", "operation": "Apply"}])
        refused = asking.apply(grants(west, "grant-west"), owned, "ours")
        assert refused.code in {400, 422}

    def test_a_field_of_another_is_a_conflict_until_it_is_taken_by_force(
        self, asking: Asking, west: str
    ) -> None:
        here = grants(west, "grant-west")
        asking.apply(here, a_grant(spec={"code": "x", "issuer": "ca"}), "theirs")
        mine = a_grant(spec={"code": "y"})
        refused = asking.apply(here, mine, "ours")
        assert (refused.code, refused.reason) == (409, "Conflict")
        assert [(one["reason"], one["field"]) for one in refused.body["details"]["causes"]] == [
            ("FieldManagerConflict", ".spec.code")
        ]
        assert "theirs" in refused.body["details"]["causes"][0]["message"]
        assert asking.get(here).body["spec"] == {"code": "x", "issuer": "ca"}
        forced = asking.apply(here, mine, "ours", force="true")
        assert forced.body["spec"] == {"code": "y", "issuer": "ca"}
        # Now it is the other who would take it.
        back = asking.apply(here, a_grant(spec={"code": "x", "issuer": "ca"}), "theirs")
        assert back.code == 409

    def test_a_field_that_was_written_otherwise_is_a_conflict_too(
        self, asking: Asking, west: str
    ) -> None:
        here = grants(west, "grant-west")
        asking.post(grants(west), a_grant(spec={"code": "x"}), fieldManager="theirs")
        assert asking.apply(here, a_grant(spec={"code": "y"}), "ours").code == 409
        assert asking.apply(here, a_grant(spec={"code": "x"}), "ours").code == 200
        asking.merge(here, {"spec": {"code": "z"}}, fieldManager="third")
        assert asking.apply(here, a_grant(spec={"code": "x"}), "ours").code == 409

    def test_the_same_value_is_shared(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        asking.apply(here, a_grant(spec={"code": "x"}), "theirs")
        assert asking.apply(here, a_grant(spec={"code": "x", "issuer": "ca"}), "ours").code == 200
        left = asking.apply(here, a_grant(spec={"issuer": "ca"}), "ours")
        assert left.body["spec"] == {"code": "x", "issuer": "ca"}
        gone = asking.apply(here, a_grant(spec={"redemptionsAllowed": 2}), "theirs")
        assert gone.body["spec"] == {"issuer": "ca", "redemptionsAllowed": 2}

    def test_what_is_not_applied_any_more_goes(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        labels = {"labels": {"a": "1", "b": "2"}}
        spec = {"code": "x", "redemptionsAllowed": 2, "settings": {"a": "1", "b": "2"}}
        asking.apply(here, a_grant(spec=spec, **labels), "ours")
        asking.merge(here, {"metadata": {"labels": {"c": "3"}}, "spec": {"issuer": "ca"}})
        less = {"code": "x", "settings": {"a": "1"}}
        done = asking.apply(here, a_grant(spec=less, labels={"a": "1"}), "ours").body
        assert done["spec"] == {"code": "x", "settings": {"a": "1"}, "issuer": "ca"}
        assert done["metadata"]["labels"] == {"a": "1", "c": "3"}

    def test_a_status_is_applied_apart(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        made = asking.apply(here, {**a_grant(), "status": {"url": "https://x"}}, "ours")
        assert "status" not in made.body
        status = {**a_grant(spec={"code": "y"}), "status": {"url": "https://x"}}
        done = asking.apply(f"{here}/status", status, "ours").body
        assert done["status"] == {"url": "https://x"}
        assert done["spec"] == {"redemptionsAllowed": 1}
        assert done["metadata"]["generation"] == 1
        missing = asking.apply(grants(west, "nobody", "status"), status, "ours")
        assert missing.code in {400, 404}

    def test_what_is_applied_is_checked(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        assert asking.apply(here, a_grant(spec={"redemptionsAllowed": "1"}), "ours").code in {
            422,
            500,
        }
        made = asking.apply(here, a_grant(), "ours")
        asking.merge(here, {"spec": {"code": "x"}})
        stale = asking.apply(here, a_grant(resourceVersion=made.version), "ours")
        assert stale.code == 409

    @pytest.mark.parametrize("kind", ["configmaps", "services", "accessgrants"])
    def test_what_is_meant_for_another_object_of_that_name_is_refused(
        self, asking: Asking, west: str, kind: str
    ) -> None:
        """With the UID of one that is gone; a PUT is a conflict, and a patch makes no sense."""
        made = {
            "configmaps": a_config_map("door"),
            "services": a_service({"port": 9090, "protocol": "TCP"}),
            "accessgrants": a_grant("door"),
        }[kind]
        root = "/apis/skupper.io/v2alpha1" if kind == "accessgrants" else "/api/v1"
        there = path(root, kind, west, "")
        found = asking.post(there, made)
        other = {**made, "metadata": {"name": "door", "uid": str(uuid.uuid4())}}
        applied = asking.apply(f"{there}/door", other, "ours", force="true")
        assert (applied.code, applied.reason) == (422, "Invalid")
        fields = {one["field"] for one in applied.body["details"]["causes"]}
        assert "metadata.uid" in fields
        merged = asking.merge(f"{there}/door", {"metadata": other["metadata"]})
        assert (merged.code, merged.reason) == (422, "Invalid")
        if kind != "services":  # to which 1.20 says the same as to a patch, and later ones do not
            other["metadata"]["resourceVersion"] = found.version
            put = asking.put(f"{there}/door", other)
            assert (put.code, put.reason) == (409, "Conflict")
        asking.delete(f"{there}/door")
        other["metadata"].pop("resourceVersion", None)
        gone = asking.apply(f"{there}/door", other, "ours", force="true")
        assert (gone.code, gone.reason) == (409, "Conflict")

    def test_ports_of_a_service_are_applied_one_by_one(self, asking: Asking, west: str) -> None:
        here = core("services", west, "door")
        https = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 9090}
        ops = {"name": "ops", "port": 9091, "protocol": "TCP"}
        assert asking.apply(here, a_service(https, ops), "ours").code == 201
        taken = asking.apply(here, a_service({**https, "targetPort": 1}), "theirs")
        assert taken.code == 409
        done = asking.apply(here, a_service({**https, "targetPort": 9443}), "ours").body
        assert [(one["name"], one["targetPort"]) for one in done["spec"]["ports"]] == [
            ("https", 9443)
        ]

    def test_keys_of_a_secret_are_applied_one_by_one(self, asking: Asking, west: str) -> None:
        here = core("secrets", west, "ca")
        asking.apply(here, a_secret(data={"tls.crt": "YQ=="}), "ours")
        asking.apply(here, a_secret(data={"ca.crt": "Yg=="}), "theirs")
        found = asking.get(here).body
        assert found["data"] == {"tls.crt": "YQ==", "ca.crt": "Yg=="}
        managers = {one["manager"] for one in found["metadata"]["managedFields"]}
        assert managers == {"ours", "theirs"}

    def test_owners_are_applied_one_by_one(self, asking: Asking, west: str) -> None:
        here = core("configmaps", west, "notes")
        first, second = (
            {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": str(uuid.uuid4())}
            for name in "ab"
        )
        one, two = a_config_map(), a_config_map()
        one["metadata"]["ownerReferences"] = [first]
        two["metadata"]["ownerReferences"] = [second]
        asking.apply(here, one, "ours")
        assert asking.apply(here, two, "theirs").body["metadata"]["ownerReferences"] == [
            first,
            second,
        ]
        left = asking.apply(here, a_config_map(), "ours").body["metadata"]
        assert left["ownerReferences"] == [second]


class TestDeleting:
    def test_what_is_deleted_is_gone(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        made = asking.post(grants(west), a_grant())
        done = asking.delete(here)
        assert done.code == 200
        assert (done.body["kind"], done.body["status"]) == ("Status", "Success")
        assert done.body["details"]["uid"] == made.body["metadata"]["uid"]
        assert asking.get(here).code == 404
        assert asking.delete(here).code == 404

    @pytest.mark.parametrize("check", ["uid", "resourceVersion"])
    def test_only_the_one_that_was_meant(self, asking: Asking, west: str, check: str) -> None:
        here = grants(west, "grant-west")
        made = asking.post(grants(west), a_grant()).body["metadata"]
        wrong = str(uuid.uuid4()) if check == "uid" else "1"
        refused = asking.delete(here, {"preconditions": {check: wrong}})
        assert (refused.code, refused.reason) == (409, "Conflict")
        assert asking.delete(here, {"preconditions": {check: made[check]}}).code == 200

    def test_finalizers_keep_it_until_they_are_gone(self, asking: Asking, west: str) -> None:
        here = grants(west, "grant-west")
        made = asking.post(grants(west), a_grant(finalizers=["example.com/a", "example.com/b"]))
        with asking.watch(grants(west), resourceVersion=made.version, timeoutSeconds=20) as events:
            kept = asking.delete(here)
            assert kept.code == 200
            metadata = asking.get(here).body["metadata"]
            assert metadata["deletionTimestamp"].endswith("Z")
            assert metadata["deletionGracePeriodSeconds"] == 0
            assert metadata["generation"] == 2
            again = asking.delete(here)
            assert again.code == 200
            assert asking.get(here).body["metadata"] == metadata
            more = ["example.com/a", "example.com/b", "example.com/c"]
            assert asking.merge(here, {"metadata": {"finalizers": more}}).code == 422
            # It can be written as before, while it is going.
            assert asking.merge(here, {"spec": {"code": "x"}}).generation == 3
            status = {"status": {"url": "https://x"}}
            assert asking.merge(f"{here}/status", status).code == 200
            assert asking.merge(here, {"metadata": {"deletionTimestamp": None}}).code == 200
            assert "deletionTimestamp" in asking.get(here).body["metadata"]
            left = asking.merge(here, {"metadata": {"finalizers": ["example.com/b"]}})
            assert left.body["metadata"]["finalizers"] == ["example.com/b"]
            assert asking.merge(here, {"metadata": {"finalizers": None}}).code == 200
            assert asking.get(here).code == 404
            kinds = [type_ for type_, _ in events.take(5)]
        assert kinds == ["MODIFIED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]

    def test_a_namespace_that_goes_takes_nothing_new(self, api: Kube, asking: Asking) -> None:
        gone = api.namespace(f"gone-{uuid.uuid4().hex[:8]}")
        assert asking.get(core("namespaces", "", gone)).body["status"]["phase"] == "Active"
        asking.delete(core("namespaces", "", gone))
        found = api.get("Namespace", gone)
        assert found["status"]["phase"] == "Terminating"
        assert "deletionTimestamp" in found["metadata"]
        refused = asking.post(grants(gone), a_grant())
        assert (refused.code, refused.reason) == (403, "Forbidden")


class TestWatching:
    def test_everything_comes_in_its_order(self, asking: Asking, west: str) -> None:
        listed = asking.get(grants(west))
        with asking.watch(grants(west), resourceVersion=listed.version) as events:
            assert events.code == 200
            asking.post(grants(west), a_grant("one"))
            asking.post(grants(west), a_grant("two"))
            asking.merge(grants(west, "one"), {"spec": {"code": "x"}})
            asking.delete(grants(west, "two"))
            found = events.take(4)
        assert told(found) == [
            ("ADDED", "one"),
            ("ADDED", "two"),
            ("MODIFIED", "one"),
            ("DELETED", "two"),
        ]
        assert found[2][1]["spec"] == {"redemptionsAllowed": 1, "code": "x"}
        versions = [int(one["metadata"]["resourceVersion"]) for _, one in found]
        assert versions == sorted(set(versions))
        assert versions[0] > int(listed.version)

    def test_it_goes_on_from_any_version(self, asking: Asking, west: str) -> None:
        first = asking.post(grants(west), a_grant("one"))
        asking.post(grants(west), a_grant("two"))
        asking.delete(grants(west, "one"))
        with asking.watch(grants(west), resourceVersion=first.version) as events:
            assert told(events.take(2)) == [("ADDED", "two"), ("DELETED", "one")]

    def test_without_a_version_it_begins_with_what_is_there(
        self, asking: Asking, west: str
    ) -> None:
        for name in ("one", "two"):
            asking.post(grants(west), a_grant(name))
        with asking.watch(grants(west)) as events:
            assert {name for _, name in told(events.take(2))} == {"one", "two"}
            asking.post(grants(west), a_grant("three"))
            assert told(events.take(1)) == [("ADDED", "three")]

    def test_it_is_of_one_namespace_or_of_all(self, asking: Asking, west: str, east: str) -> None:
        version = asking.get(grants()).version
        with (
            asking.watch(grants(west), resourceVersion=version) as here,
            asking.watch(grants(), resourceVersion=version) as everywhere,
        ):
            asking.post(grants(east), a_grant("one"))
            asking.post(grants(west), a_grant("two"))
            assert told(here.take(1)) == [("ADDED", "two")]
            assert told(everywhere.take(2)) == [("ADDED", "one"), ("ADDED", "two")]

    def test_what_leaves_the_selection_is_deleted_for_who_selects(
        self, asking: Asking, west: str
    ) -> None:
        version = asking.get(grants(west)).version
        with asking.watch(grants(west), resourceVersion=version, labelSelector="zone=a") as events:
            asking.post(grants(west), a_grant("one"))
            asking.merge(grants(west, "one"), {"metadata": {"labels": {"zone": "a"}}})
            asking.merge(grants(west, "one"), {"spec": {"code": "x"}})
            left = asking.merge(grants(west, "one"), {"metadata": {"labels": {"zone": "b"}}})
            asking.delete(grants(west, "one"))
            asking.post(grants(west), a_grant("two", labels={"zone": "a"}))
            found = events.take(4)
        assert told(found) == [
            ("ADDED", "one"),
            ("MODIFIED", "one"),
            ("DELETED", "one"),
            ("ADDED", "two"),
        ]
        assert found[2][1]["metadata"]["resourceVersion"] == left.version
        assert found[2][1]["metadata"]["labels"] == {"zone": "a"}

    def test_one_object_can_be_watched_by_its_name(self, asking: Asking, west: str) -> None:
        version = asking.get(grants(west)).version
        with asking.watch(
            grants(west), resourceVersion=version, fieldSelector="metadata.name=two"
        ) as events:
            asking.post(grants(west), a_grant("one"))
            asking.post(grants(west), a_grant("two"))
            assert told(events.take(1)) == [("ADDED", "two")]

    def test_the_last_state_comes_with_the_news_of_its_end(self, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant(spec={"code": "x"}))
        made = asking.get(grants(west, "grant-west"))
        with asking.watch(grants(west), resourceVersion=made.version) as events:
            asking.delete(grants(west, "grant-west"))
            ((type_, found),) = events.take(1)
        assert type_ == "DELETED"
        assert found["spec"] == {"code": "x"}
        assert int(found["metadata"]["resourceVersion"]) > int(made.version)

    def test_it_ends_when_its_time_is_over(self, asking: Asking, west: str) -> None:
        version = asking.get(grants(west)).version
        with asking.watch(grants(west), resourceVersion=version, timeoutSeconds=1) as events:
            assert list(events) == []

    def test_a_bookmark_tells_how_far_others_have_come(
        self, api: Kube, asking: Asking, west: str, east: str
    ) -> None:
        if isinstance(api, FakeKube):
            api.bookmark_seconds = 0.2
        version = asking.get(grants(west)).version
        with (
            asking.watch(grants(west), resourceVersion=version, timeoutSeconds=8) as plain,
            asking.watch(
                grants(west),
                resourceVersion=version,
                # Without a minute of patience one comes before the end of the time.
                timeoutSeconds=8,
                allowWatchBookmarks="true",
            ) as marked,
        ):
            asking.post(grants(west), a_grant("one"))
            elsewhere = asking.post(grants(east), a_grant("two"))
            found, without = list(marked), list(plain)
        assert told(without) == [("ADDED", "one")]
        assert [one for one in found if one[0] != "BOOKMARK"] == without
        marks = [one for type_, one in found if type_ == "BOOKMARK"]
        assert {(one["kind"], one["apiVersion"]) for one in marks} == {
            ("AccessGrant", "skupper.io/v2alpha1")
        }
        assert int(marks[-1]["metadata"]["resourceVersion"]) >= int(elsewhere.version)
        assert not any(one.get("spec") for one in marks)

    def test_a_version_of_long_ago_has_expired(self, api: Kube, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant())
        if isinstance(api, FakeKube):
            api.compact()
        with asking.watch(grants(west), resourceVersion="1") as events:
            assert events.code == 200
            ((type_, status),) = list(events)
        assert type_ == "ERROR"
        assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")

    def test_many_watch_and_all_are_told(self, asking: Asking, west: str) -> None:
        version = asking.get(grants(west)).version
        watching = [asking.watch(grants(west), resourceVersion=version) for _ in range(8)]
        for number in range(20):
            asking.post(grants(west), a_grant(f"grant-{number}"))
        wanted = [("ADDED", f"grant-{number}") for number in range(20)]
        for events in watching:
            with events:
                assert told(events.take(20)) == wanted


class TestAccess:
    RULE: Mapping[str, Any] = {
        "apiGroups": ["skupper.io"],
        "resources": ["accessgrants"],
        "verbs": ["get", "list", "watch"],
    }

    @pytest.mark.parametrize("token", ["", "wrong"])
    def test_a_stranger_is_told_nothing(self, api: Kube, west: str, token: str) -> None:
        refused = Asking(api, token).get(grants(west))
        assert (refused.code, refused.reason) == (401, "Unauthorized")
        assert Asking(api, token).get("/version").code == 401

    def test_a_token_may_do_what_its_rules_say(self, api: Kube, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant())
        reader = Asking(api, api.token("reader", [self.RULE]))
        assert reader.get(grants(west)).code == 200
        assert reader.get(grants()).code == 200
        assert reader.get(grants(west, "grant-west")).code == 200
        with reader.watch(grants(west)) as events:
            assert events.code == 200
        here = grants(west, "grant-west")
        for refused in (
            reader.merge(here, {"spec": {}}),
            reader.merge(f"{here}/status", {"status": {}}),
            reader.put(here, a_grant(resourceVersion="1")),
            reader.post(grants(west), a_grant("other")),
            reader.delete(here),
            reader.get(core("secrets", west)),
            reader.get(core("secrets", west, "missing")),
            reader.get("/apis/skupper.io/v2alpha1/sites"),
        ):
            assert (refused.code, refused.reason) == (403, "Forbidden")
        assert 'cannot list resource "sites" in API group "skupper.io"' in refused.body["message"]
        assert "system:serviceaccount:default:reader" in refused.body["message"]
        assert reader.get("/apis/skupper.io/v2alpha1").code == 200
        assert reader.get("/version").code == 200

    def test_rules_can_be_of_one_namespace(self, api: Kube, west: str, east: str) -> None:
        reader = Asking(api, api.token("reader", [self.RULE], [west]))
        assert reader.get(grants(west)).code == 200
        assert reader.get(grants(east)).code == 403
        assert reader.get(grants()).code == 403

    def test_a_status_is_a_resource_of_its_own(self, api: Kube, asking: Asking, west: str) -> None:
        asking.post(grants(west), a_grant())
        rule = {**self.RULE, "resources": ["accessgrants/status"], "verbs": ["patch"]}
        writer = Asking(api, api.token("writer", [rule]))
        here = grants(west, "grant-west")
        assert writer.merge(f"{here}/status", {"status": {"url": "https://x"}}).code == 200
        assert writer.merge(here, {"spec": {"code": "x"}}).code == 403

    def test_who_may_see_one_object_may_list_and_watch_it_by_its_name(
        self, api: Kube, asking: Asking, west: str
    ) -> None:
        asking.post(core("secrets", west), a_secret("one"))
        asking.post(core("secrets", west), a_secret("two"))
        rule = {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["one"],
            "verbs": ["list", "watch"],
        }
        reader = Asking(api, api.token("narrow", [rule], [west]))
        there = core("secrets", west)
        found = reader.get(there, fieldSelector="metadata.name=one")
        assert [one["metadata"]["name"] for one in found.body["items"]] == ["one"]
        with reader.watch(there, fieldSelector="metadata.name=one") as events:
            assert told(events.take(1)) == [("ADDED", "one")]
        assert reader.get(there, fieldSelector="metadata.name=two").code == 403
        assert reader.get(there, labelSelector="a=b").code == 403
        assert reader.get(there).code == 403

    def test_who_creates_one_object_by_applying_needs_the_right_to_that_name_only(
        self, api: Kube, west: str
    ) -> None:
        rule = {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["notes"],
            "verbs": ["create", "patch"],
        }
        applier = Asking(api, api.token("named", [rule], [west]))
        assert applier.apply(core("configmaps", west, "notes"), a_config_map(), "ours").code == 201
        other = a_config_map("other")
        assert applier.apply(core("configmaps", west, "other"), other, "ours").code == 403

    def test_rules_can_name_what_they_are_for(self, api: Kube, west: str) -> None:
        rule = {**self.RULE, "resourceNames": ["one"], "verbs": ["get", "delete"]}
        one = Asking(api, api.token("one", [rule]))
        assert one.get(grants(west, "one")).code == 404
        assert one.get(grants(west, "two")).code == 403

    def test_who_creates_by_applying_must_be_allowed_to_create(
        self, api: Kube, asking: Asking, west: str
    ) -> None:
        applier = Asking(api, api.token("applier", [{**self.RULE, "verbs": ["patch"]}]))
        here = grants(west, "grant-west")
        assert applier.apply(here, a_grant(), "ours").code == 403
        asking.post(grants(west), a_grant())
        assert applier.apply(here, a_grant(), "ours", force="true").code == 200

    def test_requests_are_recorded_in_the_words_of_a_role(
        self, api: Kube, asking: Asking, west: str
    ) -> None:
        asking.post(grants(west), a_grant())
        token = api.token("reader", [{**self.RULE, "verbs": ["list", "get", "watch", "patch"]}])
        api.requests.clear()
        reader = Asking(api, token)
        reader.get(grants())
        reader.get(grants(west, "grant-west"))
        reader.watch(grants(west), timeoutSeconds=1).__exit__()
        reader.merge(grants(west, "grant-west"), {"spec": {"code": "x"}})
        reader.merge(grants(west, "grant-west", "status"), {"status": {"url": "https://x"}})
        api.patch("AccessGrant", "grant-west", {"spec": {"code": "y"}}, west)
        assert api.until(lambda: len(api.requests.of(user="reader")) == 5)
        assert api.until(lambda: [one.code for one in api.requests.writes()] == [200, 403])
        assert api.requests.rules(user="reader") == {
            ("skupper.io", "accessgrants", "list"),
            ("skupper.io", "accessgrants", "get"),
            ("skupper.io", "accessgrants", "watch"),
            ("skupper.io", "accessgrants", "patch"),
            ("skupper.io", "accessgrants/status", "patch"),
        }
        (written,) = api.requests.writes(subresource="status")
        assert (written.namespace, written.name) == (west, "grant-west")


class TestDiscovery:
    @pytest.fixture(autouse=True)
    def _gateways(self, api: Kube) -> None:
        api.install_gateways()

    def test_a_group_tells_its_versions(self, asking: Asking) -> None:
        found = asking.get("/apis/gateway.networking.k8s.io")
        assert found.code == 200
        assert (found.body["kind"], found.body["name"]) == (
            "APIGroup",
            "gateway.networking.k8s.io",
        )
        assert {one["version"] for one in found.body["versions"]} == {"v1", "v1alpha3"}
        assert asking.get("/apis/nobody.example").code == 404

    def test_a_version_tells_its_kinds(self, asking: Asking) -> None:
        for root, plural in (
            ("/apis/gateway.networking.k8s.io/v1", "gateways"),
            ("/apis/gateway.networking.k8s.io/v1alpha3", "tlsroutes"),
            ("/apis/route.openshift.io/v1", "routes"),
            ("/apis/networking.k8s.io/v1", "ingresses"),
            ("/api/v1", "services"),
        ):
            found = asking.get(root)
            assert found.code == 200
            assert found.body["kind"] == "APIResourceList"
            assert {plural, f"{plural}/status"} <= {one["name"] for one in found.body["resources"]}
        assert asking.get("/apis/gateway.networking.k8s.io/v1alpha2").code == 404

    def test_everybody_who_is_known_may_ask(self, api: Kube) -> None:
        asking = Asking(api, api.token("nobody", []))
        assert asking.get("/apis/gateway.networking.k8s.io").code == 200
        assert asking.get("/apis/gateway.networking.k8s.io/v1").code == 200

    def test_listeners_of_a_gateway_are_applied_one_by_one_and_parents_of_a_route_together(
        self, asking: Asking, west: str
    ) -> None:
        root = "/apis/gateway.networking.k8s.io"
        here = path(f"{root}/v1", "gateways", west, "door")
        listener = {"name": "in", "port": 8443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}
        about = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway"}
        gateway = {
            **about,
            "metadata": {"name": "door"},
            "spec": {"gatewayClassName": "any", "listeners": [listener]},
        }
        assert asking.apply(here, gateway, "ours").code == 201
        second = {"name": "other", "port": 443, "protocol": "HTTPS"}
        theirs = {**about, "metadata": {"name": "door"}, "spec": {"listeners": [second]}}
        assert asking.apply(here, theirs, "theirs").code == 200
        again = asking.apply(here, gateway, "ours")
        assert [one["name"] for one in again.body["spec"]["listeners"]] == ["in", "other"]
        here = path(f"{root}/v1alpha3", "tlsroutes", west, "door")
        route = {
            "apiVersion": "gateway.networking.k8s.io/v1alpha3",
            "kind": "TLSRoute",
            "metadata": {"name": "door"},
            "spec": {
                "parentRefs": [{"name": "door"}],
                "hostnames": ["door.example"],
                "rules": [{"backendRefs": [{"name": "door", "port": 9090}]}],
            },
        }
        made = asking.apply(here, route, "ours")
        assert made.code == 201
        assert made.body["spec"]["parentRefs"][0]["kind"] == "Gateway"
        own = {**route, "spec": {"hostnames": ["other.example"]}}
        assert asking.apply(here, own, "theirs").code == 409


class TestBuiltInKinds:
    def test_a_lease_passes_on_by_its_version(self, asking: Asking, west: str) -> None:
        spec = {
            "holderIdentity": "one",
            "leaseDurationSeconds": 15,
            "leaseTransitions": 0,
            "acquireTime": MICRO,
            "renewTime": MICRO,
        }
        made = asking.post(leases(west), a_lease(**spec))
        assert made.code == 201
        assert made.body["spec"] == spec
        renewed = {**made.body, "spec": {**spec, "renewTime": "2026-11-22T12:00:05.123456Z"}}
        put = asking.put(leases(west, "leader"), renewed)
        assert put.body["spec"]["renewTime"] == "2026-11-22T12:00:05.123456Z"
        assert "generation" not in put.body["metadata"]
        taken = {**made.body, "spec": {**spec, "holderIdentity": "two"}}
        refused = asking.put(leases(west, "leader"), taken)
        assert (refused.code, refused.reason) == (409, "Conflict")
        released = {**put.body, "spec": {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}}
        assert asking.put(leases(west, "leader"), released).code == 200

    @pytest.mark.parametrize("time", ["2026-11-22T12:00:00Z", "2026-11-22T12:00:00.123Z", "now"])
    def test_the_times_of_a_lease_have_six_digits_after_the_point(
        self, asking: Asking, west: str, time: str
    ) -> None:
        assert asking.post(leases(west), a_lease(renewTime=time)).code == 400

    def test_a_lease_lasts_a_while(self, asking: Asking, west: str) -> None:
        refused = asking.post(leases(west), a_lease(leaseDurationSeconds=0))
        assert (refused.code, refused.reason) == (422, "Invalid")
        refused = asking.post(leases(west), a_lease(leaseDurationSeconds="15"))
        assert (refused.code, refused.reason) == (400, "BadRequest")

    def test_a_secret_holds_base64(self, asking: Asking, west: str) -> None:
        made = asking.post(
            core("secrets", west), a_secret(data={"a": "YQ=="}, stringData={"b": "c"})
        )
        assert made.code == 201
        assert made.body["type"] == "Opaque"
        assert made.body["data"] == {"a": "YQ==", "b": base64.b64encode(b"c").decode()}
        assert "stringData" not in made.body
        refused = asking.post(core("secrets", west), a_secret("other", data={"a": "?"}))
        assert (refused.code, refused.reason) == (400, "BadRequest")
        retyped = asking.merge(core("secrets", west, "ca"), {"type": "kubernetes.io/tls"})
        assert retyped.code == 422

    def test_a_secret_for_tls_holds_a_pair(self, asking: Asking, west: str) -> None:
        pair = {"tls.crt": "YQ==", "tls.key": "YQ=="}
        made = asking.post(core("secrets", west), a_secret(type="kubernetes.io/tls", data=pair))
        assert made.code == 201
        half = a_secret("half", type="kubernetes.io/tls", data={"tls.crt": "YQ=="})
        assert asking.post(core("secrets", west), half).code == 422
        begun = a_secret("begun", type="kubernetes.io/tls", data={**pair, "tls.crt": ""})
        assert asking.post(core("secrets", west), begun).code == 201

    def test_a_secret_is_selected_by_its_type(self, asking: Asking, west: str) -> None:
        pair = {"tls.crt": "YQ==", "tls.key": "YQ=="}
        asking.post(core("secrets", west), a_secret(type="kubernetes.io/tls", data=pair))
        asking.post(core("secrets", west), a_secret("other"))
        found = asking.get(core("secrets", west), fieldSelector="type=kubernetes.io/tls")
        assert [one["metadata"]["name"] for one in found.body["items"]] == ["ca"]

    def test_what_may_not_change_does_not(self, asking: Asking, west: str) -> None:
        asking.post(core("configmaps", west), {**a_config_map(), "immutable": True})
        here = core("configmaps", west, "notes")
        assert asking.merge(here, {"data": {"text": "two"}}).code == 422
        assert asking.merge(here, {"metadata": {"labels": {"a": "b"}}}).code == 200

    def test_an_event_is_about_something_in_its_namespace(
        self, asking: Asking, west: str, east: str
    ) -> None:
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "grant-west."},
            "involvedObject": {
                "apiVersion": "skupper.io/v2alpha1",
                "kind": "AccessGrant",
                "name": "grant-west",
                "namespace": west,
                "uid": str(uuid.uuid4()),
            },
            "reason": "Ready",
            "message": "redeemable",
            "type": "Normal",
            "count": 1,
            "firstTimestamp": NOW,
            "lastTimestamp": NOW,
            "source": {"component": "grantserver"},
        }
        made = asking.post(core("events", west), event)
        assert made.code == 201
        assert (made.body["reason"], made.body["count"]) == ("Ready", 1)
        refused = asking.post(core("events", east), event)
        assert (refused.code, refused.reason) == (422, "Invalid")
        found = asking.get(
            core("events", west),
            fieldSelector="involvedObject.kind=AccessGrant,involvedObject.name=grant-west",
        )
        assert [one["reason"] for one in found.body["items"]] == ["Ready"]

    def test_the_address_of_a_service_is_written_by_others(self, asking: Asking, west: str) -> None:
        service = a_service({"port": 443, "targetPort": 9090})
        service["spec"]["type"] = "LoadBalancer"
        made = asking.post(core("services", west), service)
        assert made.code == 201
        assert made.body["status"] == {"loadBalancer": {}}
        assert made.body["spec"]["ports"][0]["protocol"] == "TCP"
        here = core("services", west, "door")
        ingress = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
        assert asking.merge(here, {"status": ingress}).body["status"] == {"loadBalancer": {}}
        written = asking.merge(f"{here}/status", {"status": ingress})
        found = written.body["status"]["loadBalancer"]["ingress"]
        assert [one["ip"] for one in found] == ["192.0.2.1"]

    def test_a_service_gets_a_cluster_ip_and_keeps_it(self, asking: Asking, west: str) -> None:
        made = asking.post(core("services", west), a_service({"port": 9090}))
        spec = made.body["spec"]
        assert spec["type"] == "ClusterIP"
        assert spec["clusterIPs"] == [spec["clusterIP"]]
        assert spec["ports"] == [{"protocol": "TCP", "port": 9090, "targetPort": 9090}]
        assert {"externalTrafficPolicy", "healthCheckNodePort"} & spec.keys() == set()
        here = core("services", west, "door")
        labelled = asking.merge(here, {"metadata": {"labels": {"a": "b"}}})
        assert labelled.body["spec"] == spec
        other = asking.post(core("services", west), named(a_service({"port": 9090}), "other"))
        assert other.body["spec"]["clusterIP"] != spec["clusterIP"]

    def test_what_is_reached_from_outside_gets_a_node_port(self, asking: Asking, west: str) -> None:
        for name, kind in (("one", "NodePort"), ("two", "LoadBalancer")):
            service = named(a_service({"port": 9090}), name)
            service["spec"]["type"] = kind
            spec = asking.post(core("services", west), service).body["spec"]
            assert 30000 <= spec["ports"][0]["nodePort"] <= 32767
            assert spec["externalTrafficPolicy"] == "Cluster"
            assert "healthCheckNodePort" not in spec

    def test_a_node_port_is_given_once(self, asking: Asking, west: str, east: str) -> None:
        service = a_service({"port": 9090, "nodePort": 31_907})
        refused = asking.post(core("services", west), service)
        assert (refused.code, refused.reason) == (422, "Invalid")
        service["spec"]["type"] = "NodePort"
        assert asking.post(core("services", west), service).code == 201
        taken = asking.post(core("services", east), service)
        assert (taken.code, taken.reason) == (422, "Invalid")
        assert taken.body["details"]["causes"][0]["field"] == "spec.ports[0].nodePort"
        asking.delete(core("services", west, "door"))
        assert asking.post(core("services", east), service).code == 201
        service["spec"]["ports"][0]["nodePort"] = 80
        assert asking.post(core("services", west), service).code == 422

    def test_a_balancer_that_keeps_addresses_asks_nodes_how_they_are(
        self, asking: Asking, west: str
    ) -> None:
        service = a_service({"port": 9090})
        service["spec"] |= {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
        spec = asking.post(core("services", west), service).body["spec"]
        assert 30000 <= spec["healthCheckNodePort"] <= 32767
        here = core("services", west, "door")
        changed = asking.merge(here, {"spec": {"externalTrafficPolicy": "Cluster"}})
        assert "healthCheckNodePort" not in changed.body["spec"]

    def test_a_service_that_is_applied_in_another_type_loses_what_was_given_to_it(
        self, asking: Asking, west: str
    ) -> None:
        here = core("services", west, "door")
        outside = a_service({"name": "in", "port": 9090, "protocol": "TCP", "targetPort": 9090})
        outside["spec"] |= {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
        made = asking.apply(here, outside, "ours", force="true")
        assert made.code == 201
        owned = made.body["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
        assert {"f:clusterIP", "f:healthCheckNodePort"} & owned.keys() == set()
        assert "f:nodePort" not in owned["f:ports"]['k:{"port":9090,"protocol":"TCP"}']
        again = asking.apply(here, outside, "ours", force="true")
        assert again.body == made.body
        inside = a_service({"name": "in", "port": 9090, "protocol": "TCP", "targetPort": 9090})
        inside["spec"] |= {"type": "ClusterIP"}
        spec = asking.apply(here, inside, "ours", force="true").body["spec"]
        assert spec["type"] == "ClusterIP"
        assert spec["clusterIP"] == made.body["spec"]["clusterIP"]
        assert {"externalTrafficPolicy", "healthCheckNodePort"} & spec.keys() == set()
        assert "nodePort" not in spec["ports"][0]
        back = asking.apply(here, outside, "ours", force="true").body["spec"]
        assert (back["type"], back["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
        assert {"healthCheckNodePort"} <= back.keys()

    def test_a_service_must_make_sense(self, asking: Asking, west: str) -> None:
        there = core("services", west)
        assert asking.post(there, named(a_service({"port": 1}), "1door")).code == 422
        assert asking.post(there, named(a_service({"port": 1}), "a.b")).code == 422
        assert asking.post(there, a_service()).code == 422
        assert asking.post(there, a_service({"port": 1}, {"port": 2})).code == 422
        inside = a_service({"port": 1})
        inside["spec"]["externalTrafficPolicy"] = "Local"
        assert asking.post(there, inside).code == 422

    def test_an_ingress_names_its_class_and_its_backend(self, asking: Asking, west: str) -> None:
        there = path("/apis/networking.k8s.io/v1", "ingresses", west, "")
        backend = {"service": {"name": "door", "port": {"name": "in"}}}
        rule = {"path": "/", "pathType": "Prefix", "backend": backend}
        spec = {
            "ingressClassName": "nginx",
            "rules": [{"host": "door.example", "http": {"paths": [rule]}}],
        }
        about = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress"}
        ingress = {**about, "metadata": {"name": "door"}, "spec": spec}
        made = asking.apply(f"{there}/door", ingress, "ours", force="true")
        assert made.code == 201
        assert made.body["spec"] == spec
        assert made.body["status"] == {"loadBalancer": {}}
        assert made.generation == 1
        points = {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}
        written = asking.merge(f"{there}/door/status", {"status": points})
        assert written.body["status"] == points
        assert written.generation == 1
        # Rules are one field: whoever applies them has all of them.
        own = {**ingress, "spec": {"rules": [{"host": "other.example"}]}}
        assert asking.apply(f"{there}/door", own, "theirs").code == 409
        del rule["pathType"]
        assert asking.post(there, named(ingress, "other")).code == 422

    def test_a_deployment_is_kept(self, api: Kube, asking: Asking, west: str) -> None:
        made = api.create(a_deployment(namespace=west))
        here = path("/apis/apps/v1", "deployments", west, "grantserver")
        assert asking.get(here).body["metadata"]["uid"] == made["metadata"]["uid"]
        assert asking.get(here).generation == 1

    def test_a_port_is_a_port(self, asking: Asking, west: str) -> None:
        refused = asking.post(core("services", west), a_service({"port": 70000}))
        assert (refused.code, refused.reason) == (422, "Invalid")
