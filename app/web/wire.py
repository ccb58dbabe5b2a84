"""What a stranger may read: every error of ours as a status and a constant text.

People search for these texts, and a Skupper controller writes them into the status of its
AccessToken: a text that changed from attempt to attempt would wake that controller and make it
ask again at once, hundreds of times a second. So there is one short text per cause, and nothing
of the request or of the moment in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.errors import GrantServerError, Lack, Reason, Refused, Unavailable, Unready
from app.metrics import Trouble


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status and the text of its body, to which a line feed is added."""

    status: int
    text: str


REFUSALS: Final[Mapping[Reason, Refusal]] = {
    Reason.METHOD: Refusal(405, "Only POST is supported"),
    Reason.BODY: Refusal(400, "Request body not valid"),
    Reason.NAME: Refusal(400, "Name not valid"),
    Reason.SUBJECT: Refusal(400, "Subject not valid"),
    Reason.UNKNOWN_GRANT: Refusal(404, "No such claim"),
    Reason.WRONG_CODE: Refusal(403, "Redemption of access token refused"),
    Reason.REVOKED: Refusal(404, "No such claim"),
    Reason.EXPIRED: Refusal(404, "No such claim"),
    Reason.USED_UP: Refusal(404, "No such access granted"),
    Reason.RATE_LIMITED: Refusal(429, "Too many failed attempts"),
    Reason.RENEWAL: Refusal(403, "Renewal refused"),
    Reason.CSR: Refusal(400, "Certificate request not valid"),
    Reason.CERTIFICATE_ENDED: Refusal(403, "Certificate has ended"),
    Reason.CERTIFICATE_REVOKED: Refusal(403, "Certificate has been revoked"),
    Reason.CERTIFICATE_SUPERSEDED: Refusal(403, "Certificate was superseded"),
    Reason.RENEWED_TOO_OFTEN: Refusal(429, "Certificate renewed too often"),
    Reason.UNKNOWN_AUTHORITY: Refusal(404, "No such authority"),
    # As of an expired one: there is no such claim for whoever asks. 403 would mean a wrong code,
    # and a text of its own would tell a thief that somewhere else the code is good.
    Reason.POLICY: Refusal(404, "No such claim"),
}
LACKS: Final[Mapping[Lack, Refusal]] = {
    Lack.ENDPOINTS: Refusal(503, "No valid endpoints found for site"),
    Lack.ISSUER: Refusal(503, "Could not get issuer for requested certificate"),
}
UNAVAILABLE: Final = Refusal(503, "Internal error")
# What should not happen: it is in the log, and a stranger learns nothing of it.
BROKEN: Final = Refusal(500, "Internal error")


def refusal(error: GrantServerError) -> Refusal:
    """Translate any error of ours; what has no business on this path is a fault of ours."""
    match error:
        case Refused(reason=reason):
            return REFUSALS[reason]
        case Unready(lack=lack):
            return LACKS[lack]
        case Unavailable():
            return UNAVAILABLE
        case _:
            return BROKEN


def cause(error: GrantServerError) -> Reason | Lack | Trouble:
    """Name the cause of any error of ours, as metrics count it."""
    match error:
        case Refused(reason=reason):
            return reason
        case Unready(lack=lack):
            return lack
        case Unavailable():
            return Trouble.UNAVAILABLE
        case _:
            return Trouble.BROKEN
