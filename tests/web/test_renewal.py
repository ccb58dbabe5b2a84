import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from app.crypto.keys import make_pair
from app.crypto.requests import make_request, sign_renewal
from app.domain.certificates import KeyType
from app.errors import Reason, Refused
from app.services import grants
from app.web.renewal import MOST_BODY_BYTES, read_wish
from tests.running import Answer, Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("renewal")) as made:
        yield made


def a_key() -> bytes:
    return make_pair(KeyType.P256).private_pem


class Site:
    """A connecting site that keeps its key to itself."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.key = server, a_key()
        self.grant = server.issue(name)
        csr = base64.b64encode(make_request(self.key, "east")).decode()
        headers = {"name": "east", "subject": name, "csr": csr}
        answer = server.request(
            "POST", f"/{self.grant.grant.id}", self.grant.code.encode(), headers
        )
        assert answer.status == 200
        secret = next(yaml.safe_load_all(answer.body))
        assert "tls.key" not in secret["data"]
        self.certificate = base64.b64decode(secret["data"]["tls.crt"])

    def body(self, key: bytes, **changes: Any) -> bytes:
        request = make_request(key, "east")
        told = {
            "certificate": self.certificate.decode(),
            "csr": base64.b64encode(request).decode(),
            "signature": base64.b64encode(sign_renewal(self.key, request)).decode(),
        }
        return json.dumps(told | changes).encode()

    def renew(self, key: bytes, **changes: Any) -> Answer:
        return self.server.request("POST", "/renew", self.body(key, **changes))


def text(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.body.decode().rstrip()


def test_a_certificate_is_renewed_over_the_wire(server: Server) -> None:
    site, key = Site(server, "good"), a_key()
    answer = site.renew(key)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    told = json.loads(answer.body)
    assert sorted(told) == ["ca", "certificate", "notAfter", "server", "supersededAt"]
    made = x509.load_pem_x509_certificate(told["certificate"].encode())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(told["ca"].encode()))
    assert told["notAfter"] == made.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    reach = server.home.reach()
    assert told["server"] == {"url": reach.url, "ca": reach.ca_pem}
    assert site.renew(key).body == answer.body
    metrics = server.ops("/metrics").body.decode()
    assert "grantserver_renewals_total 1.0" in metrics
    assert "grantserver_retries_total 1.0" in metrics


def test_each_refusal_is_told_in_constant_words(server: Server) -> None:
    site = Site(server, "refused")
    other = Site(server, "other")
    assert text(site.renew(a_key(), signature="")) == (403, "Renewal refused")
    assert text(site.renew(a_key(), certificate=other.certificate.decode())) == (
        403,
        "Renewal refused",
    )
    nonsense = base64.b64encode(b"nonsense").decode()
    signed = base64.b64encode(sign_renewal(site.key, b"nonsense")).decode()
    assert text(site.renew(a_key(), csr=nonsense, signature=signed)) == (
        400,
        "Certificate request not valid",
    )
    for body in (b"", b"{", b"[]", b"[" * 9999, site.body(a_key(), csr=None)):
        answer = server.request("POST", "/renew", body)
        assert text(answer) == (400, "Request body not valid")
    grants.revoke(server.home.database, "refused", actor="x", now=1)
    assert text(site.renew(a_key())) == (403, "Certificate has been revoked")


def test_a_body_may_be_as_long_as_16_kib_and_no_longer(server: Server) -> None:
    site = Site(server, "long")
    body = site.body(a_key())
    assert server.request("POST", "/renew", body.ljust(MOST_BODY_BYTES)).status == 200
    answer = server.request("POST", "/renew", body.ljust(MOST_BODY_BYTES + 1))
    assert text(answer) == (400, "Request body not valid")


def test_failures_count_for_the_peer(tmp_path: Path) -> None:
    with running(tmp_path, GRANTSERVER_LIMITS_PEER_FAILURES="3") as strict:
        site = Site(strict, "guessed")
        for _ in range(3):
            assert site.renew(a_key(), signature="").status == 403
        assert text(site.renew(a_key())) == (429, "Too many failed attempts")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/renew", 405),
        ("POST", "/renew/", 404),
        ("POST", "//renew", 404),
        ("POST", "/ren/ew", 404),
    ],
)
def test_only_the_very_path_renews(server: Server, method: str, path: str, status: int) -> None:
    assert server.request(method, path, b"{}").status == status


def test_the_revocation_list_is_given_to_anybody(server: Server) -> None:
    site = Site(server, "listed")
    grants.revoke(server.home.database, "listed", actor="x", now=1_790_000_000)
    answer = server.request("GET", "/crl/site-ca.crl")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-crl")
    leaf = x509.load_pem_x509_certificate(site.certificate)
    revoked = x509.load_der_x509_crl(answer.body)
    assert revoked.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None
    assert text(server.request("GET", "/crl/nosuch.crl")) == (404, "No such authority")
    assert server.request("GET", "/crl/site-ca").status == 405
    assert server.request("POST", "/crl/site-ca.crl", b"x").status == 404
    # With a code it is a look at a grant, as it ever was.
    bearer = {"Authorization": "Bearer " + "x" * 24}
    assert text(server.request("GET", "/crl/site-ca.crl", headers=bearer)) == (404, "No such claim")


def test_grants_keep_their_paths_where_names_are_paths(tmp_path: Path) -> None:
    with running(tmp_path, GRANTSERVER_GRANTS_REDEMPTION_BY_KEY="true") as by_key:
        by_key_site = by_key.issue("site-ca")
        answer = by_key.request("POST", "/west/site-ca", by_key_site.code.encode())
        assert answer.status == 200
        assert by_key.request("POST", "/renew", b"{}").status == 400
        assert by_key.request("GET", "/crl/site-ca.crl").status == 200


@given(
    st.one_of(
        st.binary(max_size=300),
        st.dictionaries(
            st.sampled_from(["certificate", "csr", "signature", "x"]),
            st.one_of(st.none(), st.integers(), st.text(max_size=40), st.just("AAAA")),
        ).map(lambda told: json.dumps(told).encode()),
    )
)
def test_whatever_is_posted_is_a_wish_or_refused(body: bytes) -> None:
    refused = None
    try:
        wish = read_wish(body, "p")
    except Refused as error:
        refused = error
    assert wish.peer == "p" if refused is None else refused.reason is Reason.BODY
