import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from app import ambient
from app.crypto import mint
from app.crypto.facts import facts, verify_issued_by
from app.crypto.issuers import Issuer
from app.crypto.keys import KeyPair, make_pair
from app.crypto.requests import sign_renewal
from app.domain.audit import Act
from app.domain.authorities import Purpose
from app.domain.certificates import KeyType, Minted
from app.domain.renewals import MOST_IN_A_SPELL, Given
from app.errors import Reason, Refused, Unavailable, Unready
from app.services import audit, authorities, grants, rotation
from app.services.renewal import Renewer, Wish
from app.services.rotation import Times
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store.engine import Database
from tests.builders import NOW, SUBJECT, Stand
from tests.services.renewals import OVERLAP, REACH, Held, a_key, redeem, renew, run

LIFE = 3599  # its last second is one of it


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    made = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(made, Database)
    return made


@pytest.fixture
def held(stand: Stand) -> Held:
    """Redeem a grant of two for a key that the server never saw."""
    stand.set_site()
    return redeem(stand, stand.make_grant().grant)


def given(stand: Stand) -> Sequence[Given]:
    return grants.certificates(stand.database, grants.every(stand.database)[0].id)


def refused(stand: Stand, wish: Wish) -> Reason:
    before = given(stand)
    with pytest.raises(Refused) as told:
        renew(stand, wish)
    assert given(stand) == before
    return told.value.reason


@pytest.mark.parametrize("kind", KeyType)
def test_a_certificate_is_renewed_in_its_name_for_another_key(
    stand: Stand, held: Held, kind: KeyType
) -> None:
    stand.clock.now = NOW + 1000
    key = a_key(kind)
    renewed = renew(stand, held.wish(key))
    made = facts(renewed.certificate_pem)
    assert made.subject == held.facts.subject == f"CN={SUBJECT}"
    assert made.serial == renewed.serial != held.facts.serial
    assert made.not_after == renewed.not_after == NOW + 1000 + LIFE
    assert renewed.superseded_at == NOW + 1000 + OVERLAP
    assert renewed.reach is REACH
    verify_issued_by(renewed.certificate_pem, renewed.ca_pem)
    # Who has the new key, and nobody else, goes on with it.
    after = Held(certificate_pem=renewed.certificate_pem, key_pem=key)
    assert renew(stand, after.wish(a_key())).serial not in {made.serial, None}
    assert refused(stand, after.wish(a_key(), signature=b"x")) is Reason.RENEWAL


def test_it_is_written_down_with_what_it_replaces(stand: Stand, held: Held) -> None:
    stand.clock.now = NOW + 1000
    renewed = renew(stand, held.wish(a_key()))
    first, second = given(stand)
    assert (first.serial, first.superseded_at) == (held.facts.serial, NOW + 1000 + OVERLAP)
    assert (second.replaces, second.issued_at) == (first.serial, NOW + 1000)
    assert (second.serial, second.subject, second.superseded_at) == (renewed.serial, SUBJECT, None)
    (entry,) = audit.latest(stand.database, limit=1)
    assert (entry.act, entry.actor) == (Act.CERTIFICATE_RENEWED, f"site:{SUBJECT}")
    assert entry.details["replaces"] == first.serial


def test_the_same_wish_again_gets_the_same_certificate(stand: Stand, held: Held) -> None:
    key = a_key()
    first = renew(stand, held.wish(key))
    stand.clock.now = NOW + 5
    # A request is signed anew, so its bytes differ: the key is what counts.
    again = renew(stand, held.wish(key))
    assert (again.certificate_pem, again.serial) == (first.certificate_pem, None)
    assert again.superseded_at == first.superseded_at
    assert len(given(stand)) == 2
    # Whoever lost the answer may come late, when all that it has counts no more.
    for late in (NOW + OVERLAP, NOW + LIFE):
        stand.clock.now = late
        assert renew(stand, held.wish(key)).certificate_pem == first.certificate_pem
    stand.clock.now = NOW + LIFE + 1
    assert refused(stand, held.wish(key)) is Reason.CERTIFICATE_ENDED


def test_a_certificate_that_was_superseded_itself_is_not_given_again(
    stand: Stand, held: Held
) -> None:
    first, second = a_key(), a_key()
    renew(stand, held.wish(first))
    stand.clock.now += 1
    renew(stand, held.wish(second))
    assert renew(stand, held.wish(first)).serial is None
    stand.clock.now += OVERLAP
    assert refused(stand, held.wish(first)) is Reason.CERTIFICATE_SUPERSEDED
    assert renew(stand, held.wish(second)).serial is None


def test_many_at_once_with_one_key_get_one_certificate(stand: Stand, held: Held) -> None:
    wish = held.wish(a_key())

    async def rush(renewer: Renewer) -> list[bytes]:
        many = [renewer.renew(wish) for _ in range(20)]
        return [one.certificate_pem for one in await asyncio.gather(*many)]

    assert len(set(run(stand, rush))) == 1
    assert len(given(stand)) == 2


