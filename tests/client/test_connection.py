import ssl
import traceback
from pathlib import Path

import pytest

from app.client.connection import LARGEST_ANSWER_BYTES
from app.errors import GrantServerError, Invalid, Unavailable
from tests.client.servers import CUT, TOKEN, Misbehaving, answer, misbehaving

INFO = {
    "version": "1",
    "caller": {"kind": "token", "name": "ci", "verbs": ["read"], "sites": ["west"]},
    "reach": {"url": None, "ca": None, "waiting": "for an address"},
    "ceilings": {"window": None, "redemptions": None, "lifetime": None},
}


def test_a_connection_is_kept_from_question_to_question(there: Misbehaving) -> None:
    there.answers += [answer(body=INFO), answer(body=INFO)]
    with there.client() as client:
        assert client.info() == client.info()
    assert [one.connection for one in there.asked] == [1, 1]
    assert there.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_one_that_the_server_has_closed_is_opened_anew(there: Misbehaving) -> None:
    closing = answer(body=INFO, headers="Connection: close\r\n")
    there.answers += [closing, answer(body=INFO)]
    with there.client() as client:
        assert client.info() == client.info()
    assert [one.connection for one in there.asked] == [1, 2]


def test_whoever_is_not_vouched_for_is_not_asked(there: Misbehaving, tmp_path: Path) -> None:
    with misbehaving(tmp_path) as other, pytest.raises(Invalid, match="does not vouch for"):
        there.client(ca_pem=other.ca_pem).info()
    assert not there.asked


def test_nor_is_somebody_of_another_name(tmp_path: Path) -> None:
    with misbehaving(tmp_path, host="127.0.0.2") as there:
        with pytest.raises(Invalid, match="IP address mismatch") as caught:
            there.client().info()
        assert caught.value.field == "ca"
        assert not there.asked


def test_nor_is_who_does_not_speak_tls_1_3(tmp_path: Path) -> None:
    def old(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    with misbehaving(tmp_path, change=old) as there:
        with pytest.raises(Unavailable, match=r"TLS 1\.3"):
            there.client().info()
        assert not there.asked


def test_nobody_there_is_unavailable(there: Misbehaving) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        there.client(url="https://127.0.0.1:1").info()


def test_an_answer_that_does_not_come_is_waited_for_until_the_deadline(
    there: Misbehaving,
) -> None:
    with pytest.raises(Unavailable, match="did not answer in time"):
        there.client(seconds=0.3).info()
    assert len(there.asked) == 1


def test_one_that_comes_drop_by_drop_has_the_same_deadline(there: Misbehaving) -> None:
    there.answers += [answer(body=INFO)[:-5]]
    with pytest.raises(Unavailable, match="did not answer in time"):
        there.client(seconds=0.3).info()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (answer(body=b"x" * (LARGEST_ANSWER_BYTES + 1)), "more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}", "did not say how long"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"\r\n", "does not answer in HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "does not answer in HTTP",
        ),
    ],
    ids=["huge", "endless", "no-http", "headers", "chunks"],
)
def test_what_is_no_whole_answer_is_none(there: Misbehaving, said: bytes, why: str) -> None:
    there.answers += [said] * 4
    with pytest.raises(Unavailable, match=why):
        there.client().info()


def test_half_an_answer_is_none(there: Misbehaving) -> None:
    there.answers += [answer(body=INFO, length=10_000, headers="Connection: close\r\n"), CUT] * 4
    with pytest.raises(Unavailable):
        there.client(seconds=0.5).info()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9443",
        "127.0.0.1:9443",
        "https://",
        "https://a b",
        "https://host:0",
        "https://host:99999",
        "https://user:secret@host",
        "https://host/api/v1",
        "https://host?x=1",
        "https://host\n",
        "https://[::1",
        "https://" + "a" * 70 + ".example.com",
    ],
)
def test_a_server_has_to_be_a_base_url(there: Misbehaving, url: str) -> None:
    with pytest.raises(Invalid) as caught:
        there.client(url=url)
    assert caught.value.field == "server"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("ca_pem", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAA\n", "é"])
def test_a_ca_has_to_be_certificates(there: Misbehaving, ca_pem: str) -> None:
    with pytest.raises(Invalid) as caught:
        there.client(ca_pem=ca_pem)
    assert caught.value.field == "ca"


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ü" * 20, "x" * 20_000])
def test_a_token_that_cannot_be_sent_is_refused_unseen(there: Misbehaving, token: str) -> None:
    with pytest.raises(Invalid, match="token") as caught:
        there.client(token=token)
    assert not token or token not in "".join(traceback.format_exception(caught.value))


def test_the_token_is_in_no_error_and_no_representation(there: Misbehaving) -> None:
    client = there.client()
    assert TOKEN not in repr(client)
    there.answers += [b"HTTP/1.1 \r\n\r\n", b"HTTP/1.1 200 OK\r\nX\r\n\r\n", answer(500)]
    for _ in range(3):
        with pytest.raises(GrantServerError) as caught:
            client.delete_site("west")
        assert TOKEN not in "".join(traceback.format_exception(caught.value))
