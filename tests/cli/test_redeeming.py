import base64

import pytest

from app.domain.yaml_documents import write
from tests.cli.conftest import Cli
from tests.strangers import Asked, Issuer, Stranger, asked_with, documents


def test_a_certificate_for_another_key_is_not_taken(honoured: Cli, stranger: Stranger) -> None:
    issuer = Issuer()
    other = base64.b64decode(issuer.secret(stranger, since=issuer.now)["data"]["tls.crt"])

    def odd(asked: Asked) -> tuple[int, bytes]:
        status, body = issuer.answer_claim(asked)
        secret, link = documents(body.decode())
        secret["data"]["tls.crt"] = base64.b64encode(other).decode()
        return status, f"---\n{write(secret)}---\n{write(link)}".encode()

    stranger.say = odd
    result = honoured.run("token", "redeem", "lab.yaml")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert (
        "it is not the key of the first certificate; the redemption may have been" in result.stderr
    )


def test_told_to_wait_it_tries_again_what_may_pass(honoured: Cli, stranger: Stranger) -> None:
    answer = stranger.say
    said = [
        (503, b"No valid endpoints found for site\n"),
        (429, b"Too many failed attempts\n"),
        (502, b""),
    ]

    def later(asked: Asked) -> tuple[int, bytes]:
        return said.pop(0) if said else answer(asked)

    stranger.say = later
    result = honoured.run("token", "redeem", "lab.yaml", "--wait", "1m")
    assert result.exit_code == 0, result.stderr
    assert len(stranger.asked) == 4
    assert len({asked_with(asked) for asked in stranger.asked}) == 1
    assert result.stderr.count("trying again in") == 3
    assert "lab: the server cannot answer now, nothing was used up (503" in result.stderr


def test_not_told_to_wait_it_does_not(honoured: Cli, stranger: Stranger) -> None:
    stranger.say = lambda _: (503, b"Internal error\n")
    assert honoured.run("token", "redeem", "lab.yaml").exit_code == 3
    assert len(stranger.asked) == 1


def test_a_final_refusal_is_never_tried_again(honoured: Cli, stranger: Stranger) -> None:
    stranger.say = lambda _: (404, b"No such claim\n")
    assert honoured.run("token", "redeem", "lab.yaml", "--wait", "1m").exit_code == 1
    assert len(stranger.asked) == 1


def test_waiting_ends(honoured: Cli, stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(10**6))
    monkeypatch.setattr("app.ambient.monotonic", lambda: float(next(moments)))
    stranger.say = lambda _: (503, b"Internal error\n")
    assert honoured.run("token", "redeem", "lab.yaml", "--wait", "5s").exit_code == 3
    assert 1 < len(stranger.asked) < 7


def test_a_refusal_after_a_lost_answer_says_what_may_be_behind_it(
    lab: Cli, stranger: Stranger
) -> None:
    def used_up(_: Asked) -> tuple[int, bytes]:
        if len(stranger.asked) == 1:
            raise ConnectionAbortedError
        return 404, b"No such access granted\n"

    stranger.say = used_up
    result = lab.run("token", "redeem", "lab.yaml")
    assert result.exit_code == 1
    assert "an attempt before it may have used it, whose answer was lost" in result.stderr
