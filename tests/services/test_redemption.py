import asyncio
import base64
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app import ambient
from app.crypto import der, keys, mint
from app.crypto.facts import facts, verify_issued_by
from app.crypto.keys import PrivateKey, to_pem
from app.crypto.requests import make_request
from app.crypto.sealing import load_or_create
from app.domain import policies
from app.domain.audit import Act
from app.domain.authorities import SPREAD_SECONDS
from app.domain.certificates import KeyType
from app.domain.grants import Claim, Grant, Redemption, State
from app.domain.kept_answers import KeptAnswer, unpacked
from app.domain.limits import Allowance
from app.domain.names import common_name
from app.domain.policies import Policy
from app.domain.prospects import Obstacle
from app.errors import Broken, GrantServerError, Lack, Reason, Refused, Unavailable, Unready
from app.metrics import Stage
from app.services import audit, authorities, grants, redemption, rotation, sites, theft
from app.services.redemption import Inspection, Redeemed, Redeemer
from app.services.theft import TheftAlarm
from app.store import schema
from app.store.sqlite_ledger import SqliteLedger
from tests.builders import CODE, NOW, SUBJECT, WINDOW, Stand, a_claim

LONG = "a" * 100


@pytest.fixture
def west(stand: Stand) -> Stand:
    stand.set_site()
    return stand


@pytest.fixture
def grant(west: Stand) -> Grant:
    return west.make_grant(cost=3).grant


def sites_asking(grant: Grant, count: int) -> list[Claim]:
    """Claims of different sites: none of them repeats another."""
    subjects = [SUBJECT[:-3] + f"{number:03}" for number in range(count)]
    return [a_claim(key=grant.id, subject=subject) for subject in subjects]


def sqlite_of(redeemer: Redeemer) -> SqliteLedger:
    assert isinstance(redeemer.ledger, SqliteLedger)
    return redeemer.ledger


def in_turn(stand: Stand, *claims: Claim, **changes: Any) -> list[Redeemed | Exception]:
    """Redeem claims one after the other with one redeemer."""

    async def main() -> list[Redeemed | Exception]:
        redeemer = stand.redeemer(**changes)
        answers: list[Redeemed | Exception] = []
        for claim in claims:
            try:
                answers.append(await redeemer.redeem(claim))
            except Exception as error:  # noqa: BLE001 - the outcome is what is looked at
                answers.append(error)
        await redeemer.ledger.close()
        return answers

    return asyncio.run(main())


def redeem(stand: Stand, claim: Claim, **changes: Any) -> Redeemed:
    (answer,) = in_turn(stand, claim, **changes)
    if isinstance(answer, Exception):
        raise answer
    return answer


def inspect(stand: Stand, claim: Claim) -> Inspection:
    async def main() -> Inspection:
        redeemer = stand.redeemer()
        try:
            return await redeemer.inspect(claim)
        finally:
            await redeemer.ledger.close()

    return asyncio.run(main())


def reason(stand: Stand, claim: Claim) -> Reason:
    with pytest.raises(Refused) as refused:
        redeem(stand, claim)
    assert CODE not in str(refused.value)
    return refused.value.reason


def redemptions(stand: Stand, grant: Grant) -> list[Redemption]:
    return list(grants.show(stand.database, grant.id)[1])


def assert_whole(stand: Stand, grant: Grant) -> None:
    assert grants.show(stand.database, grant.id) == (grant, [])
    target = f"grant/{grant.id}"
    told = [one.act for one in audit.latest(stand.database, limit=9, target=target)]
    assert [act for act in told if act is not Act.GRANT_REFUSED] == [Act.GRANT_CREATED]


def test_a_redemption_gives_secret_and_links_and_writes_down_what_it_gave(
    west: Stand, grant: Grant
) -> None:
    redeemed = redeem(west, a_claim(key=grant.id))
    secret, link = yaml.safe_load_all(redeemed.bundle)
    data = {name: base64.b64decode(text) for name, text in secret["data"].items()}
    certificate = x509.load_pem_x509_certificate(data["tls.crt"])
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    authority, _ = authorities.show(west.database, "site-ca")
    found = facts(data["tls.crt"])

    assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", "east")
    assert found.subject == f"CN={SUBJECT}"
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert found.hosts == ()
    assert data["ca.crt"].decode() == authority.certificate_pem
    verify_issued_by(data["tls.crt"], authority.certificate_pem.encode())
    assert keys.load_private_key(data["tls.key"]).public_key() == certificate.public_key()

    assert (link["kind"], link["metadata"]["name"]) == ("Link", "east")
    assert (link["spec"]["cost"], link["spec"]["tlsCredentials"]) == (3, "east")
    assert [one["port"] for one in link["spec"]["endpoints"]] == ["55671", "45671"]

    expected = Redemption(
        grant_id=grant.id,
        ordinal=1,
        name="east",
        subject=SUBJECT,
        peer="192.0.2.7",
        serial=found.serial,
        fingerprint=found.fingerprint,
        not_after=found.not_after,
        redeemed_at=NOW,
        issuer_id=authority.id,
    )
    assert (redeemed.name, redeemed.subject) == (expected.name, expected.subject)
    assert (redeemed.ordinal, redeemed.serial) == (expected.ordinal, expected.serial)
    assert redeemed.grant == grant
    assert grants.show(west.database, grant.id) == (replace(grant, spent=1), [expected])
    assert "PRIVATE" not in repr(redeemed)


def test_each_redemption_has_its_own_key_serial_and_ordinal(west: Stand, grant: Grant) -> None:
    answers = in_turn(west, *sites_asking(grant, 3))
    *won, lost = answers
    assert [one.ordinal for one in won if isinstance(one, Redeemed)] == [1, 2]
    keys_given = {
        next(iter(yaml.safe_load_all(one.bundle)))["data"]["tls.key"]
        for one in won
        if isinstance(one, Redeemed)
    }
    assert len(keys_given) == 2
    assert isinstance(lost, Refused)
    assert lost.reason is Reason.USED_UP


@pytest.mark.parametrize(
    ("name", "subject", "used_name", "used_subject"),
    [
        ("east", "Zone 1", "east", "Zone 1"),
        ("east", None, "east", "east"),
        ("east", "", "east", "east"),
        (None, "me", "to-west", "me"),
        (None, None, "to-west", "to-west"),
        ("", "", "to-west", "to-west"),
        ("east.example", "\u00e9", "east.example", "\u00e9"),
        (LONG, None, LONG, LONG),
        ("east", "b" * 253, "east", "b" * 253),
    ],
)
def test_name_falls_back_to_the_grants_and_subject_to_the_name(
    west: Stand,
    grant: Grant,
    name: str | None,
    subject: str | None,
    used_name: str,
    used_subject: str,
) -> None:
    redeemed = redeem(west, a_claim(key=grant.id, name=name, subject=subject))
    secret, link = yaml.safe_load_all(redeemed.bundle)
    assert secret["metadata"]["name"] == link["metadata"]["name"] == used_name
    assert (redeemed.name, redeemed.subject) == (used_name, used_subject)
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    (attribute,) = certificate.subject
    assert attribute.value == common_name(used_subject)


