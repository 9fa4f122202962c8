"""The journal through power cuts and failing disks: everything acknowledged is there, nothing is invented or twice.

Each test drives the committer step by step on a file system in memory. A ledger knows what was appended, what was
acknowledged and what a reader has taken, and judges every state that a cut may leave. The mutants at the end show that the
ledger notices.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from aftertone.errors import StateError, StorageError
from aftertone.files import write_all
from aftertone.journal.committer import Committer, JournalFull
from aftertone.journal.output import SegmentOutput
from aftertone.journal.reader import JournalReader
from aftertone.journal.record import Kind
from aftertone.journal.segment import SegmentName
from aftertone.journal.stats import WriterState
from tests.support.files import Clock, Fault, MemoryFiles, PowerCut, at_call, nowhere

FOLDER = Path("/data/journal")
BOOT_ID = bytes(range(16))


class LostError(AssertionError):
    """A promise was broken."""


class Ledger:
    """What was said to whom, over all lives of the machine."""

    def __init__(self) -> None:
        self.appended: dict[tuple[int, int], bytes] = {}
        self.acknowledged: set[tuple[int, int]] = set()
        self.forgotten: set[tuple[int, int]] = set()
        self.highest_epoch_seen = 0

    def acknowledge(self, epoch: int, durable: int) -> None:
        sequence = durable
        while sequence and (epoch, sequence) not in self.acknowledged:
            self.acknowledged.add((epoch, sequence))
            sequence -= 1

    def check(self, files: MemoryFiles) -> JournalReader:
        """Recover, and raise LostError when something acknowledged is missing or something was never appended."""
        reader = JournalReader(files, FOLDER)
        found: set[tuple[int, int]] = set()
        for _, record in reader.poll():
            key = record.epoch, record.sequence
            if key in found:
                raise LostError(f"{key} came twice")
            if self.appended.get(key) != record.payload:
                raise LostError(f"{key} was never appended like that")
            found.add(key)
        missing = self.acknowledged - found - self.forgotten
        if missing:
            raise LostError(f"acknowledged, but missing: {sorted(missing)[:5]}")
        alarms = [damage for damage in reader.damage if damage.acknowledged]
        if alarms:
            raise LostError(f"a power cut alone is reported as damage: {alarms[:3]}")
        self.highest_epoch_seen = max([self.highest_epoch_seen, *(epoch for epoch, _ in found)])
        return reader


class Life:
    """One run of a committer, recorded in a ledger."""

    def __init__(
        self,
        files: MemoryFiles,
        ledger: Ledger,
        clock: Clock,
        segment_bytes: int = 32 * 1024,
        reserve_bytes: int = 0,
    ) -> None:
        self.ledger = ledger
        self.clock = clock
        self.committer = Committer(
            files,
            FOLDER,
            boot_id=BOOT_ID,
            notify=self._acknowledged,
            clock_ns=clock,
            segment_bytes=segment_bytes,
            queue_bytes=256 * 1024,
            reserve_bytes=reserve_bytes,
        )
        self.epoch = 0

    def open(self) -> None:
        self.epoch = self.committer.open()
        if self.epoch <= self.ledger.highest_epoch_seen:
            raise LostError(f"epoch {self.epoch} was used before")

    def append(self, payload: bytes, *, urgent: bool = False) -> None:
        sequence = self.committer.append(Kind.EVENT, payload, arrival_ns=self.clock(), urgent=urgent)
        self.ledger.appended[self.epoch, sequence] = payload

    def tick(self, milliseconds: float = 60) -> None:
        self.clock.advance_ms(milliseconds)
        self.committer.step()

    def _acknowledged(self, durable: int) -> None:
        self.ledger.acknowledge(self.epoch or self.committer.stats().epoch, durable)


def run_script(files: MemoryFiles, ledger: Ledger, clock: Clock) -> None:
    """A short life that makes folders, commits small and large, rotates twice and closes."""
    life = Life(files, ledger, clock)
    life.open()
    rng = random.Random(7)
    for size in (10, 700, 5000, 100, 12000, 40, 9000, 20, 30):
        life.append(rng.randbytes(size))
        life.append(b"urgent", urgent=True)
        life.tick()
    life.append(b"the last")
    life.committer.close()


DISK_BYTES = 112 * 1024
RESERVE_BYTES = 48 * 1024


def fill_up_and_go_on(files: MemoryFiles, ledger: Ledger, clock: Clock) -> None:
    """A life on a small disk: it fills up, the reserve is used, a follower makes room again, the reserve is made anew."""
    life = Life(files, ledger, clock, reserve_bytes=RESERVE_BYTES)
    files.capacity = DISK_BYTES
    life.open()
    life.committer.tend_reserve(0)
    rng = random.Random(9)
    follower = JournalReader(files, FOLDER)
    taken: dict[SegmentName, set[tuple[int, int]]] = {}
    for number in range(1, 25):
        life.append(rng.randbytes(6000), urgent=True)
        life.tick()
        if number % 12 == 0:
            follow(follower, ledger, taken)
            life.tick(2500)
            life.committer.tend_reserve(0)
    follower.close()
    life.committer.close()


def test_a_disk_that_fills_up_loses_nothing() -> None:
    files, ledger = MemoryFiles(clock=Clock()), Ledger()
    fill_up_and_go_on(files, ledger, Clock())
    assert len(ledger.acknowledged) == len(ledger.appended) == 24
    ledger.check(files)
    used = [line for line in files.log if line.startswith("rename") and "/reserve" in line]
    assert len(used) == 2, "the script is written so that the reserve is needed"


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC, Fault.SHORT, Fault.CUT])
def test_a_fault_or_a_cut_at_each_call_on_a_disk_that_fills_up_loses_nothing(fault: Fault) -> None:
    number = 0
    while True:
        number += 1
        files, ledger = MemoryFiles(at_call(number, fault), Clock()), Ledger()
        with contextlib.suppress(PowerCut, StorageError):
            fill_up_and_go_on(files, ledger, Clock())
        reached = files.calls >= number
        files.inject = nowhere
        files.kill_programs()
        for seed in range(6):
            ledger.check(files.after_cut(random.Random(seed)))
        if not reached:
            break
    assert number > 100


def run_until_cut(files: MemoryFiles, ledger: Ledger) -> None:
    clock = files.clock
    assert clock is not None
    try:
        run_script(files, ledger, clock)
    except (PowerCut, StorageError):
        return


def test_the_script_is_read_back_whole() -> None:
    files, ledger = MemoryFiles(clock=Clock()), Ledger()
    run_script(files, ledger, Clock())
    assert len(ledger.acknowledged) == len(ledger.appended) == 19
    reader = ledger.check(files)
    assert reader.damage == []
    assert len(set(files.list_directory(FOLDER))) >= 4  # the lock and three segments: the script rotates
    assert files.open_handles <= 1  # the reader's own


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC, Fault.SHORT, Fault.EINTR])
def test_one_fault_at_each_call_loses_nothing(fault: Fault) -> None:
    calls = itertools.count(1)
    clean = 0
    for number in calls:
        files, ledger = MemoryFiles(at_call(number, fault), Clock()), Ledger()
        try:
            run_script(files, ledger, Clock())
        except StorageError:
            assert not ledger.acknowledged  # opening may fail; nothing else may with one fault
        else:
            assert len(ledger.acknowledged) == 19
        reached = files.calls >= number
        files.inject = nowhere
        files.kill_programs()
        for seed in range(4):
            ledger.check(files.after_cut(random.Random(seed)))
        ledger.check(files)
        clean += not files.fired
        if not reached:
            break
    assert number > 40


def test_a_cut_before_each_call_leaves_everything_acknowledged() -> None:
    number = 0
    while True:
        number += 1
        files, ledger = MemoryFiles(at_call(number, Fault.CUT), Clock()), Ledger()
        run_until_cut(files, ledger)
        if files.calls < number:
            break
        for left in files.every_cut(32):
            ledger.check(left)
        for seed in range(12):
            ledger.check(files.after_cut(random.Random(seed)))
    assert number > 40


def test_two_faults_and_a_cut_at_each_pair_of_syncs() -> None:
    for first in range(1, 14):
        for second in range(first, 14):
            fail, cut = at_call(first, Fault.EIO, "fdatasync", "write"), at_call(second * 5, Fault.CUT)

            def inject(
                call: int,
                operation: str,
                fail: Callable[[int, str], Fault | None] = fail,
                cut: Callable[[int, str], Fault | None] = cut,
            ) -> Fault | None:
                return cut(call, operation) or fail(call, operation)

            files, ledger = MemoryFiles(inject, Clock()), Ledger()
            run_until_cut(files, ledger)
            for seed in range(6):
                ledger.check(files.after_cut(random.Random(seed)))


def _inject_at_random(rng: random.Random, likely: float) -> Callable[[int, str], Fault | None]:
    faults = (Fault.EIO, Fault.EIO, Fault.ENOSPC, Fault.SHORT, Fault.EINTR)

    def inject(call: int, operation: str) -> Fault | None:
        # A folder whose sync fails once and then succeeds is beyond what any program can repair; see the module of files.
        if rng.random() >= likely or operation in {"make_directory", "list_directory"}:
            return None
        fault = rng.choice(faults)
        if operation == "read" and fault is Fault.EIO:
            return None  # lost for good, reported and put aside: tests/unit/journal/test_reader.py
        return fault

    return inject


def live_once(rng: random.Random, files: MemoryFiles, ledger: Ledger, clock: Clock) -> None:
    """One life with random appends, steps, faults and a follower that removes what it has read; ends at a random point."""
    life = Life(files, ledger, clock, reserve_bytes=rng.choice((0, RESERVE_BYTES)))
    files.capacity = rng.choice((None, None, 2 * DISK_BYTES))
    files.inject = _inject_at_random(rng, rng.choice((0, 0.01, 0.05, 0.2)))
    cut_at = files.calls + rng.randrange(10, 300)
    faults = files.inject
    files.inject = lambda call, operation: Fault.CUT if call >= cut_at else faults(call, operation)
    follower = JournalReader(files, FOLDER)
    taken: dict[SegmentName, set[tuple[int, int]]] = {}
    life.open()
    for _ in range(rng.randrange(5, 60)):
        for _ in range(rng.randrange(4)):
            try:
                life.append(rng.randbytes(rng.choice((3, 60, 600, 3000))), urgent=rng.random() < 0.2)
            except JournalFull:
                assert life.committer.stats().queued_bytes > 200_000
        life.tick(rng.choice((1, 20, 60, 2500)))
        if rng.random() < 0.2:
            life.committer.tend_reserve(rng.choice((0, 0, 1 << 20)))
        if rng.random() < 0.3:
            follow(follower, ledger, taken)
    life.committer.close()


def follow(follower: JournalReader, ledger: Ledger, taken: dict[SegmentName, set[tuple[int, int]]]) -> None:
    """Read on, and remove the oldest segment that was read to its end."""
    try:
        for name, record in follower.poll():
            key = record.epoch, record.sequence
            assert ledger.appended[key] == record.payload
            ledger.highest_epoch_seen = max(ledger.highest_epoch_seen, record.epoch)
            taken.setdefault(name, set()).add(key)
        for name in sorted(taken):
            ledger.forgotten |= taken[name]
            follower.remove(name)
            del taken[name]
    except (StorageError, StateError):
        return  # the disk failed the reader, or the segment is still in use: later


@pytest.mark.parametrize("block", range(20))
def test_random_lives(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        rng = random.Random(seed)
        clock, ledger = Clock(), Ledger()
        files = MemoryFiles(clock=clock)
        for _ in range(rng.randrange(1, 5)):
            with contextlib.suppress(PowerCut, StorageError):
                live_once(rng, files, ledger, clock)
            files.inject = nowhere
            if rng.random() < 0.7:
                files = files.after_cut(rng)
            else:
                files.kill_programs()
            try:
                ledger.check(files)
            except LostError as error:
                raise AssertionError(f"seed {seed}: {error}") from error


def test_failed_state_keeps_the_batch_and_recovers() -> None:
    files, ledger, clock = MemoryFiles(clock=Clock()), Ledger(), Clock()
    life = Life(files, ledger, clock)
    life.open()
    life.append(b"before")
    life.tick()
    files.inject = lambda call, operation: Fault.ENOSPC if operation == "write" else None
    life.append(b"while full")
    life.tick()
    assert life.committer.stats().state is WriterState.FAILED
    assert life.committer.durable_sequence() == 1
    for _ in range(50):
        life.append(b"still calling")
        life.tick(1000)
    # a row of failed attempts leaves a bounded number of files, and every new name came after the retired ones
    assert len(files.list_directory(FOLDER)) <= 4
    assert life.committer.stats().retired_segments > 20
    files.inject = nowhere
    life.tick(2500)
    assert life.committer.stats().state is WriterState.OK
    life.tick()
    assert life.committer.durable_sequence() == 52
    ledger.check(files)
    ledger.check(files.after_cut(random.Random(1)))


@pytest.mark.parametrize("sync_ms", [1, 20, 60])
def test_no_sound_waits_longer_than_the_promise(sync_ms: float) -> None:
    """A packet each 10 ms; at no tick is anything older than 250 ms without being durable, rotations and one error included."""
    clock, ledger = Clock(), Ledger()
    files = MemoryFiles(clock=clock)
    files.sync_ms = sync_ms
    life = Life(files, ledger, clock, segment_bytes=64 * 1024)
    life.open()
    oldest_ms = 0.0
    files.inject = at_call(40, Fault.EIO, "fdatasync")
    due_ns = clock()
    for _ in range(600):
        due_ns += 10_000_000
        while due_ns <= clock():  # arrived while a sync kept the writer
            life.committer.append(Kind.PACKETS, bytes(160), arrival_ns=due_ns)
            due_ns += 10_000_000
        clock.now_ns = due_ns
        life.committer.append(Kind.PACKETS, bytes(160), arrival_ns=due_ns)
        pending_ns = life.committer.oldest_pending_ns()
        life.committer.step()
        if pending_ns is not None:
            oldest_ms = max(oldest_ms, (clock() - pending_ns) / 1e6)
    stats = life.committer.stats()
    assert stats.retired_segments == 1
    assert int(stats.segment[-16:-8], 16) > 2
    # the interval, a tick, and the four syncs of a commit that failed or rotated: two of a segment, two of records
    assert oldest_ms <= 50 + 10 + 5 * sync_ms + sync_ms
    if sync_ms <= 20:
        assert oldest_ms < 250


class _NoDataSync(MemoryFiles):
    def fdatasync(self, handle: int) -> None:
        return


class _NoDirectorySync(MemoryFiles):
    def sync_directory(self, path: Path) -> None:
        return


def _falls_through(make: Callable[[], MemoryFiles], fault: Fault | None = None) -> bool:
    """Say whether some cut, with or without a failed sync before it, breaks a promise."""
    for number in range(1, 30):
        files, ledger = make(), Ledger()
        if fault is not None:
            files.inject = at_call(number, fault, "fdatasync")
        clock = Clock()
        life = Life(files, ledger, clock)
        life.open()
        rng = random.Random(number)
        for _ in range(number):
            life.append(rng.randbytes(900))
            life.tick()
        for seed in range(10):
            try:
                ledger.check(files.after_cut(random.Random(seed)))
            except LostError:
                return True
    return False


def test_the_writer_itself_does_not_fall_through() -> None:
    assert not _falls_through(MemoryFiles)
    assert not _falls_through(MemoryFiles, Fault.EIO)


def test_mutant_without_data_sync_is_caught() -> None:
    assert _falls_through(_NoDataSync)


def test_mutant_without_directory_sync_is_caught() -> None:
    assert _falls_through(_NoDirectorySync)


def test_mutant_that_syncs_again_after_an_error_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = SegmentOutput.sync

    def again(self: SegmentOutput) -> None:
        try:
            honest(self)
        except OSError:
            honest(self)

    monkeypatch.setattr(SegmentOutput, "sync", again)
    assert _falls_through(MemoryFiles, Fault.EIO)


def test_mutant_that_writes_into_acknowledged_blocks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpadded(self: SegmentOutput, buffers: Sequence[bytes]) -> None:
        self.size_bytes += write_all(self._files, self._handle, buffers)

    monkeypatch.setattr(SegmentOutput, "write", unpadded)
    assert _falls_through(MemoryFiles, Fault.EIO)


def test_mutant_that_acknowledges_before_the_sync_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SegmentOutput, "sync", lambda self: None)
    assert _falls_through(MemoryFiles)
