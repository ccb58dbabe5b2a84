"""What must hold of every key and certificate that is imported: taken, or Invalid, and soon."""

import base64
import contextlib
import re
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address
from random import Random
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import (
    dh,
    dsa,
    ec,
    ed448,
    ed25519,
    padding,
    rsa,
    x25519,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from hypothesis import strategies as st

from app.crypto.certificates import load_certificates
from app.crypto.facts import facts, verify_issued_by
from app.crypto.issuers import load_issuer
from app.crypto.keys import load_private_key, to_pem
from app.errors import Invalid
from fuzz.mutations import Damaged

_IN_PEM: Final = 0.4
MOST_CPU_SECONDS: Final = 30.0
"""The largest key that is accepted takes some ten."""

DER_WORDS: Final = (
    *(b"\x30\x80", b"\x02\x01\x00", b"\x02\x01\xff", b"\x05\x00", b"\x30\x00", b"\x31\x00"),
    *(b"\x30\x84\xff\xff\xff\xff", b"\x30\x83\x01\x00\x00", b"\x02\x00", b"\x80", b"\x7f", b"\x00"),
    *(b"\x04\x82\xff\xff", b"\x03\x01\x00", b"\x03\x02\x07\x00", b"\xff\xff\xff\xff", b"\x01\x01"),
    bytes.fromhex("06072a8648ce3d0201"),  # id-ecPublicKey
    bytes.fromhex("06082a8648ce3d030107"),  # P-256
    bytes.fromhex("06052b81040022"),  # P-384
    bytes.fromhex("06092a864886f70d010101"),  # rsaEncryption
    bytes.fromhex("06092a864886f70d01010a"),  # RSASSA-PSS
    bytes.fromhex("06072a8648ce380401"),  # DSA
    bytes.fromhex("06092a864886f70d010301"),  # DH
    bytes.fromhex("06032b6570"),  # Ed25519
    bytes.fromhex("06032b656e"),  # X25519
    bytes.fromhex("0603551d11"),  # subjectAltName
    bytes.fromhex("0603551d0e"),  # subjectKeyIdentifier
    bytes.fromhex("170d3939313233313233353935395a"),  # a UTCTime
    bytes.fromhex("180f39393939313233313233353935395a"),  # a GeneralizedTime
)
PEM_WORDS: Final = (
    *(b"-----BEGIN PRIVATE KEY-----\n", b"-----END PRIVATE KEY-----\n", b"-----BEGIN ", b"-----"),
    *(b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"RSA ", b"EC ", b"DSA "),
    *(b"-----BEGIN EC PARAMETERS-----\n", b"ENCRYPTED ", b"Proc-Type: 4,ENCRYPTED\n", b"OPENSSH "),
    *(
        b"DEK-Info: AES-128-CBC,00\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"=",
        b"====",
        b"A" * 70,
        b" ",
        b"\x00",
    ),
    *(b"TRUSTED ", b"X509 CRL", b"\xff", b"\xef\xbb\xbf", b"MII", b"!"),
)
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_END: Final = datetime(2046, 1, 1, tzinfo=UTC)


@cache
def private_keys() -> dict[str, Any]:
    """Make a key of every kind that the library knows, those that are refused among them."""
    return {
        "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "rsa-1024": rsa.generate_private_key(public_exponent=65537, key_size=1024),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "p521": ec.generate_private_key(ec.SECP521R1()),
        "k256": ec.generate_private_key(ec.SECP256K1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "ed448": ed448.Ed448PrivateKey.generate(),
        "x25519": x25519.X25519PrivateKey.generate(),
        "dsa": dsa.generate_private_key(1024),
        "dh": _dh_key(),
    }


def _dh_key() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is on its way out of the library
        return dh.generate_parameters(2, 512).generate_private_key()


@cache
def key_ders() -> tuple[tuple[str, bytes], ...]:
    """Write each key in each of its forms, with the label of its PEM."""
    found = []
    for key in private_keys().values():
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            with contextlib.suppress(ValueError, TypeError):
                pem = key.private_bytes(Encoding.PEM, form, NoEncryption())
                found.append(_taken_apart(pem))
    encrypted = private_keys()["p256"].private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    found.append(_taken_apart(encrypted))
    found.append(
        _taken_apart(
            private_keys()["p256"]
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
    )
    return tuple(found)


@cache
def certificate_ders() -> tuple[bytes, ...]:
    """Make a CA of every kind of key, with every kind of extension, and leaves below one."""
    usual: list[x509.ExtensionType] = [x509.BasicConstraints(ca=True, path_length=1)]
    many: list[x509.ExtensionType] = [
        *usual,
        x509.KeyUsage(
            digital_signature=True,
            key_encipherment=False,
            content_commitment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        ),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
        x509.SubjectKeyIdentifier(b"identifier"),
        x509.AuthorityKeyIdentifier(b"identifier", [x509.DNSName("a")], 1),
        x509.SubjectAlternativeName(
            [
                x509.DNSName("a.example"),
                x509.IPAddress(ip_address("::1")),
                x509.RFC822Name("a@b.example"),
                x509.UniformResourceIdentifier("https://a.example"),
                x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
                x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x01a"),
                x509.DirectoryName(_name("other")),
            ]
        ),
        x509.NameConstraints([x509.DNSName("example")], None),
        x509.CRLDistributionPoints(
            [x509.DistributionPoint([x509.UniformResourceIdentifier("http://a")], None, None, None)]
        ),
        x509.AuthorityInformationAccess(
            [
                x509.AccessDescription(
                    AuthorityInformationAccessOID.OCSP,
                    x509.UniformResourceIdentifier("http://a"),
                )
            ]
        ),
        x509.CertificatePolicies(
            [x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), ["https://a.example"])]
        ),
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ]
    keys = private_keys()
    signer = keys["p256"]
    made = [_certificate(signer, signer, many), _certificate(signer, signer, usual)]
    kinds = ("rsa", "p384", "p521", "k256", "ed25519", "ed448", "dsa")
    made += [_certificate(keys[kind], keys[kind], usual) for kind in kinds]
    made.append(_certificate(keys["x25519"], signer, []))
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    made.append(_certificate(keys["rsa"], keys["rsa"], usual, rsa_padding=pss))
    return tuple(made)


def _certificate(
    key: Any, signer: Any, extensions: Sequence[x509.ExtensionType], **options: Any
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("some ca"))
        .issuer_name(_name("some ca"))
        .public_key(key.public_key())
        .serial_number(11)
        .not_valid_before(_START)
        .not_valid_after(_END)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    own = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    made = builder.sign(signer, None if own else hashes.SHA256(), **options)
    return made.public_bytes(Encoding.DER)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def pem(label: str, der: bytes) -> bytes:
    """Write a PEM block."""
    lines = re.findall(".{1,64}", base64.b64encode(der).decode("ascii"))
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _taken_apart(block: bytes) -> tuple[str, bytes]:
    first, *lines, _ = block.decode("ascii").strip().splitlines()
    return first.strip("-").removeprefix("BEGIN "), base64.b64decode("".join(lines))


class DamagedBlocks:
    """Keys or certificates, damaged in their DER or in their PEM."""

    def __init__(self, ders: Sequence[tuple[str, bytes]], bundles: Sequence[bytes] = ()) -> None:
        self._labels = {der: label for label, der in ders}
        self._ders = [Damaged(originals=[der], words=DER_WORDS) for _, der in ders]
        blocks = [pem(label, der) for label, der in ders]
        self._pem = Damaged(originals=[*blocks, *bundles], words=PEM_WORDS)

    def draw(self, random: Random) -> bytes:
        """Make one."""
        if random.random() < _IN_PEM:
            return self._pem.draw(random)
        inside = random.choice(self._ders)
        return self._framed(inside, inside.draw(random))

    def strategy(self) -> st.SearchStrategy[bytes]:
        """Give the same to hypothesis."""
        inside = st.sampled_from(self._ders).flatmap(
            lambda one: one.strategy().map(lambda der: self._framed(one, der))
        )
        return inside | self._pem.strategy()

    def _framed(self, damaged: Damaged, der: bytes) -> bytes:
        return pem(self._labels[damaged.originals[0]], der)


def damaged_keys() -> DamagedBlocks:
    """Damage keys of every kind."""
    return DamagedBlocks(key_ders())


def damaged_certificates() -> DamagedBlocks:
    """Damage certificates of every kind, and bundles."""
    first, second = (pem("CERTIFICATE", der) for der in certificate_ders()[:2])
    blocks = [("CERTIFICATE", der) for der in certificate_ders()]
    return DamagedBlocks(blocks, [first + second, b"some text\n" + second])


def check_key(content: bytes) -> None:
    """Only Invalid comes out, soon, and shows nothing of the key; or a key that can be used."""

    def load() -> None:
        key = load_private_key(content)
        assert load_private_key(to_pem(key)).public_key() == key.public_key()

    _soon("key", content, load)


def check_certificates(content: bytes) -> None:
    """Only Invalid comes out, soon; or certificates that can be asked and compared."""
    own = pem("CERTIFICATE", certificate_ders()[1])
    key_pem = to_pem(private_keys()["p256"])
    for attempt in (
        lambda: load_certificates(content),
        lambda: facts(content),
        lambda: verify_issued_by(content, own),
        lambda: verify_issued_by(own, content),
        lambda: load_issuer(content, key_pem),
        lambda: load_issuer(own + content, key_pem),
    ):
        _soon("certificate", content, attempt)


def _soon(field: str, content: bytes, attempt: Callable[[], object]) -> None:
    began = time.thread_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in production; the suite makes them errors
            attempt()
    except Invalid as refused:
        assert refused.field in {field, "key"}
        if field == "key":
            told = traceback.format_exception(refused)
            _check_silence(content, "".join(told))
    taken = time.thread_time() - began
    assert taken < MOST_CPU_SECONDS, f"it took {taken:.1f} s of CPU"


def _check_silence(content: bytes, told: str) -> None:
    """Nothing of the input may be told; twelve characters of base64 come together by no chance."""
    for line in content.splitlines():
        if not line.startswith(b"-----"):
            for start in range(0, len(line) - 11, 6):
                assert line[start : start + 12].decode("latin-1") not in told
