import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, select, update

from app import ambient
from app.crypto import issuers
from app.crypto.facts import facts
from app.domain import codes
from app.domain.access_grants import Told, read_told
from app.domain.audit import Act
from app.domain.grants import State, new_id
from app.domain.limits import Allowance
from app.errors import Broken, Conflict, Lack, Missing, Reason, Refused, Unavailable, Unready
from app.services import addresses, audit, authorities, grants, sites
from app.services import cluster as services
from app.services.cluster import ACTOR, Cluster, IssuerSecret, Known
from app.services.redemption import Redeemed
from app.store import access_grants, schema
from app.store.access_grants import NO_ISSUER
from app.store.addresses import AddressRow
from app.store.engine import Database
from app.store.health import integrity_problems
from tests.builders import CODE, GRANT_ID, NOW, SUBJECT, WINDOW, Stand, a_claim
from tests.crypto.test_keys import rsa_of
from tests.services.clusters import (
    ENDPOINTS,
    PKCS1_OR_SEC1,
    a_cluster,
    a_resource,
    a_secret,
    acts,
    admit,
    another,
    lacks,
    lose,
    nothing_written,
    put,
    redeem,
    redeem_all,
    refused,
    restore,
    rows_of,
    secret_in,
    sign,
    signed_by,
    status_of,
)
from tests.services.renewals import Held, a_key, renew
from tests.services.renewals import redeem as redeem_with_key
from tests.services.test_authorities import Key, certify, written

OTHER_ID = GRANT_ID.replace("2", "3")
THIRD_ID = GRANT_ID.replace("2", "4")
PKCS8: Final = serialization.PrivateFormat.PKCS8
LONG = "n" * 120


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """Open a migrated database without rows, of each kind."""
    made = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(made, Database)
    return made


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def fresh(stand: Stand) -> Cluster:
    return a_cluster(stand)


@pytest.fixture
def west(fresh: Cluster) -> Cluster:
    """Bring in the namespace `west`, which can be linked to."""
    put(fresh, "west", sign(fresh, "west", a_secret()))
    return fresh


# From a resource to a link.


@pytest.mark.parametrize(
    ("kind", "form"),
    [("rsa", PKCS1_OR_SEC1), ("rsa", PKCS8), ("ec", PKCS1_OR_SEC1), ("ec", PKCS8)],
)
@pytest.mark.parametrize("chain", [0, 1])
def test_a_grant_of_a_resource_is_redeemed_with_the_code_that_its_status_tells(
    stand: Stand,
    fresh: Cluster,
    rsa_key: rsa.RSAPrivateKey,
    kind: str,
    form: serialization.PrivateFormat,
    chain: int,
) -> None:
    key: Key = rsa_key if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    root = ec.generate_private_key(ec.SECP384R1())
    certificate = certify(key, "own ca")
    if chain:
        certificate = certify(key, "own ca", (root, "root")) + certify(root, "root")
    held = IssuerSecret(certificate_pem=certificate, key_pem=written(key, form))

    signer = fresh.signer("west", "skupper-site-ca", held)
    assert (signer.problem, signer.not_after) == (None, facts(certificate).not_after)
    assert put(fresh, "west", signer.authority_id)
    known = admit(fresh, code=None)
    assert len(known.code) == 24
    assert (known.grant.spent, known.grant.allowed, known.redemptions) == (0, 2, [])
    assert known.theft is None

    redeemed = redeem(stand, presented_code=known.code.encode())
    assert signed_by(redeemed, held)
    _, link = yaml.safe_load_all(redeemed.bundle)
    assert [(one["name"], one["port"]) for one in link["spec"]["endpoints"]] == [
        ("inter-router", "55671"),
        ("edge", "45671"),
    ]
    assert link["spec"]["cost"] == 1

    known = admit(fresh, code=None)
    assert known.grant.spent == 1
    assert known.redemptions == [(1, "east", SUBJECT, "192.0.2.7")]
    assert refused(stand, presented_code=b"another code") is Reason.WRONG_CODE


def test_what_becomes_of_a_namespace_and_its_grant_is_written_down(west: Cluster) -> None:
    admit(west, issuer=None)
    (site,) = acts(west.database, "site/west")
    (grant,) = acts(west.database, f"grant/{GRANT_ID}")
    (authority,) = (
        one for one in audit.latest(west.database, limit=99) if one.act is Act.AUTHORITY_IMPORTED
    )
    name = authority.target.removeprefix("authority/")
    assert {site.actor, grant.actor, authority.actor} == {ACTOR}
    assert authority.details["origin"] == "west/skupper-site-ca"
    shown, certificate = authorities.show(west.database, name)
    assert authority.details["fingerprint"] == certificate.fingerprint
    assert authorities.fingerprint(shown) == certificate.fingerprint
    assert site.act is Act.SITE_SET
    assert site.details["issuer"] == name
    assert "edge=west.example:45671" in str(site.details["endpoints"])
    assert grant.act is Act.GRANT_CREATED
    assert (grant.details["allowed"], grant.details["spent"]) == (2, 0)
    assert not any(CODE in str(one.details) for one in (site, grant, authority))


def test_doing_all_of_it_again_writes_nothing(stand: Stand, west: Cluster) -> None:
    held, own = a_secret(), a_secret()

    def everything(cluster: Cluster) -> list[Known]:
        put(cluster, "west", sign(cluster, "west", held))
        put(cluster, "east", None, ())
        issuer_id = sign(cluster, "west", own, "own")
        known = [
            admit(cluster),
            admit(cluster, uid=OTHER_ID, name=LONG, code=None, issuer="own", issuer_id=issuer_id),
            admit(cluster, uid=THIRD_ID, name="third", issuer="none", redemptionsAllowed=1),
        ]
        cluster.revoke("west", "to-west", but=GRANT_ID)
        cluster.revoke("west", "nothing")
        cluster.remove_namespace("nowhere")
        cluster.forget_unused_keys()
        assert set(cluster.marks()) == {GRANT_ID, OTHER_ID, THIRD_ID}
        assert len(cluster.live_names()) == 3
        assert list(cluster.namespaces()) == ["east", "west"]
        return known

    known = everything(west)
    assert refused(stand, presented_code=b"wrong") is Reason.WRONG_CODE
    redeem(stand)
    for cluster in (west, a_cluster(stand)):
        with nothing_written(stand.database):
            again = everything(cluster)
        assert again[0].grant == replace(known[0].grant, spent=1)
        assert again[1:] == known[1:]


def test_no_secret_shows_or_is_kept_in_the_clear(stand: Stand, west: Cluster) -> None:
    held = a_secret()
    sign(west, "west", held)
    known = admit(west)
    shown = f"{held!r} {known!r} {a_resource()!r} {west!r} {a_resource(Told(code=CODE))!r}"
    kept = [value for rows in rows_of(stand.database).values() for row in rows for value in row]
    line = held.key_pem.splitlines()[1]
    assert CODE not in shown
    assert line.decode() not in shown
    for value in kept:
        stored = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
        assert CODE.encode() not in stored
        assert b"PRIVATE KEY" not in stored
        assert line not in stored


