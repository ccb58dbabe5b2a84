"""Status writes: one merge patch, to the version that was looked at, and only when it changes.

A write that changes nothing would be an event for everybody who watches, ourselves among them. What
a status ought to be is decided elsewhere; here it is compared, dressed as conditions, and sent.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.times import rfc3339
from app.kube.client import Kube
from app.kube.resources import Object, Resource, key_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is to be said under one heading; `reason` is one word, `message` is for people."""

    type: str
    status: bool
    reason: str
    message: str


async def write_status(
    kube: Kube,
    resource: Resource,
    observed: Object,
    wanted: Mapping[str, Any],
    conditions: Sequence[Condition] = (),
    *,
    now: int,
    only_along: Collection[str] = (),
) -> Object | None:
    """Write what differs from `observed`, an object as it was read; give it as it is then.

    None when nothing has to be written. Fields that are not in `wanted` are left alone, and those
    that are None there are taken away; the fields `only_along` are written together with others,
    never on their own: somebody else may want them otherwise, and neither would ever give in.
    `now` is in UTC seconds. Raises Conflict when the object has changed since it was read, Missing
    when it is gone, and what `Kube.patch` does.
    """
    metadata = observed["metadata"]
    present = observed.get("status") or {}
    if conditions:
        generation = metadata.get("generation", 0)
        told = dressed(present.get("conditions") or (), conditions, generation=generation, now=now)
        wanted = {**wanted, "conditions": told}
    status = difference(present, wanted)
    if not status.keys() - set(only_along):
        return None
    key = key_of(observed)
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
    return await kube.patch(resource, key.name, key.namespace, patch, status=True)


def dressed(
    present: Sequence[Object], wanted: Sequence[Condition], *, generation: int, now: int
) -> list[Object]:
    """Give the whole list of conditions as it is to be: `present` with those that are wanted.

    The list is atomic to the API server, so conditions of others are in it as well. A condition
    keeps its time as long as its status stays the same.
    """
    by_type = {one.get("type"): one for one in present}
    for condition in wanted:
        before = by_type.get(condition.type, {})
        status = "True" if condition.status else "False"
        since = before.get("lastTransitionTime") if before.get("status") == status else None
        by_type[condition.type] = {
            "type": condition.type,
            "status": status,
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": generation,
            "lastTransitionTime": since or rfc3339(now),
        }
    return list(by_type.values())


def difference(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> Object:
    """Give the merge patch (RFC 7396) that brings what is `wanted` about; empty when it is so.

    What is not in `wanted` stays; within a field of it, it does not.
    """
    patch: Object = {}
    for name, value in wanted.items():
        before = present.get(name)
        if before == value:
            continue
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = difference(before, dict.fromkeys(before) | dict(value))  # noqa: PLW2901
            if not value:
                continue
        patch[name] = value
    return patch
