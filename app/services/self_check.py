"""The self-check: dial our own public URL as a client does, and say what came of it.

A client knows the URL and the CA that its token carries, and nothing else; neither does a look,
except for the fingerprints that tell our certificates from others. No code is ever sent. What is
served, and how we are reached, is decided elsewhere.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from structlog.stdlib import BoundLogger

from app import outbound
from app.crypto.facts import facts
from app.domain.certificates import CertificateFacts
from app.domain.self_check import Finding, Outcome
from app.domain.times import rfc3339
from app.errors import GrantServerError, Invalid
from app.outbound import Answer, Sight

SECONDS: Final = 5.0
"""A look has so long: for name, connection, handshakes and answer together."""

SETTLE_SECONDS: Final = 5.0
"""From a change to the look at it: other replicas serve what is new only after some seconds."""

EVERY_SECONDS: Final = 300.0
AGAIN_SECONDS: Final = 15.0
"""After a bad outcome, and twice as long each time it stays bad, up to `EVERY_SECONDS`."""

NOT_LOOKED: Final = Finding(outcome=Outcome.UNKNOWN, detail="nobody has looked yet")

_MOST_DOUBLINGS: Final = 10  # far beyond any sensible pause
_LONGEST_NAME: Final = 200  # characters of a stranger's certificate that are repeated
# What only we say to a GET of /, with the line feed at its end: the second one where somebody
# who comes from the same address as we do has failed too often.
_OURS: Final = frozenset(
    {
        (HTTPStatus.METHOD_NOT_ALLOWED, b"Only POST is supported\n"),
        (HTTPStatus.TOO_MANY_REQUESTS, b"Too many failed attempts\n"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What there is to look at: the URL and the CA of tokens, and how our certificates are told.

    `ours` are SHA-256 fingerprints as lower-case hexadecimal, of every certificate that one of
    us may still serve. Without an address `url` is empty, and `waiting` says why.
    """

    url: str
    ca_pem: str
    ours: frozenset[str]
    waiting: str = ""


async def check(
    url: str, ca_pem: str, ours: Collection[str], *, seconds: float = SECONDS
) -> Finding:
    """Dial `url` as a client does that trusts `ca_pem`; the rest is as in `Target`.

    Raises nothing of its own: whatever is wrong is the finding.
    """
    try:
        sight = await outbound.look(f"{url.rstrip('/')}/", ca_pem=ca_pem.encode(), seconds=seconds)
    except Invalid as error:
        detail = f"{url} cannot be dialled with what tokens carry: {error}"
        return Finding(outcome=Outcome.UNREACHABLE, detail=detail)
    return judge(url, sight, ours)


def judge(url: str, sight: Sight, ours: Collection[str]) -> Finding:
    """Tell what was seen at `url` by whether the certificate is one of `ours`."""
    if not sight.certificate_pem:
        outcome = Outcome.UNREACHABLE if sight.misfit is None else Outcome.WRONG_CERTIFICATE
        return Finding(outcome=outcome, detail=sight.trouble, misfit=sight.misfit)
    shown = _facts(sight.certificate_pem)
    if shown is None or shown.fingerprint not in ours:
        detail = f"{url} shows a certificate that is none of ours: {_whose(shown)}; {_taken(sight)}"
        return Finding(outcome=Outcome.TERMINATED, detail=detail)
    return _judge_ours(url, sight, shown)


def _judge_ours(url: str, sight: Sight, shown: CertificateFacts) -> Finding:
    if sight.misfit is not None:
        detail = f"{sight.trouble}: it is ours, {_use(shown)}"
        return Finding(outcome=Outcome.WRONG_CERTIFICATE, detail=detail, misfit=sight.misfit)
    if sight.old_tls:
        detail = f"{url} shows our certificate in a version of TLS that we do not speak"
        return Finding(outcome=Outcome.TERMINATED, detail=detail)
    if sight.answer is None:
        return Finding(outcome=Outcome.UNREACHABLE, detail=sight.trouble)
    if (sight.answer.status, sight.answer.body) in _OURS:
        detail = f"{url} shows our certificate, and the CA of tokens vouches for it"
        return Finding(outcome=Outcome.REACHABLE, detail=detail)
    detail = f"{url} shows our certificate but does not answer as we do: {_said(sight.answer)}"
    return Finding(outcome=Outcome.TERMINATED, detail=detail)


