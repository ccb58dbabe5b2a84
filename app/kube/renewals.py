"""Secrets of links, renewed in their namespaces before their certificates end.

The router picks up what is in the Secret. Skupper's controller takes each change of data for new
credentials, and closes what stands on those before the last ones: so the data is changed once, and
the key of a renewal that was begun is kept in an annotation, which only the old key opens.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from structlog.stdlib import BoundLogger

from app.crypto import answers
from app.domain.link_secrets import (
    SERVER_URL,
    LinkSecret,
    Renewed,
    annotations,
    read_link_secret,
)
from app.domain.times import rfc3339
from app.errors import Broken, Invalid, Missing, Refused, Unavailable
from app.kube.backoff import Backoff, chance
from app.kube.client import Kube
from app.kube.informer import Informer
from app.kube.links import replace_data
from app.kube.recorder import Importance, Recorder
from app.kube.resources import SECRETS, Key, Object, key_of
from app.metrics import Metrics, Renewing
from app.services import renewing
from app.services.renewing import Certificate

BEGUN: Final = "grantserver/next-key"
"""The annotation with the key of a renewal that was begun, sealed under the key in the Secret."""

_NO_SALT: Final = bytes(32)  # what is sealed under is a key already
_PURPOSE: Final = "next key"
_BACKOFF: Final = Backoff(base_seconds=5.0, most_seconds=600.0)
_AGAIN_SECONDS: Final = 3600.0
"""Between two looks at the clock, which may be set; and between two tries after a refusal."""
_LEAST_SECONDS: Final = 15.0  # between two renewals of a Secret
_SHARE: Final = 8  # of what is left of a certificate's life, which passes between two tries at most


async def renew_secret(
    kube: Kube, found: Object, *, random_bytes: Callable[[int], bytes]
) -> Renewed:
    """Renew the Secret of a link, as it was `found`, and put what comes into it.

    It may be stopped anywhere, and begun again with the Secret as it is then: the certificate is
    the same one. Raises as `renewing.renew` does, and as `replace_data`.
    """
    secret = read_link_secret(found)
    key_pem = _begun(found, secret)
    if not key_pem:
        key_pem = renewing.next_key()
        sealed = _keys(secret).seal(key_pem, random_bytes(answers.NONCE_BYTES))
        found = await replace_data(kube, found, {}, {BEGUN: base64.b64encode(sealed).decode()})
    renewed = await renewing.renew(secret, key_pem)
    data = {
        "ca.crt": renewed.ca_pem,
        "tls.crt": renewed.certificate_pem,
        "tls.key": renewed.key_pem,
    }
    await replace_data(kube, found, data, {**annotations(renewed.server), BEGUN: None})
    return renewed


def kept_of_secret(found: Object) -> Object:
    """Give what an informer keeps of a Secret: none of its content."""
    metadata = found["metadata"]
    names = ("namespace", "name", "uid", "resourceVersion")
    noted = {SERVER_URL: metadata.get("annotations", {}).get(SERVER_URL)}
    return {"metadata": {**{name: metadata[name] for name in names}, "annotations": noted}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """When a certificate may be renewed (UTC), and how often that has failed."""

    fingerprint: str
    due: float
    failures: int = 0
    why: str = ""


class Renewals:
    """Renews what `secrets` knows of, which is an informer of the Secrets that we have made.

    `clock` gives UTC seconds. Used from one event loop, by one worker for a Secret.
    """

    def __init__(
        self,
        kube: Kube,
        secrets: Informer,
        recorder: Recorder,
        *,
        clock: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        log: BoundLogger,
        metrics: Metrics | None = None,
    ) -> None:
        self._kube = kube
        self._metrics = metrics
        self._ends: dict[Key, int] = {}
        self._secrets = secrets
        self._recorder = recorder
        self._clock = clock
        self._random_bytes = random_bytes
        self._log = log
        self._tried: dict[Key, _Tried] = {}

    async def renew(self, key: Key) -> float | None:
        """Renew the Secret of this name if it is time; gives the seconds until it is to be seen.

        Raises Unavailable when the API server does not let us read it, Conflict when it has
        changed meanwhile: then it is to be done again.
        """
        seen = self._secrets.get(key)
        if seen is None or not seen["metadata"]["annotations"][SERVER_URL]:
            self._tried.pop(key, None)
            self._note_end(key, None)
            return None
        try:
            found = await self._kube.get(SECRETS, key.name, key.namespace)
        except Missing:
            return None
        try:
            certificate = renewing.look_at(read_link_secret(found).certificate_pem)
        except Invalid as error:
            self._tell(found, error.why)
            return None  # until somebody changes it
        self._note_end(key, certificate.not_after)
        now = self._clock()
        tried = self._tried.get(key)
        if tried is not None and tried.fingerprint != certificate.fingerprint:
            tried = None
        due = certificate.due_at if tried is None else tried.due
        if now < due:
            return min(due - now, _AGAIN_SECONDS)
        return await self._renew(key, found, certificate, tried)

    async def _renew(
        self, key: Key, found: Object, certificate: Certificate, tried: _Tried | None
    ) -> float | None:
        try:
            renewed = await renew_secret(self._kube, found, random_bytes=self._random_bytes)
        except (Refused, Invalid, Unavailable) as error:
            later = isinstance(error, Unavailable)
            self._count(Renewing.UNAVAILABLE if later else Renewing.REFUSED)
            failures = 1 if tried is None else tried.failures + 1
            pause = self._pause(error, failures, certificate)
            why = str(error)
            self._tried[key] = _Tried(
                fingerprint=certificate.fingerprint,
                failures=failures,
                due=self._clock() + pause,
                why=why,
            )
            if tried is None or tried.why != why:
                self._tell(found, why)
            return pause
        self._count(Renewing.RENEWED)
        new = renewing.look_at(renewed.certificate_pem)
        self._note_end(key, new.not_after)
        # Clocks that differ, or the end of an authority, may have made it old already.
        soonest = self._clock() + _LEAST_SECONDS
        self._tried[key] = _Tried(fingerprint=new.fingerprint, due=max(new.due_at, soonest))
        until = rfc3339(renewed.not_after)
        self._log.info("renewed", resource=str(key), until=until)
        self._recorder.tell(SECRETS, found, "Renewed", f"The certificate is good until {until}")
        return None  # the change is on its way to us

    def _count(self, outcome: Renewing) -> None:
        if self._metrics is not None:
            self._metrics.link_tried(outcome)

    def _note_end(self, key: Key, at: int | None) -> None:
        """Note when the certificate in a Secret ends, and tell which is the first to do so."""
        if at == self._ends.get(key):
            return
        if at is None:
            del self._ends[key]
        else:
            self._ends[key] = at
        if self._metrics is not None:
            self._metrics.links_end(min(self._ends.values(), default=None))

    def _pause(self, error: Exception, failures: int, certificate: Certificate) -> float:
        if not isinstance(error, Unavailable):
            return _AGAIN_SECONDS
        pause = _BACKOFF.delay(failures, chance(self._random_bytes))
        left = (certificate.not_after - self._clock()) / _SHARE
        pause = max(min(pause, left), _BACKOFF.base_seconds)
        return max(pause, min(error.retry_after or 0.0, _AGAIN_SECONDS))

    def _tell(self, found: Object, why: str) -> None:
        self._log.warning("not renewed", resource=str(key_of(found)), why=why)
        self._recorder.tell(SECRETS, found, "NotRenewed", why, importance=Importance.WARNING)


def _begun(found: Mapping[str, Any], secret: LinkSecret) -> bytes:
    """Open the key with which a renewal was begun; empty where none was, with the key there is."""
    written = (found["metadata"].get("annotations") or {}).get(BEGUN) or ""
    try:
        return _keys(secret).open(base64.b64decode(written, validate=True)) if written else b""
    except (binascii.Error, ValueError, Broken):
        return b""


def _keys(secret: LinkSecret) -> answers.AnswerKeys:
    return answers.answer_keys(_NO_SALT, secret.key_pem, _PURPOSE)
