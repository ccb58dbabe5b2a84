import ssl
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from app.crypto.issuers import (
    Issuer,
    create_authority,
    cross_sign,
    load_issuer,
    signs_leaves_only,
    without_text,
)
from app.crypto.keys import PrivateKey, to_pem, to_traditional_pem
from app.errors import Broken, Invalid
from tests.crypto.conftest import KEY_NAMES, NOW, YEAR, Signer, authority, odd_certificate

CA = (x509.BasicConstraints(ca=True, path_length=None), True)


def key_usage(*, key_cert_sign: bool) -> tuple[x509.ExtensionType, bool]:
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return usage, True


def refusal(certificate_pem: bytes, key: PrivateKey, *, field: str = "certificate") -> str:
    with pytest.raises(Invalid) as caught:
        load_issuer(certificate_pem, to_pem(key))
    assert caught.value.field == field
    return str(caught.value)


def test_what_is_around_certificates_is_left_out(keys: dict[str, PrivateKey]) -> None:
    first, second = (odd_certificate(keys[name]).pem for name in KEY_NAMES[:2])
    assert without_text(first + second) == first + second
    for written in (
        b"subject=a\n" + first + b"\n\n# then\n" + second + b"  the end",
        first + second.replace(b"\n", b"\r\n"),
        first + second.rstrip(),
    ):
        assert without_text(written) == first + second
    for wrong in (b"", b"garbage", first[:-40]):
        with pytest.raises(Invalid):
            without_text(wrong)


@pytest.mark.parametrize("name", KEY_NAMES)
@pytest.mark.parametrize("write", [to_pem, to_traditional_pem])
def test_every_kind_of_key_makes_an_issuer(
    keys: dict[str, PrivateKey], name: str, write: Callable[[PrivateKey], bytes]
) -> None:
    ca = odd_certificate(keys[name])
    issuer = load_issuer(ca.pem, write(keys[name]))
    assert issuer.certificate_pem == ca.pem
    assert issuer.certificate == ca.certificate
    assert issuer.key.public_key() == keys[name].public_key()
    assert issuer.fingerprint == ca.certificate.fingerprint(hashes.SHA256()).hex()
    assert (issuer.not_before, issuer.not_after) == (NOW - YEAR, NOW + YEAR)
    issuer.verify(issuer.sign(b"something"), b"something")
    with pytest.raises(InvalidSignature):
        issuer.verify(issuer.sign(b"something"), b"something else")


@pytest.mark.parametrize("name", KEY_NAMES)
def test_an_intermediate_comes_with_its_chain_word_for_word(
    keys: dict[str, PrivateKey], name: str
) -> None:
    root = odd_certificate(keys["p384"], name="root")
    between = odd_certificate(keys["p521"], name="between", by=root)
    signer = odd_certificate(keys[name], name="signer", by=between)
    bundle = b"# ours\n" + signer.pem + b"\n" + between.pem + root.pem
    issuer = load_issuer(bundle, to_pem(keys[name]))
    assert issuer.certificate_pem == bundle
    assert issuer.certificate == signer.certificate


def test_the_order_of_a_bundle_is_checked(keys: dict[str, PrivateKey]) -> None:
    root = odd_certificate(keys["p384"], name="root")
    signer = odd_certificate(keys["p256"], name="signer", by=root)
    assert "order is wrong" in refusal(root.pem + signer.pem, signer.key)
    assert "certificate 2" in refusal(root.pem + signer.pem, signer.key)


def test_a_chain_must_hold_together_and_repeat_nothing(keys: dict[str, PrivateKey]) -> None:
    root = odd_certificate(keys["p384"], name="root")
    between = odd_certificate(keys["p521"], name="between", by=root)
    signer = odd_certificate(keys["p256"], name="signer", by=between)
    impostor = odd_certificate(keys["ed25519"], name="between", by=root)
    assert "certificate 2 of the bundle has not issued certificate 1" in refusal(
        signer.pem + root.pem, signer.key
    )
    assert "certificate 2" in refusal(signer.pem + impostor.pem + root.pem, signer.key)
    assert "certificate 3 of the bundle has not issued certificate 2" in refusal(
        signer.pem + between.pem + impostor.pem, signer.key
    )
    assert "twice" in refusal(signer.pem + between.pem + root.pem + root.pem, signer.key)


