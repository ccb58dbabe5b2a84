import asyncio
import functools
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import insert, select, update

from app import ambient
from app.crypto import issuers
from app.crypto.facts import facts
from app.domain.audit import Act
from app.domain.authorities import SPREAD_SECONDS, Authority, State
from app.domain.certificates import KeyType
from app.domain.grants import Grant
from app.errors import Conflict, Invalid, Lack, Missing, Unready
from app.services import audit, authorities, grants, reach, rotation, sites
from app.services.reach import ServerMaterial
from app.services.rotation import Rotation, Times
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store import schema
from app.store.access_grants import NO_ISSUER, no_issuer
from app.store.engine import Database
from tests.builders import GRANT_ID, NOW, WINDOW, Stand, a_claim, a_stand, an_authority
from tests.services.clusters import a_cluster, admit, put
from tests.services.verifying import handshake, path_as_go_finds_it

DAY = 24 * 3600
LIFETIME = 3600
TIMES = Times(wait_seconds=DAY, lifetime_seconds=LIFETIME, retry_seconds=600)
HOST = "west.example"


@pytest.fixture
def west(stand: Stand) -> Stand:
    stand.set_site()
    return stand


def rotate(stand: Stand, name: str = "site-ca", **changes: Any) -> Rotation:
    options: dict[str, Any] = {
        "name": name,
        "times": TIMES,
        "actor": "cli:test",
        "now": stand.clock.now,
        "random_bytes": ambient.random_bytes,
    }
    return rotation.rotate(stand.database, stand.keyring, **(options | changes))


def advance(stand: Stand, now: int, times: Times = TIMES) -> int:
    return rotation.advance(stand.database, times=times, now=now)


def material(stand: Stand, now: int | None = None) -> ServerMaterial:
    return reach.server_material(
        stand.database,
        stand.keyring,
        hosts=[HOST],
        now=stand.clock.now if now is None else now,
        random_bytes=ambient.random_bytes,
    )


def states(stand: Stand) -> dict[str, State]:
    return {one.name: one.state for one in authorities.every(stand.database)}


def named(stand: Stand, name: str) -> Authority:
    return authorities.show(stand.database, name)[0]


def acts(stand: Stand) -> list[tuple[Act, str]]:
    entries = audit.latest(stand.database, limit=99)
    known = {
        Act.AUTHORITY_PREPARED,
        Act.AUTHORITY_ACTIVATED,
        Act.AUTHORITY_RETIRED,
        Act.AUTHORITY_KEY_ERASED,
        Act.AUTHORITY_ENDED,
    }
    return [(one.act, one.target) for one in entries if one.act in known]


def redeemed(stand: Stand, grant_id: str, at: int, lives: int, number: int = 1) -> None:
    with stand.database.writing() as connection:
        row = {
            "grant_id": grant_id, "ordinal": number, "name": "n", "subject": "s", "peer": "p",
            "serial": f"s{number}", "fingerprint": "f", "not_after": at + lives, "redeemed_at": at,
        }  # fmt: skip
        connection.execute(insert(schema.redemptions).values(row))
        spending = update(schema.grants).where(schema.grants.c.id == grant_id)
        connection.execute(spending.values(spent=number))


# The authority of sites


