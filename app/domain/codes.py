"""The secret of a grant: made, stored as a keyed hash, compared in constant time.

A code is never kept. What is kept is `hmac-sha256:<key id>:<hex>`: the key lives outside the
database, so a stolen database opens no grant even if a user chose a weak code. A slow hash would
cost more than a whole redemption and would be a lever for denial of service.
"""

import hmac
import re
import string
from collections.abc import Callable, Mapping
from typing import Final

from app.errors import Broken, Invalid, Reason, Refused

LENGTH: Final = 24  # characters of a code of ours: about 143 bits, and what Skupper makes
SHORTEST_CHOSEN: Final = 16
LONGEST: Final = 256
_ALPHABET: Final = string.ascii_letters + string.digits
_BYTES: Final = 256  # different ones
_SCHEME: Final = "hmac-sha256"
_DIGEST: Final = re.compile("[0-9a-f]{64}")


def generate(random_bytes: Callable[[int], bytes]) -> str:
    """Make a code of 24 letters and digits, each equally likely."""
    return draw(LENGTH, _ALPHABET, random_bytes)


def draw(length: int, alphabet: str, random_bytes: Callable[[int], bytes]) -> str:
    """Draw letters of an alphabet, each equally likely.

    Bytes beyond the largest multiple of the alphabet's length are thrown away: a plain remainder
    would favour the first letters.
    """
    fair_below = _BYTES - _BYTES % len(alphabet)
    drawn = ""
    while len(drawn) < length:
        fair = (byte for byte in random_bytes(length) if byte < fair_below)
        drawn += "".join(alphabet[byte % len(alphabet)] for byte in fair)
    return drawn[:length]


def check_chosen(code: str) -> None:
    """Raise Invalid("code", …) when a code chosen by a person is too easy to guess or to mistype.

    16 to 256 printable ASCII characters without blanks: it travels raw in a request body and
    by copy and paste.
    """
    allowed = code.isascii() and code.isprintable() and " " not in code
    if not SHORTEST_CHOSEN <= len(code) <= LONGEST or not allowed:
        raise Invalid(
            "code",
            f"expected {SHORTEST_CHOSEN} to {LONGEST} printable ASCII characters without blanks; "
            "leave it out to have one made",
        )


def conceal(code: str, keys: Mapping[str, bytes]) -> str:
    """Turn a code into what is stored, under the first (current) of `keys` (id to 32 bytes)."""
    key_id, key = next(iter(keys.items()))
    return f"{_SCHEME}:{key_id}:{_mac(key, code.encode())}"


def check(presented_code: bytes, stored: str, keys: Mapping[str, bytes]) -> None:
    """Raise Refused(WRONG_CODE) unless the presented bytes are the code that was stored.

    Takes the same time wherever the two differ. Raises Broken when the stored text is not ours
    or was made with a key that is no longer in the key file.
    """
    identifier, expected = _taken_apart(stored)
    if identifier not in keys:
        raise Broken(f"a stored code was made with key {identifier}, which the key file lacks")
    if not hmac.compare_digest(_mac(keys[identifier], presented_code), expected):
        raise Refused(Reason.WRONG_CODE)


def key_id(stored: str) -> str:
    """Tell which key of the key file a stored code was made with. Raises Broken as `check` does."""
    return _taken_apart(stored)[0]


def check_against_nothing(presented_code: bytes, keys: Mapping[str, bytes]) -> None:
    """Do the work of a check, so that a missing grant takes as long as a wrong code."""
    mac = _mac(next(iter(keys.values())), presented_code)
    hmac.compare_digest(mac, mac)


def _taken_apart(stored: str) -> tuple[str, str]:
    scheme, _, rest = stored.partition(":")
    identifier, _, expected = rest.partition(":")
    if scheme != _SCHEME or _DIGEST.fullmatch(expected) is None:
        raise Broken("a stored code has an unknown form")
    return identifier, expected


def _mac(key: bytes, code: bytes) -> str:
    return hmac.digest(key, code, "sha256").hex()
