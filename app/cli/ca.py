"""`grantserver ca`: the authorities that sign: made, imported, shown, rotated, exported."""

import base64
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from app import ambient
from app.cli.administration import SeenAuthority
from app.cli.commands import Noun
from app.cli.files import PRIVATE, PUBLIC, STANDARD, new_file, read_input
from app.cli.opening import actor, opened
from app.cli.output import (
    ENDPOINTS,
    Document,
    Form,
    form_option,
    kind,
    paste,
    say,
    show_list,
    show_one,
    warn,
)
from app.cli.servers import administration
from app.crypto import crl
from app.domain import yaml_documents
from app.domain.authorities import Authority, Purpose, State
from app.domain.certificates import CertificateFacts, KeyType
from app.domain.durations import parse_window
from app.domain.times import rfc3339
from app.home import rotation_times
from app.services import authorities, revocation_lists, rotation

_SIGNS: Final = {
    Purpose.SITE: "links to sites",
    Purpose.SERVER: "this server's certificate",
}


@click.group(cls=Noun, name="ca")
def command() -> None:
    """The authorities that sign certificates."""


@command.command(
    "init",
    examples=["grantserver ca init lab-ca", "grantserver ca init lab-ca --key-type rsa-2048"],
)
@click.argument("name")
@click.option(
    "--key-type",
    type=click.Choice([kind.value for kind in KeyType]),
    default=KeyType.P256.value,
    show_default=True,
    help="Kind of its private key.",
)
@click.option(
    "--lifetime",
    default="87600h",
    show_default=True,
    metavar="DURATION",
    help="How long it is valid: 87600h is ten years.",
)
def _init(name: str, key_type: str, lifetime: str) -> None:
    """Make an authority that signs for sites."""
    seconds = parse_window(lifetime, field="lifetime")
    home = opened()
    made = authorities.create(
        home.database,
        home.keyring,
        name=name,
        key_type=KeyType(key_type),
        lifetime_seconds=seconds,
        actor=actor(),
        now=ambient.utc_now(),
        random_bytes=ambient.random_bytes,
    )
    say(f"Authority {made.name} is made, good until {rfc3339(made.not_after)}.")
    _tell_next(made)


@command.command(
    "import",
    examples=[
        "grantserver ca import lab-ca --certificate ca.pem --key ca.key",
        "grantserver ca import west-ca --dir namespaces/default/runtime/issuers/skupper-site-ca",
    ],
)
@click.argument("name")
@click.option(
    "--certificate",
    metavar="FILE",
    help="Its certificate in PEM, then those above it, if there are any.",
)
@click.option("--key", metavar="FILE", help="Its private key in PEM (PKCS#1, SEC1 or PKCS#8).")
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A directory that holds both, as tls.crt and tls.key.",
)
def _import(name: str, certificate: str | None, key: str | None, directory: Path | None) -> None:
    """Keep an authority that exists already, such as that of a Skupper site."""
    if directory is not None and certificate is None and key is None:
        certificate, key = str(directory / "tls.crt"), str(directory / "tls.key")
    elif directory is not None or certificate is None or key is None:
        raise click.UsageError("say either --certificate and --key, or --dir alone")
    certificate_pem = read_input(certificate, what="certificate")
    key_pem = read_input(key, what="key")
    home = opened()
    kept = authorities.import_authority(
        home.database,
        home.keyring,
        name=name,
        certificate_pem=certificate_pem,
        key_pem=key_pem,
        actor=actor(),
        now=ambient.utc_now(),
        random_bytes=ambient.random_bytes,
    )
    say(f"Authority {kept.name} is kept, its key sealed; good until {rfc3339(kept.not_after)}.")
    now = ambient.utc_now()
    if kept.not_after <= now:
        warn("it has ended already: nothing can be signed with it")
    elif kept.not_before > now:
        warn(f"it begins at {rfc3339(kept.not_before)}: nobody accepts before then what it signs")
    _tell_next(kept)


@command.command("list", examples=["grantserver ca list"])
@form_option
def _list(form: Form) -> None:
    """List all authorities."""
    found = administration().authorities()
    show_list(
        form,
        ("name", "signs", "state", "made", "ends"),
        [
            (
                one.authority.name,
                _SIGNS[one.authority.purpose],
                one.authority.state.value,
                _made(one),
                rfc3339(one.authority.not_after),
            )
            for one in found
        ],
        [_document(one) for one in found],
        empty=f"There are no authorities. Make one:\n  {paste('ca', 'init', 'NAME')}",
    )


