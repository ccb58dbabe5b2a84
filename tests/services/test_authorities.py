import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from app import ambient
from app.crypto import keys
from app.crypto.issuers import signs_leaves_only
from app.crypto.sealing import Keyring, load_or_create
from app.domain.audit import Act
from app.domain.authorities import Authority, Purpose
from app.domain.certificates import KeyType
from app.errors import (
    Broken,
    Conflict,
    GrantServerError,
    Invalid,
    Lack,
    Misconfigured,
    Missing,
    Unready,
)
from app.services import audit, authorities
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store.engine import Database
from tests.builders import NOW, Stand, a_database, an_authority

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def defaults(database: Database, keyring: Keyring) -> None:
    authorities.ensure_defaults(database, keyring, now=NOW, random_bytes=ambient.random_bytes)


def create(stand: Stand, name: str = "other-ca", **changes: object) -> Authority:
    options: dict[str, object] = {
        "name": name,
        "actor": "cli:test",
        "now": NOW,
        "random_bytes": ambient.random_bytes,
    }
    return authorities.create(stand.database, stand.keyring, **(options | changes))  # type: ignore[arg-type]


def take_in(stand: Stand, certificate: bytes, key: bytes, name: str = "imported") -> Authority:
    return authorities.import_authority(
        stand.database,
        stand.keyring,
        name=name,
        certificate_pem=certificate,
        key_pem=key,
        actor="cli:test",
        now=NOW,
        random_bytes=ambient.random_bytes,
    )


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certify(key: Key, name: str, by: tuple[Key, str] | None = None, *, ca: bool = True) -> bytes:
    signer, issuer = by or (key, name)
    now = datetime.fromtimestamp(NOW, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def written(key: Key, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def test_the_first_start_makes_a_site_authority_and_the_servers_own(stand: Stand) -> None:
    server, site = authorities.every(stand.database)
    assert (server.name, server.purpose) == ("server-ca", Purpose.SERVER)
    assert (site.name, site.purpose) == ("site-ca", Purpose.SITE)
    for one in (server, site):
        assert not one.imported
        assert one.not_before == NOW - 300
        assert one.not_after == NOW + authorities.DEFAULT_LIFETIME_SECONDS
        _, facts = authorities.show(stand.database, one.name)
        assert facts.subject == f"CN={one.name}"
        assert facts.fingerprint == one.fingerprint
        assert authorities.open_issuer(one, stand.keyring).fingerprint == one.fingerprint
        (entry,) = audit.latest(stand.database, limit=9, target=f"authority/{one.name}")
        assert (entry.act, entry.actor) == (Act.AUTHORITY_CREATED, "server")
        assert entry.details == {"fingerprint": one.fingerprint, "not_after": one.not_after}


def test_doing_it_again_changes_nothing(stand: Stand) -> None:
    before = authorities.every(stand.database)
    for _ in range(2):
        defaults(stand.database, stand.keyring)
    assert authorities.every(stand.database) == before
    assert len(audit.latest(stand.database, limit=9)) == 2


def test_an_authority_of_another_name_serves_as_the_first_one(database: Database) -> None:
    keyring = load_or_create(database.sqlite.path.with_name("sealing.keys"), ambient.random_bytes)
    stand = Stand(database=database, keyring=keyring, code_keys={})
    create(stand, "own-ca")
    defaults(database, keyring)
    assert [one.name for one in authorities.every(database)] == ["own-ca", "server-ca"]


def test_the_ca_of_a_secret_does_not_serve_as_the_first_one(database: Database) -> None:
    with database.writing() as connection:
        authority_rows.add(connection, an_authority(name="kubernetes-x", origin="west/ca"))
    keyring = load_or_create(database.sqlite.path.with_name("sealing.keys"), ambient.random_bytes)
    defaults(database, keyring)
    names = [one.name for one in authorities.every(database)]
    assert names == ["kubernetes-x", "server-ca", "site-ca"]


def test_threads_that_make_them_at_once_all_succeed(tmp_path: Path) -> None:
    together = Barrier(4)
    keyring = load_or_create(tmp_path / "sealing.keys", ambient.random_bytes)
    database = a_database(tmp_path)

    def start(_: int) -> None:
        together.wait()
        defaults(database, keyring)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))
    assert [one.name for one in authorities.every(database)] == ["server-ca", "site-ca"]
    assert len(audit.latest(database, limit=9)) == 2
    database.close()


