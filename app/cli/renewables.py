"""The files with Secrets that can be renewed, found where a person keeps them and written in place.

A file is replaced as a whole or not at all, keeps its owner, and gets mode 0600. It may hold other
documents beside the Secret, as `token redeem` prints them; comments in it are lost. The key of a
renewal that was begun lies beside it until its certificate is in the file, and a mark until what
was to be run afterwards has been run.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.cli.files import check_free, check_writable, new_file, read_input
from app.cli.resources import directory_of, kept_key
from app.crypto import keys
from app.domain import link_secrets
from app.domain.link_secrets import LinkSecret, Renewed
from app.domain.yaml_documents import read_all, write
from app.errors import Conflict, Invalid, Unavailable
from app.services import renewing

_FIELD: Final = "secret"
_ENDINGS: Final = (".yaml", ".yml")  # what a system site reads


@dataclass(slots=True, kw_only=True)
class SecretFile:
    """A Secret in a file, as it was when it was read; `at` tells which of the documents it is."""

    path: Path
    at: int
    documents: list[Any] = field(repr=False)

    @property
    def label(self) -> str:
        """How it is called before people."""
        return str(self.path)

    @property
    def secret(self) -> LinkSecret:
        """What is in it. Raises Invalid("secret", …)."""
        try:
            return link_secrets.read_link_secret(self.documents[self.at])
        except Invalid as error:
            raise Invalid(_FIELD, f"{self.path}: {error.why}") from error

    def next_key(self) -> bytes:
        """Give the key (PEM) of its next certificate: the one that a renewal was begun with."""
        kept = kept_key(self._key_path, renewing.next_key)
        with contextlib.suppress(Invalid):
            keys.load_private_key(kept)
            if kept != self.secret.key_pem:
                return kept
        # Of a renewal that was finished, or nothing that could be used.
        self.forget_key()
        return kept_key(self._key_path, renewing.next_key)

    def forget_key(self) -> None:
        """Remove the key of a renewal that is over."""
        self._key_path.unlink(missing_ok=True)

    def finish(self, renewed: Renewed, *, owes_command: bool = False) -> None:
        """Put what came into the place of what is there, and mark that a command is owed."""
        if owes_command:  # first: who is killed in between runs it once too often, not too seldom
            with new_file(self._mark_path, force=True):
                pass
        self._write(link_secrets.renewed(self.documents[self.at], renewed))
        self.forget_key()

    @property
    def owes_command(self) -> bool:
        """Tell whether what was to be run after a renewal has not been run."""
        return os.path.lexists(self._mark_path)

    def command_was_run(self) -> None:
        """Forget the mark."""
        with contextlib.suppress(OSError):  # run once too often, then
            self._mark_path.unlink()

    @property
    def _mark_path(self) -> Path:
        return self.path.with_name(f".{self.path.name}.then")

    @property
    def _key_path(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{self.at}.key")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this program away from this directory, and read it anew.

        Raises Unavailable when one is at work there, Conflict for a file that could not be written
        in place.
        """
        check_free(self.path, force=True)
        directory = self.path.parent
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Invalid(_FIELD, f"{directory} cannot be read: {error.strerror}") from error
        try:
            # Where a file system knows no locks, two of us may renew it; one of them goes on then.
            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise Unavailable(f"somebody else is renewing in {directory}") from error
            check_writable(directory)
            self.documents = _read(self.path)
            if self.at >= len(self.documents):
                raise Conflict(f"{self.path} was changed meanwhile")
            yield
        finally:
            os.close(descriptor)

    def _write(self, secret: link_secrets.Document) -> None:
        if _read(self.path) != self.documents:
            raise Conflict(f"{self.path} was changed meanwhile")
        documents = [*self.documents]
        documents[self.at] = secret
        written = [write(document) for document in documents]
        text = written[0] if len(written) == 1 else "".join(f"---\n{one}" for one in written)
        status = self.path.lstat()
        with new_file(self.path, force=True) as file:
            file.write(text.encode())
            if os.geteuid() == 0:  # whoever reads it would not be able to any more
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
        self.documents = documents


def find(path: Path) -> Sequence[SecretFile]:
    """Find the Secrets that can be renewed in a file, or in the directory of a system site.

    Raises Invalid("secret", …) for a file without any, and for what cannot be read.
    """
    if not path.is_dir():
        if path.exists() and not path.is_file():  # reading a FIFO would wait for somebody
            raise Invalid(_FIELD, f"{path} is no regular file")
        found = _in(path)
        if not found:
            raise Invalid(
                _FIELD,
                f"{path} holds no Secret that could be renewed: it does not say where "
                f"({link_secrets.SERVER_URL})",
            )
        return found
    directory = directory_of(path)
    if not directory.is_dir():
        raise Invalid(_FIELD, f"{path} is no directory of a system site: {directory} is not there")
    found = []
    for one in _listed(directory):
        with contextlib.suppress(Invalid):  # not ours to judge: the site tells what it cannot read
            found += _in(one)
    return found


def _listed(directory: Path) -> Sequence[Path]:
    try:
        return sorted(
            one
            for one in directory.iterdir()
            if one.suffix in _ENDINGS and one.is_file() and not one.is_symlink()
        )
    except OSError as error:
        raise Unavailable(f"{directory} cannot be read: {error.strerror}") from error


def _in(path: Path) -> list[SecretFile]:
    documents = _read(path)
    return [
        SecretFile(path=path, at=at, documents=documents)
        for at, document in enumerate(documents)
        if link_secrets.is_renewable(document)
    ]


def _read(path: Path) -> list[Any]:
    try:
        return read_all(_FIELD, read_input(str(path), what=_FIELD).decode())
    except UnicodeDecodeError:
        raise Invalid(_FIELD, f"{path} is not a text in UTF-8") from None
