from datetime import UTC, datetime
from typing import Any

import pytest

from app import ambient
from app.crypto.chains import check_chain, check_pair
from app.domain.audit import Act
from app.errors import Invalid
from app.services import addresses, audit, reach, tls_secrets
from app.services.tls_secrets import TlsSecret
from app.store import authorities as authority_rows
from app.store.addresses import AddressRow
from app.web.tls import rehearse
from tests.builders import NOW, Stand
from tests.pki import Certified, a_root

ROOT = a_root()
URL = "https://west.example:9090"


def secret(one: Certified, *roots: Certified) -> TlsSecret:
    ca_pem = b"".join(root.pem for root in roots)
    return TlsSecret(certificate_pem=one.pem + one.chain, key_pem=one.key_pem, ca_pem=ca_pem)


def take(stand: Stand, held: TlsSecret, url: str = URL, now: int = NOW) -> bool:
    return tls_secrets.take(
        stand.database,
        stand.keyring,
        held,
        secret="gs/their-tls",
        url=url,
        rehearse=rehearse,
        now=now,
        random_bytes=ambient.random_bytes,
    )


def shown(stand: Stand) -> Any:
    with stand.database.reading() as connection:
        return authority_rows.current_server_certificate(connection)


def issue(stand: Stand) -> None:
    reach.server_material(
        stand.database,
        stand.keyring,
        hosts=["west.example"],
        now=NOW,
        random_bytes=ambient.random_bytes,
    )


def test_our_own_certificate_comes_with_key_and_ca(stand: Stand) -> None:
    assert tls_secrets.issued(stand.database, stand.keyring) is None
    before = tls_secrets.mark(stand.database)
    issue(stand)
    assert tls_secrets.mark(stand.database) != before
    found = tls_secrets.issued(stand.database, stand.keyring)
    assert found is not None
    check_pair(found.certificate_pem, found.key_pem)
    check_chain(found.certificate_pem, found.ca_pem)
    assert found.ca_pem.decode() == reach.current(stand.database, "").ca_pem
    assert "PRIVATE" not in repr(found)


def test_what_a_secret_holds_is_shown_and_the_same_again_is_no_change(stand: Stand) -> None:
    issue(stand)
    one = ROOT.certify("west.example")
    assert take(stand, secret(one, ROOT))
    found = shown(stand)
    assert (found.origin, found.fingerprint) == ("secret", one.fingerprint)
    assert found.ca_pem == ROOT.pem.decode()
    assert reach.open_server_key(found, stand.keyring) == one.key_pem
    with stand.database.writing():  # nobody else can write now
        assert not take(stand, secret(one, ROOT))
    *_, entry = audit.latest(stand.database, limit=9, target="server/certificate")
    assert entry.act is Act.SERVER_CERTIFICATE_TAKEN
    assert entry.details["secret"] == "gs/their-tls"
    assert take(stand, secret(ROOT.certify("west.example"), ROOT))
    assert take(stand, secret(one, ROOT))  # it was shown before, and is again
    assert shown(stand).fingerprint == one.fingerprint


def how_many(stand: Stand) -> int:
    with stand.database.reading() as connection:
        return len(authority_rows.latest_server_certificates(connection, 100))


def test_who_serves_our_own_one_meanwhile_takes_nothing_away_and_gets_nothing_taken(
    stand: Stand,
) -> None:
    """Replicas of other settings, while one is rolled out."""
    one = ROOT.certify("west.example")
    issue(stand)
    ours = tls_secrets.issued(stand.database, stand.keyring)
    assert take(stand, secret(one, ROOT))
    for _ in range(3):
        issue(stand)
        assert not take(stand, secret(one, ROOT))
    assert tls_secrets.issued(stand.database, stand.keyring) == ours
    assert how_many(stand) == 2


def test_the_key_of_the_one_before_is_kept_where_tokens_may_need_it_and_else_erased(
    stand: Stand,
) -> None:
    stand.set_site()
    stand.make_grant(window_seconds=3600)
    other = a_root("another")
    made = [
        (ROOT.certify("west.example"), ROOT),
        (ROOT.certify("west.example"), ROOT),
        (other.certify("west.example"), other),
    ]
    with_keys = []
    for one, root in made:
        assert take(stand, secret(one, root))
        with stand.database.reading() as connection:
            rows = authority_rows.latest_server_certificates(connection, 9)
        with_keys.append([row.fingerprint for row in rows if row.sealed_key])
    first, second, third = (one.fingerprint for one, _ in made)
    assert with_keys == [[first], [second], [third, second]]


