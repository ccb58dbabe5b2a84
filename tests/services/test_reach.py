import threading
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import delete, func, select, update

from app import ambient
from app.crypto.facts import facts, verify_issued_by
from app.crypto.keys import load_private_key
from app.crypto.sealing import Keyring, load_or_create
from app.domain.audit import Act
from app.domain.authorities import renewal_at
from app.errors import GrantServerError, Lack, Misconfigured, Missing, Unready
from app.services import audit, authorities, reach, rotation
from app.services.reach import LIFETIME_SECONDS, ServerMaterial
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store import schema
from tests.builders import NOW, Stand

HOSTS = ("west.example", "192.0.2.1", "2001:db8::1")


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
