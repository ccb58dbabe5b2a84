from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from app.crypto.certificates import moment, name_of
from app.crypto.der import extension, extensions, key_identifier, name, signed_leaf
from app.crypto.issuers import Issuer
from app.crypto.keys import PrivateKey, to_public_der
from app.crypto.leaves import leaf_extensions
from app.crypto.mint import prepare
from app.errors import Broken
from tests.crypto.conftest import KEY_NAMES, NOW, YEAR, authority

CENTURY = 100 * YEAR
CLIENT_ONLY: x509.Extension[x509.ExtensionType] = x509.Extension(
    x509.ExtendedKeyUsage.oid,
    critical=False,
    value=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
)


def by_the_library(issuer: Issuer, order: dict[str, Any]) -> x509.Certificate:
    return x509.CertificateBuilder(
        issuer_name=issuer.name,
        subject_name=name_of(order["common_name"], field="subject"),
        public_key=order["public_key"],
        serial_number=order["serial"],
        not_valid_before=moment(order["not_before"]),
        not_valid_after=moment(order["not_after"]),
        extensions=list(order["extensions"]),
    ).sign(issuer.key, issuer.signature_hash)


def order(issuer: Issuer, key: PrivateKey, **changes: object) -> dict[str, Any]:
    prepared = prepare(
        issuer,
        common_name="east",
        public_key=key.public_key(),
        public_key_der=to_public_der(key.public_key()),
        random=bytes(range(16)),
        now=NOW,
        lifetime_seconds=YEAR,
    )
    return {
        "common_name": "east",
        "public_key": prepared.public_key,
        "serial": prepared.serial,
        "not_before": prepared.not_before,
        "not_after": prepared.not_after,
        "extensions": leaf_extensions(issuer, prepared.public_key, CLIENT_ONLY),
    } | changes


def written(issuer: Issuer, ordered: dict[str, Any]) -> bytes:
    public_key_der = to_public_der(ordered["public_key"])
    *shared, own = ordered["extensions"]
    return signed_leaf(
        issuer,
        serial=ordered["serial"],
        not_before=ordered["not_before"],
        not_after=ordered["not_after"],
        subject_der=name(ordered["common_name"]),
        public_key_der=public_key_der,
        extensions_der=extensions(b"".join(map(extension, shared)), own.value.digest),
    )


def same_but_for_the_signature(issuer: Issuer, ordered: dict[str, Any]) -> None:
    ours = written(issuer, ordered)
    read = x509.load_der_x509_certificate(ours)
    theirs = by_the_library(issuer, ordered)
    assert read.tbs_certificate_bytes == theirs.tbs_certificate_bytes
    assert read.signature_algorithm_oid == theirs.signature_algorithm_oid
    assert read.public_bytes(serialization.Encoding.DER) == ours
    read.verify_directly_issued_by(issuer.certificate)


@pytest.mark.parametrize("leaf_key", KEY_NAMES)
@pytest.mark.parametrize("ca_key", KEY_NAMES)
def test_what_is_written_is_what_the_library_would_write(
    keys: dict[str, PrivateKey], ca_key: str, leaf_key: str
) -> None:
    issuer = authority(keys[ca_key])
    same_but_for_the_signature(issuer, order(issuer, keys[leaf_key]))


@given(
    serial=st.integers(min_value=1, max_value=2**128 - 1),
    common_name=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1).filter(
        lambda text: len(text.encode()) <= 64
    ),
    beginning=st.integers(min_value=0, max_value=NOW + CENTURY),
    lifetime=st.integers(min_value=0, max_value=CENTURY),
)
@settings(max_examples=150)
def test_every_serial_name_and_time_is_written_as_the_library_would(
    keys: dict[str, PrivateKey],
    issuer: Issuer,
    serial: int,
    common_name: str,
    beginning: int,
    lifetime: int,
) -> None:
    same_but_for_the_signature(
        issuer,
        order(
            issuer,
            keys["p256"],
            serial=serial,
            common_name=common_name,
            not_before=beginning,
            not_after=beginning + lifetime,
        ),
    )


def test_the_form_of_a_time_changes_with_the_year_2050(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    first_of_2050 = 2_524_608_000
    for not_after in (first_of_2050 - 1, first_of_2050):
        same_but_for_the_signature(issuer, order(issuer, keys["p256"], not_after=not_after))


@pytest.mark.parametrize("name", KEY_NAMES)
def test_a_key_is_identified_as_the_library_does(keys: dict[str, PrivateKey], name: str) -> None:
    public_key = keys[name].public_key()
    encoded = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    theirs = x509.SubjectKeyIdentifier.from_public_key(public_key)
    assert key_identifier(encoded) == theirs.digest


@pytest.mark.parametrize("arcs", ["1.2.3.4", "2.5.29.1.2"])
def test_an_extension_of_another_branch_is_not_written_wrongly(arcs: str) -> None:
    oid = ObjectIdentifier(arcs)
    foreign = x509.Extension(
        oid, critical=False, value=x509.UnrecognizedExtension(oid, b"\x05\x00")
    )
    with pytest.raises(Broken):
        extension(foreign)
