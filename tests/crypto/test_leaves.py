import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from app.crypto.issuers import Issuer
from app.crypto.keys import PrivateKey
from app.crypto.leaves import BACKDATE_SECONDS, leaf_extensions, serial_number, validity
from app.errors import Broken, Invalid, Lack, Unready
from tests.crypto.conftest import NOW, YEAR, authority


@given(st.binary(min_size=16, max_size=16), st.integers(0, 1 << 40))
def test_a_serial_number_is_positive_and_short_enough_for_rfc_5280(random: bytes, now: int) -> None:
    serial = serial_number(random, now)
    assert 0 < serial < 1 << 128
    assert serial >> 96 == now % (1 << 32)
    assert serial % (1 << 96) in {int.from_bytes(random[4:], "big"), 1}


def test_serial_numbers_of_one_time_stand_side_by_side() -> None:
    serials = [serial_number(bytes([n]) * 16, NOW + at) for at in (0, 1) for n in range(9, 0, -1)]
    assert max(serials[:9]) < min(serials[9:])
    assert len(set(serials)) == 18


def test_random_zeros_do_not_make_the_serial_number_zero() -> None:
    assert serial_number(bytes(16), 0) == 1


@pytest.mark.parametrize("count", [0, 15, 17])
def test_a_serial_number_takes_exactly_16_bytes(count: int) -> None:
    with pytest.raises(Broken, match="16 random bytes"):
        serial_number(bytes(count), NOW)


def test_a_leaf_begins_a_minute_ago_and_ends_with_its_last_second(issuer: Issuer) -> None:
    assert BACKDATE_SECONDS == 60
    assert validity(issuer, now=NOW, lifetime_seconds=100) == (NOW - 60, NOW + 99)
    assert validity(issuer, now=NOW, lifetime_seconds=1) == (NOW - 60, NOW)


def test_a_leaf_never_leaves_the_period_of_its_issuer(keys: dict[str, PrivateKey]) -> None:
    issuer = authority(keys["p256"], not_before=NOW - 10, not_after=NOW + 10)
    assert validity(issuer, now=NOW, lifetime_seconds=YEAR) == (NOW - 10, NOW + 10)
    assert validity(issuer, now=NOW - 10, lifetime_seconds=1) == (NOW - 10, NOW - 10)
    assert validity(issuer, now=NOW + 10, lifetime_seconds=YEAR) == (NOW - 10, NOW + 10)


@given(
    now=st.integers(NOW - 2 * YEAR, NOW + 12 * YEAR),
    lifetime=st.integers(1, 100 * YEAR),
)
def test_every_validity_holds_the_present_or_is_not_given(
    issuer: Issuer, now: int, lifetime: int
) -> None:
    try:
        begin, end = validity(issuer, now=now, lifetime_seconds=lifetime)
    except Unready:
        assert not issuer.not_before <= now <= issuer.not_after
    else:
        assert issuer.not_before <= begin <= now <= end <= issuer.not_after
        assert end - now < lifetime


@pytest.mark.parametrize(
    ("now", "text"), [(NOW - YEAR - 1, "not valid before"), (NOW + 10 * YEAR + 1, "has expired")]
)
def test_an_issuer_that_is_not_valid_now_makes_the_grant_unready(
    issuer: Issuer, now: int, text: str
) -> None:
    with pytest.raises(Unready, match=text) as caught:
        validity(issuer, now=now, lifetime_seconds=100)
    assert caught.value.lack is Lack.ISSUER
    assert "CN=site ca" in str(caught.value)


def test_a_lifetime_of_nothing_is_invalid(issuer: Issuer) -> None:
    with pytest.raises(Invalid, match=r"^lifetime: "):
        validity(issuer, now=NOW, lifetime_seconds=0)


def test_only_an_rsa_key_may_encipher_keys(keys: dict[str, PrivateKey], issuer: Issuer) -> None:
    usage = x509.Extension(
        x509.ExtendedKeyUsage.oid, critical=False, value=x509.ExtendedKeyUsage([])
    )
    for name, key in keys.items():
        listed = x509.Extensions(leaf_extensions(issuer, key.public_key(), usage))
        key_usage = listed.get_extension_for_class(x509.KeyUsage)
        assert key_usage.critical
        assert key_usage.value.digital_signature
        assert key_usage.value.key_encipherment is name.startswith("rsa")
