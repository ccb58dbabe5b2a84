"""One question to an API server: how it is put, how long it may take, and what a refusal means."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import aiohttp

from app.errors import GrantServerError, Unavailable
from app.kube.connection import trouble
from app.kube.refusals import refusal
from app.kube.resources import Object, Resource

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"  # of which JSON is a part

# Objects without their content, as every API server since 1.15 gives them; the whole ones from
# something else, rather than none.
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
METADATA_LIST: Final = METADATA.replace("PartialObjectMetadata", "PartialObjectMetadataList")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, of which objects."""

    method: str
    verb: str  # as a role names it
    resource: Resource
    namespace: str | None
    name: str = ""
    status: bool = False  # of the object, the part of its own
    query: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON
    body: object = field(default=None, repr=False)
    accept: str = JSON
    group_only: bool = False  # not of objects: of what is served in the group of the resource

    @property
    def path(self) -> str:
        """Where it is asked, the names in braces."""
        if self.group_only:
            return self.resource.root.rstrip("/")
        parts = [self.resource.root]
        if self.namespace is not None:
            parts.append("namespaces/{namespace}")
        parts.append(self.resource.plural)
        if self.name:
            parts.append("{name}")
        if self.status:
            parts.append("status")
        return "/".join(parts)

    @property
    def names(self) -> dict[str, str]:
        """What is in the braces."""
        return {"namespace": self.namespace or "", "name": self.name}

    @property
    def doing(self) -> str:
        """Say what is asked, for a person."""
        if self.group_only:
            return f"{self.verb} {self.path}"
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{'/status' if self.status else ''}{where}"

    def refused(self, status: int, body: Object, retry_after: float | None) -> GrantServerError:
        """Translate an answer that is not a success."""
        kind, name = self.resource.kind, self.name
        if self.group_only:
            kind, name = "API", self.path
        elif status == HTTPStatus.GONE:
            kind, name = f"version of {self.resource}", self.query.get("resourceVersion", "")
        elif status == HTTPStatus.NOT_FOUND and not name:
            where = f" in namespace {self.namespace}" if self.namespace else ""
            kind, name = "resource", f"{self.resource}{where}"
        elif self.namespace:
            name = f"{self.namespace}/{name}"
        return refusal(
            status, body, doing=self.doing, kind=kind, name=name, retry_after=retry_after
        )

    def unreadable(self) -> GrantServerError:
        """Say that there is an answer, but none of an API server."""
        return Unavailable(f"{self.doing}: the API server does not answer in JSON")

    def answered_otherwise(self) -> GrantServerError:
        """Say that there is an answer, but to something else than was asked."""
        return Unavailable(f"{self.doing}: the API server answers something else")


@asynccontextmanager
async def within(seconds: float, question: Question) -> AsyncIterator[None]:
    """Bound the time of a step, and put what goes wrong on the way into words: Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unavailable(f"{question.doing}: nothing came for {seconds:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"{question.doing}: {trouble(error)}") from error


def parsed(body: bytes) -> Object | None:
    """Read a JSON object; None when it is none."""
    try:
        found: object = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
