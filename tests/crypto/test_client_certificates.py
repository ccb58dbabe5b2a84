import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from app.crypto.client_certificates import read_client_certificate
from app.crypto.keys import PrivateKey
from app.errors import Invalid
from tests.crypto.conftest import odd_certificate
from tests.pki import END, a_root

ROOT = a_root()
CERTIFICATE = ROOT.certify(name="portal@shop", client=True).certificate


def test_a_client_certificate_names_who_and_until_when() -> None:
    read = read_client_certificate(CERTIFICATE.public_bytes(Encoding.DER))
    assert read.common_name == "portal@shop"
    assert read.not_after == int(END.timestamp())


@given(st.binary(max_size=64))
def test_what_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_client_certificate(der)
    assert caught.value.field == "certificate"


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_a_certificate_has_to_have_one_common_name(
    keys: dict[str, PrivateKey], names: list[str]
) -> None:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
    odd = odd_certificate(keys["p256"], attributes=attributes)
    with pytest.raises(Invalid, match="one common name"):
        read_client_certificate(odd.certificate.public_bytes(Encoding.DER))
