"""`grantserver grant`: permissions to link, made, listed, shown, extended, revoked, removed."""

import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from app import ambient
from app.cli.administration import SeenGrant
from app.cli.commands import Noun
from app.cli.files import STANDARD
from app.cli.grant_explain import command as explain_command
from app.cli.issuing import (
    Choice,
    create_with_token,
    grant_options,
    moment,
    tell_of_token,
    terms,
    warn_if_local,
)
from app.cli.output import (
    Document,
    Form,
    aligned,
    form_option,
    hint,
    paste,
    say,
    show_list,
    show_one,
    table,
    warn,
)
from app.cli.servers import administration
from app.domain import codes, policies
from app.domain.durations import format_seconds, parse_window
from app.domain.grants import Grant, Redemption
from app.domain.policies import Policy
from app.domain.renewals import Given
from app.domain.theft import SuspectedTheft, Suspicion
from app.domain.times import rfc3339

_site_option = click.option("--site", help="Site of the grant, where two sites use one name.")
_LONGEST_CODE_LINE: Final = 4096


@click.group(cls=Noun, name="grant")
def command() -> None:
    """Permissions to link: made, listed, revoked."""


@command.command(
    "create",
    examples=[
        "grantserver grant create lab --site west --redemptions 2 --window 25m",
        "grantserver grant create lab --site west --token lab.yaml",
    ],
)
@click.argument("name")
@grant_options
@click.option(
    "--code",
    help="Secret of the grant, 16 to 256 characters; - reads it from standard input. "
    "Without it, one is made.",
)
@click.option(
    "--token",
    "target",
    metavar="FILE",
    help="Write the code into a token file (- for standard output) instead of printing it.",
)
def _create(name: str, code: str | None, target: str | None, **options: Any) -> None:
    """Create a grant and print its code, once."""
    choice = Choice(**options)
    if code == STANDARD:
        code = _code_from_input()
    elif code is not None:
        warn("every user of this machine can see a code on the command line: use --code -")
    wish = choice.wish(name, code=code)
    there = administration()
    if target is not None:
        tell_of_token(there, create_with_token(there, wish, target, force=choice.force), target)
        return
    reach = there.reach()  # before there is a grant: the code is shown once, and only with a URL
    issued = there.create_grant(wish)
    grant = issued.grant
    say(f"Grant {grant.name} is made: {terms(grant)}.")
    say(
        aligned(
            [
                ("URL", reach.url_of(grant.id)),
                ("Code", issued.code if code is None else "as you gave it"),
            ]
        )
    )
    if code is None:
        say("The code is shown this once and kept nowhere.")
    say("Whoever redeems it needs the CA of the URL as well:")
    say(f"  {there.where_the_ca_is()}")
    say("Next, see what becomes of it:")
    say(f"  {paste('grant', 'show', grant.name, '--site', grant.site)}")
    warn_if_local(there)


@command.command("list", examples=["grantserver grant list", "grantserver grant list --site west"])
@click.option("--site", help="Only the grants of this site.")
@form_option
def _list(site: str | None, form: Form) -> None:
    """List grants, the oldest first."""
    found = administration().grants(site)
    show_list(
        form,
        ("name", "site", "kind", "redemptions", "expiration", "state", "cost"),
        [
            (
                one.grant.name,
                one.grant.site,
                one.kind,
                _used(one.grant),
                rfc3339(one.grant.expires_at),
                _state(one) + (", suspected token theft" if one.suspected else ""),
                one.grant.cost,
            )
            for one in found
        ],
        [_document(one) for one in found],
        empty="There are no grants"
        + (f" of site {site}" if site else "")
        + ". Issue a token, which makes one:\n  "
        + paste("token", "issue", "token.yaml", *(("--site", site) if site else ())),
    )


@command.command("show", examples=["grantserver grant show lab --site west"])
@click.argument("name")
@_site_option
@form_option
def _show(name: str, site: str | None, form: Form) -> None:
    """Show a grant (by its name or id) and who has redeemed it.

    It shows suspected token theft too: who came with the code after its last redemption.
    """
    now = ambient.utc_now()
    shown = administration().grant(name, site)
    grant, redemptions, resource = shown.seen.grant, shown.redemptions, shown.seen.resource
    given, suspected, url = shown.given, shown.theft, shown.url
    facts: list[tuple[str, object]] = [
        ("Name", grant.name),
        ("Id", grant.id),
        ("Site", grant.site),
        ("Kind", shown.seen.kind),
        *([("AccessGrant", "/".join(resource))] if resource is not None else []),
        ("State", _state(shown.seen)),
        ("Redemptions", _used(grant)),
        ("Created", rfc3339(grant.created_at)),
        ("Expiration", rfc3339(grant.expires_at)),
        *([("Revoked", rfc3339(grant.revoked_at))] if grant.revoked_at is not None else []),
        ("Cost", grant.cost),
        ("Issuer", grant.issuer or "the site's"),
        *_policy_facts(grant),
        ("URL", url or "none yet: nobody knows an address of the server"),
    ]
    document = {
        **_document(shown.seen),
        "url": url,
        "redemptions": [_redemption(one, given, now) for one in redemptions],
        "suspectedTokenTheft": None if suspected is None else _theft(suspected),
    }
    show_one(form, facts, document)
    if not shown.seen.at_home:
        hint("note: only the server itself shows certificates that followed, and suspected theft")
    if form is Form.TABLE and redemptions:
        say()
        say(_redemptions_table(redemptions))
    if form is Form.TABLE and given and any(one.replaces is not None for one in given):
        say()
        say("Certificates, as they followed:")
        say(_certificates_table(given, now))
    if form is Form.TABLE and suspected is not None:
        say()
        say("Suspected token theft: the code came again, from somebody else.")
        say(
            table(
                ("came", "time", "name", "subject", "from"),
                [
                    *([] if suspected.first is None else [("first", *_came(suspected.first))]),
                    *(("later", *_came(one)) for one in suspected.later),
                ],
            )
        )


