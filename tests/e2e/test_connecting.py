"""From an AccessGrant on one site to Links on another, as users of both go about it."""

import base64
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from app.domain.link_secrets import SERVER_URL
from tests.e2e.test_access_grants import Kubectl, furnish, ready
from tests.installation import Installation
from tests.kube.api_server import FakeKube, Kube, Object
from tests.kube.connecting import EAST, redeemed
from tests.kube.connecting import RULES as RULES_OF_CONNECTING
from tests.kube.objects import a_site, access_grant
from tests.kube.stage import RULES
from tests.running import running

WEST = "west"


def on(kube: Kube, directory: Path, *rules: Object, **further: str) -> dict[str, str]:
    """The settings of a server that listens in one namespace and connects in another."""
    token = kube.token("grantserver", [*RULES, *RULES_OF_CONNECTING, *rules])
    return {
        "GRANTSERVER_KUBERNETES_NAMESPACES": WEST,
        "GRANTSERVER_KUBERNETES_TOKEN_NAMESPACES": EAST,
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(kube.kubeconfig(directory / "config", token)),
    } | further


def a_token(grant: Object, name: str = "token-to-west", **spec: Any) -> Object:
    """The AccessToken of an AccessGrant."""
    told = {field: grant["status"][field] for field in ("url", "code", "ca")}
    return {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "AccessToken",
        "metadata": {"name": name, "namespace": EAST},
        "spec": told | spec,
    }


def both_sites(kube: Kube) -> None:
    furnish(kube, WEST)
    kube.namespace(EAST)
    kube.create(a_site(EAST, EAST, linkAccess="none"))


def certificate(kube: Kube, name: str) -> x509.Certificate:
    """The certificate in a Secret, which has to be for the key in it."""
    data = kube.get("Secret", name, EAST)["data"]
    found = x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))
    key = serialization.load_pem_private_key(base64.b64decode(data["tls.key"]), None)
    assert found.public_key() == key.public_key()
    return found


def test_the_procedure_from_the_access_token_to_the_links(kube: Kube, tmp_path: Path) -> None:
    both_sites(kube)
    installation = Installation(tmp_path, **on(kube, tmp_path))
    (tmp_path / EAST).mkdir()
    kubectl = Kubectl(kube, tmp_path / EAST, EAST)
    with installation.serving():
        kube.create(access_grant("grant-west", WEST, redemptionsAllowed=2))
        grant = ready(kube, "grant-west", WEST)
        token = tmp_path / "token.yaml"
        token.write_text(yaml.safe_dump(a_token(grant, linkCost=5)))
        kubectl.apply(token)
        redeemed(kube, "token-to-west")
        url = grant["status"]["url"]
        assert kubectl.get("accesstokens") == [
            ["NAME", "URL", "REDEEMED", "STATUS", "MESSAGE"],
            ["token-to-west", url, "true", "Ready", "OK"],
        ]
        assert kubectl.get("links") == [
            ["NAME", "STATUS", "REMOTE SITE", "MESSAGE"],
            ["token-to-west", "", "", ""],
        ]
        (link,) = kube.find("Link", EAST)
        assert link["spec"]["cost"] == 5
        site = kube.get("Site", EAST, EAST)
        made = certificate(kube, "token-to-west")
        assert made.subject.rfc4514_string() == f"CN={site['metadata']['uid']}"
        kube.wait(
            *("AccessGrant", "grant-west", WEST),
            lambda found: found["status"]["redemptions"] == 1,
        )
        # The key was made here, so the link can be renewed.
        noted = kube.get("Secret", "token-to-west", EAST)["metadata"]["annotations"]
        assert noted[SERVER_URL] == url.removesuffix(f"/{grant['metadata']['uid']}")
        # And when nothing is left of the grant.
        for name in ("second", "third"):
            kube.create(a_token(grant, name))
            kube.wait("AccessToken", name, EAST, lambda found: "status" in found)
        refused = "Controller got failed response: 404 (Not Found) No such access granted"
        assert kubectl.get("accesstokens")[1:] == [
            ["second", url, "true", "Ready", "OK"],
            ["third", url, "false", "Error", refused],
            ["token-to-west", url, "true", "Ready", "OK"],
        ]


def test_a_link_is_renewed_in_its_secret_with_a_new_key(kube: Kube, tmp_path: Path) -> None:
    both_sites(kube)
    installation = Installation(tmp_path, **on(kube, tmp_path))
    with installation.serving():
        kube.create(access_grant("grant-west", WEST))
        kube.create(a_token(ready(kube, "grant-west", WEST)))
        redeemed(kube, "token-to-west")
        before = certificate(kube, "token-to-west")
        words = ("renew", "--apply", "-n", EAST, "--force")
        admin = str(kube.kubeconfig(tmp_path / "admin"))
        installation.type(*words, "--kubeconfig", admin)
        after = certificate(kube, "token-to-west")
    assert after.serial_number != before.serial_number, installation.said
    assert after.public_key() != before.public_key()
    assert after.subject == before.subject
    assert after.issuer == before.issuer


def test_a_server_that_only_connects_makes_no_way_in(fake_kube: FakeKube, tmp_path: Path) -> None:
    kube = fake_kube
    both_sites(kube)
    (tmp_path / "listening").mkdir()
    with running(tmp_path / "listening") as far:
        host, port = far.addresses.redemption
        issued = far.issue(redemptions=2)
        spec = {
            "url": f"https://{host}:{port}/{issued.grant.id}",
            "code": issued.code,
            "ca": far.home.reach().ca_pem,
        }
        settings = on(kube, tmp_path) | {"GRANTSERVER_KUBERNETES_NAMESPACES": ""}
        with running(tmp_path, **settings):
            kube.create(a_token({"status": spec}))
            redeemed(kube, "token-to-west")
    certificate(kube, "token-to-west")
    assert kube.requests.of(user="grantserver", resource="services") == []
    assert kube.requests.of(user="grantserver", resource="accessgrants") == []
