import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ambient import utc_now
from app.crypto.certificates import load_certificates
from app.crypto.issuers import Issuer
from app.crypto.keys import PrivateKey, to_pem
from app.crypto.server_certificates import (
    create_server_certificate,
    missing_hosts,
)
from app.errors import Invalid, Lack, Unready
from tests.crypto.conftest import KEY_NAMES, NOW, YEAR, authority, odd_certificate

HOSTS = ("grants.example.com", "*.apps.example.com", "10.0.0.7", "fd00::7", "localhost")
RANDOM = bytes(range(16))


def create(issuer: Issuer, key: PrivateKey, *hosts: str, now: int = NOW) -> bytes:
    return create_server_certificate(
        issuer, hosts=hosts, key=key, serial_random=RANDOM, now=now, lifetime_seconds=YEAR
    )


def names_in(pem: bytes) -> list[str]:
    (leaf,) = load_certificates(pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [f"{type(name).__name__} {name.value}" for name in names]


def test_an_address_is_named_both_ways_and_a_name_once(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    pem = create(issuer, keys["p256"], "West.Example.com", "10.0.0.7", "fd00::7", "10.0.0.7")
    assert names_in(pem) == [
        "DNSName west.example.com",
        "IPAddress 10.0.0.7",
        "DNSName 10.0.0.7",
        "IPAddress fd00::7",
        "DNSName fd00::7",
    ]


@pytest.mark.parametrize("name", KEY_NAMES)
def test_a_server_certificate_is_for_servers_only(
    keys: dict[str, PrivateKey], issuer: Issuer, name: str
) -> None:
    (leaf,) = load_certificates(create(issuer, keys[name], "west.example.com"))
    leaf.verify_directly_issued_by(issuer.certificate)
    assert leaf.subject.rfc4514_string() == "CN=west.example.com"
    assert leaf.serial_number == int.from_bytes(NOW.to_bytes(4, "big") + RANDOM[4:], "big")
    assert leaf.public_key() == keys[name].public_key()
    assert leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value == (
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    )
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.key_encipherment is name.startswith("rsa")


def test_a_long_first_host_is_cut_in_the_name_and_whole_in_the_san(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    host = "a" * 60 + ".example.com"
    pem = create(issuer, keys["p256"], host)
    assert load_certificates(pem)[0].subject.rfc4514_string() == f"CN={host[:64]}"
    assert names_in(pem) == [f"DNSName {host}"]


def test_a_server_certificate_ends_with_its_issuer(keys: dict[str, PrivateKey]) -> None:
    issuer = authority(keys["p256"], not_before=NOW - 5, not_after=NOW + 5)
    (leaf,) = load_certificates(create(issuer, keys["p256"], "west.example.com"))
    assert leaf.not_valid_before_utc == issuer.certificate.not_valid_before_utc
    assert leaf.not_valid_after_utc == issuer.certificate.not_valid_after_utc
    with pytest.raises(Unready) as caught:
        create(issuer, keys["p256"], "west.example.com", now=NOW + 6)
    assert caught.value.lack is Lack.ISSUER


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "west.example.com.",
        "-west.example.com",
        "west-.example.com",
        "we_st.example.com",
        "west..example.com",
        "west.example.com:9090",
        "[fd00::7]",
        "fe80::1%eth0",
        "https://west.example.com",
        "wést.example.com",
        "*.com",
        "*",
        "we*.example.com",
        "*.*.example.com",
        "west.*.example.com",
        "256.0.0.1",
        "10.0.7",
        "a" * 64 + ".example.com",
        ".".join(["a" * 60] * 5),
        "west.example.com\n",
        "west\0.example.com",
    ],
)
def test_what_is_no_host_is_refused(keys: dict[str, PrivateKey], issuer: Issuer, host: str) -> None:
    with pytest.raises(Invalid, match="neither a DNS name nor an IP address") as caught:
        create(issuer, keys["p256"], "west.example.com", host)
    assert caught.value.field == "hosts"


def test_no_hosts_at_all_are_refused(keys: dict[str, PrivateKey], issuer: Issuer) -> None:
    with pytest.raises(Invalid, match="at least one host"):
        create(issuer, keys["p256"])


@given(host=st.text(max_size=80))
@settings(deadline=None)
def test_any_text_is_a_host_that_is_covered_or_is_refused(
    keys: dict[str, PrivateKey], issuer: Issuer, host: str
) -> None:
    try:
        pem = create(issuer, keys["p256"], host)
    except Invalid as error:
        assert error.field == "hosts"  # noqa: PT017
    else:
        assert missing_hosts(pem, [host]) == ()


def test_hosts_that_a_certificate_lacks_are_listed_in_their_order(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    pem = create(issuer, keys["p256"], *HOSTS)
    assert missing_hosts(pem, HOSTS) == ()
    assert missing_hosts(pem, ["GRANTS.example.com", "a.apps.example.com", "FD00:0::7"]) == ()
    others = ("example.com", "apps.example.com", "a.b.apps.example.com", "10.0.0.8", "::1", "")
    assert missing_hosts(pem, [*others, *HOSTS]) == others


def test_an_address_counts_only_as_an_address_and_the_common_name_never(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    assert missing_hosts(issuer.certificate_pem, ["site ca"]) == ("site ca",)
    names = x509.SubjectAlternativeName([x509.DNSName("10.0.0.7")])
    dns_only = odd_certificate(keys["p256"], extensions=((names, False),)).pem
    assert missing_hosts(dns_only, ["10.0.0.7"]) == ("10.0.0.7",)


def test_only_the_first_certificate_of_a_bundle_counts(
    keys: dict[str, PrivateKey], issuer: Issuer
) -> None:
    pem = create(issuer, keys["p256"], "west.example.com")
    assert missing_hosts(pem + issuer.certificate_pem, ["west.example.com"]) == ()
    assert missing_hosts(issuer.certificate_pem + pem, ["west.example.com"]) != ()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """Shake hands in memory; raises what the client thinks of the server's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=host)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for end in (near, far):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert near.version() == "TLSv1.3"


@pytest.mark.parametrize("name", ["p256", "rsa-2048"])
def test_a_tls_client_accepts_the_certificate_for_its_hosts_only(
    keys: dict[str, PrivateKey], tmp_path: Path, name: str
) -> None:
    now = utc_now()
    issuer = authority(keys["p256"], not_before=now - YEAR, not_after=now + YEAR)
    (tmp_path / "server.pem").write_bytes(create(issuer, keys[name], *HOSTS, now=now))
    (tmp_path / "server.key").write_bytes(to_pem(keys[name]))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    client = ssl.create_default_context(cadata=issuer.certificate_pem.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    for host in ("grants.example.com", "a.apps.example.com", "10.0.0.7", "fd00::7", "localhost"):
        handshake(server, client, host)
    for host in ("east.example.com", "10.0.0.8", "::1"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server, client, host)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl on the PATH")
def test_openssl_takes_the_certificate_for_a_server_and_not_for_a_client(
    keys: dict[str, PrivateKey], issuer: Issuer, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(issuer.certificate_pem)
    (tmp_path / "leaf.pem").write_bytes(create(issuer, keys["p256"], *HOSTS))
    for purpose, taken in (("sslserver", True), ("sslclient", False)):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose]
        command += ["-attime", str(NOW), "-CAfile", "ca.pem", "leaf.pem"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (run.returncode == 0) is taken, run.stderr
