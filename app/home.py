"""What every command of this program stands on: data directory, key file, database, authorities.

Opening it makes whatever is missing, so that the first command on a fresh machine just works.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app import ambient
from app.crypto.audit_heads import PURPOSE as HEAD_PURPOSE
from app.crypto.audit_heads import HeadKeys
from app.crypto.sealing import Keyring, load_or_create
from app.domain.callers import Rights
from app.domain.policies import Ceilings
from app.domain.reach import Reach
from app.errors import Misconfigured, Unavailable
from app.services import admin_tokens, authorities, rotation
from app.services.audit_chain import Chain
from app.services.certificate_files import CertificateFiles
from app.services.serving import Source
from app.settings import DEFAULT_URL, Settings
from app.store.engine import Database, open_database

_CODE_PURPOSE: Final = "codes of grants"
_ANSWER_PURPOSE: Final = "kept answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """An opened installation.

    `code_keys` are the keys under which codes are stored, `answer_salts` those from which the
    keys of kept answers are derived.
    """

    settings: Settings
    database: Database
    keyring: Keyring
    code_keys: Mapping[str, bytes] = field(repr=False)
    answer_salts: Mapping[str, bytes] = field(repr=False)

    @property
    def audit_chain(self) -> Chain:
        """The audit log's chain, with the keys that sign it."""
        return Chain(
            database=self.database,
            keys=HeadKeys.of(self.keyring.derive(HEAD_PURPOSE)),
            clock=ambient.utc_now,
        )

    @property
    def admin_token_keys(self) -> Mapping[str, bytes]:
        """Those under which admin tokens are stored."""
        return self.keyring.derive(admin_tokens.KEY_PURPOSE)

    @property
    def certified(self) -> Mapping[str, Rights]:
        """What holders of client certificates may, by common name.

        Raises Misconfigured for settings of the admin API that do not go together.
        """
        admin, problems = self.settings.admin, []
        if admin.certificates and admin.client_ca_file is None:
            problems.append("GRANTSERVER_ADMIN_CERTIFICATES needs GRANTSERVER_ADMIN_CLIENT_CA_FILE")
        if admin.accounts and not self.settings.kubernetes.namespaces:
            problems.append("GRANTSERVER_ADMIN_ACCOUNTS needs GRANTSERVER_KUBERNETES_NAMESPACES")
        if problems:
            raise Misconfigured(problems)
        return dict(admin.certificates)

    @property
    def ceilings(self) -> Ceilings:
        """What no grant of this server may exceed, whoever asks for it."""
        settings = self.settings
        return Ceilings(
            window_seconds=settings.ceilings.window_seconds or None,
            redemptions=settings.ceilings.redemptions or None,
            lifetime_seconds=settings.certificates.lifetime_seconds,
        )

    @property
    def source(self) -> Source:
        """Where it is looked for what the listener serves, and how it is reached.

        Raises Misconfigured for settings that do not go together.
        """
        settings = self.settings
        return Source(
            database=self.database,
            keyring=self.keyring,
            url=settings.reach.url,
            # Nobody elsewhere could reach what stands there when no address is given.
            fallback="" if settings.kubernetes.namespaces else DEFAULT_URL,
            hosts=settings.reach.hosts,
            files=_certificate_files(settings),
            secret=settings.tls.secret,
            clock=ambient.utc_now,
            random_bytes=ambient.random_bytes,
        )

    def reach(self) -> Reach:
        """What tokens carry: the base URL, and the CA that clients have to trust.

        Raises Unavailable, with what is waited for, while nobody knows; Misconfigured when the
        file of the CA cannot be used.
        """
        reach, waiting = self.source.way()
        if reach is None:
            raise Unavailable(waiting)
        return reach


def open_home(settings: Settings) -> Home:
    """Open the installation, making directory, key, database and first authorities if missing.

    Raises Misconfigured when the key file or the database's revision cannot be used,
    Unavailable when the disk does not let us.
    """
    _make_directory(settings.data.dir)
    database = open_database(settings.database.url, connections=settings.database.connections)
    with contextlib.ExitStack() as undo:
        undo.callback(database.close)
        _check_key_file(settings.sealing.key_file, database)
        keyring = load_or_create(settings.sealing.key_file, ambient.random_bytes)
        authorities.ensure_defaults(
            database, keyring, now=ambient.utc_now(), random_bytes=ambient.random_bytes
        )
        undo.pop_all()
    return Home(
        settings=settings,
        database=database,
        keyring=keyring,
        code_keys=keyring.derive(_CODE_PURPOSE),
        answer_salts=keyring.derive(_ANSWER_PURPOSE),
    )


def _certificate_files(settings: Settings) -> CertificateFiles | None:
    """Name the files that hold the listener's certificate; None where none do.

    Raises Misconfigured for settings that do not go together.
    """
    tls, problem = settings.tls, ""
    certificate, key = tls.certificate_file, tls.key_file
    given = [path for path in (certificate, key, tls.ca_file) if path is not None]
    if given and (certificate is None or key is None):
        problem = (
            "GRANTSERVER_TLS_CERTIFICATE_FILE and GRANTSERVER_TLS_KEY_FILE go together, and "
            "GRANTSERVER_TLS_CA_FILE only with both"
        )
    elif given and tls.secret:
        problem = (
            "the server's certificate comes from files or from a Secret: set "
            "GRANTSERVER_TLS_CERTIFICATE_FILE or GRANTSERVER_TLS_SECRET, not both"
        )
    elif tls.secret and not settings.kubernetes.namespaces:
        problem = "GRANTSERVER_TLS_SECRET needs GRANTSERVER_KUBERNETES_NAMESPACES"
    if problem:
        raise Misconfigured([problem])
    if certificate is None or key is None:
        return None
    return CertificateFiles(certificate=certificate, key=key, ca=tls.ca_file)


def rotation_times(settings: Settings) -> rotation.Times:
    """How long the steps of a rotation are apart from each other."""
    return rotation.Times(
        wait_seconds=settings.certificates.rotation_wait_seconds,
        lifetime_seconds=settings.certificates.lifetime_seconds,
        retry_seconds=settings.grants.retry_window_seconds,
    )


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"data directory {path}: {error.strerror}") from error


def _check_key_file(path: Path, database: Database) -> None:
    """Refuse to make a new key beside a database whose keys are sealed under one that is lost."""
    if authorities.every(database) and not path.exists():
        problem = (
            f"the sealing key file {path} is missing, and the database holds keys that only it "
            "opens: restore it from a copy, or say where it is with GRANTSERVER_SEALING_KEY_FILE"
        )
        raise Misconfigured([problem])
