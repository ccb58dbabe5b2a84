import base64
import json
import ssl
import urllib.parse
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from app import ambient
from app.crypto import keys
from app.crypto.requests import make_request
from app.domain.grants import State
from app.domain.sites import parse_endpoint
from app.services import grants, sites, theft
from tests.running import Answer, Server, running

SITE_UID = "7a0c9a2c-6a43-4a53-9a0d-0f4a2c1b9d11"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that bears any number of failures: most of what is tried here fails."""
    with running(
        tmp_path_factory.mktemp("server"), GRANTSERVER_LIMITS_PEER_FAILURES="0"
    ) as started:
        yield started


@pytest.fixture(scope="module")
def by_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(
        tmp_path_factory.mktemp("by-key"),
        GRANTSERVER_GRANTS_REDEMPTION_BY_KEY="true",
        GRANTSERVER_LIMITS_PEER_FAILURES="0",
    ) as started:
        yield started


def fresh(prefix: str = "grant") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def documents(answer: Answer) -> list[Any]:
    return list(yaml.safe_load_all(answer.body))


def refused(answer: Answer, status: int, text: str) -> None:
    assert (answer.status, answer.body) == (status, f"{text}\n".encode())
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == str(len(text) + 1)
    assert answer.headers["connection"] == "close"


# The answer


def test_a_redemption_answers_one_secret_and_then_one_link(server: Server) -> None:
    answer = server.redeem(server.issue(fresh(), cost=7), name="my-token", subject=SITE_UID)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["connection"] == "close"
    assert "transfer-encoding" not in answer.headers
    assert answer.body.startswith(b"---\n")
    secret, link = documents(answer)
    assert (secret["apiVersion"], secret["kind"]) == ("v1", "Secret")
    assert secret["metadata"] == {"name": "my-token"}
    assert secret["type"] == "kubernetes.io/tls"
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    assert link == {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "Link",
        "metadata": {"name": "my-token"},
        "spec": {
            "cost": 7,
            "tlsCredentials": "my-token",
            "endpoints": [
                {
                    "name": "inter-router",
                    "host": "west.example.com",
                    "port": "55671",
                    "group": "skupper-router",
                },
                {
                    "name": "edge",
                    "host": "west.example.com",
                    "port": "45671",
                    "group": "skupper-router",
                },
            ],
        },
    }


def test_the_certificate_is_a_client_certificate_of_the_site_authority(server: Server) -> None:
    secret = documents(server.redeem(server.issue(fresh()), subject=SITE_UID))[0]
    data = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    leaf, authority = (x509.load_pem_x509_certificate(data[name]) for name in ("tls.crt", "ca.crt"))
    assert data["tls.crt"].count(b"BEGIN CERTIFICATE") == 1
    leaf.verify_directly_issued_by(authority)
    assert leaf.subject.rfc4514_string() == f"CN={SITE_UID}"
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert data["tls.key"].startswith(b"-----BEGIN PRIVATE KEY-----")
    key = load_pem_private_key(data["tls.key"], None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == leaf.public_key()


def test_a_site_of_two_groups_gets_two_numbered_links_in_stable_order(server: Server) -> None:
    sites.put(
        server.home.database,
        name="ha",
        endpoints=[
            parse_endpoint("inter-router=10.0.0.2:55671", "skupper-router-2"),
            parse_endpoint("inter-router=10.0.0.1:55671"),
            parse_endpoint("edge=10.0.0.1:45671"),
        ],
        issuer=None,
        actor="test",
        now=ambient.utc_now(),
    )
    issued = server.issue(fresh(), site="ha", redemptions=2)
    first, second = (
        documents(server.redeem(issued, subject=subject)) for subject in ("one", "two")
    )
    assert first[1:] == second[1:]
    assert [
        (link["metadata"]["name"], [end["group"] for end in link["spec"]["endpoints"]])
        for link in first[1:]
    ] == [
        ("token-1", ["skupper-router", "skupper-router"]),
        ("token-2", ["skupper-router-2"]),
    ]
    assert {link["spec"]["tlsCredentials"] for link in first[1:]} == {"token"}


def test_without_headers_the_grants_name_stands_for_both(server: Server) -> None:
    issued = server.issue(fresh("fallback"))
    answer = server.request("POST", f"/{issued.grant.id}", issued.code.encode())
    secret, link = documents(answer)
    assert secret["metadata"]["name"] == link["metadata"]["name"] == issued.grant.name
    leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    assert leaf.subject.rfc4514_string() == f"CN={issued.grant.name}"


def test_an_empty_subject_falls_back_to_the_name(server: Server) -> None:
    answer = server.redeem(server.issue(fresh()), name="token-of-mine", subject="")
    leaf = x509.load_pem_x509_certificate(base64.b64decode(documents(answer)[0]["data"]["tls.crt"]))
    assert leaf.subject.rfc4514_string() == "CN=token-of-mine"


def test_a_long_name_without_subject_still_gets_a_certificate(server: Server) -> None:
    answer = server.redeem(server.issue(fresh()), name="n" * 250, subject="")
    secret = documents(answer)[0]
    assert secret["metadata"]["name"] == "n" * 250
    leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    [common_name] = leaf.subject
    assert len(common_name.value) == 64


def test_blanks_around_a_header_do_not_belong_to_it(server: Server) -> None:
    secret, _ = documents(server.redeem(server.issue(fresh()), name="token \t", subject="east "))
    assert secret["metadata"]["name"] == "token"
    leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    assert leaf.subject.rfc4514_string() == "CN=east"


def test_a_name_that_yaml_would_read_as_a_number_stays_text(server: Server) -> None:
    secret, link = documents(server.redeem(server.issue(fresh()), name="123"))
    assert (secret["metadata"]["name"], link["spec"]["tlsCredentials"]) == ("123", "123")


# Paths


@pytest.mark.parametrize(
    "form", ["/{}", "/{}/", "//{}", "/{}//", "/{}?a=b", "//{}/?x", "/{}/?code=1"]
)
def test_slashes_and_query_do_not_matter(server: Server, form: str) -> None:
    issued = server.issue(fresh())
    path = form.format(issued.grant.id)
    assert server.request("POST", path, issued.code.encode()).status == 200


def test_a_percent_encoded_path_is_decoded(server: Server) -> None:
    issued = server.issue(fresh())
    path = "/" + "".join(f"%{byte:02X}" for byte in issued.grant.id.encode())
    assert server.request("POST", path, issued.code.encode()).status == 200


def test_slashes_inside_are_taken_out_too(server: Server) -> None:
    issued = server.issue(fresh())
    path = f"/{issued.grant.id[:8]}/{issued.grant.id[8:]}%2F"
    assert server.request("POST", path, issued.code.encode()).status == 200


@pytest.mark.parametrize("form", ["/{upper}", "/x/{id}", "/{id}x", "/", "/west/{name}", "/%ff{id}"])
def test_another_path_is_no_such_claim(server: Server, form: str) -> None:
    issued = server.issue(fresh())
    path = form.format(id=issued.grant.id, upper=issued.grant.id.upper(), name=issued.grant.name)
    if path == f"/{issued.grant.id}":
        pytest.skip("this UUID has no letters")
    refused(server.request("POST", path, issued.code.encode()), 404, "No such claim")


@pytest.mark.parametrize("form", ["/{id}", "/west/{name}", "/west%2F{name}"])
def test_by_key_a_grant_is_found_by_site_and_name(by_key: Server, form: str) -> None:
    issued = by_key.issue(fresh())
    path = form.format(id=issued.grant.id, name=issued.grant.name)
    assert by_key.request("POST", path, issued.code.encode()).status == 200


@pytest.mark.parametrize(
    "form",
    [
        "/{id}/",
        "//{id}",
        "/west/{name}/",
        "//west/{name}",
        "/west{name}",
        "/east/{name}",
        "/x/{id}",
    ],
)
def test_by_key_extra_slashes_do_not_match(by_key: Server, form: str) -> None:
    issued = by_key.issue(fresh())
    path = form.format(id=issued.grant.id, name=issued.grant.name)
    refused(by_key.request("POST", path, issued.code.encode()), 404, "No such claim")


# Refusals


def test_a_used_up_grant_is_refused_and_keeps_its_count(server: Server) -> None:
    issued = server.issue(fresh(), redemptions=2)
    assert [server.redeem(issued, subject=f"site-{n}").status for n in range(2)] == [200, 200]
    refused(server.redeem(issued, subject="site-3"), 404, "No such access granted")
    grant, redemptions = grants.show(server.home.database, issued.grant.id)
    assert (grant.spent, [one.subject for one in redemptions]) == (2, ["site-0", "site-1"])


def test_a_wrong_code_is_refused_and_spends_nothing(server: Server) -> None:
    issued = server.issue(fresh())
    for body in (b"", b"wrong", issued.code.encode() + b"\n", issued.code.lower().encode()):
        answer = server.request("POST", f"/{issued.grant.id}", body)
        refused(answer, 403, "Redemption of access token refused")
    assert server.redeem(issued).status == 200


def test_an_expired_grant_is_no_such_claim(server: Server) -> None:
    issued = server.issue(fresh(), ago=601)
    refused(server.redeem(issued), 404, "No such claim")
    assert grants.show(server.home.database, issued.grant.id)[0].spent == 0


def test_a_revoked_and_a_removed_grant_are_no_such_claim(server: Server) -> None:
    for end in (grants.revoke, grants.remove):
        issued = server.issue(fresh())
        end(server.home.database, issued.grant.id, actor="test", now=ambient.utc_now())
        refused(server.redeem(issued), 404, "No such claim")


def test_without_the_code_nobody_learns_what_state_a_grant_is_in(server: Server) -> None:
    used_up = server.issue(fresh())
    assert server.redeem(used_up).status == 200
    revoked = server.issue(fresh())
    grants.revoke(server.home.database, revoked.grant.id, actor="test", now=ambient.utc_now())
    live = server.issue(fresh())
    answers = [
        server.request("POST", f"/{one.grant.id}", b"wrong") for one in (used_up, revoked, live)
    ]
    assert {(one.status, one.body) for one in answers} == {
        (403, b"Redemption of access token refused\n")
    }


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_only_post_is_supported(server: Server, method: str) -> None:
    answer = server.request(method, f"/{server.issue(fresh()).grant.id}")
    refused(answer, 405, "Only POST is supported")
    assert answer.headers["allow"] == "POST"


def test_head_is_refused_without_a_body(server: Server) -> None:
    answer = server.request("HEAD", "/")
    assert (answer.status, answer.body) == (405, b"")


@pytest.mark.parametrize(
    "name", ["../../etc/x", "Upper", "a_b", "-a", "a..b", "n" * 254, "naïve", "a b", "a/b"]
)
def test_a_name_that_could_not_be_stored_is_refused_before_anything_is_minted(
    server: Server, name: str
) -> None:
    issued = server.issue(fresh())
    answer = server.request(
        "POST",
        f"/{issued.grant.id}",
        issued.code.encode(),
        {"name": name.encode().decode("latin-1")},
    )
    refused(answer, 400, "Name not valid")
    assert grants.show(server.home.database, issued.grant.id)[0].spent == 0


@pytest.mark.parametrize("subject", ["tab\there", "s" * 254, "\xff\xfe"])
def test_a_subject_that_cannot_be_a_name_is_refused(server: Server, subject: str) -> None:
    issued = server.issue(fresh())
    headers = {"name": "token", "subject": subject}
    answer = server.request("POST", f"/{issued.grant.id}", issued.code.encode(), headers)
    refused(answer, 400, "Subject not valid")


def test_a_subject_beyond_ascii_is_kept(server: Server) -> None:
    subject = "sitio-ñandú"
    answer = server.redeem(server.issue(fresh()), subject=subject.encode().decode("latin-1"))
    leaf = x509.load_pem_x509_certificate(base64.b64decode(documents(answer)[0]["data"]["tls.crt"]))
    [common_name] = leaf.subject
    assert common_name.value == subject


def test_a_body_beyond_any_code_is_refused(server: Server) -> None:
    issued = server.issue(fresh())
    answer = server.request("POST", f"/{issued.grant.id}", b"x" * 5000)
    refused(answer, 400, "Request body not valid")


def test_a_site_without_endpoints_is_not_ready_and_the_grant_stays_whole(server: Server) -> None:
    empty = fresh("site")
    for endpoints in (["edge=10.0.0.1:45671"], []):
        sites.put(
            server.home.database,
            name=empty,
            endpoints=[parse_endpoint(text) for text in endpoints],
            issuer=None,
            actor="test",
            now=ambient.utc_now(),
        )
    issued = server.issue(fresh(), site=empty)
    answer = server.redeem(issued)
    refused(answer, 503, "No valid endpoints found for site")
    assert answer.headers["retry-after"] == "5"
    assert grants.show(server.home.database, issued.grant.id)[0].state(0) is State.ACTIVE


def test_with_a_request_the_answer_is_the_same_stream_without_a_key(server: Server) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = keys.to_pem(key)
    issued = server.issue(fresh(), redemptions=2)
    headers = {"name": "my-token", "subject": SITE_UID}
    plain, asking, again = (
        server.request("POST", f"/{issued.grant.id}", issued.code.encode(), headers | further, peer)
        for further, peer in (
            ({}, "127.0.0.1"),
            ({"csr": base64.b64encode(make_request(pem, "x")).decode()}, "127.0.0.1"),
            ({"CSR": base64.b64encode(make_request(pem, "x")).decode() + "  "}, "127.0.0.2"),
        )
    )
    assert [one.status for one in (plain, asking, again)] == [200, 200, 200]
    assert again.body == asking.body
    secret, link = documents(asking)
    assert link == documents(plain)[1]
    assert secret["metadata"] == {"name": "my-token"}
    assert list(secret["data"]) == ["ca.crt", "tls.crt"]
    leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    assert leaf.public_key() == key.public_key()
    assert leaf.subject.rfc4514_string() == f"CN={SITE_UID}"
    different = {"date", "content-length", "x-request-id"}
    assert {k: v for k, v in asking.headers.items() if k not in different} == {
        k: v for k, v in plain.headers.items() if k not in different
    }


@pytest.mark.parametrize("csr", ["", "?", "AAAA", "A" * 4097, "\xff"])
def test_a_request_that_is_none_is_refused_to_who_has_the_code(server: Server, csr: str) -> None:
    issued = server.issue(fresh())
    path, code = f"/{issued.grant.id}", issued.code.encode()
    bad = server.request("POST", path, code, {"csr": csr})
    refused(bad, 400, "Certificate request not valid")
    wrong = server.request("POST", path, b"a" * 24, {"csr": csr})
    refused(wrong, 403, "Redemption of access token refused")
    assert server.redeem(issued).status == 200


def test_the_text_of_a_refusal_is_the_same_each_time(server: Server) -> None:
    issued = server.issue(fresh())
    answers = [server.request("POST", f"/{issued.grant.id}", b"wrong") for _ in range(3)]
    assert len({one.body for one in answers}) == 1
    assert len({one.headers["x-request-id"] for one in answers}) == 3


# Inspection


def inspect(server: Server, grant: str, authorization: str) -> Answer:
    return server.request("GET", f"/{grant}", headers={"Authorization": authorization})


def test_the_holder_of_the_code_is_told_what_is_left_without_using_it(server: Server) -> None:
    issued = server.issue(fresh(), redemptions=3, cost=4)
    server.redeem(issued, name="first", subject="east")
    for _ in range(2):
        answer = inspect(server, issued.grant.id, f"Bearer {issued.code}")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        told = json.loads(answer.body)
        assert told["state"] == "active"
        assert (told["redemptionsMade"], told["redemptionsAllowed"]) == (1, 3)
        assert told["linkCost"] == 4
        assert [(one["name"], one["subject"]) for one in told["redemptions"]] == [("first", "east")]


def test_nobody_else_is_told_anything(server: Server) -> None:
    issued = server.issue(fresh())
    for authorization in ("Bearer wrong", "Bearer ", f"Basic {issued.code}", issued.code):
        answer = inspect(server, issued.grant.id, authorization)
        refused(answer, 403, "Redemption of access token refused")
    refused(inspect(server, str(uuid.uuid4()), f"Bearer {issued.code}"), 404, "No such claim")


# Transport


def test_tls_1_2_is_refused(server: Server) -> None:
    context = ssl.create_default_context(cadata=server.home.reach().ca_pem)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    old = replace(server, context=context)
    with pytest.raises(ssl.SSLError):
        old.request("POST", "/")


def test_the_certificate_names_the_host_of_the_tokens(server: Server) -> None:
    # The client of this test verifies the host name: that it is served at all is the proof.
    assert urllib.parse.urlsplit(server.home.reach().url).hostname == server.addresses.redemption[0]
    assert server.context.check_hostname
    assert server.request("POST", "/").status == 404


def test_a_home_elsewhere_is_not_believed(tmp_path: Path, server: Server) -> None:
    with running(tmp_path) as other:
        stranger = replace(other, addresses=server.addresses)
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.request("POST", "/")


# Limits


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Server]:
    """A server that bears three failures of a peer, and no fourth for a long time."""
    with running(
        tmp_path,
        GRANTSERVER_LIMITS_PEER_FAILURES="3",
        GRANTSERVER_LIMITS_PEER_RECOVERY="1h",
        GRANTSERVER_LIMITS_GRANT_FAILURES="4",
        GRANTSERVER_LIMITS_GRANT_RECOVERY="2h",
    ) as started:
        yield started


def guess(server: Server, grant: str, peer: str = "127.0.0.2") -> Answer:
    return server.request("POST", f"/{grant}", b"wrong", peer=peer)


def counter(server: Server, name: str) -> float:
    lines = server.ops("/metrics").body.decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


def test_a_peer_that_has_failed_too_often_is_refused_whatever_it_asks(limited: Server) -> None:
    issued = limited.issue(fresh(), redemptions=2)
    answers = [
        guess(limited, issued.grant.id),
        guess(limited, str(uuid.uuid4())),
        limited.request("PUT", "/", peer="127.0.0.2"),
    ]
    assert [one.status for one in answers] == [403, 404, 405]
    for answer in (
        limited.redeem(issued, peer="127.0.0.2"),
        guess(limited, issued.grant.id),
        limited.request("PUT", "/", peer="127.0.0.2"),
        limited.request(
            "GET",
            f"/{issued.grant.id}",
            headers={"Authorization": f"Bearer {issued.code}"},
            peer="127.0.0.2",
        ),
    ):
        refused(answer, 429, "Too many failed attempts")
        assert 3595 <= int(answer.headers["retry-after"]) <= 3600
    assert limited.redeem(issued, peer="127.0.0.3").status == 200
    assert counter(limited, 'grantserver_refusals_total{reason="rate_limited"}') == 4
    assert counter(limited, 'grantserver_refusals_total{reason="wrong_code"}') == 1


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * 5000, {}, 400),
        (None, {"name": "../x"}, 400),
        (None, {"name": "\xff"}, 400),
        (None, {"subject": "a\tb"}, 400),
        (None, {"subject": "\xff"}, 400),
        (None, {"csr": "AAAA"}, 400),
    ],
)
def test_nonsense_counts_as_failure(
    limited: Server, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    issued = limited.issue(fresh())
    path, code = f"/{issued.grant.id}", issued.code.encode()
    for expected in (status, status, status, 429):
        answer = limited.request("POST", path, body or code, headers, "127.0.0.2")
        assert answer.status == (expected if body is None else status)
    assert guess(limited, issued.grant.id).status == 429


def test_nothing_that_a_client_writes_makes_it_another_peer(limited: Server) -> None:
    issued = limited.issue(fresh())
    for number in range(4):
        answer = limited.request(
            "POST",
            f"/{issued.grant.id}",
            b"wrong",
            {
                "X-Forwarded-For": f"10.0.0.{number}",
                "Forwarded": f"for=10.0.0.{number}",
                "X-Real-IP": f"10.0.0.{number}",
                "subject": f"site-{number}",
            },
            "127.0.0.2",
        )
    assert answer.status == 429


def test_to_come_too_late_is_no_failure(limited: Server) -> None:
    used_up = limited.issue(fresh())
    assert limited.redeem(used_up).status == 200
    expired = limited.issue(fresh(), ago=601)
    for _ in range(3):
        assert limited.redeem(used_up, subject="west").status == 404
        assert limited.redeem(expired).status == 404
    assert limited.redeem(limited.issue(fresh())).status == 200


def test_a_locked_grant_is_closed_to_guessers_alone(limited: Server) -> None:
    issued = limited.issue(fresh(), redemptions=9)
    guessers = [f"127.0.1.{number}" for number in range(1, 7)]
    assert {guess(limited, issued.grant.id, peer).status for peer in guessers} == {403}
    for peer in guessers:
        answer = limited.redeem(issued, peer=peer)
        refused(answer, 429, "Too many failed attempts")
        assert 7195 <= int(answer.headers["retry-after"]) <= 7200
    assert limited.redeem(issued, peer="127.0.0.1").status == 200
    other = limited.issue(fresh())
    assert limited.redeem(other, peer=guessers[0]).status == 200  # of another grant


# Suspected theft


def test_a_stolen_token_is_shown_to_who_holds_its_code(server: Server) -> None:
    issued = server.issue(fresh())
    authorization = f"Bearer {issued.code}"
    server.redeem(issued, name="mine", subject="east")
    told = json.loads(inspect(server, issued.grant.id, authorization).body)
    assert told["suspectedTokenTheft"] is None
    before = counter(server, "grantserver_theft_suspicions_total")
    for _ in range(2):
        late = server.redeem(issued, name="copy", subject="mallory", peer="127.0.0.66")
        refused(late, 404, "No such access granted")
    told = json.loads(inspect(server, issued.grant.id, authorization).body)["suspectedTokenTheft"]
    assert told.keys() == {"first", "later"}
    assert (told["first"]["name"], told["first"]["subject"]) == ("mine", "east")
    assert [(one["name"], one["subject"]) for one in told["later"]] == [("copy", "mallory")]
    assert told["later"][0]["time"].endswith("Z")
    assert "127.0.0.66" not in json.dumps(told)
    assert counter(server, "grantserver_theft_suspicions_total") == before + 1


def test_certificates_of_a_stolen_token_are_marked_where_that_is_wanted(tmp_path: Path) -> None:
    with running(tmp_path, GRANTSERVER_GRANTS_REVOKE_ON_THEFT="true") as server:
        issued = server.issue()
        assert server.redeem(issued).status == 200
        refused(server.redeem(issued, subject="mallory"), 404, "No such access granted")
        (redemption,) = grants.show(server.home.database, issued.grant.id)[1]
        found = theft.suspected(server.home.database, issued.grant.id)
        assert redemption.revoked_at is not None
        assert found is not None
        assert found.first == redemption
