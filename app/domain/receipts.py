"""What a redemption answers, as a connecting site reads it: checked whole before it is used.

The other end may be any server that speaks the wire contract. Nothing that comes from it becomes
part of a name or a path before it was found to be what a connecting site can store.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from app.domain.link_secrets import Server, annotations
from app.domain.names import is_object_name
from app.domain.sites import HIGHEST_COST, HIGHEST_PORT, MOST_ENDPOINTS, Role, check_host
from app.domain.yaml_documents import read_all, write
from app.errors import Invalid

_FIELD: Final = "answer"
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"
_DATA: Final = {"ca.crt": _CERTIFICATE, "tls.crt": _CERTIFICATE, "tls.key": _KEY}
_MOST_DOCUMENTS: Final = 1 + MOST_ENDPOINTS  # the Secret, and a Link for each group of endpoints
_PORT: Final = re.compile(r"[0-9]{1,5}")
_NOT_SET: Final = ("namespace", "uid", "resourceVersion")  # a site stores it where it will


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One received resource: `text` is its YAML document, without the line `---`."""

    kind: str
    name: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What a claim was sent with: a key of this side's own, and the server that it went to.

    The key itself was not sent, only a certificate request that it signed.
    """

    key_pem: bytes = field(repr=False)
    server: Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A whole answer: the Secret first, then its Links, and the client certificate in PEM.

    `own_key` tells whether the certificate is for the key that the claim was sent with: then that
    is in the Secret, and where to renew it. Any other server has made a key and sent it.
    """

    resources: tuple[Resource, ...]
    certificate_pem: bytes = field(repr=False)
    own_key: bool = False


def read_receipt(body: bytes, *, name: str, cost: int, own: Own | None = None) -> Receipt:
    """Read and check the answer to a claim for `name`; a `cost` above 0 is put into each Link.

    `own` is what the claim was sent with, if it was. Whether the certificate is for that key is
    not judged here. Of the metadata only the name is taken over, and of a Secret only what a site
    needs; what is not known in the spec of a Link is kept. Raises Invalid("answer", …), saying
    what is odd, also when the answer is cut off: a Secret without Links is of no use to anybody.
    """
    try:
        documents = read_all(_FIELD, body.decode(), most=_MOST_DOCUMENTS)
    except UnicodeDecodeError:
        raise Invalid(_FIELD, "it is not a text in UTF-8") from None
    if not documents:
        raise Invalid(_FIELD, "it is empty")
    secret, links = documents[0], documents[1:]
    own_key = own is not None and _has_no_key(secret)
    if own is not None and own_key:
        secret["data"]["tls.key"] = base64.b64encode(own.key_pem).decode()
    certificate_pem = _check_secret(secret, name)
    if not links:
        raise Invalid(_FIELD, "it holds no Link")
    noted = annotations(own.server) if own is not None and own_key else {}
    made = _head(secret, {"annotations": noted} if noted else {})
    made |= {"type": secret["type"], "data": {entry: secret["data"][entry] for entry in _DATA}}
    resources = [Resource(kind="Secret", name=name, text=write(made))]
    for link in links:
        link_name = _check_link(link, name)
        if cost > 0:
            link["spec"]["cost"] = cost
        made = _head(link) | {"spec": link["spec"]}
        resources.append(Resource(kind="Link", name=link_name, text=write(made)))
    if len({resource.name for resource in resources[1:]}) < len(links):
        raise Invalid(_FIELD, "two Links have the same name")
    return Receipt(resources=tuple(resources), certificate_pem=certificate_pem, own_key=own_key)


def _has_no_key(secret: Any) -> bool:
    data = secret.get("data") if isinstance(secret, Mapping) else None
    return isinstance(data, Mapping) and "tls.key" not in data


