import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448
from hypothesis import given, settings
from hypothesis import strategies as st

from app.crypto.certificates import load_certificates
from app.crypto.chains import anchor, bare, check_chain, check_pair
from app.crypto.keys import PrivateKey, generate, to_pem
from app.domain.certificates import KeyType
from app.errors import Invalid
from tests.crypto.conftest import KEY_NAMES, Signer, odd_certificate

KEY = generate(KeyType.P256)
ROOT = odd_certificate(generate(KeyType.P256), name="root")
MIDDLE = odd_certificate(generate(KeyType.P256), name="middle", by=ROOT)
LOW = odd_certificate(generate(KeyType.P256), name="low", by=MIDDLE)
LEAF = odd_certificate(KEY, name="leaf", by=LOW, extensions=())
OTHER = odd_certificate(generate(KeyType.P256), name="root")


def why(found: pytest.ExceptionInfo[Invalid]) -> tuple[str, str]:
    return found.value.field, found.value.why


@pytest.mark.parametrize("name", KEY_NAMES)
def test_a_certificate_fits_its_own_key(keys: dict[str, PrivateKey], name: str) -> None:
    made = odd_certificate(keys[name])
    check_pair(made.pem + ROOT.pem, to_pem(keys[name]))
    with pytest.raises(Invalid) as refusal:
        check_pair(made.pem, to_pem(generate(KeyType.P256)))
    assert why(refusal) == ("key", "it is not the key of the first certificate")


def test_only_the_first_certificate_has_to_fit() -> None:
    with pytest.raises(Invalid, match="first certificate"):
        check_pair(ROOT.pem + LEAF.pem, to_pem(KEY))


def test_a_kind_of_key_that_is_not_ours_fits_none_of_ours() -> None:
    foreign = odd_certificate(ed448.Ed448PrivateKey.generate(), by=ROOT)  # type: ignore[arg-type]
    with pytest.raises(Invalid) as refusal:
        check_pair(foreign.pem, to_pem(KEY))
    assert refusal.value.field == "key"


def test_a_kind_of_key_that_nobody_knows_fits_none_of_ours() -> None:
    """An object identifier that the library does not know: one arc beside Ed448's."""
    foreign = odd_certificate(ed448.Ed448PrivateKey.generate(), by=ROOT)  # type: ignore[arg-type]
    der = foreign.certificate.public_bytes(serialization.Encoding.DER)
    assert der.count(b"\x06\x03\x2b\x65\x71") == 1
    unknown = der.replace(b"\x06\x03\x2b\x65\x71", b"\x06\x03\x2b\x65\x7f")
    with pytest.raises(Invalid) as refusal:
        check_pair(ssl.DER_cert_to_PEM_cert(unknown).encode(), to_pem(KEY))
    assert refusal.value.field == "key"


@pytest.mark.parametrize(
    ("chain", "trusted"),
    [
        pytest.param([LEAF, LOW, MIDDLE], [ROOT], id="up to the root"),
        pytest.param([LEAF, MIDDLE, LOW], [ROOT], id="in any order"),
        pytest.param([LEAF, LOW, MIDDLE, ROOT], [OTHER, ROOT], id="with the root, one of two"),
        pytest.param([LEAF, OTHER, LOW, LOW], [MIDDLE], id="an intermediate is trusted"),
        pytest.param([LEAF], [LOW], id="whoever signed it is trusted"),
        pytest.param([ROOT], [ROOT], id="it vouches for itself"),
        pytest.param([LEAF], [LEAF], id="it is trusted itself"),
    ],
)
def test_a_chain_that_leads_to_what_is_trusted_is_taken(
    chain: list[Signer], trusted: list[Signer]
) -> None:
    check_chain(pem_of(chain), pem_of(trusted))


@pytest.mark.parametrize(
    ("chain", "trusted"),
    [
        pytest.param([LEAF, LOW], [ROOT], id="one is missing"),
        pytest.param([LEAF, LOW, MIDDLE, ROOT], [OTHER], id="another root of the same name"),
        pytest.param([LEAF, ROOT], [ROOT], id="a trusted one that did not sign"),
        pytest.param([ROOT, LOW, MIDDLE], [LEAF], id="upside down"),
    ],
)
def test_a_chain_that_does_not_lead_there_is_refused(
    chain: list[Signer], trusted: list[Signer]
) -> None:
    with pytest.raises(Invalid) as refusal:
        check_chain(pem_of(chain), pem_of(trusted))
    assert why(refusal) == ("certificate", "the CA that tokens carry does not vouch for it")


def test_what_is_no_certificate_is_said_to_be_wrong_where_it_stands() -> None:
    with pytest.raises(Invalid) as of_ca:
        check_chain(LEAF.pem, b"nothing")
    with pytest.raises(Invalid) as of_chain:
        check_chain(b"nothing", ROOT.pem)
    with pytest.raises(Invalid) as of_bundle:
        bare(ROOT.pem[:-40])
    fields = [one.value.field for one in (of_ca, of_chain, of_bundle)]
    assert fields == ["ca", "certificate", "ca"]


def test_the_anchor_is_the_self_signed_end_of_a_chain() -> None:
    assert anchor(pem_of([LEAF, LOW, MIDDLE, ROOT])) == ROOT.pem
    assert anchor(ROOT.pem) == ROOT.pem
    with pytest.raises(Invalid) as refusal:
        anchor(pem_of([LEAF, LOW, MIDDLE]))
    assert why(refusal) == ("ca", "the chain ends without a self-signed certificate")


def test_a_bundle_loses_what_stands_between_its_certificates() -> None:
    bundle = "# Büro\n".encode("latin-1") + ROOT.pem + b"\n  subject=x\n" + OTHER.pem
    assert bare(bundle) == ROOT.pem + OTHER.pem
    ssl.create_default_context(cadata=bare(bundle).decode("ascii"))


@given(st.data())
@settings(max_examples=50)
def test_a_chain_that_is_cut_off_is_refused_or_whole(data: st.DataObject) -> None:
    """Whatever a reader sees of a file that is being written: no other error, no half chain."""
    whole = pem_of([LEAF, LOW, MIDDLE])
    seen = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        check_chain(seen, ROOT.pem)
    except Invalid:
        return
    assert len(load_certificates(seen)) == 3


def pem_of(signers: list[Signer]) -> bytes:
    return b"".join(one.certificate.public_bytes(serialization.Encoding.PEM) for one in signers)
