"""The thread that drives the committer, on real files and through kill -9."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aftertone.errors import StateError, StorageError
from aftertone.files import Files, OsFiles
from aftertone.journal import committer
from aftertone.journal.reader import JournalReader
from aftertone.journal.record import Kind
from aftertone.journal.stats import WriterState
from aftertone.journal.writer import JournalWriter
from tests.support.files import Fault, MemoryFiles

PATIENCE_S = 20
"""How long a test waits for the other thread before it calls the writer stuck."""

CHILD = """
import hashlib, os, sys, threading
from pathlib import Path
from aftertone.files import OsFiles, machine_boot_id
from aftertone.journal import JournalWriter, Kind

def payload_of(epoch, sequence):
    seed = hashlib.sha256(b"%d %d" % (epoch, sequence)).digest()
    return seed * (seed[0] % 60)

def tell(durable):
    os.write(1, b"%d %d\\n" % (epoch, durable))
    heard.set()

epoch, heard = 0, threading.Event()
writer = JournalWriter(
    OsFiles(), Path(sys.argv[1]), boot_id=machine_boot_id(), notify=tell, segment_bytes=256 * 1024, commit_interval_ms=1
)
epoch = writer.open()
sequence = 0
while True:
    while sequence - writer.durable_sequence() < 100:
        sequence += 1
        writer.append(Kind.EVENT, payload_of(epoch, sequence), urgent=sequence % 7 == 0)
    heard.wait()
    heard.clear()
"""


def payload_of(epoch: int, sequence: int) -> bytes:
    """Return what the record with this number must say."""
    seed = hashlib.sha256(b"%d %d" % (epoch, sequence)).digest()
    return seed * (seed[0] % 60)


class Ear:
    """Hears what is durable, and lets a test wait for it."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.threads: set[str] = set()
        self._changed = threading.Condition()

    def __call__(self, durable: int) -> None:
        with self._changed:
            self.heard.append(durable)
            self.threads.add(threading.current_thread().name)
            self._changed.notify_all()

    def wait_for(self, durable: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.heard) and self.heard[-1] >= durable, PATIENCE_S)


MakeWriter = Callable[..., JournalWriter]


@pytest.fixture
def make_writer(tmp_path: Path) -> Iterator[MakeWriter]:
    writers: list[JournalWriter] = []

    def make(ear: Callable[[int], None], files: Files | None = None, **settings: Any) -> JournalWriter:
        folder = Path("/data/journal") if files else tmp_path / "var" / "journal"
        writer = JournalWriter(files or OsFiles(), folder, boot_id=bytes(16), notify=ear, **settings)
        writers.append(writer)
        return writer

    yield make
    for writer in writers:
        writer.close()


def test_what_is_heard_as_durable_is_in_the_files(make_writer: MakeWriter, tmp_path: Path) -> None:
    ear = Ear()
    writer = make_writer(ear, segment_bytes=64 * 1024)
    assert writer.open() == 1
    arrival_ns = time.monotonic_ns()
    for sequence in range(1, 101):
        assert (
            writer.append(Kind.EVENT, payload_of(1, sequence), arrival_ns=arrival_ns, urgent=sequence % 10 == 0)
            == sequence
        )
    ear.wait_for(100)
    assert ear.heard == sorted(set(ear.heard))
    assert ear.threads == {"journal-writer"}
    assert writer.durable_sequence() == 100
    assert writer.oldest_pending_ns() is None
    assert writer.free_bytes() > 0
    stats = writer.stats()
    assert stats.commits == len(ear.heard) == sum(stats.sync_counts)
    reader = JournalReader(OsFiles(), tmp_path / "var" / "journal")
    assert {r.sequence: r.payload for _, r in reader.poll()} == {s: payload_of(1, s) for s in range(1, 101)}
    reader.close()


def test_a_lone_record_after_a_pause_needs_no_push(make_writer: MakeWriter) -> None:
    ear = Ear()
    writer = make_writer(ear)
    writer.open()
    for sequence in range(1, 6):
        writer.append(Kind.EVENT, b"alone")
        ear.wait_for(sequence)


def test_many_threads_may_append(make_writer: MakeWriter, tmp_path: Path) -> None:
    ear = Ear()
    writer = make_writer(ear, commit_interval_ms=1)
    writer.open()
    sent: dict[int, bytes] = {}

    def speak(number: int) -> None:
        for count in range(200):
            payload = b"%d %d" % (number, count)
            sent[writer.append(Kind.EVENT, payload, urgent=count % 50 == 0)] = payload

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert sorted(sent) == list(range(1, 801))
    assert ear.heard[-1] == 800
    reader = JournalReader(OsFiles(), tmp_path / "var" / "journal")
    assert {r.sequence: r.payload for _, r in reader.poll()} == sent
    reader.close()


