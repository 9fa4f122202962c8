"""``aftertone verify`` and ``aftertone doctor``: do the books balance, and is the ground firm.

Owns: asking and printing. Refuses to know: how books are reconciled, what makes storage good.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from aftertone.cli.options import DEFAULT_DATA, Config, Data, Json, machine
from aftertone.config import Settings
from aftertone.errors import AftertoneError, UsageError
from aftertone.files import OsFiles
from aftertone.journal.reader import JournalReader
from aftertone.roles import storage
from aftertone.roles.folder import Folder, read_status

SANE_SINCE_S = 1_767_225_600
"""1 January 2026: a clock before that has never been set."""


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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the doctor looked at."""

    name: str
    good: bool
    text: str


def doctor(data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Look at storage, ports, clock, disk and journal, and say what is wrong and what to do.

    Exit status 0 when all is good, 1 when something needs a hand.
    """
    folder, settings = machine(data, config)
    if not folder.root.is_dir():
        raise UsageError(
            f"there is no machine in {folder.root}; name its folder with --data, or start one: aftertone serve"
        )
    folder.make()
    running = read_status(folder, "line")
    findings = [
        *_roles(folder),
        *_storage(folder, settings),
        *_ports(settings, running is not None),
        _clock(),
        _journal(folder),
    ]
    if as_json:
        typer.echo(json.dumps([{"name": f.name, "good": f.good, "text": f.text} for f in findings], ensure_ascii=False))
    else:
        for finding in findings:
            typer.echo(f"{'good ' if finding.good else 'BAD  '} {finding.name:9} {finding.text}")
    sys.exit(0 if all(f.good for f in findings) else 1)


def _roles(folder: Folder) -> list[Finding]:
    states = {role: read_status(folder, role) for role in ("line", "delivery", "desk")}
    if not any(states.values()):
        return [Finding("machine", True, "not running")]
    findings = [
        Finding(role, status is not None, "running" if status is not None else "not running, or stuck")
        for role, status in states.items()
    ]
    alarms = (states["line"] or {}).get("alarms")
    if isinstance(alarms, list):
        findings += [Finding("alarm", False, str(alarm["text"])) for alarm in alarms]
    return findings


def _storage(folder: Folder, settings: Settings) -> list[Finding]:
    try:
        report = storage.report(folder.root)
    except AftertoneError as error:
        return [Finding("storage", False, str(error))]
    low_bytes = settings.storage.low_water_mb * 1_000_000
    room = f"{report.free_bytes / 1e9:.1f} GB free; calls are refused below {settings.storage.low_water_mb} MB"
    speed = f"8 kB written and synced in {report.sync_p50_ms:.1f} ms (p50), {report.sync_p99_ms:.1f} ms (p99)"
    return [
        Finding("storage", report.good, report.verdict),
        Finding("room", report.free_bytes >= low_bytes, room),
        Finding(
            "sync", report.sync_p99_ms < 150, speed + ("" if report.sync_p99_ms < 150 else ": too slow for the promise")
        ),
    ]


def _ports(settings: Settings, running: bool) -> list[Finding]:
    wanted = [
        ("sip.port", settings.sip.host, settings.sip.port, socket.SOCK_DGRAM, "UDP"),
        ("sip.port", settings.sip.host, settings.sip.port, socket.SOCK_STREAM, "TCP"),
        ("web.port", settings.web.host, settings.web.port, socket.SOCK_STREAM, "TCP"),
    ]
    findings = []
    for setting, host, port, kind, label in wanted:
        taken = _is_taken(host, port, kind)
        good = taken == running
        state = (
            ("used by this machine" if running else f"in use by another program; change {setting}") if taken else "free"
        )
        if running and not taken:
            state = f"not listened on, although the machine runs; was {setting} changed since it started?"
        findings.append(Finding("port", good, f"{label} {port} ({setting}): {state}"))
    return findings


def _is_taken(host: str, port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sock:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return True
    return False


def _clock() -> Finding:
    now_s = time.time()
    text = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now_s))
    good = now_s >= SANE_SINCE_S
    return Finding("clock", good, text if good else f"{text}: never set; messages will carry wrong times until it is")


def _journal(folder: Folder) -> Finding:
    reader = JournalReader(OsFiles(), folder.journal)
    try:
        records = sum(1 for _ in reader.poll())
        damage = list(reader.damage)
    except AftertoneError as error:
        return Finding("journal", False, str(error))
    if damage:
        return Finding("journal", False, f"{len(damage)} damaged records: {damage[0]}; keep a copy of {folder.journal}")
    return Finding("journal", True, f"{records} records waiting or in use, none damaged")