def test_a_key_of_another_certificate_is_refused(keys: dict[str, PrivateKey]) -> None:
    ca = odd_certificate(keys["p256"])
    assert "does not belong" in refusal(ca.pem, keys["p384"], field="key")
    assert "does not belong" in refusal(ca.pem, keys["rsa-2048"], field="key")


@pytest.mark.parametrize("field", ["certificate", "key"])
def test_garbage_is_refused_by_the_field_it_came_in(
    keys: dict[str, PrivateKey], field: str
) -> None:
    ca = odd_certificate(keys["p256"])
    pair = {"certificate": ca.pem, "key": to_pem(ca.key)} | {field: b"garbage"}
    with pytest.raises(Invalid) as caught:
        load_issuer(pair["certificate"], pair["key"])
    assert caught.value.field == field


def test_a_key_pasted_into_the_certificate_never_gets_in(keys: dict[str, PrivateKey]) -> None:
    ca = odd_certificate(keys["p256"])
    assert "private key" in refusal(ca.pem + to_pem(ca.key), ca.key)


def test_what_is_no_ca_is_refused(keys: dict[str, PrivateKey]) -> None:
    key = keys["p256"]
    leaf = (x509.BasicConstraints(ca=False, path_length=None), True)
    assert "no CA certificate" in refusal(odd_certificate(key, extensions=()).pem, key)
    assert "no CA certificate" in refusal(odd_certificate(key, extensions=(leaf,)).pem, key)


def test_a_ca_whose_key_usage_forbids_signing_is_refused(keys: dict[str, PrivateKey]) -> None:
    key = keys["p256"]
    forbidden = odd_certificate(key, extensions=(CA, key_usage(key_cert_sign=False)))
    allowed = odd_certificate(key, extensions=(CA, key_usage(key_cert_sign=True)))
    assert "keyCertSign" in refusal(forbidden.pem, key)
    assert load_issuer(allowed.pem, to_pem(key)).certificate == allowed.certificate


def test_a_ca_with_an_empty_dns_name_as_skupper_made_them_is_read(
    keys: dict[str, PrivateKey],
) -> None:
    names = (x509.SubjectAlternativeName([x509.DNSName("")]), False)
    ca = odd_certificate(keys["rsa-2048"], extensions=(CA, names))
    assert load_issuer(ca.pem, to_traditional_pem(ca.key)).certificate == ca.certificate


def test_the_issuer_is_named_by_its_own_identifier_or_else_by_the_hash_of_its_key(
    keys: dict[str, PrivateKey],
) -> None:
    key = keys["p256"]
    own = x509.SubjectKeyIdentifier(b"its own choice")
    named = load_issuer(odd_certificate(key, extensions=(CA, (own, False))).pem, to_pem(key))
    unnamed = load_issuer(odd_certificate(key).pem, to_pem(key))
    assert named.authority_key_identifier.value == x509.AuthorityKeyIdentifier(
        b"its own choice", None, None
    )
    assert unnamed.authority_key_identifier.value == (
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    )


def test_a_ca_without_a_name_is_refused(keys: dict[str, PrivateKey]) -> None:
    ca = odd_certificate(keys["p256"], attributes=[])
    assert "subject is empty" in refusal(ca.pem, ca.key)


def test_a_name_of_printable_characters_stays_one(keys: dict[str, PrivateKey]) -> None:
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, "old ca", _ASN1Type.PrintableString)
    ca = odd_certificate(keys["p256"], attributes=[attribute])
    issuer = load_issuer(ca.pem, to_pem(ca.key))
    assert issuer.name.public_bytes() in ca.certificate.tbs_certificate_bytes


@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_a_ca_whose_name_is_longer_than_allowed_is_read_all_the_same(
    keys: dict[str, PrivateKey],
) -> None:
    attribute = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x" * 99, _validate=False)
    ca = odd_certificate(keys["p256"], attributes=[attribute])
    assert load_issuer(ca.pem, to_pem(ca.key)).label == f'the issuer "O={"x" * 99}"'


