import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from app import ambient
from app.errors import Conflict, Lack, Missing, Reason, Refused, Unavailable, Unready
from app.services import authorities, grants, rotation
from app.services.revocation_lists import LIFETIME_SECONDS, LOOK_SECONDS, RevocationLists, make
from app.services.rotation import Times
from app.store import authorities as authority_rows
from app.store.engine import Database
from tests.builders import NOW, Stand
from tests.services.renewals import OVERLAP, Held, a_key, redeem, renew

TIMES = Times(wait_seconds=0, lifetime_seconds=3600, retry_seconds=60)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    made = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(made, Database)
    return made


@pytest.fixture
def held(stand: Stand) -> Held:
    stand.set_site()
    return redeem(stand, stand.make_grant().grant)


def made(stand: Stand, name: str = "site-ca") -> x509.CertificateRevocationList:
    der = make(stand.database, stand.keyring, name, now=stand.clock.now)
    return x509.load_der_x509_crl(der)


def serials(revoked: x509.CertificateRevocationList) -> set[int]:
    return {one.serial_number for one in revoked}


def serial(held: Held) -> int:
    return int(held.facts.serial, 16)


class Ticks:
    """A monotonic clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lists(stand: Stand, ticks: Ticks | None = None) -> RevocationLists:
    return RevocationLists(
        database=stand.database,
        keyring=stand.keyring,
        clock=stand.clock,
        monotonic=ticks or Ticks(),
    )


def run(use: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await use()

    return asyncio.run(main())


def test_what_was_revoked_and_what_was_superseded_is_on_the_list(stand: Stand, held: Held) -> None:
    assert serials(made(stand)) == set()
    key = a_key()
    renewed = renew(stand, held.wish(key))
    assert serials(made(stand)) == set()  # both count for a while
    stand.clock.now = NOW + OVERLAP
    assert serials(made(stand)) == {serial(held)}
    grants.revoke(stand.database, "to-west", actor="x", now=NOW + OVERLAP)
    after = Held(certificate_pem=renewed.certificate_pem, key_pem=key)
    assert serials(made(stand)) == {serial(held), serial(after)}


def test_each_generation_signs_its_own_list_also_when_retired(stand: Stand, held: Held) -> None:
    rotation.rotate(
        stand.database, stand.keyring, name="site-ca", at_once=True, actor="x", now=NOW,
        times=TIMES, random_bytes=ambient.random_bytes,
    )  # fmt: skip
    key = a_key()
    renewed = renew(stand, held.wish(key))
    after = Held(certificate_pem=renewed.certificate_pem, key_pem=key)
    grants.revoke(stand.database, "to-west", actor="x", now=NOW)
    stand.clock.now = NOW + 1000
    rotation.advance(stand.database, times=TIMES, now=stand.clock.now)
    for name, expected in (("site-ca-1", serial(held)), ("site-ca", serial(after))):
        authority, _ = authorities.show(stand.database, name)
        issuer = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
        revoked = made(stand, name)
        assert revoked.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
        assert serials(revoked) == {expected}


def test_there_is_none_of_the_servers_own_ca_nor_of_one_that_is_not_there(stand: Stand) -> None:
    with pytest.raises(Missing):
        made(stand, "nosuch")
    with pytest.raises(Conflict):
        made(stand, "server-ca")
    for name in ("nosuch", "server-ca", "x" * 999):
        with pytest.raises(Refused) as refused:
            run(lambda name=name: lists(stand).get(name))  # type: ignore[misc]
        assert refused.value.reason is Reason.UNKNOWN_AUTHORITY


def test_one_whose_key_is_gone_cannot_sign_one(stand: Stand, held: Held) -> None:
    del held
    with stand.database.writing() as connection:
        authority = authority_rows.by_name(connection, "site-ca")
        assert authority is not None
        authority_rows.change(connection, replace(authority, sealed_key=b""))
    with pytest.raises(Unready) as unready:
        run(lambda: lists(stand).get("site-ca"))
    assert unready.value.lack is Lack.ISSUER


def test_a_list_is_kept_and_made_anew_when_something_was_revoked(stand: Stand, held: Held) -> None:
    ticks = Ticks()
    kept = lists(stand, ticks)

    async def use() -> None:
        first = await kept.get("site-ca")
        grants.revoke(stand.database, "to-west", actor="x", now=NOW)
        ticks.now = LOOK_SECONDS - 0.1
        assert await kept.get("site-ca") == first
        ticks.now = LOOK_SECONDS
        stand.clock.now = NOW + 10
        second = await kept.get("site-ca")
        assert serials(x509.load_der_x509_crl(second)) == {serial(held)}
        ticks.now += LOOK_SECONDS
        stand.clock.now = NOW + 20
        assert await kept.get("site-ca") == second  # nothing else was revoked

    run(use)


def test_a_list_is_made_anew_when_half_its_time_is_over_with_a_higher_number(
    stand: Stand, held: Held
) -> None:
    del held
    ticks = Ticks()
    kept = lists(stand, ticks)

    async def use() -> None:
        numbers = []
        for passed in (0, LIFETIME_SECONDS // 2 - 1, LIFETIME_SECONDS // 2):
            stand.clock.now = NOW + passed
            ticks.now += LOOK_SECONDS
            read = x509.load_der_x509_crl(await kept.get("site-ca"))
            number = read.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            numbers.append(number - NOW)
        assert numbers == [0, 0, LIFETIME_SECONDS // 2]

    run(use)


def test_the_database_is_asked_once_however_many_ask_at_once(
    stand: Stand, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    del held
    looks = []
    reading = Database.reading

    def counted(database: Database, *purpose: Any) -> Any:
        looks.append(1)
        return reading(database, *purpose)

    monkeypatch.setattr(Database, "reading", counted)
    kept = lists(stand)

    async def use() -> list[bytes]:
        return await asyncio.gather(*(kept.get("site-ca") for _ in range(50)))

    assert len(set(run(use))) == 1
    assert len(looks) == 1


def test_what_fails_is_not_kept(stand: Stand, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    del held
    kept = lists(stand)

    def away(*_: object) -> None:
        raise Unavailable("away")

    async def use() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Database, "reading", away)
            with pytest.raises(Unavailable):
                await kept.get("site-ca")
        assert await kept.get("site-ca")

    run(use)


def test_a_name_that_another_generation_has_taken_gives_the_list_of_that_one(
    stand: Stand, held: Held
) -> None:
    del held
    ticks = Ticks()
    kept = lists(stand, ticks)

    async def use() -> None:
        await kept.get("site-ca")
        rotation.rotate(
            stand.database, stand.keyring, name="site-ca", at_once=True, actor="x", now=NOW,
            times=TIMES, random_bytes=ambient.random_bytes,
        )  # fmt: skip
        ticks.now = LOOK_SECONDS
        signed = x509.load_der_x509_crl(await kept.get("site-ca"))
        authority, _ = authorities.show(stand.database, "site-ca")
        issuer = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
        assert signed.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]

    run(use)