def test_whoever_comes_second_finds_that_it_is_done(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = authorities.every(stand.database)
    with monkeypatch.context() as blind:
        blind.setattr(authority_rows, "every", lambda _: [])
        defaults(stand.database, stand.keyring)
    assert authorities.every(stand.database) == before


def test_a_conflict_that_is_not_the_second_comers_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = load_or_create(database.sqlite.path.with_name("sealing.keys"), ambient.random_bytes)

    def conflict(*_: object, **__: object) -> None:
        raise Conflict("something else")

    monkeypatch.setattr(authorities, "create", conflict)
    with pytest.raises(Conflict, match="something else"):
        defaults(database, keyring)


def export(stand: Stand, name: str) -> bytes:
    return authorities.export_key(
        stand.database, stand.keyring, name, actor="cli:alice", now=NOW + 1
    )


def test_a_key_that_leaves_is_written_down(stand: Stand) -> None:
    export(stand, "site-ca")
    [entry] = audit.latest(stand.database, limit=1)
    assert (entry.act, entry.actor, entry.target, entry.at) == (
        Act.AUTHORITY_KEY_EXPORTED,
        "cli:alice",
        "authority/site-ca",
        NOW + 1,
    )


def test_what_create_returns_is_what_is_kept(stand: Stand) -> None:
    made = create(stand, lifetime_seconds=86400)
    assert made == authorities.show(stand.database, "other-ca")[0]
    assert made.id > 0
    assert made.not_after == NOW + 86400


@pytest.mark.parametrize("key_type", KeyType)
def test_an_authority_may_have_any_kind_of_key(stand: Stand, key_type: KeyType) -> None:
    made = create(stand, key_type=key_type)
    issuer = authorities.open_issuer(made, stand.keyring)
    words = {KeyType.P256: "EC P-256", KeyType.RSA_2048: "RSA 2048", KeyType.ED25519: "Ed25519"}
    assert authorities.show(stand.database, made.name)[1].key == words[key_type]
    exported = export(stand, made.name)
    assert keys.to_pem(keys.load_private_key(exported)) == keys.to_pem(issuer.key)
    begin = {
        KeyType.P256: b"-----BEGIN EC PRIVATE KEY-----",
        KeyType.RSA_2048: b"-----BEGIN RSA PRIVATE KEY-----",
        KeyType.ED25519: b"-----BEGIN PRIVATE KEY-----",
    }
    assert exported.startswith(begin[key_type])


@pytest.mark.parametrize("name", ["", "Site", "a.b", "../x", "a" * 64])
def test_an_authority_is_named_by_a_label(stand: Stand, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        create(stand, name)
    assert refused.value.field == "name"
    with pytest.raises(Invalid) as refused:
        take_in(stand, b"", b"", name)
    assert refused.value.field == "name"


def test_a_name_is_given_once(stand: Stand) -> None:
    with pytest.raises(Conflict, match="site-ca"):
        create(stand, "site-ca")
    assert len(authorities.every(stand.database)) == 2


def test_what_does_not_exist_is_missing(stand: Stand) -> None:
    with pytest.raises(Missing, match='no authority "x"'):
        authorities.show(stand.database, "x")
    with pytest.raises(Missing):
        export(stand, "x")


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("rsa", serialization.PrivateFormat.TraditionalOpenSSL),  # PKCS#1
        ("rsa", serialization.PrivateFormat.PKCS8),
        ("ec", serialization.PrivateFormat.TraditionalOpenSSL),  # SEC1
        ("ec", serialization.PrivateFormat.PKCS8),
    ],
)
@pytest.mark.parametrize("chain", [0, 1, 2])
def test_an_authority_is_imported_in_every_form_with_and_without_its_chain(
    stand: Stand,
    rsa_key: rsa.RSAPrivateKey,
    kind: str,
    form: serialization.PrivateFormat,
    chain: int,
) -> None:
    key: Key = rsa_key if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    root, middle = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    bundle = {
        0: certify(key, "own ca"),
        1: certify(key, "own ca", (root, "root")) + certify(root, "root"),
        2: certify(key, "own ca", (middle, "middle"))
        + certify(middle, "middle", (root, "root"))
        + certify(root, "root"),
    }[chain]
    made = take_in(stand, bundle, written(key, form))
    assert made == authorities.show(stand.database, "imported")[0]
    assert (made.imported, made.purpose) == (True, Purpose.SITE)
    assert made.certificate_pem.encode() == bundle
    opened = authorities.open_issuer(made, stand.keyring)
    assert keys.to_pem(opened.key) == written(key, serialization.PrivateFormat.PKCS8)
    (entry,) = audit.latest(stand.database, limit=9, target="authority/imported")
    assert (entry.act, entry.actor) == (Act.AUTHORITY_IMPORTED, "cli:test")