def test_the_next_generation_is_prepared_signs_and_the_old_one_goes_when_it_may(
    west: Stand,
) -> None:
    grant = west.make_grant().grant
    own = west.make_grant(name="own", issuer="site-ca").grant
    old, revision = named(west, "site-ca"), sites.show(west.database, "west").revision

    done = rotate(west)
    assert (done.signing, done.other.name) == (old, "site-ca-2")
    assert states(west)["site-ca-2"] is State.PREPARED
    assert done.other.due_at == NOW + DAY
    new = done.other
    both = old.certificate_pem + new.certificate_pem
    assert rotation.trust_bundle(west.database, "site-ca") == both
    assert sites.show(west.database, "west").revision == revision + 1
    assert sites.show(west.database, "west").issuer == "site-ca"
    assert advance(west, NOW + DAY - 1) == 0

    assert advance(west, NOW + DAY) == 1
    assert states(west) == {
        "server-ca": State.ACTIVE, "site-ca": State.ACTIVE, "site-ca-1": State.RETIRED,
    }  # fmt: skip
    assert named(west, "site-ca").id == new.id
    assert named(west, "site-ca-1").id == old.id
    both = new.certificate_pem + old.certificate_pem
    assert rotation.trust_bundle(west.database, "site-ca") == both
    assert sites.show(west.database, "west").issuer == "site-ca"
    assert sites.show(west.database, "west").revision == revision + 2
    assert {one.name: one.issuer for one in grants.every(west.database)} == {
        "to-west": None, "own": "site-ca",
    }  # fmt: skip
    with west.database.reading() as connection:
        table = schema.grants
        assert (
            connection.execute(select(table.c.issuer_id).where(table.c.id == own.id)).scalar_one()
            == new.id
        )

    redeemed(west, grant.id, NOW + DAY + SPREAD_SECONDS, 5 * LIFETIME)
    spread = NOW + DAY + SPREAD_SECONDS
    assert advance(west, spread) == 0
    assert advance(west, spread + LIFETIME - 1) == 0

    # A certificate that was made under a longer setting is honoured until it ends.
    assert advance(west, spread + LIFETIME) == 0
    assert named(west, "site-ca-1").due_at == spread + 5 * LIFETIME + 1
    assert advance(west, spread + 5 * LIFETIME) == 0
    assert rotation.trust_bundle(west.database, "site-ca") == both
    assert named(west, "site-ca-1").sealed_key  # it signs the list of what was revoked
    assert advance(west, spread + 5 * LIFETIME + 1) == 1
    assert named(west, "site-ca-1").sealed_key == b""
    assert states(west)["site-ca-1"] is State.ENDED
    assert rotation.trust_bundle(west.database, "site-ca") == new.certificate_pem
    assert sites.show(west.database, "west").revision == revision + 3
    assert advance(west, NOW + 10**9) == 0
    assert acts(west) == [
        (Act.AUTHORITY_PREPARED, "authority/site-ca-2"),
        (Act.AUTHORITY_RETIRED, "authority/site-ca-1"),
        (Act.AUTHORITY_ACTIVATED, "authority/site-ca"),
        (Act.AUTHORITY_ENDED, "authority/site-ca-1"),
    ]


def test_who_does_and_what_is_told_in_the_audit_log(west: Stand) -> None:
    done = rotate(west)
    (entry,) = audit.latest(west.database, limit=9, target="authority/site-ca-2")
    assert (entry.at, entry.actor) == (NOW, "cli:test")
    assert entry.details == {
        "fingerprint": done.other.fingerprint,
        "of": "site-ca",
        "not_after": done.other.not_after,
        "signs_from": NOW + DAY,
    }
    advance(west, NOW + DAY)
    (retired,) = audit.latest(west.database, limit=9, target="authority/site-ca-1")
    assert (retired.at, retired.actor) == (NOW + DAY, "server")
    assert retired.details == {
        "fingerprint": done.signing.fingerprint,
        "in_place_of": done.other.fingerprint,
        "was": "site-ca",
    }


def test_with_now_it_signs_at_once_prepared_or_not(west: Stand) -> None:
    done = rotate(west, at_once=True)
    assert (done.signing.name, done.other.name) == ("site-ca", "site-ca-1")
    assert (done.signing.state, done.other.state) == (State.ACTIVE, State.RETIRED)
    assert done.signing == named(west, "site-ca")
    waiting = rotate(west).other
    assert waiting.name == "site-ca-3"
    done = rotate(west, at_once=True)
    assert (done.signing.id, done.other.name) == (waiting.id, "site-ca-2")
    assert list(states(west)) == ["server-ca", "site-ca", "site-ca-1", "site-ca-2"]


def test_without_a_wait_it_signs_at_once(west: Stand) -> None:
    done = rotate(west, times=replace(TIMES, wait_seconds=0))
    assert (done.signing.state, done.other.state) == (State.ACTIVE, State.RETIRED)


def test_all_of_a_retired_authority_ends_with_it_at_the_latest(west: Stand) -> None:
    grant = west.make_grant().grant
    done = rotate(west, at_once=True, times=replace(TIMES, lifetime_seconds=10**10))
    end = done.other.not_after
    redeemed(west, grant.id, NOW, end - NOW)
    assert done.other.due_at == end + 1
    advance(west, end)
    assert states(west)["site-ca-1"] is State.RETIRED
    assert advance(west, end + 1) == 1
    assert states(west)["site-ca-1"] is State.ENDED


