import asyncio
import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app import ambient
from app.domain.link_secrets import LinkSecret, Renewed, Server, read_link_secret
from app.errors import GrantServerError, Invalid, Reason, Refused, Unavailable
from app.outbound import Answer
from app.services.renewing import MEANINGS, check, look_at, next_key, renew
from app.web.wire import REFUSALS
from tests.strangers import Asked, Issuer, Stranger, a_stranger

HOUR = 3600


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    with a_stranger(tmp_path) as made:
        yield made


@pytest.fixture
def issuer(stranger: Stranger) -> Issuer:
    """What the server does: it renews."""
    made = Issuer(url=stranger.url, ca_pem=stranger.ca_pem)
    stranger.say = made.renew
    return made


@pytest.fixture
def secret(stranger: Stranger, issuer: Issuer) -> LinkSecret:
    return read_link_secret(issuer.secret(stranger, since=issuer.now - HOUR))


def renewing(secret: LinkSecret, key_pem: bytes | None = None) -> Renewed:
    return asyncio.run(renew(secret, key_pem or next_key()))


def trouble(secret: LinkSecret) -> GrantServerError:
    with pytest.raises(GrantServerError) as caught:
        renewing(secret)
    assert "PRIVATE" not in f"{caught.value}"
    return caught.value


def test_a_new_key_gets_a_certificate_in_the_same_name(
    secret: LinkSecret, issuer: Issuer, stranger: Stranger
) -> None:
    key_pem = next_key()
    renewed = renewing(secret, key_pem)
    certificate = x509.load_pem_x509_certificate(renewed.certificate_pem)
    key = load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=east"
    assert renewed.key_pem == key_pem != secret.key_pem
    assert renewed.ca_pem == issuer.authority_pem
    assert renewed.server == secret.server
    assert renewed.not_after == issuer.now + HOUR
    assert renewed.superseded_at == issuer.now + 60
    (asked,) = stranger.asked
    assert b"PRIVATE" not in asked.body
    assert base64.b64encode(key_pem) not in asked.body


def test_a_server_that_has_moved_is_followed(
    secret: LinkSecret, issuer: Issuer, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with a_stranger(tmp_path / "other") as other:
        issuer.url, issuer.ca_pem = other.url, other.ca_pem
        assert renewing(secret).server == Server(url=other.url, ca_pem=other.ca_pem)
        assert [asked.method for asked in other.asked] == ["GET"]


def test_a_server_that_is_not_where_it_says_is_not_lost(
    secret: LinkSecret, issuer: Issuer, stranger: Stranger, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with a_stranger(tmp_path / "other") as other:
        for url, ca_pem in (
            ("https://127.0.0.1:9", stranger.ca_pem),  # nobody there
            (other.url, stranger.ca_pem),  # somebody else
            (stranger.url, other.ca_pem),  # not whom it says
            (stranger.url, "-----BEGIN CERTIFICATE-----"),  # nothing to trust
        ):
            issuer.url, issuer.ca_pem = url, ca_pem
            assert renewing(secret).server == secret.server
        assert other.asked == []


def test_the_same_key_again_gives_the_same_certificate_again(secret: LinkSecret) -> None:
    key_pem = next_key()
    first, second, other = (renewing(secret, one) for one in (key_pem, key_pem, None))
    assert first == second
    assert other.certificate_pem != first.certificate_pem


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (403, "Renewal refused", "does not know this certificate"),
        (403, "Certificate has ended", "not renewed in time"),
        (403, "Certificate has been revoked", "ended over there"),
        (403, "Certificate was superseded", "renewed meanwhile"),
        (400, "Certificate request not valid", "no key of this kind"),
        (404, "No such claim", "no server that renews"),
        (301, "", "no server that renews"),
        (403, "\x1b[2J" + "x" * 500, "no server that renews"),
    ],
)
def test_a_refusal_is_final_and_said_in_words(
    secret: LinkSecret, stranger: Stranger, status: int, text: str, why: str
) -> None:
    stranger.say = lambda _: (status, text.encode())
    error = trouble(secret)
    assert isinstance(error, Refused)
    assert why in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    "reason",
    [
        *(Reason.RENEWAL, Reason.CERTIFICATE_ENDED, Reason.CERTIFICATE_REVOKED),
        *(Reason.CERTIFICATE_SUPERSEDED, Reason.CSR, Reason.BODY),
    ],
)
def test_every_refusal_of_our_server_is_explained(reason: Reason) -> None:
    refusal = REFUSALS[reason]
    said = Answer(status=refusal.status, reason="", body=f"{refusal.text}\n".encode())
    with pytest.raises(Refused) as caught:
        check(said)
    assert caught.value.reason is reason
    assert MEANINGS[refusal.text][1] in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_cannot_now_may_later(
    secret: LinkSecret, stranger: Stranger, status: int
) -> None:
    stranger.say = lambda _: (status, b"Internal error\n")
    assert isinstance(trouble(secret), Unavailable)


