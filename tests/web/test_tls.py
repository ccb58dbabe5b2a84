import asyncio
import ssl
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from app.errors import Invalid
from app.web.listeners import Listener, bind, run
from app.web.tls import rehearse, server_context
from tests.pki import Certified, a_root
from tests.web.raw import RawTls
from tests.web.serving import (
    IDENTITY,
    PATIENCE,
    REQUEST,
    Identity,
    Server,
    make_identity,
    obliging,
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


def of_rsa(bits: int = 2048) -> Identity:
    return make_identity(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def test_the_next_handshake_shows_a_swapped_certificate_and_open_connections_go_on() -> None:
    with serving() as server, server.shake() as before:
        assert serial_shown(server, IDENTITY) == IDENTITY.serial
        server.swap(OTHER)
        assert serial_shown(server, OTHER) == OTHER.serial
        with pytest.raises(ssl.SSLCertVerificationError):
            server.shake(trusting(IDENTITY))
        before.sendall(REQUEST)
        assert status_of(read_all(before)) == 200


def test_a_certificate_of_another_kind_of_key_takes_the_place_of_the_old_one() -> None:
    """Whatever the client prefers: with both in one context it could still choose the old one."""
    rsa_identity, ed25519_identity = of_rsa(), make_identity(ed25519.Ed25519PrivateKey.generate())
    with serving() as server:
        for identity in (rsa_identity, ed25519_identity, IDENTITY, rsa_identity):
            server.swap(identity)
            assert serial_shown(server, identity) == identity.serial
            assert status_of(read_all_of(server, identity)) == 200


def read_all_of(server: Server, identity: Identity) -> bytes:
    with server.shake(trusting(identity)) as connection:
        connection.sendall(REQUEST)
        return read_all(connection)


def test_a_handshake_that_has_begun_ends_with_the_certificate_that_it_began_with() -> None:
    """The client's hello comes in two parts, and the swap between them."""
    outgoing, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(IDENTITY).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    with serving() as server, server.connect() as connection:
        connection.sendall(hello[:100])
        assert status_of(server.ask()) == 200  # it was accepted before this one
        server.swap(OTHER)
        connection.sendall(hello[100:])
        while True:
            incoming.write(connection.recv(65536))
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
        shown = client.getpeercert()
        assert shown is not None
        assert int(str(shown["serialNumber"]), 16) == IDENTITY.serial


def test_a_client_that_says_its_end_early_is_answered_after_a_swap_too() -> None:
    with serving() as server:
        server.swap(OTHER)
        with RawTls(server, OTHER) as client:
            client.socket.sendall(client.seal(REQUEST) + client.end())
            assert status_of(client.read_all()) == 200


def test_a_listener_may_be_given_its_certificate_before_it_starts() -> None:
    async def main() -> None:
        listener = Listener(obliging, bind("127.0.0.1:0"), context=context_of(IDENTITY))
        listener.secure(context_of(OTHER))
        await listener.start()
        shown = await asyncio.to_thread(
            ssl.get_server_certificate, listener.address, timeout=PATIENCE
        )
        await listener.stop(0.0)
        assert shown.encode().split() == OTHER.certificate.split()

    run(main)


def context_of(identity: Identity) -> ssl.SSLContext:
    return server_context(identity.certificate, identity.key)


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
def test_what_cannot_be_used_together_is_refused(
    certificate: bytes, key: bytes, field: str
) -> None:
    before = open_descriptors()
    with pytest.raises(Invalid) as refusal:
        server_context(certificate, key)
    assert refusal.value.field == field
    assert not any(line in str(refusal.value) for line in key.decode().splitlines()[1:-1])
    assert open_descriptors() == before


def test_what_openssl_would_not_serve_with_is_refused_by_its_own_word() -> None:
    chain = IDENTITY.certificate + of_rsa(1024).certificate
    with pytest.raises(Invalid, match=r"OpenSSL does not serve with it \(CA_KEY_TOO_SMALL\)"):
        server_context(chain, IDENTITY.key)


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


# What clients would say


ROOT = a_root()
PAST, FAR = datetime(2021, 1, 1, tzinfo=UTC), datetime(2119, 1, 1, tzinfo=UTC)


def play(one: Certified, *roots: Certified, host: str = "west.example") -> None:
    ca_pem = b"".join(root.pem for root in roots or (ROOT,))
    rehearse(one.pem + one.chain, one.key_pem, ca_pem, host)


@pytest.mark.parametrize("kind", ["p256", "rsa", "ed25519"])
@pytest.mark.parametrize("host", ["west.example", "WEST.example", "192.0.2.1", "2001:db8::1", ""])
def test_what_clients_go_on_with_passes(kind: str, host: str) -> None:
    one = ROOT.certify("west.example", "192.0.2.1", "2001:db8::1", kind=kind)
    before = open_descriptors()
    play(one, a_root("another"), ROOT, host=host)
    assert open_descriptors() == before


def test_a_client_may_trust_an_intermediate_alone() -> None:
    middle = ROOT.certify(ca=True, name="middle")
    play(middle.certify("west.example"), middle)


MIDDLE = ROOT.certify(ca=True, name="middle")


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (ROOT.certify("east.example"), "Hostname mismatch"),
        (ROOT.certify("west.example", begin=FAR), "not yet valid"),
        (ROOT.certify("west.example", end=PAST), "has expired"),
        (ROOT.certify(ca=True, end=PAST).certify("west.example"), "has expired"),
        (ROOT.certify(name="no CA").certify("west.example"), "invalid CA certificate"),
        (a_root("another").certify("west.example"), "unable to get local issuer certificate"),
        (replace(MIDDLE.certify("west.example"), chain=b""), "unable to get local issuer"),
        (ROOT.certify("west.example", client=True), "unsuitable certificate purpose"),
    ],
    ids=["host", "early", "expired", "expired CA", "no CA", "other CA", "gap", "purpose"],
)
def test_what_clients_refuse_is_refused_by_their_word(one: Certified, why: str) -> None:
    with pytest.raises(Invalid, match=f"clients refuse it: .*{why}") as refusal:
        play(one)
    assert refusal.value.field == "certificate"


@pytest.mark.parametrize("host", ["a" * 70 + ".example", ".example", "a..example"])
def test_a_host_that_cannot_be_is_refused(host: str) -> None:
    with pytest.raises(Invalid, match="host"):
        play(ROOT.certify("west.example"), host=host)


def test_who_is_to_be_trusted_has_to_be_readable() -> None:
    one = ROOT.certify("west.example")
    for ca_pem in (b"", b"\xff", b"none"):
        with pytest.raises(Invalid) as refusal:
            rehearse(one.pem, one.key_pem, ca_pem, "west.example")
        assert refusal.value.field == "ca"
