"""What the redemption listener serves and how it is reached, kept as it is to be in every process.

Whoever changes either (an operator, housekeeping, the holder of the Lease, another replica) writes
it to the database or to the certificate's files; here it is noticed, and told to those who act on
it. The redemption path asks for nothing: it goes on with what is there.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, NamedTuple, TypeVar

from structlog.stdlib import BoundLogger

from app.crypto.facts import facts
from app.crypto.sealing import Keyring
from app.domain.authorities import ServerCertificate
from app.domain.reach import Reach
from app.domain.times import rfc3339
from app.errors import (
    Broken,
    GrantServerError,
    Invalid,
    Misconfigured,
    Missing,
    Unavailable,
    Unready,
)
from app.services import foreign
from app.services import reach as reaching
from app.services.certificate_files import CertificateFiles
from app.services.foreign import Foreign
from app.store import addresses
from app.store import authorities as authority_rows
from app.store import serving as serving_rows
from app.store.addresses import AddressRow
from app.store.engine import Database

T = TypeVar("T")

_MOST_TRIED: Final = 20  # certificates of before; few of them have a key still

Rehearsal = Callable[[bytes, bytes, bytes, str], None]
"""Raises Invalid unless clients that trust a CA and dial a host go on with a certificate: it is
called with certificate and chain, key, CA (PEM all of them), and the host, empty for any."""

POLL_SECONDS: Final = 2.0
"""Between two looks, each of them one query: so long it takes until a change is everywhere."""

LONGEST_SECONDS: Final = 30.0
"""So long, at most, nothing but that query is made: certificates come of age without a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the listener serves, and what tokens say of it.

    `certificate_pem` is the certificate with its chain; `fingerprint` the SHA-256 of the first, in
    lower-case hexadecimal; `not_after` when it ends, in UTC seconds. While nobody knows how we are
    reached there is no `reach`, and `waiting` tells people what for; else it is empty.
    """

    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    fingerprint: str
    not_after: int
    reach: Reach | None
    waiting: str = ""


class Way(NamedTuple):
    """How we are reached; None while nobody knows, and then what is waited for, to people."""

    reach: Reach | None
    waiting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where it is looked for.

    `url` is the base URL that always wins, `fallback` the one where the database has none either;
    both may be empty. `hosts` are further hosts that the certificate has to carry. It comes from
    `files` where there are any, from the Secret `secret` (its name, for people) where that is not
    empty, else from our own CA, which issues what is missing.
    """

    database: Database
    keyring: Keyring
    url: str
    fallback: str
    hosts: Sequence[str] = ()
    files: CertificateFiles | None = None
    secret: str = ""
    clock: Callable[[], int]
    random_bytes: Callable[[int], bytes]

    def look(self) -> Served:
        """Read what there is, and issue what is missing.

        Raises Misconfigured for files that do not belong together, Unready when our CA cannot
        sign, Unavailable when the database does not serve us.
        """
        told, taken = self._told()
        if self.files is not None:
            pair = self.files.read()
            reach, waiting = self._way(told, pair.ca_pem.decode())
            certificate_pem, key_pem = pair.certificate_pem, pair.key_pem
        elif taken is not None:
            reach, waiting = self._way(told, taken.ca_pem)
            certificate_pem = taken.served.certificate_pem.encode()
            key_pem = reaching.open_server_key(taken.served, self.keyring)
        else:
            reach, waiting = self._way(told, self._own_ca())
            certificate_pem, key_pem = self._issued(told)
        return _served(certificate_pem, key_pem, Way(reach, waiting))

    def stand_ins(self) -> Sequence[Callable[[], Served]]:
        """What may be tried when what `look` gives cannot be served; the best first.

        Each raises as `look` does. There is none for files: who has named them is to know. What
        our own CA issues in the place of a Secret's certificate helps nobody who has a token, and
        none is made then; but the server starts, and takes the next that is good.
        """
        if self.files is not None:
            return ()
        told, _ = self._told()
        origin = reaching.SECRET if self.secret else reaching.OURS
        with self.database.reading() as connection:
            latest = authority_rows.latest_server_certificates(connection, _MOST_TRIED, origin)

        def kept(one: ServerCertificate) -> Served:
            way = self._way(told, one.ca_pem if self.secret else self._own_ca())
            key_pem = reaching.open_server_key(one, self.keyring)
            return _served(one.certificate_pem.encode(), key_pem, way)

        def issued() -> Served:
            return _served(*self._issued(told), self._way(told, None))

        tried = [partial(kept, one) for one in latest if one.sealed_key]
        return [*tried, issued] if self.secret else tried

    def _issued(self, told: AddressRow) -> tuple[bytes, bytes]:
        """Certificate with chain, and key, of our own CA."""
        material = reaching.server_material(
            self.database,
            self.keyring,
            hosts=list(dict.fromkeys([*self.hosts, *told.hosts])),
            first=self._host(told),
            now=self.clock(),
            random_bytes=self.random_bytes,
        )
        return material.certificate_pem, material.key_pem

    def way(self) -> Way:
        """How we are reached, for those who serve nothing: nothing is issued, no key is read.

        Raises Misconfigured for a file that cannot be used, and Unavailable.
        """
        told, taken = self._told()
        if self.files is not None:
            return self._way(told, self.files.read_ca().decode())
        return self._way(told, self._own_ca() if taken is None else taken.ca_pem)

    def base_url(self) -> str:
        """The base URL that tokens carry; empty while nobody knows. Raises Unavailable."""
        told, _ = self._told()
        return self._url(told)

    def mark(self) -> object:
        """Give something that is equal to what it was as long as nothing has changed.

        It costs one query. Raises Unavailable, and Misconfigured for files that cannot be read.
        """
        files = () if self.files is None else self.files.contents()
        with self.database.reading() as connection:
            return files, serving_rows.mark(connection)

    def _told(self) -> tuple[AddressRow, Foreign | None]:
        """Read where we are reached, and the Secret's certificate where that is to be served."""
        with self.database.reading() as connection:
            told = addresses.read(connection)
            if not self.secret or self.files is not None:
                return told, None
            return told, foreign.current(connection, self._host(told), self.clock())

    def _host(self, told: AddressRow) -> str:
        return Reach(url=self._url(told), ca_pem="").host

    def _url(self, told: AddressRow) -> str:
        return self.url or told.url or self.fallback

    def _own_ca(self) -> str | None:
        """Whom clients have to trust; None while the Secret's certificate is still to come."""
        return None if self.secret else reaching.current(self.database, "").ca_pem

    def _way(self, told: AddressRow, ca_pem: str | None) -> Way:
        url = self._url(told)
        if url and ca_pem is not None:
            return Way(Reach(url=url, ca_pem=ca_pem), "")
        lack = "an address" if ca_pem is not None else f"the certificate in Secret {self.secret}"
        return Way(None, told.problem or f"waiting for {lack}")