command.add_command(explain_command)


@command.command(
    "extend",
    examples=[
        "grantserver grant extend lab --site west --window 1h",
        "grantserver grant extend lab --until 2027-03-01T08:00:00Z --redemptions 5",
    ],
)
@click.argument("name")
@_site_option
@click.option("--window", metavar="DURATION", help="How long it can be redeemed, from now on.")
@click.option("--until", metavar="TIME", help="Until when, instead: 2027-03-01T08:00:00Z.")
@click.option(
    "--redemptions",
    type=int,
    metavar="N",
    help="How many times it can be redeemed, those that were made included.",
)
def _extend(
    name: str, site: str | None, window: str | None, until: str | None, redemptions: int | None
) -> None:
    """Let a grant be redeemed for longer, or more often.

    The code stays, so whoever had it can redeem once more. A grant that has expired, or is used
    up, is open again. One that was revoked stays so.
    """
    if (window is None) is (until is None) and (window is not None or redemptions is None):
        raise click.UsageError("give --window or --until, --redemptions, or both")
    seconds = None if window is None else parse_window(window)
    ends = None if until is None else moment("until", until)
    grant = administration().extend_grant(
        name, site, window_seconds=seconds, until=ends, redemptions=redemptions
    )
    say(
        f"Grant {grant.name} of site {grant.site} can be redeemed until "
        f"{rfc3339(grant.expires_at)}; it was redeemed {_used(grant)}."
    )


@command.command(
    "revoke",
    examples=[
        "grantserver grant revoke lab --site west",
        "grantserver grant revoke lab --site west --redemption 2",
    ],
)
@click.argument("name")
@_site_option
@click.option(
    "--redemption",
    "ordinal",
    type=int,
    metavar="N",
    help="Revoke only the certificates of the redemption of this number; the grant stays.",
)
def _revoke(name: str, site: str | None, ordinal: int | None) -> None:
    """End a grant at once, and revoke every certificate that was given out with it.

    A revoked certificate is renewed no more and stands in the revocation list (`ca crl`). Routers
    do not read that list: a link ends at the latest when its certificate does.
    """
    there = administration()
    if ordinal is not None:
        revoked = there.revoke_redemption(name, site, ordinal)
        grant = revoked.grant
        say(
            f"Redemption {ordinal} of grant {grant.name} of site {grant.site} is revoked: "
            f"{_certificates(revoked.certificates)}."
        )
    else:
        revoked = there.revoke_grant(name, site)
        grant = revoked.grant
        say(
            f"Grant {grant.name} of site {grant.site} is revoked; it was redeemed {_used(grant)}: "
            f"{_certificates(revoked.certificates)}."
        )
    last = there.linked_until(grant, ordinal)
    if last is not None:
        say("Routers do not ask whether a certificate was revoked: what it links may stay linked")
        say(f"until it ends, at {rfc3339(last)} at the latest.")


@command.command("remove", examples=["grantserver grant remove lab --site west"])
@click.argument("name")
@_site_option
def _remove(name: str, site: str | None) -> None:
    """Remove a grant and the list of its redemptions; the audit log keeps both."""
    grant = administration().remove_grant(name, site)
    say(f"Grant {grant.name} of site {grant.site} is removed; its history stays in the audit log:")
    say(f"  {paste('audit', 'list', '--target', f'grant/{grant.id}')}")


def _code_from_input() -> str:
    """Read a code: typed without being shown, or the first line of what is piped in."""
    if sys.stdin.isatty():
        return str(click.prompt("Code", hide_input=True, err=True))
    code = sys.stdin.readline(_LONGEST_CODE_LINE).removesuffix("\n").removesuffix("\r")
    codes.check_chosen(code)  # an empty one would otherwise mean "make one"
    return code


