"""The doctor: looks at what breaks in practice, and says what to do about it.

Every finding is a sentence with its remedy. Nothing is changed. What needs the network (does the
public address lead here?) is asked by the caller, and judged here as all else is.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from app.crypto import server_certificates
from app.crypto.sealing import Keyring
from app.domain import self_check
from app.domain.authorities import Authority, State
from app.domain.self_check import Misfit, Outcome
from app.domain.sites import Site
from app.domain.times import rfc3339
from app.errors import GrantServerError, Misconfigured, Unready
from app.services import admin_tokens
from app.services.authorities import open_issuer
from app.services.certificate_files import CertificateFiles
from app.services.reach import open_server_key
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store import health
from app.store import sites as site_rows
from app.store.access_grants import NO_ISSUER
from app.store.engine import Database

ADDRESS: Final = "public address"
"""The name of the check that needs the network."""

_MOST_SERVED: Final = 20  # there are that many certificates with a key, at most by far
_SOON_SECONDS: Final = 30 * 24 * 3600
_EARLIEST_SENSIBLE: Final = 1_767_225_600  # 2026-01-01: a clock before it is certainly wrong
_BACKWARDS_SECONDS: Final = 60  # clocks are set back by a little every day
_SERVED: Final = "server certificate"
_TOKENS: Final = "admin tokens"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_RESTORE: Final = "stop the server and restore the newest backup that passes `db check`"
_MISFITS: Final = {
    Misfit.NAME: "see that the host of the URL is right and that the server runs with the same "
    "settings: its own CA then issues a certificate that carries it; a certificate that you keep "
    "yourself has to name the host",
    Misfit.TIME: "see that the clock is right and that the server runs, which renews what its own "
    "CA issued; renew a certificate that you keep yourself",
    Misfit.TRUST: "name the CA that issued it (GRANTSERVER_TLS_CA_FILE), and see that the server "
    "runs with the same settings; tokens that carry another CA have to be made anew",
}


class Verdict(StrEnum):
    """How bad a finding is: fine, worth a look, or something will fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at, what was found, and what to do (empty when it is fine)."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(
    database: Database,
    keyring: Keyring,
    *,
    hosts: Sequence[str],
    private_paths: Sequence[Path],
    now: int,
    files: CertificateFiles | None = None,
) -> list[Finding]:
    """Look at everything that can be seen from this machine.

    `hosts` are the names that the server certificate must carry, which comes from `files` where
    there are any; `private_paths` are files and directories that nobody else may read. A check
    that cannot be made is a problem of its own.
    """
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("clock", lambda: _clock(now, _last_act(database))),
        ("permissions", lambda: _permissions(private_paths)),
        ("database", lambda: _database(database, now)),
        (_SERVED, lambda: _server_certificate(database, keyring, files, hosts, now)),
        ("authorities", lambda: _authorities(database, keyring, now)),
        ("sites", lambda: _sites(database)),
        (_TOKENS, lambda: _admin_tokens(database, keyring)),
    )
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check()
        except GrantServerError as error:
            findings.append(Finding(check=name, verdict=Verdict.PROBLEM, found=str(error)))
    return findings


def examine_machine(*, private_paths: Sequence[Path], now: int) -> list[Finding]:
    """Look at what can be seen where the database cannot be opened."""
    return [*_clock(now, None), *_permissions(private_paths)]


def served_fingerprints(database: Database, files: CertificateFiles | None) -> frozenset[str]:
    """Tell by which fingerprints the listener's certificate is known; none before it is there.

    Raises Misconfigured when the files cannot be used.
    """
    if files is not None:
        return frozenset({files.read().fingerprint})
    with database.reading() as connection:
        latest = authority_rows.latest_server_certificates(connection, _MOST_SERVED)
    return frozenset(one.fingerprint for one in latest if one.sealed_key)


def public_address(found: self_check.Finding, url: str) -> Finding:
    """Say what came of dialling our own `url`, and what to do next.

    What a client would trip over is a problem; that nobody is reached from here may be the
    network's doing, or nobody is serving at the moment.
    """
    match found.outcome:
        case Outcome.REACHABLE:
            verdict, remedy = Verdict.OK, ""
        case Outcome.UNKNOWN:
            verdict = Verdict.WARNING
            remedy = "wait until there is an address, or set GRANTSERVER_REACH_URL"
        case Outcome.UNREACHABLE:
            verdict = Verdict.WARNING
            remedy = (
                "start the server (grantserver serve); see that name, firewall and load balancer "
                f"lead from {url} to it; behind a NAT, try from outside"
            )
        case Outcome.TERMINATED:
            verdict = Verdict.PROBLEM
            remedy = (
                "have what stands before the server pass TLS through (a Route with passthrough, a "
                "load balancer in TCP mode): it could read codes and private keys"
            )
        case Outcome.WRONG_CERTIFICATE:
            verdict, remedy = Verdict.PROBLEM, _MISFITS[found.misfit or Misfit.TRUST]
    return Finding(check=ADDRESS, verdict=verdict, found=found.detail, remedy=remedy)


