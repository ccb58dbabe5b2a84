import base64
import stat
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from app import ambient
from app.crypto import crl, keys
from app.crypto.facts import facts
from app.crypto.issuers import create_authority, load_issuer
from app.domain.certificates import KeyType
from app.domain.times import rfc3339
from app.services import authorities, rotation
from tests.cli.conftest import ENDPOINTS, Cli
from tests.services.clusters import a_secret, put, sign


@pytest.fixture
def issuer(cli: Cli) -> Path:
    """Make a CA as Skupper keeps it: a directory with tls.crt and tls.key (RSA, PKCS#1)."""
    directory = cli.directory / "skupper-site-ca"
    directory.mkdir()
    key = keys.generate(KeyType.RSA_2048)
    now = ambient.utc_now()
    certificate = create_authority(
        common_name="west-ca", key=key, serial=7, not_before=now - 60, not_after=now + 10**6
    )
    (directory / "tls.crt").write_bytes(certificate)
    (directory / "tls.key").write_bytes(keys.to_traditional_pem(key))
    return directory


def test_the_first_command_finds_two_authorities(cli: Cli) -> None:
    lines = cli.done("ca", "list").splitlines()
    assert lines[0].split() == ["NAME", "SIGNS", "STATE", "MADE", "ENDS"]
    assert [line.split()[0] for line in lines[1:]] == ["server-ca", "site-ca"]
    assert [one["purpose"] for one in cli.json("ca", "list")] == ["server", "site"]


@pytest.mark.parametrize(
    ("kind", "shown"), [("p256", "EC P-256"), ("rsa-2048", "RSA 2048"), ("ed25519", "Ed25519")]
)
def test_an_authority_is_made_and_shown(cli: Cli, kind: str, shown: str) -> None:
    told = cli.done("ca", "init", "lab-ca", "--key-type", kind, "--lifetime", "48h")
    endpoints = "--endpoint inter-router=HOST:55671 --endpoint edge=HOST:45671"
    assert f"grantserver site set NAME {endpoints} --issuer lab-ca\n" in told
    document = cli.json("ca", "show", "lab-ca")
    assert document["key"] == shown
    assert document["subject"] == document["issuer"] == "CN=lab-ca"
    assert document["imported"] is False
    assert document["notAfter"].endswith("Z")
    assert document["serial"] in cli.done("ca", "show", "lab-ca")
    cli.done("site", "set", "lab", *ENDPOINTS, "--issuer", "lab-ca")


