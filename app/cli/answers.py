"""What a server's answer means to whoever holds the token: success, or why not and what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import click

from app.cli.exits import one_line
from app.errors import GrantServerError, Reason, Refused, Unavailable
from app.outbound import Answer

_LONGEST_TEXT: Final = 300
_USED_UP: Final = "all its redemptions are used: ask for a new token"
_MEANINGS: Final[Mapping[tuple[int, str], tuple[Reason, str]]] = {
    (404, "No such claim"): (
        Reason.UNKNOWN_GRANT,
        "the grant is unknown, expired or revoked, or not for this site: ask for a new token",
    ),
    (404, "No such access granted"): (Reason.USED_UP, _USED_UP),
    (403, "Redemption of access token refused"): (
        Reason.WRONG_CODE,
        "the code does not belong to the grant: the token was changed, ask for a new one",
    ),
    (400, "Name not valid"): (
        Reason.NAME,
        "give another one with --name: lower-case letters, digits, - and .",
    ),
    (400, "Subject not valid"): (Reason.SUBJECT, "give another one with --subject"),
    (400, "Certificate request not valid"): (
        Reason.CSR,
        "it takes no such key: ask without a request, with --no-csr",
    ),
    (403, "Certificate has been revoked"): (
        Reason.CERTIFICATE_REVOKED,
        "this link was ended over there: ask for a new token",
    ),
    (403, "Certificate has ended"): (
        Reason.CERTIFICATE_ENDED,
        "what this token gave once is over: ask for a new token",
    ),
    (403, "Certificate was superseded"): (
        Reason.CERTIFICATE_SUPERSEDED,
        "what this token gave was renewed since: use that, or ask for a new token",
    ),
    (400, "Request body not valid"): (Reason.BODY, "the token was changed: ask for a new one"),
    (405, "Only POST is supported"): (
        Reason.METHOD,
        "this server redeems tokens but cannot tell what is left of them",
    ),
}
_LATER: Final = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


def check(answer: Answer) -> None:
    """Do nothing for a success; raise what any other answer means.

    Refused for a no, Unavailable for a not now, ClickException for what no server of the wire
    contract would say.
    """
    if answer.status == HTTPStatus.OK:
        return
    text = answer.body.decode(errors="replace").strip()
    said = f"{answer.status} {answer.reason}".strip() + f": {one_line(text[:_LONGEST_TEXT])}"
    raise _meaning(answer, text, said)


def _meaning(answer: Answer, text: str, said: str) -> GrantServerError | click.ClickException:
    status = answer.status
    if known := _MEANINGS.get((status, text)):
        reason, what = known
        return Refused(reason, f"the server answered {said} ({what})")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Unavailable(
            f"the server takes no more attempts from this address for now, nothing was used up "
            f"({said})",
            retry_after=answer.retry_after,
        )
    if status in _LATER:
        return Unavailable(
            f"the server cannot answer now, nothing was used up ({said})",
            retry_after=answer.retry_after,
        )
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return click.ClickException(
            f"the server answered {said} (redirects are not followed: the address is wrong)"
        )
    return click.ClickException(
        f"the server answered {said} (is the address in the token that of a grant server?)"
    )
