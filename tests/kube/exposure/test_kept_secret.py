import base64
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from app import ambient
from app.domain.authorities import ServerCertificate
from app.domain.exposure import Way
from app.kube.exposure import kept_secret
from app.services import addresses, reach
from app.store import authorities as authority_rows
from app.store.addresses import AddressRow
from tests.builders import NOW
from tests.kube.api_server import FakeKube, Object
from tests.kube.exposure.scene import KEPT, PLACE, Scene, a_plan
from tests.pki import Certified, a_root

ROOT = a_root()
NAME = KEPT.name
PLAN = a_plan(Way.URL)
URL = "https://west.example:9090"


def a_secret(one: Certified, *roots: Certified, **parts: bytes | None) -> Object:
    """What cert-manager keeps; `parts` replace what is in it, None takes one out."""
    held = {
        "tls.crt": one.pem + one.chain,
        "tls.key": one.key_pem,
        "ca.crt": b"".join(root.pem for root in roots),
    }
    held |= {f"{name.replace('_', '.')}": part or b"" for name, part in parts.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME, "namespace": PLACE},
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(part).decode() for name, part in held.items()},
    }


def change(scene: Scene, secret: Object) -> None:
    scene.kube.patch("Secret", NAME, {"data": secret["data"]}, PLACE)


def shown(scene: Scene) -> ServerCertificate | None:
    with scene.stand.database.reading() as connection:
        return authority_rows.current_server_certificate(connection, origin="secret")


def shows(scene: Scene, one: Certified) -> ServerCertificate:
    """Wait until this is the certificate that everybody shows."""

    def is_so() -> bool:
        found = shown(scene)
        return found is not None and found.fingerprint == one.fingerprint

    assert scene.kube.until(is_so), shown(scene)
    found = shown(scene)
    assert found is not None
    return found


def told(scene: Scene) -> list[str]:
    """What the Events of the Secret say."""
    return [
        one["message"]
        for one in scene.kube.find("Event", PLACE)
        if one["involvedObject"]["name"] == NAME
    ]


def test_what_somebody_keeps_in_a_secret_is_shown_and_so_is_the_next(scene: Scene) -> None:
    first, second = ROOT.certify("west.example"), ROOT.certify("west.example")
    with scene.serving(PLAN, kept=KEPT, url=URL):
        scene.kube.create(a_secret(first, ROOT))
        found = shows(scene, first)
        assert (found.origin, found.ca_pem) == ("secret", ROOT.pem.decode())
        assert reach.open_server_key(found, scene.stand.keyring) == first.key_pem
        change(scene, a_secret(second, ROOT))
        shows(scene, second)
    assert told(scene) == []


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (a_secret(ROOT.certify("east.example"), ROOT), "tls.crt: it is not for west.example"),
        (
            a_secret(ROOT.certify("west.example", end=datetime.fromtimestamp(NOW - 9, UTC)), ROOT),
            "tls.crt: it expired at ",
        ),
        (
            a_secret(ROOT.certify("west.example"), ROOT, tls_key=ROOT.key_pem),
            "tls.key: it is not the key of the first certificate",
        ),
        (a_secret(ROOT.certify("west.example"), ROOT, tls_key=None), "tls.key: it is absent"),
        (a_secret(ROOT.certify("west.example"), ROOT, tls_crt=None), "tls.crt: it is absent"),
        (a_secret(ROOT.certify("west.example"), a_root("x")), "tls.crt: the CA that tokens carry"),
        (a_secret(ROOT.certify("west.example")), "ca.crt: the chain ends without"),
    ],
    ids=["host", "expired", "wrong key", "no key", "no certificate", "wrong CA", "no CA"],
)
def test_a_broken_one_is_reported_and_never_takes_the_place_of_a_good_one(
    scene: Scene, broken: Object, why: str
) -> None:
    good, next_one = ROOT.certify("west.example"), ROOT.certify("west.example")
    with scene.serving(PLAN, kept=KEPT, url=URL):
        scene.kube.create(a_secret(good, ROOT))
        shows(scene, good)
        change(scene, broken)
        message = f"GrantServer does not show this certificate: {why}"
        assert scene.kube.until(lambda: any(one.startswith(message) for one in told(scene))), told(
            scene
        )
        assert "PRIVATE" not in "".join(told(scene))
        found = shown(scene)
        assert found is not None
        assert found.fingerprint == good.fingerprint
        change(scene, a_secret(next_one, ROOT))
        shows(scene, next_one)
        assert len(told(scene)) == 1


