"""Certificates for servers: made for the hosts a server is dialled by, and asked about them."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from app.crypto.certificates import (
    COMMON_NAME_BYTES,
    load_certificates,
    moment,
    name_of,
)
from app.crypto.issuers import Issuer
from app.crypto.keys import PrivateKey
from app.crypto.leaves import leaf_extensions, serial_number, validity
from app.domain.names import is_host_name
from app.errors import Invalid

_SERVER_ONLY: x509.Extension[x509.ExtensionType] = x509.Extension(
    x509.ExtendedKeyUsage.oid,
    critical=False,
    value=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
)
_MAX_DNS_NAME = 253


def create_server_certificate(
    issuer: Issuer,
    *,
    hosts: Sequence[str],
    key: PrivateKey,
    serial_random: bytes,
    now: int,
    lifetime_seconds: int,
) -> bytes:
    """Make a server certificate for `hosts` and return its PEM, the leaf alone.

    `hosts` are DNS names (a wildcard as the first label is allowed) and IP addresses without
    brackets; the first becomes the common name, cut to what fits. `serial_random` are 16
    bytes. Raises Invalid("hosts"), Invalid("lifetime"), and Unready as `mint.prepare` does.
    """
    if not hosts:
        raise Invalid("hosts", "a server certificate needs at least one host")
    names = dict.fromkeys(name for host in hosts for name in _general_names(host))
    not_before, not_after = validity(issuer, now=now, lifetime_seconds=lifetime_seconds)
    public_key = key.public_key()
    certificate = x509.CertificateBuilder(
        issuer_name=issuer.name,
        subject_name=name_of(hosts[0][:COMMON_NAME_BYTES], field="hosts"),
        public_key=public_key,
        serial_number=serial_number(serial_random, now),
        not_valid_before=moment(not_before),
        not_valid_after=moment(not_after),
        extensions=[
            *leaf_extensions(issuer, public_key, _SERVER_ONLY),
            x509.Extension(
                x509.SubjectAlternativeName.oid,
                critical=False,
                value=x509.SubjectAlternativeName(names),
            ),
        ],
    ).sign(issuer.key, issuer.signature_hash)
    return certificate.public_bytes(serialization.Encoding.PEM)


def can_name(host: str) -> bool:
    """Tell whether a certificate can be made for a host at all."""
    return _address(host) is not None or _is_dns_name(host.lower())


def missing_hosts(certificate_pem: bytes, hosts: Sequence[str]) -> tuple[str, ...]:
    """List those of `hosts` that a TLS client would not accept this certificate for.

    An ordinary client looks for an IP address among the iPAddress names alone, for a name
    among the dNSName ones, and at the common name never (RFC 9525, section 6). Only the first
    certificate of a bundle counts. Raises Invalid("certificate").
    """
    certificate = load_certificates(certificate_pem)[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return tuple(hosts)
    addresses = set(names.get_values_for_type(x509.IPAddress))
    patterns = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return tuple(
        host
        for host in hosts
        if not (
            address in addresses
            if (address := _address(host))
            else {host.lower(), _wildcard(host.lower())} & patterns
        )
    )


def _general_names(host: str) -> list[x509.GeneralName]:
    """Name one host; an address twice, since routers compare dNSName even with an address."""
    if address := _address(host):
        return [x509.IPAddress(address), x509.DNSName(host)]
    name = host.lower()
    if not _is_dns_name(name):
        raise Invalid(
            "hosts",
            f"{host[:_MAX_DNS_NAME]!r} is neither a DNS name nor an IP address; write IPv6 "
            "without brackets, no port, and names beyond ASCII in their xn-- form",
        )
    return [x509.DNSName(name)]


def _is_dns_name(name: str) -> bool:
    bare = name.removeprefix("*.")
    # A wildcard needs two labels behind it: OpenSSL matches nothing with "*.com".
    return len(name) <= _MAX_DNS_NAME and is_host_name(bare) and (bare == name or "." in bare)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        # A zone ("fe80::1%eth0") means something on one machine only and has no place here.
        return None if "%" in host else ip_address(host)
    except ValueError:
        return None


def _wildcard(name: str) -> str:
    """Name the only wildcard that covers `name`: one star for its whole first label."""
    first, dot, rest = name.partition(".")
    return f"*.{rest}" if first and dot else name
