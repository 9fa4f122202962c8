"""``aftertone config``: check, show, example."""

from __future__ import annotations

import typer

from aftertone import config as settings_module
from aftertone.cli.options import DEFAULT_DATA, Config, Data, settings_file

app = typer.Typer(help="Settings: check them, show them, write an example.", no_args_is_help=True)


@app.command()
def check(data: Data = DEFAULT_DATA, config: Config = None) -> None:
    """Check the settings file and the environment; exit status 2 and one line when something is wrong."""
    path = settings_file(data, config)
    settings_module.load(path)
    typer.echo(f"{path or 'no settings file'}: good")


@app.command()
def show(data: Data = DEFAULT_DATA, config: Config = None) -> None:
    """Print the settings in force, as TOML."""
    typer.echo(settings_module.show(settings_module.load(settings_file(data, config))), nl=False)


@app.command()
def example() -> None:
    """Print an aftertone.toml with every setting, its default and what it is for."""
    typer.echo(settings_module.example(), nl=False)
