"""What a redemption brings, in a namespace: one Secret and its Links, owned by the Site there.

They carry a mark that tells whose they are. What is there half made, and is ours, is finished; what
is somebody else's is left as it is and told about. Nothing here talks to the far side.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.crypto import keys
from app.domain.receipts import Resource as Received
from app.domain.yaml_documents import read_all
from app.errors import Conflict, Invalid, Missing, Unavailable
from app.kube import sites
from app.kube.applier import difference
from app.kube.client import Kube
from app.kube.resources import LINKS, SECRETS, SITES, Object, Resource, key_of

MARK: Final = "grantserver/token"
"""The label of what was made for a token; its value tells which: the UID of an AccessToken, or
`mark_of` one that is no resource."""

TLS: Final = "kubernetes.io/tls"
"""The type of the Secret of a link."""

_TRIES: Final = 5  # of a write that somebody else is always faster than
_HEX: Final = 32


def mark_of(url: str) -> str:
    """Name a token that is a file, by the URL that it is redeemed at."""
    return hashlib.sha256(url.encode()).hexdigest()[:_HEX]


async def site_in(kube: Kube, namespace: str) -> Object | None:
    """Find the Site of a namespace, which owns what is made there. Raises as `Kube.list` does."""
    return sites.oldest((await kube.list(SITES, namespace)).items)


async def replace_data(
    kube: Kube, found: Object, data: Mapping[str, bytes], annotations: Mapping[str, str | None]
) -> Object:
    """Put new content into a Secret, if it is still as it was `found`; gives it as it is then.

    Entries and annotations that are not named stay; an annotation that is None is taken away.
    Raises Conflict when the Secret has changed since, Missing when it is gone, and Unavailable.
    """
    key = key_of(found)
    patch = {
        "metadata": {
            "resourceVersion": found["metadata"]["resourceVersion"],
            "annotations": dict(annotations),
        },
        "data": encoded(data),
    }
    return await kube.patch(SECRETS, key.name, key.namespace, patch)


def encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    """Write the content of a Secret as its resource has it."""
    return {name: base64.b64encode(content).decode() for name, content in data.items()}


def content(found: Object, name: str) -> bytes:
    """Read an entry of a Secret as its resource has it; empty where there is none."""
    return base64.b64decode((found.get("data") or {}).get(name) or "")


_OF_RESOURCE: Final = "-"  # is in every UID, by which the token of a resource is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the resources of one token go: into `namespace`, owned by `site`, known by `mark`.

    Everything raises Unavailable as `Kube` does, and Conflict, in the words of the API server, when
    a resource of the name is there and is not ours: of another token or of nobody's that we know,
    of a Site that is gone, or about to be deleted.
    """

    kube: Kube
    namespace: str
    site: Object = field(repr=False)
    mark: str

    async def secret(self, name: str) -> Object | None:
        """Find our Secret of this name; None when there is none at all.

        One without a certificate, of an earlier token of the name, is ours to take.
        """
        return await self._ours(SECRETS, name)

    async def link(self, name: str) -> Object | None:
        """Find our Link of this name; None when there is none at all."""
        return await self._ours(LINKS, name)

    async def check(self, name: str) -> None:
        """See to it that a Secret and a Link of this name could be put here."""
        await self.secret(name)
        await self.link(name)

    async def put_secret(
        self, name: str, data: Mapping[str, bytes], annotations: Mapping[str, str]
    ) -> Object:
        """Have our Secret with this content and no other; gives what is there then."""
        wanted = {
            "metadata": {"name": name, "annotations": annotations},
            "type": TLS,
            "data": encoded(data),
        }
        return await self._put(SECRETS, wanted)

    async def keep_key(self, name: str, key_pem: bytes) -> Object:
        """Have our Secret with a key to ask with: `key_pem`, unless one is there for this token.

        Gives the Secret as it is then, with the key that counts. Of two that redeem one token, also
        in two processes, both ask with the key of the one that was first, and get the same answer.
        """
        data = encoded({"tls.crt": b"", "tls.key": key_pem})
        wanted = self._marked({"metadata": {"name": name}, "type": TLS, "data": data})
        for _ in range(_TRIES):
            found = await self.secret(name)
            try:
                if found is None:
                    return await self.kube.create(SECRETS, wanted, self.namespace)
                if self._has_usable_key(found):
                    return found
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                change = _change(found, wanted)
                change["metadata"] = change.get("metadata", {}) | version
                return await self.kube.patch(SECRETS, name, self.namespace, change)
            except Conflict:
                continue  # somebody was faster, whose key counts if it is ours
        raise _changing(SECRETS, name, self.namespace)

    async def drop_key(self, name: str, key_pem: bytes) -> None:
        """Delete our Secret if there is nothing in it but this key, with which no answer came."""
        found = await self.secret(name)
        if (
            found is None
            or content(found, "tls.crt")
            or content(found, "tls.key") != key_pem
            or found["metadata"]["labels"][MARK] != self.mark
        ):
            return
        seen = found["metadata"]
        await self.kube.delete(
            SECRETS, name, self.namespace, uid=seen["uid"], version=seen["resourceVersion"]
        )

    async def put(self, wanted: Object) -> Object:
        """Have a Secret or a Link as it came with an answer; gives what is there."""
        return await self._put(SECRETS if wanted.get("kind") == SECRETS.kind else LINKS, wanted)

    async def store(self, received: Sequence[Received]) -> Sequence[str]:
        """Have everything that came with an answer here: the Secret first. Gives what it is."""
        for one in received:
            await self.put(document(one))
        return [f"{one.kind} {self.namespace}/{one.name}" for one in received]

    async def _ours(self, resource: Resource, name: str) -> Object | None:
        try:
            found = await self.kube.get(resource, name, self.namespace)
        except Missing:
            return None
        if not self._is_ours(found):
            raise Conflict(f'{resource} "{name}" already exists')
        return found

    def _is_ours(self, found: Object) -> bool:
        metadata = found["metadata"]
        owners = [one.get("uid") for one in metadata.get("ownerReferences") or ()]
        if metadata.get("deletionTimestamp") or self.site["metadata"]["uid"] not in owners:
            return False
        mark = (metadata.get("labels") or {}).get(MARK)
        begun = found["kind"] == SECRETS.kind and not content(found, "tls.crt")
        return mark == self.mark or (mark is not None and begun and self._may_take_from(mark))

    def _may_take_from(self, mark: str) -> bool:
        """Tell whether what another token has begun is left for good.

        It is where both are resources, since one of a name is there at a time. A command may be at
        work with a token at this moment, or come back for an answer that was lost: nobody takes
        from it.
        """
        return _OF_RESOURCE in mark and _OF_RESOURCE in self.mark

    def _has_usable_key(self, found: Object) -> bool:
        """Tell whether our Secret has a key to go on with; one without is made anew.

        With what is no key nobody can have asked, so that nothing is lost with it. But where there
        is a certificate as well, somebody has changed what a link may stand on: raises Invalid.
        """
        kept = content(found, "tls.key")
        if found["metadata"]["labels"][MARK] != self.mark or not kept:
            return False
        try:
            keys.load_private_key(kept)
        except Invalid as error:
            if not content(found, "tls.crt"):
                return False
            name = found["metadata"]["name"]
            what = "has a tls.key that is no private key; delete it, and it is made anew"
            raise Invalid("secret", f'{SECRETS} "{name}" {what}') from error
        return True

    async def _put(self, resource: Resource, wanted: Object) -> Object:
        wanted = self._marked(wanted)
        name = wanted["metadata"]["name"]
        for _ in range(_TRIES):
            found = await self._ours(resource, name)
            try:
                if found is None:
                    return await self.kube.create(resource, wanted, self.namespace)
                change = _change(found, wanted)
                if not change:
                    return found
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                change["metadata"] = change.get("metadata", {}) | version
                return await self.kube.patch(resource, name, self.namespace, change)
            except Conflict:
                continue  # somebody was faster, and it may be ours now
        raise _changing(resource, name, self.namespace)

    def _marked(self, wanted: Object) -> Object:
        site = self.site["metadata"]
        owner = {
            "apiVersion": SITES.api_version,
            "kind": SITES.kind,
            "name": site["name"],
            "uid": site["uid"],
        }
        given = wanted["metadata"]
        metadata = {
            "name": given["name"],
            "labels": {**(given.get("labels") or {}), MARK: self.mark},
            "annotations": dict(given.get("annotations") or {}),
            "ownerReferences": [owner],
        }
        return {part: one for part, one in wanted.items() if part != "status"} | {
            "metadata": metadata
        }


def _changing(resource: Resource, name: str, namespace: str) -> Unavailable:
    return Unavailable(f'{resource} "{name}" in namespace {namespace} changes all the time')


def document(received: Received) -> Object:
    """Read a received resource, which was checked when it came, as Kubernetes has it."""
    (found,) = read_all("answer", received.text)
    made: Object = found
    return made


def _change(found: Object, wanted: Object) -> Object:
    """Give the merge patch that makes `found` what is wanted; labels of others may stay."""
    parts: dict[str, Any] = {part: wanted[part] for part in ("data", "spec") if part in wanted}
    change = difference(found, parts)
    names = ("labels", "annotations")
    before = {name: found["metadata"].get(name) or {} for name in names}
    metadata = {
        name: told for name in names if (told := difference(before[name], wanted["metadata"][name]))
    }
    return change | ({"metadata": metadata} if metadata else {})