def _last_act(database: Database) -> int | None:
    with database.reading() as connection:
        entries = audit_rows.latest(connection, 1)
    return entries[0].at if entries else None


def _clock(now: int, last_act: int | None) -> Iterator[Finding]:
    remedy = "set the clock (chrony or systemd-timesyncd): windows and certificates need it"
    if now < _EARLIEST_SENSIBLE:
        yield Finding(
            check="clock",
            verdict=Verdict.PROBLEM,
            found=f"this machine believes that it is {rfc3339(now)}",
            remedy=remedy,
        )
    elif last_act is not None and now < last_act - _BACKWARDS_SECONDS:
        yield Finding(
            check="clock",
            verdict=Verdict.PROBLEM,
            found=f"the clock went back: it is {rfc3339(now)}, and the newest entry of the audit "
            f"log is of {rfc3339(last_act)}",
            remedy=remedy,
        )
    else:
        yield Finding(check="clock", verdict=Verdict.OK, found=rfc3339(now))


def _permissions(paths: Sequence[Path]) -> Iterator[Finding]:
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            yield Finding(
                check="permissions",
                verdict=Verdict.PROBLEM,
                found=f"{path} is not there",
                remedy="restore it from a copy, or say in the settings where it is",
            )
            continue
        except OSError as error:
            yield Finding(
                check="permissions",
                verdict=Verdict.PROBLEM,
                found=f"{path}: {error.strerror}",
                remedy="run this as the user that runs the server",
            )
            continue
        if status.st_mode & _OTHERS:
            mode = 700 if path.is_dir() else 600
            yield Finding(
                check="permissions",
                verdict=Verdict.PROBLEM,
                found=f"{path} is open to group or others",
                remedy=f"chmod {mode} {path}",
            )
        elif status.st_uid != os.geteuid():
            yield Finding(
                check="permissions",
                verdict=Verdict.WARNING,
                found=f"{path} belongs to user {status.st_uid}, and this is {os.geteuid()}",
                remedy="run server and commands as the same user",
            )
        else:
            yield Finding(check="permissions", verdict=Verdict.OK, found=f"{path} is private")


def _database(database: Database, now: int) -> Iterator[Finding]:
    with database.writing() as connection:
        health.beat(connection, now)
    problems = health.integrity_problems(database, now)
    for problem in problems:
        yield Finding(
            check="database",
            verdict=Verdict.PROBLEM,
            found=problem,
            remedy=_RESTORE,
        )
    if not problems:
        found = f"revision {database.revision()}, takes writes, its integrity check is clean"
        yield Finding(check="database", verdict=Verdict.OK, found=found)


def _server_certificate(
    database: Database,
    keyring: Keyring,
    files: CertificateFiles | None,
    hosts: Sequence[str],
    now: int,
) -> Iterator[Finding]:
    if files is not None:
        yield from _certificate_of_files(files, hosts, now)
        return
    with database.reading() as connection:
        current = authority_rows.current_server_certificate(connection)
    if current is None:
        yield Finding(
            check=_SERVED,
            verdict=Verdict.WARNING,
            found="there is none yet",
            remedy="start the server once: `grantserver serve`",
        )
        return
    try:
        open_server_key(current, keyring)
    except GrantServerError as error:
        yield Finding(
            check=_SERVED,
            verdict=Verdict.PROBLEM,
            found=f"its private key cannot be opened: {error}",
            remedy=_missing_lines(keyring) if isinstance(error, Misconfigured) else _RESTORE,
        )
    if current.origin:
        keeper = "whoever keeps the Secret that it comes from"
        renewal, reissue = f"have {keeper} renew it", f"have {keeper} name them too"
    else:
        renewal = "start the server: it renews its certificate"
        reissue = "start the server with the same settings: it issues one that does"
    pem = current.certificate_pem.encode()
    yield _carries(pem, hosts, reissue)
    yield _ending(_SERVED, current.not_after, now, renewal)


def _certificate_of_files(
    files: CertificateFiles, hosts: Sequence[str], now: int
) -> Iterator[Finding]:
    try:
        pair = files.read()
    except Misconfigured as error:
        yield Finding(
            check=_SERVED,
            verdict=Verdict.PROBLEM,
            found=str(error),
            remedy="mend the files: a server that runs goes on with what it read before, and one "
            "that is started does not start",
        )
        return
    yield _carries(pair.certificate_pem, hosts, f"have {files.certificate} issued for them too")
    yield _ending(_SERVED, pair.not_after, now, f"renew {files.certificate} and its key")


