import base64
from io import StringIO
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from app.domain.documents import access_token, bundle, link_documents
from app.domain.sites import Endpoint, Link, Role, links
from tests.builders import CODE, PEM, a_minted, an_endpoint

URL = "https://west.example:9090/2b3f3a1c-6f0e-4c5e-9f57-0d4c1b7a9e10"

# What one or another version of YAML reads as something that is no string.
TRAPS = (
    "123", "0123", "0o17", "0x1f", "0b1", "1_000", "1e3", "1.5", ".5", "1.", ".inf", "-.inf",
    ".nan", "null", "~", "n", "y", "no", "yes", "on", "off", "true", "False", "2026-11-22",
    "12:30:45", "190:20:30", "=", "<<", "-", "---", "...", "- a", "a: b", "a #b", "#", "&a", "*a",
    "!a", "!!str a", "%TAG", "@a", "`a`", "|", ">", "?", ": ", "[a]", "{a: b}", "'", '"', "\\",
    '\\"', "\\n", "\\u0041", "a\nb", "a\r\nb", "\t", " a ", "a\x00b", "\u2028", "\u00e9", "\ufeff",
)  # fmt: skip

# Everything that JSON and YAML escape alike; names and hosts that reach a document are ASCII.
TEXTS = st.text(
    st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"], exclude_characters="\x7f"),
    max_size=60,
)


def read_1_1(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


def read_1_2(text: str) -> list[Any]:
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    return list(reader.load_all(StringIO(text)))


def both(text: str) -> list[Any]:
    old, new = read_1_1(text), read_1_2(text)
    assert old == new
    assert repr(old) == repr(new)  # 1 and True are equal, and no less different
    return old


def a_link(**changes: Any) -> Link:
    made: dict[str, Any] = {"name": "east", "endpoints": (an_endpoint(),), "cost": 2}
    return Link(**(made | changes))


def test_the_answer_is_the_wire_contracts_to_the_byte() -> None:
    minted = a_minted(certificate_pem=b"leaf", key_pem=b"key", ca_pem=b"ca")
    endpoints = (an_endpoint(), an_endpoint(role=Role.EDGE, host="2001:db8::1", port=45671))
    assert bundle(
        "east", minted, link_documents([a_link(endpoints=endpoints)], credentials="east")
    ) == (
        b"---\n"
        b"apiVersion: v1\n"
        b"kind: Secret\n"
        b"metadata:\n"
        b'  name: "east"\n'
        b"type: kubernetes.io/tls\n"
        b"data:\n"
        b'  ca.crt: "Y2E="\n'
        b'  tls.crt: "bGVhZg=="\n'
        b'  tls.key: "a2V5"\n'
        b"---\n"
        b"apiVersion: skupper.io/v2alpha1\n"
        b"kind: Link\n"
        b"metadata:\n"
        b'  name: "east"\n'
        b"spec:\n"
        b"  cost: 2\n"
        b'  tlsCredentials: "east"\n'
        b"  endpoints:\n"
        b"  - name: inter-router\n"
        b'    host: "west.example"\n'
        b'    port: "55671"\n'
        b'    group: "skupper-router"\n'
        b"  - name: edge\n"
        b'    host: "2001:db8::1"\n'
        b'    port: "45671"\n'
        b'    group: "skupper-router"\n'
    )


def test_a_secret_for_a_key_that_is_not_ours_has_none() -> None:
    links = link_documents([a_link()], credentials="east")
    with_key, without = (bundle("east", a_minted(key_pem=key), links) for key in (b"key", b""))
    assert with_key.replace(b'  tls.key: "a2V5"\n', b"") == without
    assert b"tls.key" not in without


def check_bundle(name: str, made: list[Link]) -> None:
    minted = a_minted()
    body = bundle(name, minted, link_documents(made, credentials=name))
    assert body.startswith(b"---\n")
    assert body.isascii()
    assert body.endswith(b"\n")
    assert b"\n..." not in body
    assert body.count(b"\n---\n") == len(made)
    secret, *others = both(body.decode())
    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": base64.b64encode(minted.certificate_pem).decode(),
            "tls.key": base64.b64encode(minted.key_pem).decode(),
            "ca.crt": base64.b64encode(minted.ca_pem).decode(),
        },
    }
    assert others == [
        {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "Link",
            "metadata": {"name": link.name},
            "spec": {
                "cost": link.cost,
                "tlsCredentials": name,
                "endpoints": [
                    {
                        "name": str(one.role),
                        "host": one.host,
                        "port": str(one.port),
                        "group": one.group,
                    }
                    for one in link.endpoints
                ],
            },
        }
        for link in made
    ]
    for document in others:
        assert type(document["spec"]["cost"]) is int
        assert all(type(one["port"]) is str for one in document["spec"]["endpoints"])


