import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import delete, func, select, update

from app import ambient
from app.crypto.facts import facts, verify_issued_by
from app.crypto.keys import load_private_key
from app.crypto.sealing import Keyring, load_or_create
from app.domain.audit import Act
from app.domain.authorities import MOST_HOSTS, renewal_at
from app.errors import GrantServerError, Lack, Misconfigured, Missing, Unready
from app.services import audit, authorities, reach, rotation
from app.services.reach import LIFETIME_SECONDS, ServerMaterial
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store import schema
from tests.builders import NOW, Stand
from tests.services.verifying import handshake

HOSTS = ("west.example", "192.0.2.1", "2001:db8::1")
DER = Encoding.DER


def material(
    stand: Stand,
    *hosts: str,
    now: int = NOW,
    keyring: Keyring | None = None,
) -> ServerMaterial:
    return reach.server_material(
        stand.database,
        keyring or stand.keyring,
        hosts=hosts or HOSTS,
        now=now,
        random_bytes=ambient.random_bytes,
    )


def how_many(stand: Stand) -> int:
    with stand.database.reading() as connection:
        query = select(func.count()).select_from(schema.server_certificates)
        return connection.execute(query).scalar_one()


def renewal(stand: Stand) -> int:
    """When the current certificate is to be renewed."""
    with stand.database.reading() as connection:
        kept = authority_rows.current_server_certificate(connection)
    assert kept is not None
    return renewal_at(kept)


def test_tokens_carry_the_base_url_and_the_servers_own_ca(stand: Stand) -> None:
    current = reach.current(stand.database, "https://[2001:db8::1]:9090")
    server, _ = authorities.show(stand.database, "server-ca")
    assert current.url == "https://[2001:db8::1]:9090"
    assert current.host == "2001:db8::1"
    assert current.ca_pem == server.certificate_pem


def test_without_the_servers_authority_there_is_no_reach(stand: Stand) -> None:
    with stand.database.writing() as connection:
        connection.execute(delete(schema.authorities))
    with pytest.raises(Missing, match="server-ca"):
        reach.current(stand.database, "https://localhost")
    with pytest.raises(Missing, match="server-ca"):
        material(stand)


def test_the_first_certificate_is_for_all_hosts_and_signed_by_our_own_ca(stand: Stand) -> None:
    made = material(stand)
    found = facts(made.certificate_pem)
    assert set(HOSTS) <= set(found.hosts)
    verify_issued_by(made.certificate_pem, reach.current(stand.database, "x").ca_pem.encode())
    certificate = x509.load_pem_x509_certificate(made.certificate_pem)
    assert load_private_key(made.key_pem).public_key() == certificate.public_key()
    assert made.not_after == found.not_after == NOW + LIFETIME_SECONDS - 1
    (entry,) = audit.latest(stand.database, limit=9, target="server/certificate")
    assert (entry.act, entry.at) == (Act.SERVER_CERTIFICATE_ISSUED, NOW)
    assert entry.details == {
        "hosts": ", ".join(HOSTS),
        "fingerprint": found.fingerprint,
        "not_after": found.not_after,
    }
    assert "PRIVATE" not in repr(made)


def test_the_kept_certificate_is_used_while_it_serves(stand: Stand) -> None:
    first = material(stand)
    last_second = renewal(stand) - 1
    for hosts, now in (
        (HOSTS, NOW + 1),
        (HOSTS[1:], NOW),
        (("WEST.example",), NOW),
        (HOSTS, last_second),
    ):
        assert material(stand, *hosts, now=now) == first
    assert how_many(stand) == 1
    assert len(audit.latest(stand.database, limit=9, target="server/certificate")) == 1


def test_a_host_that_is_missing_makes_a_new_one(stand: Stand) -> None:
    first = material(stand)
    second = material(stand, *HOSTS, "new.example")
    assert second != first
    assert "new.example" in facts(second.certificate_pem).hosts
    assert material(stand, *HOSTS, "new.example") == second
    assert how_many(stand) == 2


def test_when_two_thirds_of_its_life_have_passed_and_a_little_more_a_new_one_is_made(
    stand: Stand,
) -> None:
    first = material(stand)
    due = renewal(stand)
    assert 0 <= due - NOW - LIFETIME_SECONDS * 2 // 3 <= LIFETIME_SECONDS // 24
    assert material(stand, now=due - 1) == first
    second = material(stand, now=due)
    assert second.not_after == due + LIFETIME_SECONDS - 1
    assert material(stand, now=due + 1) == second


def test_servers_that_were_set_up_together_are_not_renewed_together(stand: Stand) -> None:
    dues = set()
    for host in "abcdef":
        material(stand, f"{host}.example")
        dues.add(renewal(stand))
    assert len(dues) == 6


