"""``aftertone doctor``: what it finds, and the exit status that says so."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aftertone.errors import StorageError, StorageFullError
from aftertone.roles import storage
from aftertone.roles.clock import Ground
from aftertone.roles.folder import Folder, write_status
from aftertone.roles.plug import trial
from aftertone.roles.storage import Advice, Level, StorageReport
from aftertone.roles.timekeeper import Evidence
from tests.support.machine import free_port
from tests.support.recorder import Recorder
from tests.support.recordings import an_envelope, rows_of
from tests.unit.cli.shell import Shell
from tests.unit.roles.plug.loopback import running_witness

GB = 1_000_000_000
GOOD = StorageReport(
    Advice(Level.GOOD, "ext4: good, it has a journal"),
    (Advice(Level.CAUTION, "sdb, a USB disk: who knows", "Pull the plug."),),
    free_bytes=50 * GB,
    disk_bytes=100 * GB,
    free_files=1_000_000,
    sync_p50_ms=1.0,
    sync_p99_ms=4.0,
)
WEAK = replace(GOOD, advice=Advice(Level.BAD, "tmpfs: it works, but", "Move the data folder."))


@pytest.fixture(autouse=True)
def _good_ground(monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    monkeypatch.setattr(storage, "report", lambda _: GOOD)
    for name in ("SIP", "WEB"):
        monkeypatch.setenv(f"AFTERTONE_{name}__HOST", "127.0.0.1")
        monkeypatch.setenv(f"AFTERTONE_{name}__PORT", str(free_port()))


def examine(shell: Shell) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    done = shell("doctor", "--json")
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(done.out):
        found.setdefault(finding["name"], []).append(finding)
    return done.status, found


def test_a_healthy_machine_that_is_stopped(shell: Shell) -> None:
    status, found = examine(shell)
    assert status == 0
    text = f"the machine in {shell.data} is not running"
    assert found["machine"] == [{"name": "machine", "level": "good", "good": True, "text": text, "todo": ""}]
    assert [f["text"].split(":")[-1].strip() for f in found["port"]] == ["free", "free", "free"]
    assert {"storage", "disk", "room", "files", "sync", "clock", "journal"} <= found.keys()
    done = shell("doctor")
    assert done.status == 0
    assert "BAD" not in done.out
    assert done.out.endswith("Nothing needs a hand.\n")


def test_a_caution_is_shown_and_is_no_alarm(shell: Shell) -> None:
    status, found = examine(shell)
    assert (status, found["disk"][0]["level"], found["disk"][0]["good"]) == (0, "caution", True)
    assert (
        "caution  disk      sdb, a USB disk: who knows\n                   -> Pull the plug.\n" in shell("doctor").out
    )


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
    (bad,) = (f for f in found["port"] if not f["good"])
    assert "in use by another program" in bad["text"]
    assert f"change {setting.lower()}.port" in bad["todo"]


def test_each_address_and_the_port_for_tls_are_looked_at(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERTONE_SIP__HOST", "127.0.0.1, 127.0.0.2")
    monkeypatch.setenv("AFTERTONE_SIP__TLS", "true")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.2", 0))
        other.listen()
        monkeypatch.setenv("AFTERTONE_SIP__TLS_PORT", str(other.getsockname()[1]))
        status, found = examine(shell)
    assert (status, len(found["port"])) == (1, 4)
    (bad,) = (f for f in found["port"] if not f["good"])
    assert bad["text"].startswith("TLS ")
    assert "sip.tls_port" in bad["todo"]


def test_any_port_is_never_in_use(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERTONE_SIP__PORT", "0")
    write_status(Folder(shell.data), "line", {})
    _, found = examine(shell)
    assert [f["good"] for f in found["port"]] == [True, True, False]


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
        (WEAK, "storage"),
        (replace(GOOD, disks=(Advice(Level.BAD, "zram0, a disk in memory", "Move it."),)), "disk"),
        (replace(GOOD, free_bytes=40_000_000), "room"),
        (replace(GOOD, free_files=7), "files"),
        (replace(GOOD, sync_p50_ms=90, sync_p99_ms=400), "sync"),
    ],
)
def test_ground_that_is_weak_full_or_slow(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, report: StorageReport, bad: str
) -> None:
    monkeypatch.setattr(storage, "report", lambda _: report)
    status, found = examine(shell)
    assert status == 1
    assert [name for name, findings in found.items() if not all(f["good"] for f in findings)] == [bad]
    assert all(f["todo"] for f in found[bad])
    done = shell("doctor")
    assert f"BAD      {bad}" in done.out
    assert "SOMETHING NEEDS A HAND" in done.out


def test_a_file_system_without_a_count_of_files(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "report", lambda _: replace(GOOD, free_files=None))
    status, found = examine(shell)
    assert (status, "files" in found) == (0, False)


def test_weak_storage_that_its_owner_accepted_is_a_caution(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "report", lambda _: WEAK)
    _, found = examine(shell)
    assert "storage.accept = true" in found["storage"][0]["todo"]
    monkeypatch.setenv("AFTERTONE_STORAGE__ACCEPT", "true")
    status, found = examine(shell)
    assert (status, found["storage"][0]["level"]) == (0, "caution")
    assert "accepted by storage.accept" in found["storage"][0]["text"]


@pytest.mark.parametrize(
    ("fault", "said", "todo"),
    [
        (StorageFullError("cannot write and sync in var: No space left on device"), "the disk is full", "Make room"),
        (StorageError("cannot write and sync in var: Read-only file system"), "Read-only file system", "Mend that"),
    ],
)
def test_a_disk_that_takes_nothing_is_described_all_the_same(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, fault: StorageError, said: str, todo: str
) -> None:
    report = replace(WEAK, free_bytes=0, sync_p50_ms=0, sync_p99_ms=0, unmeasured=fault)
    monkeypatch.setattr(storage, "report", lambda _: report)
    status, found = examine(shell)
    assert status == 1
    assert [name for name, findings in found.items() if not all(f["good"] for f in findings)] == [
        "storage",
        "room",
        "sync",
    ]
    (sync,) = found["sync"]
    assert said in sync["text"]
    assert "0.0 ms" not in sync["text"]
    assert sync["todo"].startswith(todo)


def test_ground_that_cannot_be_looked_at_is_a_finding(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> StorageReport:
        raise StorageError("the disk under var does not answer: Input/output error")

    monkeypatch.setattr(storage, "report", fail)
    status, found = examine(shell)
    assert status == 1
    assert "does not answer" in found["storage"][0]["text"]


def test_a_clock_that_was_never_set(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    status, found = examine(shell)
    assert status == 1
    assert "never set" in found["clock"][0]["text"]


@pytest.mark.parametrize(
    ("evidence", "level", "words"),
    [
        (Evidence(synchronised=True, kept_time=False), "good", "is synchronised"),
        (Evidence(synchronised=False, kept_time=True), "good", "was kept while the machine was off"),
        (Evidence(synchronised=False, kept_time=False), "caution", "nothing vouches for it"),
    ],
)
def test_what_vouches_for_the_clock(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, evidence: Evidence, level: str, words: str
) -> None:
    monkeypatch.setattr(Ground, "look", lambda *_: evidence)
    status, found = examine(shell)
    assert (status, found["clock"][0]["level"]) == (0, level)
    assert found["clock"][0]["text"].endswith(words)


def test_a_clock_that_is_behind_the_last_call(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ground, "look", lambda *_: Evidence(synchronised=False, kept_time=True))
    recorder = Recorder(shell.data / "journal")
    recorder.begin(replace(an_envelope(), started_unix_ms=4_000_000_000_000))
    recorder.stop()
    status, found = examine(shell)
    assert status == 1
    assert "the journal has a call of 2096-10-02" in found["clock"][0]["text"]
    assert "NTP" in found["clock"][0]["todo"]


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
    assert "1 damaged places" in found["journal"][0]["text"]
    assert "Keep a copy" in found["journal"][0]["todo"]


def test_the_torn_end_that_a_power_cut_leaves_is_no_damage(shell: Shell, journal: Path) -> None:
    content = journal.read_bytes().rstrip(b"\0")
    journal.write_bytes(content[:-3])
    status, found = examine(shell)
    assert (status, found["journal"][0]["good"]) == (0, True)


# the plug


def test_one_of_the_two_machines_at_a_time(shell: Shell) -> None:
    assert "give one of them" in shell.fails("doctor", "--witness", "--pull-the-plug", "host:1")


def test_a_folder_without_a_machine_may_be_tested(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LONGEST_S", 0.1)
    with running_witness(tmp_path / "acks.jsonl") as running:
        done = shell("doctor", "--pull-the-plug", running.address, "--data", tmp_path)
        assert (done.status, "nothing is proven" in done.out) == (0, True)
        assert not (tmp_path / "plug-test").exists()
        monkeypatch.setattr(trial.PlugTest, "run", lambda _: False)
        assert shell("doctor", "--pull-the-plug", running.address, "--data", tmp_path).status == 1


def test_a_witness_that_is_not_there_is_one_line(shell: Shell) -> None:
    assert "aftertone doctor --witness" in shell.fails(
        "doctor", "--pull-the-plug", f"127.0.0.1:{free_port()}", "--data", shell.data, status=1
    )
    assert "HOST:PORT" in shell.fails("doctor", "--pull-the-plug", "nonsense", "--data", shell.data)


def test_the_witness_says_what_to_do_on_the_other_machine(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "aftertone",
        "doctor",
        "--witness",
        "--port",
        "0",
        "--file",
        str(tmp_path / "a.jsonl"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert said[0].startswith("The witness listens on TCP port ")
    assert "aftertone doctor --pull-the-plug ADDRESS-OF-THIS-MACHINE:" in said[2]
