"""The command line: one module a group of commands; all of them talk to the desk's API, none to its database.

Owns: the command tree and how an error reaches a person. Refuses to know: how anything is done.
"""

from __future__ import annotations

import sys

import typer

from aftertone import __version__
from aftertone.cli import call, configuration, doctor, mailbox, message, serve, sip, state, trace
from aftertone.errors import AftertoneError, ConfigError, UsageError

app = typer.Typer(
    name="aftertone",
    help="An answering machine that never loses a message.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.command("call")(call.call)
app.command("verify")(state.verify)
app.command("doctor")(doctor.doctor)
app.command("login-link")(serve.login_link)
app.add_typer(message.app, name="message")
app.add_typer(mailbox.app, name="mailbox")
sip.app.command("trace")(trace.trace)
app.add_typer(sip.app, name="sip")
app.add_typer(configuration.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aftertone {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """An answering machine that never loses a message."""


def main() -> None:
    """Run the command line; errors of ours are one line on stderr, exit status 2 for what the person can mend, else 1."""
    try:
        app()
    except (ConfigError, UsageError) as error:
        typer.echo(f"aftertone: {error}", err=True)
        sys.exit(2)
    except AftertoneError as error:
        typer.echo(f"aftertone: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