def _used(grant: Grant) -> str:
    return f"{grant.spent} of {grant.allowed}"


def _certificates(revoked: int) -> str:
    if not revoked:
        return "there was no certificate left to revoke"
    return f"{revoked} certificate{'' if revoked == 1 else 's'} revoked with it"


def _state(seen: SeenGrant) -> str:
    return seen.state.replace("_", " ")


def _policy_facts(grant: Grant) -> list[tuple[str, object]]:
    """What few grants have: lines for a person, and none for what was not given."""
    policy = grant.policy or Policy()
    lifetime = policy.lifetime_seconds
    found: list[tuple[str, object]] = [
        ("Description", " ".join(grant.description.split())),
        ("Labels", ", ".join(f"{name}={value}" for name, value in sorted(grant.labels.items()))),
        ("Not before", "" if grant.not_before is None else rfc3339(grant.not_before)),
        ("Subjects", ", ".join(policy.subjects)),
        ("From", ", ".join(policy.networks)),
        ("Per subject", policy.per_subject),
        ("Name prefix", policy.name_prefix),
        ("Lifetime", None if lifetime is None else format_seconds(lifetime)),
        ("Key type", policy.key_type),
        ("Policy", "" if policy.understood else "of a later release: nobody fulfils it"),
    ]
    return [(name, value) for name, value in found if value]


def _redemptions_table(redemptions: Sequence[Redemption]) -> str:
    any_revoked = any(one.revoked_at is not None for one in redemptions)
    rows = [
        (
            one.ordinal,
            *_came(one),
            one.serial,
            *([_time(one.revoked_at)] if any_revoked else []),
        )
        for one in redemptions
    ]
    revoked = ("revoked",) if any_revoked else ()
    return table(("", "time", "name", "subject", "from", "serial", *revoked), rows)


def _certificates_table(given: Sequence[Given], now: int) -> str:
    return table(
        ("", "issued", "ends", "state", "serial"),
        [
            (
                one.ordinal,
                rfc3339(one.issued_at),
                rfc3339(one.not_after),
                _certificate_state(one, now),
                one.serial,
            )
            for one in given
        ],
    )


def _certificate_state(one: Given, now: int) -> str:
    if one.revoked_at is not None:
        return f"revoked {rfc3339(one.revoked_at)}"
    if now > one.not_after:
        return "ended"
    if one.superseded_at is not None:
        past = one.superseded(now)
        return f"superseded {'' if past else 'from '}{rfc3339(one.superseded_at)}"
    return "good"


def _came(one: Redemption | Suspicion) -> tuple[str, str, str, str]:
    at = one.redeemed_at if isinstance(one, Redemption) else one.at
    return rfc3339(at), one.name, one.subject, one.peer


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


def _document(seen: SeenGrant) -> Document:
    grant, resource = seen.grant, seen.resource
    return {
        "name": grant.name,
        "id": grant.id,
        "site": grant.site,
        "kind": seen.kind,
        "accessGrant": None
        if resource is None
        else dict(zip(("namespace", "name"), resource, strict=True)),
        "state": seen.state.value,
        "redemptionsAllowed": grant.allowed,
        "redemptionsMade": grant.spent,
        "creationTime": rfc3339(grant.created_at),
        "expirationTime": rfc3339(grant.expires_at),
        "revocationTime": _time(grant.revoked_at),
        "linkCost": grant.cost,
        "issuer": grant.issuer,
        "tokenTheftSuspected": seen.suspected,
        "description": grant.description,
        "labels": dict(grant.labels),
        "notBefore": _time(grant.not_before),
        "policy": None if grant.policy is None else policies.document(grant.policy),
    }


def _redemption(one: Redemption, given: Sequence[Given] | None, now: int) -> Document:
    return {
        "ordinal": one.ordinal,
        "time": rfc3339(one.redeemed_at),
        "name": one.name,
        "subject": one.subject,
        "peer": one.peer,
        "serial": one.serial,
        "fingerprint": one.fingerprint,
        "notAfter": rfc3339(one.not_after),
        "revocationTime": _time(one.revoked_at),
        "certificates": None
        if given is None
        else [_certificate(each, now) for each in given if each.ordinal == one.ordinal],
    }


def _certificate(one: Given, now: int) -> Document:
    return {
        "serial": one.serial,
        "fingerprint": one.fingerprint,
        "issuedAt": rfc3339(one.issued_at),
        "notAfter": rfc3339(one.not_after),
        "replaces": one.replaces,
        "supersededAt": _time(one.superseded_at),
        "revocationTime": _time(one.revoked_at),
        "good": one.counts(now),
    }


def _theft(suspected: SuspectedTheft) -> Document:
    return {
        "first": None if suspected.first is None else _party(suspected.first),
        "later": [_party(one) for one in suspected.later],
    }


def _party(one: Redemption | Suspicion) -> Document:
    return dict(zip(("time", "name", "subject", "peer"), _came(one), strict=True))
