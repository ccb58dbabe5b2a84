import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.errors import Invalid
from app.web.tls import load, server_context
from tests.web.serving import (
    IDENTITY,
    REQUEST,
    Identity,
    Server,
    make_identity,
    read_all,
    serving,
    status_of,
    trusting,
)

OTHER = make_identity()


def serial_shown(server: Server, identity: Identity) -> int:
    with server.shake(trusting(identity)) as connection:
        shown = connection.getpeercert()  # type: ignore[attr-defined]
    return int(shown["serialNumber"], 16)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_tls_1_3_is_spoken() -> None:
    with serving() as server, server.shake() as connection:
        assert isinstance(connection, ssl.SSLSocket)
        assert connection.version() == "TLSv1.3"
        connection.sendall(REQUEST)
        assert status_of(read_all(connection)) == 200


def test_a_client_of_tls_1_2_is_refused_and_told_why() -> None:
    old = trusting()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving() as server:
        with pytest.raises(ssl.SSLError) as refusal:
            server.shake(old)
        assert refusal.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
        assert status_of(server.ask()) == 200


def test_a_client_without_a_curve_in_common_is_refused_and_told_why() -> None:
    odd = trusting()
    odd.set_ecdh_curve("secp521r1")
    with serving() as server:
        assert server.context is not None
        server.context.set_ecdh_curve("prime256v1")
        with pytest.raises(ssl.SSLError) as refusal:
            server.shake(odd)
    assert refusal.value.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE"


def test_a_client_that_does_not_trust_us_is_not_our_trouble() -> None:
    with serving() as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            server.shake(trusting(OTHER))
        assert status_of(server.ask()) == 200


def test_plain_http_is_cut_off_without_an_answer() -> None:
    with serving() as server, server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_all(connection) == b""


def test_nothing_is_remembered_between_connections() -> None:
    with serving() as server:
        assert server.context is not None
        with server.shake() as connection:
            assert isinstance(connection, ssl.SSLSocket)
            connection.sendall(REQUEST)
            read_all(connection)
            assert connection.session is None or not connection.session.has_ticket
        assert server.call(server.context.session_stats)["number"] == 0


def test_no_other_protocol_is_offered_and_no_client_certificate_asked_for() -> None:
    eager = trusting()
    eager.set_alpn_protocols(["h2", "http/1.1"])
    with serving() as server, server.shake(eager) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        assert connection.selected_alpn_protocol() is None
        assert server.context is not None
        assert server.context.verify_mode is ssl.CERT_NONE


def test_the_next_handshake_shows_a_swapped_certificate_and_open_connections_go_on() -> None:
    with serving() as server, server.shake() as before:
        context = server.context
        assert context is not None
        assert serial_shown(server, IDENTITY) == IDENTITY.serial
        server.call(lambda: load(context, OTHER.certificate, OTHER.key))
        assert serial_shown(server, OTHER) == OTHER.serial
        with pytest.raises(ssl.SSLCertVerificationError):
            server.shake(trusting(IDENTITY))
        before.sendall(REQUEST)
        assert status_of(read_all(before)) == 200


@pytest.mark.parametrize(
    ("certificate", "key", "field"),
    [
        pytest.param(OTHER.certificate, IDENTITY.key, "certificate", id="no pair"),
        pytest.param(b"", OTHER.key, "certificate", id="no certificate"),
        pytest.param(OTHER.certificate[:200], OTHER.key, "certificate", id="cut certificate"),
        pytest.param(OTHER.certificate, b"", "key", id="no key"),
        pytest.param(OTHER.certificate, OTHER.key[:60], "key", id="cut key"),
        pytest.param(OTHER.key, OTHER.key, "certificate", id="key for certificate"),
    ],
)
def test_what_cannot_be_used_is_refused_and_the_old_certificate_stays(
    certificate: bytes, key: bytes, field: str
) -> None:
    with serving() as server:
        context = server.context
        assert context is not None
        before = open_descriptors()
        with pytest.raises(Invalid) as refusal:
            load(context, certificate, key)
        assert refusal.value.field == field
        assert not any(line in str(refusal.value) for line in key.decode().splitlines()[1:-1])
        assert open_descriptors() == before
        assert serial_shown(server, IDENTITY) == IDENTITY.serial
    with pytest.raises(Invalid):
        server_context(certificate, key)


def test_a_key_of_another_kind_is_refused_because_the_old_certificate_would_stay() -> None:
    of_rsa = make_identity(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    context = server_context(IDENTITY.certificate, IDENTITY.key)
    with pytest.raises(Invalid, match="start it again"):
        load(context, of_rsa.certificate, of_rsa.key)
    server_context(of_rsa.certificate, of_rsa.key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password() -> None:
    key = serialization.load_pem_private_key(IDENTITY.key, password=None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(Invalid) as refusal:
        server_context(IDENTITY.certificate, encrypted)
    assert refusal.value.field == "key"


def test_the_key_is_on_no_disk_and_no_descriptor_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = tmp_path_factory.mktemp("nowhere")
    monkeypatch.setenv("TMPDIR", str(nowhere))
    monkeypatch.chdir(nowhere)
    nowhere.chmod(0o500)
    before = open_descriptors()
    server_context(IDENTITY.certificate, IDENTITY.key)
    assert open_descriptors() == before
    assert list(nowhere.iterdir()) == []
