"""``aftertone mailbox``: add, list, show, set, greeting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from aftertone.cli.client import desk
from aftertone.cli.options import DEFAULT_DATA, Config, Data, Json
from aftertone.errors import NotFoundError, UsageError

app = typer.Typer(help="Mailboxes and their greetings.", no_args_is_help=True)
greeting_app = typer.Typer(help="What callers of a mailbox hear.", no_args_is_help=True)
app.add_typer(greeting_app, name="greeting")

Name = Annotated[str, typer.Argument(help="Name of the mailbox: the user part of its SIP address.")]
Numbers = Annotated[
    list[str] | None,
    typer.Option("--number", help="Number or extension under which it is called; may be given several times."),
]


@app.command()
def add(
    name: Name,
    rings: Annotated[int | None, typer.Option(help="Rings before answering; without it calls.rings holds.")] = None,
    number: Numbers = None,
    data: Data = DEFAULT_DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a mailbox. From the second one on, callers of unknown names are told so (404)."""
    with desk(data, config) as api:
        made = api.request("POST", "/mailboxes", json={"name": name, "rings": rings, "numbers": number or []}).json()
    typer.echo(json.dumps(made) if as_json else f"mailbox {made['name']} is there")


@app.command("set")
def set_(
    name: Name,
    number: Numbers = None,
    no_numbers: Annotated[bool, typer.Option("--no-numbers", help="Take all its numbers away.")] = False,
    rings: Annotated[int | None, typer.Option(help="Rings before answering.")] = None,
    default_rings: Annotated[bool, typer.Option("--default-rings", help="Ring as calls.rings says.")] = False,
    data: Data = DEFAULT_DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Change the numbers or rings of a mailbox. The numbers that are given are all that it has then."""
    wanted: dict[str, Any] = {}
    if number or no_numbers:
        wanted["numbers"] = [] if no_numbers else number
    if rings is not None or default_rings:
        wanted["rings"] = None if default_rings else rings
    if not wanted or (number and no_numbers) or (rings is not None and default_rings):
        raise UsageError("say what to change: --number or --no-numbers, --rings or --default-rings")
    with desk(data, config) as api:
        changed = api.request("PATCH", f"/mailboxes/{_quoted(name)}", json=wanted).json()
    typer.echo(json.dumps(changed, ensure_ascii=False) if as_json else f"mailbox {changed['name']} is changed")


@app.command("list")
def list_(data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """List the mailboxes."""
    with desk(data, config) as api:
        boxes = _boxes(api.get("/mailboxes"))
    if as_json:
        typer.echo(json.dumps(boxes, ensure_ascii=False))
        return
    table = Table("mailbox", "rings", "greeting", "new", "heard", "numbers", box=None, pad_edge=False)
    for box in boxes:
        table.add_row(*_row(box))
    Console().print(table)


@app.command()
def show(name: Name, data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Show one mailbox."""
    with desk(data, config) as api:
        box = api.get(f"/mailboxes/{_quoted(name)}")
    if as_json:
        typer.echo(json.dumps(box, ensure_ascii=False))
        return
    for label, value in zip(("mailbox", "rings", "greeting", "new", "heard", "numbers"), _row(box), strict=True):
        typer.echo(f"{label:9} {value or 'none'}")


@greeting_app.command("set")
def greeting_set(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Any audio file: WAV, MP3, OGG, FLAC, ...")],
    data: Data = DEFAULT_DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Give a mailbox its own greeting. When this returns it is durable, and the next caller hears it."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise NotFoundError(f"cannot read {file}: {error.strerror}") from None
    with desk(data, config) as api:
        answer = api.request(
            "PUT",
            f"/mailboxes/{_quoted(name)}/greeting",
            content=content,
            headers={"Content-Type": "application/octet-stream"},
        )
    typer.echo(json.dumps(answer.json()) if as_json else f"mailbox {name} has a new greeting")


@greeting_app.command("clear")
def greeting_clear(name: Name, data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Go back to the default greeting."""
    with desk(data, config) as api:
        answer = api.request("DELETE", f"/mailboxes/{_quoted(name)}/greeting")
    typer.echo(json.dumps(answer.json()) if as_json else f"mailbox {name} has the default greeting")


def _quoted(name: str) -> str:
    """Return a name as one part of a path. Raises UsageError for one that would be no part at all."""
    if name.strip(".") == "":
        raise UsageError(f"{name!r} cannot be the name of a mailbox")
    return quote(name, safe="")


def _boxes(answer: Any) -> list[dict[str, Any]]:
    return list(answer["mailboxes"])


def _row(box: dict[str, Any]) -> tuple[str, ...]:
    rings = "default" if box.get("rings") is None else str(box["rings"])
    greeting = "own" if box.get("greeting") else "default"
    counts = box.get("counts") or {}
    return (
        box["name"],
        rings,
        greeting,
        str(counts.get("new", 0)),
        str(counts.get("heard", 0)),
        ", ".join(box.get("numbers") or ()),
    )