def test_of_several_processes_that_need_a_new_one_at_once_one_has_its_own_kept(
    stand: Stand,
) -> None:
    start, made = threading.Barrier(6), []

    def one() -> None:
        start.wait(30)
        made.append(material(stand))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 6
    assert len(set(map(dump, made))) == how_many(stand) == 1
    assert len(audit.latest(stand.database, limit=9, target="server/certificate")) == 1


def dump(made: ServerMaterial) -> tuple[bytes, bytes, str, int]:
    return made.certificate_pem, made.key_pem, made.fingerprint, made.not_after


def test_one_of_another_generation_of_our_ca_does_not_serve_any_more(stand: Stand) -> None:
    first = material(stand)
    rotation.rotate(
        stand.database, stand.keyring, name="server-ca", actor="x", now=NOW,
        times=rotation.Times(wait_seconds=0, lifetime_seconds=1, retry_seconds=1),
        random_bytes=ambient.random_bytes,
    )  # fmt: skip
    second = material(stand)
    assert second != first
    assert material(stand) == second
    assert second.certificate_pem.count(b"BEGIN CERTIFICATE") == 2
    assert second.fingerprint == facts(second.certificate_pem).fingerprint


def test_one_that_another_authority_signed_does_not_serve(stand: Stand) -> None:
    first = material(stand)
    site, _ = authorities.show(stand.database, "site-ca")
    with stand.database.writing() as connection:
        connection.execute(update(schema.server_certificates).values(authority_id=site.id))
    assert material(stand) != first


# Replicas whose settings differ, and hosts of tokens that are out


def hosts_of(made: ServerMaterial) -> tuple[str, ...]:
    return facts(made.certificate_pem).hosts


def wanted(stand: Stand, first: str, *hosts: str) -> ServerMaterial:
    return reach.server_material(
        stand.database,
        stand.keyring,
        hosts=hosts,
        first=first,
        now=stand.clock.now,
        random_bytes=ambient.random_bytes,
    )


@pytest.mark.parametrize("tokens_are_out", [True, False])
@pytest.mark.parametrize(
    "replicas",
    [
        [("lb.example", "a.example"), ("lb.example", "b.example"), ("lb.example", "c.example")],
        [("a.example",), ("b.example",), ("localhost",)],
    ],
)
def test_replicas_that_want_other_hosts_come_to_serve_one_certificate_with_all_of_them(
    stand: Stand, replicas: list[tuple[str, ...]], tokens_are_out: bool
) -> None:
    stand.set_site()
    wanted(stand, "old.example")
    if tokens_are_out:
        stand.make_grant(window_seconds=10_000)
    stand.clock.now += 7200
    for _ in range(20):
        made = [wanted(stand, *replica) for replica in replicas]
        stand.clock.now += 2
    assert len(set(map(dump, made))) == 1
    assert how_many(stand) <= 2 * len(replicas)
    found = hosts_of(made[0])
    assert {host for replica in replicas for host in replica} <= set(found)
    assert ("old.example" in found) is tokens_are_out


def test_each_host_that_tokens_may_carry_stays_and_not_the_first_alone(stand: Stand) -> None:
    """What comes first in it is what the last replica wanted; tokens of another carry another."""
    stand.set_site()
    for first in ("a.example", "b.example", "a.example"):
        wanted(stand, first)
    stand.clock.now += 600
    stand.make_grant(window_seconds=10_000)
    stand.clock.now += 7200
    assert set(hosts_of(wanted(stand, "c.example"))) == {"a.example", "b.example", "c.example"}
    stand.clock.now += 7200
    assert hosts_of(wanted(stand, "d.example")) == ("d.example",)


def test_they_do_so_again_when_it_is_renewed(stand: Stand) -> None:
    for first in ("a.example", "b.example"):
        wanted(stand, first)
    stand.clock.now = renewal(stand)
    before = how_many(stand)
    made = [wanted(stand, first) for first in ("a.example", "b.example") * 3]
    assert how_many(stand) <= before + 2
    assert set(hosts_of(made[-1])) == {"a.example", "b.example"}


def test_a_host_that_nobody_wants_goes_when_no_token_with_it_is_out(stand: Stand) -> None:
    wanted(stand, "old.example")
    stand.clock.now += 3601
    assert hosts_of(wanted(stand, "new.example")) == ("new.example",)


def test_the_certificate_of_nobody_gives_its_host_to_no_other(stand: Stand) -> None:
    assert hosts_of(wanted(stand, "")) == ("localhost",)
    assert hosts_of(wanted(stand, "west.example")) == ("west.example",)


def long_host(number: int) -> str:
    return f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 50}.h{number}.example"


