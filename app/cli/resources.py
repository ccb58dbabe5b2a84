"""The directory from which a Skupper system site reads its resources.

A system site's namespace directory holds `input/resources`, with one file for each resource,
`Secret-NAME.yaml` and `Link-NAME.yaml`. Names come from another machine: they are never part of a
path before they were found to be plain labels.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from app.cli.files import check_free, new_file
from app.domain.names import check_name
from app.domain.receipts import Resource
from app.errors import Conflict, Invalid, Unavailable

_PARTS: Final = ("input", "resources")
_DIRECTORY_MODE: Final = 0o700


@contextlib.contextmanager
def removed_if_refused(namespace: Path) -> Iterator[None]:
    """Remove the directories that the block has made, if it fails and nothing is in them."""
    directories = (namespace, namespace / _PARTS[0], namespace.joinpath(*_PARTS))
    missing = [directory for directory in directories if not os.path.lexists(directory)]
    try:
        yield
    except BaseException:
        for directory in reversed(missing):
            with contextlib.suppress(OSError):  # never made, or somebody uses it by now
                directory.rmdir()
        raise


def prepare(namespace: Path, name: str, *, force: bool) -> Path:
    """Make the directory if it is missing, and make sure that a link `name` can be stored there.

    To be called before a code is posted, so that no redemption is wasted. Returns the directory
    of the resources. Raises Invalid for a name that is no label or a directory that cannot be
    used, Conflict when such a link is there already (unless `force`).
    """
    check_name("name", name)
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