@pytest.mark.parametrize("kind", KeyType)
def test_the_new_key_is_of_the_kind_of_the_old_one_unless_told_otherwise(
    stand: Stand, kind: KeyType
) -> None:
    authorities.create(
        stand.database, stand.keyring, name="lab", key_type=kind, actor="x", now=NOW,
        random_bytes=ambient.random_bytes,
    )  # fmt: skip
    before = authorities.show(stand.database, "lab")[1]
    made = rotate(stand, "lab", at_once=True, lifetime_seconds=1000).signing
    found = facts(made.certificate_pem.encode())
    assert found.key == before.key
    assert found.fingerprint != before.fingerprint
    assert (found.subject, found.not_after) == ("CN=lab-2", NOW + 1000)
    made = rotate(stand, "lab", at_once=True, key_type=KeyType.P256).signing
    assert facts(made.certificate_pem.encode()).key == "EC P-256"


def test_what_is_prepared_or_retired_is_nobodys_to_choose(west: Stand) -> None:
    rotate(west)
    for name in ("site-ca-2", "server-ca"):
        with pytest.raises(Exception, match="no site authority"):
            west.set_site(issuer=name)
        with pytest.raises(Exception, match="no site authority"):
            west.make_grant(issuer=name)
    rotate(west, at_once=True)
    with pytest.raises(Exception, match="no site authority"):
        west.set_site(issuer="site-ca-1")


def test_the_default_authority_is_not_made_anew_after_a_rotation(
    west: Stand, tmp_path: Path
) -> None:
    for name in ("site-ca", "server-ca"):
        rotate(west, name, at_once=True)
    before = authorities.every(west.database)
    a_stand(west.database, tmp_path)
    assert authorities.every(west.database) == before


# What is refused


def test_who_is_not_there_cannot_be_rotated(west: Stand) -> None:
    with west.database.writing() as connection:
        no_issuer(connection, NOW)
    for name in ("nobody", NO_ISSUER):
        with pytest.raises(Missing):
            rotate(west, name)


def test_what_the_cluster_keeps_is_rotated_there(west: Stand) -> None:
    with west.database.writing() as connection:
        authority_rows.add(connection, an_authority(name="prod-ca", origin="prod/skupper-site-ca"))
    with pytest.raises(Conflict, match="Secret prod/skupper-site-ca: rotate it there"):
        rotate(west, "prod-ca")
    assert states(west)["prod-ca"] is State.ACTIVE


def test_a_second_one_is_not_prepared_and_a_generation_not_rotated(west: Stand) -> None:
    rotate(west)
    with pytest.raises(Conflict, match="prepared already"):
        rotate(west)
    with pytest.raises(Conflict, match='generation of "site-ca"'):
        rotate(west, "site-ca-2", at_once=True)
    assert len(states(west)) == 3


