import shutil
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given, settings
from hypothesis import strategies as st

from app.crypto import der
from app.crypto.certificates import moment
from app.crypto.issuers import Issuer, load_issuer
from app.crypto.keys import PrivateKey, generate, load_private_key, pair_of, to_pem, to_public_der
from app.crypto.mint import LeafOrder, inspect, inspect_next, mint_client, prepare, sign
from app.domain.certificates import KeyType, Minted
from app.errors import Broken, Invalid, Lack, Unready
from tests.crypto.conftest import KEY_NAMES, NOW, YEAR, authority, odd_certificate

SUBJECT = "4f6c1c1e-7b0e-4a44-9c3d-1b2a3c4d5e6f"
RANDOM = bytes(range(0xF0, 0x100))
SERIAL = NOW.to_bytes(4, "big") + RANDOM[4:]


def order_for(issuer: Issuer, key: PrivateKey, *, common_name: str = SUBJECT) -> LeafOrder:
    return prepare(
        issuer,
        common_name=common_name,
        public_key=key.public_key(),
        public_key_der=to_public_der(key.public_key()),
        random=RANDOM,
        now=NOW,
        lifetime_seconds=YEAR,
    )


def mint(issuer: Issuer, key: PrivateKey) -> Minted:
    return mint_client(
        issuer, key=pair_of(key), common_name=SUBJECT, random=RANDOM, now=NOW, lifetime_seconds=YEAR
    )


def leaf_of(minted: Minted) -> x509.Certificate:
    (leaf,) = x509.load_pem_x509_certificates(minted.certificate_pem)
    return leaf


def test_an_order_says_what_was_asked_for(keys: dict[str, PrivateKey], issuer: Issuer) -> None:
    order = order_for(issuer, keys["p384"])
    assert order.common_name == SUBJECT
    assert order.public_key == keys["p384"].public_key()
    assert order.serial == int.from_bytes(SERIAL, "big")
    assert (order.not_before, order.not_after) == (NOW - 60, NOW + YEAR - 1)


def test_nothing_is_ordered_from_an_expired_issuer(keys: dict[str, PrivateKey]) -> None:
    expired = authority(keys["p256"], not_before=NOW - 10, not_after=NOW - 1)
    with pytest.raises(Unready) as caught:
        order_for(expired, keys["p256"])
    assert caught.value.lack is Lack.ISSUER


@pytest.mark.parametrize("name", KEY_NAMES)
def test_a_client_certificate_says_this_and_nothing_else(
    keys: dict[str, PrivateKey], issuer: Issuer, name: str
) -> None:
    leaf = leaf_of(mint(issuer, keys[name]))
    assert leaf.version is x509.Version.v3
    assert leaf.subject.rfc4514_string() == f"CN={SUBJECT}"
    assert leaf.issuer == issuer.certificate.subject
    assert leaf.public_key() == keys[name].public_key()
    constraints, usage, extended, authority_key, subject_key = leaf.extensions
    assert (constraints.critical, constraints.value) == (
        True,
        x509.BasicConstraints(ca=False, path_length=None),
    )
    assert (usage.critical, usage.value) == (
        True,
        x509.KeyUsage(
            digital_signature=True,
            key_encipherment=name.startswith("rsa"),
            content_commitment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        ),
    )
    assert extended.value == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    assert authority_key.value == x509.AuthorityKeyIdentifier.from_issuer_public_key(
        issuer.key.public_key()
    )
    assert subject_key.value == x509.SubjectKeyIdentifier.from_public_key(keys[name].public_key())


def test_what_is_minted_agrees_with_its_certificate(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    minted = mint(issuer, keys["p256"])
    leaf = leaf_of(minted)
    assert minted.key_pem == to_pem(keys["p256"])
    assert load_private_key(minted.key_pem).public_key() == leaf.public_key()
    assert minted.ca_pem == issuer.certificate_pem
    assert minted.serial == SERIAL.hex() == f"{leaf.serial_number:x}"
    assert minted.fingerprint == leaf.fingerprint(hashes.SHA256()).hex()
    assert leaf.not_valid_before_utc == moment(minted.not_before)
    assert leaf.not_valid_after_utc == moment(minted.not_after)
    assert "PRIVATE" not in repr(minted)


@given(
    common_name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16),
    random=st.binary(min_size=16, max_size=16),
    now=st.integers(NOW - YEAR, NOW + 10 * YEAR),
    lifetime=st.integers(1, 20 * YEAR),
)
@settings(deadline=None)
def test_whatever_is_asked_passes_inspection(
    keys: dict[str, PrivateKey],
    issuer: Issuer,
    common_name: str,
    random: bytes,
    now: int,
    lifetime: int,
) -> None:
    minted = mint_client(
        issuer,
        key=pair_of(keys["p256"]),
        common_name=common_name,
        random=random,
        now=now,
        lifetime_seconds=lifetime,
    )
    leaf = leaf_of(minted)
    assert [attribute.value for attribute in leaf.subject] == [common_name]
    leaf.verify_directly_issued_by(issuer.certificate)