def test_a_server_may_say_when_to_come_again() -> None:
    with pytest.raises(Unavailable) as caught:
        check(Answer(status=503, reason="", body=b"", retry_after=7))
    assert caught.value.retry_after == 7
    check(Answer(status=200, reason="", body=b""))


def test_a_server_that_is_away_may_be_back_later(secret: LinkSecret) -> None:
    away = Server(url="https://127.0.0.1:9", ca_pem=secret.server.ca_pem)
    held = LinkSecret(
        name="x", certificate_pem=secret.certificate_pem, key_pem=secret.key_pem, server=away
    )
    assert isinstance(trouble(held), Unavailable)


def given(stranger: Stranger, issuer: Issuer, *, since: int, life_seconds: int) -> None:
    """Have the server issue what begins then, and is good for so long."""

    def say(asked: Asked) -> tuple[int, bytes]:
        request = x509.load_der_x509_csr(base64.b64decode(json.loads(asked.body)["csr"]))
        issuer.life_seconds = life_seconds
        pem = issuer.certificate(request.public_key(), since=since).decode()
        return changed(issuer.renew(asked), {"certificate": pem})

    stranger.say = say


@pytest.mark.parametrize(
    ("since", "life_seconds", "why"),
    [
        (-2 * HOUR, HOUR, "has ended already"),
        (HOUR, HOUR, "compare the clocks"),
        (0, HOUR // 4, "before the one in hand"),
    ],
)
def test_a_good_certificate_is_not_given_up_for_a_worse_one(
    stranger: Stranger, issuer: Issuer, since: int, life_seconds: int, why: str
) -> None:
    held = read_link_secret(issuer.secret(stranger, since=issuer.now))  # for an hour, and not due
    given(stranger, issuer, since=issuer.now + since, life_seconds=life_seconds)
    error = trouble(held)
    assert isinstance(error, Unavailable)
    assert why in str(error)


def test_one_that_is_due_is_given_up_for_one_of_less_time_and_its_own_end_is_told(
    stranger: Stranger, issuer: Issuer
) -> None:
    held = read_link_secret(issuer.secret(stranger, since=issuer.now - HOUR + 300))
    given(stranger, issuer, since=issuer.now - 60, life_seconds=180)
    assert renewing(held).not_after == issuer.now + 120


def changed(said: tuple[int, bytes], changes: Mapping[str, Any]) -> tuple[int, bytes]:
    return said[0], json.dumps({**json.loads(said[1]), **changes}).encode()


def test_a_certificate_that_does_not_fit_is_not_taken(
    secret: LinkSecret, issuer: Issuer, stranger: Stranger
) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    elsewhere = Issuer().authority_pem.decode()

    def somebody_else(asked: Asked) -> tuple[int, bytes]:
        question = json.loads(asked.body)
        request = x509.load_der_x509_csr(base64.b64decode(question["csr"]))
        pem = issuer.certificate(request.public_key(), subject="CN=evil").decode()
        return changed(issuer.renew(asked), {"certificate": pem})

    for say, why in (
        (somebody_else, "somebody else"),
        (
            lambda asked: changed(
                issuer.renew(asked),
                {"certificate": issuer.certificate(other.public_key()).decode()},
            ),
            "not the key",
        ),
        (lambda asked: changed(issuer.renew(asked), {"ca": elsewhere}), "not issued by"),
        (lambda asked: changed(issuer.renew(asked), {"certificate": "?"}), "X.509"),
        (lambda asked: changed(issuer.renew(asked), {"server": 5}), "no renewal"),
        (lambda _: (200, b"{"), "not JSON"),
        (lambda _: (200, b"\xff"), "not JSON"),
        (lambda _: (200, b"[" * 90_000), "JSON"),
    ):
        stranger.say = say
        error = trouble(secret)
        assert isinstance(error, Unavailable)
        assert why in str(error)


def test_a_secret_whose_key_is_another_is_not_even_asked_for(
    secret: LinkSecret, stranger: Stranger
) -> None:
    held = LinkSecret(
        name="x",
        certificate_pem=secret.certificate_pem,
        key_pem=next_key(),
        server=secret.server,
    )
    assert isinstance(trouble(held), Invalid)
    assert stranger.asked == []


def test_a_certificate_is_due_when_two_thirds_of_its_life_have_passed() -> None:
    issuer = Issuer(now=ambient.utc_now(), life_seconds=24 * HOUR)
    dues = set()
    for _ in range(8):
        key = ec.generate_private_key(ec.SECP256R1())
        found = look_at(issuer.certificate(key.public_key()))
        assert found.not_after - found.not_before == 24 * HOUR
        assert 16 * HOUR <= found.due_at - found.not_before <= 17 * HOUR
        assert found.subject == "CN=east"
        dues.add(found.due_at)
    assert len(dues) > 1


def test_what_is_no_certificate_is_never_due() -> None:
    with pytest.raises(Invalid):
        look_at(b"none")
