import base64
import traceback

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.crypto.keys import (
    PrivateKey,
    generate,
    load_private_key,
    make_pair,
    signature_hash,
    to_pem,
    to_traditional_pem,
)
from app.domain.certificates import KeyType
from app.errors import GrantServerError, Invalid
from tests.crypto.conftest import KEY_NAMES

ACCEPTED = "accepted is one unencrypted PEM private key"


def refusal(pem: bytes) -> str:
    with pytest.raises(Invalid) as caught:
        load_private_key(pem)
    assert caught.value.field == "key"
    assert ACCEPTED in str(caught.value)
    told = f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    lines = [line for line in pem.splitlines() if not line.startswith(b"-----") and len(line) >= 8]
    for line in lines:
        for start in range(len(line) - 7):
            assert line[start : start + 8].decode("latin-1") not in told
    return str(caught.value)


def test_each_key_type_is_generated_as_it_is_called() -> None:
    p256, rsa_2048, ed = (generate(kind) for kind in KeyType)
    assert isinstance(p256, ec.EllipticCurvePrivateKey)
    assert p256.curve.name == "secp256r1"
    assert isinstance(rsa_2048, rsa.RSAPrivateKey)
    assert rsa_2048.key_size == 2048
    assert rsa_2048.public_key().public_numbers().e == 65537
    assert isinstance(ed, ed25519.Ed25519PrivateKey)


def test_two_generated_keys_differ() -> None:
    assert to_pem(generate(KeyType.P256)) != to_pem(generate(KeyType.P256))


@pytest.mark.parametrize("name", KEY_NAMES)
def test_every_accepted_key_survives_writing_and_reading(
    keys: dict[str, PrivateKey], name: str
) -> None:
    key = keys[name]
    for pem in (to_pem(key), to_traditional_pem(key), to_pem(key).replace(b"\n", b"\r\n")):
        assert load_private_key(pem).public_key() == key.public_key()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("rsa-2048", b"RSA PRIVATE KEY"),
        ("rsa-3072", b"RSA PRIVATE KEY"),
        ("p256", b"EC PRIVATE KEY"),
        ("p384", b"EC PRIVATE KEY"),
        ("p521", b"EC PRIVATE KEY"),
        ("ed25519", b"PRIVATE KEY"),
    ],
)
def test_the_traditional_form_is_the_one_of_the_kind(
    keys: dict[str, PrivateKey], name: str, label: bytes
) -> None:
    assert to_traditional_pem(keys[name]).startswith(b"-----BEGIN " + label + b"-----\n")
    assert to_pem(keys[name]).startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_a_pair_holds_both_halves_of_one_key_and_shows_neither() -> None:
    pair = make_pair(KeyType.P256)
    key = load_private_key(pair.private_pem)
    assert key.public_key() == pair.public_key == serialization.load_der_public_key(pair.public_der)
    assert repr(pair) == "KeyPair()"


def test_an_encrypted_key_is_refused_in_both_forms(keys: dict[str, PrivateKey]) -> None:
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        password = serialization.BestAvailableEncryption(b"secret")
        pem = keys["p256"].private_bytes(serialization.Encoding.PEM, form, password)
        assert "encrypted" in refusal(pem)


def test_a_key_with_its_curve_written_before_it_is_read(keys: dict[str, PrivateKey]) -> None:
    curve = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    pem = curve + to_traditional_pem(keys["p256"])
    assert load_private_key(pem).public_key() == keys["p256"].public_key()


def test_several_keys_and_keys_with_other_blocks_are_refused(
    keys: dict[str, PrivateKey],
) -> None:
    pem = to_pem(keys["p256"])
    public = (
        keys["p256"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert "more than one" in refusal(pem + pem)
    assert "more than one" in refusal(public + pem)
    assert "cannot be read" in refusal(public)


def test_small_and_foreign_keys_are_refused() -> None:
    # Smaller ones than 1024 bits the library does not make any more.
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert "1024 bits" in refusal(to_pem(small))
    assert "secp256k1" in refusal(to_pem(ec.generate_private_key(ec.SECP256K1())))
    other = ed448.Ed448PrivateKey.generate()
    pem = other.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert "another kind" in refusal(pem)


def test_a_dsa_key_is_refused() -> None:
    pem = dsa.generate_private_key(1024).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert "another kind" in refusal(pem)


def test_an_empty_a_cut_and_an_endless_input_are_refused(keys: dict[str, PrivateKey]) -> None:
    pem = to_pem(keys["p256"])
    assert "no PEM block" in refusal(b"")
    assert "no PEM block" in refusal(b"\x00\xff\xfe")
    assert "cannot be read" in refusal(pem[:100])
    assert "cannot be read" in refusal(pem.replace(b"M", b"!"))
    with pytest.raises(Invalid, match="longer than"):
        load_private_key(pem + b"#" * 20_000)


def rsa_of(p: int, q: int) -> bytes:
    """Write a key of two primes, right in every part of it."""
    numbers = (p * q, 65537, pow(65537, -1, (p - 1) * (q - 1)), p, q)
    exponents = tuple(numbers[2] % (prime - 1) for prime in (p, q))
    body = b"".join(_integer(one) for one in (0, *numbers, *exponents, pow(q, -1, p)))
    return _framed("RSA PRIVATE KEY", _tlv(0x30, body))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 | len(length))) + length + content


