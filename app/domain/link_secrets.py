"""The Secret of a link as its own site keeps it: what makes it renewable, and what that changes.

A Secret can be renewed when it says which server gave its certificate and whom to trust there.
Whoever stores it writes that down, where the key was made on this side. Nothing is asked here.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from app.errors import Invalid

SERVER_URL: Final = "grantserver/server-url"
SERVER_CA: Final = "grantserver/server-ca"

_FIELD: Final = "secret"
_TYPE: Final = "kubernetes.io/tls"
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where certificates are renewed: `url` is `https://HOST[:PORT]`, `ca_pem` whom to trust."""

    url: str
    ca_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSecret:
    """What a renewable Secret holds, in PEM, and where it is renewed."""

    name: str
    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    server: Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What takes the place of a Secret's content; the old certificate counts until then (UTC)."""

    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)
    server: Server
    not_after: int
    superseded_at: int


def server_of(token_url: str, ca_pem: str) -> Server:
    """Tell where what a token gave can be renewed: at the server that the token leads to."""
    return Server(url=f"https://{urlsplit(token_url).netloc}", ca_pem=ca_pem)


def annotations(server: Server) -> dict[str, str]:
    """Write down on a Secret where it can be renewed."""
    return {SERVER_URL: server.url, SERVER_CA: server.ca_pem}


def is_renewable(secret: Any) -> bool:
    """Tell whether a document is a Secret that says where it can be renewed."""
    if not isinstance(secret, Mapping) or secret.get("kind") != "Secret":
        return False
    metadata = secret.get("metadata")
    noted = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    return isinstance(noted, Mapping) and SERVER_URL in noted


def read_link_secret(secret: Mapping[str, Any]) -> LinkSecret:
    """Read a Secret that `is_renewable`. Raises Invalid("secret", …) with nothing of its data."""
    metadata = secret.get("metadata")
    noted = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not isinstance(noted, Mapping):
        raise Invalid(_FIELD, "it does not say where it could be renewed")
    data = secret.get("data")
    if secret.get("type") != _TYPE or not isinstance(data, Mapping):
        raise Invalid(_FIELD, f"it is not of type {_TYPE}, or has no data")
    url, ca_pem = noted.get(SERVER_URL), noted.get(SERVER_CA)
    if not isinstance(url, str) or not isinstance(ca_pem, str):
        raise Invalid(_FIELD, f"{SERVER_URL} and {SERVER_CA} have to say where it can be renewed")
    _check_server(url, ca_pem, field_=_FIELD)
    certificate_pem, key_pem = _decoded(data, "tls.crt"), _decoded(data, "tls.key")
    if _BEGIN.encode() not in certificate_pem or _KEY not in key_pem:
        raise Invalid(_FIELD, "its tls.crt or tls.key is missing or holds no PEM")
    return LinkSecret(
        name=str(metadata.get("name", "")),
        certificate_pem=certificate_pem,
        key_pem=key_pem,
        server=Server(url=url, ca_pem=ca_pem),
    )


def renewed(secret: Mapping[str, Any], by: Renewed) -> Document:
    """Put what a renewal gave into its Secret; everything else in it stays."""
    metadata = secret["metadata"]
    return {
        **secret,
        "metadata": {
            **metadata,
            "annotations": {**metadata["annotations"], **annotations(by.server)},
        },
        "data": {
            **secret["data"],
            "ca.crt": _encoded(by.ca_pem),
            "tls.crt": _encoded(by.certificate_pem),
            "tls.key": _encoded(by.key_pem),
        },
    }


def read_renewal(answer: Any, *, key_pem: bytes) -> Renewed:
    """Read what a server says to a renewal with this key. Raises Invalid("answer", …).

    Whether the certificate fits is not judged here.
    """
    field_ = "answer"
    if not isinstance(answer, Mapping) or not isinstance(answer.get("server"), Mapping):
        raise Invalid(field_, "it is no renewal")
    certificate, ca, server = answer.get("certificate"), answer.get("ca"), answer["server"]
    if not isinstance(certificate, str) or not isinstance(ca, str):
        raise Invalid(field_, "it holds no certificate, or no CA")
    url, server_ca = server.get("url"), server.get("ca")
    if not isinstance(url, str) or not isinstance(server_ca, str):
        raise Invalid(field_, "it does not say where the server is reached")
    _check_server(url, server_ca, field_=field_)
    return Renewed(
        certificate_pem=certificate.encode(errors="replace"),
        key_pem=key_pem,
        ca_pem=ca.encode(errors="replace"),
        server=Server(url=url, ca_pem=server_ca),
        not_after=_seconds(answer.get("notAfter")),
        superseded_at=_seconds(answer.get("supersededAt")),
    )


def _check_server(url: str, ca_pem: str, *, field_: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and bool(parts.hostname) and not parts.path.strip("/")
        usable = usable and not (parts.query or parts.fragment or "@" in parts.netloc)
    except ValueError:
        usable = False
    if not usable or not url.isprintable():
        raise Invalid(field_, "the server's address is not https://HOST:PORT")
    if _BEGIN not in ca_pem:
        raise Invalid(field_, "the server's CA holds no certificate in PEM")


def _decoded(data: Mapping[str, Any], entry: str) -> bytes:
    try:
        return base64.b64decode(str(data.get(entry) or ""), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(_FIELD, f"its {entry} is not base64") from None


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _seconds(written: object) -> int:
    try:
        moment = datetime.fromisoformat(written if isinstance(written, str) else "")
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Invalid("answer", "a time in it is not as RFC 3339 has it")
    return int(moment.timestamp())