def test_what_is_no_authority_is_refused_and_leaves_nothing(
    stand: Stand, rsa_key: rsa.RSAPrivateKey
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    good, pem = certify(key, "ca"), written(key, serialization.PrivateFormat.PKCS8)
    other = written(rsa_key, serialization.PrivateFormat.PKCS8)
    for certificate, private, field in (
        (good, other, "key"),
        (good, b"", "key"),
        (good, good, "key"),
        (b"", pem, "certificate"),
        (pem, pem, "certificate"),
        (b"\xff\xfe\x00", pem, "certificate"),
        (certify(key, "leaf", ca=False), pem, "certificate"),
        (good + certify(rsa_key, "stranger"), pem, "certificate"),
        (b"Subject: CN=M\xfcller\n" + good, pem, "certificate"),
    ):
        with pytest.raises(Invalid) as refused:
            take_in(stand, certificate, private)
        assert refused.value.field == field
        shown = "".join(traceback.format_exception(refused.value))
        assert not any(line in shown for line in pem.decode().splitlines()[1:-1])
    assert len(authorities.every(stand.database)) == 2


def test_text_around_the_certificates_is_kept_as_it_was(stand: Stand) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    bundle = "Subject: CN=M\u00fcller\n".encode() + certify(key, "ca")
    made = take_in(stand, bundle, written(key, serialization.PrivateFormat.PKCS8))
    assert made.certificate_pem.encode() == bundle
    authorities.open_issuer(made, stand.keyring)


def test_one_certificate_is_kept_under_one_name(stand: Stand) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    good, pem = certify(key, "ca"), written(key, serialization.PrivateFormat.PKCS8)
    take_in(stand, good, pem)
    with pytest.raises(Conflict, match="imported"):
        take_in(stand, good, pem)
    with pytest.raises(Conflict, match='kept already, as authority "imported"'):
        take_in(stand, good, pem, "another")
    assert len(authorities.every(stand.database)) == 3


def test_an_authority_whose_key_was_erased_is_unready(stand: Stand) -> None:
    site, _ = authorities.show(stand.database, "site-ca")
    with pytest.raises(Unready, match="it was erased") as unready:
        authorities.open_issuer(replace(site, sealed_key=b""), stand.keyring)
    assert unready.value.lack is Lack.ISSUER


def test_only_the_ca_of_the_server_may_sign_another(stand: Stand) -> None:
    for name, leaves_only in (("site-ca", True), ("server-ca", False)):
        issuer = authorities.open_issuer(authorities.show(stand.database, name)[0], stand.keyring)
        assert signs_leaves_only(issuer) is leaves_only


def test_an_authority_comes_with_its_generations(stand: Stand) -> None:
    site, _ = authorities.show(stand.database, "site-ca")
    assert authorities.with_generations(stand.database, "site-ca") == [site]
    with pytest.raises(Missing):
        authorities.with_generations(stand.database, "nobody")


def test_an_authority_whose_key_cannot_be_opened_is_unready(stand: Stand, tmp_path: Path) -> None:
    site, server = (authorities.show(stand.database, one)[0] for one in ("site-ca", "server-ca"))
    foreign = load_or_create(tmp_path / "other.keys", ambient.random_bytes)
    altered = site.sealed_key[:-1] + bytes([site.sealed_key[-1] ^ 1])
    for authority, keyring, cause in (
        (site, foreign, Misconfigured),
        (replace(site, sealed_key=altered), stand.keyring, Broken),
        (replace(site, sealed_key=server.sealed_key), stand.keyring, Broken),
        (replace(site, certificate_pem=server.certificate_pem), stand.keyring, Invalid),
        (replace(site, certificate_pem="nothing"), stand.keyring, Invalid),
    ):
        with pytest.raises(Unready, match="site-ca") as unready:
            authorities.open_issuer(authority, keyring)
        assert unready.value.lack is Lack.ISSUER
        assert isinstance(unready.value.__cause__, cause)


def test_an_authority_whose_secret_is_gone_is_unready(stand: Stand) -> None:
    site = authorities.show(stand.database, "site-ca")[0]
    gone = replace(site, sealed_key=b"", origin="west/ca")
    with pytest.raises(Unready, match="site-ca has no key: there is no Secret") as unready:
        authorities.open_issuer(gone, stand.keyring)
    assert unready.value.lack is Lack.ISSUER


def test_no_private_key_is_kept_in_the_clear(stand: Stand) -> None:
    pem = export(stand, "site-ca")
    der = serialization.load_pem_private_key(pem, None).private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    stand.database.close()
    for path in stand.database.sqlite.path.parent.glob("grantserver.db*"):
        content = path.read_bytes()
        assert b"PRIVATE KEY" not in content
        assert der[-32:] not in content
        assert der[36:68] not in content


def test_authority_and_audit_row_are_one_transaction(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise GrantServerError

    monkeypatch.setattr(audit_rows, "add", fail)
    with pytest.raises(GrantServerError):
        create(stand)
    assert len(authorities.every(stand.database)) == 2