def _head(document: Any, metadata: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Give what a resource begins with, and nothing of the metadata that it came with.

    An owner, a finalizer, a label or an annotation of a stranger would have others act on it.
    """
    return {
        "apiVersion": document["apiVersion"],
        "kind": document["kind"],
        "metadata": {"name": document["metadata"]["name"], **metadata},
    }


def _check_secret(secret: Any, name: str) -> bytes:
    found = _check_head(secret, "Secret", "v1")
    if found != name:
        raise Invalid(_FIELD, "the Secret has another name than was asked for")
    if secret.get("type") != "kubernetes.io/tls":
        raise Invalid(_FIELD, "the Secret is not of type kubernetes.io/tls")
    if "stringData" in secret:  # which would win over `data` where it is applied
        raise Invalid(_FIELD, "the Secret has stringData")
    data = secret.get("data")
    if not isinstance(data, Mapping):
        raise Invalid(_FIELD, "the Secret has no data")
    decoded = {}
    for entry, beginning in _DATA.items():
        try:
            decoded[entry] = base64.b64decode(str(data.get(entry, "")), validate=True)
        except (binascii.Error, ValueError):
            raise Invalid(_FIELD, f"{entry} of the Secret is not base64") from None
        if beginning not in decoded[entry]:
            raise Invalid(_FIELD, f"{entry} of the Secret is missing or holds no PEM")
    return decoded["tls.crt"]


def _check_link(link: Any, credentials: str) -> str:
    name = _check_head(link, "Link", "skupper.io/v2alpha1")
    number = name.removeprefix(f"{credentials}-")
    if name != credentials and (number == name or not number.isdigit()):
        raise Invalid(_FIELD, "a Link has another name than was asked for")
    spec = link.get("spec")
    if not isinstance(spec, dict) or spec.get("tlsCredentials") != credentials:
        raise Invalid(_FIELD, "a Link does not use the Secret that came with it")
    cost = spec.get("cost", 0)
    if not isinstance(cost, int) or isinstance(cost, bool) or not 0 <= cost <= HIGHEST_COST:
        raise Invalid(_FIELD, "the cost of a Link is no number that one may have")
    endpoints = spec.get("endpoints")
    if not isinstance(endpoints, list) or not endpoints:
        raise Invalid(_FIELD, "a Link has no endpoints")
    if len(endpoints) > MOST_ENDPOINTS:
        raise Invalid(_FIELD, f"a Link has more than {MOST_ENDPOINTS} endpoints")
    for endpoint in endpoints:
        if problem := _odd_endpoint(endpoint):
            raise Invalid(_FIELD, problem)
        endpoint["port"] = str(endpoint["port"])
    return name


def _check_head(document: Any, kind: str, version: str) -> str:
    """Check what every resource has, and return its name."""
    if not isinstance(document, dict):
        raise Invalid(_FIELD, f"expected a {kind}, found something that is no resource")
    if (document.get("kind"), document.get("apiVersion")) != (kind, version):
        raise Invalid(_FIELD, f"expected a {kind} of {version}, found another resource")
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not isinstance(name, str) or not is_object_name(name):
        raise Invalid(_FIELD, f"the {kind} has no name that could be stored")
    if any(metadata.get(entry) for entry in _NOT_SET):
        raise Invalid(_FIELD, f"the {kind} says where it is stored, which is not its business")
    return name


def _odd_endpoint(endpoint: Any) -> str | None:
    """Say what is odd about an endpoint, if anything is."""
    if not isinstance(endpoint, dict):
        return "an endpoint of a Link is no resource"
    if endpoint.get("name") not in list(Role):
        return "an endpoint of a Link is neither inter-router nor edge"
    if not isinstance(endpoint.get("group", ""), str):
        return "the group of an endpoint is no text"
    host, port = endpoint.get("host"), str(endpoint.get("port", ""))
    try:
        check_host("host", host if isinstance(host, str) else "")
    except Invalid:
        return "the host of an endpoint is neither a host name nor an IP address"
    if _PORT.fullmatch(port) is None or not 1 <= int(port) <= HIGHEST_PORT:
        return "the port of an endpoint is no number from 1 to 65535"
    return None