def test_a_link_gets_ten_certificates_in_a_spell_and_its_answers_again(
    stand: Stand, held: Held
) -> None:
    other = redeem(stand, grants.every(stand.database)[0], subject="other")
    for _ in range(MOST_IN_A_SPELL):
        last = held, a_key()
        renewed = renew(stand, held.wish(last[1]))
        held = Held(certificate_pem=renewed.certificate_pem, key_pem=last[1])
        stand.clock.now += 1
    with pytest.raises(Refused) as told:
        renew(stand, held.wish(a_key()))
    assert told.value.reason is Reason.RENEWED_TOO_OFTEN
    # The first of them is ten seconds old, and the life of one is a spell.
    assert told.value.retry_after == LIFE - MOST_IN_A_SPELL
    assert renew(stand, last[0].wish(last[1])).certificate_pem == held.certificate_pem
    assert renew(stand, other.wish(a_key())).serial  # another link
    stand.clock.now += told.value.retry_after - 1
    assert refused(stand, held.wish(a_key())) is Reason.RENEWED_TOO_OFTEN
    stand.clock.now += 1
    assert renew(stand, held.wish(a_key())).serial


def test_many_at_once_get_no_more_certificates_than_one_after_the_other(
    stand: Stand, held: Held
) -> None:
    async def rush(renewer: Renewer) -> int:
        wishes = [held.wish(a_key()) for _ in range(2 * MOST_IN_A_SPELL)]
        many = [renewer.renew(wish) for wish in wishes]
        found = await asyncio.gather(*many, return_exceptions=True)
        return sum(not isinstance(one, Refused) for one in found)

    assert run(stand, rush) == MOST_IN_A_SPELL
    assert len(given(stand)) == 1 + MOST_IN_A_SPELL


def test_the_key_in_hand_gets_no_other_certificate(stand: Stand, held: Held) -> None:
    assert refused(stand, held.wish(held.key_pem)) is Reason.CSR


def test_the_one_before_is_good_for_the_overlap_and_not_longer(stand: Stand, held: Held) -> None:
    renew(stand, held.wish(a_key()))
    stand.clock.now = NOW + OVERLAP - 1
    second = renew(stand, held.wish(a_key()))
    # Its time is not prolonged by coming again.
    assert second.superseded_at == NOW + OVERLAP
    stand.clock.now = NOW + OVERLAP
    assert refused(stand, held.wish(a_key())) is Reason.CERTIFICATE_SUPERSEDED
    count = [one.counts(stand.clock.now) for one in given(stand)]
    assert count == [False, True, True]
    stand.clock.now += OVERLAP
    assert [one.counts(stand.clock.now) for one in given(stand)] == [False, False, True]


def test_whoever_lacks_the_key_or_the_certificate_is_refused_alike(
    stand: Stand, held: Held
) -> None:
    other = redeem(stand, grants.every(stand.database)[0], subject="other")
    wish = held.wish(a_key())
    for wrong in (
        other.wish(a_key(), certificate_pem=held.certificate_pem),
        replace(wish, signature=b""),
        replace(wish, request_der=wish.request_der + b"\0"),
        replace(wish, certificate_pem=other.certificate_pem),
        replace(wish, certificate_pem=b"no certificate"),
        forged(stand, held).wish(a_key()),
    ):
        assert refused(stand, wrong) is Reason.RENEWAL


def forged(stand: Stand, held: Held) -> Held:
    """Make a certificate of the same serial, signed by somebody else, for a key of one's own."""
    made, issuer = authorities.make(
        stand.keyring, name="site-ca", purpose=Purpose.SITE, key_type=KeyType.P256,
        lifetime_seconds=9999, now=NOW, random_bytes=ambient.random_bytes,
    )  # fmt: skip
    del made
    key = make_pair(KeyType.P256)
    pem = sign_as(issuer, int(held.facts.serial, 16), key)
    return Held(certificate_pem=pem, key_pem=key.private_pem)


def sign_as(issuer: Issuer, serial: int, key: KeyPair) -> bytes:
    order = mint.prepare(
        issuer, common_name=SUBJECT, public_key=key.public_key, public_key_der=key.public_der,
        random=bytes(16), now=NOW, lifetime_seconds=100,
    )  # fmt: skip
    return mint._pem(mint.sign(issuer, replace(order, serial=serial)))


def test_a_request_that_is_no_good_is_told_to_whoever_has_the_key_only(
    stand: Stand, held: Held
) -> None:
    for request in (b"", b"nothing"):
        signed = held.wish(
            a_key(), request_der=request, signature=sign_renewal(held.key_pem, request)
        )
        assert refused(stand, signed) is Reason.CSR
        assert refused(stand, replace(signed, signature=b"")) is Reason.RENEWAL


