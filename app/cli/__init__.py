"""The command line: one file per noun, and the only place that prints."""

from typing import NoReturn

from app.cli.root import root


def main() -> NoReturn:
    """Run the command line of this process and end it with the exit code."""
    root.main()
