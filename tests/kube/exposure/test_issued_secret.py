from app import ambient
from app.crypto.chains import check_chain, check_pair
from app.crypto.facts import facts
from app.domain.exposure import Way
from app.kube.exposure.issued_secret import kept_of_ours
from app.kube.exposure.objects import MANAGER
from app.kube.exposure.plan import MARK
from app.services import reach
from tests.builders import NOW
from tests.kube.api_server import FakeKube, Object
from tests.kube.exposure.scene import INSTALLATION, ISSUED, OUR_LABELS, PLACE, Scene, a_plan, data

NAME = ISSUED.name


def issue(scene: Scene, *hosts: str) -> str:
    """Issue a certificate as the keeper of any replica would; gives its fingerprint."""
    material = reach.server_material(
        scene.stand.database,
        scene.stand.keyring,
        hosts=hosts,
        now=NOW,
        random_bytes=ambient.random_bytes,
    )
    return material.fingerprint


def holds(scene: Scene, fingerprint: str) -> Object:
    """Wait until the Secret holds this certificate."""
    return scene.kube.wait(
        "Secret",
        NAME,
        PLACE,
        lambda found: facts(data(found)["tls.crt"]).fingerprint == fingerprint,
    )


def test_our_certificate_is_in_a_secret_with_key_and_ca(scene: Scene) -> None:
    first = issue(scene, "a.example")
    with scene.serving(a_plan(Way.URL), issued=ISSUED):
        found = holds(scene, first)
        assert found["type"] == "kubernetes.io/tls"
        assert found["metadata"]["labels"] == OUR_LABELS
        (owner,) = found["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("Deployment", "grantserver")
        parts = data(found)
        assert parts.keys() == {"tls.crt", "tls.key", "ca.crt"}
        check_pair(parts["tls.crt"], parts["tls.key"])
        check_chain(parts["tls.crt"], parts["ca.crt"])
        assert parts["ca.crt"].decode() == reach.current(scene.stand.database, "").ca_pem
        # And so is the one after it.
        second = issue(scene, "a.example", "b.example")
        assert second != first
        holds(scene, second)


def test_before_there_is_one_nothing_is_written(fake_scene: Scene, fake_kube: FakeKube) -> None:
    with fake_scene.serving(a_plan(Way.URL), issued=ISSUED):
        watched = {"resource": "secrets", "name": NAME, "verb": "watch"}
        assert fake_kube.until(lambda: bool(fake_kube.requests.of(**watched)))
        holds(fake_scene, issue(fake_scene, "a.example"))
    created = [one for one in fake_scene.writes() if one.resource == "secrets"]
    assert len(created) == 1


def test_what_is_edited_or_deleted_by_hand_is_set_right(scene: Scene) -> None:
    fingerprint = issue(scene, "a.example")
    with scene.serving(a_plan(Way.URL), issued=ISSUED):
        key = data(holds(scene, fingerprint))["tls.key"]
        scene.kube.patch("Secret", NAME, {"data": {"tls.key": "eA==", "theirs": "eA=="}}, PLACE)

        def is_right(found: Object) -> bool:
            parts = data(found)
            return parts["tls.key"] == key and parts["theirs"] == b"x"

        scene.kube.wait("Secret", NAME, PLACE, is_right)
        before = scene.kube.get("Secret", NAME, PLACE)["metadata"]["uid"]
        scene.kube.delete("Secret", NAME, PLACE)
        scene.kube.wait("Secret", NAME, PLACE, lambda found: found["metadata"]["uid"] != before)


def test_a_secret_of_somebody_else_is_reported_and_left_alone(scene: Scene) -> None:
    theirs = scene.kube.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": NAME, "namespace": PLACE, "labels": {MARK: "another"}},
            "data": {"tls.crt": "eA=="},
        }
    )
    issue(scene, "a.example")
    with scene.serving(a_plan(Way.URL), issued=ISSUED):

        def is_told() -> bool:
            found = scene.kube.find("Event", PLACE)
            return [one["involvedObject"]["name"] for one in found] == [NAME]

        assert scene.kube.until(is_told)
        assert scene.kube.get("Secret", NAME, PLACE) == theirs
        # Nor does it keep us from anything once it is gone.
        scene.kube.delete("Secret", NAME, PLACE)
        scene.kube.wait("Secret", NAME, PLACE, lambda found: "ca.crt" in found["data"])


def test_when_nothing_changes_nothing_is_written(fake_scene: Scene, fake_kube: FakeKube) -> None:
    scene = fake_scene
    fingerprint = issue(scene, "a.example")
    with scene.serving(a_plan(Way.URL), issued=ISSUED):
        holds(scene, fingerprint)
        fake_kube.requests.clear()
        renewed = {"resource": "leases", "verb": "update"}
        scene.kube.patch("Secret", NAME, {"metadata": {"labels": {"touched": "yes"}}}, PLACE)
        assert fake_kube.until(lambda: len(fake_kube.requests.of(**renewed)) >= 5)
        assert scene.writes() == []
    with scene.serving(a_plan(Way.URL), "next", issued=ISSUED):
        renewed["user"] = "next"
        assert fake_kube.until(lambda: len(fake_kube.requests.of(**renewed)) >= 5)
        assert scene.writes("next") == []


def test_nothing_is_kept_of_what_is_in_a_secret_of_somebody_else(scene: Scene) -> None:
    theirs = {"tls.crt": "eA==", "tls.key": "eA=="}
    about: Object = {"apiVersion": "v1", "kind": "Secret", "data": theirs}
    metadata = {"name": NAME, "namespace": PLACE, "labels": OUR_LABELS}
    mine = scene.kube.apply(about | {"metadata": metadata}, manager=MANAGER)
    assert kept_of_ours(mine, INSTALLATION)["data"] == theirs
    assert "data" not in kept_of_ours(mine, "another")
