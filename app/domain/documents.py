"""The YAML documents that leave us: Secret and Links of a redemption, and the token file.

Written from templates, because a general YAML writer costs more than the whole redemption. Every
value that is not ours is a JSON string, which YAML reads as it stands in all its versions, so
`123`, `null` or `n` stay strings. The order and shape are the wire contract's: the Secret first,
each document begun by `---`, nothing after the last Link.
"""

import base64
import json
from collections.abc import Sequence
from typing import Final

from app.domain.certificates import Credentials
from app.domain.sites import Link

_text: Final = json.encoder.encode_basestring_ascii


def bundle(name: str, credentials: Credentials, links: bytes) -> bytes:
    """Write what a successful redemption answers: one Secret, then `links` as they were written.

    `name` is the Secret's, and the one that the Links call their credentials. It has no key where
    the credentials have none.
    """
    return _secret(name, credentials).encode("ascii") + links


def link_documents(links: Sequence[Link], *, credentials: str) -> bytes:
    """Write one or more Links; `credentials` is the name of the Secret that goes with them."""
    return "".join([_link(link, credentials) for link in links]).encode("ascii")


def access_token(
    *, name: str, url: str, code: str, ca_pem: str, cost: int, remarks: Sequence[str]
) -> str:
    """Write a `skupper.io/v2alpha1` AccessToken, the file that is handed over.

    It contains the code: whoever writes it to disk does so with mode 0600. Each of `remarks`
    becomes a comment line above it (how long and how often the token is good).
    """
    comments = "".join(f"# {remark}\n" for remark in remarks)
    certificate = "".join(f"    {line}\n" for line in ca_pem.strip().splitlines())
    return (
        f"{comments}"
        "apiVersion: skupper.io/v2alpha1\n"
        "kind: AccessToken\n"
        "metadata:\n"
        f"  name: {_text(name)}\n"
        "spec:\n"
        f"  url: {_text(url)}\n"
        f"  code: {_text(code)}\n"
        f"  linkCost: {cost}\n"
        "  ca: |\n"
        f"{certificate}"
    )


def _secret(name: str, credentials: Credentials) -> str:
    key = credentials.key_pem
    return (
        "---\n"
        "apiVersion: v1\n"
        "kind: Secret\n"
        "metadata:\n"
        f"  name: {_text(name)}\n"
        "type: kubernetes.io/tls\n"
        "data:\n"
        f"  ca.crt: {_base64(credentials.ca_pem)}\n"
        f"  tls.crt: {_base64(credentials.certificate_pem)}\n"
    ) + (f"  tls.key: {_base64(key)}\n" if key else "")


def _link(link: Link, credentials: str) -> str:
    endpoints = "".join(
        f"  - name: {endpoint.role}\n"
        f"    host: {_text(endpoint.host)}\n"
        f'    port: "{endpoint.port}"\n'
        f"    group: {_text(endpoint.group)}\n"
        for endpoint in link.endpoints
    )
    return (
        "---\n"
        "apiVersion: skupper.io/v2alpha1\n"
        "kind: Link\n"
        "metadata:\n"
        f"  name: {_text(link.name)}\n"
        "spec:\n"
        f"  cost: {link.cost}\n"
        f"  tlsCredentials: {_text(credentials)}\n"
        "  endpoints:\n"
        f"{endpoints}"
    )


def _base64(value: bytes) -> str:
    return '"' + base64.b64encode(value).decode("ascii") + '"'