@command.command("show", examples=["grantserver ca show site-ca"])
@click.argument("name")
@form_option
def _show(name: str, form: Form) -> None:
    """Show what is in an authority's certificate."""
    seen, facts = administration().authority(name)
    authority = seen.authority
    shown: list[tuple[str, object]] = [
        ("Name", authority.name),
        ("Signs", _SIGNS[authority.purpose]),
        ("State", _state(seen)),
        ("Made", f"{_made(seen)}, {rfc3339(authority.created_at)}"),
        ("Subject", facts.subject),
        ("Issuer", facts.issuer),
        ("Serial", facts.serial),
        ("Not before", rfc3339(facts.not_before)),
        ("Not after", rfc3339(facts.not_after)),
        ("Key", facts.key),
        ("SHA-256", facts.fingerprint),
    ]
    show_one(form, shown, {**_document(seen), **_in_certificate(facts)})


@command.command(
    "export",
    examples=[
        "grantserver ca export server-ca --out server-ca.pem",
        "grantserver ca export site-ca --with-key --out site-ca-secret.yaml",
    ],
)
@click.argument("name")
@click.option(
    "--out",
    "target",
    metavar="FILE",
    default=STANDARD,
    help="Write to this file instead of standard output.",
)
@click.option(
    "--with-key",
    is_flag=True,
    help="Write certificate and private key as a Kubernetes Secret, mode 0600; needs --out.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there already.")
def _export(name: str, target: str, with_key: bool, force: bool) -> None:
    """Write an authority's certificate, or a Secret with its private key too.

    With that of one that signs go the certificates of its other generations that are to be
    trusted, prepared and retired ones. The Secret is what Skupper reads as a site's issuer, so that
    a site and this server can sign with the same authority.
    """
    if with_key and target == STANDARD:
        raise click.UsageError("--with-key needs --out FILE: a private key is not shown")
    home = opened()
    authority, _ = authorities.show(home.database, name)
    text = authority.certificate_pem
    if authority.state is State.ACTIVE:
        text = rotation.trust_bundle(home.database, name)
    if target == STANDARD:
        say(text.rstrip("\n"))
        return
    with ExitStack() as stack:
        file = stack.enter_context(
            new_file(Path(target), force=force, mode=PRIVATE if with_key else PUBLIC)
        )
        if with_key:
            key_pem = authorities.export_key(
                home.database, home.keyring, name, actor=actor(), now=ambient.utc_now()
            )
            text = _secret(authority, text, key_pem)
        file.write(text.encode())
    what = "certificate and private key, which nobody else may read," if with_key else "certificate"
    say(f"The {what} of {name} {'are' if with_key else 'is'} in {target}.")


