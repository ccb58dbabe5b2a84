"""Renew the certificate of a link's Secret at the server that gave it.

One attempt: whether it is due, which key it uses, what the server says, and whether that fits.
Where the Secret is kept, and when another attempt is made, is the caller's matter.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from app import ambient, outbound
from app.crypto import keys
from app.crypto.chains import check_pair
from app.crypto.facts import facts, verify_issued_by
from app.crypto.requests import make_request, sign_renewal
from app.domain.certificates import KeyType
from app.domain.link_secrets import LinkSecret, Renewed, Server, read_renewal
from app.domain.times import rfc3339
from app.errors import Invalid, Reason, Refused, Unavailable

_HASH_BITS: Final = 32
_LONGEST_TEXT: Final = 200
_NO_SERVER_OF_OURS: Final = "it seems to be no server that renews certificates"
_ASK_ANEW: Final = "redeem a new token"
MEANINGS: Final[Mapping[str, tuple[Reason, str]]] = {
    "Renewal refused": (Reason.RENEWAL, f"it does not know this certificate: {_ASK_ANEW}"),
    "Certificate has ended": (
        Reason.CERTIFICATE_ENDED,
        f"it was not renewed in time: {_ASK_ANEW}",
    ),
    "Certificate has been revoked": (
        Reason.CERTIFICATE_REVOKED,
        "this link was ended over there",
    ),
    "Certificate was superseded": (
        Reason.CERTIFICATE_SUPERSEDED,
        f"another copy of it was renewed meanwhile: {_ASK_ANEW}",
    ),
    "Certificate request not valid": (Reason.CSR, "it takes no key of this kind"),
    "Request body not valid": (Reason.BODY, "it does not take what this program sends"),
}
"""What the refusals of a renewal mean to whoever wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """When a certificate in hand was made, ends, and is to be renewed (UTC seconds).

    `fingerprint` is its SHA-256 in lower-case hexadecimal.
    """

    subject: str
    fingerprint: str
    not_before: int
    not_after: int
    due_at: int


def look_at(certificate_pem: bytes) -> Certificate:
    """Tell when a certificate is to be renewed. Raises Invalid("certificate", …).

    When two thirds of its life have passed, and up to a twenty-fourth more: how much is read from
    its fingerprint, so that links that were made together do not all come at once.
    """
    found = facts(certificate_pem)
    life = found.not_after - found.not_before
    jitter = (life // 24) * int(found.fingerprint[: _HASH_BITS // 4], 16) >> _HASH_BITS
    return Certificate(
        subject=found.subject,
        fingerprint=found.fingerprint,
        not_before=found.not_before,
        not_after=found.not_after,
        due_at=found.not_before + life * 2 // 3 + jitter,
    )


def next_key() -> bytes:
    """Make the key (PEM) of the next certificate.

    It is to be kept until that is stored: the same key again gives the same certificate again.
    """
    return keys.make_pair(KeyType.P256).private_pem


async def renew(
    secret: LinkSecret, key_pem: bytes, *, seconds: float = outbound.TIME_LIMIT_SECONDS
) -> Renewed:
    """Ask for a certificate for a key that the Secret is to have next, and check what comes.

    What would be worse than the certificate in hand is not taken.

    The same key again gives the same certificate again: an attempt whose answer was lost has to
    be made with the same one. Raises Refused when the server says no for good, Unavailable when
    there is no answer that could be used (`retry_after` where it says when to come), and Invalid
    for what is in the Secret.
    """
    in_hand = look_at(secret.certificate_pem)
    check_pair(secret.certificate_pem, secret.key_pem)
    csr = make_request(key_pem, secret.name or "renewal")
    answer = await outbound.renew(
        secret.server.url,
        ca_pem=secret.server.ca_pem.encode(),
        certificate_pem=secret.certificate_pem,
        csr=csr,
        signature=sign_renewal(secret.key_pem, csr),
        seconds=seconds,
    )
    check(answer)
    try:
        renewed = read_renewal(json.loads(answer.body), key_pem=key_pem)
        not_after = _check(renewed, in_hand, ambient.utc_now())
    except (Invalid, ValueError, RecursionError) as error:
        why = error.why if isinstance(error, Invalid) else "it is not JSON"
        raise Unavailable(f"the answer to the renewal cannot be used: {why}") from error
    server = await _next_server(secret.server, renewed.server, seconds)
    return replace(renewed, server=server, not_after=not_after)


def check(answer: outbound.Answer) -> None:
    """Do nothing for a success; raise Refused or Unavailable for any other answer to a renewal.

    A server that renews nothing says so in whatever words, and is final too.
    """
    if answer.status == HTTPStatus.OK:
        return
    text = answer.body[:_LONGEST_TEXT].decode(errors="replace").strip()
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    said = f"{answer.status} {answer.reason}".strip() + f": {text}"
    if (
        answer.status == HTTPStatus.TOO_MANY_REQUESTS
        or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        raise Unavailable(
            f"the server cannot renew it now ({said})", retry_after=answer.retry_after
        )
    reason, why = MEANINGS.get(text, (Reason.RENEWAL, _NO_SERVER_OF_OURS))
    raise Refused(reason, f"the server answered {said} ({why})")


async def _next_server(old: Server, new: Server, seconds: float) -> Server:
    """Choose where the next renewal is asked for: elsewhere only if that is reached from here.

    The other side may believe something of its address that is not so; nothing would lead back.
    """
    if new == old:
        return old
    try:
        sight = await outbound.look(f"{new.url}/", ca_pem=new.ca_pem.encode(), seconds=seconds)
    except Invalid:
        return old
    return new if sight.answer is not None else old


def _check(renewed: Renewed, in_hand: Certificate, now: int) -> int:
    """See to it that what came can take the place of what is in hand, and tell when it ends.

    It is a certificate for our key, in our name, by the CA beside it, and good now. Where the one
    in hand is not due, it does not end before that one.
    """
    made = facts(renewed.certificate_pem)
    if made.subject != in_hand.subject:
        raise Invalid("certificate", "it is for somebody else")
    check_pair(renewed.certificate_pem, renewed.key_pem)
    verify_issued_by(renewed.certificate_pem, renewed.ca_pem)
    if made.not_before > now:
        raise Invalid(
            "certificate",
            f"it is not good before {rfc3339(made.not_before)}, and here it is {rfc3339(now)}: "
            "compare the clocks",
        )
    if made.not_after <= now:
        raise Invalid("certificate", f"it has ended already, at {rfc3339(made.not_after)}")
    if now < in_hand.due_at and made.not_after < in_hand.not_after:
        raise Invalid(
            "certificate",
            f"it ends at {rfc3339(made.not_after)}, before the one in hand "
            f"({rfc3339(in_hand.not_after)})",
        )
    return made.not_after
