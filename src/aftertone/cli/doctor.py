"""``aftertone doctor``: is the ground firm, does the machine stand well on it, and does the disk keep its word.

Owns: asking and printing. Refuses to know: what makes storage good, how a disk is put to the test.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import typer

from aftertone.cli.options import DEFAULT_DATA, Config, Data, Json, machine
from aftertone.config import Settings
from aftertone.errors import AftertoneError, StorageFullError, UsageError
from aftertone.files import OsFiles
from aftertone.journal.floor import read_floor
from aftertone.journal.reader import JournalReader
from aftertone.model import Clock
from aftertone.roles import storage
from aftertone.roles.clock import Ground
from aftertone.roles.folder import Folder, read_status
from aftertone.roles.room import mark_of
from aftertone.roles.storage import Advice, Level
from aftertone.roles.timekeeper import RELEASED_UNIX_MS, judge

SLOWEST_SYNC_MS: Final = 150
"""p99 of a sync: with 50 ms between two commits, sound is on the disk within 200 ms of its arrival."""
FEWEST_FREE_FILES: Final = 1000
MEND_THE_STORAGE: Final = "Mend that, or choose another data folder with --data."
WITNESS_PORT: Final = 7071
WITNESS_FILE: Final = Path("acks.jsonl")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the doctor looked at."""

    name: str
    level: Level
    text: str
    """What was looked at, and found."""
    todo: str = ""


def doctor(
    data: Data = DEFAULT_DATA,
    config: Config = None,
    as_json: Json = False,
    pull_the_plug: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Test the disk under --data: write until somebody pulls the plug, telling the witness on a second machine; "
            "the same command after the boot says whether anything is missing.",
        ),
    ] = None,
    witness: Annotated[
        bool, typer.Option("--witness", help="Be the witness of such a test, on the second machine. Ctrl-C ends it.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port of the witness.")] = WITNESS_PORT,
    file: Annotated[Path, typer.Option(help="File in which the witness keeps what it is told.")] = WITNESS_FILE,
) -> None:
    """Look at storage, ports, clock, disk and journal, and say what is wrong and what to do.

    Exit status 0 when all is good, 1 when something needs a hand; a caution is not an alarm. With --pull-the-plug, see
    "Is this disk honest?" in docs/operation.md.
    """
    if witness and pull_the_plug is not None:
        raise UsageError(
            "--witness is for the second machine and --pull-the-plug for the one under test: give one of them"
        )
    if witness:
        _witness(port, file)
    elif pull_the_plug is not None:
        _pull_the_plug(data, pull_the_plug)
    else:
        _examine(data, config, as_json)


def _witness(port: int, file: Path) -> None:
    from aftertone.roles.plug.witness import Witness

    with Witness(file, port, _say) as witness:
        witness.serve()


def _pull_the_plug(data: Path, address: str) -> None:
    from aftertone.roles.plug.trial import PlugTest

    sys.exit(0 if PlugTest(data.absolute(), address, _say).run() else 1)


def _say(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


def _examine(data: Path, config: Path | None, as_json: bool) -> None:
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
        _clock(folder),
        _journal(folder),
        *_ears(),
    ]
    good = all(finding.level is not Level.BAD for finding in findings)
    if as_json:
        typer.echo(json.dumps([_to_json(finding) for finding in findings], ensure_ascii=False))
    else:
        _print(findings, good)
    sys.exit(0 if good else 1)


def _to_json(finding: Finding) -> dict[str, object]:
    good = finding.level is not Level.BAD
    return {"name": finding.name, "level": finding.level, "good": good, "text": finding.text, "todo": finding.todo}


def _print(findings: list[Finding], good: bool) -> None:
    for finding in findings:
        level = "BAD" if finding.level is Level.BAD else finding.level.value
        typer.echo(f"{level:8} {finding.name:9} {finding.text}")
        if finding.todo:
            typer.echo(f"{'':18} -> {finding.todo}")
    typer.echo("Nothing needs a hand." if good else "SOMETHING NEEDS A HAND: see what is marked BAD.")


def _roles(folder: Folder) -> list[Finding]:
    states = {role: read_status(folder, role) for role in ("line", "delivery", "desk")}
    if not any(states.values()):
        return [Finding("machine", Level.GOOD, f"the machine in {folder.root} is not running")]
    findings = [
        Finding(role, Level.GOOD, "running")
        if status is not None
        else Finding(role, Level.BAD, "not running, or stuck", "See the log: it says why it ends.")
        for role, status in states.items()
    ]
    alarms = (states["line"] or {}).get("alarms")
    if isinstance(alarms, list):
        todo = 'See "Alarms" in docs/operation.md.'
        findings += [Finding("alarm", Level.BAD, str(alarm["text"]), f"{alarm['code']}: {todo}") for alarm in alarms]
    return findings


def _storage(folder: Folder, settings: Settings) -> list[Finding]:
    try:
        report = storage.report(folder.root)
    except AftertoneError as error:
        return [Finding("storage", Level.BAD, str(error), MEND_THE_STORAGE)]
    findings = [_ground("storage", report.advice, settings)]
    findings += [_ground("disk", advice, settings) for advice in report.disks]
    return [*findings, *_room(folder, report, settings), _sync(folder, report)]


def _ground(name: str, advice: Advice, settings: Settings) -> Finding:
    finding = Finding(name, advice.level, advice.found, advice.todo)
    if finding.level is not Level.BAD:
        return finding
    if settings.storage.accept:
        return replace(finding, level=Level.CAUTION, text=f"{finding.text} (accepted by storage.accept)")
    return replace(finding, todo=f"{finding.todo} If you know and accept it: storage.accept = true")