@command.command(
    "crl",
    examples=[
        "grantserver ca crl site-ca --out site-ca.crl",
        "grantserver ca crl site-ca --pem",
    ],
)
@click.argument("name")
@click.option(
    "--out",
    "target",
    metavar="FILE",
    default=STANDARD,
    help="Write to this file instead of standard output.",
)
@click.option("--pem", is_flag=True, help="Write PEM instead of DER.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def _crl(name: str, target: str, pem: bool, force: bool) -> None:
    """Write the list of certificates that an authority of sites has signed and that were revoked.

    Renewed ones are on it too, once the new ones count alone. The list (RFC 5280) is good for a
    day; the server gives out the same at /crl/NAME.crl. Each generation of an authority signs a
    list of its own, under its own name.
    """
    home = opened()
    made = revocation_lists.make(home.database, home.keyring, name, now=ambient.utc_now())
    if pem:
        made = crl.to_pem(made)
    if target == STANDARD:
        if not pem and sys.stdout.isatty():
            raise click.UsageError("a list in DER is not for a screen: say --pem or --out FILE")
        click.echo(made, nl=False)
        return
    with new_file(Path(target), force=force, mode=PUBLIC) as file:
        file.write(made)
    say(f"The revocation list of {name} is in {target}.")


@command.command(
    "rotate",
    examples=[
        "grantserver ca rotate site-ca",
        "grantserver ca rotate site-ca --now",
        "grantserver ca rotate server-ca",
    ],
)
@click.argument("name")
@click.option(
    "--now",
    "at_once",
    is_flag=True,
    help="Let the next generation sign at once, also one that is prepared already.",
)
@click.option(
    "--key-type",
    type=click.Choice([kind.value for kind in KeyType]),
    help="Kind of the new private key; that of the old one if left out.",
)
@click.option(
    "--lifetime",
    default="87600h",
    show_default=True,
    metavar="DURATION",
    help="How long the new one is valid: 87600h is ten years.",
)
def _rotate(name: str, at_once: bool, key_type: str | None, lifetime: str) -> None:
    """Let the next generation of an authority take its place.

    One that signs for sites is prepared first, so that it can be brought to their routers; it signs
    after a while (GRANTSERVER_CERTIFICATES_ROTATION_WAIT), or with --now. The server's own CA
    changes at once. What was given out before goes on working: the old one is trusted until nobody
    needs it any more.
    """
    seconds = parse_window(lifetime, field="lifetime")
    home = opened()
    done = rotation.rotate(
        home.database,
        home.keyring,
        name=name,
        times=rotation_times(home.settings),
        at_once=at_once,
        key_type=None if key_type is None else KeyType(key_type),
        lifetime_seconds=seconds,
        actor=actor(),
        now=ambient.utc_now(),
        random_bytes=ambient.random_bytes,
    )
    signing, other = done.signing, done.other
    if other.state is State.PREPARED:
        say(f"The next generation of {name} is prepared, as {other.name}.")
        say(f"It signs from {rfc3339(other.due_at or 0)} on, while a server runs.")
        say("Next, bring all certificates to those who check certificates of links:")
    else:
        say(f"Authority {name} is a new one, good until {rfc3339(signing.not_after)}.")
        say(f"The old one is {other.name}, trusted until nobody needs it any more.")
        if signing.purpose is Purpose.SERVER:
            say("Tokens that are out can be redeemed as before; new ones carry both.")
            return
        say("All certificates, for those who check certificates of links:")
    say(f"  {paste('ca', 'export', name, '--out', f'{name}.pem')}")


def _secret(authority: Authority, bundle: str, key_pem: bytes) -> str:
    certificate = base64.b64encode(authority.certificate_pem.encode()).decode()
    return yaml_documents.write(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": authority.name},
            "type": "kubernetes.io/tls",
            "data": {
                "ca.crt": base64.b64encode(bundle.encode()).decode(),
                "tls.crt": certificate,
                "tls.key": base64.b64encode(key_pem).decode(),
            },
        }
    )


def _tell_next(authority: Authority) -> None:
    say("Next, let a site use it:")
    say(f"  {paste('site', 'set', 'NAME', *ENDPOINTS, '--issuer', authority.name)}")


def _made(seen: SeenAuthority) -> str:
    authority = seen.authority
    if authority.origin is not None:
        gone = "" if authority.sealed_key or not seen.at_home else ", which is gone"
        return f"from Secret {authority.origin}{gone}"
    return "imported" if authority.imported else "here"


def _state(seen: SeenAuthority) -> str:
    """Say where in its life it is, and what comes next."""
    authority = seen.authority
    since = f", since {rfc3339(authority.since)}" if authority.since else ""
    match authority.state:
        case State.PREPARED:
            if not seen.at_home:
                return "prepared: trusted, signs later"
            return f"prepared: trusted, signs from {rfc3339(authority.due_at or 0)} on"
        case State.ACTIVE:
            return f"active{since}"
        case State.RETIRED:
            return f"retired{since}: trusted while anybody may need it"
        case _:
            return f"ended{since}: not trusted any more"


def _document(seen: SeenAuthority) -> Document:
    authority = seen.authority
    return {
        "name": authority.name,
        "purpose": authority.purpose.value,
        "kind": kind(authority.origin),
        "secret": authority.origin,
        "imported": authority.imported,
        "state": authority.state.value,
        "stateTime": (rfc3339(authority.since or authority.created_at) if seen.at_home else None),
        "signsFrom": (
            rfc3339(authority.due_at or 0)
            if seen.at_home and authority.state is State.PREPARED
            else None
        ),
        "creationTime": rfc3339(authority.created_at),
        "notBefore": rfc3339(authority.not_before),
        "notAfter": rfc3339(authority.not_after),
        "canSign": bool(authority.sealed_key) if seen.at_home else None,
        "fingerprint": authorities.fingerprint(authority),
    }


def _in_certificate(facts: CertificateFacts) -> Document:
    return {
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "key": facts.key,
    }