def test_a_ca_that_is_bound_to_pss_is_refused(keys: dict[str, PrivateKey]) -> None:
    key = keys["rsa-2048"]
    plain = odd_certificate(key).certificate
    builder = x509.CertificateBuilder(
        issuer_name=plain.issuer,
        subject_name=plain.subject,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=plain.not_valid_before_utc,
        not_valid_after=plain.not_valid_after_utc,
        extensions=list(plain.extensions),
        public_key_rsa_padding=padding.PSS,
    )
    bound = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    assert "PSS" in refusal(bound, key)


def test_a_chain_with_a_key_of_an_unknown_kind_is_refused(keys: dict[str, PrivateKey]) -> None:
    ca = odd_certificate(keys["p256"])
    other = odd_certificate(keys["ed25519"]).certificate.public_bytes(serialization.Encoding.DER)
    # The object identifier of Ed25519, and one that the library does not know.
    unknown = other.replace(b"\x06\x03\x2b\x65\x70", b"\x06\x03\x2b\x65\x7f")
    bundle = ca.pem + ssl.DER_cert_to_PEM_cert(unknown).encode()
    assert "unknown kind" in refusal(bundle, ca.key)


def test_an_issuer_does_not_show_its_key_or_certificates(issuer: Issuer) -> None:
    assert "key" not in repr(issuer).replace("authority_key", "")
    assert "BEGIN" not in repr(issuer)
    assert issuer.label == 'the issuer "CN=site ca"'


@pytest.mark.parametrize("name", KEY_NAMES)
def test_a_new_authority_says_what_a_ca_must_say_and_no_more(
    keys: dict[str, PrivateKey], name: str
) -> None:
    pem = create_authority(
        common_name="west", key=keys[name], serial=99, not_before=NOW, not_after=NOW + YEAR
    )
    issuer = load_issuer(pem, to_pem(keys[name]))
    certificate = issuer.certificate
    certificate.verify_directly_issued_by(certificate)
    assert certificate.subject.rfc4514_string() == "CN=west"
    assert certificate.serial_number == 99
    assert (issuer.not_before, issuer.not_after) == (NOW, NOW + YEAR)
    own = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    constraints, usage, subject_key, authority_key = certificate.extensions
    assert (constraints.critical, constraints.value) == (
        True,
        x509.BasicConstraints(ca=True, path_length=0),
    )
    assert usage.critical
    assert isinstance(usage.value, x509.KeyUsage)
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    assert (subject_key.critical, subject_key.value) == (False, own)
    assert not authority_key.critical
    assert isinstance(authority_key.value, x509.AuthorityKeyIdentifier)
    assert authority_key.value.key_identifier == own.digest


# Cross certificates


@pytest.mark.parametrize("by", KEY_NAMES)
@pytest.mark.parametrize("of", ["p256", "rsa-2048", "ed25519"])
def test_one_authority_vouches_for_another(keys: dict[str, PrivateKey], by: str, of: str) -> None:
    signer, subject = authority(keys[by]), authority(keys[of], name="next ca")
    made = x509.load_pem_x509_certificate(cross_sign(signer, subject, serial=77))
    made.verify_directly_issued_by(signer.certificate)
    assert made.subject == subject.certificate.subject
    assert made.issuer == signer.certificate.subject
    assert made.public_key() == subject.certificate.public_key()
    assert made.serial_number == 77
    assert made.version is x509.Version.v3
    for kind in (x509.BasicConstraints, x509.KeyUsage, x509.SubjectKeyIdentifier):
        told, own = (
            one.extensions.get_extension_for_class(kind) for one in (made, subject.certificate)
        )
        assert (told.value, told.critical) == (own.value, own.critical)
    named = made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert named.value == signer.authority_key_identifier.value
    assert len(made.extensions) == 4


def test_what_an_authority_does_not_say_of_itself_its_cross_certificate_does_not_either(
    keys: dict[str, PrivateKey],
) -> None:
    odd = odd_certificate(keys["p384"])
    subject = load_issuer(odd.pem, to_pem(odd.key))
    made = x509.load_pem_x509_certificate(cross_sign(authority(keys["p256"]), subject, serial=1))
    kinds = {type(one.value) for one in made.extensions}
    assert kinds == {x509.AuthorityKeyIdentifier, x509.BasicConstraints}


