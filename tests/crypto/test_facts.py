import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from app.crypto.certificates import moment
from app.crypto.facts import facts, verify_issued_by
from app.crypto.issuers import Issuer
from app.crypto.keys import PrivateKey, generate, pair_of
from app.crypto.mint import mint_client
from app.crypto.server_certificates import create_server_certificate
from app.domain.certificates import CertificateFacts, KeyType
from app.errors import Invalid
from tests.crypto.conftest import NOW, YEAR, authority, odd_certificate

SERIAL_RANDOM = bytes(range(16))


def test_the_facts_of_a_server_certificate(keys: dict[str, PrivateKey], issuer: Issuer) -> None:
    pem = create_server_certificate(
        issuer,
        hosts=["west.example.com", "10.0.0.7", "::1"],
        key=keys["p256"],
        serial_random=SERIAL_RANDOM,
        now=NOW,
        lifetime_seconds=100,
    )
    assert facts(pem + issuer.certificate_pem) == CertificateFacts(
        subject="CN=west.example.com",
        issuer="CN=site ca",
        serial=f"{NOW:08x}0405060708090a0b0c0d0e0f",
        fingerprint=x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex(),
        not_before=NOW - 60,
        not_after=NOW + 99,
        key="EC P-256",
        hosts=("west.example.com", "10.0.0.7", "::1"),
    )


def test_the_facts_agree_with_what_was_minted(keys: dict[str, PrivateKey], issuer: Issuer) -> None:
    minted = mint_client(
        issuer,
        key=pair_of(keys["ed25519"]),
        common_name="a+b, c",
        random=SERIAL_RANDOM,
        now=NOW,
        lifetime_seconds=100,
    )
    told = facts(minted.certificate_pem)
    assert (told.serial, told.fingerprint) == (minted.serial, minted.fingerprint)
    assert (told.not_before, told.not_after) == (minted.not_before, minted.not_after)
    assert told.subject == r"CN=a\+b\, c"
    assert told.hosts == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rsa-2048", "RSA 2048"),
        ("rsa-3072", "RSA 3072"),
        ("p256", "EC P-256"),
        ("p384", "EC P-384"),
        ("p521", "EC P-521"),
        ("ed25519", "Ed25519"),
    ],
)
def test_keys_are_called_by_kind_and_size(
    keys: dict[str, PrivateKey], name: str, text: str
) -> None:
    assert facts(authority(keys[name]).certificate_pem).key == text


def certified(key: ec.EllipticCurvePublicKey | ed448.Ed448PublicKey, signer: PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder(name, name, key, 1, moment(NOW), moment(NOW + YEAR))
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_keys_of_kinds_that_are_not_ours_are_told_apart(keys: dict[str, PrivateKey]) -> None:
    foreign_curve = ec.generate_private_key(ec.SECP256K1()).public_key()
    assert facts(certified(foreign_curve, keys["p256"])).key == "EC secp256k1"
    foreign_kind = ed448.Ed448PrivateKey.generate().public_key()
    assert facts(certified(foreign_kind, keys["p256"])).key == "unknown (1.3.101.113)"
    # An object identifier that the library does not know: one arc beside Ed448's.
    pem = certified(foreign_kind, keys["p256"])
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    assert der.count(b"\x06\x03\x2b\x65\x71") == 1
    unknown = ssl.DER_cert_to_PEM_cert(
        der.replace(b"\x06\x03\x2b\x65\x71", b"\x06\x03\x2b\x65\x7f")
    )
    assert facts(unknown.encode()).key == "unknown (1.3.101.127)"


def test_hosts_are_told_once_and_empty_ones_never(keys: dict[str, PrivateKey]) -> None:
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName(""),
            x509.DNSName("b.example"),
            x509.DNSName("a.example"),
            x509.DNSName("b.example"),
            x509.RFC822Name("someone@example.com"),
        ]
    )
    pem = odd_certificate(keys["p256"], extensions=((names, False),)).pem
    assert facts(pem).hosts == ("b.example", "a.example")


def test_a_leaf_verifies_under_any_certificate_of_the_bundle_that_signed_it(
    keys: dict[str, PrivateKey],
) -> None:
    root = odd_certificate(keys["p384"], name="root")
    between = odd_certificate(keys["rsa-2048"], name="between", by=root)
    leaf = odd_certificate(keys["p256"], name="leaf", by=between, extensions=())
    verify_issued_by(leaf.pem, between.pem)
    verify_issued_by(leaf.pem + between.pem, root.pem + between.pem)
    with pytest.raises(Invalid, match="not issued by the given CA"):
        verify_issued_by(leaf.pem, root.pem)


def test_the_same_name_with_another_key_did_not_issue_it(keys: dict[str, PrivateKey]) -> None:
    ca = odd_certificate(keys["p256"], name="ca")
    leaf = odd_certificate(keys["p384"], name="leaf", by=ca, extensions=())
    impostor = odd_certificate(generate(KeyType.P256), name="ca")
    with pytest.raises(Invalid):
        verify_issued_by(leaf.pem, impostor.pem)


@pytest.fixture(scope="module")
def der(keys: dict[str, PrivateKey]) -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName("a.example")])
    signer = odd_certificate(keys["p256"], extensions=((names, False),))
    return signer.certificate.public_bytes(serialization.Encoding.DER)


@pytest.mark.filterwarnings("ignore:Attribute's length")
@given(data=st.data())
@settings(deadline=None)
def test_no_damage_to_a_certificate_raises_anything_but_invalid(
    der: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(der)
    start = data.draw(st.integers(0, len(der)))
    value = data.draw(st.binary(max_size=6))
    damaged[start : start + len(value)] = value
    try:
        facts(ssl.DER_cert_to_PEM_cert(bytes(damaged)).encode())
    except Invalid as error:
        assert error.field == "certificate"  # noqa: PT017
