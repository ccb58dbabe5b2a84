"""The root of the command line: global options, the nouns, and the one place where errors end."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import click

from app import __version__
from app.cli import afar
from app.cli.commands import Late, Noun
from app.cli.exits import Exit, code, one_line, problems
from app.errors import GrantServerError

PROGRAM: Final = "grantserver"

_NOUNS: Final = {
    "serve": Late("app.cli.serve", "Run the server."),
    "site": Late("app.cli.site", "The listening sites that others link to."),
    "grant": Late("app.cli.grant", "Permissions to link: made, listed, revoked."),
    "token": Late("app.cli.token", "The files that are handed over: issued, redeemed, inspected."),
    "link": Late("app.cli.link", "The links of a connecting site, and what their costs come to."),
    "renew": Late("app.cli.renew", "Renew the certificates of links before they end."),
    "ca": Late("app.cli.ca", "The authorities that sign certificates."),
    "admin-token": Late("app.cli.admin_token", "Tokens of those who use the admin API."),
    "webhook": Late("app.cli.webhook", "Who is told of redemptions, refusals and thefts."),
    "audit": Late(
        "app.cli.audit", "The record of everything that was changed, and whether it is as it was."
    ),
    "db": Late("app.cli.db", "The database: upgraded, checked, backed up, pruned."),
    "doctor": Late("app.cli.doctor", "Look at what breaks in practice, and say what to do."),
}


class Root(Noun):
    """The whole program; every error ends here, as a line on standard error and an exit code."""

    def main(  # type: ignore[override]  # it never returns, whatever the mode
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,
    ) -> NoReturn:
        """Run a command line and end the process."""
        extra["standalone_mode"] = False
        try:
            ended = super().main(args, prog_name or PROGRAM, **extra)
            status = ended if isinstance(ended, int) else Exit.DONE
            sys.stdout.flush()
        except GrantServerError as error:
            _complain(problems(error))
            status = code(error)
        except click.ClickException as error:
            status = _show(error)
        except (click.Abort, KeyboardInterrupt):
            _complain(["interrupted"])
            status = Exit.FAILED
        except BrokenPipeError:
            # Whoever read our output has left; the interpreter must not complain of it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = Exit.FAILED
        sys.exit(status)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what nobody foresaw becomes a line as well."""
        try:
            return super().invoke(ctx)
        except (GrantServerError, click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except BrokenPipeError:
            raise
        except Exception as error:
            raise click.ClickException(_surprise(error, ctx.params["config"])) from error


@click.group(
    cls=Root,
    name=PROGRAM,
    late=_NOUNS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read settings from this TOML file; GRANTSERVER_… variables win over it.",
)
@click.option(
    "--server",
    metavar="URL",
    envvar=afar.SERVER,
    help="Work on the server whose admin API is at this URL, not on the installation beside it; "
    "GRANTSERVER_SERVER says the same.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    envvar=afar.TOKEN_FILE,
    help="File with the token for --server, which nobody else may read; "
    "GRANTSERVER_SERVER_TOKEN_FILE says the same.",
)
@click.option(
    "--ca",
    type=click.Path(path_type=Path),
    envvar=afar.CA_FILE,
    help="File with the only CA to be trusted of --server; "
    "GRANTSERVER_SERVER_CA_FILE says the same.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def root(
    context: click.Context,
    config: Path | None,
    server: str | None,
    token_file: Path | None,
    ca: Path | None,
) -> None:
    """Redeem Skupper access tokens: short-lived secrets in, certificates and Links out."""
    context.obj = config
    afar.remember(context, server, token_file, ca)


def _complain(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(f"error: {line}", err=True)


def _show(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    _complain([one_line(line) for line in error.format_message().splitlines()])
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"{error.ctx.get_usage()}\nhelp: {error.ctx.command_path} --help", err=True)
    return error.exit_code


def _surprise(error: Exception, config: Path | None) -> str:
    """Say that something was not foreseen; its text may hold anything, so it is not shown."""
    if _debugging(config):
        click.echo(_trace(error), err=True, nl=False)
        hint = "please report it with the lines above"
    else:
        hint = "run it again with GRANTSERVER_LOGS_LEVEL=debug to see where"
    return f"something happened that was not foreseen ({type(error).__name__}): {hint}"


def _trace(error: BaseException) -> str:
    """Write where an error and its causes come from, without their texts."""
    lines, current = [], cast("BaseException | None", error)
    while current is not None:
        lines += [f"{type(current).__name__}\n", *traceback.format_tb(current.__traceback__)]
        current = current.__cause__ or current.__context__
    return "".join(lines)


def _debugging(config: Path | None) -> bool:
    from app.logs import Level  # noqa: PLC0415 - only needed when all else has failed
    from app.settings import from_environment  # noqa: PLC0415

    try:
        return from_environment(config=config).logs.level is Level.DEBUG
    except GrantServerError:
        return False
