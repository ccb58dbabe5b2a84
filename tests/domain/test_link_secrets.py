import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.link_secrets import (
    SERVER_CA,
    SERVER_URL,
    Renewed,
    Server,
    annotations,
    is_renewable,
    read_link_secret,
    read_renewal,
    renewed,
    server_of,
)
from app.errors import Invalid

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
KEY = b"-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n"
SERVER = Server(url="https://west.example.com:9090", ca_pem=PEM)


def encoded(content: str | bytes) -> str:
    return base64.b64encode(content if isinstance(content, bytes) else content.encode()).decode()


def a_secret(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "lab", "labels": {"a": "b"}, "annotations": annotations(SERVER)},
        "type": "kubernetes.io/tls",
        "data": {"ca.crt": encoded(PEM), "tls.crt": encoded(PEM), "tls.key": encoded(KEY)},
        **changes,
    }


def an_answer(**changes: Any) -> dict[str, Any]:
    return {
        "certificate": PEM,
        "ca": PEM,
        "notAfter": "2026-11-22T09:00:00Z",
        "supersededAt": "2026-11-22T08:00:00Z",
        "server": {"url": "https://new.example.com", "ca": PEM},
        **changes,
    }


def test_a_secret_says_where_it_can_be_renewed() -> None:
    assert is_renewable(a_secret())
    found = read_link_secret(a_secret())
    assert found.name == "lab"
    assert found.server == SERVER
    assert (found.certificate_pem, found.key_pem) == (PEM.encode(), KEY)
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "Secret",
        {},
        a_secret(kind="Link"),
        a_secret(metadata=None),
        a_secret(metadata={"name": "lab"}),
        a_secret(metadata={"name": "lab", "annotations": {SERVER_CA: PEM}}),
        a_secret(metadata={"name": "lab", "annotations": [SERVER_URL]}),
    ],
    ids=repr,
)
def test_what_says_nothing_of_it_cannot_be_renewed(document: Any) -> None:
    assert not is_renewable(document)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"metadata": {"name": "lab"}}, "where it could be renewed"),
        ({"metadata": {"annotations": {SERVER_URL: 7, SERVER_CA: PEM}}}, "have to say where"),
        ({"metadata": {"annotations": {SERVER_URL: SERVER.url}}}, "have to say where"),
        ({"metadata": {"annotations": {SERVER_URL: SERVER.url, SERVER_CA: ""}}}, "no certificate"),
        ({"type": "Opaque"}, "not of type"),
        ({"data": None}, "no data"),
        ({"data": {"tls.crt": encoded(PEM)}}, "missing or holds no PEM"),
        ({"data": {"tls.crt": "", "tls.key": encoded(KEY)}}, "missing or holds no PEM"),
        ({"data": {"tls.crt": "?", "tls.key": encoded(KEY)}}, "not base64"),
    ],
)
def test_an_odd_secret_is_told_without_its_data(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why) as caught:
        read_link_secret(a_secret(**changes))
    assert caught.value.field == "secret"
    assert encoded(KEY) not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://west.example.com",
        "https://",
        "https://west/path",
        "https://west?x",
        "https://west#x",
        "https://me@west",
        "https://[x",
        "west",
        "https://we\nst",
    ],
)
def test_only_the_address_of_a_server_is_one(url: str) -> None:
    secret = a_secret(metadata={"annotations": {SERVER_URL: url, SERVER_CA: PEM}})
    with pytest.raises(Invalid, match="HOST:PORT"):
        read_link_secret(secret)
    with pytest.raises(Invalid, match="HOST:PORT"):
        read_renewal(an_answer(server={"url": url, "ca": PEM}), key_pem=KEY)


def test_a_token_leads_to_the_server_that_renews() -> None:
    assert server_of("https://[::1]:9090//x/y?z", PEM).url == "https://[::1]:9090"


def test_what_a_renewal_gives_takes_its_place_and_everything_else_stays() -> None:
    before = a_secret()
    before["data"]["more"] = "x"
    by = Renewed(
        certificate_pem=b"cert",
        key_pem=b"key",
        ca_pem=b"ca",
        server=Server(url="https://new", ca_pem="new"),
        not_after=2,
        superseded_at=1,
    )
    assert renewed(before, by) == {
        **before,
        "metadata": {
            "name": "lab",
            "labels": {"a": "b"},
            "annotations": {SERVER_URL: "https://new", SERVER_CA: "new"},
        },
        "data": {
            "ca.crt": encoded("ca"),
            "tls.crt": encoded("cert"),
            "tls.key": encoded("key"),
            "more": "x",
        },
    }
    assert before["data"]["tls.key"] == encoded(KEY)


def test_the_answer_to_a_renewal_is_read() -> None:
    found = read_renewal(an_answer(), key_pem=KEY)
    assert found.certificate_pem == found.ca_pem == PEM.encode()
    assert found.key_pem == KEY
    assert found.server == Server(url="https://new.example.com", ca_pem=PEM)
    assert (found.not_after - found.superseded_at, found.superseded_at) == (3600, 1795334400)
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "x",
        {},
        an_answer(server=None),
        an_answer(server={}),
        an_answer(certificate=None),
        an_answer(ca=7),
        an_answer(server={"url": "https://x", "ca": "none"}),
        an_answer(notAfter="soon"),
        an_answer(notAfter="2026-11-22T09:00:00"),
        an_answer(supersededAt=5),
        an_answer(supersededAt=None),
    ],
    ids=repr,
)
def test_an_odd_answer_to_a_renewal_is_refused(answer: Any) -> None:
    with pytest.raises(Invalid) as caught:
        read_renewal(answer, key_pem=KEY)
    assert caught.value.field == "answer"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)


@given(JSON)
def test_no_document_whatever_leads_to_another_error(document: Any) -> None:
    assert not is_renewable(document)
    for changes in ({"metadata": document}, {"data": document}, {"type": document}):
        secret = {**a_secret(), **changes}
        try:
            read_link_secret(secret)
        except Invalid:
            continue
    for part in an_answer():
        try:
            read_renewal({**an_answer(), part: document}, key_pem=KEY)
        except Invalid:
            continue
