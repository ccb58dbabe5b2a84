"""Cursors: where the next page of a list begins, as a text that only we understand.

A cursor is bound to the list and the order that it came from; in another one it is refused.
"""

import base64
import binascii
import json
from typing import Final

from app.errors import Invalid

Value = int | str
_WORDS: Final = "it is none of ours, or of a list in another order: begin anew without one"


def write(order: str, *values: Value) -> str:
    """Write where the page behind `values` begins, of a list in the order of this name."""
    packed = json.dumps([order, *values], separators=(",", ":"), ensure_ascii=True)
    return base64.urlsafe_b64encode(packed.encode()).rstrip(b"=").decode()


def read(cursor: str, order: str, *kinds: type[Value]) -> tuple[Value, ...]:
    """Read the values of a cursor, which have to be of these kinds, in their order.

    Raises Invalid("cursor", …).
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise Invalid("cursor", _WORDS) from error
    if not isinstance(found, list) or found[:1] != [order] or len(found) != len(kinds) + 1:
        raise Invalid("cursor", _WORDS)
    values = found[1:]
    for value, kind in zip(values, kinds, strict=True):
        if type(value) is not kind or (isinstance(value, int) and abs(value) >= 2**63):
            raise Invalid("cursor", _WORDS)
        if isinstance(value, str) and not value.isprintable():
            raise Invalid("cursor", _WORDS)
    return tuple(values)


def number(cursor: str | None, order: str) -> int:
    """Read a cursor of one number; without a cursor it is 0. Raises Invalid("cursor", …)."""
    if cursor is None:
        return 0
    (value,) = read(cursor, order, int)
    return int(value)


def text(cursor: str | None, order: str) -> str:
    """Read a cursor of one text; without a cursor it is empty. Raises Invalid("cursor", …)."""
    if cursor is None:
        return ""
    (value,) = read(cursor, order, str)
    return str(value)