def _carries(certificate_pem: bytes, hosts: Sequence[str], remedy: str) -> Finding:
    missing = server_certificates.missing_hosts(certificate_pem, hosts)
    if not missing:
        carried = ", ".join(hosts) or "all that is asked for: there is no address yet"
        return Finding(check=_SERVED, verdict=Verdict.OK, found=f"it carries {carried}")
    found = f"it does not carry {', '.join(missing)}"
    return Finding(check=_SERVED, verdict=Verdict.PROBLEM, found=found, remedy=remedy)


def _authorities(database: Database, keyring: Keyring, now: int) -> Iterator[Finding]:
    with database.reading() as connection:
        known = authority_rows.every(connection)
    for authority in known:
        if authority.state is not State.ENDED and not _may_lack_its_key(authority):
            yield _authority(authority, keyring, now)


def _may_lack_its_key(authority: Authority) -> bool:
    """Tell of one without a key whether that is as it should be.

    Its Secret is gone and nothing leads to it, or its successor signs.
    """
    given_up = authority.origin is not None or authority.state is State.RETIRED
    return given_up and not authority.sealed_key


def _authority(authority: Authority, keyring: Keyring, now: int) -> Finding:
    name = f"authority {authority.name}"
    try:
        open_issuer(authority, keyring)
    except Unready as error:  # the others are looked at all the same
        return Finding(
            check=name,
            verdict=Verdict.PROBLEM,
            found=str(error),
            remedy=_missing_lines(keyring),
        )
    if authority.not_before > now:
        return Finding(
            check=name,
            verdict=Verdict.PROBLEM,
            found=f"it begins at {rfc3339(authority.not_before)}: nobody accepts before then "
            "what it signs",
            remedy="see that the clock is right; then wait, or use another authority until "
            "then (`grantserver ca list`)",
        )
    if authority.state is State.RETIRED:
        return Finding(check=name, verdict=Verdict.OK, found="it has a successor")
    remedy = f"replace it: grantserver ca rotate {authority.name}"
    if authority.origin is not None:
        remedy = f"renew the Secret that it comes from, {authority.origin}"
    return _ending(name, authority.not_after, now, remedy)


def _sites(database: Database) -> Iterator[Finding]:
    with database.reading() as connection:
        known = site_rows.every(connection)
    if not known:
        yield Finding(
            check="sites",
            verdict=Verdict.WARNING,
            found="there is no site that could be linked to",
            remedy="grantserver site set NAME --endpoint inter-router=HOST:55671 "
            "--endpoint edge=HOST:45671",
        )
    for site in known:
        if site.origin is not None and (not site.endpoints or site.issuer == NO_ISSUER):
            yield _unready_namespace(site)
        elif site.endpoints:
            count = len(site.endpoints)
            endpoints = "1 endpoint" if count == 1 else f"{count} endpoints"
            found = f"{endpoints}, signed for by {site.issuer}"
            yield Finding(check=f"site {site.name}", verdict=Verdict.OK, found=found)
        else:
            yield Finding(
                check=f"site {site.name}",
                verdict=Verdict.PROBLEM,
                found="it has no endpoints: every redemption is refused",
                remedy=f"grantserver site set {site.name} --endpoint inter-router=HOST:55671",
            )


def _admin_tokens(database: Database, keyring: Keyring) -> Iterator[Finding]:
    lost = admin_tokens.lost(database, keyring.keys)
    if lost:
        named = ", ".join(f"{name} (key {key})" for name, key in lost.items())
        yield Finding(
            check=_TOKENS,
            verdict=Verdict.PROBLEM,
            found=f"the key file lacks the keys of {named}: nobody is let in by them",
            remedy=f"{_missing_lines(keyring)}, or revoke them and make others",
        )


def _unready_namespace(site: Site) -> Finding:
    lacks = [
        *(() if site.endpoints else ("no endpoints",)),
        *(() if site.issuer != NO_ISSUER else ("no issuer that can sign",)),
    ]
    return Finding(
        check=f"site {site.name}",
        verdict=Verdict.WARNING,
        found=f"the namespace has {' and '.join(lacks)}: every redemption is refused",
        remedy=f"see what its AccessGrants say: kubectl get accessgrants -n {site.name}",
    )


def _missing_lines(keyring: Keyring) -> str:
    return f"put back the lines of the key file {keyring.path} that are missing"


def _ending(check: str, not_after: int, now: int, remedy: str) -> Finding:
    if not_after <= now:
        found, verdict = f"it has ended at {rfc3339(not_after)}", Verdict.PROBLEM
    elif not_after - now < _SOON_SECONDS:
        found, verdict = f"it ends soon, at {rfc3339(not_after)}", Verdict.WARNING
    else:
        return Finding(check=check, verdict=Verdict.OK, found=f"good until {rfc3339(not_after)}")
    return Finding(check=check, verdict=verdict, found=found, remedy=remedy)
