"""What is kept of an answer, so that a claim that comes again gets the same bytes.

The parts from which it was written, and not its text, which is three times as long: a redemption
pays for every byte that its commit carries. The name comes with the claim, and the certificates of
the authorities that were to be trusted are found under their numbers: they never change.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from app.errors import Broken, Unavailable

# Form, number of the one authority, lengths of certificate and key; the Links are what is left.
_ONE: Final = struct.Struct(">BqHH")
_FORM_ONE: Final = 1
# Form, how many authorities, lengths of certificate and key; then the numbers of the authorities.
_SEVERAL: Final = struct.Struct(">BBHH")
_FORM_SEVERAL: Final = 2
_NUMBER: Final = struct.Struct(">q")
_MOST: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """The parts of one answer; `links` are the Link documents as they were written.

    `issuer_ids` are the authorities whose certificates it told to trust, in this order. `key_pem`
    is empty where the claim came with a key of its own.
    """

    issuer_ids: tuple[int, ...]
    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    links: bytes = field(repr=False)

    def packed(self) -> bytes:
        """Put the parts into one piece, to be sealed."""
        ids, certificate, key = self.issuer_ids, self.certificate_pem, self.key_pem
        if len(ids) == 1:  # as it nearly always is, and as every version of this program knows it
            head = _ONE.pack(_FORM_ONE, ids[0], len(certificate), len(key))
        else:
            if not 1 <= len(ids) <= _MOST:
                raise Broken(f"an answer does not trust {len(ids)} authorities")
            head = _SEVERAL.pack(_FORM_SEVERAL, len(ids), len(certificate), len(key))
            head += b"".join(map(_NUMBER.pack, ids))
        return head + certificate + key + self.links


def unpacked(packed: bytes) -> KeptAnswer:
    """Take apart what `packed` made.

    Raises Unavailable when another version made it, Broken when it is cut off.
    """
    form = packed[0] if packed else _FORM_ONE
    if form not in (_FORM_ONE, _FORM_SEVERAL):
        raise Unavailable(f"a kept answer of form {form}, which another version may know")
    try:
        if form == _FORM_ONE:
            _, issuer_id, certificate_bytes, key_bytes = _ONE.unpack_from(packed)
            issuer_ids, begin = (issuer_id,), _ONE.size
        else:
            _, count, certificate_bytes, key_bytes = _SEVERAL.unpack_from(packed)
            issuer_ids = struct.unpack_from(f">{count}q", packed, _SEVERAL.size)
            begin = _SEVERAL.size + count * _NUMBER.size
    except struct.error as error:
        raise Broken("a kept answer is cut off") from error
    key_at = begin + certificate_bytes
    links_at = key_at + key_bytes
    if len(packed) <= links_at:
        raise Broken("a kept answer is cut off")
    return KeptAnswer(
        issuer_ids=issuer_ids,
        certificate_pem=packed[begin:key_at],
        key_pem=packed[key_at:links_at],
        links=packed[links_at:],
    )
