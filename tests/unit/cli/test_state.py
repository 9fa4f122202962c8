"""``aftertone verify`` and ``aftertone doctor``: what they find, and the exit status that says so."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aftertone.cli import state
from aftertone.errors import StorageError
from aftertone.roles import storage
from aftertone.roles.folder import Folder, write_status
from aftertone.roles.storage import Mount, StorageReport
from tests.support.machine import free_port
from tests.support.recorder import Recorder
from tests.support.recordings import an_envelope, rows_of
from tests.unit.cli.shell import Shell

GOOD = StorageReport(Mount("/", "ext4", "rw"), 50_000_000_000, 1.0, 4.0, True, "ext4: good")


# verify


def test_books_that_balance(shell: Shell) -> None:
    done = shell("verify")
    assert done.status == 0
    assert done.out.endswith("The books balance.\n")
    found = shell("verify", "--json").json()
    assert (found["ok"], found["messages"], found["hangups"]) == (True, 4, 1)


def test_books_that_do_not_balance_say_why(shell: Shell) -> None:
    gone = next((shell.data / "blobs" / "messages").rglob("*.flac"))
    gone.unlink()
    done = shell("verify")
    assert done.status == 1
    assert f"missing: message {gone.stem}" in done.out
    assert "THE BOOKS DO NOT BALANCE" in done.out
    assert shell("verify", "--json").status == 1


def test_a_call_that_waits_for_delivery_is_no_fault(shell: Shell) -> None:
    recorder = Recorder(shell.data / "journal")
    recorder.recording(an_envelope(), rows_of(seconds=0.2))
    recorder.stop()
    assert shell("verify", "--json").json()["pending"] == 1


@pytest.mark.parametrize("command", [("verify",), ("message", "list"), ("mailbox", "list")])
def test_a_folder_without_a_machine(shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert "there is no machine in" in shell.fails(*command, "--data", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# doctor


@pytest.fixture(autouse=True)
def _good_ground(monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    monkeypatch.setattr(storage, "report", lambda _: GOOD)
    for name in ("SIP", "WEB"):
        monkeypatch.setenv(f"AFTERTONE_{name}__HOST", "127.0.0.1")
        monkeypatch.setenv(f"AFTERTONE_{name}__PORT", str(free_port()))


def examine(shell: Shell) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    import json

    done = shell("doctor", "--json")
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(done.out):
        found.setdefault(finding["name"], []).append(finding)
    return done.status, found


def test_a_healthy_machine_that_is_stopped(shell: Shell) -> None:
    status, found = examine(shell)
    assert status == 0
    assert found["machine"] == [{"name": "machine", "good": True, "text": "not running"}]
    assert [f["text"].split(":")[-1].strip() for f in found["port"]] == ["free", "free", "free"]
    assert {"storage", "room", "sync", "clock", "journal"} <= found.keys()
    done = shell("doctor")
    assert done.status == 0
    assert "BAD" not in done.out


@pytest.mark.parametrize(
    ("setting", "kind"), [("SIP", socket.SOCK_DGRAM), ("SIP", socket.SOCK_STREAM), ("WEB", socket.SOCK_STREAM)]
)
def test_a_port_of_another_program(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, setting: str, kind: socket.SocketKind
) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        monkeypatch.setenv(f"AFTERTONE_{setting}__PORT", str(other.getsockname()[1]))
        status, found = examine(shell)
    assert status == 1
    (bad,) = (f["text"] for f in found["port"] if not f["good"])
    assert f"change {setting.lower()}.port" in bad


def test_a_machine_that_runs_with_alarms_and_a_role_down(shell: Shell) -> None:
    folder = Folder(shell.data)
    write_status(folder, "line", {"alarms": [{"code": "slow_disk", "text": "The disk is slow"}]})
    write_status(folder, "desk", {"url": "http://127.0.0.1:1"})
    status, found = examine(shell)
    assert status == 1
    assert (found["line"][0]["good"], found["desk"][0]["good"], found["delivery"][0]["good"]) == (True, True, False)
    assert found["alarm"][0]["text"] == "The disk is slow"
    assert all(not f["good"] and "not listened on" in f["text"] for f in found["port"])


@pytest.mark.parametrize(
    ("report", "bad"),
    [
        (StorageReport(None, 50_000_000_000, 1, 4, False, "tmpfs: it lives in memory"), "storage"),
        (StorageReport(None, 50_000_000, 1, 4, True, "ext4: good"), "room"),
        (StorageReport(None, 50_000_000_000, 90, 400, True, "ext4: good"), "sync"),
    ],
)
def test_ground_that_is_weak_full_or_slow(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, report: StorageReport, bad: str
) -> None:
    monkeypatch.setattr(storage, "report", lambda _: report)
    status, found = examine(shell)
    assert status == 1
    assert [name for name, findings in found.items() if not all(f["good"] for f in findings)] == [bad]
    assert f"BAD   {bad}" in shell("doctor").out


def test_ground_that_cannot_be_measured_is_a_finding(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> StorageReport:
        raise StorageError("cannot write and sync in var: Read-only file system")

    monkeypatch.setattr(storage, "report", fail)
    status, found = examine(shell)
    assert status == 1
    assert "Read-only" in found["storage"][0]["text"]


def test_a_clock_that_was_never_set(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SANE_SINCE_S", time.time() + 1000)
    status, found = examine(shell)
    assert status == 1
    assert "never set" in found["clock"][0]["text"]


@pytest.fixture
def journal(shell: Shell) -> Iterator[Path]:
    recorder = Recorder(shell.data / "journal")
    recorder.recording(an_envelope(), rows_of(seconds=0.4))
    recorder.stop()
    (segment,) = (shell.data / "journal").glob("*.journal")
    yield segment


def test_a_journal_without_damage(shell: Shell, journal: Path) -> None:
    status, found = examine(shell)
    assert status == 0
    assert "none damaged" in found["journal"][0]["text"]


def test_a_journal_with_damage(shell: Shell, journal: Path) -> None:
    content = bytearray(journal.read_bytes())
    somewhere = content.index(rows_of(seconds=0.4)[3][-1])
    content[somewhere] ^= 0xFF
    journal.write_bytes(content)
    status, found = examine(shell)
    assert status == 1
    assert "keep a copy" in found["journal"][0]["text"]
