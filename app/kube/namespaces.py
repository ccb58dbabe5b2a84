"""The namespaces of a cluster: their Sites and issuer Secrets, as the database has them.

Secrets are watched by name and version only. What an issuer Secret holds is read when it is needed
and has changed, sealed in the database, and forgotten.
"""

import asyncio
import base64
import binascii
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.errors import Conflict, Missing, Unavailable
from app.kube.client import Kube
from app.kube.informer import Informer
from app.kube.resources import SECRETS, Key, Object
from app.kube.sites import DEFAULT_ISSUER, Site, active
from app.kube.threads import in_thread
from app.services.cluster import Cluster, IssuerSecret, Signer

NOTHING: Final = Signer()
"""Stands for a Secret that does not exist."""

KEYS_KEPT_SECONDS: Final = 30.0
"""After which a key that nobody asks for is forgotten: longer than any claim takes."""

_AGAIN_SECONDS: Final = 10.0
"""Between two looks at a name that is taken: nobody tells us when it is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace as it was last brought into the database.

    `signers` are those of the issuers that somebody asks for, by the names of their Secrets.
    `problem` is what keeps it out of the database.
    """

    site: Site | None
    signers: Mapping[str, Signer]
    problem: str | None = None

    @property
    def issuer(self) -> str:
        """The name of the issuer Secret of grants that ask for no other."""
        return DEFAULT_ISSUER if self.site is None else self.site.issuer


def kept_of_secret(found: Object) -> Object:
    """Give the part of a Secret that an informer keeps: none of its content."""
    names = ("namespace", "name", "uid", "resourceVersion")
    return {"metadata": {name: found["metadata"][name] for name in names}}