@pytest.mark.parametrize("common_name", ["", "x" * 65, "ä" * 33])
def test_a_subject_that_x509_cannot_hold_is_invalid(
    keys: dict[str, PrivateKey], issuer: Issuer, common_name: str
) -> None:
    with pytest.raises(Invalid) as caught:
        order_for(issuer, keys["p256"], common_name=common_name)
    assert caught.value.field == "subject"


def test_a_name_of_printable_characters_is_repeated_byte_by_byte(
    keys: dict[str, PrivateKey],
) -> None:
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, "old ca", _ASN1Type.PrintableString)
    ca = odd_certificate(keys["rsa-2048"], attributes=[attribute])
    leaf = leaf_of(mint(load_issuer(ca.pem, to_pem(ca.key)), keys["p256"]))
    assert leaf.issuer.public_bytes() == ca.certificate.subject.public_bytes()
    assert b"\x13\x06old ca" in leaf.tbs_certificate_bytes


def test_inspection_passes_what_was_ordered(keys: dict[str, PrivateKey], issuer: Issuer) -> None:
    for name in KEY_NAMES:
        order = order_for(issuer, keys[name])
        for look in (inspect, inspect_next):
            look(sign(issuer, order), issuer, order)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("serial number", {"serial": 5}),
        ("subject", {"subject_der": der.name("someone else")}),
        ("beginning", {"not_before": NOW}),
        ("end", {"not_after": NOW + 2 * YEAR}),
    ],
)
def test_inspection_names_the_part_that_differs(
    keys: dict[str, PrivateKey], issuer: Issuer, part: str, change: dict[str, str]
) -> None:
    order = order_for(issuer, keys["p256"])
    certificate = sign(issuer, replace(order, **change))  # type: ignore[arg-type]
    for look in (inspect, inspect_next):
        with pytest.raises(Broken, match=rf"^the {part}.* of a minted certificate"):
            look(certificate, issuer, order)


def test_inspection_finds_a_foreign_key(keys: dict[str, PrivateKey], issuer: Issuer) -> None:
    order = order_for(issuer, keys["p256"])
    for name in ("p384", "rsa-2048", "ed25519"):
        foreign = order_for(issuer, keys[name]).public_key_der
        certificate = sign(issuer, replace(order, public_key_der=foreign))
        for look in (inspect, inspect_next):
            with pytest.raises(Broken, match="public key "):
                look(certificate, issuer, order)


def test_inspection_finds_extensions_too_many_too_few_and_changed(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    order = order_for(issuer, keys["p256"])
    listed = leaf_of(mint(issuer, keys["p256"])).extensions
    san = x509.SubjectAlternativeName([x509.DNSName("site.example")])
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    ca = x509.BasicConstraints(ca=True, path_length=None)
    constraints, usage, extended, authority_key, subject_key = listed
    identifier = subject_key.value.digest
    for shared in (
        (constraints, usage, extended, authority_key, extension_of(san)),
        (constraints, usage, extended),
        (constraints, usage, extension_of(both), authority_key),
        (extension_of(ca, critical=True), usage, extended, authority_key),
        (extension_of(constraints.value), usage, extended, authority_key),
    ):
        changed = der.extensions(b"".join(map(der.extension, shared)), identifier)
        certificate = sign(issuer, replace(order, extensions_der=changed))
        for look in (inspect, inspect_next):
            with pytest.raises(Broken, match="list of extensions "):
                look(certificate, issuer, order)


def extension_of(
    value: x509.ExtensionType, *, critical: bool = False
) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical=critical, value=value)


def longer_digest(issuer: Issuer) -> Issuer:
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    return replace(
        issuer,
        signature_algorithm=bytes.fromhex("300a06082a8648ce3d040303"),  # ecdsa-with-SHA384
        sign=partial(issuer.key.sign, signature_algorithm=ec.ECDSA(hashes.SHA384())),
    )


