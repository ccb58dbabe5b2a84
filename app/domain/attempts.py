"""Attempts that changed nothing: the right code refused, or an answer given once more.

Nobody without the right code gets here, so what is written down is written about somebody who was
handed a token. It may still come as often as its holder likes, and so it is counted, not copied.
"""

from dataclasses import dataclass

from app.domain.audit import Act, Entry
from app.domain.names import printable

_LONGEST = 253
_LONGEST_PEER = 64

SEVERAL = "(several)"
"""Stands for names, subjects and peers that were too many to be told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Who came to which grant with the right code, and what came of it.

    `act` is GRANT_REFUSED or GRANT_ANSWERED_AGAIN; `why` is the reason of a refusal, else empty,
    and `detail` says more of it than who redeems is told, where there is more.
    Two that are equal are the same attempt, made once more.
    """

    grant_id: str
    act: Act
    why: str
    name: str
    subject: str
    peer: str
    detail: str = ""

    def anybody(self) -> "Attempt":
        """The same outcome, whoever it was."""
        return Attempt(
            grant_id=self.grant_id,
            act=self.act,
            why=self.why,
            name=SEVERAL,
            subject=SEVERAL,
            peer=SEVERAL,
        )


def attempt(
    *,
    grant_id: str,
    name: str,
    subject: str,
    peer: str,
    refused: str | None = None,
    detail: str = "",
) -> Attempt:
    """Write an attempt down in a form that can be stored: name and subject were checked by nobody.

    `refused` is the reason of a refusal, None where the answer was given again; a `detail` that
    only repeats it is left out.
    """
    return Attempt(
        grant_id=grant_id,
        act=Act.GRANT_ANSWERED_AGAIN if refused is None else Act.GRANT_REFUSED,
        why=refused or "",
        name=printable(name)[:_LONGEST],
        subject=printable(subject)[:_LONGEST],
        peer=printable(peer)[:_LONGEST_PEER],
        detail="" if detail == (refused or "").replace("_", " ") else printable(detail)[:_LONGEST],
    )


def attempt_entry(made: Attempt, *, at: int, times: int) -> Entry:
    """Say of an attempt what the audit log keeps; `times` is how often it was made until `at`."""
    why = {"why": made.why} if made.why else {}
    if made.detail:
        why["detail"] = made.detail
    return Entry(
        at=at,
        act=made.act,
        actor=f"site:{made.subject}",
        target=f"grant/{made.grant_id}",
        details={"name": made.name, "peer": made.peer, "times": times, **why},
    )