class Namespaces:
    """Brings namespaces into the database, and remembers how they stand there.

    `sites` and `secrets` are informers. Used from one event loop, by one worker for a namespace.
    """

    def __init__(self, kube: Kube, cluster: Cluster, sites: Informer, secrets: Informer) -> None:
        self._kube = kube
        self._cluster = cluster
        self._sites = sites
        self._secrets = secrets
        self._known: dict[str, Namespace] = {}
        self._site_keys: defaultdict[str, set[Key]] = defaultdict(set)
        self._read: dict[Key, tuple[tuple[str, str], Signer]] = {}
        self._keys = asyncio.Lock()  # held while one is found, and while some are forgotten
        self._found: dict[str, set[int]] = {}  # authorities, by namespaces that are being settled
        self._asking: dict[str, frozenset[str]] = {}  # issuers of those that are being settled
        self._asked_for: dict[int, float] = {}  # until when, by authorities; not those of now

    def get(self, namespace: str) -> Namespace | None:
        """A namespace as it was last settled; None before that."""
        return self._known.get(namespace)

    def forget(self, namespace: str) -> None:
        """Have a namespace settled from nothing: the database does not have it as we remember."""
        self._know(namespace, None)
        self._read = {key: read for key, read in self._read.items() if key.namespace != namespace}

    def forget_all(self) -> None:
        """Have every namespace settled from nothing."""
        for namespace in list(self._known):
            self._know(namespace, None)
        self._read.clear()

    def note_site(self, key: Key) -> None:
        """Remember where there is a Site, or was."""
        self._site_keys[key.namespace].add(key)

    def asks_for(self, namespace: str, secret: str) -> bool:
        """Tell whether a Secret is an issuer that somebody in its namespace asks for.

        While the namespace is being settled too: what was read of it may be of before the change.
        """
        known = self._known.get(namespace)
        asked = known is not None and (secret == known.issuer or secret in known.signers)
        return asked or secret in self._asking.get(namespace, ())

    async def settle(self, namespace: str, issuers: frozenset[str], *, wanted: bool) -> bool:
        """Bring a namespace into the database; tell whether it stands otherwise than before.

        `issuers` are the Secrets that its AccessGrants name; `wanted` says whether it has any.
        Raises Unavailable when database or API server do not serve us.
        """
        self._found[namespace] = set()
        try:
            return await self._settle(namespace, issuers, wanted=wanted)
        finally:
            del self._found[namespace]
            self._asking.pop(namespace, None)

    async def _settle(self, namespace: str, issuers: frozenset[str], *, wanted: bool) -> bool:
        site = self._site(namespace)
        if site is None and not wanted:
            await in_thread(self._cluster.remove_namespace, namespace)
            return self._know(namespace, None)
        default = DEFAULT_ISSUER if site is None else site.issuer
        self._asking[namespace] = asked = issuers | {default}
        signers = {name: await self._signer(Key(namespace, name)) for name in asked}
        problem = None
        try:
            await in_thread(
                self._cluster.put_namespace,
                namespace,
                endpoints=() if site is None else site.linkable,
                authority_id=signers[default].authority_id,
            )
        except Conflict as error:
            problem = str(error)
        except Missing as error:
            self.forget(namespace)
            raise Unavailable(f"the database is not the one it was: {error}") from error
        return self._know(namespace, Namespace(site=site, signers=signers, problem=problem))

    def _know(self, namespace: str, now: Namespace | None) -> bool:
        """Remember how a namespace stands; tell whether it stood otherwise before."""
        before = self._known.pop(namespace, None)
        time = asyncio.get_running_loop().time()
        self._asked_for |= dict.fromkeys(_authorities(before), time)
        if now is not None:
            self._known[namespace] = now
        return now != before

    async def forget_keys(self) -> float | None:
        """Have the keys of Secrets forgotten that nobody has asked for in a while.

        Not at once: a claim that has just come may still be about to be signed with one. Gives
        the seconds until there may be more to forget. Before every namespace was settled once
        nobody knows what is asked for. Raises Unavailable.
        """
        async with self._keys:
            now = asyncio.get_running_loop().time()
            asked_for = {one for known in self._known.values() for one in _authorities(known)}
            self._asked_for = {
                one: last
                for one, last in self._asked_for.items()
                if one not in asked_for and now < last + KEYS_KEPT_SECONDS
            }
            # Those that were found are about to be used.
            kept = frozenset(asked_for.union(self._asked_for, *self._found.values()))
            await in_thread(self._cluster.forget_unused_keys, kept)
            self._read = {
                key: read for key, read in self._read.items() if read[1].authority_id in kept
            }
            soonest = min(self._asked_for.values(), default=None)
            return None if soonest is None else soonest + KEYS_KEPT_SECONDS - now

    def soonest(self, namespace: str, now: int) -> float | None:
        """Seconds until an issuer of a namespace begins or ceases to be valid.

        A namespace with a problem is looked at again by then as well.
        """
        known = self._known.get(namespace)
        times = [
            float(moment - now)
            for signer in (() if known is None else known.signers.values())
            for moment in (signer.not_before, signer.not_after + 1)
            if signer.authority_id is not None and moment > now
        ]
        if known is not None and known.problem is not None:
            times.append(_AGAIN_SECONDS)
        return min(times, default=None)

    def _site(self, namespace: str) -> Site | None:
        keys = self._site_keys.get(namespace, set())
        found = {key: self._sites.get(key) for key in keys}
        keys.difference_update([key for key, one in found.items() if one is None])
        return active(one for one in found.values() if one is not None)

    async def _signer(self, key: Key) -> Signer:
        """Find the authority of a Secret, which is read when it was not read before."""
        seen = self._secrets.get(key)
        if seen is None:
            self._read.pop(key, None)
            return NOTHING
        async with self._keys:
            read = self._read.get(key)
            if read is not None and read[0] == _version(seen):
                return self._about_to_use(key, read[1])
        try:
            found = await self._kube.get(SECRETS, key.name, key.namespace)  # others do not wait
        except Missing:
            return NOTHING
        held = _issuer_secret(found)
        async with self._keys:
            if isinstance(held, str):
                signer = Signer(problem=held)
            else:
                signer = await in_thread(self._cluster.signer, key.namespace, key.name, held)
            self._read[key] = _version(found), signer
            return self._about_to_use(key, signer)

    def _about_to_use(self, key: Key, signer: Signer) -> Signer:
        """Have no key forgotten between its finding and its use."""
        if signer.authority_id is not None:
            self._found[key.namespace].add(signer.authority_id)
        return signer


def _version(found: Object) -> tuple[str, str]:
    return found["metadata"]["uid"], found["metadata"]["resourceVersion"]


def _authorities(namespace: Namespace | None) -> frozenset[int]:
    """Those that stand for the issuers that somebody in a namespace asks for."""
    signers = () if namespace is None else namespace.signers.values()
    return frozenset(one.authority_id for one in signers if one.authority_id is not None)


def _issuer_secret(found: Object) -> IssuerSecret | str:
    """Read the CA of a Secret, or say what is wrong with it."""
    data = found.get("data") or {}
    parts: dict[str, bytes] = {}
    for name in ("tls.crt", "tls.key"):
        if not data.get(name):
            return f"it has no {name}"
        try:
            parts[name] = base64.b64decode(data[name], validate=True)
        except (binascii.Error, ValueError, TypeError):
            return f"{name} is not base64"
    return IssuerSecret(certificate_pem=parts["tls.crt"], key_pem=parts["tls.key"])
