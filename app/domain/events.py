"""Events: what of the audit log others may want to be told of, and the form in which they are.

An event is an entry of the audit log that has its place in the chain. Its position is where whoever
follows goes on, and no secret is in it because there is none in the log.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.domain.audit import Act, Entry
from app.domain.times import rfc3339
from app.errors import Invalid

_MARK_LETTERS: Final = 16
_ID: Final = re.compile(rf"(0|[1-9][0-9]{{0,17}})-[0-9a-f]{{{_MARK_LETTERS}}}")
_TIMES: Final = re.compile(r"not_(?:before|after)|\w+_at")
_GRANT: Final = "grant/"
_SITE: Final = "site:"
_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class EventType(StrEnum):
    """What happened, to those who are told. Stored and sent: values are never changed."""

    REDEEMED = "redeemed"
    REFUSED = "refused"
    THEFT = "theft"
    EXPIRING_CERTIFICATE = "expiring_certificate"


ACTS: Final[Mapping[str, EventType]] = MappingProxyType(
    {
        Act.GRANT_REDEEMED.value: EventType.REDEEMED,
        Act.GRANT_REFUSED.value: EventType.REFUSED,
        Act.GRANT_THEFT_SUSPECTED.value: EventType.THEFT,
        Act.CERTIFICATE_EXPIRING.value: EventType.EXPIRING_CERTIFICATE,
    }
)
"""The acts of the audit log that are events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `position` is its place in the chain, `mark` the beginning of its link there.

    `at` are UTC seconds. `grant_name` and `site` are None where the grant is no more; `facts` are
    those of the audit entry, in camelCase, times in RFC 3339.
    """

    position: int
    mark: str
    type: EventType
    at: int
    grant_id: str
    grant_name: str | None
    site: str | None
    facts: Mapping[str, str | int | None]

    @property
    def id(self) -> str:
        """Its name, the same whenever it is told; no other event has it.

        Where a database was set back to a copy, positions are given again, but not with this mark.
        """
        return f"{self.position}-{self.mark}"

    def document(self) -> dict[str, object]:
        """Lay it out as it is sent."""
        return {
            "id": self.id,
            "type": self.type.value,
            "at": rfc3339(self.at),
            "grant": {"id": self.grant_id, "name": self.grant_name, "site": self.site},
            **self.facts,
        }

    def body(self) -> str:
        """Write it as JSON, on one line."""
        return _encode(self.document())


def read(
    entry: Entry, *, position: int, link: bytes, grant_name: str | None, site: str | None
) -> Event:
    """Make an event of an entry of the audit log, whose act is one of `ACTS`."""
    facts = {_camel(name): _told(name, value) for name, value in entry.details.items()}
    if entry.actor.startswith(_SITE):
        facts = {"subject": entry.actor.removeprefix(_SITE), **facts}
    return Event(
        position=position,
        mark=link.hex()[:_MARK_LETTERS],
        type=ACTS[entry.act],
        at=entry.at,
        grant_id=grant_id(entry.target),
        grant_name=grant_name,
        site=site,
        facts=facts,
    )


def grant_id(target: str) -> str:
    """Take the id of a grant out of the target of an audit entry."""
    return target.removeprefix(_GRANT)


def position_of(event_id: str) -> int:
    """Read the position out of an event's id, such as a `Last-Event-ID` holds.

    Raises Invalid("lastEventId", …) for what is no id of an event.
    """
    found = _ID.fullmatch(event_id)
    if found is None:
        raise Invalid("lastEventId", "it is not the id of an event, as events carry it in `id`")
    return int(found[1])


def _told(name: str, value: str | int | None) -> str | int | None:
    return rfc3339(value) if isinstance(value, int) and _TIMES.fullmatch(name) else value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