def test_several_groups_of_endpoints_give_numbered_links(west: Stand, grant: Grant) -> None:
    west.set_site()
    endpoints = [
        replace(one, group=group)
        for group in ("b", "a")
        for one in sites.show(west.database, "west").endpoints
    ]
    sites.put(west.database, name="west", endpoints=endpoints, issuer=None, actor="x", now=NOW)
    bodies = [
        list(yaml.safe_load_all(one.bundle))[1:]
        for one in in_turn(west, *sites_asking(grant, 2))
        if isinstance(one, Redeemed)
    ]
    assert bodies[0] == bodies[1]
    assert [link["metadata"]["name"] for link in bodies[0]] == ["east-1", "east-2"]
    assert [link["spec"]["endpoints"][0]["group"] for link in bodies[0]] == ["a", "b"]


def test_a_site_that_was_changed_is_seen_by_the_next_redemption(west: Stand, grant: Grant) -> None:
    async def main() -> list[str]:
        redeemer = west.redeemer()
        seen: list[str] = []
        for text in ("edge=one.example:1", "edge=two.example:2"):
            west.set_site("west", text)
            answer = await redeemer.redeem(a_claim(key=grant.id, name=f"from-{len(seen)}"))
            _, link = yaml.safe_load_all(answer.bundle)
            seen.append(link["spec"]["endpoints"][0]["host"])
        await redeemer.ledger.close()
        return seen

    assert asyncio.run(main()) == ["one.example", "two.example"]


def test_a_grant_is_redeemed_by_site_and_name_as_well(west: Stand, grant: Grant) -> None:
    assert redeem(west, a_claim(key="west/to-west")).grant == grant
    for key in (
        "west/other",
        "south/to-west",
        "/to-west",
        "west/",
        "/",
        "west/to-west/",
        "to-west",
    ):
        assert reason(west, a_claim(key=key)) is Reason.UNKNOWN_GRANT


# Refusals.


def revoke(stand: Stand, grant: Grant) -> None:
    grants.revoke(stand.database, grant.id, actor="x", now=NOW)


def expire(stand: Stand, _: Grant) -> None:
    stand.clock.now = NOW + WINDOW


def use_up(stand: Stand, grant: Grant) -> None:
    assert all(isinstance(one, Redeemed) for one in in_turn(stand, *sites_asking(grant, 2)))


def remove(stand: Stand, grant: Grant) -> None:
    grants.remove(stand.database, grant.id, actor="x", now=NOW)


def spend_all(stand: Stand, _: Grant) -> None:
    with stand.database.writing() as connection:
        connection.exec_driver_sql("UPDATE grants SET spent = allowed")


def nothing(_stand: Stand, _grant: Grant) -> None:
    pass


