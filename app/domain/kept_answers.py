"""What is kept of an answer, so that a claim that comes again gets the same bytes.

The parts from which it was written, and not its text, which is three times as long: a redemption
pays for every byte that its commit carries. The name comes with the claim, and the issuer's
certificates are found under its number.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from app.errors import Broken, Unavailable

# Form, number of the issuer, lengths of certificate and key; the Links are what is left.
_HEAD: Final = struct.Struct(">BqHH")
_FORM: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """The parts of one answer; `links` are the Link documents as they were written."""

    issuer_id: int
    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    links: bytes = field(repr=False)

    def packed(self) -> bytes:
        """Put the parts into one piece, to be sealed."""
        certificate, key = self.certificate_pem, self.key_pem
        head = _HEAD.pack(_FORM, self.issuer_id, len(certificate), len(key))
        return head + certificate + key + self.links


def unpacked(packed: bytes) -> KeptAnswer:
    """Take apart what `packed` made.

    Raises Unavailable when another version made it, Broken when it is cut off.
    """
    if len(packed) < _HEAD.size:
        raise Broken("a kept answer is cut off")
    form, issuer_id, certificate_bytes, key_bytes = _HEAD.unpack_from(packed)
    if form != _FORM:
        raise Unavailable(f"a kept answer of form {form}, which another version may know")
    key_at = _HEAD.size + certificate_bytes
    links_at = key_at + key_bytes
    if len(packed) <= links_at:
        raise Broken("a kept answer is cut off")
    return KeptAnswer(
        issuer_id=issuer_id,
        certificate_pem=packed[_HEAD.size : key_at],
        key_pem=packed[key_at:links_at],
        links=packed[links_at:],
    )
