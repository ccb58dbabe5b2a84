"""What commands print: tables for people, JSON and YAML for programs, and what to type next.

Keys of JSON and YAML are camelCase, as in Kubernetes and in what the server answers; a list is an
array, a single thing an object, and times are RFC 3339 everywhere. Results go to standard output;
hints and warnings go to standard error where the output is a document.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from app.cli import afar
from app.cli.exits import one_line

Document = Mapping[str, Any]
_Command = TypeVar("_Command", bound=Callable[..., Any])
_NONE: Final = "-"
ENDPOINTS: Final = ("--endpoint", "inter-router=HOST:55671", "--endpoint", "edge=HOST:45671")
"""How a hint writes the endpoints of a site, with the ports that Skupper listens on."""


class Form(StrEnum):
    """How a list or a single thing is shown."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def form_option(command: _Command) -> _Command:
    """Add `-o` to a command, which gets it as `form`."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice([form.value for form in Form]),
        default=Form.TABLE.value,
        show_default=True,
        callback=lambda _context, _option, value: Form(value),
        help="Form of what is shown.",
    )(command)


def show_list(
    form: Form,
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    documents: Sequence[Document],
    *,
    empty: str,
) -> None:
    """Show things of one kind; `empty` says what to do when there are none."""
    if form is not Form.TABLE:
        _write(form, list(documents))
    elif rows:
        click.echo(table(headers, rows))
    else:
        click.echo(empty, err=True)


def show_one(form: Form, facts: Sequence[tuple[str, object]], document: Document) -> None:
    """Show a single thing: as aligned facts, or as a document."""
    if form is Form.TABLE:
        click.echo(aligned(facts))
    else:
        _write(form, document)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align rows under headers in upper case."""
    from tabulate import tabulate  # noqa: PLC0415 - half of the start of a command without it

    lines = tabulate(
        [[_cell(value) for value in row] for row in rows],
        [header.upper() for header in headers],
        tablefmt="plain",
        disable_numparse=True,
    ).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def aligned(facts: Sequence[tuple[str, object]]) -> str:
    """Write `label   value` lines, the values under each other."""
    width = max(len(label) for label, _ in facts)
    return "\n".join(f"{label:{width}}   {_cell(value)}" for label, value in facts)


def kind(origin: object) -> str:
    """Say whose a thing is: `local` when it was made here, `kubernetes` with any origin."""
    return "local" if origin is None else "kubernetes"


def say(text: str = "") -> None:
    """Print a result, or a word about it."""
    click.echo(text)


def hint(text: str = "") -> None:
    """Print something beside the result, on standard error."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Print a warning, on standard error."""
    click.echo(f"warning: {text}", err=True)


def paste(*words: str | Path) -> str:
    """Write a command of ours, quoted for a shell, with --config and --server as here."""
    config: Path | None = click.get_current_context().find_root().obj
    options = [] if config is None else ["--config", str(config)]
    chosen = afar.chosen()
    options += [] if chosen is None else chosen.words
    return shlex.join(["grantserver", *options, *map(str, words)])


def _write(form: Form, value: object) -> None:
    if form is Form.JSON:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        from app.domain import yaml_documents  # noqa: PLC0415 - only for those who ask for it

        click.echo(yaml_documents.write(value), nl=False)


def _cell(value: object) -> str:
    return _NONE if value is None else one_line(str(value))
