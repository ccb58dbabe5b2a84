"""The directory from which a Skupper system site reads its resources.

A system site's namespace directory holds `input/resources`, with one file for each resource,
`Secret-NAME.yaml` and `Link-NAME.yaml`. Names come from another machine: they are never part of a
path before they were found to be plain labels.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Final

from app.cli.files import check_free, new_file
from app.domain.names import check_name
from app.domain.receipts import Resource
from app.errors import Conflict, Invalid, Unavailable

_PARTS: Final = ("input", "resources")
_NAMESPACES: Final = "namespaces"  # system sites live in …/namespaces/NAME
_DIRECTORY_MODE: Final = 0o700
_LONGEST_KEY_BYTES: Final = 64 * 1024


@contextlib.contextmanager
def removed_if_empty(namespace: Path) -> Iterator[None]:
    """Remove the directories that the block has made, if nothing is in them when it ends."""
    above = [one for one in reversed(namespace.absolute().parents) if not os.path.lexists(one)]
    directories = (*above, namespace, namespace / _PARTS[0], namespace.joinpath(*_PARTS))
    missing = [directory for directory in directories if not os.path.lexists(directory)]
    try:
        yield
    finally:
        for directory in reversed(missing):
            with contextlib.suppress(OSError):  # never made, or somebody uses it by now
                directory.rmdir()


def directory_of(namespace: Path) -> Path:
    """Tell where a system site reads its resources."""
    return namespace.joinpath(*_PARTS)


def reload_command(namespace: Path) -> str:
    """Write the command that lets a system site read them."""
    directory = namespace.absolute()
    option = f" -n {directory.name}" if directory.parent.name == _NAMESPACES else ""
    return f"skupper system reload{option}"


def prepare(namespace: Path, name: str, *, force: bool) -> Path:
    """Make the directory if it is missing, and make sure that a link `name` can be stored there.

    To be called before a code is posted, so that no redemption is wasted. Returns the directory
    of the resources. Raises Invalid for a name that is no label or a directory that cannot be
    used, Conflict when such a link is there already (unless `force`).
    """
    check_name("name", name)
    if namespace.absolute().parent.name == _NAMESPACES:  # of the first site; else it is a typo
        for above in reversed(namespace.absolute().parents):
            _make(above)
    directory = namespace
    _make(directory)
    for part in _PARTS:
        directory /= part
        _make(directory)
    if directory.resolve() != namespace.resolve().joinpath(*_PARTS):
        raise Invalid("out", f"{directory} leads out of {namespace}: a part of it is a link")
    for path in _taken(directory, name):
        check_free(path, force=force)
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise Invalid("out", f"{directory} cannot be written: {error.strerror}") from error
    return directory


def store(directory: Path, resources: Sequence[Resource], *, force: bool) -> list[Path]:
    """Write all resources with mode 0600, or none; returns their files, the Secret's first.

    Raises Invalid for a name that is no label, Conflict and Unavailable as new files do.
    """
    paths = [_path(directory, resource) for resource in resources]
    with ExitStack() as stack:
        # Files take their places in reverse order: the Secret, then the Links that need it.
        for path, resource in reversed(list(zip(paths, resources, strict=True))):
            file = stack.enter_context(new_file(path, force=force))
            file.write(resource.text.encode())
    return paths


def key_path(directory: Path, name: str, token_url: str) -> Path:
    """Tell where the key of a claim is kept until its answer is stored: no site reads that file.

    Another token of the same name has another one: when it is refused, this one is still wanted.
    Raises Invalid for a name that is no label.
    """
    check_name("name", name)
    mark = sha256(token_url.encode()).hexdigest()[:8]
    return directory / f".Secret-{name}-{mark}.key"


def kept_key(path: Path, make: Callable[[], bytes]) -> bytes:
    """Read the key in a file, or make one and keep it there, with mode 0600.

    An empty file gets one as well: with no key at all the server would be asked to make it. Raises
    Invalid("key", …) when something else is there, and as new files do.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        with new_file(path, force=False) as file:
            file.write(made := make())
        return made
    except OSError as error:
        raise Invalid("key", f"{path} cannot be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Invalid("key", f"{path} is no regular file")
        if kept := os.read(descriptor, _LONGEST_KEY_BYTES):
            return kept
    finally:
        os.close(descriptor)
    with new_file(path, force=True) as file:
        file.write(made := make())
    return made


def forget_key(directory: Path, name: str, token_url: str) -> None:
    """Remove the key that was kept for a claim, if there is one."""
    with contextlib.suppress(OSError):  # it is of no use to anybody by now
        key_path(directory, name, token_url).unlink()


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
    except FileExistsError as error:
        raise Conflict(f"{directory} is there already and is no directory") from error
    except OSError as error:
        raise Invalid("out", f"{directory} cannot be made: {error.strerror}") from error


def _taken(directory: Path, name: str) -> list[Path]:
    """Name the files that a link `name` may need; a site with several routers numbers its Links."""
    try:
        numbered = [
            path
            for path in directory.iterdir()
            if path.name.startswith(f"Link-{name}-")
            and path.name.removeprefix(f"Link-{name}-").removesuffix(".yaml").isdigit()
        ]
    except OSError as error:
        raise Unavailable(f"{directory} cannot be read: {error.strerror}") from error
    return [directory / f"Secret-{name}.yaml", directory / f"Link-{name}.yaml", *numbered]


def _path(directory: Path, resource: Resource) -> Path:
    check_name("name", resource.name)
    path = directory / f"{resource.kind}-{resource.name}.yaml"
    if path.parent != directory:
        raise Invalid("name", "it leads out of the directory")
    return path
