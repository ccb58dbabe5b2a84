"""Where the resources of a redeemed token go: standard output, a system site, a namespace.

Each is made ready before a code is posted, so that no redemption is wasted, and keeps the key of a
claim until its answer is stored: whoever runs the same command again after it was cut off asks
with the same key, and gets the same answer again.
"""

import contextlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from app.cli import resources
from app.cli.output import hint, say
from app.cli.redeeming import COUNTED
from app.crypto import keys
from app.domain.certificates import KeyType
from app.domain.receipts import Receipt
from app.errors import GrantServerError

if TYPE_CHECKING:
    from app.kube.links import Place


class Destination(Protocol):
    """Where the resources of one token go."""

    async def ready(self) -> bytes:
        """See to it that they can be stored there; give the key to ask with (PEM).

        It is empty where the server is to make one.
        """

    async def store(self, receipt: Receipt, summary: str) -> None:
        """Store what came, and say so."""

    async def give_up(self, *, final: bool) -> None:
        """Leave nothing behind; but the key, where no answer was `final`."""

    async def undo(self) -> None:
        """Leave nothing behind of what was made ready, if nobody was asked.

        A key that was there before stays: an earlier run may have asked with it.
        """


def new_key() -> bytes:
    """Make the key of a link."""
    return keys.make_pair(KeyType.P256).private_pem


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """To standard output; the key is kept in a file, if one is named."""

    own_key: bool
    key_file: Path | None

    async def ready(self) -> bytes:
        """Read the key of the file, or make one."""
        if self.key_file is None:
            return new_key() if self.own_key else b""
        return resources.kept_key(self.key_file, new_key)

    async def store(self, receipt: Receipt, summary: str) -> None:
        """Print it, the summary beside it."""
        try:
            for resource in receipt.resources:
                sys.stdout.write(f"---\n{resource.text}")
            sys.stdout.flush()
        except OSError as error:
            problem = f"standard output cannot be written: {error.strerror}; {COUNTED}"
            kept = "" if self.key_file is None else ": run it again"
            # What is left in the buffer would fail once more, at the very end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.ClickException(f"{problem}{kept}") from error
        hint(summary)

    async def give_up(self, *, final: bool) -> None:
        """Nothing is left behind; a file that was named stays."""

    async def undo(self) -> None:
        """The same."""


@dataclass(slots=True, kw_only=True)
class SystemSite:
    """Into the directory of a system site's namespace, made as far as it is missing."""

    namespace: Path
    name: str
    token_url: str
    own_key: bool
    force: bool
    _new: bool = field(default=False, init=False)

    async def ready(self) -> bytes:
        """Make the directories, and keep the key there."""
        directory = resources.prepare(self.namespace, self.name, force=self.force)
        if not self.own_key:
            return b""
        made = new_key()
        kept = resources.kept_key(
            resources.key_path(directory, self.name, self.token_url), lambda: made
        )
        self._new = kept == made
        return kept

    async def store(self, receipt: Receipt, summary: str) -> None:
        """Write all files or none; the key alone is not needed any more then."""
        directory = resources.directory_of(self.namespace)
        try:
            paths = resources.store(directory, receipt.resources, force=self.force)
        except GrantServerError as error:
            await self.give_up(final=not receipt.own_key)
            raise click.ClickException(f"{error}; {COUNTED}") from error
        resources.forget_key(directory, self.name, self.token_url)
        say(summary)
        for path in paths:
            say(f"  {path}")

    async def give_up(self, *, final: bool) -> None:
        """Remove the key."""
        if final and self.own_key:
            directory = resources.directory_of(self.namespace)
            resources.forget_key(directory, self.name, self.token_url)

    async def undo(self) -> None:
        """Remove the key, if it is new."""
        await self.give_up(final=self._new)


@dataclass(slots=True, kw_only=True)
class InNamespace:
    """Into a namespace of a Kubernetes cluster, owned by the Site there.

    The Secret is made first, with the key alone. What is there and was made for this token is
    finished; what is somebody else's is left as it is.
    """

    place: "Place"
    name: str
    own_key: bool
    _key_pem: bytes = field(default=b"", init=False, repr=False)
    _new: bool = field(default=False, init=False)

    async def ready(self) -> bytes:
        """Make the Secret with the key, or take the key of one that was made for this token."""
        from app.kube.links import content  # noqa: PLC0415 - Kubernetes only where it is asked for

        await self.place.check(self.name)
        if not self.own_key:
            return b""
        made = new_key()
        kept = await self.place.keep_key(self.name, made)
        self._key_pem = content(kept, "tls.key")
        self._new = self._key_pem == made
        return self._key_pem

    async def store(self, receipt: Receipt, summary: str) -> None:
        """Have the Secret and the Links there as they came."""
        try:
            stored = await self.place.store(receipt.resources)
        except GrantServerError as error:
            raise click.ClickException(f"{error}; {COUNTED}: run it again") from error
        say(summary)
        for one in stored:
            say(f"  {one}")

    async def give_up(self, *, final: bool) -> None:
        """Delete the Secret, if there is nothing in it but the key that was refused."""
        if final and self._key_pem:
            with contextlib.suppress(GrantServerError):  # it stays then, without a certificate
                await self.place.drop_key(self.name, self._key_pem)

    async def undo(self) -> None:
        """Delete the Secret, if it is new."""
        await self.give_up(final=self._new)
