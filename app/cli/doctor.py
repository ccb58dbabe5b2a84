"""`grantserver doctor`: looks at what breaks in practice, this machine's and the network's side."""

from collections.abc import Iterator

import click

from app import ambient
from app.cli.asking import ask
from app.cli.commands import Verb
from app.cli.exits import Exit, problems
from app.cli.issuing import is_local
from app.cli.opening import opened, settings
from app.cli.output import Form, form_option, say, show_list, table
from app.domain import self_check
from app.domain.reach import Reach
from app.domain.self_check import Outcome
from app.errors import GrantServerError, Misconfigured, Unavailable
from app.home import Home
from app.services import addresses
from app.services.doctor import (
    ADDRESS,
    Finding,
    Verdict,
    examine,
    examine_machine,
    public_address,
    served_fingerprints,
)
from app.services.self_check import check
from app.services.serving import Source
from app.settings import Settings


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
        source = home.source
        hosts = _hosts(home, source)
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
    private = (known.data.dir, *home.database.private_paths(), known.sealing.key_file)
    return [
        *examine(
            home.database,
            home.keyring,
            hosts=hosts,
            files=source.files,
            private_paths=list(dict.fromkeys(private)),
            now=ambient.utc_now(),
        ),
        *_dial(home, source),
    ]


def _hosts(home: Home, source: Source) -> list[str]:
    """The hosts that the server certificate has to carry, as far as anybody knows them."""
    told = addresses.told(home.database)
    first = Reach(url=source.url or told.url or source.fallback, ca_pem="").host
    return list(dict.fromkeys(host for host in (first, *told.hosts, *source.hosts) if host))


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


def _dial(home: Home, source: Source) -> Iterator[Finding]:
    """Dial the public address as a client does."""
    try:
        reach, waiting = source.way()
        ours = served_fingerprints(home.database, source.files)
    except GrantServerError as error:
        reach, waiting = None, str(error)
    if reach is None:
        found = self_check.Finding(outcome=Outcome.UNKNOWN, detail=waiting)
        yield public_address(found, "")
        return
    if is_local(reach.host):
        yield Finding(
            check=ADDRESS,
            verdict=Verdict.WARNING,
            found=f"tokens lead to {reach.url}, which works on this machine only",
            remedy="set GRANTSERVER_REACH_URL to an address that other sites can reach",
        )
    yield public_address(ask(check(reach.url, reach.ca_pem, ours)), reach.url)


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