def test_of_very_many_hosts_the_first_are_named_and_clients_take_the_certificate(
    stand: Stand, tmp_path: Path
) -> None:
    """OpenSSL reads 100 KiB of certificates, Go 64 KiB of one message."""
    stand.clock.now = ambient.utc_now()
    stand.set_site()
    for generation in range(3):
        made = wanted(
            stand, "west.example", *[long_host(9000 * generation + n) for n in range(600)]
        )
        stand.make_grant(name=f"g{generation}")
    found = hosts_of(made)
    assert found[:2] == ("west.example", long_host(18_000))
    assert len(found) == 2 * MOST_HOSTS
    assert {long_host(9000), long_host(0)} <= set(found)  # the latest, and what is left room for
    again = wanted(stand, "west.example", *[long_host(18_000 + n) for n in range(600)])
    assert again == made
    assert len(x509.load_pem_x509_certificate(made.certificate_pem).public_bytes(DER)) < 48 * 1024
    handshake(made, reach.current(stand.database, "x").ca_pem, tmp_path)
    *_, entry = audit.latest(stand.database, limit=9, target="server/certificate")
    assert entry.details["left_out"] == f"537 hosts, {long_host(18_063)} and what follows it"


def test_what_a_clock_that_was_ahead_has_made_is_served_no_longer_than_it_was(
    stand: Stand,
) -> None:
    material(stand, now=NOW + 400 * 24 * 3600)
    made = material(stand)
    assert facts(made.certificate_pem).not_before <= NOW
    assert material(stand) == made
    # A clock that is a little behind takes what the others have, and so does one that is lost.
    assert material(stand, now=NOW - 60) == made
    assert material(stand, now=1) == made


# Taken from a Secret


def keep(stand: Stand, made: ServerMaterial, ca_pem: str = "theirs\n") -> bool:
    return reach.keep_secret(
        stand.database,
        stand.keyring,
        certificate_pem=made.certificate_pem,
        key_pem=made.key_pem,
        ca_pem=ca_pem.encode(),
        secret="ops/tls",
        now=NOW,
        random_bytes=ambient.random_bytes,
    )


def test_a_certificate_of_a_secret_is_the_current_one_until_there_is_another(
    stand: Stand,
) -> None:
    theirs = material(stand)
    assert keep(stand, theirs)
    assert not keep(stand, theirs)
    with stand.database.reading() as connection:
        kept = authority_rows.current_server_certificate(connection)
    assert kept is not None
    assert (kept.origin, kept.ca_pem, kept.authority_id) == ("secret", "theirs\n", None)
    assert reach.open_server_key(kept, stand.keyring) == theirs.key_pem
    assert keep(stand, theirs, ca_pem="another\n")
    assert how_many(stand) == 1
    *_, entry = audit.latest(stand.database, limit=9, target="server/certificate")
    assert (entry.act, entry.details["secret"]) == (Act.SERVER_CERTIFICATE_TAKEN, "ops/tls")


def test_what_a_secret_held_does_not_serve_where_our_own_ca_is_to_issue(stand: Stand) -> None:
    theirs = material(stand)
    keep(stand, theirs)
    ours = material(stand)
    assert ours != theirs
    assert material(stand) == ours


@pytest.mark.parametrize("host", ["bad host", "*", "[::1]", "a:1", "lb.123", "a_b.example"])
def test_a_host_that_no_certificate_can_carry_keeps_no_other_from_being_served(
    stand: Stand, host: str
) -> None:
    made = material(stand, host, "good.example")
    assert facts(made.certificate_pem).hosts == ("good.example",)
    assert material(stand, host, "good.example") == made
    assert facts(material(stand, host).certificate_pem).hosts[0] != host


def test_with_a_foreign_key_file_neither_old_nor_new_can_be_had(
    stand: Stand, tmp_path: Path
) -> None:
    foreign = load_or_create(tmp_path / "other.keys", ambient.random_bytes)
    with pytest.raises(Unready) as unready:
        material(stand, keyring=foreign)
    assert unready.value.lack is Lack.ISSUER
    material(stand)
    with pytest.raises(Misconfigured, match="put its line back"):
        material(stand, keyring=foreign)
    assert how_many(stand) == 1


def test_an_expired_ca_signs_nothing(stand: Stand) -> None:
    with pytest.raises(Unready) as unready:
        material(stand, now=NOW + authorities.DEFAULT_LIFETIME_SECONDS + 1)
    assert unready.value.lack is Lack.ISSUER


def test_certificate_and_audit_row_are_one_transaction(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise GrantServerError

    monkeypatch.setattr(audit_rows, "add", fail)
    with pytest.raises(GrantServerError):
        material(stand)
    assert how_many(stand) == 0