def test_of_two_rotations_at_once_one_is_told_that_it_came_second(
    west: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = authorities.make

    def meanwhile(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        rotate(west)
        return made(*args, **options)

    monkeypatch.setattr(authorities, "make", meanwhile)
    with pytest.raises(Conflict, match="just changed"):
        rotate(west)
    assert len(states(west)) == 3


def test_a_server_ca_that_cannot_be_opened_signs_no_successor(west: Stand) -> None:
    with west.database.writing() as connection:
        connection.execute(update(schema.authorities).values(sealed_key=b"x" * 60))
    with pytest.raises(Unready) as unready:
        rotate(west, "server-ca")
    assert unready.value.lack is Lack.ISSUER
    assert len(states(west)) == 2


# The server's own CA


@pytest.fixture(params=["new", "of the release before"])
def rotated(
    request: pytest.FixtureRequest,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Stand:
    """A stand of today; once with a server CA whose path length says that it signs leaves only."""
    create = issuers.create_authority
    now = ambient.utc_now()
    monkeypatch.setattr("tests.builders.NOW", now)
    if request.param == "of the release before":
        leaves_only = functools.partial(_leaves_only, create)
        monkeypatch.setattr(issuers, "create_authority", leaves_only)
    made = a_stand(database, tmp_path)
    monkeypatch.setattr(issuers, "create_authority", create)
    made.clock.now = now
    made.set_site()
    return made


def _leaves_only(create: Callable[..., bytes], **options: Any) -> bytes:
    return create(**(options | {"leaves_only": True}))


def accepted_by_all(stand: Stand, served: ServerMaterial, *clients: str) -> None:
    for ca_pem in clients:
        handshake(served, ca_pem, stand.keyring.path.parent, HOST)
        assert path_as_go_finds_it(served.certificate_pem, ca_pem, stand.clock.now)


def test_whoever_trusts_the_old_ca_or_the_new_one_or_both_is_served(rotated: Stand) -> None:
    old = named(rotated, "server-ca")
    before = material(rotated)
    accepted_by_all(rotated, before, old.certificate_pem)
    done = rotate(rotated, "server-ca")
    new = done.signing
    assert (done.other.id, done.other.name) == (old.id, "server-ca-1")
    assert states(rotated) == {
        "server-ca": State.ACTIVE, "server-ca-1": State.RETIRED, "site-ca": State.ACTIVE,
    }  # fmt: skip
    both = reach.current(rotated.database, "x").ca_pem
    assert both == new.certificate_pem + old.certificate_pem
    # Tokens of this moment, while some process has not changed its certificate yet.
    accepted_by_all(rotated, before, old.certificate_pem, both)
    served = material(rotated)
    assert served != before
    assert material(rotated) == served
    accepted_by_all(rotated, served, old.certificate_pem, new.certificate_pem, both)
    stranger = authorities.show(rotated.database, "site-ca")[0].certificate_pem
    assert not path_as_go_finds_it(served.certificate_pem, stranger, rotated.clock.now)
    with pytest.raises(Exception, match="certificate verify failed"):
        handshake(served, stranger, rotated.keyring.path.parent)


def test_without_the_cross_certificate_the_old_ca_would_not_be_enough(stand: Stand) -> None:
    """So that the test above proves what it says."""
    old = named(stand, "server-ca").certificate_pem
    rotate(stand, "server-ca")
    served = material(stand).certificate_pem
    leaf = served[: served.index(b"-----END CERTIFICATE-----") + 26]
    assert path_as_go_finds_it(served, old)
    assert not path_as_go_finds_it(leaf, old)


def test_a_ca_with_a_path_length_cannot_vouch_for_its_successor_in_go(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why such a one goes on signing the listener's certificate until it ends."""
    create = issuers.create_authority
    with stand.database.writing() as connection:
        connection.execute(
            update(schema.authorities)
            .where(schema.authorities.c.purpose == "server")
            .values(purpose="site", name="away")
        )
    monkeypatch.setattr(issuers, "create_authority", functools.partial(_leaves_only, create))
    authorities.ensure_defaults(
        stand.database, stand.keyring, now=NOW, random_bytes=ambient.random_bytes
    )
    monkeypatch.setattr(issuers, "create_authority", create)
    old = named(stand, "server-ca")
    monkeypatch.setattr(issuers, "signs_leaves_only", lambda _: False)
    rotate(stand, "server-ca")
    served = material(stand).certificate_pem
    assert served.count(b"BEGIN") == 2
    assert not path_as_go_finds_it(served, old.certificate_pem)


def test_after_several_rotations_every_ca_that_is_trusted_is_enough(rotated: Stand) -> None:
    known = [named(rotated, "server-ca").certificate_pem]
    rotated.make_grant(window_seconds=10**6)  # so that none of them ends
    legacy = issuers_path_length(known[0]) is not None
    for _ in range(3):
        rotate(rotated, "server-ca")
        rotated.clock.now += 1
        known.append(named(rotated, "server-ca").certificate_pem)
        served = material(rotated)
        advance(rotated, rotated.clock.now + SPREAD_SECONDS)
        bundle = reach.current(rotated.database, "x").ca_pem
        assert all(one in bundle for one in known)
        # Tokens carry what was trusted when they were made: the first one, alone or among others.
        tokens = ["".join(known[: place + 1]) for place in range(len(known))]
        accepted_by_all(rotated, served, *tokens, known[0], known[-1], bundle)
        if not legacy:
            accepted_by_all(rotated, served, *known)
    assert list(states(rotated))[:4] == ["server-ca", "server-ca-1", "server-ca-2", "server-ca-3"]


def issuers_path_length(certificate_pem: str) -> int | None:
    found = x509.load_pem_x509_certificate(certificate_pem.encode())
    return found.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length


def test_the_old_ca_goes_when_nobody_comes_with_a_token_made_before(rotated: Stand) -> None:
    begun = rotated.clock.now
    grant = rotated.make_grant(redemptions=1).grant
    old = named(rotated, "server-ca")
    legacy = issuers_path_length(old.certificate_pem) is not None
    rotate(rotated, "server-ca")
    new = named(rotated, "server-ca")
    served = material(rotated)
    at = begun + SPREAD_SECONDS
    assert advance(rotated, at - 1) == 0
    assert advance(rotated, at) == (0 if legacy else 1)
    assert bool(named(rotated, "server-ca-1").sealed_key) is legacy
    redeemed(rotated, grant.id, at, 100)
    assert advance(rotated, at + 599) == 0
    assert old.certificate_pem in reach.current(rotated.database, "x").ca_pem
    assert advance(rotated, at + 600) == 1
    assert states(rotated)["server-ca-1"] is State.ENDED
    assert named(rotated, "server-ca-1").sealed_key == b""
    only = reach.current(rotated.database, "x").ca_pem
    assert only == new.certificate_pem
    accepted_by_all(rotated, served, only)  # before the listener has changed
    after = material(rotated)
    assert after != served
    assert after.certificate_pem.count(b"BEGIN") == 1
    accepted_by_all(rotated, after, only)


def test_a_grant_of_just_after_the_rotation_counts_as_one_of_before(stand: Stand) -> None:
    """Whoever made its token may not have known of the new CA yet."""
    stand.set_site()
    rotate(stand, "server-ca")
    stand.clock.now = NOW + SPREAD_SECONDS
    grant = stand.make_grant(redemptions=1).grant
    advance(stand, grant.expires_at - 1)
    assert states(stand)["server-ca-1"] is State.RETIRED
    advance(stand, grant.expires_at + 600)
    assert states(stand)["server-ca-1"] is State.ENDED


def test_grants_of_later_do_not_keep_the_old_ca(stand: Stand) -> None:
    stand.set_site()
    rotate(stand, "server-ca")
    stand.clock.now = NOW + SPREAD_SECONDS + 1
    stand.make_grant()
    assert advance(stand, stand.clock.now) == 1
    assert states(stand)["server-ca-1"] is State.ENDED


def test_an_old_ca_ends_with_its_time_whoever_may_come(rotated: Stand) -> None:
    rotated.make_grant(window_seconds=10**9)
    old = rotate(rotated, "server-ca", lifetime_seconds=10**9).other
    advance(rotated, old.not_after)
    assert states(rotated)["server-ca-1"] is State.RETIRED
    advance(rotated, old.not_after + 1)
    assert states(rotated)["server-ca-1"] is State.ENDED


def test_a_ca_that_has_ended_is_rotated_too(stand: Stand) -> None:
    stand.clock.now = named(stand, "server-ca").not_after + 1
    done = rotate(stand, "server-ca")
    assert done.signing.cross_pem == ""
    served = material(stand)
    assert path_as_go_finds_it(
        served.certificate_pem, done.signing.certificate_pem, stand.clock.now
    )
    assert advance(stand, stand.clock.now) == 1
    assert states(stand)["server-ca-1"] is State.ENDED


def test_a_used_up_grant_whose_allowance_is_raised_redeems_with_its_old_token(
    stand: Stand,
) -> None:
    cluster = a_cluster(stand)
    put(cluster)
    admit(cluster, redemptionsAllowed=1)
    redeemed(stand, GRANT_ID, NOW, 100)
    token = reach.current(stand.database, "x").ca_pem
    rotate(stand, "server-ca")
    stand.clock.now += WINDOW - 1
    advance(stand, stand.clock.now)
    admit(cluster, redemptionsAllowed=2)
    assert path_as_go_finds_it(material(stand).certificate_pem, token, stand.clock.now)
    advance(stand, stand.clock.now + 601)
    assert states(stand)["server-ca-1"] is State.ENDED


# A server's CA whose successor does not live for long


def openssl_accepts(served: ServerMaterial, ca_pem: str, directory: Path, now: int) -> bool:
    leaf, *others = served.certificate_pem.decode().split("-----BEGIN")[1:]
    for name, text in (
        ("ca.pem", ca_pem),
        ("leaf.pem", f"-----BEGIN{leaf}"),
        ("between.pem", "".join(f"-----BEGIN{one}" for one in others)),
    ):
        (directory / name).write_text(text)
    untrusted = ["-untrusted", "between.pem"] if others else []
    done = subprocess.run(
        ["openssl", "verify", "-attime", str(now), "-purpose", "sslserver",
         "-CAfile", "ca.pem", *untrusted, "leaf.pem"],
        check=False, capture_output=True, timeout=30, cwd=directory,
    )  # fmt: skip
    return done.returncode == 0


def test_one_that_would_end_before_the_tokens_that_are_out_is_refused(
    west: Stand, tmp_path: Path
) -> None:
    grant = west.make_grant(window_seconds=5 * DAY).grant
    token = reach.current(west.database, "x").ca_pem
    end = grant.expires_at + TIMES.retry_seconds
    with pytest.raises(Invalid, match="tokens that are out may be redeemed until") as refused:
        rotate(west, "server-ca", lifetime_seconds=end - NOW - 1)
    assert refused.value.field == "lifetime"
    assert len(states(west)) == 2
    rotate(west, "server-ca", lifetime_seconds=end - NOW)
    west.clock.now += 10
    rotate(west, "server-ca")
    for now in (NOW + 4000, grant.expires_at - 1):
        west.clock.now = now
        advance(west, now)
        served = material(west)
        assert path_as_go_finds_it(served.certificate_pem, token, now)
        assert openssl_accepts(served, token, tmp_path, now)


def test_with_one_that_ends_in_between_a_token_would_lead_nowhere(
    west: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above proves what it says."""
    monkeypatch.setattr(authority_rows, "last_token_ends", lambda *_, **__: None)
    west.make_grant(window_seconds=5 * DAY)
    token = reach.current(west.database, "x").ca_pem
    rotate(west, "server-ca", lifetime_seconds=3600)
    rotate(west, "server-ca")
    assert openssl_accepts(material(west), token, tmp_path, NOW)
    west.clock.now += 4000
    advance(west, west.clock.now)
    served = material(west)
    assert not path_as_go_finds_it(served.certificate_pem, token, west.clock.now)
    assert not openssl_accepts(served, token, tmp_path, west.clock.now)


def test_without_tokens_it_may_live_for_as_short_as_you_like(west: Stand) -> None:
    west.make_grant(window_seconds=10)
    west.clock.now += 10
    assert rotate(west, "server-ca", lifetime_seconds=60).signing.name == "server-ca"
    # What has ended with the old CA needs nothing of the next one.
    west.make_grant(name="long", window_seconds=10**9)
    west.clock.now += 50
    assert rotate(west, "server-ca", lifetime_seconds=10**9).signing.name == "server-ca"


# A server's CA that nears its end


def keep_up(stand: Stand) -> int:
    return rotation.keep_up(
        stand.database,
        stand.keyring,
        times=TIMES,
        now=stand.clock.now,
        random_bytes=ambient.random_bytes,
    )


def test_the_servers_ca_gets_a_successor_while_it_can_sign_for_a_whole_year_still(
    rotated: Stand,
) -> None:
    old = named(rotated, "server-ca")
    rotated.clock.now = old.not_after - reach.LIFETIME_SECONDS
    assert keep_up(rotated) == 0
    whole = material(rotated).not_after
    assert whole == rotated.clock.now + reach.LIFETIME_SECONDS - 1
    rotated.make_grant(window_seconds=DAY)
    rotated.clock.now += 1
    assert keep_up(rotated) == 1
    assert keep_up(rotated) == 0
    new = named(rotated, "server-ca")
    assert states(rotated)["server-ca-1"] is State.RETIRED
    assert new.not_after == rotated.clock.now + authorities.DEFAULT_LIFETIME_SECONDS
    for one in (old, new):
        served = material(rotated).certificate_pem
        assert path_as_go_finds_it(served, one.certificate_pem, rotated.clock.now)
    assert audit.latest(rotated.database, limit=1)[0].actor == "server"
    assert states(rotated)["site-ca"] is State.ACTIVE
    assert not [name for name in states(rotated) if name.startswith("site-ca-")]


def test_one_of_a_short_life_gets_one_of_a_life_as_short_unless_tokens_need_it_longer(
    west: Stand,
) -> None:
    rotate(west, "server-ca", lifetime_seconds=30 * DAY)
    west.clock.now += 19 * DAY
    assert keep_up(west) == 1  # the one before it has ended
    assert states(west)["server-ca-1"] is State.ENDED
    west.clock.now += 2 * DAY
    assert keep_up(west) == 1
    assert named(west, "server-ca").not_after == west.clock.now + 30 * DAY


def test_the_successor_lives_until_tokens_of_a_longer_lived_one_before_have_ended(
    west: Stand,
) -> None:
    rotate(west, "server-ca", lifetime_seconds=3 * DAY)
    # Its tokens carry the one before as well, which lives for longer.
    long = west.make_grant(window_seconds=90 * DAY).grant
    west.clock.now += 3 * DAY - 60
    assert keep_up(west) == 2
    assert named(west, "server-ca").not_after == long.expires_at + TIMES.retry_seconds


def test_one_that_has_ended_gets_a_successor_too(west: Stand) -> None:
    west.clock.now = named(west, "server-ca").not_after + 1
    assert keep_up(west) == 1
    assert keep_up(west) == 1
    assert states(west)["server-ca-1"] is State.ENDED
    assert named(west, "server-ca").cross_pem == ""


def test_of_many_that_see_the_end_come_one_makes_the_successor(
    database: Database,
    tmp_path: Path,
) -> None:
    stand = a_stand(database, tmp_path)
    stand.clock.now = named(stand, "server-ca").not_after - DAY
    start, taken = threading.Barrier(6), []

    def one() -> None:
        start.wait(30)
        taken.append(keep_up(stand))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(taken) == 1
    assert len(authorities.with_generations(stand.database, "server-ca")) == 2


# Crashes, and several at once


class Crash(Exception):
    """Whatever ends a process."""


@pytest.mark.parametrize("statement", range(10))
def test_a_step_that_breaks_off_anywhere_has_not_happened_and_is_taken_again(
    west: Stand, monkeypatch: pytest.MonkeyPatch, statement: int
) -> None:
    west.make_grant(issuer="site-ca")
    crashes = 0
    left = [statement]

    def crashing(function: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*args: Any, **options: Any) -> Any:
            nonlocal crashes
            if not left[0]:
                crashes += 1
                left[0] = -1
                raise Crash
            left[0] -= 1
            return function(*args, **options)

        return maybe

    for module, name in (
        (authority_rows, "add"),
        (authority_rows, "change"),
        (authority_rows, "hand_over"),
        (authority_rows, "tell_sites"),
        (audit_rows, "add"),
    ):
        monkeypatch.setattr(module, name, crashing(getattr(module, name)))

    def taken(step: Callable[[], object]) -> None:
        before = authorities.every(west.database), acts(west), sites.every(west.database)
        try:
            step()
        except Crash:
            after = authorities.every(west.database), acts(west), sites.every(west.database)
            assert after == before
            step()

    spread = NOW + DAY + SPREAD_SECONDS
    taken(lambda: rotate(west))
    taken(lambda: advance(west, NOW + DAY))
    taken(lambda: advance(west, spread + LIFETIME))
    assert crashes == 1
    assert states(west)["site-ca-1"] is State.ENDED
    assert [act for act, _ in acts(west)] == [
        Act.AUTHORITY_PREPARED, Act.AUTHORITY_RETIRED, Act.AUTHORITY_ACTIVATED,
        Act.AUTHORITY_ENDED,
    ]  # fmt: skip


KILLED = """
import os, signal, sys
from pathlib import Path
from app import ambient
from app.crypto.sealing import load_or_create
from app.services import rotation
from app.store import audit as audit_rows
from app.store.engine import Database

url, keys, left, now = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
database, times = Database(url), rotation.Times(
    wait_seconds=0, lifetime_seconds=3600, retry_seconds=600
)
add = audit_rows.add

def dying(*args):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    add(*args)

audit_rows.add = dying
rotation.advance(database, times=times, now=now)
for name in ("site-ca", "server-ca"):
    rotation.rotate(
        database, load_or_create(keys, ambient.random_bytes), name=name, times=times,
        actor="cli:killed", now=now, random_bytes=ambient.random_bytes,
    )
"""


def test_a_process_that_is_killed_at_any_step_leaves_nothing_half_done(west: Stand) -> None:
    now, killed = NOW, 0
    for left in (0, 1, 2, 3, 4, 5, 6, 7):
        now += 2 * DAY
        done = subprocess.run(
            [sys.executable, "-c", KILLED, f"sqlite:///{west.database.sqlite.path}",
             str(west.keyring.path), str(left), str(now)],
            check=False, capture_output=True, timeout=60, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        killed += done.returncode == -signal.SIGKILL
        for name in ("site-ca", "server-ca"):
            family = authorities.with_generations(west.database, name)
            (signing,) = [one for one in family if one.state is State.ACTIVE]
            assert signing.name == name
            authorities.open_issuer(signing, west.keyring)
            assert not [one for one in family if one.state is State.PREPARED]
        assert sites.show(west.database, "west").issuer == "site-ca"
        assert path_as_go_finds_it(
            material(west, now).certificate_pem, reach.current(west.database, "x").ca_pem, now
        )
    assert killed >= 6
    while advance(west, now + 2 * DAY):
        pass
    assert set(states(west).values()) == {State.ACTIVE, State.ENDED}


def test_of_many_that_advance_at_once_each_step_is_taken_once(west: Stand) -> None:
    rotate(west)
    rotate(west, "server-ca")
    start, taken = threading.Barrier(8), []

    def one(now: int) -> None:
        start.wait(30)
        taken.append(advance(west, now))

    for now in (NOW + DAY, NOW + DAY + SPREAD_SECONDS, NOW + 3 * DAY):
        threads = [threading.Thread(target=one, args=(now,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    found = acts(west)
    assert (
        len(found) == len(set(found)) == sum(taken) + 5
    )  # two entries for each change of who signs
    assert set(states(west).values()) == {State.ACTIVE, State.ENDED}


def test_on_postgresql_it_goes_the_same_way_and_claims_go_on_meanwhile(
    postgres_database: Database, tmp_path: Path
) -> None:
    west = a_stand(postgres_database, tmp_path)
    west.set_site()
    issued = [
        west.make_grant(name=f"g{number}", redemptions=50, issuer="site-ca").grant
        for number in range(4)
    ]

    async def main() -> int:
        redeemer = west.redeemer(retry_seconds=0)

        async def claims(grant: Grant) -> int:
            for number in range(50):
                await redeemer.redeem(
                    a_claim(key=grant.id, name=f"n{number}", subject=f"s{number}")
                )
            return 50

        def rotate_all() -> None:
            for name in ("site-ca", "server-ca", "site-ca", "server-ca"):
                rotate(west, name, at_once=True)
                threads = [threading.Thread(target=advance, args=(west, NOW)) for _ in range(3)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(60)

        done = await asyncio.gather(
            asyncio.to_thread(rotate_all), *[claims(grant) for grant in issued]
        )
        await redeemer.ledger.close()
        return sum(one for one in done if one)

    assert asyncio.run(main()) == 200
    assert states(west)["site-ca-1"] is states(west)["site-ca-2"] is State.RETIRED
    assert {one.issuer for one in grants.every(west.database)} == {"site-ca"}
    while advance(west, NOW + 2 * DAY):
        pass
    assert set(states(west).values()) == {State.ACTIVE, State.ENDED}
    served = material(west, NOW + 2 * DAY)
    assert served == material(west, NOW + 2 * DAY)


def test_a_generation_without_one_to_follow_is_told(west: Stand) -> None:
    """None of our steps leaves such a row behind."""
    with west.database.writing() as connection:
        odd = an_authority(name="odd", state=State.PREPARED, due_at=NOW)
        authority_rows.add(connection, odd)
    with pytest.raises(Conflict, match="look again"):
        advance(west, NOW)
    assert states(west)["odd"] is State.PREPARED
    with pytest.raises(Missing):
        rotate(west, "odd")
