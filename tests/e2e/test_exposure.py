"""A whole server that sees to it itself that it is reached, and clients that have but a token."""

import socket
from pathlib import Path
from typing import Final

import pytest

from app import ambient
from app.cli.asking import ask
from app.outbound import post_code
from app.services.self_check import SelfCheck
from tests.kube.api_server import Kube, Object
from tests.kube.exposure.scene import ISSUED, KEPT, NAME, PLACE, RIGHTS, condition, data
from tests.kube.objects import GRANT, NAMESPACE, a_ca, a_deployment, a_secret, a_site, access_grant
from tests.kube.stage import RULES
from tests.pki import Certified, a_root
from tests.running import running

PUBLIC: Final = f"{PLACE}/{NAME}"


@pytest.fixture(autouse=True)
def _looks_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's look at its own address is another matter."""
    defaults = SelfCheck.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "settle_seconds", 3600.0)


@pytest.fixture
def port() -> int:
    """A port that nobody has."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


def furnished(kube: Kube, directory: Path, port: int, way: str) -> dict[str, str]:
    """A cluster with a site that can be linked to; gives the settings of a server for it."""
    kube.install_skupper()
    now = ambient.utc_now()
    ca = a_ca("today's ca", not_before=now - 3600, not_after=now + 10**8)
    for namespace in (NAMESPACE, PLACE):
        kube.namespace(namespace)
    kube.create(a_deployment(namespace=PLACE))
    kube.create(a_secret(ca=ca))
    kube.create(a_site())
    kube.create(access_grant(redemptionsAllowed=9))
    rights = [*RULES, *({**one, "namespaces": [PLACE]} for one in RIGHTS)]
    config = kube.kubeconfig(directory / "kubeconfig", kube.token("grantserver", rights))
    return {
        "GRANTSERVER_KUBERNETES_NAMESPACES": NAMESPACE,
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(config),
        "GRANTSERVER_REACH_URL": "",  # as where none is set
        "GRANTSERVER_LISTEN_REDEMPTION": f"[::]:{port}",
        "GRANTSERVER_EXPOSURE_TYPE": way,
        "GRANTSERVER_EXPOSURE_NAME": PUBLIC,
        "GRANTSERVER_EXPOSURE_PORT": str(port),
        "GRANTSERVER_TLS_ISSUED_SECRET": str(ISSUED),
    }


def ready_at(kube: Kube, url: str) -> Object:
    """Wait until the grant can be redeemed there; gives its status."""

    def is_so(found: Object) -> bool:
        status = found.get("status") or {}
        return status.get("status") == "Ready" and status["url"].startswith(f"{url}/")

    status: Object = kube.wait("AccessGrant", GRANT, NAMESPACE, is_so)["status"]
    return status


def pending(kube: Kube, message: str) -> None:
    """Wait until the grant says what it waits for."""
    kube.wait(
        *("AccessGrant", GRANT, NAMESPACE),
        lambda found: found.get("status", {}).get("message") == message,
    )


def redeem(status: Object, subject: str) -> int:
    """Redeem by what the status tells and nothing else, as a client does."""
    answer = ask(
        post_code(
            status["url"],
            code=status["code"].encode(),
            ca_pem=status["ca"].encode(),
            name="link",
            subject=subject,
        )
    )
    return answer.status


def test_the_addresses_that_a_cloud_gives_lead_to_it_one_after_the_other(
    kube: Kube, tmp_path: Path, port: int
) -> None:
    settings = furnished(kube, tmp_path, port, "loadbalancer")
    with running(tmp_path, **settings):
        pending(kube, f"waiting for an address of Service {PUBLIC}")
        out: list[Object] = []
        for number, (point, host) in enumerate(
            (
                ({"ip": "127.0.0.1"}, "127.0.0.1"),
                ({"ip": "::1"}, "[::1]"),
                ({"hostname": "localhost"}, "localhost"),
            )
        ):
            status = {"status": {"loadBalancer": {"ingress": [point]}}}
            kube.patch("Service", NAME, status, PLACE, subresource="status")
            out.append(ready_at(kube, f"https://{host}:{port}"))
            for times, token in enumerate(out):
                assert redeem(token, f"site-{number}-{times}") == 200
        kube.patch("Service", NAME, {"status": {"loadBalancer": None}}, PLACE, subresource="status")
        pending(kube, f"waiting for an address of Service {PUBLIC}")
        assert [redeem(token, f"late-{times}") for times, token in enumerate(out)] == [200] * 3
        issued = data(kube.get("Secret", ISSUED.name, PLACE))
        assert issued["ca.crt"].decode() == out[-1]["ca"]


def test_a_router_passes_on_to_it_what_a_token_leads_there(
    kube: Kube, tmp_path: Path, port: int
) -> None:
    kube.install_routes()
    with running(tmp_path, **furnished(kube, tmp_path, port, "auto")):
        pending(kube, f"waiting for an address of Route {PUBLIC}")
        admitted = condition("Admitted", True, "")
        router = {"host": "localhost", "routerName": "default", "conditions": [admitted]}
        kube.patch("Route", NAME, {"status": {"ingress": [router]}}, PLACE, subresource="status")
        assert redeem(ready_at(kube, f"https://localhost:{port}"), "east") == 200


def test_a_certificate_that_somebody_else_keeps_is_what_clients_are_told_to_trust(
    kube: Kube, tmp_path: Path, port: int
) -> None:
    root, another = a_root("theirs"), a_root("their next")
    settings = furnished(kube, tmp_path, port, "clusterip") | {
        "GRANTSERVER_TLS_SECRET": str(KEPT),
        "GRANTSERVER_EXPOSURE_HOST": "localhost",
    }

    def secret(one: Certified, *roots: Certified) -> Object:
        ca = b"".join(root.pem for root in roots)
        parts: dict[str, bytes | str] = {"tls.crt": one.pem, "tls.key": one.key_pem, "ca.crt": ca}
        made = a_secret(KEPT.name, PLACE, data=parts)
        return made | {"type": "kubernetes.io/tls"}

    with running(tmp_path, **settings):
        pending(kube, f"waiting for the certificate in Secret {KEPT}")
        kube.create(secret(root.certify("localhost"), root))
        first = ready_at(kube, f"https://localhost:{port}")
        assert first["ca"] == root.pem.decode()
        assert redeem(first, "east") == 200
        kube.patch(
            *("Secret", KEPT.name),
            {"data": secret(another.certify("localhost"), another, root)["data"]},
            PLACE,
        )
        both = (another.pem + root.pem).decode()
        kube.wait(*("AccessGrant", GRANT, NAMESPACE), lambda found: found["status"]["ca"] == both)
        assert redeem(ready_at(kube, f"https://localhost:{port}"), "north") == 200