ENDS: tuple[tuple[Callable[[Stand, Grant], None], Reason], ...] = (
    (revoke, Reason.REVOKED),
    (expire, Reason.EXPIRED),
    (use_up, Reason.USED_UP),
)


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forbid from now on that a key is made."""

    def fail(*_: object) -> None:
        pytest.fail("something was minted")

    return lambda: monkeypatch.setattr(keys, "generate", fail)


@pytest.mark.parametrize(("end", "expected"), ENDS)
def test_a_grant_that_is_over_is_refused_before_anything_is_minted(
    west: Stand,
    grant: Grant,
    no_keys: Callable[[], None],
    end: Callable[[Stand, Grant], None],
    expected: Reason,
) -> None:
    end(west, grant)
    no_keys()
    before = redemptions(west, grant)
    assert reason(west, a_claim(key=grant.id)) is expected
    # The state comes before what is wrong with the claim, and the code before the state.
    assert reason(west, a_claim(key=grant.id, name="../x", subject="\x00")) is expected
    wrong = a_claim(key=grant.id, presented_code=b"wrong", name="../x")
    assert reason(west, wrong) is Reason.WRONG_CODE
    assert redemptions(west, grant) == before


@pytest.mark.parametrize("end", [nothing, revoke, expire, use_up])
@pytest.mark.parametrize("code", [b"", b"wrong", CODE.encode() + b"\n", CODE.lower().encode()])
def test_a_wrong_code_is_refused_alike_whatever_has_become_of_the_grant(
    west: Stand, grant: Grant, end: Callable[[Stand, Grant], None], code: bytes
) -> None:
    end(west, grant)
    assert reason(west, a_claim(key=grant.id, presented_code=code)) is Reason.WRONG_CODE


def test_a_grant_that_nobody_knows_is_refused_with_or_without_its_code(
    west: Stand, grant: Grant
) -> None:
    remove(west, grant)
    for code in (CODE.encode(), b"wrong", b""):
        assert reason(west, a_claim(key=grant.id, presented_code=code)) is Reason.UNKNOWN_GRANT


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "../x"}, Reason.NAME),
        ({"name": "East"}, Reason.NAME),
        ({"name": "a" * 254}, Reason.NAME),
        ({"name": "a\nb"}, Reason.NAME),
        ({"subject": "a\nb"}, Reason.SUBJECT),
        ({"subject": "a" * 254}, Reason.SUBJECT),
        ({"subject": "\ud800"}, Reason.SUBJECT),
        ({"name": "../x", "subject": "\x00"}, Reason.NAME),
    ],
)
def test_a_claim_that_cannot_be_served_is_refused_and_costs_nothing(
    west: Stand,
    grant: Grant,
    no_keys: Callable[[], None],
    changes: dict[str, str],
    expected: Reason,
) -> None:
    no_keys()
    assert reason(west, a_claim(key=grant.id, **changes)) is expected
    assert_whole(west, grant)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (revoke, Reason.REVOKED),
        (spend_all, Reason.USED_UP),
        (remove, Reason.UNKNOWN_GRANT),
    ],
)
def test_what_happens_while_it_is_minted_is_decided_by_the_ledger(
    west: Stand,
    grant: Grant,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Stand, Grant], None],
    expected: Reason,
) -> None:
    """The judgement let the claim pass; the grant came to its end during the signature."""
    sign = mint.sign

    def sign_slowly(*arguments: Any) -> bytes:
        monkeypatch.setattr(mint, "sign", sign)
        end(west, grant)
        return sign(*arguments)

    monkeypatch.setattr(mint, "sign", sign_slowly)
    assert reason(west, a_claim(key=grant.id)) is expected


# Faults before the spend. Each breaks something on entry and mends it on exit.

Fault = Callable[[Stand, Redeemer, pytest.MonkeyPatch], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def no_endpoints(stand: Stand, *_: object) -> Iterator[None]:
    sites.put(stand.database, name="west", endpoints=[], issuer=None, actor="x", now=NOW)
    yield
    stand.set_site()


@contextlib.contextmanager
def issuer_missing(stand: Stand, *_: object) -> Iterator[None]:
    with contextlib.closing(stand.database.sqlite.take_connection()) as raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        row = raw.execute("SELECT * FROM authorities WHERE name = 'site-ca'").fetchone()
        raw.execute("DELETE FROM authorities WHERE name = 'site-ca'")
        yield
        raw.execute(f"INSERT INTO authorities VALUES ({', '.join('?' * len(row))})", row)


@contextlib.contextmanager
def issuer_key_corrupted(stand: Stand, *_: object) -> Iterator[None]:
    with contextlib.closing(stand.database.sqlite.take_connection()) as raw:
        query = "SELECT sealed_key FROM authorities WHERE name = 'site-ca'"
        (sealed,) = raw.execute(query).fetchone()
        update = "UPDATE authorities SET sealed_key = ? WHERE name = 'site-ca'"
        raw.execute(update, (sealed[:-1] + bytes([sealed[-1] ^ 1]),))
        yield
        raw.execute(update, (sealed,))


@contextlib.contextmanager
def issuer_certificate_corrupted(stand: Stand, *_: object) -> Iterator[None]:
    with contextlib.closing(stand.database.sqlite.take_connection()) as raw:
        query = "SELECT certificate_pem FROM authorities WHERE name = 'site-ca'"
        (pem,) = raw.execute(query).fetchone()
        update = "UPDATE authorities SET certificate_pem = ? WHERE name = 'site-ca'"
        raw.execute(update, (pem[:200],))
        yield
        raw.execute(update, (pem,))


@contextlib.contextmanager
def foreign_key_file(
    stand: Stand, redeemer: Redeemer, _patch: pytest.MonkeyPatch
) -> Iterator[None]:
    other = Path(stand.keyring.path).with_name("other.keys")
    redeemer.issuance.keyring = load_or_create(other, ambient.random_bytes)
    yield
    redeemer.issuance.keyring = stand.keyring


@contextlib.contextmanager
def issuer_expired(stand: Stand, *_: object) -> Iterator[None]:
    stand.clock.now = NOW + authorities.DEFAULT_LIFETIME_SECONDS + 1
    yield
    stand.clock.now = NOW


@contextlib.contextmanager
def issuer_not_valid_yet(stand: Stand, *_: object) -> Iterator[None]:
    stand.clock.now = NOW - 10_000
    yield
    stand.clock.now = NOW


@contextlib.contextmanager
def key_generation_failing(_stand: Stand, _: object, patch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise RuntimeError("no entropy")

    with patch.context() as broken:
        broken.setattr(keys, "generate", fail)
        yield


@contextlib.contextmanager
def signer_failing(_stand: Stand, _: object, patch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise RuntimeError("the signer is away")

    with patch.context() as broken:
        broken.setattr(mint, "sign", fail)
        yield


@contextlib.contextmanager
def inspection_failing(_stand: Stand, _: object, patch: pytest.MonkeyPatch) -> Iterator[None]:
    sign = mint.sign
    with patch.context() as broken:
        broken.setattr(
            mint,
            "sign",
            lambda issuer, order: sign(issuer, replace(order, subject_der=der.name("mallory"))),
        )
        yield


@contextlib.contextmanager
def randomness_failing(
    _stand: Stand, redeemer: Redeemer, _patch: pytest.MonkeyPatch
) -> Iterator[None]:
    redeemer.issuance.random_bytes = lambda count: bytes(count - 1)
    yield
    redeemer.issuance.random_bytes = ambient.random_bytes


@contextlib.contextmanager
def disk_full(_stand: Stand, redeemer: Redeemer, _patch: pytest.MonkeyPatch) -> Iterator[None]:
    writer = sqlite_of(redeemer)._writer
    assert writer is not None
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    filler = "INSERT INTO audit (at, act, actor, target, details) VALUES (0, 'x', 'x', 'x', ?)"
    for size in (3000, 300, 30, 1):
        with contextlib.suppress(sqlite3.OperationalError):
            while True:
                writer.execute(filler, ("x" * size,))
    yield
    writer.execute("PRAGMA max_page_count = 1000000")
    writer.execute("DELETE FROM audit WHERE act = 'x'")


@contextlib.contextmanager
def database_away(_stand: Stand, redeemer: Redeemer, _patch: pytest.MonkeyPatch) -> Iterator[None]:
    reader = sqlite_of(redeemer)._reader
    sqlite_of(redeemer)._reader = sqlite3.connect(":memory:")
    yield
    sqlite_of(redeemer)._reader.close()
    sqlite_of(redeemer)._reader = reader


@contextlib.contextmanager
def code_key_lost(_stand: Stand, redeemer: Redeemer, _patch: pytest.MonkeyPatch) -> Iterator[None]:
    kept = dict(redeemer.code_keys)
    assert isinstance(redeemer.code_keys, dict)
    redeemer.code_keys.clear()
    redeemer.code_keys["ffffffff"] = b"x" * 32
    yield
    redeemer.code_keys.clear()
    redeemer.code_keys.update(kept)


FAULTS: tuple[tuple[Fault, type[Exception], Lack | None], ...] = (
    (no_endpoints, Unready, Lack.ENDPOINTS),
    (issuer_missing, Unready, Lack.ISSUER),
    (issuer_key_corrupted, Unready, Lack.ISSUER),
    (issuer_certificate_corrupted, Unready, Lack.ISSUER),
    (foreign_key_file, Unready, Lack.ISSUER),
    (issuer_expired, Unready, Lack.ISSUER),
    (issuer_not_valid_yet, Unready, Lack.ISSUER),
    (key_generation_failing, RuntimeError, None),
    (signer_failing, RuntimeError, None),
    (inspection_failing, Broken, None),
    (randomness_failing, Broken, None),
    (disk_full, Unavailable, None),
    (database_away, Unavailable, None),
    (code_key_lost, Broken, None),
)


@pytest.mark.parametrize(("fault", "expected", "lack"), FAULTS)
def test_a_failure_before_the_spend_leaves_the_grant_whole(
    west: Stand,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    expected: type[Exception],
    lack: Lack | None,
) -> None:
    grant = west.make_grant(window_seconds=20 * 365 * 86400, redemptions=1).grant
    claim = a_claim(key=grant.id)

    async def main() -> Redeemed:
        redeemer = west.redeemer(code_keys=dict(west.code_keys))
        with fault(west, redeemer, monkeypatch):
            for _ in range(2):
                with pytest.raises(expected) as failed:
                    await redeemer.redeem(claim)
                assert getattr(failed.value, "lack", None) is lack
                assert CODE not in str(failed.value)
                assert_whole(west, grant)
        redeemed = await redeemer.redeem(claim)
        await redeemer.ledger.close()
        return redeemed

    assert asyncio.run(main()).ordinal == 1
    assert len(redemptions(west, grant)) == 1


def test_nothing_leaves_when_the_commit_fails(
    west: Stand, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(SqliteLedger, "_begin", fail)
    (answer,) = in_turn(west, a_claim(key=grant.id))
    assert isinstance(answer, Unavailable)
    assert_whole(west, grant)


# Many at once.


def test_a_grant_of_seven_under_sixty_claims_gives_seven_bundles(west: Stand) -> None:
    grant = west.make_grant(redemptions=7).grant

    async def main() -> list[Redeemed | BaseException]:
        redeemer = west.redeemer()
        claims = [
            a_claim(key=grant.id, subject=f"site-{number}", name=f"n{number}")
            for number in range(60)
        ]
        answers = await asyncio.gather(*map(redeemer.redeem, claims), return_exceptions=True)
        await redeemer.ledger.close()
        return answers

    answers = asyncio.run(main())
    won = [one for one in answers if isinstance(one, Redeemed)]
    lost = [one for one in answers if isinstance(one, GrantServerError)]
    assert Counter(getattr(one, "reason", None) for one in lost) == {Reason.USED_UP: 53}
    assert len(won) == 7
    rows = redemptions(west, grant)
    assert len({row.serial for row in rows}) == len(rows) == 7
    by_subject = {row.subject: row for row in rows}
    for one in won:
        secret = next(iter(yaml.safe_load_all(one.bundle)))
        pem = base64.b64decode(secret["data"]["tls.crt"])
        verify_issued_by(pem, base64.b64decode(secret["data"]["ca.crt"]))
        row = by_subject[one.subject]
        assert facts(pem).serial == row.serial
        assert facts(pem).subject == f"CN={row.subject}"


# A claim that comes again, because its answer was lost.


def outcome(answer: Redeemed | Exception) -> object:
    return answer.reason if isinstance(answer, Refused) else answer


def test_the_same_claim_gets_the_same_bytes_and_is_counted_once(west: Stand, grant: Grant) -> None:
    first, second = in_turn(west, *[a_claim(key=grant.id)] * 2)
    third = redeem(west, a_claim(key="west/to-west", peer="198.51.100.1"))  # after a restart
    assert isinstance(first, Redeemed)
    for again in (second, third):
        assert isinstance(again, Redeemed)
        assert again.bundle == first.bundle
        assert (again.ordinal, again.serial) == (1, None)
    assert len(redemptions(west, grant)) == 1


def rotate_by_steps(west: Stand) -> Iterator[None]:
    """Prepared, active, and then the old authority ends; all within the window of answers."""
    wait, lifetime = 10, 20
    times = rotation.Times(wait_seconds=wait, lifetime_seconds=lifetime, retry_seconds=10)
    rotation.rotate(
        west.database, west.keyring, name="site-ca", times=times, actor="x", now=NOW,
        random_bytes=ambient.random_bytes,
    )  # fmt: skip
    yield
    for now in (NOW + wait, NOW + wait + lifetime + SPREAD_SECONDS):
        while rotation.advance(west.database, times=times, now=now):
            pass
        yield


def test_an_answer_stays_what_it_was_through_a_rotation_and_a_new_one_says_whom_to_trust(
    west: Stand,
) -> None:
    """Each step is seen by a server that runs, and by one that has just begun."""
    west.policy = replace(west.policy, lifetime_seconds=20)
    grant = west.make_grant(redemptions=9).grant
    claims = iter(sites_asking(grant, 9))

    async def main() -> None:
        redeemer = west.redeemer()
        given: list[tuple[Claim, Redeemed]] = []
        bundles: list[bytes] = []
        steps = rotate_by_steps(west)
        for _ in range(4):
            claim = next(claims)
            first = await redeemer.redeem(claim)
            given.append((claim, first))
            secret = next(yaml.safe_load_all(first.bundle))["data"]
            ca_pem = base64.b64decode(secret["ca.crt"])
            verify_issued_by(base64.b64decode(secret["tls.crt"]), ca_pem)
            bundles.append(ca_pem)
            for served in (redeemer, west.redeemer()):
                for asked, told in given:
                    again = await served.redeem(asked)
                    assert again.bundle == told.bundle
                    assert again.serial is None
                if served is not redeemer:
                    await served.ledger.close()
            next(steps, None)
        await redeemer.ledger.close()
        old, old_new, new_old, new = bundles
        assert old_new == old + new
        assert new_old == new + old
        assert old != new

    asyncio.run(main())


def test_a_lost_answer_is_given_again_before_used_up_or_expired_is_said(west: Stand) -> None:
    grant = west.make_grant(redemptions=1, window_seconds=100).grant
    west.clock.now = NOW + 99
    first = redeem(west, a_claim(key=grant.id))
    west.clock.now = NOW + 300
    assert redeem(west, a_claim(key=grant.id)).bundle == first.bundle
    (other,) = in_turn(west, a_claim(key=grant.id, name="other"))
    assert outcome(other) is Reason.EXPIRED


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"subject": "other"},
        {"subject": SUBJECT[:-1] + "0"},
        {"name": None},
    ],
)
def test_a_claim_that_differs_is_another_one(
    west: Stand, grant: Grant, changes: dict[str, Any]
) -> None:
    in_turn(west, a_claim(key=grant.id), a_claim(key=grant.id, **changes))
    assert len(redemptions(west, grant)) == 2


@pytest.mark.parametrize(
    ("subject", "counted"), [(SUBJECT, 1), (SUBJECT.upper(), 1), ("west", 2), (SUBJECT + "0", 2)]
)
def test_a_subject_that_two_sites_may_share_is_told_apart_by_address(
    west: Stand, grant: Grant, subject: str, counted: int
) -> None:
    claims = [a_claim(key=grant.id, subject=subject, peer=peer) for peer in ("::1", "::2")]
    in_turn(west, *claims)
    assert len(redemptions(west, grant)) == counted


def test_the_window_ends_to_the_second(west: Stand, grant: Grant) -> None:
    for now, counted in ((NOW, 1), (NOW + 599, 1), (NOW + 600, 2), (NOW + 1199, 2)):
        west.clock.now = now
        redeem(west, a_claim(key=grant.id))
        assert len(redemptions(west, grant)) == counted


def test_without_a_window_every_claim_counts(west: Stand, grant: Grant) -> None:
    claims = [a_claim(key=grant.id)] * 3
    answers = in_turn(west, *claims, retry_seconds=0)
    assert outcome(answers[2]) is Reason.USED_UP
    assert len(redemptions(west, grant)) == 2


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("revoked_at", Reason.CERTIFICATE_REVOKED),
        ("superseded_at", Reason.CERTIFICATE_SUPERSEDED),
    ],
)
def test_a_certificate_that_counts_no_more_is_not_given_again(
    west: Stand, grant: Grant, column: str, reason: Reason
) -> None:
    claim = a_claim(key=grant.id)
    redeem(west, claim)
    with west.database.writing() as connection:
        connection.execute(sqlalchemy.text(f"UPDATE redemptions SET {column} = {NOW}"))
    (answer,) = in_turn(west, claim)
    assert outcome(answer) is reason
    assert len(redemptions(west, grant)) == 1


def test_a_revoked_grant_gives_nothing_again(west: Stand, grant: Grant) -> None:
    redeem(west, a_claim(key=grant.id))
    revoke(west, grant)
    (answer,) = in_turn(west, a_claim(key=grant.id))
    assert outcome(answer) is Reason.REVOKED


@pytest.mark.parametrize(
    ("end", "expected"), [(revoke, Reason.REVOKED), (remove, Reason.UNKNOWN_GRANT)]
)
def test_an_answer_is_not_given_again_when_the_grant_ends_at_that_moment(
    west: Stand,
    grant: Grant,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Stand, Grant], None],
    expected: Reason,
) -> None:
    """It was found in force, and is told what a claim that comes a moment later is told."""
    redeem(west, a_claim(key=grant.id))

    def unpack_slowly(packed: bytes) -> KeptAnswer:
        end(west, grant)
        return unpacked(packed)

    monkeypatch.setattr(redemption, "unpacked", unpack_slowly)
    (answer,) = in_turn(west, a_claim(key=grant.id))
    assert outcome(answer) is expected


def test_a_wrong_code_gets_nothing_again(west: Stand, grant: Grant) -> None:
    redeem(west, a_claim(key=grant.id))
    (answer,) = in_turn(west, a_claim(key=grant.id, presented_code=b"wrong"))
    assert outcome(answer) is Reason.WRONG_CODE


@pytest.mark.parametrize("allowed", [1, 9])
def test_copies_of_one_claim_at_the_same_moment_are_one_redemption(
    west: Stand, allowed: int
) -> None:
    grant = west.make_grant(redemptions=allowed).grant

    async def main() -> list[Redeemed]:
        redeemers = [west.redeemer(), west.redeemer()]
        claim = a_claim(key=grant.id)
        answers = await asyncio.gather(*[redeemers[n % 2].redeem(claim) for n in range(8)])
        for redeemer in redeemers:
            await redeemer.ledger.close()
        return answers

    answers = asyncio.run(main())
    assert len({answer.bundle for answer in answers}) == 1
    assert [answer.serial is not None for answer in answers].count(True) == 1
    assert len(redemptions(west, grant)) == 1


def test_a_claim_of_before_a_rotation_is_recognised_after_it(west: Stand, grant: Grant) -> None:
    first = redeem(west, a_claim(key=grant.id))
    salts = {"ffffffff": b"\xff" * 32, **west.keyring.derive("kept answers")}
    codes_ = {"ffffffff": b"\xff" * 32, **west.code_keys}
    again = redeem(west, a_claim(key=grant.id), answer_salts=salts, code_keys=codes_)
    assert again.bundle == first.bundle


def test_the_database_alone_holds_no_key_of_an_answer(west: Stand, grant: Grant) -> None:
    answer = redeem(west, a_claim(key=grant.id))
    secret = next(iter(yaml.safe_load_all(answer.bundle)))
    private = base64.b64decode(secret["data"]["tls.key"])
    scalar = keys.load_private_key(private)
    kept = b"".join(path.read_bytes() for path in west.database.sqlite.path.parent.glob("*.db*"))
    assert kept
    for form in (
        private,
        private.split(b"\n")[1],
        secret["data"]["tls.key"].encode()[:60],
        base64.b64decode(b"".join(private.split(b"\n")[1:-2]))[-60:],
    ):
        assert form not in kept
    assert "PRIVATE" not in repr((answer, scalar))


# Looking without using.


def test_the_holder_of_the_code_sees_what_is_left_and_uses_nothing(
    west: Stand, grant: Grant
) -> None:
    redeem(west, a_claim(key=grant.id))
    (first,) = redemptions(west, grant)
    west.clock.now = NOW + 5
    for key in (grant.id, "west/to-west"):
        seen = inspect(west, a_claim(key=key))
        assert seen == Inspection(grant=replace(grant, spent=1), redemptions=(first,), now=NOW + 5)
    assert len(redemptions(west, grant)) == 1


@pytest.mark.parametrize(
    ("end", "state"),
    [(revoke, State.REVOKED), (expire, State.EXPIRED), (use_up, State.USED_UP)],
)
def test_a_grant_that_is_over_can_still_be_looked_at(
    west: Stand, grant: Grant, end: Callable[[Stand, Grant], None], state: State
) -> None:
    end(west, grant)
    seen = inspect(west, a_claim(key=grant.id))
    assert seen.grant.state(seen.now) is state


def test_nobody_else_sees_anything(west: Stand, grant: Grant) -> None:
    for changes, expected in (
        ({"presented_code": b"wrong"}, Reason.WRONG_CODE),
        ({"presented_code": b""}, Reason.WRONG_CODE),
        ({"key": "x"}, Reason.UNKNOWN_GRANT),
    ):
        with pytest.raises(Refused) as refused:
            inspect(west, a_claim(**{"key": grant.id, **changes}))
        assert refused.value.reason is expected


def test_the_newest_twenty_redemptions_are_shown(west: Stand) -> None:
    grant = west.make_grant(redemptions=200).grant

    async def main() -> Inspection:
        redeemer = west.redeemer()
        claims = sites_asking(grant, 23)
        await asyncio.gather(*map(redeemer.redeem, claims))
        seen = await redeemer.inspect(claims[0])
        await redeemer.ledger.close()
        return seen

    seen = asyncio.run(main())
    assert seen.grant.spent == 23
    assert [one.ordinal for one in seen.redemptions] == list(range(4, 24))


def test_why_a_claim_would_be_refused_is_shown_to_the_holder_of_the_code(west: Stand) -> None:
    policy = Policy(networks=("10.0.0.0/8",), name_prefix="east")
    grant = west.make_grant(policy=policy, not_before=NOW + 10).grant
    seen = inspect(west, a_claim(key=grant.id))
    assert [one.obstacle for one in seen.hindrances] == [Obstacle.NOT_BEGUN, Obstacle.NETWORK]
    assert seen.address_fits is False
    west.clock.now = NOW + 10
    seen = inspect(west, a_claim(key=grant.id, peer="10.1.2.3"))
    assert (seen.hindrances, seen.address_fits) == ((), True)


def test_a_code_of_before_a_rotation_redeems(west: Stand, grant: Grant) -> None:
    rotated = {"ffffffff": b"\xff" * 32, **west.code_keys}
    assert redeem(west, a_claim(key=grant.id), code_keys=rotated).ordinal == 1
    redeemer = west.redeemer(code_keys=rotated)
    assert "ffffffff" not in repr(redeemer)
    asyncio.run(redeemer.ledger.close())


# Wrong codes.

TIGHT = Allowance(burst=3, interval=60_000)


def guess(grant: Grant, peer: str) -> Claim:
    return a_claim(key=grant.id, presented_code=b"wrong", peer=peer)


def test_a_grant_that_is_guessed_at_is_closed_to_the_guesser_and_to_nobody_else(
    west: Stand, grant: Grant
) -> None:
    guesser, rightful = "192.0.2.66", "192.0.2.7"
    answers = in_turn(
        west,
        *[guess(grant, guesser)] * 4,
        a_claim(key=grant.id, peer=guesser),  # right this time, and not even looked at
        a_claim(key=grant.id, peer=rightful),
        guess(grant, "192.0.2.67"),
        guess(grant, "192.0.2.67"),
        locks=west.locks(TIGHT),
    )
    found = [outcome(one) for one in answers]
    assert found[:5] == [Reason.WRONG_CODE] * 3 + [Reason.RATE_LIMITED] * 2
    assert isinstance(answers[5], Redeemed)
    assert found[6:] == [Reason.WRONG_CODE, Reason.RATE_LIMITED]
    assert len(redemptions(west, grant)) == 1
    limited = answers[4]
    assert isinstance(limited, Refused)
    assert limited.retry_after == 60


def test_after_a_rest_a_locked_grant_is_open_again(west: Stand, grant: Grant) -> None:
    locks = west.locks(TIGHT)

    async def main() -> Redeemed:
        redeemer = west.redeemer(locks=locks)
        for _ in range(4):
            with pytest.raises(Refused):
                await redeemer.redeem(guess(grant, "192.0.2.7"))
        west.clock.now += 60
        redeemed = await redeemer.redeem(a_claim(key=grant.id))
        await locks.close()
        await redeemer.ledger.close()
        return redeemed

    assert asyncio.run(main()).ordinal == 1


def test_looking_is_guessing_too(west: Stand, grant: Grant) -> None:
    locks = west.locks(TIGHT)

    async def main() -> list[Reason]:
        redeemer = west.redeemer(locks=locks)
        found = []
        for _ in range(4):
            with pytest.raises(Refused) as refused:
                await redeemer.inspect(guess(grant, "192.0.2.7"))
            found.append(refused.value.reason)
        with pytest.raises(Refused) as refused:
            await redeemer.redeem(a_claim(key=grant.id))
        await locks.close()
        await redeemer.ledger.close()
        return [*found, refused.value.reason]

    assert asyncio.run(main()) == [Reason.WRONG_CODE] * 3 + [Reason.RATE_LIMITED] * 2


# The code of a grant that is used up, from somebody else.


def suspicions(stand: Stand, grant: Grant) -> list[str]:
    found = theft.suspected(stand.database, grant.id)
    return [] if found is None else [one.subject for one in found.later]


@pytest.fixture
def used_up(west: Stand) -> Grant:
    grant = west.make_grant(redemptions=1).grant
    redeem(west, a_claim(key=grant.id))
    return grant


def test_the_right_code_from_somebody_else_raises_the_alarm(west: Stand, used_up: Grant) -> None:
    west.clock.now = NOW + 9
    late = a_claim(key=used_up.id, subject="mallory", name="copy", peer="198.51.100.66")
    answers = in_turn(west, late, late, replace(late, subject="eve"))
    assert [outcome(one) for one in answers] == [Reason.USED_UP] * 3
    assert suspicions(west, used_up) == ["mallory", "eve"]
    seen = inspect(west, a_claim(key=used_up.id)).theft
    assert seen is not None
    assert seen.first == redemptions(west, used_up)[0]
    assert (seen.later[0].at, seen.later[0].name) == (NOW + 9, "copy")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "other"}, Reason.USED_UP),
        ({"name": "../x"}, Reason.USED_UP),
        ({"presented_code": b"wrong", "subject": "mallory"}, Reason.WRONG_CODE),
    ],
)
def test_the_same_site_and_who_has_no_code_raise_none(
    west: Stand, used_up: Grant, changes: dict[str, Any], expected: Reason
) -> None:
    assert reason(west, a_claim(key=used_up.id, **changes)) is expected
    assert suspicions(west, used_up) == []


def test_a_site_that_comes_again_after_its_window_raises_none(west: Stand, used_up: Grant) -> None:
    west.clock.now = NOW + 700
    assert reason(west, a_claim(key=used_up.id)) is Reason.USED_UP
    assert suspicions(west, used_up) == []


def test_an_answer_that_is_given_again_raises_none(west: Stand, used_up: Grant) -> None:
    assert redeem(west, a_claim(key=used_up.id)).serial is None
    assert suspicions(west, used_up) == []


def test_the_alarm_is_raised_after_the_end_of_the_window_too(west: Stand, used_up: Grant) -> None:
    expire(west, used_up)
    assert reason(west, a_claim(key=used_up.id, subject="mallory")) is Reason.EXPIRED
    assert suspicions(west, used_up) == ["mallory"]


def test_a_grant_that_was_revoked_raises_none(west: Stand, used_up: Grant) -> None:
    revoke(west, used_up)
    reason(west, a_claim(key=used_up.id, subject="mallory"))
    assert suspicions(west, used_up) == []


def test_a_grant_that_expired_before_it_was_used_up_raises_none(west: Stand) -> None:
    grant = west.make_grant(redemptions=2).grant
    redeem(west, a_claim(key=grant.id))
    expire(west, grant)
    assert reason(west, a_claim(key=grant.id, subject="mallory")) is Reason.EXPIRED
    assert suspicions(west, grant) == []


def test_what_nobody_has_checked_is_written_down_in_a_form_that_can_be_stored(
    west: Stand, used_up: Grant
) -> None:
    assert reason(west, a_claim(key=used_up.id, subject="\ud800\x00" * 200)) is Reason.USED_UP
    assert suspicions(west, used_up) == [("\\ud800\\x00" * 200)[:253]]


def test_the_alarm_is_raised_when_the_ledger_says_no_as_well(west: Stand) -> None:
    """All of them are judged while one redemption is left; the ledger decides."""
    grant = west.make_grant(redemptions=1).grant
    claims = sites_asking(grant, 5)

    async def main() -> list[Redeemed | BaseException]:
        redeemer = west.redeemer()
        answers = await asyncio.gather(*map(redeemer.redeem, claims), return_exceptions=True)
        await redeemer.ledger.close()
        return answers

    lost = [
        claim.subject
        for claim, answer in zip(claims, asyncio.run(main()), strict=True)
        if not isinstance(answer, Redeemed)
    ]
    assert len(lost) == 4
    assert sorted(suspicions(west, grant)) == sorted(map(str, lost))


def test_an_alarm_that_fails_changes_no_answer(
    west: Stand, used_up: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no thread")

    monkeypatch.setattr(TheftAlarm, "_write", fail)
    assert reason(west, a_claim(key=used_up.id, subject="mallory")) is Reason.USED_UP


# A key that stays where it is

EC = ec.generate_private_key(ec.SECP256R1())
THEIR_KEYS: dict[str, PrivateKey] = {
    "P-256": EC,
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(65537, 2048),
}


def csr(key: PrivateKey = EC, common_name: str = "east") -> bytes:
    return base64.b64encode(make_request(to_pem(key), common_name))


def tampered() -> bytes:
    """A request for one key, signed by another."""
    der = bytearray(base64.b64decode(csr()))
    der[-1] ^= 1
    return base64.b64encode(bytes(der))


REQUEST = csr()
NO_REQUESTS = {
    "nothing": b"",
    "no base64": b"?",
    "not ASCII": "\u00e9".encode(),
    "cut off": REQUEST[:-1],
    "two lines": REQUEST[:64] + b"\n" + REQUEST[64:],
    "PEM": b"-----BEGIN CERTIFICATE REQUEST-----",
    "no request": base64.b64encode(b"request"),
    "more behind it": base64.b64encode(base64.b64decode(REQUEST) + b"x"),
    "another's key": tampered(),
    "too long": b"A" * 4100,
}


def secret_of(redeemed: Redeemed) -> dict[str, Any]:
    secret: dict[str, Any] = next(iter(yaml.safe_load_all(redeemed.bundle)))
    return secret


def certificate_of(redeemed: Redeemed) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(secret_of(redeemed)["data"]["tls.crt"]))


@pytest.mark.parametrize("key", THEIR_KEYS.values(), ids=THEIR_KEYS)
def test_a_claim_with_a_request_gets_a_certificate_for_its_key_and_no_key(
    west: Stand, grant: Grant, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_pair(_: object) -> keys.KeyPair:
        raise AssertionError("a key was made")

    monkeypatch.setattr(keys, "make_pair", make_pair)
    redeemed = redeem(west, a_claim(key=grant.id, csr=csr(key)))
    secret, link = yaml.safe_load_all(redeemed.bundle)
    assert list(secret["data"]) == ["ca.crt", "tls.crt"]
    certificate = certificate_of(redeemed)
    assert certificate.public_key() == key.public_key()
    authority, _ = authorities.show(west.database, "site-ca")
    verify_issued_by(
        base64.b64decode(secret["data"]["tls.crt"]), authority.certificate_pem.encode()
    )
    assert (link["kind"], link["spec"]["cost"]) == ("Link", 3)
    (written,) = redemptions(west, grant)
    assert (written.serial, written.issuer_id) == (redeemed.serial, authority.id)


def test_of_a_request_nothing_but_the_key_is_taken(west: Stand, grant: Grant) -> None:
    """Neither its subject, nor what it asks to be put into the certificate."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "west-server")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("west.example")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    der = builder.sign(EC, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    asking, plain = in_turn(
        west,
        a_claim(key=grant.id, csr=base64.b64encode(der)),
        a_claim(key=grant.id, subject=SUBJECT.replace("5", "6")),
    )
    assert isinstance(asking, Redeemed)
    assert isinstance(plain, Redeemed)
    certificate, other = certificate_of(asking), certificate_of(plain)
    assert certificate.subject.rfc4514_string() == f"CN={SUBJECT}"
    own = x509.SubjectKeyIdentifier
    assert [one for one in certificate.extensions if not isinstance(one.value, own)] == [
        one for one in other.extensions if not isinstance(one.value, own)
    ]


