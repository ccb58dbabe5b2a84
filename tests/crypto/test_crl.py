import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from app.crypto import crl, issuers, keys
from app.crypto.crl import Entry
from app.crypto.issuers import Issuer
from app.domain.certificates import KeyType
from app.errors import Conflict
from tests.builders import NOW

DAY = 86_400


def an_issuer(key_type: KeyType = KeyType.P256) -> Issuer:
    key = keys.generate(key_type)
    certificate = issuers.create_authority(
        common_name="site-ca", key=key, serial=7, not_before=NOW, not_after=NOW + 10 * DAY
    )
    return issuers.load_issuer(certificate, keys.to_pem(key))


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize("key_type", KeyType)
def test_a_list_says_what_it_was_given_and_its_issuer_has_signed_it(key_type: KeyType) -> None:
    issuer = an_issuer(key_type)
    entries = [
        Entry(serial="0a" * 16, at=NOW + 5, superseded=False),
        Entry(serial="0b" * 16, at=NOW + 9, superseded=True),
    ]
    der = crl.make_list(issuer, entries, number=NOW, now=NOW + 10, lifetime_seconds=DAY)
    made = x509.load_der_x509_crl(der)
    assert made.issuer == issuer.name
    assert made.is_signature_valid(issuer.key.public_key())
    assert made.last_update_utc == moment(NOW + 10 - crl.BACKDATE_SECONDS)
    assert made.next_update_utc == moment(NOW + 10 + DAY)
    assert made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == NOW
    named = made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert named.value == issuer.authority_key_identifier.value
    assert not named.critical
    told = [
        (
            f"{one.serial_number:032x}",
            one.revocation_date_utc,
            one.extensions.get_extension_for_class(x509.CRLReason).value.reason,
        )
        for one in made
    ]
    assert told == [
        ("0a" * 16, moment(NOW + 5), x509.ReasonFlags.privilege_withdrawn),
        ("0b" * 16, moment(NOW + 9), x509.ReasonFlags.superseded),
    ]
    assert x509.load_pem_x509_crl(crl.to_pem(der)) == made


def test_openssl_reads_an_empty_one_and_verifies_it(tmp_path: Path) -> None:
    issuer = an_issuer()
    der = crl.make_list(issuer, [], number=1, now=NOW, lifetime_seconds=DAY)
    (tmp_path / "ca.pem").write_bytes(issuer.certificate_pem)
    (tmp_path / "list.pem").write_bytes(crl.to_pem(der))
    done = subprocess.run(
        ["openssl", "crl", "-in", "list.pem", "-CAfile", "ca.pem", "-noout", "-text"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "verify OK" in done.stderr
    assert "Version 2" in done.stdout
    assert "No Revoked Certificates" in done.stdout


def test_one_that_may_sign_certificates_only_signs_no_list() -> None:
    key = keys.generate(KeyType.P256)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "narrow")])
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "crl_sign", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(9)
        .not_valid_before(moment(NOW))
        .not_valid_after(moment(NOW + DAY))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, **usage), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    issuer = issuers.load_issuer(pem, keys.to_pem(key))
    with pytest.raises(Conflict, match="lacks cRLSign"):
        crl.make_list(issuer, [], number=1, now=NOW, lifetime_seconds=DAY)
