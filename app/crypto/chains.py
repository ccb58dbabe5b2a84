"""Chains that somebody else made: do they fit their key, and those who are to trust them.

Names and signatures are compared. Dates, usages and hosts are judged elsewhere, and in the end by
the clients.
"""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from app.crypto.certificates import decoding, is_issued_by, load_certificates
from app.crypto.keys import load_private_key
from app.errors import Invalid


def check_pair(certificate_pem: bytes, key_pem: bytes) -> None:
    """Make sure that the first certificate is of this key.

    Raises Invalid("certificate" or "key", …).
    """
    leaf = load_certificates(certificate_pem)[0]
    key = load_private_key(key_pem)
    with decoding():
        fits = _public(leaf) == key.public_key()
    if not fits:
        raise Invalid("key", "it is not the key of the first certificate")


def check_chain(certificate_pem: bytes, ca_pem: bytes) -> None:
    """Make sure that the first certificate leads, by way of the others, to one in `ca_pem`.

    A client that trusts an intermediate alone is content with that, and so is this. Raises
    Invalid("certificate" or "ca", …).
    """
    leaf, *others = load_certificates(certificate_pem)
    trusted = _authorities(ca_pem)
    reached = [leaf]
    while reached:
        one = reached.pop()
        if any(one == ca or is_issued_by(one, ca) for ca in trusted):
            return
        above = [other for other in others if is_issued_by(one, other)]
        others = [other for other in others if other not in above]
        reached += above
    raise Invalid("certificate", "the CA that tokens carry does not vouch for it")


def anchor(certificate_pem: bytes) -> bytes:
    """Give the self-signed certificate (PEM) that a chain ends with: whom its clients trust.

    Raises Invalid("certificate", …), and Invalid("ca", …) when the chain ends with another one.
    An intermediate would do for most clients, but who renews a certificate may well get it from
    another intermediate, and tokens that are out could not be redeemed any more.
    """
    last = load_certificates(certificate_pem)[-1]
    if not is_issued_by(last, last):
        raise Invalid("ca", "the chain ends without a self-signed certificate")
    return last.public_bytes(serialization.Encoding.PEM)


def bare(ca_pem: bytes) -> bytes:
    """Give the certificates of a bundle without the text between them, which may be anything.

    Raises Invalid("ca", …).
    """
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in _authorities(ca_pem))


def _authorities(ca_pem: bytes) -> list[x509.Certificate]:
    try:
        return load_certificates(ca_pem)
    except Invalid as error:
        raise Invalid("ca", error.why) from error


def _public(certificate: x509.Certificate) -> object:
    """Give its public key; that of a kind which nobody reads is equal to none of ours."""
    try:
        return certificate.public_key()
    except UnsupportedAlgorithm:
        return None
