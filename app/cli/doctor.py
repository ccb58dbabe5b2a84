"""`grantserver doctor`: looks at what breaks in practice, this machine's and the network's side."""

import uuid
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import click

from app import ambient, outbound
from app.cli.asking import ask
from app.cli.commands import Verb
from app.cli.exits import Exit, problems
from app.cli.issuing import is_local
from app.cli.opening import opened, settings
from app.cli.output import Form, form_option, say, show_list, table
from app.domain import codes
from app.domain.reach import Reach
from app.errors import GrantServerError, Invalid, Misconfigured, Unavailable
from app.services.doctor import Finding, Verdict, examine, examine_machine
from app.settings import Settings

_CHECK: Final = "public address"
_SECONDS: Final = 5.0
_UNKNOWN_GRANT: Final = b"No such claim"


@click.command("doctor", cls=Verb, examples=["grantserver doctor", "grantserver doctor -o json"])
@form_option
def command(form: Form) -> None:
    """Look at what breaks in practice, and say what to do.

    Nothing is changed. Ends with 1 when something is broken, with 0 when there are at most
    warnings.
    """
    findings = _findings(settings())
    if form is Form.TABLE:
        _show(findings)
    else:
        show_list(
            form,
            (),
            (),
            [
                {
                    "check": one.check,
                    "verdict": one.verdict.value,
                    "found": one.found,
                    "remedy": one.remedy,
                }
                for one in findings
            ],
            empty="",
        )
    if any(one.verdict is Verdict.PROBLEM for one in findings):
        click.get_current_context().exit(Exit.FAILED)


def _findings(known: Settings) -> list[Finding]:
    if not known.data.dir.is_dir():
        return [
            Finding(
                check="data directory",
                verdict=Verdict.PROBLEM,
                found=f"{known.data.dir.absolute()} is not there",
                remedy="go to where the server was started or set GRANTSERVER_DATA_DIR; "
                "on a new machine, start it: grantserver serve",
            )
        ]
    try:
        home = opened()
        reach = home.reach()
    except GrantServerError as error:
        remedy = _opening_remedy(error, known)
        return [
            *examine_machine(
                private_paths=[known.data.dir, known.sealing.key_file], now=ambient.utc_now()
            ),
            *(
                Finding(check="opening", verdict=Verdict.PROBLEM, found=line, remedy=remedy)
                for line in problems(error)
            ),
        ]
    hosts = list(dict.fromkeys((reach.host, *known.reach.hosts)))
    private = (known.data.dir, *home.database.private_paths(), known.sealing.key_file)
    return [
        *examine(
            home.database,
            home.keyring,
            hosts=hosts,
            private_paths=list(dict.fromkeys(private)),
            now=ambient.utc_now(),
        ),
        *_dial(reach),
    ]


def _opening_remedy(error: GrantServerError, known: Settings) -> str:
    match error:
        case Misconfigured():  # these say themselves what to mend
            return "mend that and run this again: neither server nor commands work before"
        case Unavailable():
            return (
                "see that the database answers, that the disk has room and that "
                f"{known.data.dir} belongs to this user"
            )
        case _:
            return "stop the server and restore the newest backup, with its sealing keys"


def _dial(reach: Reach) -> Iterator[Finding]:
    """Ask the public address for a grant that nobody has: the right server says so."""
    if is_local(reach.host):
        yield Finding(
            check=_CHECK,
            verdict=Verdict.WARNING,
            found=f"tokens lead to {reach.url}, which works on this machine only",
            remedy="set GRANTSERVER_REACH_URL to an address that other sites can reach",
        )
    nobody = str(uuid.UUID(bytes=ambient.random_bytes(16), version=4))
    nothing = codes.generate(ambient.random_bytes).encode()
    try:
        answer = ask(
            outbound.inspect(
                reach.url_of(nobody),
                code=nothing,
                ca_pem=reach.ca_pem.encode(),
                seconds=_SECONDS,
            )
        )
    except (Unavailable, Invalid) as error:
        yield Finding(
            check=_CHECK,
            verdict=Verdict.WARNING,
            found=str(error),
            remedy=f"start the server (grantserver serve), and see that {reach.url} leads to it",
        )
        return
    if answer.status == HTTPStatus.NOT_FOUND and answer.body.strip() == _UNKNOWN_GRANT:
        yield Finding(
            check=_CHECK,
            verdict=Verdict.OK,
            found=f"{reach.url} answers, with a certificate of our CA",
        )
    else:
        yield Finding(
            check=_CHECK,
            verdict=Verdict.WARNING,
            found=f"{reach.url} answers {answer.status} {answer.reason} to what no grant has",
            remedy="see the server's log, and that the address leads to this server",
        )


def _show(findings: list[Finding]) -> None:
    rows: list[tuple[str, str, str]] = []
    for one in findings:
        rows.append((one.verdict.value, one.check, one.found))
        if one.remedy:
            rows.append(("", "", f"-> {one.remedy}"))
    say(table(("result", "check", "found"), rows))
    verdicts = [one.verdict for one in findings]
    say()
    say(f"problems: {verdicts.count(Verdict.PROBLEM)}, warnings: {verdicts.count(Verdict.WARNING)}")