def test_closing_makes_the_rest_durable_and_closing_twice_is_fine(make_writer: MakeWriter) -> None:
    ear = Ear()
    writer = make_writer(ear, commit_interval_ms=60_000)
    writer.open()
    writer.append(Kind.EVENT, b"first")
    ear.wait_for(1)
    writer.append(Kind.EVENT, b"waits for a minute")
    writer.close()
    writer.close()
    assert ear.heard == [1, 2]
    assert writer.stats().state is WriterState.CLOSED
    with pytest.raises(StateError):
        writer.append(Kind.EVENT, b"late")


def test_before_opening_there_is_no_journal(make_writer: MakeWriter) -> None:
    writer = make_writer(Ear())
    with pytest.raises(StateError, match=r"the journal is not open$"):
        writer.append(Kind.EVENT, b"early")
    writer.close()


def test_a_second_line_is_refused_by_name(make_writer: MakeWriter) -> None:
    make_writer(Ear()).open()
    with pytest.raises(StorageError, match=rf"var/journal is in use by process {os.getpid()}: stop it"):
        make_writer(Ear()).open()


def test_a_forked_child_must_not_write(make_writer: MakeWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = make_writer(Ear())
    writer.open()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(StateError, match="forked child"):
            writer.append(Kind.EVENT, b"x")
        writer.close()  # leaves the parent's thread and descriptors alone
    assert writer.append(Kind.EVENT, b"x") == 1


def test_a_listener_that_raises_stops_nothing(make_writer: MakeWriter, caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear()

    def stumble(durable: int) -> None:
        ear(durable)
        raise RuntimeError("listener")

    writer = make_writer(stumble, MemoryFiles())
    writer.open()
    with caplog.at_level(logging.CRITICAL):
        for sequence in (1, 2):
            writer.append(Kind.EVENT, b"x", urgent=True)
            ear.wait_for(sequence)
    writer.close()
    assert ear.heard == [1, 2]


class _Surprising(MemoryFiles):
    """Raises, once, what no file system raises."""

    surprises = 1

    def write(self, handle: int, buffers: object) -> int:
        if self.surprises and self.calls > 12:
            self.surprises -= 1
            raise RuntimeError("surprise")
        return super().write(handle, buffers)  # type: ignore[arg-type]


def test_an_error_that_nobody_foresaw_does_not_end_the_thread(
    make_writer: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "RETRY_NS", 1_000_000)
    ear, files = Ear(), _Surprising()
    writer = make_writer(ear, files)
    writer.open()
    files.calls = 100
    writer.append(Kind.EVENT, b"kept", urgent=True)
    ear.wait_for(1)
    stats = writer.stats()
    assert (stats.state, stats.retired_segments) == (WriterState.OK, 1)
    assert stats.last_error == "RuntimeError: surprise"
    writer.close()
    assert [r.payload for _, r in JournalReader(files, Path("/data/journal")).poll()] == [b"kept"]


def test_a_full_disk_keeps_records_until_there_is_room(
    make_writer: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "RETRY_NS", 1_000_000)
    ear, files = Ear(), MemoryFiles()
    writer = make_writer(ear, files)
    writer.open()
    failing = threading.Event()

    def full(call: int, operation: str) -> Fault | None:
        if operation == "open_new":
            failing.set()
        return Fault.ENOSPC if operation == "write" else None

    files.inject = full
    writer.append(Kind.EVENT, b"kept", urgent=True)
    assert failing.wait(PATIENCE_S)
    files.inject = lambda call, operation: None
    ear.wait_for(1)
    assert ear.heard == [1]


def read_back(reader: JournalReader, found: dict[tuple[int, int], bytes]) -> None:
    for _, record in reader.poll():
        key = record.epoch, record.sequence
        assert key not in found
        found[key] = record.payload


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(5)
    folder = tmp_path / "journal"
    follower = JournalReader(OsFiles(), folder)
    followed: dict[tuple[int, int], bytes] = {}
    acknowledged: dict[int, int] = {}
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        ) as child:
            assert child.stdout is not None
            before = 0
            for _ in range(rng.randrange(5, 60)):
                epoch, durable = map(int, child.stdout.readline().split())
                acknowledged[epoch] = durable
                read_back(follower, followed)
                assert all((epoch, sequence) in followed for sequence in range(before + 1, durable + 1))
                before = durable
            child.kill()
            for line in child.stdout.read().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    epoch, durable = map(int, line.split())
                    acknowledged[epoch] = durable
        assert follower.closed_epochs() == set(acknowledged)
    read_back(follower, followed)
    afresh: dict[tuple[int, int], bytes] = {}
    reader = JournalReader(OsFiles(), folder)
    read_back(reader, afresh)
    assert afresh == followed
    assert sorted(acknowledged) == [1, 2, 3, 4, 5]
    assert all((epoch, n) in afresh for epoch, durable in acknowledged.items() for n in range(1, durable + 1))
    assert all(payload == payload_of(*key) for key, payload in afresh.items())
    assert not [damage for damage in reader.damage if damage.acknowledged]
    reader.close()
    follower.close()
