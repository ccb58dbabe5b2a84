"""The AccessToken reconciler: a token becomes a Secret and Links, once, and its status says how.

The order is what makes it safe to stop anywhere: the Secret is there, with its key, before the code
is posted, and all that was answered is put into it at once. Whoever goes on finds either the key,
with which the same claim gets the same answer again, or the answer.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from math import inf
from typing import Final

from structlog.stdlib import BoundLogger

from app import outbound
from app.crypto import chains, keys, requests
from app.domain.certificates import KeyType
from app.domain.link_secrets import server_of
from app.domain.receipts import Own, read_receipt
from app.errors import Conflict, GrantServerError, Invalid, Missing, Unavailable
from app.kube import token_standing
from app.kube.applier import write_status
from app.kube.backoff import Backoff, chance
from app.kube.client import Kube
from app.kube.informer import Informer
from app.kube.links import Place, content, document
from app.kube.recorder import Importance, Recorder
from app.kube.resources import ACCESS_TOKENS, SECRETS, Key, Object, key_of
from app.kube.sites import oldest
from app.kube.threads import in_thread
from app.kube.token_standing import OK
from app.metrics import Metrics, Redeeming

ANSWERED: Final = "grantserver/links"
"""The annotation of the Secret with the Links that came with it, as JSON: they are made from it.