def _served(certificate_pem: bytes, key_pem: bytes, way: Way) -> Served:
    first = facts(certificate_pem)
    return Served(
        certificate_pem=certificate_pem,
        key_pem=key_pem,
        fingerprint=first.fingerprint,
        not_after=first.not_after,
        reach=way.reach,
        waiting=way.waiting,
    )


class Keeper:
    """Keeps `current` as it is to be, while `run` runs.

    `check` is called, in a thread, with each certificate and key (PEM) that is new, and raises
    Invalid when nothing can be served with them; `rehearse` with each that is new and can, and
    raises Invalid when clients could not use it: then it does not take the place of one that they
    can. What cannot be had or used as a whole changes nothing: the log says so once, and every look
    tries again. `woken` may be set by others as well: it makes us look at once.
    """

    def __init__(
        self,
        source: Source,
        *,
        check: Callable[[bytes, bytes], object],
        rehearse: Rehearsal,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        log: BoundLogger,
        woken: asyncio.Event | None = None,
        poll_seconds: float = POLL_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        """Look for the first time.

        Where what is found cannot be served, something else may stand in for it (see
        `Source.stand_ins`): the log says so. Raises what `Source.look` and `check` do where there
        is nothing at all, for files, and where the database does not serve us.
        """
        self._source = source
        self._check = check
        self._rehearse = rehearse
        self._clock = clock
        self._monotonic = monotonic
        self._log = log
        self._woken = woken or asyncio.Event()
        self._poll_seconds = poll_seconds
        self._longest_seconds = longest_seconds
        self._callbacks: list[Callable[[Served], None]] = []
        self._mark: object = None
        self._looked_at = float("-inf")
        self._trouble = ""
        self._stands_in = False
        self._said_at = float("-inf")
        self.current = self._first()

    def on_change(self, callback: Callable[[Served], None]) -> None:
        """Have `callback` called in the event loop after each change, with what is new."""
        self._callbacks.append(callback)

    def wake(self) -> None:
        """Look at once, and at everything. To be called in the event loop."""
        self._woken.set()

    def check_valid(self) -> None:
        """Raise Unavailable when what is served has ended, or stands in and helps nobody."""
        if self._clock() >= self.current.not_after:
            raise Unavailable("the server certificate has ended: the log says why it stays")
        if self._stands_in and self.current.reach is None:
            raise Unavailable("the server certificate is a makeshift: the log says why")

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._woken.wait()
            told = self._woken.is_set()
            self._woken.clear()
            await self.turn(everything=told)

    async def turn(self, *, everything: bool = False) -> None:
        """Look once: at `everything`, or at whether there is anything to be looked at."""
        before = self.current
        try:
            found = await _in_thread(lambda: self._look(everything=everything))
        except GrantServerError as error:
            self._complain(str(error))
            return
        except Exception:  # noqa: BLE001 - the next look may fare better, and redemptions go on
            self._log.exception("what is to be served could not be looked at")
            return
        if self._trouble:
            self._trouble = ""
            self._log.info("what is to be served can be used again")
        self._stands_in = False
        if found is not None and found != before:
            self._change(before, found)
        elif everything and self._monotonic() - self._said_at >= POLL_SECONDS:
            self._said_at = self._monotonic()  # signals may come by the thousand
            self._log.info("nothing else is to be served", fingerprint=before.fingerprint)

    def _look(self, *, everything: bool) -> Served | None:
        """Look, in a thread; None where nothing has changed since."""
        last, self._mark = self._mark, None  # whatever fails is looked at again
        mark = self._source.mark()
        idle = self._monotonic() - self._looked_at
        if mark == last and not everything and idle < self._longest_seconds:
            self._mark = last
            return None
        looked_at = self._monotonic()
        found = self._source.look()
        self._accept(found)
        self._mark, self._looked_at = mark, looked_at
        return found

    def _accept(self, found: Served) -> None:
        """Raise unless what is new is better than what we have."""
        before, now = self.current, self._clock()
        if (found.certificate_pem, found.key_pem) == (before.certificate_pem, before.key_pem):
            return
        if found.not_after <= now < before.not_after:
            raise Misconfigured([f"the certificate has ended at {rfc3339(found.not_after)}"])
        self._check(found.certificate_pem, found.key_pem)
        if found.reach is None:
            return
        try:
            self._play(found, found.reach)
        except Invalid:
            # Of who trusts the CA that was told so far, and dials where we are reached now.
            if self._passes(before, replace(before.reach or found.reach, url=found.reach.url)):
                raise

    def _first(self) -> Served:
        """Give what there is at the start."""
        try:
            return self._usable(self._source.look)
        except Unavailable:
            raise
        except GrantServerError as error:
            for stand_in in self._source.stand_ins():
                with contextlib.suppress(Misconfigured, Broken, Unready, Missing, Invalid):
                    found = self._usable(stand_in)
                    break
            else:
                if isinstance(error, Invalid):
                    raise Misconfigured([str(error)]) from error
                raise
            self._stands_in, self._trouble = True, str(error)
            self._log.error(
                "what is to be served cannot be, and something else is",
                why=str(error),
                fingerprint=found.fingerprint,
            )
            return found

    def _usable(self, look: Callable[[], Served]) -> Served:
        found = look()
        self._check(found.certificate_pem, found.key_pem)
        return found

    def _play(self, served: Served, reach: Reach) -> None:
        """Raise Invalid unless clients who are told how we are reached could go on with it."""
        self._rehearse(served.certificate_pem, served.key_pem, reach.ca_pem.encode(), reach.host)

    def _passes(self, served: Served, reach: Reach) -> bool:
        try:
            self._play(served, reach)
        except Invalid:
            return False
        return True

    def _complain(self, why: str) -> None:
        """Say it once: the next look comes in two seconds, and finds the same."""
        if why != self._trouble:
            self._log.warning("what is served stays as it was", why=why)
        self._trouble = why

    def _change(self, before: Served, found: Served) -> None:
        self.current = found
        if found.fingerprint != before.fingerprint:
            self._log.info(
                "another certificate is served",
                fingerprint=found.fingerprint,
                not_after=rfc3339(found.not_after),
            )
        if found.reach is None:
            if (before.reach, before.waiting) != (None, found.waiting):
                self._log.warning("nobody can reach us", why=found.waiting)
        elif found.reach != before.reach:
            self._log.info("clients reach us in another way", url=found.reach.url)
        for callback in self._callbacks:
            try:
                callback(found)
            except Exception:  # noqa: BLE001 - the others have to know all the same
                self._log.exception("what is new could not be made use of")


async def _in_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a thread; a cancellation takes effect when it has ended."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at: nobody is left to be told
        raise
