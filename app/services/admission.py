"""Admission to the admin API: who asks, and what they may.

A caller shows a bearer token (one of ours, or one that the API server of the cluster knows) or has
shown a client certificate to the listener. A token is looked up each time: one that is revoked is
good for nothing at once, in every process.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from app.crypto.client_certificates import read_client_certificate
from app.domain.accounts import Account
from app.domain.admin_tokens import PREFIX, AdminToken, parse
from app.domain.callers import Caller, Kind, Rights, Verb
from app.errors import GrantServerError, Invalid, Refused, Unauthenticated
from app.logs import get_logger
from app.services import admin_tokens
from app.services.limits import PeerLimits
from app.store import sites as site_rows
from app.store.engine import Database

MOST_ASKED_ABOUT: Final = 200
"""Sites about which the API server is asked, for an account that may not at all of them."""

_LONGEST_TOKEN: Final = 16 * 1024  # characters; those of accounts have about a thousand
_MOST_REMEMBERED: Final = 4096
_NEVER_OF_ACCOUNTS: Final = frozenset({Verb.AUDIT, Verb.MANAGE})

_log = get_logger(__name__)


class Reviews(Protocol):
    """What the API server of a cluster tells of accounts; both raise Unavailable."""

    async def account(self, token: str) -> Account | None:
        """Tell whose token it is, and that it is meant for us; None when it is nobody's."""
        ...

    async def allows(self, account: Account, verb: Verb, namespace: str | None) -> bool:
        """Tell whether the account may do that in the namespace; None is in all of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an account may: the API server is asked, each time that it wants something.

    A site that was made here stands for no namespace, though there may be one of its name, whose
    owner has no say in it: whoever may in all namespaces has.
    """

    reviews: Reviews
    account: Account
    namespaces: Callable[[], frozenset[str]]
    """The names of the sites that stand for one, as the database has them."""

    async def may(self, verb: Verb, site: str | None) -> bool:
        """Tell whether the account may do that at a site; without one, everywhere."""
        if verb in _NEVER_OF_ACCOUNTS:
            return False
        if site is not None and site not in await asyncio.to_thread(self.namespaces):
            site = None
        return await self.reviews.allows(self.account, verb, site)

    async def sites(self, verb: Verb, named: Callable[[], Sequence[str]]) -> frozenset[str] | None:
        """Tell at which sites, of the first 200 that are named; None is every one."""
        if verb in _NEVER_OF_ACCOUNTS:
            return frozenset()
        if await self.reviews.allows(self.account, verb, None):
            return None
        namespaces = await asyncio.to_thread(self.namespaces)
        names = [name for name in await asyncio.to_thread(named) if name in namespaces]
        asked = names[:MOST_ASKED_ABOUT]
        questions = [
            asyncio.ensure_future(self.reviews.allows(self.account, verb, name)) for name in asked
        ]
        try:
            answers = await asyncio.gather(*questions)
        finally:
            for question in questions:  # nobody waits for them after one that failed
                question.cancel()
        return frozenset(name for name, may in zip(asked, answers, strict=True) if may)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A caller who is known, and what they may; `rights` are None of an account, who is `asked`.

    Both methods raise Unavailable when nobody can tell.
    """

    caller: Caller
    rights: Rights | None
    asked: Asked | None = field(default=None, repr=False)

    async def may(self, verb: Verb, site: str | None) -> bool:
        """Tell whether they may do that at a site; without one, for which every site is needed."""
        if self.rights is not None:
            return self.rights.allow(verb, site)
        return self.asked is not None and await self.asked.may(verb, site)

    async def sites(self, verb: Verb, named: Callable[[], Sequence[str]]) -> frozenset[str] | None:
        """Tell the sites at which they may do that; None is every, those to come too.

        `named` gives the names of all sites there are, in a thread. An account that may not
        everywhere is asked about at the first 200 of those that stand for namespaces.
        """
        if self.rights is not None:
            return self.rights.sites if verb in self.rights.verbs else frozenset()
        return frozenset() if self.asked is None else await self.asked.sites(verb, named)


class Admission:
    """Decides who a caller is; used from one event loop.

    `token_keys` are those derived for `admin_tokens.KEY_PURPOSE`; `certificates` are the rights of
    common names; `reviews` are None where no account is let in. `limits` count addresses that
    present wrong tokens: one that has too often is not looked at for a while, whatever it shows.
    """

    def __init__(
        self,
        *,
        database: Database,
        token_keys: Mapping[str, bytes],
        certificates: Mapping[str, Rights],
        reviews: Reviews | None,
        limits: PeerLimits,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._token_keys = token_keys
        self._certificates = certificates
        self._reviews = reviews
        self._limits = limits
        self._clock = clock
        self._noted: OrderedDict[str, int] = OrderedDict()  # when a token's use was, by its id
        self._notes: set[asyncio.Task[None]] = set()
        self._lost_keys: set[str] = set()
        self._notes_are_well = True

    async def admit(
        self, *, peer: str, authorization: str | None, certificate: bytes | None
    ) -> Admitted:
        """Find out who asks, from the `Authorization` header or the client certificate (DER).

        The header decides where there are both. Raises Unauthenticated, with `retry_after` while
        the peer is not looked at, and Unavailable when the database or the API server is away.
        """
        if authorization is not None:
            return await self._bearer(peer, authorization)
        if certificate is not None:
            return self._certified(certificate)
        raise Unauthenticated("neither a token nor a certificate was shown")

    async def close(self) -> None:
        """Wait for what is still written down."""
        await asyncio.gather(*self._notes)

    async def _bearer(self, peer: str, authorization: str) -> Admitted:
        try:
            self._limits.admit(peer)
        except Refused as error:
            raise Unauthenticated(str(error), retry_after=error.retry_after) from None
        try:
            return await self._shown(peer, authorization)
        except Unauthenticated as error:
            self._limits.fail(peer)
            _log.info("caller of the admin API not known", peer=peer, why=str(error))
            raise

    async def _shown(self, peer: str, authorization: str) -> Admitted:
        scheme, _, text = authorization.partition(" ")
        text = text.strip(" ")
        if scheme.lower() != "bearer" or not _is_presentable(text):
            raise Unauthenticated("no bearer token was shown")
        if text.startswith(PREFIX):  # never shown to anybody else
            return await self._token(peer, text)
        return await self._account(text)

    async def _token(self, peer: str, text: str) -> Admitted:
        try:
            presented = parse(text)
        except Invalid as error:
            raise Unauthenticated(error.why) from None
        now = self._clock()
        found = await asyncio.to_thread(
            admin_tokens.verify,
            self._database,
            presented,
            keys=self._token_keys,
            now=now,
            on_lost_key=self._lost_key,
        )
        self._note_use(found, peer, now)
        return Admitted(caller=found.caller, rights=found.rights)

    def _lost_key(self, key: str) -> None:
        if key not in self._lost_keys:
            self._lost_keys.add(key)
            why = f"they need the sealing key {key}, which is not in the key file"
            _log.warning("admin tokens are good no more", why=why)

    def _note_use(self, token: AdminToken, peer: str, now: int) -> None:
        """Have the use written down some time, unless that was done a short while ago."""
        last = max(self._noted.get(token.id, 0), token.last_used_at or 0)
        if last > now - admin_tokens.SELDOM_SECONDS:
            return
        self._noted[token.id] = now
        self._noted.move_to_end(token.id)
        if len(self._noted) > _MOST_REMEMBERED:
            self._noted.popitem(last=False)
        note = asyncio.get_running_loop().create_task(self._write_use(token, peer, now))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _write_use(self, token: AdminToken, peer: str, now: int) -> None:
        try:
            await asyncio.to_thread(
                admin_tokens.note_use, self._database, token, peer=peer, now=now
            )
        except GrantServerError as error:  # nothing of an answer hangs on it
            if self._notes_are_well:
                _log.warning("the use of admin tokens cannot be written down", why=str(error))
            self._notes_are_well = False
        else:
            self._notes_are_well = True

    def _certified(self, der: bytes) -> Admitted:
        try:
            certificate = read_client_certificate(der)
        except Invalid as error:
            raise Unauthenticated(str(error)) from None
        # A connection may outlive the certificate that it began with.
        if certificate.not_after <= self._clock():
            raise Unauthenticated("the client certificate has ended")
        rights = self._certificates.get(certificate.common_name)
        if rights is None:
            raise Unauthenticated("nobody has given the client certificate any right")
        caller = Caller(kind=Kind.CERTIFICATE, name=certificate.common_name)
        return Admitted(caller=caller, rights=rights)

    async def _account(self, text: str) -> Admitted:
        if self._reviews is None:
            raise Unauthenticated("it is no admin token, and accounts are not let in")
        account = await self._reviews.account(text)
        caller = None if account is None else account.caller
        if account is None or caller is None:
            raise Unauthenticated("the API server knows no account by the token")
        asked = Asked(reviews=self._reviews, account=account, namespaces=self._namespaces)
        return Admitted(caller=caller, rights=None, asked=asked)

    def _namespaces(self) -> frozenset[str]:
        with self._database.reading() as connection:
            return site_rows.of_namespaces(connection)


def _is_presentable(text: str) -> bool:
    """Tell whether it could be a token at all (RFC 6750, section 2.1)."""
    return 0 < len(text) <= _LONGEST_TOKEN and text.isascii() and text.isprintable()
