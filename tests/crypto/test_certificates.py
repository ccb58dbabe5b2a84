import base64
import ssl
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.crypto.certificates import (
    is_issued_by,
    load_certificates,
    moment,
    name_of,
    seconds,
    serial_text,
)
from app.crypto.issuers import Issuer
from app.crypto.keys import PrivateKey, to_pem
from app.errors import Invalid
from tests.crypto.conftest import odd_certificate

# A server certificate for a.example and ::1, with every extension that we write.
_DER = base64.b64decode(
    "MIIBwzCCAWigAwIBAgIPAQIDBAUGBwgJCgsMDQ4PMAoGCCqGSM49BAMCMA0xCzAJBgNVBAMMAmNhMB4XDTI2MDcy"
    "NTE3MjAwMFoXDTI2MDgwNjA3MDYzOFowFDESMBAGA1UEAwwJYS5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0D"
    "AQcDQgAEaYeiZCCQGJ3Mx3p4Twjj7QtQDC2xgdXP6rsKhvKNm8ZwUCaR9KFLebTZbUxUdKjeYPw6rHVH+F6mXl8g"
    "Vw4uoKOBozCBoDAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIHgDATBgNVHSUEDDAKBggrBgEFBQcDATAfBgNV"
    "HSMEGDAWgBRMhlHTaZgt19F9t0iDrfECRkpObjAdBgNVHQ4EFgQUTIZR02mYLdfRfbdIg63xAkZKTm4wKwYDVR0R"
    "BCQwIoIJYS5leGFtcGxlhxAAAAAAAAAAAAAAAAAAAAABggM6OjEwCgYIKoZIzj0EAwIDSQAwRgIhAPgdan9dX8kl"
    "zuMIAPTsMlsHnsxMuiatBcxqz7dZMf/1AiEAnICBfm9N5pafTv/s+J0kMgQaxIdJ2r//Kt+sqo0EV6E="
)


def test_a_bundle_is_read_in_its_order_and_text_is_skipped(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    other = odd_certificate(keys["p384"])
    bundle = b"the first\n" + other.pem + b"\nthe second\n" + issuer.certificate_pem
    assert load_certificates(bundle) == [other.certificate, issuer.certificate]


@pytest.mark.parametrize("pem", [b"", b"hello", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\n"])
def test_no_certificate_at_all_is_invalid(pem: bytes) -> None:
    with pytest.raises(Invalid, match="expected one or more"):
        load_certificates(pem)


def test_a_key_among_the_certificates_is_refused_and_not_shown(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    with pytest.raises(Invalid, match="private key") as caught:
        load_certificates(issuer.certificate_pem + to_pem(keys["p256"]))
    assert "MIG" not in str(caught.value)


def test_other_blocks_among_the_certificates_are_refused(issuer: Issuer) -> None:
    crl = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
    with pytest.raises(Invalid, match="only PEM blocks of the kind CERTIFICATE"):
        load_certificates(issuer.certificate_pem + crl)


@pytest.mark.parametrize("action", ["ignore", "error"])
def test_a_serial_number_that_is_not_positive_is_refused(action: str) -> None:
    assert _DER[13:16] == b"\x02\x0f\x01", "the serial number is elsewhere"
    der = _DER[:15] + b"\x80" + _DER[16:]
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="serial number is not positive"):
            load_certificates(ssl.DER_cert_to_PEM_cert(der).encode())


@pytest.mark.filterwarnings("ignore:Attribute's length")
@given(position=st.integers(0, 350), value=st.binary(min_size=1, max_size=4))
@settings(deadline=None, max_examples=300)
def test_no_damaged_der_raises_anything_but_invalid(position: int, value: bytes) -> None:
    der = bytearray(_DER)
    position %= len(der)
    der[position : position + len(value)] = value
    pem = ssl.DER_cert_to_PEM_cert(bytes(der)).encode()
    try:
        load_certificates(pem)
    except Invalid as error:
        assert error.field == "certificate"  # noqa: PT017


def test_issued_by_means_the_name_and_the_signature(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    root = odd_certificate(keys["p384"], name="root")
    below = odd_certificate(keys["p256"], name="below", by=root)
    impostor = odd_certificate(keys["p521"], name="root")
    assert is_issued_by(below.certificate, root.certificate)
    assert not is_issued_by(below.certificate, impostor.certificate)
    assert not is_issued_by(below.certificate, issuer.certificate)


@given(st.integers(0, 253_402_300_799))
def test_times_survive_both_ways(time: int) -> None:
    assert seconds(moment(time)) == time
    assert moment(time).utcoffset() is not None


@pytest.mark.parametrize(
    ("serial", "text"), [(0, "00"), (5, "05"), (255, "ff"), (256, "0100"), (-5, "-05")]
)
def test_serials_are_whole_octets_in_hexadecimal(serial: int, text: str) -> None:
    assert serial_text(serial) == text


@pytest.mark.parametrize("name", ["x", "x" * 64, "ä" * 32, "a, b=c + \u2603"])
def test_a_name_of_up_to_64_bytes_is_taken_as_it_is(name: str) -> None:
    (attribute,) = name_of(name, field="subject")
    assert attribute.value == name


@pytest.mark.parametrize("name", ["", "x" * 65, "ä" * 33, "\ud800"])
def test_a_name_that_x509_cannot_hold_is_invalid(name: str) -> None:
    with pytest.raises(Invalid, match="1 to 64 bytes"):
        name_of(name, field="subject")