def test_a_cross_certificate_is_valid_while_both_are(keys: dict[str, PrivateKey]) -> None:
    early = authority(keys["p256"], not_before=NOW - 9, not_after=NOW + 50)
    late = authority(keys["p384"], not_before=NOW - 5, not_after=NOW + 90)
    for signer, subject in ((early, late), (late, early)):
        made = x509.load_pem_x509_certificate(cross_sign(signer, subject, serial=1))
        assert made.not_valid_before_utc.timestamp() == NOW - 5
        assert made.not_valid_after_utc.timestamp() == NOW + 50
    apart = authority(keys["p384"], not_before=NOW + 50, not_after=NOW + 90)
    with pytest.raises(Invalid, match="never valid at once"):
        cross_sign(early, apart, serial=1)


@pytest.mark.parametrize("serial", [0, -1, 2**160])
def test_a_cross_certificate_has_a_serial_number_that_x509_allows(
    keys: dict[str, PrivateKey], serial: int
) -> None:
    with pytest.raises(Broken):
        cross_sign(authority(keys["p256"]), authority(keys["p384"]), serial=serial)


def test_who_has_any_path_length_is_taken_to_sign_leaves_only(
    keys: dict[str, PrivateKey],
) -> None:
    for length, leaves_only in ((0, True), (3, True), (None, False)):
        rule = (x509.BasicConstraints(ca=True, path_length=length), True)
        odd = odd_certificate(keys["p256"], extensions=(rule,))
        assert signs_leaves_only(load_issuer(odd.pem, to_pem(odd.key))) is leaves_only
    assert signs_leaves_only(authority(keys["p256"]))
    assert not signs_leaves_only(authority(keys["p256"], leaves_only=False))


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_an_authority_needs_a_name_that_fits(keys: dict[str, PrivateKey], name: str) -> None:
    with pytest.raises(Invalid, match=r"^name: ") as caught:
        create_authority(
            common_name=name, key=keys["p256"], serial=1, not_before=NOW, not_after=NOW + 1
        )
    assert caught.value.field == "name"


@pytest.mark.parametrize("end", [NOW - 1, 253_402_300_800, 10**30])
def test_an_authority_needs_a_period_that_x509_can_express(
    keys: dict[str, PrivateKey], end: int
) -> None:
    with pytest.raises(Invalid, match=r"^lifetime: "):
        create_authority(
            common_name="west", key=keys["p256"], serial=1, not_before=NOW, not_after=end
        )


@pytest.mark.parametrize("serial", [0, -1, 1 << 159])
def test_an_authority_needs_a_serial_number_that_x509_allows(
    keys: dict[str, PrivateKey], serial: int
) -> None:
    with pytest.raises(Broken, match="serial"):
        create_authority(
            common_name="west", key=keys["p256"], serial=serial, not_before=NOW, not_after=NOW + 1
        )


@pytest.mark.filterwarnings("ignore:Attribute's length")
@given(data=st.data())
@settings(deadline=None)
def test_no_damage_to_a_bundle_raises_anything_but_invalid(
    keys: dict[str, PrivateKey], chain: tuple[Signer, Signer], data: st.DataObject
) -> None:
    signer, root = chain
    pem = bytearray(signer.pem + root.pem)
    start = data.draw(st.integers(0, len(pem)))
    length = data.draw(st.integers(0, 20))
    pem[start : start + length] = data.draw(st.binary(max_size=20))
    try:
        issuer = load_issuer(bytes(pem), to_pem(keys["p256"]))
    except Invalid:
        return
    # Whatever was damaged, the certificate that signs is a CA for this very key.
    assert issuer.certificate.public_key() == keys["p256"].public_key()


@pytest.fixture(scope="module")
def chain(keys: dict[str, PrivateKey]) -> tuple[Signer, Signer]:
    root = odd_certificate(keys["p384"], name="root")
    return odd_certificate(keys["p256"], name="signer", by=root), root
