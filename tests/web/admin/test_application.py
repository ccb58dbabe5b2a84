import http.client
import json
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api.problems import KINDS, MEDIA_TYPE
from app.store.schema import grants
from app.web.admin.application import MOST_BODY_BYTES
from tests.crew import eventually
from tests.pki import Certified, a_root
from tests.running import Server, running
from tests.web.admin.conftest import Desk

CALLERS = a_root("callers")


def problem(answer: Any) -> str:
    assert answer.headers["content-type"] == MEDIA_TYPE
    found = answer.json()
    assert found["status"] == answer.status
    (kind,) = (kind for kind in KINDS if kind.type == found["type"])
    return kind.value


def test_whoever_comes_is_told_that_it_lives_and_nothing_else(desk: Desk) -> None:
    server = desk.server
    answer = server.admin("GET", "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")
    for method, path in (
        ("GET", "/openapi.json"),
        ("GET", "/api/v1/grants"),
        ("GET", "/docs"),
        ("GET", "/"),
        ("POST", "/healthz"),
        ("TRACE", "/api/v1/info"),
    ):
        answer = server.admin(method, path)
        assert (answer.status, problem(answer)) == (401, "unauthenticated"), path
        assert answer.headers["www-authenticate"] == 'Bearer realm="grantserver"'


def test_every_answer_has_an_id_that_the_log_has(desk: Desk) -> None:
    ids = {desk("GET", "/info").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def test_a_path_without_anything_is_missing(desk: Desk) -> None:
    for path in ("/nothing", "/grants/", "/grants//"):
        answer = desk("GET", path)
        assert (answer.status, problem(answer)) == (404, "missing")


def test_a_method_that_is_not_there_is_refused_with_those_that_are(desk: Desk) -> None:
    for method, path, allowed in (
        ("POST", "/info", "GET"),
        ("PUT", "/grants", "GET, POST"),
        ("BREW", "/sites/west", "GET, PUT, DELETE"),
    ):
        answer = desk(method, path)
        assert (answer.status, problem(answer)) == (405, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == set(allowed.split(", "))


def test_a_head_is_a_get_without_a_body(desk: Desk) -> None:
    answer = desk("HEAD", "/info")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_a_query_that_is_not_known_is_refused_by_its_name(desk: Desk) -> None:
    for path in ("/grants?stat=active", "/info?x=1", "/sites/west?x"):
        answer = desk("GET", path)
        assert (answer.status, problem(answer)) == (400, "malformed")


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"\xff", b'"text"', b"{}{}", b"NaN"])
def test_a_body_that_is_no_object_of_ours_is_malformed(desk: Desk, body: bytes) -> None:
    answer = desk("POST", "/grants", body)
    assert (answer.status, problem(answer)) == (400, "malformed")


def test_a_body_has_one_form(desk: Desk) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = desk("POST", "/grants", b"name=lab", headers=headers)
    assert (answer.status, problem(answer)) == (415, "unsupported_media_type")
    headers = {"Content-Type": "application/json; charset=utf-8"}
    body = json.dumps({"name": "with-charset", "site": "west"}).encode()
    assert desk("POST", "/grants", body, headers=headers).status == 201


def test_a_body_is_bounded_announced_or_not(desk: Desk) -> None:
    large = b'"' + b"x" * MOST_BODY_BYTES + b'"'
    answer = desk("POST", "/grants", large)
    assert (answer.status, problem(answer)) == (413, "too_large")
    assert desk.server.addresses.admin is not None
    host, port = desk.server.addresses.admin
    connection = http.client.HTTPSConnection(host, port, context=desk.server.context, timeout=20)
    headers = {"Authorization": f"Bearer {desk.token}", "Content-Type": "application/json"}
    pieces = iter([large[:40000], large[40000:]])
    try:
        connection.request("POST", "/api/v1/grants", pieces, headers, encode_chunked=True)
        assert connection.getresponse().status == 413
    finally:
        connection.close()


def test_a_connection_is_kept_for_the_next_request(desk: Desk) -> None:
    assert desk.server.addresses.admin is not None
    host, port = desk.server.addresses.admin
    connection = http.client.HTTPSConnection(host, port, context=desk.server.context, timeout=20)
    try:
        for _ in range(3):
            connection.request(
                "GET", "/api/v1/info", headers={"Authorization": f"Bearer {desk.token}"}
            )
            response = connection.getresponse()
            assert (response.status, response.will_close) == (200, False)
            response.read()
    finally:
        connection.close()


def test_what_nobody_foresaw_is_a_fault_without_a_word_of_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    grant_id = desk.grant("broken")
    with desk.server.home.database.writing() as connection:
        connection.execute(grants.update().where(grants.c.id == grant_id).values(labels="no JSON"))
    answer = desk("GET", f"/grants/{grant_id}")
    assert (answer.status, problem(answer)) == (500, "broken")
    assert b"JSON" not in answer.body
    request_id = answer.headers["x-request-id"]
    assert eventually(lambda: any(request_id in str(one.msg) for one in caplog.records))
    assert desk("DELETE", f"/grants/{grant_id}").status == 500
    with desk.server.home.database.writing() as connection:
        connection.execute(grants.delete().where(grants.c.id == grant_id))


