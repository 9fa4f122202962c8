"""``aftertone sip trace``: what telephones and this machine say to each other, call by call, as it happens or of one message.

Owns: following the line's file of passing messages, the filters, and how a ladder looks in a terminal. Refuses to know: how the
line gathers it (``roles.traces``) and what is blanked in it (``sip.trace``).

Theory of operation: while this runs it rewrites ``run/trace.json`` each second; the line sees that, and appends what passes to
``run/trace.jsonl`` until nobody has asked for five seconds (decision 0027). Messages of several calls come in the order in which they passed,
so a ladder is interrupted by another call, and goes on under the same name.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from aftertone.cli.client import desk
from aftertone.cli.message import resolve
from aftertone.cli.options import DEFAULT_DATA, Config, Data, Json, machine
from aftertone.errors import UsageError
from aftertone.roles.folder import Folder, read_status, write_status
from aftertone.roles.traces import FILE, WATCHER
from aftertone.sip.trace import Traced, message_from_json

RENEW_S: Final = 1.0
POLL_S: Final = 0.1
MAX_CALLS: Final = 10_000
"""Calls whose beginning is remembered; then it begins anew, and a call that goes on gets a new name."""
_NAMING: Final = (b"from", b"f", b"to", b"t", b"p-asserted-identity", b"diversion", b"history-info")
"""Headers in which ``--number`` is looked for, besides the request's own target."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls are shown."""

    number: str = ""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    everything: bool = False
    """Exchanges outside calls as well."""

    def wants(self, message: Traced, *, is_call: bool) -> bool:
        """Say whether the call that begins with this message is shown."""
        if not is_call and not self.everything:
            return False
        if self.network is not None and not _is_in(message.remote[0], self.network):
            return False
        return not self.number or self.number.lower() in _names_in(message.data)


def _is_in(host: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]) in network
    except ValueError:
        return False


def _names_in(data: bytes) -> str:
    start, *lines = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
    named = [line for line in lines if line.partition(b":")[0].strip().lower() in _NAMING]
    return b"\n".join([start, *named]).decode("utf-8", "replace").lower()


