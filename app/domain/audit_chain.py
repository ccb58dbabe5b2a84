"""The audit log as a chain: each row's link holds the hash of all rows before it.

A link is SHA-256 over a tag, the link before, the position and every column of the row, each with
its length before it; so no two different rows, or orders of rows, have the same links, but for a
collision of SHA-256. Positions count from 1 without gaps. A head is a link that was signed: who can
write in the database alone cannot make one. Whoever walks the chain is told the first row that is
not as it was, not only that something is wrong.

    link(n) = SHA-256("grantserver audit link 1" || link(n - 1) || n || row),  link(0) = 32 zeros
    row     = for each of id, at, act, actor, target, details: length || octets in UTF-8
    head    = Ed25519 over "grantserver audit head 1" || kind || n || at || highest id || link(n)

Numbers are 8 octets, the first the highest. The formats are fixed: other ones get other tags.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

BEGINNING: Final = bytes(32)
"""What the first link has as the one before it."""

_LINK_TAG: Final = b"grantserver audit link 1"
_HEAD_TAG: Final = b"grantserver audit head 1"
_NUMBER: Final = struct.Struct(">q")


class HeadKind(StrEnum):
    """Why a link was signed. Stored and signed: values are never changed."""

    SEALED = "sealed"  # the newest link at that time
    PRUNED = "pruned"  # housekeeping has deleted all rows up to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the audit log as it is stored; `details` is its text."""

    id: int
    at: int
    act: str
    actor: str
    target: str
    details: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The place of a row in the chain."""

    position: int
    audit_id: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A signed link. `highest_id` is the highest number of a row up to it."""

    kind: HeadKind
    position: int
    at: int
    highest_id: int
    hash: bytes
    key_id: str = ""
    signature: bytes = b""

    def message(self) -> bytes:
        """What is signed."""
        return b"".join(
            (
                _HEAD_TAG,
                _sized(self.kind.value),
                _NUMBER.pack(self.position),
                _NUMBER.pack(self.at),
                _NUMBER.pack(self.highest_id),
                self.hash,
            )
        )


def next_hash(previous: bytes, position: int, row: Row) -> bytes:
    """Give the link of a row behind the `previous` one."""
    parts = (
        _LINK_TAG,
        previous,
        _NUMBER.pack(position),
        _sized(str(row.id)),
        _sized(str(row.at)),
        _sized(row.act),
        _sized(row.actor),
        _sized(row.target),
        _sized(row.details),
    )
    return hashlib.sha256(b"".join(parts)).digest()


def extend(previous: bytes, position: int, rows: Iterable[Row]) -> list[Link]:
    """Give the links of rows that follow the link `previous`, which is at `position`."""
    links = []
    for row in rows:
        position += 1
        previous = next_hash(previous, position, row)
        links.append(Link(position=position, audit_id=row.id, hash=previous))
    return links


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first place where the log is not as it was written: what is wrong there.

    `audit_id` is the number of the row, 0 where it is a head and no row.
    """

    position: int
    audit_id: int
    why: str


@dataclass(slots=True, kw_only=True)
class Walk:
    """Goes along the chain, from the beginning or behind what was pruned."""

    position: int = 0
    hash: bytes = field(default=BEGINNING)

    def step(self, link: Link, row: Row | None) -> Fault | None:
        """Take the next link and its row (None where there is none); tell what is wrong."""
        expected = self.position + 1
        if link.position != expected:
            return Fault(
                position=expected,
                audit_id=0,
                why=f"its link is missing: the next one there is has position {link.position}",
            )
        if row is None:
            return Fault(position=expected, audit_id=link.audit_id, why="the row is missing")
        found = next_hash(self.hash, expected, row)
        if found != link.hash:
            return Fault(
                position=expected,
                audit_id=link.audit_id,
                why="the row, or its link, is not what it was when it was sealed",
            )
        self.position, self.hash = expected, found
        return None

    def against(self, head: Head) -> Fault | None:
        """Compare with a head of this position, whose signature was checked."""
        if head.hash == self.hash:
            return None
        return Fault(
            position=head.position, audit_id=0, why="the signed head is of another chain of rows"
        )


def _sized(text: str) -> bytes:
    octets = text.encode("utf-8", "surrogatepass")
    return _NUMBER.pack(len(octets)) + octets
