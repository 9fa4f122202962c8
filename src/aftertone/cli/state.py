"""``aftertone verify``: do the books balance.

Owns: asking and printing. Refuses to know: how books are reconciled.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import typer

from aftertone.cli.options import DEFAULT_DATA, Config, Data, Json, machine
from aftertone.errors import UsageError
from aftertone.files import OsFiles
from aftertone.journal.reader import JournalReader


def verify(data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Check that every answered call is accounted for, and that journal, recordings and catalog agree.

    Exit status 0 when the books balance, 1 when they do not. Reads only; may run beside the machine.
    """
    from aftertone.delivery.verify import verify as reconcile
    from aftertone.store.blobs import DirectoryBlobs
    from aftertone.store.catalog import Catalog

    folder, _ = machine(data, config)
    if not folder.catalog.exists():
        raise UsageError(f"there is no machine in {folder.root}; name its folder with --data")
    catalog = Catalog.open(folder.catalog)
    try:
        books = reconcile(JournalReader(OsFiles(), folder.journal), DirectoryBlobs(folder.blobs), catalog)
    finally:
        catalog.close()
    value = books.to_json()
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False))
    else:
        _print_books(value)
    sys.exit(0 if books.ok else 1)


def _print_books(value: Mapping[str, Any]) -> None:
    for key, item in value.items():
        if isinstance(item, list):
            for line in item:
                typer.echo(f"  {key}: {line}")
        elif key != "ok":
            typer.echo(f"{key:16} {item}")
    typer.echo("The books balance." if value["ok"] else "THE BOOKS DO NOT BALANCE: see the lines above.")
