"""Kept answers: which claims repeat one another, and how their answer is sealed at rest.

Everything is derived from the presented code, which is not in the database, and from a key of the
key file: the database alone opens no answer, and does not even let anyone test a guessed code.
HKDF-SHA256 (RFC 5869) with that key as salt and the code as input; one extraction serves both
outputs.
"""

import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import Broken

CLAIM_KEY_BYTES: Final = 16
NONCE_BYTES: Final = 12
_LABEL: Final = b"grantserver answer 1\0"
_ONE_BLOCK: Final = b"\x01"  # of HKDF's expansion: both outputs are one hash long at most
_TAG_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class AnswerKeys:
    """What belongs to one claim: the key under which its answer is found, and what seals it."""

    claim_key: bytes = field(repr=False)
    _sealing_key: bytes = field(repr=False)

    def seal(self, answer: bytes, random: bytes) -> bytes:
        """Encrypt an answer with AES-256-GCM; `random` are 12 bytes, which are put in front."""
        if len(random) != NONCE_BYTES:
            raise Broken(f"a sealed answer takes {NONCE_BYTES} random bytes, not {len(random)}")
        return random + AESGCM(self._sealing_key).encrypt(random, answer, self.claim_key)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt what `seal` made for the same claim. Raises Broken when it was altered."""
        if len(sealed) < NONCE_BYTES + _TAG_BYTES:
            raise Broken("a kept answer is cut off")
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return AESGCM(self._sealing_key).decrypt(nonce, ciphertext, self.claim_key)
        except InvalidTag as error:
            raise Broken("a kept answer was altered, or belongs to another claim") from error


def answer_keys(salt: bytes, code: bytes, *claim: str) -> AnswerKeys:
    """Derive the keys of a claim from its code and from what else makes it the same claim.

    `salt` are 32 secret bytes. `claim` are texts, told apart by their lengths: ("ab", "c") and
    ("a", "bc") are different claims.
    """
    extracted = hmac.digest(salt, code, "sha256")
    # Nothing was checked yet: whatever a claim may hold has keys of its own.
    parts = [part.encode("utf-8", "surrogatepass") for part in claim]
    info = _LABEL + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return AnswerKeys(
        hmac.digest(extracted, info + b"find" + _ONE_BLOCK, "sha256")[:CLAIM_KEY_BYTES],
        hmac.digest(extracted, info + b"seal" + _ONE_BLOCK, "sha256"),
    )
