import asyncio
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import event

from app import ambient
from app.crypto import keys
from app.crypto.facts import facts, verify_issued_by
from app.crypto.requests import make_request, read_request
from app.domain.certificates import KeyType, Minted
from app.domain.sites import Link, parse_endpoint
from app.errors import Invalid, Lack, Reason, Refused, Unready
from app.services import authorities, grants, issuance, rotation, sites
from app.services.issuance import Issuance, Policy, Trust
from app.store import authorities as authority_rows
from app.store.ledger import Found
from tests.builders import NOW, Stand, an_authority

TIMES = rotation.Times(wait_seconds=100, lifetime_seconds=100, retry_seconds=100)


@pytest.fixture
def west(stand: Stand) -> Stand:
    stand.set_site()
    return stand


def find(stand: Stand, grant_id: str) -> Found:
    ledger = stand.ledger()
    found = asyncio.run(ledger.find(grant_id))
    asyncio.run(ledger.close())
    assert found is not None
    return found


def links(made: Issuance, found: Found, name: str = "east") -> tuple[Link, ...]:
    return asyncio.run(made.links(found, name))


def hosts(made: Issuance, found: Found) -> list[str]:
    return [one.host for link in links(made, found) for one in link.endpoints]


def mint(made: Issuance, found: Found, name: str = "east", now: int = NOW) -> Minted:
    return asyncio.run(made.mint(found, name, now))


def statements(stand: Stand) -> list[str]:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    event.listen(stand.database._engine, "before_cursor_execute", note)
    return seen


def test_for_a_key_that_is_requested_none_is_made(west: Stand) -> None:
    key = keys.generate(KeyType.ED25519)
    requested = read_request(make_request(keys.to_pem(key), "whoever"))
    made, found = west.issuance(), find(west, west.make_grant().grant.id)
    minted = asyncio.run(made.mint(found, "east", NOW, requested))
    assert minted.key_pem == b""
    assert made._keys == []
    certificate = x509.load_pem_x509_certificate(minted.certificate_pem)
    assert certificate.public_key() == key.public_key()
    assert facts(minted.certificate_pem).subject == "CN=east"


def test_the_links_carry_the_grants_cost_and_the_sites_endpoints(west: Stand) -> None:
    found = find(west, west.make_grant(cost=7).grant.id)
    (link,) = links(west.issuance(), found)
    assert (link.name, link.cost) == ("east", 7)
    assert [one.port for one in link.endpoints] == [55671, 45671]


def test_endpoints_are_read_once_for_each_revision_of_their_site(west: Stand) -> None:
    made, grant_id = west.issuance(), west.make_grant().grant.id
    found, seen = find(west, grant_id), statements(west)
    for _ in range(3):
        assert hosts(made, found) == ["west.example"] * 2
    assert len(seen) == 1
    west.set_site("west", "edge=new.example:1")
    assert hosts(made, find(west, grant_id)) == ["new.example"]


def test_endpoints_of_a_removed_site_are_not_given_for_one_made_anew(west: Stand) -> None:
    made, first = west.issuance(), west.make_grant().grant
    assert hosts(made, find(west, first.id)) == ["west.example"] * 2
    grants.remove(west.database, first.id, actor="cli:test", now=NOW)
    sites.remove(west.database, name="west", actor="cli:test", now=NOW)
    west.set_site("west", "edge=new.example:1")
    assert hosts(made, find(west, west.make_grant().grant.id)) == ["new.example"]


def test_what_is_kept_of_sites_is_bounded(west: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuance, "_MOST_SITES_KEPT", 2)
    made = west.issuance()
    for name in ("a", "b", "c"):
        west.set_site(name, f"edge={name}.example:1")
        found = find(west, west.make_grant(site=name).grant.id)
        assert hosts(made, found) == [f"{name}.example"]
        assert len(made._endpoints) <= 2


def test_a_site_without_endpoints_is_not_ready_until_it_has_some(west: Stand) -> None:
    made, grant_id = west.issuance(), west.make_grant().grant.id
    sites.put(west.database, name="west", endpoints=[], issuer=None, actor="x", now=NOW)
    with pytest.raises(Unready) as unready:
        links(made, find(west, grant_id))
    assert unready.value.lack is Lack.ENDPOINTS
    west.set_site()
    assert links(made, find(west, grant_id))


