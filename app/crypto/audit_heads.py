"""Signing heads of the audit log, and checking what was signed.

Ed25519 (RFC 8032) under keys that are derived from the sealing keys, so that who has the database
alone cannot sign. The public halves go into exports: whoever wrote them down elsewhere can check an
export without this server.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.domain.audit_chain import Head
from app.errors import Invalid

PURPOSE = "sign heads of the audit log"
"""For which the keys are derived from the sealing keys."""

_PUBLIC_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadKeys:
    """The public keys by their ids, and the private one that signs, where there is one."""

    public: Mapping[str, bytes]
    _current: tuple[str, Ed25519PrivateKey] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, seeds: Mapping[str, bytes]) -> "HeadKeys":
        """Make the keys from what was derived from the sealing keys, the current one first."""
        private = {key_id: Ed25519PrivateKey.from_private_bytes(s) for key_id, s in seeds.items()}
        return cls(
            public={key_id: key.public_key().public_bytes_raw() for key_id, key in private.items()},
            _current=next(iter(private.items())),
        )

    @classmethod
    def read(cls, written: Mapping[str, str]) -> "HeadKeys":
        """Read public keys as `written` writes them. Raises Invalid("publicKeys", …)."""
        return cls(public={key_id: _read(key) for key_id, key in written.items()})

    def written(self) -> dict[str, str]:
        """The public keys in base64, by their ids."""
        return {key_id: base64.b64encode(key).decode() for key_id, key in self.public.items()}

    def sign(self, head: Head) -> Head:
        """Give the same head with key id and signature."""
        if self._current is None:
            raise Invalid("key", "heads are signed where the sealing key is, not with public keys")
        key_id, key = self._current
        return replace(head, key_id=key_id, signature=key.sign(head.message()))

    def has_signed(self, head: Head) -> bool:
        """Tell whether a head has the signature of one of these keys."""
        key = self.public.get(head.key_id)
        if key is None:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(head.signature, head.message())
        except InvalidSignature:
            return False
        return True


def _read(written: str) -> bytes:
    try:
        key = base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("publicKeys", "expected keys in base64") from error
    if len(key) != _PUBLIC_BYTES:
        raise Invalid("publicKeys", f"a key has {_PUBLIC_BYTES} bytes, not {len(key)}")
    return key
