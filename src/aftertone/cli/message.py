"""``aftertone message``: list, show, play, export, heard, delete, restore."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aftertone.cli.client import Desk, desk
from aftertone.cli.options import DEFAULT_DATA, Config, Data, Json
from aftertone.errors import NotFoundError, UsageError

app = typer.Typer(help="Messages: read them, listen, keep or delete.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The message's id, the end of one, or 'last'.")]
PLAYERS: Final = (
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("mpv", "--really-quiet"),
    ("pw-play",),
    ("paplay",),
    ("aplay", "-q"),
    ("afplay",),
)


PLAYED_SHARE: Final = 0.9
"""Who has played this much of a message has heard it."""


class Format(StrEnum):
    """Audio files that can be exported."""

    WAV = "wav"
    FLAC = "flac"


@app.command("list")
def list_(
    mailbox: Annotated[str | None, typer.Option(help="Only this mailbox.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only 'message' or only 'hangup'.")] = None,
    state: Annotated[str | None, typer.Option(help="Only 'new', 'heard' or 'deleted'.")] = None,
    data: Data = DEFAULT_DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List messages, newest first; calls that left nothing follow apart. Deleted ones are listed with --state deleted."""
    with desk(data, config) as api:
        messages = _every(api, mailbox=mailbox, kind=kind, state=state)
    if as_json:
        typer.echo(json.dumps(messages))
        return
    spoken = [m for m in messages if m["kind"] == "message"]
    silent = [m for m in messages if m["kind"] != "message"]
    if not messages:
        typer.echo("No messages.")
    if spoken:
        Console().print(_table(spoken))
    if silent:
        typer.echo(f"{'' if not spoken else chr(10)}Hung up without a word:")
        Console().print(_table(silent))


@app.command()
def show(message_id: Id, data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Show everything known about one message."""
    with desk(data, config) as api:
        message = api.get(f"/messages/{resolve(api, message_id)}")
    if as_json:
        typer.echo(json.dumps(message))
        return
    for key, value in message.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items() if v) if isinstance(value, dict) else value
        if (key, value) == ("clock", "unsure"):
            shown = "unsure: it was not set when this came in, so the time is a guess"
        typer.echo(f"{key:16} {_printable(str(shown)) if shown not in (None, '', []) else '-'}")


@app.command()
def play(message_id: Id = "last", data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Play a message on this computer and mark it as heard, once nearly all of it was played."""
    player = next((p for p in PLAYERS if shutil.which(p[0])), None)
    if player is None:
        names = ", ".join(p[0] for p in PLAYERS)
        raise UsageError(f"no player found (looked for {names}); export the message instead: aftertone message export")
    with desk(data, config) as api:
        found = resolve(api, message_id)
        message = api.get(f"/messages/{found}")
        audio = api.request("GET", f"/messages/{found}/audio", params={"format": "wav"}).content
        began_s = time.monotonic()
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            file.write(audio)
            file.flush()
            done = subprocess.run([*player, file.name], check=False)  # noqa: S603 - a player from the table above
        if done.returncode:
            raise UsageError(f"{player[0]} could not play the message (exit status {done.returncode})")
        # Some players end at once and content where there is no loudspeaker: nobody heard that.
        if time.monotonic() - began_s < message["duration_ms"] / 1000 * PLAYED_SHARE:
            raise UsageError(f"{player[0]} ended before the message did: it stays {message['state']}")
        message = api.request("POST", f"/messages/{found}/heard").json()
    if as_json:
        typer.echo(json.dumps(message))


@app.command()
def export(
    message_id: Id,
    file: Annotated[Path, typer.Argument(help="File to write; its ending decides the format.")],
    audio_format: Annotated[
        Format | None, typer.Option("--format", help="Format, when the ending does not tell.")
    ] = None,
    data: Data = DEFAULT_DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write a message's audio to a file: FLAC as it is stored, or WAV."""
    ending = file.suffix.lstrip(".").lower()
    if audio_format is None:
        if ending not in (Format.WAV, Format.FLAC):
            raise UsageError(f"cannot tell the format from {file.name!r}: end it with .wav or .flac, or give --format")
        audio_format = Format(ending)
    with desk(data, config) as api:
        found = resolve(api, message_id)
        audio = api.request("GET", f"/messages/{found}/audio", params={"format": audio_format.value}).content
    try:
        file.write_bytes(audio)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None
    typer.echo(
        json.dumps({"id": found, "file": str(file), "bytes": len(audio)}) if as_json else f"{file}: {len(audio)} bytes"
    )


@app.command()
def heard(message_id: Id, data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Mark a message as heard. When this returns, the mark survives a power cut."""
    _act(data, config, as_json, message_id, "POST", "/heard", "is marked as heard")


@app.command()
def delete(message_id: Id, data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Put a message into the bin. 'restore' brings it back."""
    _act(data, config, as_json, message_id, "DELETE", "", "is in the bin; 'aftertone message restore' brings it back")


@app.command()
def restore(message_id: Id, data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Bring a message back from the bin."""
    _act(data, config, as_json, message_id, "POST", "/restore", "is back")


def _act(
    data: Path,
    config: Path | None,
    as_json: bool,
    message_id: str,
    method: str,
    path: str,
    done: str,
) -> None:
    with desk(data, config) as api:
        found = resolve(api, message_id)
        message = api.request(method, f"/messages/{found}{path}").json()
    typer.echo(json.dumps(message) if as_json else f"{found} {done}")


def _every(api: Desk, **filters: str | None) -> list[dict[str, Any]]:
    chosen: dict[str, str | int] = {key: value for key, value in filters.items() if value is not None}
    messages: list[dict[str, Any]] = []
    while True:
        page = api.get("/messages", limit=200, **chosen)
        messages += page["messages"]
        if not page.get("next"):
            return messages
        chosen["before"] = page["next"]


def resolve(api: Desk, text: str) -> str:
    """Return the full id for an id, the end of one (4 characters or more), or ``last``."""
    if len(text) == 36:
        return text
    everything = _every(api) + _every(api, state="deleted")
    if text == "last":
        if not everything:
            raise NotFoundError("there is no message yet")
        # Ids ascend in the order of calls, whatever the clock said meanwhile.
        return str(max(str(m["id"]) for m in everything))
    ends = {str(m["id"]) for m in everything if len(text) >= 4 and str(m["id"]).endswith(text.lower())}
    if len(ends) != 1:
        what = "no message's id ends" if not ends else f"{len(ends)} messages' ids end"
        raise NotFoundError(f"{what} with {text!r}; see aftertone message list")
    return ends.pop()


def _table(messages: list[dict[str, Any]]) -> Table:
    table = Table("", "when", "who", "length", "mailbox", "id", box=None, pad_edge=False)
    for m in messages:
        when = datetime.fromisoformat(m["started_at"]).astimezone().strftime("%Y-%m-%d %H:%M")
        when = f"about {when}" if m["clock"] == "unsure" else when
        who = " ".join(part for part in (m["caller"]["name"], m["caller"]["number"]) if part) or "unknown caller"
        seconds = round(m["duration_ms"] / 1000)
        length = f"{seconds // 60}:{seconds % 60:02}" + (" cut off" if m["cut_off"] else "")
        mark = {"new": "new", "heard": "", "deleted": "bin"}[m["state"]]
        # As Text: in a plain cell rich would obey what the caller wrote in brackets.
        table.add_row(mark, when, Text(_printable(who)), length, m["mailbox"], m["id"][-8:])
    return table


def _printable(text: str) -> str:
    """A caller chooses these characters: none of them may steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