def test_a_name_that_cannot_be_numbered_is_refused(west: Stand) -> None:
    two = [parse_endpoint("edge=h:1", group) for group in ("a", "b")]
    sites.put(west.database, name="west", endpoints=two, issuer=None, actor="x", now=NOW)
    found = find(west, west.make_grant().grant.id)
    with pytest.raises(Refused) as refused:
        links(west.issuance(), found, "a" * 253)
    assert refused.value.reason is Reason.NAME


@pytest.mark.parametrize(
    ("key_type", "words"),
    [(KeyType.P256, "EC P-256"), (KeyType.RSA_2048, "RSA 2048"), (KeyType.ED25519, "Ed25519")],
)
def test_a_certificate_is_minted_by_the_policy(west: Stand, key_type: KeyType, words: str) -> None:
    west.policy = Policy(key_type=key_type, lifetime_seconds=77)
    minted = mint(west.issuance(), find(west, west.make_grant().grant.id))
    found = facts(minted.certificate_pem)
    assert (found.subject, found.key, found.hosts) == ("CN=east", words, ())
    assert found.not_after == minted.not_after == NOW + 76
    assert (found.serial, found.fingerprint) == (minted.serial, minted.fingerprint)
    authority, _ = authorities.show(west.database, "site-ca")
    assert minted.ca_pem.decode() == authority.certificate_pem
    verify_issued_by(minted.certificate_pem, minted.ca_pem)
    certificate = x509.load_pem_x509_certificate(minted.certificate_pem)
    assert keys.load_private_key(minted.key_pem).public_key() == certificate.public_key()


def test_an_issuer_is_opened_once(west: Stand) -> None:
    made, found = west.issuance(), find(west, west.make_grant().grant.id)
    seen = statements(west)
    serials = {mint(made, found).serial for _ in range(3)}
    assert len(serials) == 3
    assert len(seen) == 1


def test_the_issuer_is_the_grants_own_else_the_sites_of_this_moment(west: Stand) -> None:
    for name in ("own-ca", "new-ca"):
        authorities.create(
            west.database,
            west.keyring,
            name=name,
            actor="cli:test",
            now=NOW,
            random_bytes=ambient.random_bytes,
        )
    made = west.issuance()
    plain = west.make_grant(name="plain").grant.id
    own = west.make_grant(name="own", issuer="own-ca").grant.id
    assert issuer_of(mint(made, find(west, plain))) == "CN=site-ca"
    assert issuer_of(mint(made, find(west, own))) == "CN=own-ca"
    west.set_site(issuer="new-ca")
    assert issuer_of(mint(made, find(west, plain))) == "CN=new-ca"
    assert issuer_of(mint(made, find(west, own))) == "CN=own-ca"


def issuer_of(minted: Minted) -> str:
    return facts(minted.certificate_pem).issuer


def test_the_certificates_of_an_authority_are_told_whether_it_can_still_sign_or_not(
    west: Stand,
) -> None:
    """Kept answers are written again with them."""
    with west.database.writing() as connection:
        gone = an_authority(name="gone", sealed_key=b"", origin="west/ca", certificate_pem="old\n")
        gone_id = authority_rows.add(connection, gone)
    found = find(west, west.make_grant().grant.id)
    ids = (found.issuer_id,)
    fresh, opened = west.issuance(), west.issuance()
    minted = mint(opened, found)
    assert trust(opened, found).issuer_ids == ids
    for made in (fresh, opened):
        assert asyncio.run(made.ca_pem(ids)) == minted.ca_pem
        assert asyncio.run(made.ca_pem((gone_id,))) == b"old\n"
        assert asyncio.run(made.ca_pem((*ids, gone_id))) == minted.ca_pem + b"old\n"
        with pytest.raises(Unready) as unready:
            asyncio.run(made.ca_pem((99,)))
        assert unready.value.lack is Lack.ISSUER


def trust(made: Issuance, found: Found) -> Trust:
    return asyncio.run(made.trust(found))


def rotate(west: Stand, now: int = NOW, **changes: Any) -> None:
    rotation.rotate(
        west.database, west.keyring, name="site-ca", actor="x", now=now, times=TIMES,
        random_bytes=ambient.random_bytes, **changes,
    )  # fmt: skip


def test_whom_to_trust_is_read_once_for_each_revision_of_a_site(west: Stand) -> None:
    made, found = west.issuance(), find(west, west.make_grant().grant.id)
    seen = statements(west)
    first = [trust(made, found) for _ in range(3)]
    assert len(seen) == 2
    assert first[0] is first[1] is first[2]
    assert "BEGIN" not in repr(first[0])


