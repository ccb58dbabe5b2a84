"""The Links of a system site, in the files that it reads: found, and given another cost."""

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from app.cli.files import new_file, read_input
from app.cli.output import hint
from app.cli.resources import directory_of
from app.domain.known_links import KIND, KnownLink, cost_of, known_link
from app.domain.yaml_documents import read_all, write
from app.errors import Conflict, Invalid, Missing

_SUFFIXES: Final = {".yaml", ".yml"}


class _Place(NamedTuple):
    path: Path
    link: dict[str, Any]
    alone: bool


def every(namespace: Path) -> Sequence[KnownLink]:
    """Find all of them, by name; a file that cannot be read is told and left out."""
    return sorted((known_link(place.link) for place in _links(namespace)), key=lambda one: one.name)


def set_cost(namespace: Path, name: str, cost: int) -> int:
    """Change the cost of one in its file; gives the one before.

    Raises Missing, Conflict where it does not have a file of its own, and as new files do.
    """
    places = [place for place in _links(namespace) if known_link(place.link).name == name]
    if not places:
        raise Missing("Link", name)
    path, link, alone = places[0]
    if len(places) > 1 or not alone:
        raise Conflict(f"Link {name} is not alone in {path}, or in more than one file: edit it")
    if not isinstance(link.get("spec"), dict):
        raise Invalid("file", f"{path}: the Link has no spec")
    before = cost_of(link)
    if link["spec"].get("cost") != cost:
        link["spec"]["cost"] = cost
        with new_file(path, force=True, mode=stat.S_IMODE(path.stat().st_mode)) as file:
            file.write(write(link).encode())
    return before


def _links(namespace: Path) -> Iterator[_Place]:
    if not namespace.is_dir():
        raise Invalid("dir", f"{namespace} is no directory")
    directory = directory_of(namespace)
    try:
        paths = sorted(
            path
            for path in directory.iterdir()
            if path.suffix in _SUFFIXES and (path.is_file() or not path.exists())
        )
    except FileNotFoundError:
        return
    except OSError as error:
        raise Invalid("dir", f"{directory} cannot be read: {error.strerror}") from error
    for path in paths:
        try:
            documents = read_all("file", read_input(str(path), what="file").decode())
        except UnicodeDecodeError:
            hint(f"left out: {path} is no text in UTF-8")
            continue
        except Invalid as error:
            hint(f"left out: {path}: {error.why}")
            continue
        for document in documents:
            if isinstance(document, dict) and document.get("kind") == KIND:
                yield _Place(path, document, len(documents) == 1)