def _room(folder: Folder, report: storage.StorageReport, settings: Settings) -> list[Finding]:
    mark = mark_of(settings, report.disk_bytes)
    free = f"{report.free_bytes / 1e6:.0f} MB" if report.free_bytes < 1e9 else f"{report.free_bytes / 1e9:.1f} GB"
    room = f"{free} are free under {folder.root}; calls are refused below {mark}"
    findings = [
        Finding("room", Level.GOOD, room)
        if report.free_bytes >= mark.free_bytes
        else Finding("room", Level.BAD, room, "Make room, or set the named settings lower.")
    ]
    if report.free_files is None:
        return findings
    files = f"{report.free_files} more files fit (free inodes); each message takes one"
    if report.free_files >= FEWEST_FREE_FILES:
        return [*findings, Finding("files", Level.GOOD, files)]
    todo = "Remove small files that nobody needs, or make a file system with more inodes."
    return [*findings, Finding("files", Level.BAD, files, todo)]


def _sync(folder: Folder, report: storage.StorageReport) -> Finding:
    if isinstance(report.unmeasured, StorageFullError):
        text = f"{report.unmeasured}: how fast it is could not be measured, because the disk is full"
        return Finding("sync", Level.BAD, text, "Make room, and run this again.")
    if report.unmeasured is not None:
        return Finding("sync", Level.BAD, str(report.unmeasured), MEND_THE_STORAGE)
    text = (
        f"8 kB written and synced (fdatasync) in {folder.root}, again and again: {report.sync_p50_ms:.1f} ms (p50), "
        f"{report.sync_p99_ms:.1f} ms (p99)"
    )
    if report.sync_p99_ms < SLOWEST_SYNC_MS:
        return Finding("sync", Level.GOOD, text)
    todo = "Use a faster disk, or find what else keeps this one busy: a cut would cost more than 250 ms of a sentence."
    return Finding("sync", Level.BAD, f"{text}: too slow for the promise", todo)


def _ports(settings: Settings, running: bool) -> list[Finding]:
    wanted = [
        ("sip.port", settings.sip.hosts, settings.sip.port, socket.SOCK_DGRAM, "UDP"),
        ("sip.port", settings.sip.hosts, settings.sip.port, socket.SOCK_STREAM, "TCP"),
        ("web.port", (settings.web.host,), settings.web.port, socket.SOCK_STREAM, "TCP"),
    ]
    if settings.sip.tls:
        wanted.append(("sip.tls_port", settings.sip.hosts, settings.sip.tls_port, socket.SOCK_STREAM, "TLS"))
    findings = []
    for setting, hosts, port, kind, label in wanted:
        what = f"{label} {port} ({setting})"
        if port == 0:
            findings.append(Finding("port", Level.GOOD, f"{what}: any that is free"))
            continue
        taken = [_is_taken(host, port, kind) for host in hosts]
        if all(taken) if running else not any(taken):
            findings.append(Finding("port", Level.GOOD, f"{what}: {'used by this machine' if running else 'free'}"))
        elif running:
            text = f"{what}: not listened on, although the machine runs"
            findings.append(Finding("port", Level.BAD, text, f"Was {setting} changed since the start? Start it again."))
        else:
            text = f"{what}: in use by another program"
            findings.append(Finding("port", Level.BAD, text, f"Stop that program, or change {setting}."))
    return findings


def _is_taken(host: str, port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sock:
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return True
    return False


def _clock(folder: Folder) -> Finding:
    now_s = time.time()
    now_ms, passed_ms = int(now_s * 1000), read_floor(OsFiles(), folder.journal).clock_ms
    text = f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S %z', time.localtime(now_s))}"
    evidence = Ground().look(now_ms)
    if judge(now_ms, passed_ms, evidence) is Clock.TRUSTED:
        how = "is synchronised" if evidence.synchronised else "was kept while the machine was off"
        return Finding("clock", Level.GOOD, f"{text}, and {how}")
    todo = "Let NTP set it (systemd-timesyncd; chrony with rtcsync): until then the times of new messages are guesses."
    if now_ms < RELEASED_UNIX_MS:
        return Finding("clock", Level.BAD, f"{text}: it was never set", todo)
    if now_ms < passed_ms:
        last = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(passed_ms / 1000))
        return Finding("clock", Level.BAD, f"{text}, and the journal has a call of {last}", todo)
    return Finding("clock", Level.CAUTION, f"{text}, and nothing vouches for it", todo)


def _ears() -> list[Finding]:
    from aftertone.audio.vad import why_deaf

    reason = why_deaf()
    todo = "Nothing is lost: every recording with sound counts as a message, also where nobody speaks."
    return [Finding("speech", Level.CAUTION, reason, todo)] if reason else []


def _journal(folder: Folder) -> Finding:
    reader = JournalReader(OsFiles(), folder.journal)
    todo = f"Keep a copy of {folder.journal}, look at the disk, and run: aftertone verify"
    try:
        records = sum(1 for _ in reader.poll())
        damage = [damage for damage in reader.damage if damage.acknowledged]
    except AftertoneError as error:
        return Finding("journal", Level.BAD, str(error), todo)
    finally:
        reader.close()
    if damage:
        first = f"{damage[0].segment} at byte {damage[0].offset}: {damage[0].why}"
        text = f"{len(damage)} damaged places in {folder.journal}, the first in {first}"
        return Finding("journal", Level.BAD, text, todo)
    return Finding("journal", Level.GOOD, f"{records} records waiting or in use in {folder.journal}, none damaged")
