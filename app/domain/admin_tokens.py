"""Admin tokens: what they look like, and what is known of one.

    gsa_<id>_<secret>_<checksum>

id        12 lower-case letters and digits from 2 to 7, by which it is found
secret    40 letters and digits, about 238 bits
checksum  CRC-32 of all before it, in 8 hexadecimal digits

The prefix and the checksum let scanners find tokens in files where none should be, and let a token
that was cut off or mistyped be seen without asking the database. The checksum protects nothing.
"""

import re
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from app.domain.callers import Caller, Kind, Rights
from app.domain.codes import draw
from app.errors import Invalid

PREFIX: Final = "gsa_"
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 40
LONGEST_WINDOW: Final = 10 * 366 * 24 * 3600
"""Seconds after which a token ends at the latest, if it is to end at all."""

_ID_ALPHABET: Final = string.ascii_lowercase + "234567"
_SECRET_ALPHABET: Final = string.ascii_letters + string.digits
_FORM: Final = re.compile(
    rf"(gsa_([a-z2-7]{{{ID_LENGTH}}})_[A-Za-z0-9]{{{SECRET_LENGTH}}}_)([0-9a-f]{{8}})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """A token as somebody shows it; whether it is one of ours is not known yet."""

    id: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminToken:
    """What is known of an admin token; times are UTC seconds, `expires_at` None is never.

    `created_by` is an actor of the audit log; the last use is known to the minute.
    """

    id: str
    name: str
    rights: Rights
    created_at: int
    created_by: str
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    last_used_from: str | None = None

    @property
    def caller(self) -> Caller:
        """Whoever shows it."""
        return Caller(kind=Kind.TOKEN, name=self.name)

    def state(self, now: int) -> str:
        """Say in a word whether it is good: active, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"


def generate(random_bytes: Callable[[int], bytes]) -> Presented:
    """Make a new token."""
    identifier = draw(ID_LENGTH, _ID_ALPHABET, random_bytes)
    body = f"{PREFIX}{identifier}_{draw(SECRET_LENGTH, _SECRET_ALPHABET, random_bytes)}_"
    return Presented(id=identifier, text=body + _checksum(body))


def parse(text: str) -> Presented:
    """Take a token apart.

    Raises Invalid("token", …), which shows nothing of it, when it cannot be one of ours.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise Invalid("token", f"it is no admin token: those begin with {PREFIX}")
    if found[3] != _checksum(found[1]):
        raise Invalid("token", "it was cut off or mistyped: its checksum does not fit")
    return Presented(id=found[2], text=text)


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
