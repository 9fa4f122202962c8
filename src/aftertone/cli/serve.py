"""``aftertone serve`` and ``aftertone login-link``: start the machine, open its desk."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from aftertone.cli.options import DEFAULT_DATA, Config, Data, machine, settings_file
from aftertone.config import environment_name
from aftertone.errors import UsageError
from aftertone.roles.folder import Folder, read_status
from aftertone.roles.logs import set_up
from aftertone.roles.supervisor import Supervisor


def serve(
    data: Data = DEFAULT_DATA,
    config: Config = None,
    accept_storage: Annotated[
        bool, typer.Option("--accept-storage", help="No alarm about weak storage, like storage.accept = true.")
    ] = False,
) -> None:
    """Start the answering machine and keep it running. Ctrl-C ends calls politely and stops it."""
    began_s = time.monotonic()
    if accept_storage:
        # The roles inherit it, and it is stronger than the settings file.
        os.environ[environment_name("storage", "accept")] = "true"
    folder, settings = machine(data, config)
    folder.make()
    folder.lock()
    logger = set_up(settings.log, "supervisor")
    welcome = _Welcome(folder, settings.calls.default_mailbox, began_s)
    supervisor = Supervisor(folder.root, settings_file(data, config), logger, welcome.on_ready)
    sys.exit(asyncio.run(supervisor.run()))


def login_link(data: Data = DEFAULT_DATA, config: Config = None) -> None:
    """Print a link that opens the desk once within a day, for instance after a forgotten password."""
    from aftertone.roles.desk import login_link as make_link
    from aftertone.store.catalog import Catalog

    folder, _ = machine(data, config)
    status = read_status(folder, "desk")
    if status is None:
        raise UsageError(f"the machine in {folder.root} is not running; start it first: aftertone serve")
    catalog = Catalog.open(folder.catalog)
    try:
        typer.echo(make_link(catalog, str(status["url"])))
    finally:
        catalog.close()


class _Welcome:
    """Says once that the machine is ready, and how to use it."""

    def __init__(self, folder: Folder, mailbox: str, began_s: float) -> None:
        self._folder, self._mailbox, self._began_s = folder, mailbox, began_s
        self._facts: dict[str, Mapping[str, object]] = {}
        self._said = False

    def on_ready(self, role: str, facts: Mapping[str, object]) -> None:
        """Take a role's facts; when line and desk are ready, greet."""
        self._facts[role] = facts
        if self._said or not {"line", "desk"} <= self._facts.keys():
            return
        self._said = True
        line, desk = self._facts["line"], self._facts["desk"]
        port = line["port"]
        web = f"{desk['login']}   (opens once; then choose a password)" if "login" in desk else str(desk["url"])
        local = f"sip:{self._mailbox}@127.0.0.1{'' if port == 5060 else f':{port}'}"
        command = Path(sys.argv[0])
        shown = "aftertone" if command.name == "__main__.py" else _relative(command)
        option = "" if self._folder.root == Path("var").absolute() else f" --data {self._folder.root}"
        calls = f"It refuses calls: {line['refuses']}." if "refuses" in line else "It takes calls now."
        typer.echo(
            f"\nAftertone is ready after {time.monotonic() - self._began_s:.1f} s. {calls}\n\n"
            f"  Call      {line['sip']}\n"
            f"  Desk      {web}\n"
            f"  Data      {self._folder.root}\n"
            f"  No phone? In another shell: {shown} call {local}\n"
            f"            and then:         {shown} message list{option}\n\n"
            "Ctrl-C stops it.\n"
        )
        sys.stdout.flush()


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
