from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import delete, func, select

from app import ambient
from app.crypto.facts import facts, verify_issued_by
from app.crypto.keys import load_private_key
from app.crypto.sealing import Keyring, load_or_create
from app.domain.audit import Act
from app.errors import GrantServerError, Invalid, Lack, Misconfigured, Missing, Unready
from app.services import audit, authorities, reach
from app.services.reach import LIFETIME_SECONDS, RENEWED_BEFORE_SECONDS, ServerMaterial
from app.store import audit as audit_rows
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
    last_second = first.not_after - RENEWED_BEFORE_SECONDS - 1
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


def test_when_two_thirds_of_its_life_have_passed_a_new_one_is_made(stand: Stand) -> None:
    first = material(stand)
    due = first.not_after - RENEWED_BEFORE_SECONDS
    assert (due - NOW) * 3 == pytest.approx(2 * LIFETIME_SECONDS, abs=10)
    second = material(stand, now=due)
    assert second.not_after == due + LIFETIME_SECONDS - 1
    assert material(stand, now=due + 1) == second


@pytest.mark.parametrize("hosts", [("bad host",), ("*",), ("[::1]",), ("a:1",)])
def test_a_host_that_no_certificate_can_carry_is_invalid(
    stand: Stand, hosts: tuple[str, ...]
) -> None:
    with pytest.raises(Invalid) as refused:
        material(stand, *hosts)
    assert refused.value.field == "hosts"
    assert how_many(stand) == 0


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
