"""What the status of an AccessToken says, in the words that people search for, and what it means.

Pure. The texts are those of Skupper's own controller, but for what goes on in the network, which
every program says in its own way. A text is the same for the same cause, as often as it happens.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from app.errors import GrantServerError, Invalid
from app.kube.applier import Condition
from app.outbound import Answer

REDEEMED: Final = "Redeemed"
"""The one condition, and the Event of a success."""
OK: Final = "OK"
NO_CA: Final = "token does not have a CA"
DELETED_SITE: Final = "Already redeemed for a deleted site"
UNDECODABLE: Final = "Controller could not decode response"

_READY: Final = "Ready"
_ERROR: Final = "Error"
_FROM_FAR: Final = "Controller got "
_FAILED: Final = f"{_FROM_FAR}failed response: "
_SCHEME: Final = "token url scheme must be https"
_NO_URL: Final = "could not parse token url: "
_STATUS: Final = re.compile(rf"{re.escape(_FAILED)}(\d{{3}}) ")
_LONGEST_MESSAGE: Final = 32768  # characters that a condition takes
_LATER: Final = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
"""What a server below 500 says that is no refusal."""
_OLD_PHRASES: Final[Mapping[int, str]] = {
    413: "Request Entity Too Large",
    414: "Request URI Too Long",
    416: "Requested Range Not Satisfiable",
    418: "I'm a teapot",
    422: "Unprocessable Entity",
}
"""As Go knows them; others have got other names over time, also from one Python to the next."""


def not_to_be_asked(error: Invalid) -> str:
    """Say what is wrong with a token, before anything is sent."""
    if error.field == "ca":
        return NO_CA
    if error.why == _SCHEME:
        return _SCHEME
    return f"{_NO_URL}it {error.why.removeprefix('token url ')}"


def no_answer(url: str, error: GrantServerError) -> str:
    """Say that there was no answer, and why."""
    why = error.why if isinstance(error, Invalid) else str(error)
    return _cut(f'{_FROM_FAR}error: Post "{url}": {why}')


def not_a_success(answer: Answer) -> str:
    """Say what was answered instead of a success."""
    phrase = _OLD_PHRASES.get(answer.status, answer.reason)
    text = answer.body.decode(errors="replace").strip()
    return _cut(f"{_FAILED}{answer.status} ({phrase}) {text}")


def secret_not_stored(error: GrantServerError) -> str:
    """Say why the Secret is not there."""
    return _cut(f"Controller could not create received secret: {error}")


def link_not_stored(error: GrantServerError) -> str:
    """Say why a Link is not there."""
    return _cut(f"Controller could not create received link: {error}")


def is_final(message: str) -> bool:
    """Tell whether nothing else can come of a token as it is.

    The far side has said no, or something that cannot be used: to post again would use up another
    redemption. Or nobody was asked at all.
    """
    if message in {OK, NO_CA, _SCHEME, UNDECODABLE} or message.startswith(_NO_URL):
        return True
    found = _STATUS.match(message)
    status = int(found[1]) if found else HTTPStatus.INTERNAL_SERVER_ERROR
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _LATER


def is_of_the_far_side(message: str) -> bool:
    """Tell whether somebody else would have to be asked again, and not the API server here."""
    return message.startswith(_FROM_FAR)


def fields(message: str, *, redeemed: bool) -> dict[str, Any]:
    """Give the fields of a status that says so."""
    return {
        "redeemed": redeemed,
        "status": _READY if message == OK else _ERROR,
        "message": message,
    }


def condition(message: str, *, redeemed: bool) -> Condition:
    """Give the condition of a status that says so."""
    reason = _READY if message == OK else _ERROR
    return Condition(type=REDEEMED, status=redeemed, reason=reason, message=message)


def told(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the condition in a status; empty where there is none."""
    conditions = status.get("conditions") or ()
    return next((one for one in conditions if one.get("type") == REDEEMED), {})


def _cut(message: str) -> str:
    """Leave out what a terminal would take for orders, and what a condition has no room for."""
    shown = "".join(one if one.isprintable() or one == "\n" else " " for one in message)
    return shown[:_LONGEST_MESSAGE]
