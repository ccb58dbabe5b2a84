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

from app.domain.certificates import Minted
from app.domain.sites import Link

_text: Final = json.encoder.encode_basestring_ascii


def bundle(name: str, minted: Minted, links: Sequence[Link]) -> bytes:
    """Write what a successful redemption answers: one Secret, then one or more Links."""
    documents = [_secret(name, minted), *(_link(link, credentials=name) for link in links)]
    return "".join(documents).encode("ascii")


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


def _secret(name: str, minted: Minted) -> str:
    return (
        "---\n"
        "apiVersion: v1\n"
        "kind: Secret\n"
        "metadata:\n"
        f"  name: {_text(name)}\n"
        "type: kubernetes.io/tls\n"
        "data:\n"
        f"  ca.crt: {_base64(minted.ca_pem)}\n"
        f"  tls.crt: {_base64(minted.certificate_pem)}\n"
        f"  tls.key: {_base64(minted.key_pem)}\n"
    )


def _link(link: Link, *, credentials: str) -> str:
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