def test_the_log_tells_who_asked_for_what_and_no_secret(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "admin")
    token = desk.server.admin_token("read")
    answer = desk("GET", "/sites/west?", token=token)

    def lines() -> list[Any]:
        records: list[Any] = [one for one in caplog.records if one.name == "admin"]
        return [one.msg for one in records if isinstance(one.msg, dict)]

    assert eventually(lambda: len(lines()) == 1)  # it is written when the answer is out
    (line,) = lines()
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["caller"].startswith("token:token-")
    assert (line["method"], line["route"]) == ("GET", "/api/v1/sites/{name}")
    assert line["status"] == 200
    assert token.split("_")[2] not in caplog.text


def test_requests_are_counted_by_what_came_of_them(desk: Desk) -> None:
    def counted(outcome: str) -> float:
        name = f'grantserver_admin_requests_total{{outcome="{outcome}"}} '
        (line,) = (
            line for line in desk.server.ops("/metrics").body.decode().splitlines()
            if line.startswith(name)
        )  # fmt: skip
        return float(line.removeprefix(name))

    before = {one: counted(one) for one in ("served", "refused", "unknown_caller")}
    assert desk("GET", "/info").status == 200
    assert desk("GET", "/nothing").status == 404
    assert desk("GET", "/info", token="wrong").status == 401
    assert desk.server.admin("GET", "/healthz").status == 200
    assert {one: counted(one) - before[one] for one in before} == {
        "served": 1,
        "refused": 1,
        "unknown_caller": 1,
    }


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for certificates, and locks out who fails twice."""
    directory = tmp_path_factory.mktemp("strict")
    (directory / "ca.pem").write_bytes(CALLERS.pem)
    further = {
        "GRANTSERVER_LISTEN_ADMIN": "127.0.0.1:0",
        "GRANTSERVER_ADMIN_CLIENT_CA_FILE": str(directory / "ca.pem"),
        "GRANTSERVER_ADMIN_CERTIFICATES": "ops=*@*, portal=read@west",
        "GRANTSERVER_LIMITS_PEER_FAILURES": "2",
        "GRANTSERVER_LIMITS_PEER_RECOVERY": "1h",
    }
    with running(directory, **further) as server:
        yield server


def test_whoever_tries_tokens_is_not_looked_at_for_a_while(strict: Server) -> None:
    token = strict.admin_token("read")
    for _ in range(2):
        assert strict.admin("GET", "/api/v1/info", token="gsa_x", peer="127.0.0.9").status == 401
    answer = strict.admin("GET", "/api/v1/info", token=token, peer="127.0.0.9")
    assert (answer.status, problem(answer)) == (429, "limited")
    assert int(answer.headers["retry-after"]) > 60
    assert strict.admin("GET", "/api/v1/info", token=token, peer="127.0.0.8").status == 200


def test_a_token_that_has_ended_is_good_for_nothing(strict: Server) -> None:
    token = strict.admin_token("read", window_seconds=10, ago=10)
    answer = strict.admin("GET", "/api/v1/info", token=token, peer="127.0.0.7")
    assert (answer.status, problem(answer)) == (401, "unauthenticated")


def showing(server: Server, directory: Path, certified: Certified) -> ssl.SSLContext:
    """A client that shows a certificate."""
    context = ssl.create_default_context(cadata=server.home.reach().ca_pem)
    file = directory / "client.pem"
    file.write_bytes(certified.pem + certified.key_pem)
    context.load_cert_chain(file)
    return context


def test_a_client_certificate_has_the_rights_of_its_name(strict: Server, tmp_path: Path) -> None:
    context = showing(strict, tmp_path, CALLERS.certify(name="portal", client=True))
    who = strict.admin("GET", "/api/v1/info", context=context).json()["caller"]
    assert who == {"kind": "certificate", "name": "portal", "verbs": ["read"], "sites": ["west"]}
    assert strict.admin("GET", "/api/v1/sites/west", context=context).status == 200
    answer = strict.admin("POST", "/api/v1/grants", {"name": "x"}, context=context)
    assert answer.status == 403


def test_a_certificate_that_nobody_named_is_nobodys(strict: Server, tmp_path: Path) -> None:
    context = showing(strict, tmp_path, CALLERS.certify(name="stranger", client=True))
    assert strict.admin("GET", "/api/v1/info", context=context).status == 401


@pytest.mark.parametrize("kind", ["another CA", "made for servers"])
def test_a_certificate_that_is_not_for_this_ends_the_connection(
    strict: Server, tmp_path: Path, kind: str
) -> None:
    if kind == "another CA":
        certified = a_root("callers").certify(name="ops", client=True)
    else:
        certified = CALLERS.certify("ops.example.com", name="ops", server=True)
    context = showing(strict, tmp_path, certified)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        strict.admin("GET", "/api/v1/info", context=context)


def test_nobody_has_to_show_a_certificate(strict: Server) -> None:
    assert strict.admin("GET", "/api/v1/info", token=strict.admin_token("read")).status == 200
    assert strict.admin("GET", "/healthz").status == 200