def test_one_that_was_revoked_is_renewed_no_more_and_not_given_again(
    stand: Stand, held: Held
) -> None:
    key = a_key()
    renewed = renew(stand, held.wish(key))
    after = Held(certificate_pem=renewed.certificate_pem, key_pem=key)
    grants.revoke_redemption(stand.database, "to-west", 1, actor="x", now=NOW)
    for wish in (held.wish(key), held.wish(a_key()), after.wish(a_key())):
        assert refused(stand, wish) is Reason.CERTIFICATE_REVOKED
    other = redeem(stand, grants.every(stand.database)[0], subject="other")
    assert renew(stand, other.wish(a_key())).serial
    grants.revoke(stand.database, "to-west", actor="x", now=NOW)
    assert refused(stand, other.wish(a_key())) is Reason.CERTIFICATE_REVOKED


def test_of_a_grant_that_was_removed_nothing_is_known(stand: Stand, held: Held) -> None:
    grants.remove(stand.database, "to-west", actor="x", now=NOW)
    assert refused_without_grant(stand, held.wish(a_key())) is Reason.RENEWAL


def refused_without_grant(stand: Stand, wish: Wish) -> Reason:
    with pytest.raises(Refused) as told:
        renew(stand, wish)
    return told.value.reason


def test_one_that_has_ended_comes_too_late_whatever_became_of_its_grant(
    stand: Stand, held: Held
) -> None:
    stand.clock.now = NOW + LIFE  # the grant's window is over as well
    assert renew(stand, held.wish(a_key())).serial
    stand.clock.now = NOW + LIFE + 1
    assert refused(stand, held.wish(a_key())) is Reason.CERTIFICATE_ENDED


def test_after_a_rotation_the_new_generation_signs_and_both_are_trusted(
    stand: Stand, held: Held
) -> None:
    rotation.rotate(
        stand.database, stand.keyring, name="site-ca", at_once=True, actor="x", now=NOW,
        times=Times(wait_seconds=0, lifetime_seconds=LIFE, retry_seconds=60),
        random_bytes=ambient.random_bytes,
    )  # fmt: skip
    renewed = renew(stand, held.wish(a_key()))
    new = authorities.show(stand.database, "site-ca")[0]
    verify_issued_by(renewed.certificate_pem, new.certificate_pem.encode())
    verify_issued_by(held.certificate_pem, renewed.ca_pem)
    assert [one.issuer_id for one in given(stand)] == [held_by(stand, "site-ca-1"), new.id]


def held_by(stand: Stand, name: str) -> int:
    return authorities.show(stand.database, name)[0].id


def test_nothing_changes_when_the_server_cannot_sign_or_nobody_knows_where_it_is(
    stand: Stand, held: Held
) -> None:
    wish, before = held.wish(a_key()), given(stand)
    with pytest.raises(Unavailable, match="how this server is reached"):
        renew(stand, wish, reach=lambda: None)
    with stand.database.writing() as connection:
        authority = authority_rows.by_name(connection, "site-ca")
        assert authority is not None
        authority_rows.change(connection, replace(authority, sealed_key=b""))
    with pytest.raises(Unready):
        renew(stand, wish)
    assert given(stand) == before


def test_a_renewal_is_one_transaction_with_its_audit_row(
    stand: Stand, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("no")

    before = given(stand)
    with monkeypatch.context() as patched:
        patched.setattr(audit_rows, "add", fail)
        with pytest.raises(Unavailable):
            renew(stand, held.wish(a_key()))
    assert given(stand) == before
    assert renew(stand, held.wish(a_key())).serial


@pytest.mark.parametrize("what", ["revoked", "renewed and past the overlap", "removed"])
def test_what_becomes_of_it_while_the_next_one_is_made_counts(
    stand: Stand, held: Held, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    mint_client, later = mint.mint_client, a_key()

    def meanwhile(*order: Any, **options: Any) -> Minted:
        monkeypatch.setattr(mint, "mint_client", mint_client)
        if what == "revoked":
            grants.revoke(stand.database, "to-west", actor="x", now=NOW)
        elif what == "removed":
            grants.remove(stand.database, "to-west", actor="x", now=NOW)
        else:
            with ThreadPoolExecutor(1) as other_process:
                other_process.submit(renew, stand, held.wish(later), overlap_seconds=0).result()
        return mint_client(*order, **options)

    monkeypatch.setattr(mint, "mint_client", meanwhile)
    with pytest.raises(Refused) as told:
        renew(stand, held.wish(a_key()))
    assert told.value.reason is {
        "revoked": Reason.CERTIFICATE_REVOKED,
        "removed": Reason.RENEWAL,
    }.get(what, Reason.CERTIFICATE_SUPERSEDED)
