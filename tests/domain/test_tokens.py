import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.documents import access_token
from app.domain.tokens import Token, read_token
from app.errors import Invalid
from tests.builders import CODE, PEM


def a_token(**changes: Any) -> bytes:
    spec = {"url": "https://h:9090/x", "code": CODE, "ca": PEM, "linkCost": 3, **changes}
    document = {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "AccessToken",
        "metadata": {"name": "lab"},
        "spec": {name: value for name, value in spec.items() if value is not None},
    }
    return json.dumps(document).encode()


def problems(content: bytes) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read_token(content)
    assert caught.value.field == "token"
    assert CODE not in str(caught.value)
    return caught.value.why.splitlines()


def test_our_own_token_is_read_as_it_was_written() -> None:
    text = access_token(
        name="lab", url="https://h/x", code=CODE, ca_pem=PEM, cost=2, remarks=["a", "b"]
    )
    assert read_token(text.encode()) == Token(
        name="lab", url="https://h/x", code=CODE, ca_pem=PEM, cost=2
    )


def test_the_first_token_of_several_documents_counts() -> None:
    text = (
        b"---\n# nothing\n---\nkind: Site\n---\n- 1\n---\n"
        + a_token()
        + b"\n---\n"
        + a_token(code="another-code-here")
    )
    assert read_token(text).code == CODE


def test_a_code_stays_the_text_that_was_written() -> None:
    for code in ("0123456789012345", "null", "1e100", "yes", "2026-01-01"):
        text = a_token().decode().replace(f'"{CODE}"', code)
        assert read_token(text.encode()).code == code


def test_the_code_is_in_no_repr() -> None:
    assert CODE not in repr(read_token(a_token()))


def test_name_and_cost_may_be_left_out() -> None:
    token = read_token(a_token(linkCost=None).replace(b'{"name": "lab"}', b"{}"))
    assert token.name == ""
    assert token.cost == 0
    assert read_token(a_token().replace(b'"metadata"', b'"other"')).name == ""


def test_another_version_of_the_resource_will_do() -> None:
    assert read_token(a_token().replace(b"v2alpha1", b"v2")).name == "lab"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"url": None}, ["spec.url: it is missing"]),
        ({"url": "http://h/x"}, ["spec.url: expected https://HOST:PORT/ID"]),
        ({"ca": "nonsense"}, ["spec.ca: expected one or more certificates in PEM"]),
        ({"ca": []}, ["spec.ca: it is missing"]),
        ({"ca": [1]}, ["spec.ca: expected a text"]),
        ({"code": " "}, ["spec.code: expected a text"]),
        ({"linkCost": -1}, ["spec.linkCost: expected a whole number from 0 to 2147483647"]),
        ({"linkCost": 2**31}, ["spec.linkCost: expected a whole number from 0 to 2147483647"]),
        ({"linkCost": [1]}, ["spec.linkCost: expected a whole number from 0 to 2147483647"]),
        (
            {"url": None, "code": None, "ca": None},
            ["spec.url: it is missing", "spec.ca: it is missing", "spec.code: it is missing"],
        ),
    ],
)
def test_every_field_that_is_wrong_is_named(changes: dict[str, Any], expected: list[str]) -> None:
    assert problems(a_token(**changes)) == expected


def test_what_is_no_token_is_named() -> None:
    assert "AccessToken" in problems(b"kind: Secret\n")[0]
    assert "UTF-8" in problems(b"\xff")[0]
    assert problems(b"kind: AccessToken\n") == [
        "apiVersion: expected skupper.io/v2alpha1",
        "spec: it is missing",
    ]
    wrong = a_token().replace(b'{"name": "lab"}', b'{"name": []}')
    assert problems(wrong) == ["metadata.name: expected a text"]


@given(st.binary(max_size=200))
def test_no_bytes_whatever_lead_to_another_error(content: bytes) -> None:
    with pytest.raises(Invalid):
        read_token(content)
