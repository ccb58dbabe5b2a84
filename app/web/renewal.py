"""Renewals on the wire: what is posted to `/renew`, and what is answered."""

import base64
import json
from collections.abc import Mapping
from typing import Final

from app.domain.times import rfc3339
from app.errors import Reason, Refused
from app.services.renewal import Renewed, Wish

PATH: Final = "/renew"
MOST_BODY_BYTES: Final = 16 * 1024


def read_wish(body: bytes, peer: str) -> Wish:
    """Read the body of a request to renew. Raises Refused(BODY)."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(Reason.BODY, "the body is not JSON") from error
    if not isinstance(read, Mapping):
        raise Refused(Reason.BODY, "the body is no JSON object")
    certificate = _text(read, "certificate")
    return Wish(
        certificate_pem=certificate.encode(),
        request_der=_decoded(read, "csr"),
        signature=_decoded(read, "signature"),
        peer=peer,
    )


def write_renewed(renewed: Renewed) -> bytes:
    """Write the answer to a renewal."""
    answer = {
        "certificate": renewed.certificate_pem.decode(),
        "ca": renewed.ca_pem.decode(),
        "notAfter": rfc3339(renewed.not_after),
        "supersededAt": rfc3339(renewed.superseded_at),
        "server": {"url": renewed.reach.url, "ca": renewed.reach.ca_pem},
    }
    return json.dumps(answer, indent=2).encode() + b"\n"


def _text(read: Mapping[str, object], field: str) -> str:
    value = read.get(field)
    if not isinstance(value, str) or not value.isascii():
        raise Refused(Reason.BODY, f"the body has no {field}, or it is no text in ASCII")
    return value


def _decoded(read: Mapping[str, object], field: str) -> bytes:
    try:
        return base64.b64decode(_text(read, field), validate=True)
    except ValueError as error:  # binascii's own is one
        raise Refused(Reason.BODY, f"the {field} is not in base64") from error