def _integer(number: int) -> bytes:
    return _tlv(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _framed(label: str, der: bytes) -> bytes:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


@pytest.mark.parametrize(
    ("exponents", "told"),
    [
        ((4253, 4423), "8676 bits"),
        ((9689, 9941), "longer than"),
        ((607, 4423), "differ in length"),
    ],
    ids=str,
)
def test_an_rsa_key_whose_primes_take_long_to_check_is_refused_before_they_are(
    exponents: tuple[int, int], told: str
) -> None:
    p, q = (2**exponent - 1 for exponent in exponents)  # Mersenne's primes
    assert told in refusal(rsa_of(p, q))


def test_fewer_bits_may_be_asked_for(keys: dict[str, PrivateKey]) -> None:
    long = rsa_of(2**2203 - 1, 2**2281 - 1)
    with pytest.raises(Invalid, match="RSA keys of at most 4096 bits"):
        load_private_key(long, rsa_max_bits=4096)
    for key in keys.values():
        load_private_key(to_pem(key), rsa_max_bits=4096)


def test_a_key_that_was_checked_before_is_not_checked_again() -> None:
    """It is no key at all: its second prime is none."""
    wrong = rsa_of(2**1279 - 1, 2**1277 - 1)
    with pytest.raises(Invalid):
        load_private_key(wrong)
    load_private_key(wrong, checked=True)


def test_a_diffie_hellman_key_too_long_for_openssl_is_refused() -> None:
    prime = (1 << 12_000) - 159
    kind = _tlv(
        0x30, bytes.fromhex("06092a864886f70d010301") + _tlv(0x30, _integer(prime) + _integer(2))
    )
    der = _tlv(0x30, _integer(0) + kind + _tlv(4, _integer(prime // 4)))
    assert "cannot be read" in refusal(_framed("PRIVATE KEY", der))


def test_a_key_whose_last_line_is_broken_is_not_told_by_the_cause(
    keys: dict[str, PrivateKey],
) -> None:
    first, secret, *_ = to_pem(keys["p256"]).decode().splitlines()
    with pytest.raises(Invalid) as caught:
        load_private_key(f"{first}\n{secret}\n-----END {secret}\n-----\n".encode())
    assert secret[10:30] not in "".join(traceback.format_exception(caught.value))


@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_a_key_raises_anything_but_our_own_errors(
    keys: dict[str, PrivateKey], data: st.DataObject
) -> None:
    pem = bytearray(to_traditional_pem(keys[data.draw(st.sampled_from(KEY_NAMES))]))
    start = data.draw(st.integers(0, len(pem)))
    length = data.draw(st.integers(0, 40))
    pem[start : start + length] = data.draw(st.binary(max_size=40))
    try:
        load_private_key(bytes(pem))
    except GrantServerError as error:
        assert error.__class__ is Invalid  # noqa: PT017


@given(noise=st.binary(max_size=300))
def test_no_noise_between_pem_lines_raises_anything_but_our_own_errors(noise: bytes) -> None:
    with pytest.raises(Invalid):
        load_private_key(
            b"-----BEGIN PRIVATE KEY-----\n" + noise + b"\n-----END PRIVATE KEY-----\n"
        )


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("rsa-3072", "sha256"),
        ("p256", "sha256"),
        ("p384", "sha384"),
        ("p521", "sha512"),
        ("ed25519", None),
    ],
)
def test_the_hash_of_a_signature_is_as_strong_as_the_key(
    keys: dict[str, PrivateKey], name: str, digest: str | None
) -> None:
    chosen = signature_hash(keys[name])
    assert (chosen.name if chosen else None) == digest
