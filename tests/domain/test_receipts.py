import base64
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from app.domain.documents import bundle, link_documents
from app.domain.link_secrets import Server
from app.domain.receipts import Own, read_receipt
from app.domain.sites import Link
from app.domain.yaml_documents import write
from app.errors import Invalid
from tests.builders import a_minted, an_endpoint


def an_answer(  # noqa: PLR0913 - each test gives one
    *,
    name: str = "lab",
    secret_name: str | None = None,
    link_name: str | None = None,
    credentials: str | None = None,
    kind: str = "Link",
    cut: int = 0,
    secret: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    endpoint: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    links: int = 1,
) -> bytes:
    """Write an answer that is right but for what is said."""
    minted = a_minted()
    encoded = {
        "ca.crt": base64.b64encode(minted.ca_pem).decode(),
        "tls.crt": base64.b64encode(minted.certificate_pem).decode(),
        "tls.key": base64.b64encode(minted.key_pem).decode(),
    }
    documents: list[Any] = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name if secret_name is None else secret_name},
            "type": "kubernetes.io/tls",
            "data": encoded,
            **(secret or {}),
        }
    ]
    documents += [
        {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": kind,
            "metadata": {"name": name if link_name is None else link_name, **(metadata or {})},
            "spec": {
                "tlsCredentials": name if credentials is None else credentials,
                "endpoints": [
                    {
                        "name": "inter-router",
                        "host": "west.example.com",
                        "port": "55671",
                        "group": "g",
                        **(endpoint or {}),
                    }
                ],
                **(spec or {}),
            },
        }
    ] * links
    text = "".join(f"---\n{write(document)}" for document in documents).encode()
    return text[: len(text) - cut]


def refused(body: bytes) -> str:
    with pytest.raises(Invalid) as caught:
        read_receipt(body, name="lab", cost=0)
    assert caught.value.field == "answer"
    return caught.value.why


def test_our_own_answer_is_read_as_it_was_written() -> None:
    links = [
        Link(name="lab-1", endpoints=(an_endpoint(group="a"),), cost=3),
        Link(name="lab-2", endpoints=(an_endpoint(host="::1", group="n"),), cost=3),
    ]
    body = bundle("lab", a_minted(), link_documents(links, credentials="lab"))
    receipt = read_receipt(body, name="lab", cost=0)
    assert receipt.certificate_pem == a_minted().certificate_pem
    assert [(one.kind, one.name) for one in receipt.resources] == [
        ("Secret", "lab"),
        ("Link", "lab-1"),
        ("Link", "lab-2"),
    ]
    reader = YAML(typ="safe")
    again = [reader.load(one.text) for one in receipt.resources]
    assert again == list(reader.load_all(body.decode()))


def test_a_cost_of_the_token_is_put_into_every_link() -> None:
    receipt = read_receipt(an_answer(spec={"cost": 5}), name="lab", cost=9)
    assert "cost: 9\n" in receipt.resources[1].text
    receipt = read_receipt(an_answer(spec={"cost": 5}), name="lab", cost=0)
    assert "cost: 5\n" in receipt.resources[1].text


def test_what_is_in_the_spec_besides_is_kept_and_ports_become_texts() -> None:
    body = an_answer(
        metadata={"creationTimestamp": None},
        spec={"settings": {"since": "2026-01-01"}},
        endpoint={"port": 55671},
    )
    text = read_receipt(body, name="lab", cost=0).resources[1].text
    assert 'since: "2026-01-01"' in text
    assert 'port: "55671"' in text


def test_no_key_is_in_the_repr_of_a_receipt() -> None:
    shown = repr(read_receipt(an_answer(), name="lab", cost=0))
    assert base64.b64encode(a_minted().key_pem).decode() not in shown


@pytest.mark.parametrize(
    "changes",
    [
        {"secret_name": "other"},
        {"secret_name": "../x"},
        {"secret": {"kind": "Pod"}},
        {"secret": {"apiVersion": "v2"}},
        {"secret": {"type": "Opaque"}},
        {"secret": {"data": None}},
        {"secret": {"stringData": {"tls.key": "x"}}},
        {"secret": {"data": {}}},
        {"secret": {"data": {"ca.crt": "é", "tls.crt": "", "tls.key": ""}}},
        {"secret": {"data": {"ca.crt": "AAAA", "tls.crt": "AAAA", "tls.key": "AAAA"}}},
        {"secret": {"metadata": None}},
        {"secret": {"metadata": {"name": 5}}},
        {"secret": {"metadata": {"name": "lab", "namespace": "kube-system"}}},
        {"metadata": {"uid": "x"}},
        {"metadata": {"resourceVersion": "1"}},
        {"kind": "Secret"},
        {"link_name": "../../x"},
        {"link_name": "other"},
        {"link_name": "lab-x"},
        {"link_name": "lab-1/../../x"},
        {"credentials": "other"},
        {"links": 0},
        {"links": 2},
        {"spec": {"endpoints": []}},
        {"spec": {"endpoints": [1]}},
        {"spec": {"endpoints": None}},
        {"spec": {"cost": "7"}},
        {"spec": {"cost": True}},
        {"endpoint": {"name": "other"}},
        {"endpoint": {"name": []}},
        {"endpoint": {"group": 7}},
        {"endpoint": {"host": "a b"}},
        {"endpoint": {"host": None}},
        {"endpoint": {"port": "x"}},
        {"endpoint": {"port": "0"}},
        {"endpoint": {"port": 65536}},
        {"endpoint": {"port": "00009999999999"}},
        {"endpoint": {"port": "0000055671"}},
        {"endpoint": {"port": None}},
    ],
    ids=repr,
)
def test_an_odd_answer_is_refused(changes: dict[str, Any]) -> None:
    assert refused(an_answer(**changes))


