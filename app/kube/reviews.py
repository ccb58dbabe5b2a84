"""Accounts of the cluster: the API server tells whose a token is, and what they may.

A token has to be made for us: its audience is `grantserver`. One that was made for the API server
itself is refused, because whoever is shown such a token can do with it all that its owner can.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Final, Generic, TypeVar

from app.domain.accounts import Account
from app.domain.callers import Verb
from app.errors import GrantServerError, Unavailable
from app.kube.client import Kube
from app.kube.resources import ACCESS_GRANTS, ACCESS_REVIEWS, TOKEN_REVIEWS, Object, Resource
from app.logs import get_logger

AUDIENCE: Final = "grantserver"
KEPT_SECONDS: Final = 10.0
"""So long an answer is believed: a right that is taken away is gone after that."""

_MOST_KEPT: Final = 4096
_MOST_AT_ONCE: Final = 16  # questions: accounts are not to keep the API server busy
_MOST_WAIT_SECONDS: Final = 5.0  # until it is one's turn: longer, and it is away
VERBS: Final[Mapping[Verb, str]] = {
    Verb.READ: "list",
    Verb.CREATE: "create",
    Verb.CHANGE: "update",
    Verb.REVOKE: "update",
    Verb.DELETE: "delete",
}
"""What an account has to be allowed to do with AccessGrants; of the others it has none."""

_log = get_logger(__name__)

Answer = TypeVar("Answer")


class KubeReviews:
    """Asks an API server; used from one event loop.

    Both questions raise Unavailable when there is no answer, `forbidden` when our own role does
    not let us ask. Answers, also those that say no, are kept for 10 s, the 4096 last ones.
    """

    def __init__(self, kube: Kube, *, monotonic: Callable[[], float]) -> None:
        self._kube = kube
        self._asking = asyncio.Semaphore(_MOST_AT_ONCE)
        self._accounts = _Kept[Account | None](monotonic)
        self._rights = _Kept[bool](monotonic)
        self._well = True

    async def account(self, token: str) -> Account | None:
        """Tell whose token it is; None when it is nobody's, or not made for us."""
        spec = {"token": token, "audiences": [AUDIENCE]}
        key = hashlib.sha256(token.encode()).digest()

        async def ask() -> Account | None:
            return _account(await self._review(TOKEN_REVIEWS, spec))

        return await self._accounts.of(key, ask, self._asking)

    async def allows(self, account: Account, verb: Verb, namespace: str | None) -> bool:
        """Tell whether the account may do that to AccessGrants of the namespace; None is all."""
        if verb not in VERBS:
            return False
        spec = {
            "resourceAttributes": {
                "group": ACCESS_GRANTS.group,
                "resource": ACCESS_GRANTS.plural,
                "verb": VERBS[verb],
                "namespace": namespace or "",
            },
            "user": account.username,
            "uid": account.uid,
            "groups": list(account.groups),
            "extra": {name: list(values) for name, values in account.extra},
        }

        async def ask() -> bool:
            status = await self._review(ACCESS_REVIEWS, spec)
            return status.get("allowed") is True and status.get("denied") is not True

        return await self._rights.of((account, VERBS[verb], namespace), ask, self._asking)

    async def _review(self, resource: Resource, spec: Object) -> Object:
        try:
            status = await self._kube.review(resource, spec)
        except GrantServerError as error:
            if self._well:
                _log.warning("accounts cannot be asked about", why=str(error))
            self._well = False
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(str(error)) from error
        if not self._well:
            _log.info("accounts can be asked about again")
        self._well = True
        return status


class _Kept(Generic[Answer]):
    """Answers of the last seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._answers: OrderedDict[Hashable, tuple[float, Answer]] = OrderedDict()

    async def of(
        self, key: Hashable, ask: Callable[[], Awaitable[Answer]], turns: asyncio.Semaphore
    ) -> Answer:
        """The answer that is known, or else a new one. Raises Unavailable."""
        if (known := self._known(key)) is not None:
            return known[1]
        try:
            async with asyncio.timeout(_MOST_WAIT_SECONDS):
                await turns.acquire()
        except TimeoutError:
            raise Unavailable("the API server is being asked too much") from None
        try:
            # Somebody may have asked the same while we waited.
            if (known := self._known(key)) is not None:
                return known[1]
            asked_at = self._monotonic()
            answer = await ask()
        finally:
            turns.release()
        self._answers[key] = (asked_at, answer)
        self._answers.move_to_end(key)
        if len(self._answers) > _MOST_KEPT:
            self._answers.popitem(last=False)
        return answer

    def _known(self, key: Hashable) -> tuple[float, Answer] | None:
        found = self._answers.get(key)
        if found is None or self._monotonic() - found[0] >= KEPT_SECONDS:
            return None
        return found


def _account(status: Object) -> Account | None:
    """Read who it is out of the status of a TokenReview; None for nobody.

    An API server that looks at no audience leaves them out: then the token may be anybody's.
    """
    audiences, user = status.get("audiences"), status.get("user")
    if status.get("authenticated") is not True or not isinstance(user, dict):
        return None
    if not isinstance(audiences, list) or AUDIENCE not in audiences:
        return None
    username, uid = user.get("username"), user.get("uid") or ""
    if not isinstance(username, str) or not isinstance(uid, str):
        return None
    extra = user.get("extra") or {}
    if not isinstance(extra, dict):
        return None
    return Account(
        username=username,
        uid=uid,
        groups=_texts(user.get("groups")),
        extra=tuple(sorted((str(name), _texts(values)) for name, values in extra.items())),
    )


def _texts(found: Any) -> tuple[str, ...]:
    return tuple(str(one) for one in found) if isinstance(found, list) else ()
