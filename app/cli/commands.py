"""What all commands share: verbs that show examples in their help, nouns that load late.

Importing the database and the cryptography costs more than most commands take, so a noun knows
its verbs' one-line helps itself and imports a module only when something in it is asked for.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import click

_NOTHING_LATE: Final[Mapping[str, "Late"]] = MappingProxyType({})


class Late(NamedTuple):
    """A command that is imported on demand: its module (which calls it `command`), its help."""

    module: str
    help: str


class Verb(click.Command):
    """A command whose help ends with examples, to be typed as they stand."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own that is never broken."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Noun(click.Group):
    """A group of verbs; those in `late` are imported when they are asked for."""

    command_class = Verb

    def __init__(self, *args: Any, late: Mapping[str, Late] = _NOTHING_LATE, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.late = late

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which they were written down, the late ones first."""
        del ctx
        return [*self.late, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command, importing it if need be."""
        if cmd_name not in self.late:
            return super().get_command(ctx, cmd_name)
        found = import_module(self.late[cmd_name].module).command
        if not isinstance(found, click.Command):
            raise TypeError(f"{self.late[cmd_name].module}.command is no command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their helps, without importing the late ones."""
        rows = [(name, late.help) for name, late in self.late.items()]
        rows += [(name, command.get_short_help_str(100)) for name, command in self.commands.items()]
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(rows)