def test_inspection_finds_another_issuer_algorithm_and_signer(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    order = order_for(issuer, keys["p256"])
    other = odd_certificate(keys["p256"], name="other")
    for look in (inspect, inspect_next):
        with pytest.raises(Broken, match=r"^the issuer "):
            look(sign(load_issuer(other.pem, to_pem(other.key)), order), issuer, order)
        with pytest.raises(Broken, match=r"^the (signature algorithm|issuer) "):
            look(sign(longer_digest(issuer), order), issuer, order)
    # The same name, the same kind of key, another key.
    stranger = replace(issuer, sign=authority(generate(KeyType.P256)).sign)
    with pytest.raises(Broken, match=r"^the signature "):
        inspect(sign(stranger, order), issuer, order)


def test_the_first_certificate_of_each_kind_is_inspected_whole(
    keys: dict[str, PrivateKey],
) -> None:
    for name in ("p256", "rsa-2048", "ed25519"):
        signer = authority(generate(KeyType.P256)).sign
        stranger = replace(authority(keys["p256"]), sign=signer)
        for _ in range(2):
            with pytest.raises(Broken, match=r"^the signature "):
                mint(stranger, keys[name])
        honest = authority(keys["p256"])
        mint(honest, keys[name])
        mint(replace(honest, sign=signer), keys[name])  # known kind: not verified again


@pytest.mark.parametrize("field", ["subject_der", "public_key_der", "extensions_der"])
def test_the_next_certificates_are_compared_with_their_orders_too(
    keys: dict[str, PrivateKey], monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    issuer = authority(keys["p256"])
    mint(issuer, keys["p256"])
    other = getattr(order_for(issuer, keys["p384"], common_name="someone else"), field)
    write = der.signed_leaf
    monkeypatch.setattr(der, "signed_leaf", lambda *a, **k: write(*a, **{**k, field: other}))
    with pytest.raises(Broken, match=r"^the subject, public key or list of extensions "):
        mint(issuer, keys["p256"])


@pytest.mark.parametrize("ca_key", KEY_NAMES)
def test_every_pair_of_issuer_and_client_key_verifies_with_the_library(
    keys: dict[str, PrivateKey], ca_key: str
) -> None:
    issuer = authority(keys[ca_key])
    verifier = (
        PolicyBuilder()
        .time(moment(NOW))
        .store(Store([issuer.certificate]))
        .extension_policies(
            ca_policy=x509.verification.ExtensionPolicy.webpki_defaults_ca(),
            # The only departure from its defaults: our client certificates have no SAN.
            ee_policy=x509.verification.ExtensionPolicy.permit_all().require_present(
                x509.ExtendedKeyUsage, x509.verification.Criticality.AGNOSTIC, None
            ),
        )
        .build_client_verifier()
    )
    for name in KEY_NAMES:
        minted = mint(issuer, keys[name])
        if {"ed25519", "p521"} & {ca_key, name}:
            leaf_of(minted).verify_directly_issued_by(issuer.certificate)  # not in its web profile
        else:
            assert len(verifier.verify(leaf_of(minted), []).chain) == 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl on the PATH")
@pytest.mark.parametrize("ca_key", KEY_NAMES)
def test_openssl_verifies_every_pair_of_issuer_and_client_key(
    keys: dict[str, PrivateKey], tmp_path: Path, ca_key: str
) -> None:
    issuer = authority(keys[ca_key])
    (tmp_path / "ca.pem").write_bytes(issuer.certificate_pem)
    for name in KEY_NAMES:
        (tmp_path / f"{name}.pem").write_bytes(mint(issuer, keys[name]).certificate_pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient"]
    command += ["-attime", str(NOW), "-CAfile", "ca.pem", *(f"{name}.pem" for name in KEY_NAMES)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.count(": OK")) == (0, len(KEY_NAMES)), run.stderr
    command[command.index("sslclient")] = "sslserver"
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode != 0, "a client certificate passes for a server"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl on the PATH")
def test_openssl_verifies_a_client_below_an_intermediate(
    keys: dict[str, PrivateKey], tmp_path: Path
) -> None:
    root = odd_certificate(keys["p384"], name="root")
    between = odd_certificate(keys["rsa-2048"], name="between", by=root)
    issuer = load_issuer(between.pem + root.pem, to_pem(between.key))
    minted = mint(issuer, keys["p256"])
    (tmp_path / "ca.pem").write_bytes(minted.ca_pem)
    (tmp_path / "leaf.pem").write_bytes(minted.certificate_pem)
    command = ["openssl", "verify", "-attime", str(NOW), "-CAfile", "ca.pem", "leaf.pem"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == "leaf.pem: OK\n", run.stderr