Also the URL that it came from: a token whose URL was changed since asks for something else."""

_BACKOFF: Final = Backoff(base_seconds=2.0, most_seconds=600.0)
_BACKOFF_AT_HOME: Final = Backoff(base_seconds=2.0, most_seconds=60.0)
"""For what is in the way here: to look again costs the far side nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """How an attempt to redeem a token as it is came out, and when there may be another."""

    token: tuple[str, int]  # its UID and generation
    message: str
    failures: int = 0
    due: float = inf


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the spec of a token asks for."""

    name: str
    subject: str
    url: str
    code: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)
    cost: int


class AccessTokens:
    """Reconciles AccessTokens, of which `tokens` is the informer; `sites` is that of the Sites.

    `monotonic` gives seconds that never jump. Used from one event loop, by one worker for a token.
    """

    def __init__(
        self,
        kube: Kube,
        tokens: Informer,
        sites: Informer,
        recorder: Recorder,
        *,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        log: BoundLogger,
        metrics: Metrics | None = None,
    ) -> None:
        self._kube = kube
        self._metrics = metrics
        self._waiting: set[Key] = set()
        self._tokens = tokens
        self._sites = sites
        self._recorder = recorder
        self._clock = clock
        self._monotonic = monotonic
        self._random_bytes = random_bytes
        self._log = log
        self._site_keys: defaultdict[str, set[Key]] = defaultdict(set)
        self._tried: dict[Key, _Tried] = {}
        self._answers: dict[Key, Object] = {}  # the Secrets of answers that are not stored yet

    def note_site(self, key: Key) -> None:
        """Remember where there is a Site, or was."""
        self._site_keys[key.namespace].add(key)

    def of(self, namespace: str) -> Sequence[Key]:
        """The AccessTokens of a namespace."""
        return [key for key in self._tokens if key.namespace == namespace]

    async def reconcile(self, key: Key) -> float | None:
        """Bring one AccessToken up to date; gives the seconds until it is to be tried again.

        Raises Unavailable when the API server does not serve us, Conflict when the resource has
        changed meanwhile: then it is to be done again, and what was redeemed stays so.
        """
        try:
            return await self._reconcile(key)
        finally:
            self._count_waiting(key)

    async def _reconcile(self, key: Key) -> float | None:
        found = self._tokens.get(key)
        if found is None or found["metadata"].get("deletionTimestamp"):
            self._forget(key)
            return None
        site = self._site(key.namespace)
        status = found.get("status") or {}
        if status.get("redeemed") is True:
            self._forget(key)
            if await self._is_for_a_deleted_site(found, site):
                await self._show(found, token_standing.DELETED_SITE, redeemed=True)
            return None
        if site is None:
            return None  # nobody has asked for anything yet, and nothing is said
        return await self._try(key, found, site)

    async def _try(self, key: Key, found: Object, site: Object) -> float | None:
        metadata = found["metadata"]
        token = metadata["uid"], metadata.get("generation", 0)
        tried = self._tried.get(key)
        if tried is None or tried.token != token:
            if _was_refused(found):
                return None  # by the status that another replica has left
            self._forget(key)
            tried = self._tried[key] = _Tried(token=token, message="", due=0.0)
            self._count_waiting(key)
        if self._monotonic() >= tried.due:
            place = Place(kube=self._kube, namespace=key.namespace, site=site, mark=metadata["uid"])
            message = await self._redeem(key, _read(found, site), place)
            if message is None:
                return 0.0  # for the one that has taken its place
            if self._metrics is not None:
                self._metrics.token_tried(_outcome(message))
            tried = self._tried[key] = self._after(tried, message)
        # Also what an earlier turn has found out, and could not write.
        await self._show(found, tried.message, redeemed=tried.message == OK)
        return None if tried.due == inf else max(0.0, tried.due - self._monotonic())

    def _count_waiting(self, key: Key) -> None:
        """Tell how many are waiting, now that something is new about one."""
        tried = self._tried.get(key)
        if tried is None or tried.due == inf:
            self._waiting.discard(key)
        else:
            self._waiting.add(key)
        if self._metrics is not None:
            self._metrics.tokens_waiting(len(self._waiting))

    def _forget(self, key: Key) -> None:
        self._tried.pop(key, None)
        self._answers.pop(key, None)

    def _after(self, tried: _Tried, message: str) -> _Tried:
        """Tell when there may be another attempt, after one that came out so."""
        if token_standing.is_final(message):
            return replace(tried, message=message, due=inf)
        failures = tried.failures + 1
        backoff = _BACKOFF if token_standing.is_of_the_far_side(message) else _BACKOFF_AT_HOME
        pause = backoff.delay(failures, chance(self._random_bytes))
        due = self._monotonic() + pause
        return replace(tried, message=message, failures=failures, due=due)

    async def _redeem(self, key: Key, wanted: _Wanted, place: Place) -> str | None:
        """Do what is left to be done for a token, and say how that went.

        None when another token of the name has taken its place meanwhile: then nothing is stored
        that would be in the way of that.
        """
        try:
            outbound.check(wanted.url, wanted.ca_pem)
        except Invalid as error:
            return token_standing.not_to_be_asked(error)
        try:
            secret = await place.secret(wanted.name)
            links = _links_of(secret, wanted.url)
            if links is None:
                found = self._answers.get(key) or await self._ask(wanted, place)
                if self._is_replaced(key, place.mark):
                    return None
                if isinstance(found, str):
                    return found
                self._answers[key] = found  # nobody is asked again because we cannot write
                links = _links_of(await place.put(found), wanted.url) or ()
                del self._answers[key]
        except (Conflict, Invalid, Unavailable) as error:
            return _here(error, token_standing.secret_not_stored)
        try:
            for link in links:  # all of them, or none
                if wanted.cost > 0:  # it may have been changed since
                    link["spec"]["cost"] = wanted.cost
                await place.link(link["metadata"]["name"])
            for link in links:
                await place.put(link)
        except (Conflict, Invalid, Unavailable) as error:
            return _here(error, token_standing.link_not_stored)
        return OK

    def _is_replaced(self, key: Key, uid: str) -> bool:
        seen = self._tokens.get(key)
        return seen is not None and seen["metadata"]["uid"] != uid

    async def _ask(self, wanted: _Wanted, place: Place) -> Object | str:
        """Redeem; gives the Secret, with the Links noted on it, or says what went wrong.

        Raises Conflict, Invalid and Unavailable while the Secret cannot be made ready for it.
        """
        try:
            await place.link(wanted.name)
        except Conflict as error:
            return token_standing.link_not_stored(error)
        kept = await place.keep_key(wanted.name, keys.make_pair(KeyType.P256).private_pem)
        key_pem = content(kept, "tls.key")
        own = Own(key_pem=key_pem, server=server_of(wanted.url, wanted.ca_pem.decode()))
        try:
            answer = await outbound.post_code(
                wanted.url,
                code=wanted.code,
                ca_pem=wanted.ca_pem,
                name=wanted.name,
                subject=wanted.subject,
                csr=requests.make_request(key_pem, wanted.subject),
            )
        except (Invalid, Unavailable) as error:
            return token_standing.no_answer(wanted.url, error)
        if answer.status != HTTPStatus.OK:
            message = token_standing.not_a_success(answer)
            if token_standing.is_final(message):
                with suppress(Conflict, Missing, Unavailable):  # it stays, without a certificate
                    await place.drop_key(wanted.name, key_pem)
            return message
        try:
            # In a thread: a stranger wrote it, and may have written what is slow to read.
            return await in_thread(_received, answer.body, wanted, own)
        except (Invalid, TypeError, ValueError, RecursionError):
            return token_standing.UNDECODABLE

    async def _is_for_a_deleted_site(self, found: Object, site: Object | None) -> bool:
        """Tell whether the Site that a token was redeemed for is gone."""
        status = found["status"]
        since = token_standing.told(status).get("lastTransitionTime") or ""
        if site is None or status.get("message") == token_standing.DELETED_SITE:
            return True
        if site["metadata"].get("creationTimestamp", "") <= since or not since:
            return False
        # It is younger; or our clock is behind that of the API server.
        metadata = found["metadata"]
        try:
            secret = await self._kube.get(SECRETS, metadata["name"], metadata["namespace"])
        except Missing:
            return True
        owners = secret["metadata"].get("ownerReferences") or ()
        return all(one.get("uid") != site["metadata"]["uid"] for one in owners)

    async def _show(self, found: Object, message: str, *, redeemed: bool) -> None:
        try:
            written = await write_status(
                self._kube,
                ACCESS_TOKENS,
                found,
                token_standing.fields(message, redeemed=redeemed),
                [token_standing.condition(message, redeemed=redeemed)],
                now=self._clock(),
            )
        except Missing:
            return  # its end is on its way to us
        if written is None:
            return
        self._tokens.put(written, instead_of=found["metadata"]["resourceVersion"])
        if (found.get("status") or {}).get("message") != message:
            self._tell(found, message)

    def _tell(self, found: Object, message: str) -> None:
        """Tell what has become of a token, when it is something new."""
        shown = str(key_of(found))
        if message == OK:
            self._log.info("redeemed", resource=shown)
            done = "The Secret and the Links are there"
            self._recorder.tell(ACCESS_TOKENS, found, token_standing.REDEEMED, done)
            return
        self._log.warning("not redeemed", resource=shown, why=message)
        self._recorder.tell(ACCESS_TOKENS, found, "Error", message, importance=Importance.WARNING)

    def _site(self, namespace: str) -> Object | None:
        keys_there = self._site_keys.get(namespace, set())
        there = {key: self._sites.get(key) for key in keys_there}
        keys_there.difference_update([key for key, one in there.items() if one is None])
        return oldest(one for one in there.values() if one is not None)


def _read(found: Object, site: Object) -> _Wanted:
    spec = found.get("spec") or {}
    cost = spec.get("linkCost")
    return _Wanted(
        name=found["metadata"]["name"],
        subject=site["metadata"]["uid"],
        url=str(spec.get("url") or ""),
        code=str(spec.get("code") or "").encode(errors="replace"),
        ca_pem=str(spec.get("ca") or "").encode(errors="replace"),
        cost=cost if isinstance(cost, int) else 0,
    )


def _outcome(message: str) -> Redeeming:
    if message == OK:
        return Redeeming.REDEEMED
    if token_standing.is_final(message):
        return Redeeming.REFUSED
    far = token_standing.is_of_the_far_side(message)
    return Redeeming.UNAVAILABLE if far else Redeeming.NOT_STORED


def _received(body: bytes, wanted: _Wanted, own: Own) -> Object:
    """Read an answer; gives the Secret, with the Links noted on it.

    Raises Invalid, and what the encoder of JSON does: YAML knows more than JSON, which is sent.
    """
    receipt = read_receipt(body, name=wanted.name, cost=wanted.cost, own=own)
    if receipt.own_key:
        chains.check_pair(receipt.certificate_pem, own.key_pem)
    found, *links = map(document, receipt.resources)
    json.dumps(found, allow_nan=False)
    noted = json.dumps({"url": wanted.url, "links": links}, allow_nan=False)
    annotations = found["metadata"].get("annotations") or {}
    found["metadata"]["annotations"] = {**annotations, ANSWERED: noted}
    return found


def _links_of(secret: Object | None, url: str) -> Sequence[Object] | None:
    """Find the Links of an answer that is stored; None where there is none to be gone on with."""
    if secret is None or not content(secret, "tls.crt"):
        return None
    try:
        noted = json.loads((secret["metadata"].get("annotations") or {}).get(ANSWERED, ""))
        links = noted["links"] if noted["url"] == url else None
    except (ValueError, TypeError, KeyError):
        return None
    return links if isinstance(links, list) and links else None


def _was_refused(found: Object) -> bool:
    """Tell whether the status says of the token as it is that nothing will come of it."""
    told = token_standing.told(found.get("status") or {})
    as_it_is = told.get("observedGeneration") == found["metadata"].get("generation", 0)
    return as_it_is and token_standing.is_final(str(told.get("message")))


def _here(error: GrantServerError, say: Callable[[GrantServerError], str]) -> str:
    """Say what is in the way; what may be over in a moment is raised again."""
    if isinstance(error, Unavailable) and not error.forbidden:
        raise error
    return say(error)
