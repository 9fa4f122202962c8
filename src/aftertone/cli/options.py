"""Options that several commands share: the data folder, the settings file, JSON.

Owns: their names, environment variables and defaults. Refuses to know: the commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aftertone.config import Settings, load
from aftertone.roles.folder import Folder

Data = Annotated[
    Path, typer.Option("--data", envvar="AFTERTONE_DATA", help="Data folder of the machine.", show_default=True)
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="AFTERTONE_CONFIG",
        help="Settings file. Without it: ./aftertone.toml, then aftertone.toml in the data folder, if there is one.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

DEFAULT_DATA = Path("var")


def settings_file(data: Path, config: Path | None) -> Path | None:
    """Return the settings file to read, or None when there is none."""
    if config is not None:
        return config
    return next((path for path in (Path("aftertone.toml"), data / "aftertone.toml") if path.is_file()), None)


def machine(data: Path, config: Path | None) -> tuple[Folder, Settings]:
    """Return the folder and the settings that the options name. Raises ConfigError."""
    return Folder(data.absolute()), load(settings_file(data, config))