def test_every_replica_notices_each_step_of_a_rotation_by_the_claim_alone(west: Stand) -> None:
    plain = west.make_grant(name="plain").grant.id
    own = west.make_grant(name="own", issuer="site-ca").grant.id
    west.set_site("other")
    elsewhere = west.make_grant(site="other", name="led", issuer="site-ca").grant.id
    ids = (plain, own, elsewhere)
    replicas = [west.issuance(), west.issuance()]
    family: list[tuple[int, ...]] = []
    steps = (
        lambda: None,
        lambda: rotate(west),
        lambda: rotation.advance(west.database, times=TIMES, now=NOW + 100),
        lambda: rotation.advance(west.database, times=TIMES, now=NOW + 10**6),
    )
    for step in steps:
        step()
        for made in replicas:
            for grant_id in ids:
                found = find(west, grant_id)
                trusted = trust(made, found)
                minted = mint(made, found)
                verify_issued_by(minted.certificate_pem, trusted.ca_pem)
                assert trusted.issuer_ids[0] == found.issuer_id
                assert asyncio.run(made.ca_pem(trusted.issuer_ids)) == trusted.ca_pem
                if trusted.issuer_ids not in family:
                    family.append(trusted.issuer_ids)
    (old,), *_ = family
    (new,) = family[-1]
    assert family == [(old,), (old, new), (new, old), (new,)]


def test_a_claim_that_came_before_the_change_is_answered_by_the_old_one(west: Stand) -> None:
    """Others have spent its time in the queue; its key is there for a while."""
    made, found = west.issuance(), find(west, west.make_grant().grant.id)
    minted = mint(made, found)
    rotate(west, at_once=True)
    assert trust(made, find(west, found.grant.id)).issuer_ids[1] == found.issuer_id
    assert found.issuer_id not in made._issuers  # its key is needed no more
    again = mint(made, found)
    assert issuer_of(again) == issuer_of(minted)
    verify_issued_by(again.certificate_pem, trust(made, found).ca_pem)
    rotation.advance(west.database, times=TIMES, now=NOW + 10**6)
    assert trust(west.issuance(), found).issuer_ids[0] == found.issuer_id
    with pytest.raises(Unready) as unready:
        mint(west.issuance(), found)
    assert unready.value.lack is Lack.ISSUER


def test_what_is_kept_of_authorities_is_bounded(
    west: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuance, "_MOST_SITES_KEPT", 2)
    made = west.issuance()
    for number in range(4):
        authorities.create(
            west.database, west.keyring, name=f"ca-{number}", actor="x", now=NOW,
            random_bytes=ambient.random_bytes,
        )  # fmt: skip
        west.set_site(f"s{number}", issuer=f"ca-{number}")
        found = find(west, west.make_grant(site=f"s{number}").grant.id)
        assert trust(made, found).issuer_ids == (found.issuer_id,)
        assert len(made._trusts) <= 2
        assert len(made._bundles) <= 2


def test_a_certificate_never_outlives_its_issuer(west: Stand) -> None:
    west.policy = Policy(key_type=KeyType.P256, lifetime_seconds=10**9)
    found = find(west, west.make_grant().grant.id)
    authority, _ = authorities.show(west.database, "site-ca")
    assert mint(west.issuance(), found).not_after == authority.not_after


def test_an_expired_issuer_is_unready(west: Stand) -> None:
    found = find(west, west.make_grant().grant.id)
    authority, _ = authorities.show(west.database, "site-ca")
    made = west.issuance()
    mint(made, found, now=authority.not_after)
    with pytest.raises(Unready) as unready:
        mint(made, found, now=authority.not_after + 1)
    assert unready.value.lack is Lack.ISSUER


def test_a_policy_without_a_lifetime_mints_nothing(west: Stand) -> None:
    west.policy = Policy(key_type=KeyType.P256, lifetime_seconds=0)
    with pytest.raises(Invalid):
        mint(west.issuance(), find(west, west.make_grant().grant.id))


@pytest.mark.parametrize("key_type", KeyType)
def test_keys_that_are_made_ahead_are_each_handed_out_once(west: Stand, key_type: KeyType) -> None:
    west.policy = Policy(key_type=key_type, lifetime_seconds=77)
    made, found = west.issuance(), find(west, west.make_grant().grant.id)
    wanted = 3 if key_type is KeyType.RSA_2048 else 3 * issuance._KEYS_AT_ONCE + 1
    assert len({mint(made, found).key_pem for _ in range(wanted)}) == wanted