class SelfCheck:
    """Looks now and then while `run` runs: after each change, and sooner after a bad outcome.

    `target` is asked in a thread, so it may read the database; what it once called ours stays
    ours, because other replicas may serve it for a while longer. `on_look` is told each outcome
    with the UTC seconds of the look; without them while nobody has looked. The log gets one line
    for each change of the outcome.
    """

    def __init__(
        self,
        target: Callable[[], Target],
        *,
        clock: Callable[[], int],
        log: BoundLogger,
        on_look: Callable[[Outcome, int | None], None],
        settle_seconds: float = SETTLE_SECONDS,
        every_seconds: float = EVERY_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._target = target
        self._clock = clock
        self._log = log
        self._on_look = on_look
        self._settle = settle_seconds
        self._every = every_seconds
        self._again = again_seconds
        self._soon = asyncio.Event()
        self._ours: set[str] = set()
        self.found = NOT_LOOKED

    def check_soon(self) -> None:
        """Look as soon as what has changed has settled. To be called in the event loop."""
        self._soon.set()

    async def run(self) -> None:
        """Look until cancelled."""
        self._on_look(self.found.outcome, None)
        self._soon.set()
        in_vain = 0
        while True:
            if await self._rest(in_vain):
                in_vain = 0
            await self._look()
            in_vain = 0 if self.found.outcome is Outcome.REACHABLE else in_vain + 1

    async def _rest(self, in_vain: int) -> bool:
        """Wait until it is time for the next look; tell whether something has changed."""
        seconds = pause(in_vain, again_seconds=self._again, every_seconds=self._every)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._soon.wait()
        changed = self._soon.is_set()
        if changed:
            await asyncio.sleep(self._settle)
            self._soon.clear()
        return changed

    async def _look(self) -> None:
        was = self.found.outcome
        try:
            target = await asyncio.to_thread(self._target)
            self._ours |= target.ours
            self.found = await _find(target, self._ours)
        except GrantServerError as error:
            self.found = _failed(error)
        except Exception as error:  # noqa: BLE001 - the next look may fare better
            self._log.exception("the public address could not be looked at")
            self.found = _failed(error)
        self._on_look(self.found.outcome, self._clock())
        if self.found.outcome is not was:
            good = self.found.outcome in {Outcome.REACHABLE, Outcome.UNKNOWN}
            tell = self._log.info if good else self._log.warning
            tell(
                "public address looked at",
                outcome=self.found.outcome.value,
                was=was.value,
                detail=self.found.detail,
            )


def pause(in_vain: int, *, again_seconds: float, every_seconds: float) -> float:
    """Give the seconds to the next look after so many others than "reachable" in a row."""
    if not in_vain:
        return every_seconds
    doubled: float = again_seconds * 2 ** min(in_vain - 1, _MOST_DOUBLINGS)
    return min(doubled, every_seconds)


async def _find(target: Target, ours: Collection[str]) -> Finding:
    if not target.url:
        return Finding(outcome=Outcome.UNKNOWN, detail=target.waiting or "there is no address yet")
    return await check(target.url, target.ca_pem, ours)


def _failed(error: Exception) -> Finding:
    why = str(error) if isinstance(error, GrantServerError) else type(error).__name__
    return Finding(outcome=Outcome.UNKNOWN, detail=f"nobody could look: {why}")


def _facts(certificate_pem: bytes) -> CertificateFacts | None:
    try:
        return facts(certificate_pem)
    except Invalid:
        return None


def _whose(shown: CertificateFacts | None) -> str:
    if shown is None:
        return "one that cannot be read"
    subject = _plain(shown.subject or ", ".join(shown.hosts) or "nobody")
    return f"that of {subject}, issued by {_plain(shown.issuer or 'nobody')}"


def _taken(sight: Sight) -> str:
    """Say what a client makes of a certificate that is not ours."""
    if sight.answer is not None:
        return "clients take it, because the CA of tokens vouches for it"
    return sight.trouble


def _use(shown: CertificateFacts) -> str:
    hosts = _plain(", ".join(shown.hosts) or "no host")
    return f"for {hosts}, good from {rfc3339(shown.not_before)} until {rfc3339(shown.not_after)}"


def _said(answer: Answer) -> str:
    return f"{answer.status} {answer.reason}".rstrip()


def _plain(text: str) -> str:
    """Repeat what strangers say in a form that no terminal obeys."""
    shown = "".join(one if one.isprintable() else "?" for one in text)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[:_LONGEST_NAME]}…"
