import contextlib
from random import Random  # noqa: TID251

import pytest
from hypothesis import given, settings

from app.crypto.keys import load_private_key
from app.errors import Invalid
from fuzz import keys

FORMS = keys.key_ders()


def test_keys_that_are_accepted_and_keys_that_are_not_are_among_the_originals() -> None:
    accepted = 0
    for label, der in FORMS:
        with contextlib.suppress(Invalid):
            load_private_key(keys.pem(label, der))
            accepted += 1
    assert 5 <= accepted < len(FORMS)


@settings(deadline=None, max_examples=150)
@given(keys.damaged_keys().strategy())
def test_a_damaged_key_of_any_kind_is_taken_or_refused_soon_and_never_shown(pem: bytes) -> None:
    keys.check_key(pem)


@settings(deadline=None, max_examples=150)
@given(keys.damaged_certificates().strategy())
def test_a_damaged_certificate_of_any_kind_is_taken_or_refused_soon(pem: bytes) -> None:
    keys.check_certificates(pem)


@pytest.mark.parametrize("damaged", [keys.damaged_keys(), keys.damaged_certificates()])
def test_a_seed_repeats_what_is_drawn(damaged: keys.DamagedBlocks) -> None:
    first, second = ([damaged.draw(chance) for _ in range(20)] for chance in (Random(5), Random(5)))
    assert first == second
    assert len(set(first)) > 10