@pytest.mark.parametrize("nonsense", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_a_request_that_is_none_is_refused_and_spends_nothing(
    west: Stand, grant: Grant, nonsense: bytes
) -> None:
    assert reason(west, a_claim(key=grant.id, csr=nonsense)) is Reason.CSR
    assert_whole(west, grant)


def test_without_the_code_nobody_learns_what_a_request_is_worth(west: Stand, grant: Grant) -> None:
    for request in (b"?", csr()):
        wrong = a_claim(key=grant.id, csr=request, presented_code=b"a" * 24)
        assert reason(west, wrong) is Reason.WRONG_CODE
        assert reason(west, a_claim(csr=request)) is Reason.UNKNOWN_GRANT
    assert_whole(west, grant)


def test_the_same_claim_with_the_same_key_gets_the_same_bytes(west: Stand, grant: Grant) -> None:
    """The request differs each time, since it is signed with randomness; the key does not."""
    claim = a_claim(key=grant.id, subject="no uuid", csr=csr())
    again = replace(claim, csr=b" " + csr(), peer="198.51.100.9")
    first, second = in_turn(west, claim, again)
    assert isinstance(first, Redeemed)
    assert isinstance(second, Redeemed)
    assert claim.csr != (again.csr or b"").strip()
    assert second.bundle == first.bundle
    assert (second.serial, second.ordinal) == (None, 1)
    assert len(redemptions(west, grant)) == 1


@pytest.mark.parametrize("other", [None, csr(THEIR_KEYS["P-384"])], ids=["none", "another"])
def test_the_same_claim_with_another_key_is_another_claim(
    west: Stand, grant: Grant, other: bytes | None
) -> None:
    claim = a_claim(key=grant.id, csr=csr())
    first, second = in_turn(west, claim, replace(claim, csr=other))
    assert isinstance(first, Redeemed)
    assert isinstance(second, Redeemed)
    assert [first.ordinal, second.ordinal] == [1, 2]
    assert ("tls.key" in secret_of(second)["data"]) == (other is None)
    assert certificate_of(first).public_key() != certificate_of(second).public_key()


def test_copies_of_a_claim_with_a_key_at_once_are_one_redemption(west: Stand, grant: Grant) -> None:
    async def main() -> list[Redeemed]:
        redeemer = west.redeemer()
        found = await asyncio.gather(
            *(redeemer.redeem(a_claim(key=grant.id, csr=csr())) for _ in range(5))
        )
        await redeemer.ledger.close()
        return found

    found = asyncio.run(main())
    assert len({one.bundle for one in found}) == 1
    assert len(redemptions(west, grant)) == 1


def test_a_key_of_the_claims_own_is_no_reason_to_keep_its_answer(west: Stand, grant: Grant) -> None:
    redeemed = redeem(west, a_claim(key=grant.id, csr=csr()), retry_seconds=0)
    assert certificate_of(redeemed).public_key() == EC.public_key()
    with west.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM answers").scalar() == 0


def test_who_comes_late_with_a_key_of_his_own_is_a_suspect_all_the_same(
    west: Stand, grant: Grant
) -> None:
    in_turn(west, *sites_asking(grant, 2))
    late = a_claim(key=grant.id, subject="mallory", csr=csr())
    assert reason(west, late) is Reason.USED_UP
    (suspect,) = inspect(west, a_claim(key=grant.id)).theft.later  # type: ignore[union-attr]
    assert suspect.subject == "mallory"


def test_the_stages_of_a_redemption_are_told_and_those_of_a_refusal_are_not(
    west: Stand, grant: Grant
) -> None:
    told: list[tuple[Stage, float]] = []
    seconds = iter([1.0, 1.5, 3.5, 7.5, 100.0, 100.0])
    options: dict[str, Any] = {
        "on_stage": lambda stage, took: told.append((stage, took)),
        "monotonic": lambda: next(seconds),
    }
    redeem(west, a_claim(key=grant.id), **options)
    assert told == [(Stage.JUDGE, 0.5), (Stage.MINT, 2.0), (Stage.COMMIT, 4.0)]
    in_turn(west, a_claim(key=grant.id, presented_code=b"wrong"), **options)
    assert len(told) == 3


def refused(stand: Stand, claim: Claim, **changes: Any) -> Refused:
    (answer,) = in_turn(stand, claim, **changes)
    assert isinstance(answer, Refused)
    return answer


@pytest.mark.parametrize(
    ("policy", "changes", "why"),
    [
        (Policy(subjects=("north-*",)), {}, "subject"),
        (Policy(networks=("10.0.0.0/8",)), {}, "address"),
        (Policy(name_prefix="north-"), {}, "name"),
        (Policy(understood=False), {}, "later release"),
        (None, {"not_before": NOW + 1}, "begins at"),
    ],
)
def test_whoever_does_not_fulfil_the_policy_is_refused_and_nothing_is_spent(
    west: Stand, policy: Policy | None, changes: Any, why: str
) -> None:
    grant = west.make_grant().grant
    with west.database.writing() as connection:
        table = schema.grants
        values = {"policy": policies.written(policy)} | changes
        if policy is not None and not policy.understood:
            values["policy"] = '{"moonPhase":"full"}'
        connection.execute(sqlalchemy.update(table).values(values))
    answer = refused(west, a_claim(key=grant.id))
    assert answer.reason is Reason.POLICY
    assert why in str(answer)
    assert redemptions(west, grant) == []


def test_whoever_fulfils_the_policy_redeems(west: Stand) -> None:
    grant = west.make_grant(
        policy=Policy(
            subjects=(SUBJECT,), networks=("192.0.2.0/24",), name_prefix="ea", per_subject=1
        ),
        not_before=NOW,
    ).grant
    assert redeem(west, a_claim(key=grant.id)).ordinal == 1


def test_a_wrong_code_learns_nothing_of_a_policy(west: Stand) -> None:
    grant = west.make_grant(policy=Policy(subjects=("nobody",))).grant
    assert reason(west, a_claim(key=grant.id, presented_code=b"x" * 24)) is Reason.WRONG_CODE


def test_a_kept_answer_is_not_given_to_who_does_not_fulfil_the_policy(west: Stand) -> None:
    """It holds a key, and whoever has the code and knows the subject could ask for it."""
    grant = west.make_grant(policy=Policy(networks=("192.0.2.0/24",))).grant
    claim = a_claim(key=grant.id)
    first, thief, again = in_turn(west, claim, replace(claim, peer="198.51.100.1"), claim)
    assert isinstance(first, Redeemed)
    assert isinstance(thief, Refused)
    assert thief.reason is Reason.POLICY
    assert isinstance(again, Redeemed)
    assert again.bundle == first.bundle


def test_a_subject_redeems_as_often_as_it_may_and_may_ask_again_for_what_it_got(
    west: Stand,
) -> None:
    grant = west.make_grant(redemptions=9, policy=Policy(per_subject=1)).grant
    mine = a_claim(key=grant.id)
    other = replace(mine, subject=SUBJECT[:-1] + "0")
    answers = in_turn(west, mine, replace(mine, name="east-2"), mine, other)
    one, more, again, another = answers
    assert isinstance(one, Redeemed)
    assert isinstance(more, Refused)
    assert more.reason is Reason.POLICY
    assert "once" in str(more)
    assert isinstance(again, Redeemed)
    assert again.bundle == one.bundle
    assert isinstance(another, Redeemed)
    assert another.ordinal == 2


def test_nothing_is_minted_for_a_subject_that_may_no_more(
    west: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = west.make_grant(redemptions=9, policy=Policy(per_subject=1)).grant
    redeem(west, a_claim(key=grant.id))
    monkeypatch.setattr(mint, "mint_client", None)
    assert refused(west, a_claim(key=grant.id, name="other")).reason is Reason.POLICY


def test_the_policy_says_how_long_the_certificate_lives_and_with_which_key(west: Stand) -> None:
    grant = west.make_grant(policy=Policy(lifetime_seconds=600, key_type=KeyType.ED25519)).grant
    given = next(iter(yaml.safe_load_all(redeem(west, a_claim(key=grant.id)).bundle)))
    pem = base64.b64decode(given["data"]["tls.crt"])
    certificate = x509.load_pem_x509_certificate(pem)
    assert isinstance(certificate.public_key(), ed25519.Ed25519PublicKey)
    assert facts(pem).not_after == NOW + 599


def test_no_policy_makes_a_certificate_live_longer_than_the_servers_own_do(west: Stand) -> None:
    grant = west.make_grant(policy=Policy(lifetime_seconds=7200)).grant
    redeem(west, a_claim(key=grant.id))
    assert redemptions(west, grant)[0].not_after == NOW + 3599


def test_a_request_for_another_kind_of_key_is_refused(west: Stand) -> None:
    grant = west.make_grant(policy=Policy(key_type=KeyType.ED25519)).grant
    keys_made = (ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate())
    wrong, right = (
        a_claim(key=grant.id, csr=base64.b64encode(make_request(to_pem(key), "east")))
        for key in keys_made
    )
    answers = in_turn(west, wrong, right)
    assert isinstance(answers[0], Refused)
    assert answers[0].reason is Reason.POLICY
    assert isinstance(answers[1], Redeemed)
