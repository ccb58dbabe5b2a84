"""Files that hold secrets: written whole or not at all, for their owner alone.

A new file appears under its name only when it is complete. It replaces nothing unless told to,
and is never written through a symbolic link.
"""

import contextlib
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from app.errors import Conflict, GrantServerError, Invalid, Unavailable

STANDARD: Final = "-"  # the name that means standard input or output
PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
LONGEST_INPUT_BYTES: Final = 1024 * 1024
_MENDABLE: Final = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
}
"""What another path or another user would mend; everything else (a full disk) may pass."""
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


@contextlib.contextmanager
def new_file(path: Path, *, force: bool, mode: int = PRIVATE) -> Iterator[IO[bytes]]:
    """Open a file that takes its place when the block ends well, and leaves no trace if not.

    Everything that can be known beforehand is checked before the block begins. With `force` it
    replaces a regular file.
    Raises Conflict when something is in its place, Invalid("file", …) when nothing can be
    written there, Unavailable when the disk is full or fails.
    """
    check_free(path, force=force)
    with _explained(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with _explained(path), os.fdopen(descriptor, "wb") as file:
            yield file
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        check_free(path, force=force)
        with _explained(path):
            _put(temporary, path, force=force)
            _sync_directory(path.parent)
    finally:
        Path(temporary).unlink(missing_ok=True)


def check_free(path: Path, *, force: bool) -> None:
    """Raise Conflict when something is in the place of a new file that may not be replaced."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _trouble(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise Conflict(f"{path} is there already and is no regular file: choose another name")
    if not force:
        raise Conflict(f"{path} is there already: choose another name, or say --force")


def check_writable(directory: Path) -> None:
    """Raise Invalid or Unavailable unless a file can be written in a directory."""
    with _explained(directory), tempfile.TemporaryFile(dir=directory):
        pass


def read_input(path: str, *, what: str) -> bytes:
    """Read a file, or standard input for `-`, of at most 1 MiB.

    Raises Invalid(what, …) when it cannot be read or is longer.
    """
    try:
        if path == STANDARD:
            content = sys.stdin.buffer.read(LONGEST_INPUT_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(LONGEST_INPUT_BYTES + 1)
    except OSError as error:
        raise Invalid(what, f"{path} cannot be read: {error.strerror}") from error
    if len(content) > LONGEST_INPUT_BYTES:
        raise Invalid(what, f"{path} is longer than {LONGEST_INPUT_BYTES} bytes")
    return content


def _put(temporary: str, path: Path, *, force: bool) -> None:
    if force:
        Path(temporary).replace(path)
        return
    try:
        # Unlike a rename, a link never replaces what somebody else has put there meanwhile.
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Some file systems (a USB stick's) know no links: the name is taken first, then filled.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
        Path(temporary).replace(path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise Conflict(f"{path} is there already: choose another name, or say --force") from error
    except OSError as error:
        raise _trouble(path, error) from error


def _trouble(path: Path, error: OSError) -> GrantServerError:
    what = f"{path} cannot be written: {error.strerror}"
    return Invalid("file", what) if error.errno in _MENDABLE else Unavailable(what)
