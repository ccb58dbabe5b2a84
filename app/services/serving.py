"""What the redemption listener serves and how it is reached, kept as it is to be in every process.

Whoever changes either (an operator, housekeeping, the holder of the Lease, another replica) writes
it to the database or to the certificate's files; here it is noticed, and told to those who act on
it. The redemption path asks for nothing: it goes on with what is there.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from structlog.stdlib import BoundLogger

from app.crypto.facts import facts
from app.crypto.sealing import Keyring
from app.domain.authorities import ServerCertificate
from app.domain.reach import Reach
from app.domain.times import rfc3339
from app.errors import GrantServerError, Misconfigured, Unavailable
from app.services import reach as reaching
from app.services.certificate_files import CertificateFiles
from app.store import addresses
from app.store import authorities as authority_rows
from app.store import serving as serving_rows
from app.store.addresses import AddressRow
from app.store.engine import Database

T = TypeVar("T")

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
        told, foreign = self._told()
        if self.files is not None:
            pair = self.files.read()
            reach, waiting = self._way(told, pair.ca_pem.decode())
            certificate_pem, key_pem = pair.certificate_pem, pair.key_pem
        elif foreign is not None:
            reach, waiting = self._way(told, foreign.ca_pem)
            certificate_pem = foreign.certificate_pem.encode()
            key_pem = reaching.open_server_key(foreign, self.keyring)
        else:
            material = reaching.server_material(
                self.database,
                self.keyring,
                hosts=list(dict.fromkeys([*told.hosts, *self.hosts])),
                first=Reach(url=self._url(told), ca_pem="").host,
                now=self.clock(),
                random_bytes=self.random_bytes,
            )
            reach, waiting = self._way(told, self._own_ca())
            certificate_pem, key_pem = material.certificate_pem, material.key_pem
        first = facts(certificate_pem)
        return Served(
            certificate_pem=certificate_pem,
            key_pem=key_pem,
            fingerprint=first.fingerprint,
            not_after=first.not_after,
            reach=reach,
            waiting=waiting,
        )

    def way(self) -> Way:
        """How we are reached, for those who serve nothing: nothing is issued, no key is read.

        Raises Misconfigured for a file that cannot be used, and Unavailable.
        """
        told, foreign = self._told()
        if self.files is not None:
            return self._way(told, self.files.read_ca().decode())
        return self._way(told, self._own_ca() if foreign is None else foreign.ca_pem)

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

    def _told(self) -> tuple[AddressRow, ServerCertificate | None]:
        """Read where we are reached, and the Secret's certificate where that is to be served."""
        with self.database.reading() as connection:
            told = addresses.read(connection)
            kept = authority_rows.current_server_certificate(connection)
        taken = self.secret and kept is not None and kept.origin == reaching.SECRET
        return told, kept if taken else None

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


class Keeper:
    """Keeps `current` as it is to be, while `run` runs.

    `check` is called, in a thread, with each certificate and key (PEM) that is new, and raises
    Invalid when nothing can be served with them. What cannot be had or used as a whole changes
    nothing: the log says so once, and every look tries again. `woken` may be set by others as well:
    it makes us look at once.
    """

    def __init__(
        self,
        source: Source,
        *,
        check: Callable[[bytes, bytes], object],
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        log: BoundLogger,
        woken: asyncio.Event | None = None,
        poll_seconds: float = POLL_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        """Look for the first time; raises as `Source.look` and `check` do."""
        self._source = source
        self._check = check
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
        self.current = source.look()
        check(self.current.certificate_pem, self.current.key_pem)

    def on_change(self, callback: Callable[[Served], None]) -> None:
        """Have `callback` called in the event loop after each change, with what is new."""
        self._callbacks.append(callback)

    def wake(self) -> None:
        """Look at once, and at everything. To be called in the event loop."""
        self._woken.set()

    def check_valid(self) -> None:
        """Raise Unavailable when what is served has ended."""
        if self._clock() >= self.current.not_after:
            raise Unavailable("the server certificate has ended: the log says why it stays")

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
        if found is not None and found != before:
            self._change(before, found)
        elif everything:
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
