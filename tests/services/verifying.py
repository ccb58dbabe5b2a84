"""Whether clients accept what is served: by a real handshake of OpenSSL, and by the rules of Go."""

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from app.services.reach import ServerMaterial
from tests.builders import NOW


def handshake(
    made: ServerMaterial, ca_pem: str, directory: Path, host: str = "west.example"
) -> None:
    """Do a whole TLS 1.3 handshake with host verification; raises what the client would see.

    The clocks of TLS cannot be set, so what is served has to be valid today.
    """
    file = directory / "served.pem"
    file.write_bytes(made.certificate_pem + made.key_pem)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.minimum_version = ssl.TLSVersion.TLSv1_3
    serving.load_cert_chain(file)
    asking = ssl.create_default_context(cadata=ca_pem)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server, server_hostname=host)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() == "TLSv1.3"


def path_as_go_finds_it(
    certificate_pem: bytes, ca_pem: str, now: int = NOW
) -> list[x509.Certificate]:
    """Find a path as Go's crypto/x509 does, or an empty list.

    It differs from OpenSSL in what counts for a path length: every certificate between, also one
    that bears its own issuer's name.
    """
    leaf, *between = x509.load_pem_x509_certificates(certificate_pem)
    roots = x509.load_pem_x509_certificates(ca_pem.encode())
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.SERVER_AUTH in usages
    return _up([leaf], between, roots, now)


def _up(
    path: list[x509.Certificate],
    between: list[x509.Certificate],
    roots: list[x509.Certificate],
    now: int,
) -> list[x509.Certificate]:
    for one in (*roots, *between):
        if one in path or not _is_valid_above(one, path, now):
            continue
        found = [*path, one]
        if one not in roots:
            found = _up(found, between, roots, now)
        if found:
            return found
    return []


def _is_valid_above(one: x509.Certificate, path: list[x509.Certificate], now: int) -> bool:
    """Go's `Certificate.isValid`, for an issuer of the last in the path."""
    try:
        path[-1].verify_directly_issued_by(one)
    except Exception:  # noqa: BLE001 - whatever it is, this is not its issuer
        return False
    began = one.not_valid_before_utc.timestamp() <= now <= one.not_valid_after_utc.timestamp()
    rules = one.extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = one.extensions.get_extension_for_class(x509.KeyUsage).value
    longest = rules.path_length
    short = longest is None or len(path) - 1 <= longest
    return began and rules.ca and usage.key_cert_sign and short