def network_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return what ``--address`` names. Raises UsageError."""
    if not text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(f"{text!r} is neither an address nor a network such as 192.0.2.0/24") from None


class Tail:
    """Reads what is appended to a file that may vanish, or begin anew, at any moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._rest = b""

    def lines(self) -> list[bytes]:
        """Return the whole lines that were added since the last call."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._position:
                    self._position, self._rest = 0, b""
                file.seek(self._position)
                data = file.read()
        except OSError:
            self._position, self._rest = 0, b""
            return []
        self._position += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        return whole


@dataclass(slots=True)
class Ladders:
    """Turns passing messages into lines of text."""

    chosen: Filter
    width: int = 80
    _calls: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    """Call-ID to number and begin of the calls that are shown; None for the others."""
    _shown: int = 0
    _last: str = ""

    def take(self, value: dict[str, Any]) -> Iterator[str]:
        """Give the lines that show one line of the file."""
        if "missed" in value:
            yield f"({value['missed']} messages passed too quickly to be shown)"
            return
        message = message_from_json(value)
        call_id = str(value["call_id"])
        call = self._begin(call_id, message, is_call=value["is_call"] is True)
        if call is None:
            return
        number, began_ns = call
        if self._last != call_id:
            yield from self._head(number, call_id, message, goes_on=message.at_ns != began_ns)
        self._last = call_id
        yield rung(message.label, (message.at_ns - began_ns) // 1_000_000, self.width, sent=message.sent)

    def shows(self, value: dict[str, Any]) -> bool:
        """Say whether a line of the file belongs to a call that is shown."""
        if "missed" in value:
            return True
        message = message_from_json(value)
        return self._begin(str(value["call_id"]), message, is_call=value["is_call"] is True) is not None

    def _begin(self, call_id: str, message: Traced, *, is_call: bool) -> tuple[int, int] | None:
        if call_id not in self._calls:
            if len(self._calls) >= MAX_CALLS:
                self._calls.clear()
            is_wanted = self.chosen.wants(message, is_call=is_call)
            self._shown += is_wanted
            self._calls[call_id] = (self._shown, message.at_ns) if is_wanted else None
        return self._calls[call_id]

    def _head(self, number: int, call_id: str, message: Traced, *, goes_on: bool) -> Iterator[str]:
        host, port = message.remote
        clock = time.strftime("%H:%M:%S", time.localtime(message.at_ns // 1_000_000_000))
        yield ""
        yield f"#{number} {'goes on' if goes_on else clock}  {message.transport} {host}:{port}  {_shown(call_id)}"


def rung(label: str, offset_ms: int, width: int = 80, *, sent: bool) -> str:
    """Return one step of a ladder: they are on the left, this machine on the right."""
    room = max(24, width - 14)
    text = f" {_shown(label, room - 6)} "
    line = f"<{text:-^{room}}|" if sent else f"|{text:-^{room}}>"
    return f"{offset_ms:>8} ms {line}"


def _shown(text: str, longest: int = 60) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:longest]


def trace(
    message_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="A message, the end of its id, or 'last': its call. Without it: all calls, live."
        ),
    ] = None,
    pcap: Annotated[Path | None, typer.Option(help="Write the call of a message to this capture file.")] = None,
    number: Annotated[str, typer.Option(help="Only calls from or to a number or name with this in it.")] = "",
    address: Annotated[str, typer.Option(help="Only with this address or network.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Registrations, subscriptions and OPTIONS as well.")
    ] = False,
    data: Data = DEFAULT_DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what telephones and this machine say to each other: the last calls, then each as it happens, until Ctrl-C.

    Passwords and keys are blank.
    """
    if message_id is not None:
        _of_message(message_id, pcap, data, config, as_json=as_json)
        return
    if pcap is not None:
        raise UsageError(
            "a capture file is written of one message: name it, for instance aftertone sip trace last --pcap FILE"
        )
    folder, _ = machine(data, config)
    if read_status(folder, "line") is None:
        raise UsageError(
            f"no line runs in {folder.root}: start it with aftertone serve, or name its folder with --data"
        )
    ladders = Ladders(Filter(number, network_of(address), everything), shutil.get_terminal_size().columns)
    try:
        _watch(folder, ladders, as_json=as_json)
    except KeyboardInterrupt:
        return
    finally:
        (folder.run / f"{WATCHER}.json").unlink(missing_ok=True)


def _watch(folder: Folder, ladders: Ladders, *, as_json: bool) -> None:
    tail = Tail(folder.run / FILE)
    renew_s = 0.0
    while True:
        if time.monotonic() >= renew_s:
            write_status(folder, WATCHER, {})
            renew_s = time.monotonic() + RENEW_S
        for line in tail.lines():
            try:
                value = json.loads(line)
                if as_json and ladders.shows(value):
                    typer.echo(json.dumps(value))
                elif not as_json:
                    for text in ladders.take(value):
                        typer.echo(text)
            except (ValueError, KeyError, TypeError, OverflowError):
                # A line that was cut where the file began anew.
                continue
        time.sleep(POLL_S)


def _of_message(message_id: str, pcap: Path | None, data: Path, config: Path | None, *, as_json: bool) -> None:
    with desk(data, config) as api:
        found = resolve(api, message_id)
        if pcap is not None:
            content = api.request("GET", f"/messages/{found}/signalling", params={"format": "pcap"}).content
        else:
            value = api.get(f"/messages/{found}/signalling")
    if pcap is not None:
        try:
            pcap.write_bytes(content)
        except OSError as error:
            raise UsageError(f"cannot write {pcap}: {error.strerror}") from None
        facts = {"id": found, "file": str(pcap), "bytes": len(content)}
        typer.echo(json.dumps(facts) if as_json else f"{pcap}: {len(content)} bytes")
        return
    if as_json:
        typer.echo(json.dumps(value))
        return
    width = shutil.get_terminal_size().columns
    for index, one in enumerate(value["messages"]):
        if not index:
            typer.echo(f"{one['transport']} {one['remote']}  {_shown(value['call_id'])}")
        typer.echo(rung(one["label"], one["offset_ms"], width, sent=one["sent"]))
    if value["left_out"]:
        typer.echo(f"({value['left_out']} messages in the middle were not kept)")