@pytest.mark.parametrize("text", TRAPS)
def test_a_text_that_yaml_would_take_for_something_else_stays_a_text(text: str) -> None:
    endpoint = Endpoint(role=Role.EDGE, host=text, port=1, group=text)
    check_bundle(text, [a_link(name=text, endpoints=(endpoint,))])
    (token,) = both(
        access_token(name=text, url=text, code=text, ca_pem=PEM, cost=1, remarks=["a remark"])
    )
    assert token["metadata"] == {"name": text}
    assert token["spec"] == {"url": text, "code": text, "linkCost": 1, "ca": PEM}


@example("null", "n", 1, 1)
@given(TEXTS, TEXTS, st.integers(1, 65535), st.integers(1, 2**31 - 1))
def test_hostile_texts_read_back_as_they_were_in_both_versions_of_yaml(
    name: str, host: str, port: int, cost: int
) -> None:
    endpoints = tuple(
        Endpoint(role=role, host=host, port=port, group=group)
        for role in Role
        for group in ("a", name)
    )
    check_bundle(name, [a_link(name=name, endpoints=endpoints, cost=cost), a_link(cost=cost)])


def test_there_is_one_document_for_each_link_and_nothing_behind() -> None:
    endpoints = [an_endpoint(group=group) for group in ("a", "b", "c")]
    made = links("east", endpoints, 5)
    check_bundle("east", list(made))
    assert (
        len(both(bundle("east", a_minted(), link_documents(made, credentials="east")).decode()))
        == 4
    )


def test_the_documents_do_not_say_where_they_are_to_be_stored() -> None:
    for document in both(
        bundle("east", a_minted(), link_documents([a_link()], credentials="east")).decode()
    ):
        assert set(document["metadata"]) == {"name"}


def test_the_token_reads_as_an_access_token_with_its_remarks_above() -> None:
    text = access_token(
        name="to-west", url=URL, code=CODE, ca_pem=PEM * 2, cost=2, remarks=["one", "two"]
    )
    assert text.startswith("# one\n# two\napiVersion: skupper.io/v2alpha1\n")
    assert text.endswith("    -----END CERTIFICATE-----\n")
    (token,) = both(text)
    assert token == {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "AccessToken",
        "metadata": {"name": "to-west"},
        "spec": {"url": URL, "code": CODE, "linkCost": 2, "ca": PEM * 2},
    }
    assert type(token["spec"]["linkCost"]) is int


@given(TEXTS, st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_any_name_and_code_come_out_of_the_token_as_they_went_in(name: str, code: str) -> None:
    (token,) = both(access_token(name=name, url=URL, code=code, ca_pem=PEM, cost=1, remarks=()))
    assert (token["metadata"]["name"], token["spec"]["code"]) == (name, code)


def test_a_ca_with_odd_blank_lines_around_it_comes_out_whole() -> None:
    windows = "\r\n" + PEM.replace("\n", "\r\n") + "\r\n\r\n"
    (token,) = both(access_token(name="a", url=URL, code=CODE, ca_pem=windows, cost=1, remarks=()))
    assert token["spec"]["ca"] == PEM