def test_another_ca_is_a_change_too(stand: Stand) -> None:
    one, other = ROOT.certify("west.example"), a_root("another")
    assert take(stand, secret(one, ROOT))
    assert take(stand, secret(one, ROOT, other))
    assert shown(stand).ca_pem == (ROOT.pem + other.pem).decode()


def test_without_a_ca_it_is_the_end_of_the_chain(stand: Stand) -> None:
    middle = ROOT.certify(ca=True, name="middle")
    one = middle.certify("west.example")
    whole = TlsSecret(
        certificate_pem=one.pem + one.chain + ROOT.pem, key_pem=one.key_pem, ca_pem=b""
    )
    assert take(stand, whole)
    assert shown(stand).ca_pem == ROOT.pem.decode()


def test_text_around_the_certificates_is_left_out(stand: Stand) -> None:
    one = ROOT.certify("west.example")
    held = secret(one, ROOT)
    noisy = TlsSecret(
        certificate_pem=b"subject=\xff\x00\n" + held.certificate_pem,
        key_pem=held.key_pem,
        ca_pem=b"# mine\n" + held.ca_pem,
    )
    assert take(stand, noisy)
    assert shown(stand).certificate_pem == one.pem.decode()


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


GOOD = ROOT.certify("west.example")
BROKEN = {
    "the key of another": (
        TlsSecret(
            certificate_pem=GOOD.pem, key_pem=ROOT.certify("x.example").key_pem, ca_pem=ROOT.pem
        ),
        "key",
        "not the key",
    ),
    "no key at all": (
        TlsSecret(certificate_pem=GOOD.pem, key_pem=b"x", ca_pem=ROOT.pem),
        "key",
        "",
    ),
    "no certificate": (
        TlsSecret(certificate_pem=b"x", key_pem=GOOD.key_pem, ca_pem=ROOT.pem),
        "certificate",
        "",
    ),
    "of another CA": (secret(GOOD, a_root("another")), "certificate", "vouch"),
    "a CA that is none": (
        TlsSecret(certificate_pem=GOOD.pem, key_pem=GOOD.key_pem, ca_pem=b"x"),
        "ca",
        "",
    ),
    "no CA": (secret(GOOD), "ca", "self-signed"),
    "expired": (
        secret(ROOT.certify("west.example", end=at(NOW - 1)), ROOT),
        "certificate",
        "expired at",
    ),
    "not valid yet": (
        secret(ROOT.certify("west.example", begin=at(NOW + 1)), ROOT),
        "certificate",
        "not valid before",
    ),
    "for another host": (
        secret(ROOT.certify("east.example"), ROOT),
        "certificate",
        "not for west.example",
    ),
}


MIDDLE = ROOT.certify(ca=True, name="middle", end=at(NOW - 400 * 24 * 3600))
NO_CA = ROOT.certify(name="no CA")
BROKEN |= {
    "an intermediate that has expired": (
        secret(MIDDLE.certify("west.example"), ROOT),
        "certificate",
        "clients refuse it: certificate has expired",
    ),
    "by one that is no CA": (
        secret(NO_CA.certify("west.example"), ROOT),
        "certificate",
        "clients refuse it: invalid CA certificate",
    ),
    "an intermediate that OpenSSL does not serve": (
        secret(ROOT.certify(ca=True, kind="rsa1024").certify("west.example"), ROOT),
        "certificate",
        "OpenSSL does not serve with it (CA_KEY_TOO_SMALL)",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_clients_could_not_use_takes_nothing_away(stand: Stand, case: str) -> None:
    held, field, why = BROKEN[case]
    assert take(stand, secret(GOOD, ROOT))
    with pytest.raises(Invalid) as caught:
        take(stand, held)
    assert caught.value.field == field
    assert why in caught.value.why
    assert "PRIVATE" not in str(caught.value)
    assert shown(stand).fingerprint == GOOD.fingerprint


def test_the_host_is_the_one_that_tokens_carry(stand: Stand) -> None:
    other = secret(ROOT.certify("east.example"), ROOT)
    addresses.tell(stand.database, AddressRow(url="https://east.example:443"), now=NOW)
    with pytest.raises(Invalid):
        take(stand, other)  # a URL that was set wins
    assert take(stand, other, url="")
    addresses.tell(stand.database, AddressRow(url="", problem="none"), now=NOW)
    assert take(stand, secret(ROOT.certify("north.example"), ROOT), url="")  # nobody knows it
