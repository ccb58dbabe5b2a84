"""--server, --token-file and --ca: the installation that a command works on from afar."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from app.errors import Invalid

SERVER: Final = "GRANTSERVER_SERVER"
TOKEN_FILE: Final = "GRANTSERVER_SERVER_TOKEN_FILE"  # noqa: S105 - the name of a variable
CA_FILE: Final = "GRANTSERVER_SERVER_CA_FILE"
_META: Final = "app.cli.afar"
_LARGEST_FILE_BYTES: Final = 1024 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class Afar:
    """Where an admin API is, whom to trust there and what to show; `words` are those typed."""

    url: str
    token_file: Path | None
    ca_file: Path | None
    words: tuple[str, ...]

    def token(self) -> str:
        """Read the token. Raises Invalid("token-file", …), also when others can read it."""
        if self.token_file is None:
            raise Invalid(
                "token-file", f"say who you are: --token-file FILE, or {TOKEN_FILE}, has the token"
            )
        return _read("token-file", self.token_file, secret=True).strip()

    def ca_pem(self) -> str:
        """Read the only CA to be trusted. Raises Invalid("ca", …)."""
        if self.ca_file is None:
            raise Invalid(
                "ca",
                f"say whom to trust: --ca FILE, or {CA_FILE}, has the CA; on the server, "
                "`grantserver ca export server-ca` writes it",
            )
        return _read("ca", self.ca_file, secret=False)


def remember(
    context: click.Context, server: str | None, token_file: Path | None, ca: Path | None
) -> None:
    """Keep what was given for the commands to come."""
    given = {"server": server, "token_file": token_file, "ca": ca}
    words = tuple(
        word
        for name, value in given.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        for word in (f"--{name.replace('_', '-')}", str(value))
    )
    if server is None:
        if words:
            raise click.UsageError(f"{words[0]} is of use with --server only")
        return
    context.meta[_META] = Afar(url=server, token_file=token_file, ca_file=ca, words=words)


def chosen() -> Afar | None:
    """What was given to this command; None is the installation beside it."""
    found = click.get_current_context().meta.get(_META)
    return found if isinstance(found, Afar) else None


def _read(field: str, path: Path, *, secret: bool) -> str:
    """Read a short file; the one that is open is the one that is judged."""
    try:
        with path.open("rb") as file:
            if secret and _open_to_others(os.fstat(file.fileno())):
                raise Invalid(field, f"others can read {path}: chmod 600 mends that")
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise Invalid(field, f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise Invalid(field, f"{path} is longer than {_LARGEST_FILE_BYTES} bytes")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        # The decoder's error holds what is in the file.
        raise Invalid(field, f"{path} holds something else than text in ASCII") from None


def _open_to_others(status: os.stat_result) -> bool:
    """Tell whether somebody beside us can touch it; a pod is shown root's files by its group."""
    if not stat.S_ISREG(status.st_mode):
        return False  # a pipe that the shell has made for us
    shown_by_root = status.st_uid == 0 and os.geteuid() != 0
    return bool(status.st_mode & _OTHERS & ~(stat.S_IRGRP if shown_by_root else 0))