@pytest.mark.parametrize(
    "body", [b"", b"---\n", b"\xff", b"a: [", b"- 1\n", b"---\na: b\n", b"x: &a 1\ny: *a\n"]
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    assert refused(body)


def test_an_answer_that_was_cut_off_inside_is_refused() -> None:
    whole = an_answer()
    end = whole.index(b"port:")
    for length in range(end):
        refused(whole[:length])


def test_a_number_that_could_not_be_written_again_is_refused() -> None:
    for field in ("port", "weight"):
        body = an_answer(endpoint={field: "NUMBER"}).replace(b"NUMBER", b"0x" + b"f" * 5000)
        refused(body.replace(b'"0x', b"0x").replace(b'f"', b"f"))


OWN = Own(
    key_pem=b"-----BEGIN PRIVATE KEY-----\nmine\n-----END PRIVATE KEY-----\n",
    server=Server(url="https://west.example.com:9090", ca_pem="CA"),
)


def without_a_key(**changes: Any) -> bytes:
    minted = a_minted()
    data = {
        "ca.crt": base64.b64encode(minted.ca_pem).decode(),
        "tls.crt": base64.b64encode(minted.certificate_pem).decode(),
    }
    return an_answer(secret={"data": data, **changes})


def test_a_key_of_our_own_is_put_to_its_certificate_with_where_to_renew_it() -> None:
    receipt = read_receipt(without_a_key(), name="lab", cost=0, own=OWN)
    assert receipt.own_key
    secret = YAML(typ="safe").load(receipt.resources[0].text)
    assert base64.b64decode(secret["data"]["tls.key"]) == OWN.key_pem
    assert secret["metadata"]["annotations"] == {
        "grantserver/server-url": "https://west.example.com:9090",
        "grantserver/server-ca": "CA",
    }
    assert "mine" not in repr(OWN)


def test_a_server_that_has_made_a_key_is_taken_at_its_word() -> None:
    """Any other than ours ignores the request; what it cannot renew must not say otherwise."""
    notes = {"grantserver/server-url": "https://evil.example.com", "theirs": "goes"}
    body = an_answer(secret={"metadata": {"name": "lab", "annotations": notes}})
    receipt = read_receipt(body, name="lab", cost=0, own=OWN)
    assert not receipt.own_key
    secret = YAML(typ="safe").load(receipt.resources[0].text)
    assert base64.b64decode(secret["data"]["tls.key"]) == a_minted().key_pem
    assert secret["metadata"] == {"name": "lab"}
    plain = read_receipt(an_answer(), name="lab", cost=0)
    assert read_receipt(an_answer(), name="lab", cost=0, own=OWN) == plain
    assert "annotations" not in plain.resources[0].text


def test_an_answer_without_a_key_is_odd_where_no_request_was_sent() -> None:
    assert "tls.key" in refused(without_a_key())


FOREIGN: dict[str, Any] = {
    "finalizers": ["example.com/held"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}],
    "labels": {"skupper.io/type": "connection-token"},
    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    "generateName": "x",
}


@pytest.mark.parametrize("own", [None, OWN])
def test_nothing_of_the_metadata_but_the_name_is_taken_over(own: Own | None) -> None:
    body = an_answer(
        secret={
            "metadata": {"name": "lab", **FOREIGN},
            "immutable": True,
            "data": {**next(yaml.safe_load_all(an_answer()))["data"], "connect.json": "e30="},
        },
        metadata=FOREIGN,
    )
    secret, link = (
        yaml.safe_load(one.text)
        for one in read_receipt(body, name="lab", cost=0, own=own).resources
    )
    assert secret["metadata"] == link["metadata"] == {"name": "lab"}
    assert secret.keys() == {"apiVersion", "kind", "metadata", "type", "data"}
    assert secret["data"].keys() == {"ca.crt", "tls.crt", "tls.key"}
    assert link.keys() == {"apiVersion", "kind", "metadata", "spec"}


@pytest.mark.parametrize("notes", ["x", [], 7])
def test_odd_annotations_are_left_out(notes: Any) -> None:
    body = an_answer(secret={"metadata": {"name": "lab", "annotations": notes}})
    assert read_receipt(body, name="lab", cost=0) == read_receipt(an_answer(), name="lab", cost=0)


def test_an_answer_with_more_links_than_a_site_has_endpoints_is_refused() -> None:
    assert "not YAML, or not of a sensible kind" in refused(an_answer(links=257))
    assert "same name" in refused(an_answer(links=256))


def test_an_answer_of_very_many_parts_is_refused() -> None:
    assert "not of a sensible kind" in refused(an_answer(spec={"odd": [1] * 17_000}))


@pytest.mark.parametrize("more", [0, 1])
def test_a_link_has_as_many_endpoints_as_a_site_at_most(more: int) -> None:
    one = {"name": "edge", "host": "west", "port": "1", "group": "g"}
    body = an_answer(spec={"endpoints": [one] * (256 + more)})
    if more:
        assert "more than 256 endpoints" in refused(body)
    else:
        read_receipt(body, name="lab", cost=0)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_lead_to_another_error(body: bytes) -> None:
    for own in (None, OWN):
        with pytest.raises(Invalid):
            read_receipt(body, name="lab", cost=1, own=own)