def test_the_log_names_the_secret(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A field of the name `secret` would be taken out of every line."""
    caplog.set_level(logging.INFO)

    def named() -> dict[str, str]:
        lines: list[Any] = [one.msg for one in caplog.records if isinstance(one.msg, dict)]
        return {one["event"]: str(one.get("object")) for one in lines}

    with scene.serving(PLAN, kept=KEPT, url=URL):
        scene.kube.create(a_secret(ROOT.certify("east.example"), ROOT))
        assert scene.kube.until(lambda: len(told(scene)) == 1)
        good = ROOT.certify("west.example")
        change(scene, a_secret(good, ROOT))
        shows(scene, good)
        assert scene.kube.until(lambda: "the certificate of a Secret is taken" in named())
    assert named()["a certificate is not taken"] == str(KEPT)
    assert named()["the certificate of a Secret is taken"] == str(KEPT)


def test_what_is_taken_away_is_shown_until_there_is_another(scene: Scene) -> None:
    first, second = ROOT.certify("west.example"), ROOT.certify("west.example")
    with scene.serving(PLAN, kept=KEPT, url=URL):
        scene.kube.create(a_secret(first, ROOT))
        shows(scene, first)
        scene.kube.delete("Secret", NAME, PLACE)
        scene.kube.create(a_secret(second, ROOT))
        shows(scene, second)


def test_a_certificate_of_ours_makes_way_for_it_and_comes_between_without_harm(
    scene: Scene,
) -> None:
    one = ROOT.certify("west.example")
    scene.kube.create(a_secret(one, ROOT))
    material: dict[str, Any] = {"hosts": ["west.example"], "now": NOW}
    with scene.serving(PLAN, kept=KEPT, url=URL):
        shows(scene, one)
    database, keyring = scene.stand.database, scene.stand.keyring
    reach.server_material(database, keyring, **material, random_bytes=ambient.random_bytes)
    with scene.serving(PLAN, kept=KEPT, url=URL):
        assert shows(scene, one).origin == "secret"


def test_the_host_of_an_address_that_the_cluster_tells_counts_too(scene: Scene) -> None:
    addresses.tell(scene.stand.database, AddressRow(url="https://east.example:443"), now=NOW)
    scene.kube.create(a_secret(ROOT.certify("west.example"), ROOT))
    east = ROOT.certify("east.example")
    plan = a_plan(Way.CLUSTER_IP, host="east.example")
    with scene.serving(plan, kept=KEPT):
        scene.reached("https://east.example:9090")
        assert scene.kube.until(lambda: len(told(scene)) == 1)
        assert "it is not for east.example" in told(scene)[0]
        change(scene, a_secret(east, ROOT))
        shows(scene, east)


def test_only_that_one_secret_is_asked_for(fake_scene: Scene, fake_kube: FakeKube) -> None:
    scene = fake_scene
    one = ROOT.certify("west.example")
    scene.kube.create(a_secret(one, ROOT))
    with scene.serving(PLAN, kept=KEPT, url=URL):
        shows(scene, one)
        asked = [
            (one.verb, one.name, one.code)
            for one in fake_kube.requests.of(resource="secrets", namespace=PLACE)
        ]
        assert {(verb, name) for verb, name, _ in asked} == {("list", NAME), ("watch", NAME)}
        assert {code for _, _, code in asked} <= {0, 200}
        assert scene.writes() == []


def test_a_broken_one_is_told_of_once_however_often_it_is_looked_at(
    fake_scene: Scene, fake_kube: FakeKube, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = fake_scene
    monkeypatch.setattr(kept_secret, "LOOK_SECONDS", 0.02)
    scene.kube.create(a_secret(ROOT.certify("east.example"), ROOT))
    with scene.serving(PLAN, kept=KEPT, url=URL):
        assert fake_kube.until(lambda: len(told(scene)) == 1)
        renewed = {"resource": "leases", "verb": "update"}
        before = len(fake_kube.requests.of(**renewed))
        assert fake_kube.until(lambda: len(fake_kube.requests.of(**renewed)) >= before + 3)
        assert [one["count"] for one in scene.kube.find("Event", PLACE)] == [1]
