"""The audit log as a file of JSON lines, which can be verified without the server and its database.

The first line says what it is: the public keys, up to where rows were pruned, the newest head. Each
further one is an entry with its link, or a head. Keys are not trusted for being in the file: who
verifies has them from elsewhere.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from app.crypto.audit_heads import HeadKeys
from app.domain.audit_chain import Head, HeadKind, Link, Row
from app.errors import Invalid
from app.services.audit_chain import Chain, Verdict, walk
from app.store import audit_chain as rows

FORMAT: Final = "grantserver audit 1"
_FIELD: Final = "file"
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def export(chain: Chain) -> Iterator[str]:
    """Write what is sealed of one state of the log, line by line. Raises Unavailable."""
    with chain.database.reading("examining") as connection:
        anchor = rows.pruned_to(connection)
        after = 0 if anchor is None else anchor.position
        heads = rows.heads(connection, after)
        newest = heads[-1] if heads else anchor
        yield _encode(
            {
                "format": FORMAT,
                "publicKeys": chain.keys.written(),
                "pruned": None if anchor is None else _written(anchor),
                "newest": None if newest is None else _written(newest),
            }
        )
        ahead = iter(heads)
        head = next(ahead, None)
        for link, row in rows.links(connection, after):
            yield _encode(_entry(link, row))
            while head is not None and head.position <= link.position:
                yield _encode({"head": _written(head)})
                head = next(ahead, None)


def verify(
    read: Callable[[], Iterable[str]],
    keys: HeadKeys,
    expected: Sequence[tuple[int, bytes]] = (),
) -> Verdict:
    """Walk what was exported; `read` gives its lines, and is called twice.

    Raises Invalid("file", …) for what is no export.
    """
    anchor, newest, heads = _heads(read())
    if newest is not None and newest not in heads and newest != anchor:
        heads.append(newest)  # of an end that was cut off
    return walk(keys, anchor=anchor, links=_links(read()), heads=heads, expected=expected)


def _heads(lines: Iterable[str]) -> tuple[Head | None, Head | None, list[Head]]:
    anchor = newest = None
    heads: list[Head] = []
    number = 0
    for number, line in enumerate(lines, start=1):
        read = _parsed(number, line)
        if number == 1:
            if read.get("format") != FORMAT:
                raise Invalid(_FIELD, f'line 1: expected an export, "format": "{FORMAT}"')
            anchor, newest = (
                None if read.get(name) is None else _head(number, read[name])
                for name in ("pruned", "newest")
            )
        elif "head" in read:
            heads.append(_head(number, read["head"]))
    if not number:
        raise Invalid(_FIELD, "it is empty")
    return anchor, newest, heads


def _links(lines: Iterable[str]) -> Iterator[tuple[Link, Row | None]]:
    for number, line in enumerate(lines, start=1):
        read = _parsed(number, line)
        if number == 1 or "head" in read:
            continue
        try:
            details = read["details"]
            link = Link(
                position=_number(read["position"]),
                audit_id=_number(read["id"]),
                hash=bytes.fromhex(read["link"]),
            )
            row = None
            if details is not None:
                row = Row(
                    id=link.audit_id,
                    at=_number(read["at"]),
                    act=str(read["act"]),
                    actor=str(read["actor"]),
                    target=str(read["target"]),
                    details=details if isinstance(details, str) else _encode(details),
                )
        except (KeyError, TypeError, ValueError) as error:
            raise Invalid(_FIELD, f"line {number}: it is no entry of an export") from error
        yield link, row


def _entry(link: Link, row: Row | None) -> Mapping[str, Any]:
    """Write an entry; details as they are in the database, where they are not as we write them."""
    place = {"position": link.position, "id": link.audit_id, "link": link.hash.hex()}
    if row is None:
        return place | {"at": 0, "act": "", "actor": "", "target": "", "details": None}
    details: Any = row.details
    try:
        parsed = json.loads(row.details)
        if isinstance(parsed, dict) and _encode(parsed) == row.details:
            details = parsed
    except ValueError:
        pass
    return place | {
        "at": row.at,
        "act": row.act,
        "actor": row.actor,
        "target": row.target,
        "details": details,
    }


def _written(head: Head) -> Mapping[str, Any]:
    return {
        "kind": head.kind.value,
        "position": head.position,
        "at": head.at,
        "highestId": head.highest_id,
        "link": head.hash.hex(),
        "keyId": head.key_id,
        "signature": head.signature.hex(),
    }


def _head(number: int, read: Any) -> Head:
    try:
        return Head(
            kind=HeadKind(read["kind"]),
            position=_number(read["position"]),
            at=_number(read["at"]),
            highest_id=_number(read["highestId"]),
            hash=bytes.fromhex(read["link"]),
            key_id=str(read["keyId"]),
            signature=bytes.fromhex(read["signature"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(_FIELD, f"line {number}: it is no head of an export") from error


def _number(read: Any) -> int:
    if type(read) is not int or not -(2**63) <= read < 2**63:
        raise ValueError(read)
    return read


def _parsed(number: int, line: str) -> dict[str, Any]:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Invalid(_FIELD, f"line {number}: it is not JSON") from error
    if not isinstance(read, dict):
        raise Invalid(_FIELD, f"line {number}: it is no JSON object")
    return read
