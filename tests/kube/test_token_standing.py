"""The texts are compared letter by letter: people search for them."""

from http import HTTPStatus

import pytest

from app import outbound
from app.errors import Conflict, Invalid, Unavailable
from app.kube import token_standing
from app.kube.applier import Condition
from app.outbound import Answer
from tests.kube.objects import a_ca

URL = "https://grants.example:9090/0b9e6a7e-6d2f-4c53-8d0e-3a3a3e0b7d11"


def answer(status: int, body: bytes = b"", reason: str | None = None) -> Answer:
    phrase = HTTPStatus(status).phrase if reason is None else reason
    return Answer(status=status, reason=phrase, body=body)


def unusable(url: str, ca_pem: bytes = a_ca().certificate_pem) -> str:
    with pytest.raises(Invalid) as caught:
        outbound.check(url, ca_pem)
    return token_standing.not_to_be_asked(caught.value)


def test_what_is_wrong_with_a_token_is_said_in_the_words_of_the_contract() -> None:
    assert unusable(URL, b"") == "token does not have a CA"
    assert unusable(URL, b"no certificate") == "token does not have a CA"
    assert unusable("nonsense", b"") == "token does not have a CA"  # the CA is looked at first
    assert unusable("http://grants.example:9090/x") == "token url scheme must be https"
    assert unusable("grants.example:9090/x") == "token url scheme must be https"
    assert unusable("https://grants.example:port/x") == (
        "could not parse token url: it is not a URL"
    )
    assert unusable("https://:9090/x") == "could not parse token url: it is not a URL"
    assert unusable("https://me:secret@grants.example/x") == (
        "could not parse token url: it must not carry a user name or password"
    )


def test_no_answer_is_said_with_the_url_and_the_reason() -> None:
    error = Unavailable("grants.example:9090 refuses the connection")
    assert token_standing.no_answer(URL, error) == (
        f'Controller got error: Post "{URL}": grants.example:9090 refuses the connection'
    )
    error_of_tls = Invalid("ca", "grants.example:9090 shows another certificate")
    assert token_standing.no_answer(URL, error_of_tls) == (
        f'Controller got error: Post "{URL}": grants.example:9090 shows another certificate'
    )


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, b"No such claim\n", "404 (Not Found) No such claim"),
        (403, b"Redemption of access token refused\n", "403 (Forbidden) Redemption of access"),
        (500, b" No valid endpoints found for site\n", "500 (Internal Server Error) No valid end"),
        (204, b"", "204 (No Content) "),
        (302, b"elsewhere", "302 (Found) elsewhere"),
        (413, b"too large", "413 (Request Entity Too Large) too large"),
        (422, b"no", "422 (Unprocessable Entity) no"),
        (404, b"not \xff UTF-8", "404 (Not Found) not \ufffd UTF-8"),
    ],
)
def test_another_answer_than_a_success_is_said_as_it_came(
    status: int, body: bytes, told: str
) -> None:
    found = token_standing.not_a_success(answer(status, body))
    assert found.startswith(f"Controller got failed response: {told}")


def test_a_status_that_nobody_knows_has_no_phrase() -> None:
    found = token_standing.not_a_success(answer(599, b"odd", reason=""))
    assert found == "Controller got failed response: 599 () odd"


def test_what_is_said_fits_into_a_condition_and_gives_a_terminal_no_orders() -> None:
    found = token_standing.not_a_success(answer(500, b"\x1b[2J\x00" + b"x" * 100_000))
    assert len(found) == 32768
    assert found.startswith("Controller got failed response: 500 (Internal Server Error)  [2J xx")
    assert token_standing.not_a_success(answer(500, b"one\ntwo")).endswith("one\ntwo")


def test_what_cannot_be_stored_is_said_in_the_words_of_the_contract() -> None:
    secret = Conflict('secrets "west" already exists')
    assert token_standing.secret_not_stored(secret) == (
        'Controller could not create received secret: secrets "west" already exists'
    )
    link = Conflict('links.skupper.io "west" already exists')
    assert token_standing.link_not_stored(link) == (
        'Controller could not create received link: links.skupper.io "west" already exists'
    )


@pytest.mark.parametrize("status", [204, 302, 400, 401, 403, 404, 405, 409, 410])
def test_an_answer_that_will_not_change_is_final(status: int) -> None:
    message = token_standing.not_a_success(answer(status, b"no"))
    assert token_standing.is_final(message)
    assert token_standing.is_of_the_far_side(message)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_may_change_is_not(status: int) -> None:
    message = token_standing.not_a_success(answer(status, b"later"))
    assert not token_standing.is_final(message)
    assert token_standing.is_of_the_far_side(message)


def test_an_answer_that_cannot_be_used_is_final_for_another_would_cost_a_redemption() -> None:
    assert token_standing.is_final("Controller could not decode response")


def test_what_only_the_spec_can_mend_is_final_and_what_is_in_the_way_is_not() -> None:
    for url in ("http://grants.example/x", "https://:9090/x"):
        assert token_standing.is_final(unusable(url))
    assert token_standing.is_final(unusable(URL, b""))
    for in_the_way in (
        token_standing.secret_not_stored(Conflict('secrets "west" already exists')),
        token_standing.link_not_stored(Conflict('links.skupper.io "west" already exists')),
    ):
        assert not token_standing.is_final(in_the_way)
        assert not token_standing.is_of_the_far_side(in_the_way)
    in_the_network = token_standing.no_answer(URL, Unavailable("it refuses the connection"))
    assert not token_standing.is_final(in_the_network)
    assert token_standing.is_of_the_far_side(in_the_network)


def test_a_body_that_speaks_of_another_status_is_not_taken_for_it() -> None:
    odd = b"Controller got failed response: 404 (Not Found) No such claim"
    assert not token_standing.is_final(token_standing.not_a_success(answer(500, odd)))


def test_a_status_has_one_condition_and_the_fields_that_columns_show() -> None:
    assert token_standing.fields("OK", redeemed=True) == {
        "redeemed": True,
        "status": "Ready",
        "message": "OK",
    }
    assert token_standing.condition("OK", redeemed=True) == Condition(
        type="Redeemed", status=True, reason="Ready", message="OK"
    )
    assert token_standing.fields("no", redeemed=False) == {
        "redeemed": False,
        "status": "Error",
        "message": "no",
    }
    assert token_standing.condition("no", redeemed=False) == Condition(
        type="Redeemed", status=False, reason="Error", message="no"
    )


def test_the_condition_is_found_among_others() -> None:
    one = {"type": "Redeemed", "status": "True"}
    assert token_standing.told({"conditions": [{"type": "Other"}, one]}) == one
    assert token_standing.told({}) == {}