# Issuer Secrets.


def test_a_secret_that_cannot_sign_says_why_and_leaves_nothing(
    stand: Stand, fresh: Cluster, rsa_key: rsa.RSAPrivateKey
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    good, pem = certify(key, "ca"), written(key, PKCS1_OR_SEC1)
    with nothing_written(stand.database):
        for certificate, private, field, why in (
            (b"", pem, "tls.crt", "PEM"),
            (b"garbage", pem, "tls.crt", "PEM"),
            (b"\xff" + good, pem, "tls.crt", "UTF-8"),
            (good + b"\0", pem, "tls.crt", "text"),
            (good + pem, pem, "tls.crt", "private key"),
            (certify(key, "leaf", ca=False), pem, "tls.crt", "no CA"),
            (certify(rsa_key, "root") + good, pem, "tls.crt", "order"),
            (good + certify(rsa_key, "stranger"), pem, "tls.crt", "chain"),
            (good, b"", "tls.key", ""),
            (good, b"garbage", "tls.key", ""),
            (good, good, "tls.key", ""),
            (good, pem[:-40], "tls.key", ""),
            (good, written(rsa_key, PKCS8), "tls.key", "does not belong"),
        ):
            held = IssuerSecret(certificate_pem=certificate, key_pem=private)
            signer = fresh.signer("west", "skupper-site-ca", held)
            assert signer.authority_id is None
            assert signer.problem is not None
            assert signer.problem.startswith(f"{field}")
            assert why in signer.problem
            assert pem.splitlines()[1].decode() not in signer.problem


def test_a_secret_that_would_cost_everybody_time_or_space_is_refused(
    stand: Stand, fresh: Cluster
) -> None:
    held = a_secret()
    rsa_4484 = rsa_of(2**2203 - 1, 2**2281 - 1)
    with nothing_written(stand.database):
        signer = fresh.signer("west", "skupper-site-ca", replace(held, key_pem=rsa_4484))
        assert signer.problem == "tls.key: expected RSA keys of at most 4096 bits here"
        long = held.certificate_pem + b"#" * 65_536
        signer = fresh.signer("west", "skupper-site-ca", replace(held, certificate_pem=long))
        assert signer.problem == "tls.crt: expected at most 65536 bytes"


def test_a_secret_that_is_edited_without_another_ca_in_it_is_the_same_authority(
    stand: Stand, west: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is its key checked again, which takes long."""
    held = a_secret()
    authority_id = sign(west, "west", held)
    checked: list[bool] = []

    def load(*args: bytes, **options: Any) -> issuers.Issuer:
        checked.append(options.get("checked", False))
        return issuers.load_issuer(*args, **options)

    monkeypatch.setattr(services, "load_issuer", load)
    with nothing_written(stand.database):
        for number in range(3):
            text = b"# %d\n" % number
            edited = IssuerSecret(
                certificate_pem=text + held.certificate_pem, key_pem=text + held.key_pem
            )
            assert sign(west, "west", edited) == authority_id
    assert checked == [True] * 3
    west.forget_unused_keys()
    assert sign(west, "west", replace(held, key_pem=b"\n" + held.key_pem)) == authority_id
    assert checked == [True] * 3 + [False]


def test_an_issuer_that_has_ended_signs_nothing_and_nothing_is_spent(
    stand: Stand, fresh: Cluster
) -> None:
    signer = fresh.signer("west", "skupper-site-ca", a_secret())
    put(fresh, "west", signer.authority_id)
    stand.clock.now = signer.not_after + 1
    admit(fresh)
    assert lacks(stand) is Lack.ISSUER


def test_two_namespaces_may_have_the_same_ca(stand: Stand, fresh: Cluster) -> None:
    held = a_secret()
    first, second = sign(fresh, "west", held), sign(fresh, "east", held)
    assert first == second
    for namespace in ("west", "east"):
        put(fresh, namespace, first)
    admit(fresh)
    admit(fresh, uid=OTHER_ID, namespace="east")
    assert signed_by(redeem(stand), held)

    put(fresh, "west", None)  # its Secret is gone, and that of the other is not
    fresh.forget_unused_keys()
    assert lacks(stand, subject=another(1)) is Lack.ISSUER
    assert signed_by(redeem(stand, key=OTHER_ID), held)
    put(fresh, "east", None)
    fresh.forget_unused_keys()
    assert lacks(stand, key=OTHER_ID, subject=another(1)) is Lack.ISSUER


def test_the_same_ca_with_and_without_its_chain_is_given_as_each_secret_has_it(
    stand: Stand, fresh: Cluster
) -> None:
    key, root = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    alone = IssuerSecret(
        certificate_pem=certify(key, "ca", (root, "root")), key_pem=written(key, PKCS8)
    )
    whole = replace(alone, certificate_pem=alone.certificate_pem + certify(root, "root"))
    for number, (namespace, held) in enumerate((("west", alone), ("east", whole))):
        put(fresh, namespace, sign(fresh, namespace, held))
        uid = (GRANT_ID, OTHER_ID)[number]
        admit(fresh, uid=uid, namespace=namespace)
        assert secret_in(redeem(stand, key=uid))["ca.crt"] == held.certificate_pem
    put(fresh, "west", sign(fresh, "west", whole))  # somebody completes the Secret
    given = secret_in(redeem(stand, subject=another(1)))
    assert given["ca.crt"] == whole.certificate_pem


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_ca_of_ours_may_be_in_a_secret_too(
    stand: Stand, fresh: Cluster, *, ours_first: bool
) -> None:
    held = a_secret()

    def take_in() -> None:
        authorities.import_authority(
            stand.database,
            stand.keyring,
            name="shared",
            certificate_pem=held.certificate_pem,
            key_pem=held.key_pem,
            actor="cli:test",
            now=NOW,
            random_bytes=ambient.random_bytes,
        )

    if ours_first:
        take_in()
    put(fresh, "west", sign(fresh, "west", held))
    if not ours_first:
        take_in()
    stand.set_site("here", issuer="shared")
    here = stand.make_grant(site="here").grant
    admit(fresh)
    put(fresh, "west", None)
    fresh.forget_unused_keys()
    assert lacks(stand) is Lack.ISSUER
    assert signed_by(redeem(stand, key=here.id), held)


def test_the_key_of_a_secret_that_is_gone_is_forgotten_and_kept_answers_stay_the_same(
    stand: Stand, fresh: Cluster
) -> None:
    held = a_secret()
    authority_id = sign(fresh, "west", held)
    put(fresh, "west", authority_id)
    admit(fresh)
    first = redeem(stand)

    put(fresh, "west", None)
    fresh.forget_unused_keys()
    with stand.database.reading() as connection:
        keys = {
            row.id: bytes(row.sealed_key) for row in connection.execute(select(schema.authorities))
        }
    assert keys[authority_id] == b""
    again = redeem(stand)
    assert again.bundle == first.bundle
    assert again.serial is None
    assert lacks(stand, subject=another(1)) is Lack.ISSUER

    assert sign(fresh, "west", held) == authority_id  # the same Secret is back
    put(fresh, "west", authority_id)
    assert signed_by(redeem(stand, subject=another(1)), held)
    assert admit(fresh).grant.spent == 2


def test_a_ca_that_is_replaced_signs_no_more_but_kept_answers_still_have_it(
    stand: Stand, west: Cluster
) -> None:
    old, new = a_secret(), a_secret()
    put(west, "west", sign(west, "west", old))
    admit(west)
    first = redeem(stand)
    assert signed_by(first, old)
    put(west, "west", sign(west, "west", new))
    west.forget_unused_keys()
    answers = redeem_all(stand, a_claim(), a_claim(subject=another(1)))
    assert isinstance(answers[0], Redeemed)
    assert isinstance(answers[1], Redeemed)
    assert answers[0].bundle == first.bundle
    assert signed_by(answers[1], new)


def test_a_process_that_runs_on_signs_with_the_new_ca_at_once(stand: Stand, west: Cluster) -> None:
    """What it has read and opened before is kept, and must not be used."""
    new = a_secret()
    admit(west, redemptionsAllowed=9)

    async def main() -> tuple[Redeemed, Redeemed]:
        redeemer = stand.redeemer()
        before = await redeemer.redeem(a_claim())
        await asyncio.to_thread(lambda: put(west, "west", sign(west, "west", new)))
        await asyncio.to_thread(west.forget_unused_keys)
        after = await redeemer.redeem(a_claim(subject=another(1)))
        assert (await redeemer.redeem(a_claim())).bundle == before.bundle
        await asyncio.to_thread(put, west, "west", None)
        with pytest.raises(Unready):
            await redeemer.redeem(a_claim(subject=another(2)))
        await redeemer.ledger.close()
        return before, after

    before, after = asyncio.run(main())
    assert not signed_by(before, new)
    assert signed_by(after, new)


def test_keys_that_are_asked_for_or_that_a_live_grant_asks_for_are_kept(
    stand: Stand, west: Cluster
) -> None:
    asked_for, own, unused = (sign(west, "west", a_secret(), name) for name in "abc")
    admit(west, issuer="b", issuer_id=own)
    west.forget_unused_keys(frozenset({asked_for}))

    def keyless() -> set[int]:
        with stand.database.reading() as connection:
            found = connection.execute(select(schema.authorities)).all()
        return {row.id for row in found if row.name != NO_ISSUER and not row.sealed_key}

    assert keyless() == {unused}
    west.forget_unused_keys()
    assert keyless() == {unused, asked_for}
    west.revoke("west", "to-west")
    west.forget_unused_keys()
    assert keyless() == {unused, asked_for, own}


def test_a_secret_is_read_once_as_long_as_it_holds_the_same(
    west: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, other = a_secret(), a_secret()
    first = west.signer("west", "a", held)
    monkeypatch.setattr(services, "load_issuer", None)
    with nothing_written(west.database):
        assert west.signer("west", "a", replace(held)) == first
    monkeypatch.undo()
    assert west.signer("west", "a", other) != first
    assert west.signer("west", "a", replace(held, key_pem=other.key_pem)).problem is not None


def test_a_key_that_another_replica_has_forgotten_is_kept_anew(stand: Stand, west: Cluster) -> None:
    held = a_secret()
    authority_id = sign(west, "west", held)
    a_cluster(stand).forget_unused_keys()
    assert sign(west, "west", held) == authority_id
    put(west, "west", authority_id)
    admit(west)
    assert signed_by(redeem(stand), held)


# Namespaces.


def test_a_namespace_is_written_when_it_changes_and_only_then(stand: Stand, fresh: Cluster) -> None:
    first, second = (sign(fresh, "west", a_secret()) for _ in range(2))
    steps = [
        (None, ()),
        (None, ENDPOINTS),
        (first, ENDPOINTS),
        (second, ENDPOINTS),
        (second, ENDPOINTS[:1]),
        (second, (replace(ENDPOINTS[0], port=1),)),
        (None, ()),
    ]
    for revision, (authority_id, endpoints) in enumerate(steps, start=1):
        assert put(fresh, "west", authority_id, endpoints)
        with nothing_written(stand.database):
            assert not put(fresh, "west", authority_id, endpoints)
            assert not put(fresh, "west", authority_id, endpoints + endpoints)
        site = sites.show(stand.database, "west")
        assert (site.revision, site.endpoints, site.origin) == (revision, endpoints, "kubernetes")
        assert (site.issuer == NO_ISSUER) == (authority_id is None)
    assert len(acts(stand.database, "site/west")) == len(steps)


def test_without_endpoints_a_redemption_is_refused_and_nothing_is_spent(
    stand: Stand, west: Cluster
) -> None:
    admit(west)
    put(west, "west", sign(west, "west", a_secret()), ())
    assert lacks(stand) is Lack.ENDPOINTS


def test_a_namespace_that_is_named_like_a_site_of_ours_stays_outside(
    stand: Stand, fresh: Cluster
) -> None:
    ours = stand.set_site("west")
    local = stand.make_grant().grant
    authority_id = sign(fresh, "west", a_secret())
    with nothing_written(stand.database):
        with pytest.raises(Conflict, match='a site "west" of its own'):
            put(fresh, "west", authority_id)
        with pytest.raises(Conflict, match='a site "west" of its own'):
            admit(fresh)
        fresh.remove_namespace("west")
        assert fresh.namespaces() == []
        assert fresh.revoke("west", local.name) == 0
    assert sites.show(stand.database, "west") == ours
    assert isinstance(redeem(stand, key=local.id), Redeemed)
    grants.remove(stand.database, local.id, actor="cli:test", now=NOW)
    sites.remove(stand.database, name="west", actor="cli:test", now=NOW)
    put(fresh, "west", authority_id)
    assert admit(fresh).grant.site == "west"


def test_before_there_is_a_namespace_a_grant_has_to_wait(stand: Stand, fresh: Cluster) -> None:
    with nothing_written(stand.database), pytest.raises(Missing, match="west"):
        admit(fresh)


def test_a_namespace_goes_when_nothing_leads_there(stand: Stand, west: Cluster) -> None:
    west.remove_namespace("west")
    assert west.namespaces() == []
    assert [one.act for one in acts(stand.database, "site/west")] == [
        Act.SITE_SET,
        Act.SITE_REMOVED,
    ]
    with nothing_written(stand.database):
        west.remove_namespace("west")


def test_a_namespace_to_which_old_grants_lead_keeps_neither_endpoints_nor_key(
    stand: Stand, west: Cluster
) -> None:
    admit(west)
    first = redeem(stand)
    west.revoke("west", "to-west")
    west.remove_namespace("west")
    west.forget_unused_keys()
    site = sites.show(stand.database, "west")
    assert (site.endpoints, site.issuer) == ((), NO_ISSUER)
    assert all(
        not one.sealed_key for one in authorities.every(stand.database) if one.origin is not None
    )
    with nothing_written(stand.database):
        west.remove_namespace("west")
    assert west.namespaces() == ["west"]
    put(west, "west", sign(west, "west", a_secret()))  # a namespace of this name is made anew
    admit(west, uid=OTHER_ID)
    assert secret_in(redeem(stand, key=OTHER_ID)) != secret_in(first)


# Issuers of grants' own.


def test_a_grant_that_asks_for_an_issuer_of_its_own_gets_that_or_none(
    stand: Stand, west: Cluster
) -> None:
    """The site's own would vouch for somebody whom it was not asked about."""
    held = a_secret()
    known = admit(west, issuer="own")
    assert known.grant.issuer == NO_ISSUER
    assert lacks(stand) is Lack.ISSUER
    with nothing_written(stand.database):
        admit(west, issuer="own")

    own = sign(west, "west", held, "own")
    admit(west, issuer="own", issuer_id=own)
    assert signed_by(redeem(stand), held)

    admit(west, issuer="own")  # and now it is gone again
    assert lacks(stand, subject=another(1)) is Lack.ISSUER
    assert admit(west, issuer="own").grant.spent == 1
    admit(west)  # nobody asks for it any more
    assert not signed_by(redeem(stand, subject=another(1)), held)
    assert admit(west).grant.issuer is None
    assert admit(west).grant.spent == 2


def test_an_authority_of_ours_that_is_called_like_none_is_never_taken_for_it(
    stand: Stand, west: Cluster
) -> None:
    for name in ("none", "no-issuer"):
        authorities.create(
            stand.database,
            stand.keyring,
            name=name,
            actor="cli:test",
            now=NOW,
            random_bytes=ambient.random_bytes,
        )
    admit(west, issuer="none")
    assert lacks(stand) is Lack.ISSUER


# Grants that begin, and grants that go on.


def test_a_grant_is_as_its_resource_asks(stand: Stand, west: Cluster) -> None:
    known = admit(west, redemptionsAllowed=7, expirationWindow="1h30m")
    grant = known.grant
    assert (grant.id, grant.name, grant.site) == (GRANT_ID, "to-west", "west")
    assert (grant.allowed, grant.spent, grant.cost, grant.issuer) == (7, 0, 1, None)
    assert (grant.created_at, grant.expires_at) == (NOW, NOW + 5400)
    assert known.code == CODE
    codes.check(CODE.encode(), grant.concealed_code, stand.code_keys)
    assert grants.show(stand.database, "to-west") == (grant, [])


@pytest.mark.parametrize(
    ("told", "spent", "allowed", "expires_at", "code"),
    [
        (Told(code="theirs"), 0, 2, NOW + WINDOW, "theirs"),
        (Told(spent=1), 1, 2, NOW + WINDOW, None),
        (Told(spent=2), 2, 2, NOW + WINDOW, None),
        (Told(spent=5), 5, 5, NOW + WINDOW, None),
        (Told(expires_at=NOW + 7), 0, 2, NOW + 7, None),
        (Told(expires_at=NOW - 99), 0, 2, NOW - 99, None),
        (Told(expires_at=1), 0, 2, 1, None),
        # Whoever can write a status cannot make more of a grant than its spec does.
        (Told(expires_at=NOW + 10 * WINDOW), 0, 2, NOW + WINDOW, None),
        (Told(code="theirs", spent=1, expires_at=NOW + 7), 1, 2, NOW + 7, "theirs"),
    ],
)
def test_a_grant_that_somebody_has_begun_goes_on_where_that_stands(
    stand: Stand,
    west: Cluster,
    told: Told,
    spent: int,
    allowed: int,
    expires_at: int,
    code: str | None,
) -> None:
    known = admit(west, told, code=None)
    assert (known.grant.spent, known.grant.allowed) == (spent, allowed)
    assert known.grant.expires_at == expires_at
    assert known.code == code or (code is None and len(known.code) == 24)
    claim = {"presented_code": known.code.encode()}
    if expires_at <= NOW:
        assert refused(stand, **claim) is Reason.EXPIRED
    elif spent == allowed:
        assert refused(stand, **claim) is Reason.USED_UP
    else:
        assert redeem(stand, **claim).ordinal == spent + 1
    with nothing_written(stand.database):
        admit(west, Told(code="other", spent=9, expires_at=NOW + 9999), code=None)


def test_the_code_of_the_spec_is_the_code(stand: Stand, west: Cluster) -> None:
    assert admit(west, Told(code="theirs")).code == CODE
    assert refused(stand, presented_code=b"theirs") is Reason.WRONG_CODE
    assert isinstance(redeem(stand), Redeemed)


def test_a_lost_database_is_made_anew_from_the_resources_and_gives_nothing_back(
    stand: Stand, west: Cluster
) -> None:
    held = a_secret()
    put(west, "west", sign(west, "west", held))
    known = admit(west, code=None, redemptionsAllowed=3)
    code = {"presented_code": known.code.encode()}
    redeem(stand, **code)
    redeem(stand, **code, subject=another(1))
    stand.clock.now += 60
    status = status_of(admit(west, code=None, redemptionsAllowed=3), stand.clock.now)

    lose(stand)
    anew = a_cluster(stand)
    put(anew, "west", sign(anew, "west", held))
    again = admit(anew, read_told(status), code=None, redemptionsAllowed=3)
    assert again.code == known.code
    assert again.grant.spent == 2
    assert again.grant.expires_at == known.grant.expires_at
    assert again.grant.created_at == known.grant.created_at
    assert redeem(stand, **code, subject=another(2)).ordinal == 3
    assert refused(stand, **code, subject=another(3)) is Reason.USED_UP
    told = admit(anew, code=None, redemptionsAllowed=3, told_until=2).redemptions
    assert [(ordinal, subject) for ordinal, _, subject, _ in told] == [(3, another(2))]
    assert integrity_problems(stand.database, stand.clock.now) == []
    stand.clock.now = known.grant.expires_at
    assert refused(stand, **code, subject=another(4)) is Reason.EXPIRED


def test_what_was_revoked_is_revoked_after_the_database_was_lost(
    stand: Stand, west: Cluster
) -> None:
    """An operator revokes the grant of a leaked token; its resource is still there."""
    held = a_secret()
    put(west, "west", sign(west, "west", held))
    admit(west)
    grants.revoke(stand.database, "to-west", actor="cli:test", now=NOW + 3)
    status = status_of(admit(west))
    lose(stand)
    put(west, "west", sign(west, "west", held))
    known = admit(west, read_told(status))
    assert known.grant.revoked_at == NOW + 3
    assert refused(stand) is Reason.REVOKED


def test_what_was_used_or_revoked_stays_so_when_the_database_was_set_back(
    stand: Stand, west: Cluster
) -> None:
    admit(west, redemptionsAllowed=2)
    redeem(stand)
    with nothing_written(stand.database):
        for told in (Told(), Told(spent=1), Told(code="another", expires_at=NOW + 1)):
            assert not west.catch_up(GRANT_ID, told)
        assert not west.catch_up(OTHER_ID, Told(spent=1))
    assert west.catch_up(GRANT_ID, Told(spent=3))
    known = admit(west, redemptionsAllowed=2)
    assert (known.grant.spent, known.grant.allowed, known.grant.revoked_at) == (3, 3, None)
    assert admit(west, redemptionsAllowed=4).grant.allowed == 4
    assert redeem(stand, subject=another(1)).ordinal == 4
    assert west.catch_up(GRANT_ID, Told(spent=2, revoked_at=NOW + 3))
    grant = admit(west, redemptionsAllowed=4).grant
    assert (grant.spent, grant.revoked_at) == (4, NOW + 3)
    assert refused(stand, subject=another(2)) is Reason.REVOKED
    assert integrity_problems(stand.database, NOW) == []
    entries = acts(stand.database, f"grant/{GRANT_ID}")
    found = [one.act for one in entries if one.details.get("by") == "its status"]
    assert sorted(found) == [Act.GRANT_CHANGED, Act.GRANT_REVOKED]


def test_an_authority_of_another_database_is_never_taken_for_that_of_a_secret(
    stand: Stand, west: Cluster
) -> None:
    """Numbers are given again in a database that was set back."""
    held, strange = a_secret(), a_secret()
    authority_id = sign(west, "west", held)
    put(west, "west", authority_id)
    lose(stand)
    with pytest.raises(Missing):
        put(west, "west", authority_id)
    with stand.database.writing() as connection:
        connection.execute(
            delete(schema.authorities).where(schema.authorities.c.id == authority_id)
        )
    other = a_cluster(stand)
    taken = sign(other, "south", strange)
    with stand.database.writing() as connection:
        connection.execute(
            update(schema.authorities)
            .where(schema.authorities.c.id == taken)
            .values(id=authority_id)
        )
    put(other, "west", authority_id)
    with pytest.raises(Missing):
        put(west, "west", authority_id)
    with pytest.raises(Missing):
        admit(west, issuer="own", issuer_id=authority_id)
    mine = sign(west, "west", held)
    assert mine != authority_id
    put(west, "west", mine)
    admit(west)
    assert signed_by(redeem(stand), held)


# A live grant follows its resource.


@pytest.mark.parametrize(
    ("before", "spent", "after", "allowed"),
    [(2, 0, 5, 5), (2, 0, 1, 1), (2, 2, 3, 3), (3, 2, 1, 2), (3, 2, 2, 2)],
)
def test_redemptions_allowed_may_be_changed_but_none_is_taken_back(
    stand: Stand, west: Cluster, before: int, spent: int, after: int, allowed: int
) -> None:
    admit(west, redemptionsAllowed=before)
    redeem_all(stand, *(a_claim(subject=another(number)) for number in range(spent)))
    known = admit(west, redemptionsAllowed=after)
    assert (known.grant.allowed, known.grant.spent) == (allowed, spent)
    with nothing_written(stand.database):
        admit(west, redemptionsAllowed=after)
    answers = redeem_all(stand, *(a_claim(subject=another(90 + one)) for one in range(4)))
    assert sum(isinstance(one, Redeemed) for one in answers) == min(4, allowed - spent)
    changed = [
        one for one in acts(stand.database, f"grant/{GRANT_ID}") if one.act is Act.GRANT_CHANGED
    ]
    assert [(one.actor, one.details["allowed"]) for one in changed] == (
        [(ACTOR, after)] if allowed != before else []
    )


@pytest.mark.parametrize(
    ("window", "ends"), [("10s", NOW + 10), ("1h", NOW + 3600), ("2s", NOW + 2)]
)
def test_a_window_is_counted_from_when_the_grant_was_first_seen(
    stand: Stand, west: Cluster, window: str, ends: int
) -> None:
    admit(west)
    stand.clock.now = NOW + 5
    known = admit(west, expirationWindow=window)
    assert (known.grant.created_at, known.grant.expires_at) == (NOW, ends)
    if ends <= NOW + 5:
        assert refused(stand) is Reason.EXPIRED
    else:
        assert isinstance(redeem(stand), Redeemed)
    with nothing_written(stand.database):
        admit(west, expirationWindow=window)
    assert admit(west).grant.expires_at == NOW + WINDOW


def test_an_expired_grant_lives_again_when_its_window_is_made_longer(
    stand: Stand, west: Cluster
) -> None:
    admit(west)
    stand.clock.now = NOW + WINDOW
    assert refused(stand) is Reason.EXPIRED
    admit(west, expirationWindow=f"{WINDOW + 1}s")
    assert isinstance(redeem(stand), Redeemed)


def test_a_window_of_an_adopted_grant_may_be_changed_too(stand: Stand, west: Cluster) -> None:
    admit(west, Told(expires_at=NOW + 7))
    known = admit(west, expirationWindow=f"{WINDOW + 10}s")
    assert known.grant.expires_at == NOW + 17
    assert admit(west, expirationWindow="1s").grant.expires_at == NOW + 7 - WINDOW + 1
    assert stand.clock.now == NOW


def test_a_code_that_is_given_replaces_the_one_before_at_once(stand: Stand, west: Cluster) -> None:
    ours = admit(west, code=None).code
    known = admit(west, code=CODE)
    assert known.code == CODE
    assert refused(stand, presented_code=ours.encode()) is Reason.WRONG_CODE
    assert isinstance(redeem(stand), Redeemed)
    with nothing_written(stand.database):
        assert admit(west, code=None).code == CODE  # nobody wants another
    admit(west, code="another code of theirs")
    assert refused(stand) is Reason.WRONG_CODE  # not even for an answer that is kept
    last = acts(stand.database, f"grant/{GRANT_ID}")[-1]
    assert (last.act, last.details["code"]) == (Act.GRANT_CHANGED, "replaced")
    assert "theirs" not in str(last.details)


def test_a_change_of_several_things_is_one(stand: Stand, west: Cluster) -> None:
    own = sign(west, "west", a_secret(), "own")
    admit(west)
    known = admit(
        west, issuer="own", issuer_id=own, redemptionsAllowed=9, expirationWindow="1h", code="new"
    )
    assert (known.grant.allowed, known.grant.expires_at, known.code) == (9, NOW + 3600, "new")
    created, changed = acts(stand.database, f"grant/{GRANT_ID}")
    assert (created.act, changed.act) == (Act.GRANT_CREATED, Act.GRANT_CHANGED)
    assert changed.details == {
        "name": "to-west",
        "site": "west",
        "issuer": "own",
        "allowed": 9,
        "expires_at": NOW + 3600,
        "code": "replaced",
    }


def test_a_revoked_grant_stays_as_it_is_whatever_its_resource_says(
    stand: Stand, west: Cluster
) -> None:
    admit(west)
    grants.revoke(stand.database, GRANT_ID, actor="cli:test", now=NOW + 1)
    with nothing_written(stand.database):
        known = admit(
            west, redemptionsAllowed=9, expirationWindow="9h", code="new", issuer="another"
        )
    assert known.grant.state(NOW + 1) is State.REVOKED
    assert (known.grant.allowed, known.code) == (2, CODE)
    assert refused(stand, presented_code=b"new") is Reason.WRONG_CODE
    assert refused(stand) is Reason.REVOKED


def test_a_grant_that_is_revoked_while_it_is_changed_is_not_changed(
    request: pytest.FixtureRequest, stand: Stand, west: Cluster
) -> None:
    admit(west)
    begun: list[str] = []
    kind = request.node.callspec.params["database"]
    other_process = Database(request.getfixturevalue(f"{kind}_url"))
    request.addfinalizer(other_process.close)

    def revoke_before(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if not begun and statement.startswith(("BEGIN IMMEDIATE", "SELECT pg_advisory")):
            begun.append(statement)
            grants.revoke(other_process, GRANT_ID, actor="cli:test", now=NOW + 1)

    event.listen(stand.database._engine, "before_cursor_execute", revoke_before)
    known = admit(west, redemptionsAllowed=9, code="another code")
    assert begun
    assert (known.grant.revoked_at, known.grant.allowed, known.code) == (NOW + 1, 2, CODE)
    assert [one.act for one in acts(stand.database, f"grant/{GRANT_ID}")] == [
        Act.GRANT_CREATED,
        Act.GRANT_REVOKED,
    ]


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=5
    ),
    told=st.none() | st.builds(Told, spent=st.integers(0, 5)),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_asked_for_nothing_is_given_twice_or_taken_back(
    stand: Stand, west: Cluster, steps: list[tuple[int, int, int]], told: Told | None
) -> None:
    """Each step asks for redemptions and a window, and then so many sites come."""
    uid = new_id(NOW * 1000, ambient.random_bytes(10))
    number, spent = 0, 0 if told is None else told.spent
    for allowed, hours, coming in steps:
        wanted: dict[str, Any] = {"redemptionsAllowed": allowed, "expirationWindow": f"{hours}h"}
        known = admit(west, told, uid=uid, name=f"n-{uid}", **wanted)
        assert known.grant.spent == spent
        assert known.grant.allowed == max(allowed, spent)
        assert known.grant.expires_at == NOW + hours * 3600
        claims = [a_claim(key=uid, subject=another(number + one)) for one in range(coming)]
        number += coming
        given_out = sum(isinstance(one, Redeemed) for one in redeem_all(stand, *claims))
        assert given_out == min(coming, known.grant.allowed - spent)
        spent += given_out
    rows = grants.show(stand.database, uid)[1]
    begun = 0 if told is None else told.spent
    assert [one.ordinal for one in rows] == list(range(begun + 1, spent + 1))


def test_redemptions_and_changes_at_the_same_time_agree(stand: Stand, west: Cluster) -> None:
    """Redemptions allowed go up and down while sites redeem, several at once."""
    steps = [40, 3, 20, 1, 30, 10, 25, 2]
    admit(west, redemptionsAllowed=steps[0])

    async def main() -> list[Redeemed | BaseException]:
        redeemer = stand.redeemer()
        answers: list[Redeemed | BaseException] = []
        for step, allowed in enumerate(steps):
            change = asyncio.create_task(asyncio.to_thread(admit, west, redemptionsAllowed=allowed))
            claims = [a_claim(subject=another(8 * step + one)) for one in range(8)]
            coming = (redeemer.redeem(claim) for claim in claims)
            answers += await asyncio.gather(*coming, return_exceptions=True)
            known = await change
            assert known.grant.spent <= known.grant.allowed
            assert known.grant.allowed == max(allowed, known.grant.spent)
        await redeemer.ledger.close()
        await redeemer.thefts.close()
        return answers

    answers = asyncio.run(main())
    won = [one.ordinal for one in answers if isinstance(one, Redeemed)]
    lost = [one for one in answers if not isinstance(one, Redeemed)]
    assert all(isinstance(one, Refused) and one.reason is Reason.USED_UP for one in lost)
    assert sorted(won) == list(range(1, len(won) + 1))
    assert lost
    assert len(won) >= steps[0] // 5  # those that came first
    grant = admit(west, redemptionsAllowed=steps[-1]).grant
    assert grant.spent == len(won) <= max(steps)
    rows = grants.show(stand.database, GRANT_ID)[1]
    assert [one.ordinal for one in rows] == sorted(won)


# Resources that go, and come again.


def test_a_grant_whose_resource_is_deleted_is_revoked_at_once(stand: Stand, west: Cluster) -> None:
    admit(west)
    redeem(stand)
    stand.clock.now += 5
    assert west.revoke("west", "to-west") == 1
    assert refused(stand) is Reason.REVOKED  # no kept answer either
    assert refused(stand, subject=another(1)) is Reason.REVOKED
    grant, redemptions = grants.show(stand.database, GRANT_ID)
    assert (grant.revoked_at, len(redemptions)) == (NOW + 5, 1)
    last = [
        one for one in acts(stand.database, f"grant/{GRANT_ID}") if one.act is not Act.GRANT_REFUSED
    ][-2:]
    assert [(one.act, one.actor, one.at) for one in last] == [
        (Act.GRANT_REVOKED, ACTOR, NOW + 5),
        (Act.GRANT_CERTIFICATES_REVOKED, ACTOR, NOW + 5),
    ]
    with nothing_written(stand.database):
        assert west.revoke("west", "to-west") == 0
    assert west.live_names() == []
    assert west.marks() == {}


def test_the_code_of_a_resource_that_is_gone_is_kept_no_longer(stand: Stand, west: Cluster) -> None:
    admit(west)
    west.revoke("west", "to-west")
    assert [row[3] for row in rows_of(stand.database)["access_grants"]] == [b""]
    with nothing_written(stand.database):
        known = admit(west)  # a cluster that was set back has it once more
    assert (known.code, known.grant.state(NOW)) == ("", State.REVOKED)


def test_one_that_was_revoked_before_its_resource_was_deleted_is_gone_all_the_same(
    stand: Stand, west: Cluster
) -> None:
    admit(west)
    grants.revoke(stand.database, GRANT_ID, actor="cli:test", now=NOW)
    assert west.live_names() == [("west", "to-west")]
    assert west.revoke("west", "to-west") == 0
    assert west.live_names() == []
    assert len(acts(stand.database, f"grant/{GRANT_ID}")) == 2  # revoked once


def test_a_resource_that_is_made_anew_is_a_new_grant(stand: Stand, west: Cluster) -> None:
    for told_in_order in (True, False):
        old, new = (GRANT_ID, OTHER_ID) if told_in_order else (OTHER_ID, THIRD_ID)
        admit(west, uid=old)
        redeem(stand, key=old)
        if told_in_order:
            west.revoke("west", "to-west")
            known = admit(west, uid=new, code="another code")
        else:  # nobody saw that it was deleted in between
            known = admit(west, uid=new, code="another code")
            assert west.revoke("west", "to-west", but=new) == 1
        assert (known.grant.id, known.grant.spent, known.grant.name) == (new, 0, "to-west")
        assert refused(stand, key=old) is Reason.REVOKED
        assert isinstance(redeem(stand, key=new, presented_code=b"another code"), Redeemed)
        with nothing_written(stand.database):
            west.revoke("west", "to-west", but=new)
        assert grants.show(stand.database, "to-west")[0].id == new
        admit(west, uid=new)  # with the code of the first one


def test_a_resource_is_revoked_in_its_own_namespace_alone(stand: Stand, west: Cluster) -> None:
    put(west, "east", sign(west, "east", a_secret()))
    admit(west)
    admit(west, uid=OTHER_ID, namespace="east")
    assert west.revoke("east", "to-west") == 1
    assert isinstance(redeem(stand), Redeemed)
    assert refused(stand, key=OTHER_ID) is Reason.REVOKED
    assert west.live_names() == [("west", "to-west")]


def test_a_grant_of_ours_and_a_resource_may_have_the_same_name(stand: Stand, west: Cluster) -> None:
    local = stand.make_grant().grant
    known = admit(west)
    assert known.grant.name != local.name
    assert isinstance(redeem(stand, key=local.id), Redeemed)
    assert isinstance(redeem(stand, subject=another(1)), Redeemed)
    assert west.revoke("west", "to-west") == 1
    assert isinstance(redeem(stand, key=local.id, subject=another(2)), Redeemed)
    assert refused(stand, subject=another(3)) is Reason.REVOKED


def test_names_that_are_too_long_for_a_grant_are_told_apart(stand: Stand, west: Cluster) -> None:
    one, other = LONG + "-1", LONG + "-2"
    first = admit(west, name=one)
    second = admit(west, name=other, uid=OTHER_ID)
    assert first.grant.name != second.grant.name
    assert west.live_names() == [("west", one), ("west", other)]
    with nothing_written(stand.database):
        admit(west, name=one)
    assert redeem(stand, key=f"west/{one}").grant.id == GRANT_ID
    assert redeem(stand, key=f"west/{other}").grant.id == OTHER_ID
    assert grants.show(stand.database, other)[0].id == OTHER_ID
    fallen_back = redeem(stand, name=None, subject=another(1))
    assert fallen_back.name == first.grant.name
    assert west.revoke("west", other) == 1
    assert refused(stand, key=f"west/{other}") is Reason.REVOKED
    assert isinstance(redeem(stand, key=f"west/{one}"), Redeemed)  # again, as it was


# What changes without a resource.


def test_marks_change_with_every_redemption_revocation_suspicion_and_wrong_code(
    stand: Stand, west: Cluster
) -> None:
    admit(west)
    admit(west, uid=OTHER_ID, name="other")
    seen = [west.marks()]

    def changed() -> set[str]:
        now = west.marks()
        before = seen[-1]
        seen.append(now)
        return {one for one in now if before.get(one) != now[one]}

    assert changed() == set()
    redeem(stand)
    assert changed() == {GRANT_ID}
    redeem(stand)  # the same claim again
    assert changed() == set()
    redeem(stand, subject=another(1))
    assert changed() == {GRANT_ID}
    assert refused(stand, subject="mallory", peer="198.51.100.66") is Reason.USED_UP
    assert changed() == {GRANT_ID}
    theft = admit(west).theft
    assert theft is not None
    assert [one.subject for one in theft.later] == ["mallory"]
    allowance = Allowance(burst=9, interval=1000)
    answers = redeem_all(
        stand,
        a_claim(key=OTHER_ID, presented_code=b"wrong"),
        locks=stand.locks(allowance),
    )
    assert isinstance(answers[0], Refused)
    assert changed() == {OTHER_ID}
    assert seen[-1][OTHER_ID].wrong_codes == 1
    grants.revoke(stand.database, "other", actor="cli:test", now=NOW)
    assert changed() == {OTHER_ID}
    stand.clock.now += WINDOW + 3600
    assert west.marks() == {}


@pytest.mark.parametrize(
    ("told_until", "told"),
    [
        (0, range(1, 11)),
        (-(10**30), range(1, 11)),
        (3, range(4, 14)),
        (8, range(9, 15)),
        (14, ()),
        (15, ()),
        (10**30, ()),
    ],
)
def test_redemptions_are_told_behind_those_that_a_status_told_ten_at_most(
    stand: Stand, west: Cluster, told_until: int, told: range
) -> None:
    admit(west, redemptionsAllowed=20)
    redeem_all(stand, *(a_claim(subject=another(number)) for number in range(14)))
    known = admit(west, redemptionsAllowed=20, told_until=told_until)
    assert [ordinal for ordinal, *_ in known.redemptions] == list(told)


# Several at once, and faults.


def test_a_grant_that_is_not_as_it_was_written_is_a_fault_of_ours(
    west: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit(west)
    monkeypatch.setattr(access_grants, "change", lambda *_, **__: None)
    before = rows_of(west.database)
    with pytest.raises(Broken, match=GRANT_ID):
        admit(west, redemptionsAllowed=9)
    assert rows_of(west.database) == before


def test_threads_that_admit_at_once_make_one_grant_each(west: Cluster) -> None:
    uids = [f"{GRANT_ID[:-2]}{number:02}" for number in range(8)]

    def one(uid: str) -> str:
        try:
            return admit(west, uid=uid, name=f"n{uid[-2:]}").grant.id
        except Conflict:  # the other thread has just made it
            return admit(west, uid=uid, name=f"n{uid[-2:]}").grant.id

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, uids * 2)) == uids * 2
    assert set(west.marks()) == set(uids)


@pytest.mark.parametrize(
    "act",
    [
        lambda cluster: put(cluster, "west", None, ()),
        lambda cluster: admit(cluster, redemptionsAllowed=9),
        lambda cluster: admit(cluster, uid=OTHER_ID, name="other"),
        lambda cluster: sign(cluster, "west", a_secret()),
        lambda cluster: cluster.revoke("west", "to-west"),
        lambda cluster: cluster.remove_namespace("unused"),
    ],
    ids=["namespace", "change", "new grant", "issuer", "deletion", "removal"],
)
def test_what_is_done_and_its_audit_entry_are_one_transaction(
    stand: Stand, west: Cluster, act: Callable[[Cluster], object]
) -> None:
    put(west, "unused", None, ())
    admit(west)

    def fail(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO audit"):
            raise Unavailable("the disk is full")

    before = rows_of(stand.database)
    event.listen(stand.database._engine, "before_cursor_execute", fail)
    with pytest.raises(Unavailable):
        act(west)
    event.remove(stand.database._engine, "before_cursor_execute", fail)
    assert rows_of(stand.database) == before
    act(west)
    assert rows_of(stand.database) != before


# Whoever leads.


@pytest.mark.parametrize(
    "act",
    [
        lambda cluster: put(cluster, "west", None, ()),
        lambda cluster: admit(cluster, redemptionsAllowed=9),
        lambda cluster: admit(cluster, uid=OTHER_ID, name="other"),
        lambda cluster: cluster.catch_up(GRANT_ID, Told(spent=2)),
        lambda cluster: sign(cluster, "west", a_secret()),
        lambda cluster: cluster.revoke("west", "to-west"),
        lambda cluster: cluster.remove_namespace("unused"),
        lambda cluster: cluster.forget_unused_keys(),
        lambda cluster: addresses.tell(cluster.database, AddressRow(url="u"), now=NOW),
    ],
    ids=(
        "namespace", "change", "new grant", "status", "issuer", "deletion", "removal", "keys",
        "address",
    ),
)  # fmt: skip
def test_a_former_leader_changes_nothing_once_another_has_begun_and_is_told(
    stand: Stand, west: Cluster, act: Callable[[Cluster], object]
) -> None:
    put(west, "unused", None, ())
    former = west.led()
    sign(former, "west", a_secret(), "that nobody uses")
    admit(former)
    assert not former.is_overtaken()
    now_leading = west.led()
    before = rows_of(stand.database)
    with pytest.raises(Unavailable, match="somebody else leads by now"):
        act(former)
    assert rows_of(stand.database) == before
    assert former.is_overtaken()
    assert not now_leading.is_overtaken()
    act(now_leading)
    assert rows_of(stand.database) != before


def test_the_number_of_a_leader_is_never_used_again_also_where_the_database_is_set_back(
    stand: Stand, west: Cluster
) -> None:
    before = rows_of(stand.database)
    former = west.led()
    stand.clock.now += 60
    restore(stand, before)
    # It leads on until somebody else does, and brings the database up to date.
    assert not former.is_overtaken()
    admit(former)
    west.led()
    assert former.is_overtaken()
    with pytest.raises(Unavailable):
        former.revoke("west", "to-west")


def test_a_resource_that_is_known_takes_no_other_of_its_name_along(
    stand: Stand, west: Cluster
) -> None:
    admit(west)
    admit(west, uid=OTHER_ID)
    assert west.revoke("west", "to-west", uid=GRANT_ID) == 1
    assert west.revoke("west", "to-west", uid=GRANT_ID) == 0
    assert grants.show(stand.database, OTHER_ID)[0].revoked_at is None
    assert grants.show(stand.database, GRANT_ID)[0].revoked_at == NOW


@pytest.mark.parametrize("seen", ["admitted", "known"])
def test_a_grant_that_somebody_took_for_gone_is_told_of_where_its_resource_is_there(
    stand: Stand, west: Cluster, seen: str
) -> None:
    """Its status says Ready still: it has to follow."""
    other = a_cluster(stand)
    admit(other)
    west.revoke("west", "to-west")
    if seen == "admitted":
        admit(other)
    else:
        assert other.known(GRANT_ID, told_until=0) is not None
    mark = other.marks()[GRANT_ID]
    assert (mark.namespace, mark.name, mark.revoked) == ("west", "to-west", True)
    assert GRANT_ID not in a_cluster(stand).marks()  # nobody has seen it there


# What was given out with a resource that is deleted.


def revoked(stand: Stand) -> list[int | None]:
    return [one.revoked_at for one in grants.certificates(stand.database, GRANT_ID)]


def renewed(stand: Stand, held: Held) -> Reason | None:
    try:
        renew(stand, held.wish(a_key()))
    except Refused as refused:
        return refused.reason
    return None


def test_whoever_deletes_an_open_one_stops_all_that_came_of_it(stand: Stand, west: Cluster) -> None:
    admit(west, redemptionsAllowed=2)
    held = redeem_with_key(stand, grants.show(stand.database, GRANT_ID)[0])
    assert renewed(stand, held) is None
    west.revoke("west", "to-west")
    assert revoked(stand) == [NOW, NOW]
    assert renewed(stand, held) is Reason.CERTIFICATE_REVOKED
    last = audit.latest(stand.database, limit=1)[0]
    assert (last.act, last.details["certificates"]) == (Act.GRANT_CERTIFICATES_REVOKED, 2)


@pytest.mark.parametrize(("allowed", "later"), [(1, 0), (2, WINDOW)], ids=["used up", "expired"])
def test_whoever_deletes_one_that_is_over_tidies_up_and_links_go_on(
    stand: Stand, west: Cluster, allowed: int, later: int
) -> None:
    admit(west, redemptionsAllowed=allowed)
    held = redeem_with_key(stand, grants.show(stand.database, GRANT_ID)[0])
    stand.clock.now = NOW + later
    west.revoke("west", "to-west")
    assert grants.show(stand.database, GRANT_ID)[0].revoked_at == NOW + later
    assert revoked(stand) == [None]
    assert renewed(stand, held) is None
    # What is revoked by name is revoked for good, also then.
    done = grants.revoke(stand.database, GRANT_ID, actor="x", now=NOW + later)
    assert done.certificates == 2
    assert renewed(stand, held) is Reason.CERTIFICATE_REVOKED


def test_what_was_revoked_stays_so_when_its_resource_is_deleted(
    stand: Stand, west: Cluster
) -> None:
    admit(west, redemptionsAllowed=1)
    held = redeem_with_key(stand, grants.show(stand.database, GRANT_ID)[0])
    grants.revoke(stand.database, GRANT_ID, actor="x", now=NOW)
    west.revoke("west", "to-west")
    assert renewed(stand, held) is Reason.CERTIFICATE_REVOKED


def test_a_status_that_tells_of_a_revocation_revokes_certificates_too(
    stand: Stand, west: Cluster
) -> None:
    admit(west, redemptionsAllowed=2)
    held = redeem_with_key(stand, grants.show(stand.database, GRANT_ID)[0])
    assert west.catch_up(GRANT_ID, Told(spent=1, revoked_at=NOW + 5))
    assert revoked(stand) == [NOW + 5]
    assert renewed(stand, held) is Reason.CERTIFICATE_REVOKED