@pytest.mark.parametrize(
    "words",
    [
        ["ca", "init", "../x"],
        ["ca", "init", "x", "--lifetime", "10y"],
        ["ca", "init", "x", "--key-type", "dsa"],
        ["ca", "import", "x"],
        ["ca", "import", "x", "--certificate", "a"],
        ["ca", "import", "x", "--dir", "a", "--key", "b"],
        ["ca", "import", "x", "--dir", "missing"],
        ["ca", "export", "site-ca", "--with-key"],
        ["ca", "export", "site-ca", "--with-key", "--out", "-"],
    ],
)
def test_wrong_usage_makes_nothing(cli: Cli, words: list[str]) -> None:
    result = cli.run(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert len(cli.json("ca", "list")) == 2


def test_a_skupper_issuer_is_imported_from_its_directory(cli: Cli, issuer: Path) -> None:
    told = cli.done("ca", "import", "west-ca", "--dir", str(issuer))
    assert "its key sealed" in told
    document = cli.json("ca", "show", "west-ca")
    assert document["imported"] is True
    assert document["subject"] == "CN=west-ca"
    assert "imported" in cli.done("ca", "list")
    again = cli.run("ca", "import", "other", "--dir", str(issuer))
    assert again.exit_code == 1


def test_certificate_and_key_may_be_two_files(cli: Cli, issuer: Path) -> None:
    files = ("--certificate", str(issuer / "tls.crt"), "--key", str(issuer / "tls.key"))
    cli.done("ca", "import", "west-ca", *files)
    swapped = ("--certificate", str(issuer / "tls.key"), "--key", str(issuer / "tls.crt"))
    result = cli.run("ca", "import", "other", *swapped)
    assert result.exit_code == 2
    key = (issuer / "tls.key").read_text().splitlines()[3]
    assert key not in result.output


def test_an_authority_that_has_ended_is_warned_of(
    cli: Cli, issuer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ambient.utc_now", lambda: 4_000_000_000)
    assert "it has ended" in cli.run("ca", "import", "west-ca", "--dir", str(issuer)).stderr


def test_an_authority_that_has_not_begun_is_warned_of(
    cli: Cli, issuer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = facts((issuer / "tls.crt").read_bytes()).not_before
    monkeypatch.setattr("app.ambient.utc_now", lambda: begins - 1)
    stderr = cli.run("ca", "import", "west-ca", "--dir", str(issuer)).stderr
    assert f"warning: it begins at {rfc3339(begins)}" in stderr


def test_a_certificate_is_exported_for_everybody(cli: Cli) -> None:
    text = cli.done("ca", "export", "server-ca")
    assert text.startswith("-----BEGIN CERTIFICATE-----\n")
    assert text.endswith("-----END CERTIFICATE-----\n")
    cli.done("ca", "export", "server-ca", "--out", "ca.pem")
    path = cli.directory / "ca.pem"
    assert path.read_text() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert facts(path.read_bytes()).subject == "CN=server-ca"
    assert cli.run("ca", "export", "server-ca", "--out", "ca.pem").exit_code == 1
    cli.done("ca", "export", "server-ca", "--out", "ca.pem", "--force")
    assert cli.run("ca", "export", "nobody").exit_code == 1


@pytest.mark.parametrize(
    ("kind", "header"), [("p256", "EC PRIVATE KEY"), ("rsa-2048", "RSA PRIVATE KEY")]
)
def test_a_key_is_exported_as_the_secret_that_skupper_reads(
    cli: Cli, kind: str, header: str
) -> None:
    cli.done("ca", "init", "lab-ca", "--key-type", kind)
    result = cli.run("ca", "export", "lab-ca", "--with-key", "--out", "s.yaml")
    assert result.exit_code == 0
    path = cli.directory / "s.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = YAML(typ="safe").load(path.read_text())
    assert secret["kind"] == "Secret"
    assert secret["type"] == "kubernetes.io/tls"
    assert secret["metadata"] == {"name": "lab-ca"}
    key = base64.b64decode(secret["data"]["tls.key"]).decode()
    assert f"-----BEGIN {header}-----" in key
    assert key.splitlines()[1] not in result.output
    certificate = base64.b64decode(secret["data"]["tls.crt"])
    assert certificate == base64.b64decode(secret["data"]["ca.crt"])
    assert load_issuer(certificate, key.encode()).label  # they belong together


def test_the_cas_of_secrets_are_shown_with_the_secret_and_whether_it_is_there(cli: Cli) -> None:
    held = a_secret("skupper-site-ca")
    with cli.cluster() as cluster:
        ids = [sign(cluster, "prod", held), sign(cluster, "prod", a_secret(), "old-ca")]
        put(cluster, "prod", ids[0])
        put(cluster, "empty", None)
        cluster.forget_unused_keys()
        names = {one.id: one.name for one in authorities.every(cluster.database)}
    signing, gone = (names[one] for one in ids)
    lines = {line.split()[0]: line for line in cli.done("ca", "list").splitlines()}
    assert "links to sites  " in lines[signing]
    assert " active  " in lines[signing]
    assert "from Secret prod/skupper-site-ca  " in lines[signing]
    assert "from Secret prod/old-ca, which is gone  " in lines[gone]
    assert set(lines) == {"NAME", "server-ca", "site-ca", signing, gone}
    documents = {one["name"]: one for one in cli.json("ca", "list")}
    found = facts(held.certificate_pem)
    assert documents[signing]["fingerprint"] == found.fingerprint
    assert [documents[one]["kind"] for one in ("site-ca", signing)] == ["local", "kubernetes"]
    assert [documents[one]["secret"] for one in ("site-ca", signing)] == [
        None,
        "prod/skupper-site-ca",
    ]
    assert [documents[one]["canSign"] for one in ("site-ca", signing, gone)] == [True, True, False]
    assert cli.json("ca", "show", signing)["fingerprint"] == found.fingerprint
    assert found.fingerprint in cli.done("ca", "show", signing)
    assert cli.done("ca", "export", signing).encode() == held.certificate_pem
    refused = cli.run("ca", "export", gone, "--with-key", "--out", "s.yaml")
    assert refused.exit_code == 3
    assert "there is no Secret" in refused.stderr
    assert not (cli.directory / "s.yaml").exists()
    for name in ("(none)", "no-issuer"):
        assert cli.run("ca", "show", name).exit_code == 1
        assert cli.run("ca", "init", "(none)").exit_code == 2


def states(cli: Cli) -> dict[str, str]:
    return {one["name"]: one["state"] for one in cli.json("ca", "list")}


def test_an_authority_of_sites_is_rotated_in_two_steps(cli: Cli) -> None:
    old = cli.done("ca", "export", "site-ca")
    told = cli.done("ca", "rotate", "site-ca")
    assert "is prepared, as site-ca-2" in told
    assert "grantserver ca export site-ca --out site-ca.pem" in told
    assert states(cli) == {"server-ca": "active", "site-ca": "active", "site-ca-2": "prepared"}
    waiting = cli.json("ca", "show", "site-ca-2")
    assert waiting["signsFrom"] in told
    assert f"prepared: trusted, signs from {waiting['signsFrom']} on" in cli.done(
        "ca", "show", "site-ca-2"
    )
    new = cli.done("ca", "export", "site-ca-2")
    assert cli.done("ca", "export", "site-ca") == old + new
    again = cli.run("ca", "rotate", "site-ca")
    assert again.exit_code == 1
    assert "prepared already" in again.stderr

    told = cli.done("ca", "rotate", "site-ca", "--now")
    assert "The old one is site-ca-1" in told
    assert states(cli) == {"server-ca": "active", "site-ca": "active", "site-ca-1": "retired"}
    assert cli.done("ca", "export", "site-ca") == new + old
    assert cli.done("ca", "export", "site-ca-1") == old
    assert "retired, since" in cli.done("ca", "show", "site-ca-1")
    assert "active, since" in cli.done("ca", "show", "site-ca")
    assert cli.json("ca", "show", "site-ca")["signsFrom"] is None
    assert "authority.activated" in cli.done("audit", "list")


def test_the_servers_own_ca_is_rotated_at_once_and_new_tokens_carry_both(west: Cli) -> None:
    old = west.done("ca", "export", "server-ca")
    told = west.done("ca", "rotate", "server-ca", "--lifetime", "1000h")
    assert "Authority server-ca is a new one, good until" in told
    assert "Tokens that are out can be redeemed as before" in told
    assert states(west)["server-ca-1"] == "retired"
    both = west.done("ca", "export", "server-ca")
    assert both.endswith(old)
    west.done("token", "issue", "t.yaml", "--site", "west")
    token = YAML(typ="safe").load((west.directory / "t.yaml").read_text())
    assert token["spec"]["ca"] == both


def test_the_new_key_may_be_of_another_kind(cli: Cli) -> None:
    cli.done("ca", "rotate", "site-ca", "--now", "--key-type", "rsa-2048")
    assert cli.json("ca", "show", "site-ca")["key"] == "RSA 2048"
    assert cli.json("ca", "show", "site-ca")["subject"] == "CN=site-ca-2"


def test_with_its_key_an_authority_is_exported_with_all_that_are_trusted(cli: Cli) -> None:
    cli.done("ca", "rotate", "site-ca", "--now")
    cli.done("ca", "export", "site-ca", "--with-key", "--out", "s.yaml")
    secret = YAML(typ="safe").load((cli.directory / "s.yaml").read_text())
    data = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    assert load_issuer(data["tls.crt"], data["tls.key"]).label
    assert data["ca.crt"].decode() == cli.done("ca", "export", "site-ca")
    assert data["ca.crt"].count(b"BEGIN") == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nobody"], 1),
        (["site-ca", "--lifetime", "10y"], 2),
        (["site-ca", "--key-type", "dsa"], 2),
        ([], 2),
    ],
)
def test_what_cannot_be_rotated_is_told(cli: Cli, words: list[str], code: int) -> None:
    assert cli.run("ca", "rotate", *words).exit_code == code
    assert len(cli.json("ca", "list")) == 2


def test_an_authority_that_nobody_needs_is_shown_as_ended(cli: Cli) -> None:
    cli.done("ca", "rotate", "site-ca", "--now")
    with cli.cluster() as cluster:
        times = rotation.Times(wait_seconds=0, lifetime_seconds=1, retry_seconds=1)
        later = ambient.utc_now() + 2 * 365 * 24 * 3600
        rotation.advance(cluster.database, times=times, now=later)
    assert states(cli)["site-ca-1"] == "ended"
    assert "not trusted any more" in cli.done("ca", "show", "site-ca-1")
    refused = cli.run("ca", "export", "site-ca-1", "--with-key", "--out", "s.yaml")
    assert refused.exit_code == 3
    assert "it was erased" in refused.stderr


def test_a_revocation_list_is_written_as_der_or_pem(cli: Cli) -> None:
    told = cli.done("ca", "crl", "site-ca", "--out", "site-ca.crl")
    assert told == "The revocation list of site-ca is in site-ca.crl.\n"
    path = cli.directory / "site-ca.crl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    pem = crl.to_pem(path.read_bytes())  # raises unless it is one
    assert pem.startswith(b"-----BEGIN X509 CRL-----\n")
    assert cli.done("ca", "crl", "site-ca", "--pem").startswith(pem.decode().splitlines()[0])
    assert cli.run("ca", "crl", "site-ca").stdout_bytes.startswith(b"0\x81")
    assert cli.run("ca", "crl", "site-ca", "--out", "site-ca.crl").exit_code == 1
    cli.done("ca", "crl", "site-ca", "--out", "site-ca.crl", "--force")
    assert cli.run("ca", "crl", "nobody").exit_code == 1
    assert cli.run("ca", "crl", "server-ca").exit_code == 1
