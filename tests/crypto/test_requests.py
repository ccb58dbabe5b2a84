import hashlib
from math import gcd

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from app.crypto.keys import PrivateKey, to_pem
from app.crypto.requests import (
    LONGEST_REQUEST_BYTES,
    check_renewal,
    make_request,
    read_request,
    sign_renewal,
)
from app.errors import Invalid, Reason, Refused
from tests.strangers import Issuer

EC = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, PrivateKey] = {
    "P-256": EC,
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(65537, 2048),
}
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "east")])


def a_request(key: PrivateKey) -> bytes:
    return make_request(to_pem(key), "east")


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_of_a_request_the_key_is_taken(key: PrivateKey) -> None:
    found = read_request(a_request(key))
    assert found.public_key == key.public_key()
    assert found.public_der == key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert found.hash == hashlib.sha256(found.public_der).digest()


def test_whoever_asks_has_to_have_the_key() -> None:
    der = bytearray(a_request(EC))
    for at in (len(der) - 1, len(der) - 20, der.index(b"east")):
        broken = bytearray(der)
        broken[at] ^= 1
        with pytest.raises(Invalid) as caught:
            read_request(bytes(broken))
        assert caught.value.field == "csr"


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),
        dsa.generate_private_key(1024),
    ],
    ids=["P-521", "K-256", "RSA-1024", "DSA"],
)
def test_keys_of_another_kind_are_refused(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey,
) -> None:
    builder = x509.CertificateSigningRequestBuilder(NAME)
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    with pytest.raises(Invalid, match=r"accepted are|expected"):
        read_request(der)


def test_a_key_that_makes_every_check_long_is_refused() -> None:
    """A public exponent as long as the modulus; nobody has a key like that by chance."""
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.private_numbers()
    order = (numbers.p - 1) * (numbers.q - 1)
    exponent = (1 << 40) + 15
    while gcd(exponent, order) != 1:
        exponent += 2
    private = pow(exponent, -1, order)
    odd = rsa.RSAPrivateNumbers(
        p=numbers.p,
        q=numbers.q,
        d=private,
        dmp1=private % (numbers.p - 1),
        dmq1=private % (numbers.q - 1),
        iqmp=numbers.iqmp,
        public_numbers=rsa.RSAPublicNumbers(exponent, numbers.public_numbers.n),
    ).private_key()
    builder = x509.CertificateSigningRequestBuilder(NAME)
    der = builder.sign(odd, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    with pytest.raises(Invalid, match="exponent"):
        read_request(der)


def test_an_endless_request_is_not_read() -> None:
    with pytest.raises(Invalid, match="longer"):
        read_request(bytes(LONGEST_REQUEST_BYTES + 1))


@pytest.mark.parametrize("common_name", ["", "x" * 65])
def test_a_request_names_whoever_asks(common_name: str) -> None:
    with pytest.raises(Invalid, match="common name"):
        make_request(to_pem(EC), common_name)


def test_a_request_is_made_with_a_key() -> None:
    with pytest.raises(Invalid, match="key: "):
        make_request(b"", "east")
    with pytest.raises(Invalid, match="key: "):
        sign_renewal(b"", b"")


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_whoever_has_the_old_key_may_renew(key: PrivateKey) -> None:
    certificate = Issuer().certificate(key.public_key())
    request = a_request(OTHER)
    signature = sign_renewal(to_pem(key), request)
    check_renewal(certificate, request, signature)
    for odd in (
        (certificate, a_request(OTHER), signature),
        (certificate, request, signature[:-1] + bytes([signature[-1] ^ 1])),
        (certificate, request, b""),
        (certificate, request, sign_renewal(to_pem(OTHER), request)),
        (Issuer().certificate(OTHER.public_key()), request, signature),
        (b"none", request, signature),
    ):
        with pytest.raises(Refused) as caught:
            check_renewal(*odd)
        assert caught.value.reason is Reason.RENEWAL


def test_a_signature_for_anything_else_does_not_renew() -> None:
    """That over the request alone is in every request, for one."""
    certificate = Issuer().certificate(EC.public_key())
    request = a_request(EC)
    with pytest.raises(Refused):
        check_renewal(certificate, request, EC.sign(request, ec.ECDSA(hashes.SHA256())))


def test_a_certificate_with_a_key_of_another_kind_renews_nothing() -> None:
    key = dsa.generate_private_key(1024)
    certificate = Issuer().certificate(key.public_key())
    with pytest.raises(Refused):
        check_renewal(certificate, b"", key.sign(b"grantserver renew 1\0", hashes.SHA256()))


@given(st.binary(max_size=300), st.binary(max_size=80))
def test_no_bytes_whatever_lead_to_another_error(noise: bytes, signature: bytes) -> None:
    with pytest.raises(Invalid):
        read_request(noise)
    with pytest.raises(Refused):
        check_renewal(noise, noise, signature)


REQUEST = a_request(EC)


@given(
    st.dictionaries(st.integers(0, len(REQUEST) - 1), st.integers(1, 255), min_size=1, max_size=3)
)
def test_no_damaged_request_leads_to_another_error(damage: dict[int, int]) -> None:
    der = bytearray(REQUEST)
    for at, by in damage.items():
        der[at] ^= by
    try:
        found = read_request(bytes(der))
    except Invalid:
        return
    # The frame of the signature says the same in two ways where its last bit is a zero.
    assert found == read_request(REQUEST)
