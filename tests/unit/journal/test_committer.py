"""Group commit step by step: when, in which order, and what after an error."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aftertone.errors import BusyError, StateError, StorageError
from aftertone.files import Buffer
from aftertone.journal.committer import Committer, JournalFull
from aftertone.journal.reader import JournalReader
from aftertone.journal.record import MAX_PAYLOAD_BYTES, Kind
from aftertone.journal.segment import BLOCK_BYTES, DATA_OFFSET
from aftertone.journal.stats import SYNC_BOUNDS_S, WriterState
from tests.support.files import Clock, Fault, MemoryFiles, at_call, nowhere

FOLDER = Path("/data/journal")


class Bench:
    """A committer in memory, and what it published."""

    def __init__(self, files: MemoryFiles | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.files = MemoryFiles(clock=self.clock) if files is None else files
        self.published: list[int] = []
        self.committer = Committer(
            self.files, FOLDER, boot_id=bytes(16), notify=self.published.append, clock_ns=self.clock, **settings
        )

    def append(self, payload: bytes = b"x", **how: Any) -> int:
        return self.committer.append(Kind.EVENT, payload, **how)

    def step(self, advance_ms: float = 50) -> bool:
        self.clock.advance_ms(advance_ms)
        return self.committer.step()

    def read(self) -> list[bytes]:
        reader = JournalReader(self.files, FOLDER)
        return [record.payload for _, record in reader.poll()]

    def log(self) -> list[str]:
        taken, self.files.log = self.files.log, []
        return [line.replace(f"{FOLDER}/", "") for line in taken]


def test_opening_makes_every_name_durable_before_the_header() -> None:
    bench = Bench()
    assert bench.committer.open() == 1
    assert bench.log() == [
        "make_directory /data",
        f"make_directory {FOLDER}",
        "sync_directory /data",
        "sync_directory /",
        "lock lock",
        f"list_directory {FOLDER}",
        "open_new e00000001-n00000001.journal",
        f"sync_directory {FOLDER}",
        *(f"{call} 4" for call in ("preallocate", "write", "fdatasync")),
    ]


@pytest.mark.parametrize("operation", ["open_new", "sync_directory", "preallocate", "write", "fdatasync"])
def test_an_opening_that_is_tried_again_keeps_what_it_opens_at_last(operation: str) -> None:
    """A name that could not be made is given again: the file that gets it in the end is not litter of the first attempt."""
    bench = Bench()
    bench.files.inject = lambda _, what: Fault.ENOSPC if what == operation else None
    for _ in range(3):
        if operation == "preallocate":
            break
        with pytest.raises(StorageError):
            bench.committer.open()
    bench.files.inject = nowhere
    bench.committer.open()
    segment = bench.committer.stats().segment
    bench.append(b"said")
    assert bench.step()
    names = bench.files.list_directory(FOLDER)
    assert segment in names
    assert len([name for name in names if ".journal" in name]) <= 2, "failed attempts do not pile up"
    assert bench.read() == [b"said"]
    assert bench.files.after_cut(random.Random(1)).list_directory(FOLDER)


def test_a_commit_is_one_write_and_one_sync_and_then_it_is_told() -> None:
    bench = Bench()
    bench.committer.open()
    bench.log()
    assert [bench.append(b"a"), bench.append(b"b" * 5000), bench.append(b"")] == [1, 2, 3]
    assert bench.committer.durable_sequence() == 0
    assert bench.step()
    assert bench.log() == ["write 4", "fdatasync 4"]
    assert bench.published == [3]
    assert bench.committer.durable_sequence() == 3
    assert bench.read() == [b"a", b"b" * 5000, b""]
    assert not bench.step()


def test_commits_start_at_block_boundaries() -> None:
    bench = Bench()
    bench.committer.open()
    for size in (1, 4096 - 40, 4096, 100):
        bench.append(bytes(size) or b"")
        bench.step()
    path = FOLDER / "e00000001-n00000001.journal"
    assert len(bench.files.contents(path)) == DATA_OFFSET + (1 + 1 + 2 + 1) * BLOCK_BYTES
    assert len(bench.read()) == 4


def test_commits_keep_their_distance_unless_urgent() -> None:
    bench = Bench(commit_interval_ms=50)
    bench.committer.open()
    assert bench.committer.due_ns() is None
    bench.append()
    assert bench.step(0)  # the first after a pause goes at once
    bench.append()
    due_ns = bench.committer.due_ns()
    assert due_ns is not None
    assert (
        due_ns - bench.clock() == 50_000_000 - 1_000_000
    )  # counted from the beginning of the last, whose sync took 1 ms
    assert not bench.step(48)
    assert bench.step(1)
    bench.append(urgent=True)
    assert bench.step(0)
    bench.append()
    assert not bench.step(0)
    bench.append(urgent=True)
    assert bench.step(0)
    assert bench.published == [1, 2, 3, 5]


def test_the_age_of_the_oldest_sound_is_known_until_it_is_durable() -> None:
    bench = Bench()
    bench.committer.open()
    assert bench.committer.oldest_pending_ns() is None
    bench.append()
    assert bench.committer.oldest_pending_ns() is None  # no sound in it
    bench.append(arrival_ns=700)
    bench.append(arrival_ns=500)
    bench.append(arrival_ns=600)
    assert bench.committer.oldest_pending_ns() == 500
    seen: list[int | None] = []
    bench.files.inject = lambda call, operation: seen.append(bench.committer.oldest_pending_ns())
    bench.step()
    assert seen == [500, 500]  # while it is written and synced
    assert bench.committer.oldest_pending_ns() is None


def test_a_full_segment_is_followed_by_the_next_number() -> None:
    bench = Bench(segment_bytes=DATA_OFFSET + 4 * BLOCK_BYTES)
    bench.committer.open()
    for _ in range(6):
        bench.append(bytes(6000))
        bench.step()
    assert sorted(bench.files.list_directory(FOLDER)) == [
        "e00000001-n00000001.journal",
        "e00000001-n00000002.journal",
        "e00000001-n00000003.journal",
        "lock",
    ]
    assert len(bench.read()) == 6
    assert bench.committer.stats().segment == "e00000001-n00000003.journal"
    assert bench.files.open_handles == 3  # segment, lock, and the reader's


def test_more_than_a_segment_holds_is_committed_in_parts() -> None:
    bench = Bench(segment_bytes=DATA_OFFSET + 4 * BLOCK_BYTES)
    bench.committer.open()
    for _ in range(5):
        bench.append(bytes(6000), arrival_ns=9)
    bench.append(bytes(100_000), arrival_ns=5)  # longer than a segment: alone in one of its own
    assert bench.step()
    assert bench.published == [2]
    assert bench.committer.oldest_pending_ns() == 5
    while bench.step(0):
        pass
    assert bench.published == [2, 4, 5, 6]
    assert [len(payload) for payload in bench.read()] == [6000] * 5 + [100_000]


def test_a_thousand_buffers_are_the_most_that_one_write_takes() -> None:
    bench = Bench()
    bench.committer.open()
    bench.log()
    for number in range(1500):
        bench.append(str(number).encode())
    bench.step()
    assert bench.log() == ["write 4", "write 4", "write 4", "fdatasync 4"]
    assert bench.read() == [str(number).encode() for number in range(1500)]


class _Dribble(MemoryFiles):
    """Takes seven bytes at most from each write."""

    def write(self, handle: int, buffers: Sequence[Buffer]) -> int:
        return super().write(handle, [b"".join(buffers)[:7]])


def test_short_writes_are_continued() -> None:
    bench = Bench(_Dribble())
    bench.committer.open()
    bench.append(b"0123456789" * 30)
    bench.append(b"abc")
    assert bench.step()
    assert bench.read() == [b"0123456789" * 30, b"abc"]


class _Deaf(MemoryFiles):
    """Takes nothing from a write and reports no error."""

    deaf = False

    def write(self, handle: int, buffers: Sequence[Buffer]) -> int:
        return 0 if self.deaf else super().write(handle, buffers)


def test_a_write_that_takes_nothing_is_an_error() -> None:
    files = _Deaf()
    bench = Bench(files)
    bench.committer.open()
    files.deaf = True
    bench.append()
    assert not bench.step()
    assert bench.committer.stats().state is WriterState.FAILED
    assert "accepted none" in bench.committer.stats().last_error


def test_endless_interruptions_are_an_error() -> None:
    bench = Bench()
    bench.committer.open()
    bench.files.inject = lambda call, operation: Fault.EINTR if operation == "fdatasync" else None
    bench.append()
    assert not bench.step()
    assert "interrupted without end" in bench.committer.stats().last_error


@pytest.mark.parametrize("operation", ["write", "fdatasync"])
@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC])
def test_after_an_error_the_file_is_dead_and_the_batch_goes_to_a_new_one(operation: str, fault: Fault) -> None:
    bench = Bench()
    bench.committer.open()
    bench.append(b"first")
    bench.step()
    bench.append(b"second")
    bench.log()
    bench.files.inject = at_call(1, fault, operation)
    assert bench.step()
    log = bench.log()
    failed = log.index(f"{operation} 4 -> {fault.value}")
    assert log[failed + 1 :] == [
        "close 4",
        "open_new e00000001-n00000002.journal",
        f"sync_directory {FOLDER}",
        *(f"{call} 5" for call in ("preallocate", "write", "fdatasync", "write", "fdatasync")),
    ]
    assert bench.published == [1, 2]
    stats = bench.committer.stats()
    assert (stats.state, stats.retired_segments) == (WriterState.OK, 1)
    assert "OSError" in stats.last_error
    assert bench.read() == [b"first", b"second"]


def test_a_second_error_fails_and_a_new_segment_is_tried_every_two_seconds() -> None:
    bench = Bench()
    bench.committer.open()
    bench.append(b"kept", arrival_ns=1)
    bench.files.inject = lambda call, operation: Fault.EIO if operation == "fdatasync" else None
    assert not bench.step()
    assert bench.committer.stats().state is WriterState.FAILED
    assert bench.committer.oldest_pending_ns() == 1
    bench.log()
    bench.append(b"urgent", urgent=True)
    assert not bench.step(1999)
    assert bench.log() == []
    assert not bench.step(1)
    assert len([line for line in bench.log() if line.startswith("open_new")]) == 1
    bench.files.inject = nowhere
    assert bench.step(2000)
    assert bench.committer.stats().state is WriterState.OK
    assert bench.published == [1]
    assert bench.step()
    assert bench.published == [1, 2]
    assert bench.read() == [b"kept", b"urgent"]
    assert sorted(bench.files.list_directory(FOLDER))[:-1] == ["e00000001-n00000004.journal"]  # none of the failed


def test_the_queue_is_bounded_and_opens_again() -> None:
    bench = Bench(queue_bytes=1000)
    bench.committer.open()
    bench.append(bytes(500))
    with pytest.raises(JournalFull, match=r"the disk under /data/journal has not kept up: 540 bytes") as caught:
        bench.append(bytes(500))
    assert isinstance(caught.value, BusyError)
    assert bench.append(bytes(420)) == 2  # the refused record left no gap
    assert bench.committer.stats().queued_bytes == 1000
    bench.step()
    assert bench.committer.stats().queued_bytes == 0
    assert bench.append(bytes(500)) == 3


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.SIGNALLING])
def test_notes_leave_half_of_the_queue_to_what_promises_rest_on(kind: Kind) -> None:
    bench = Bench(queue_bytes=1000)
    bench.committer.open()
    bench.committer.append(kind, bytes(460))
    with pytest.raises(JournalFull):
        bench.committer.append(kind, b"")
    assert bench.committer.append(Kind.END, bytes(400)) == 2
    bench.step()
    assert bench.committer.append(kind, bytes(460)) == 3


def test_an_epoch_is_newer_than_every_name_in_the_folder() -> None:
    bench = Bench()
    bench.committer.open()
    bench.committer.close()
    second = Bench(bench.files)
    assert second.committer.open() == 2
    second.committer.close()
    bench.files.rename(FOLDER / "e00000002-n00000001.journal", FOLDER / "e00000007-n00000001.journal.damaged")
    third = Bench(bench.files)
    assert third.committer.open() == 8
    third.committer.close()
    bench.files.rename(FOLDER / "e00000008-n00000001.journal", FOLDER / "effffffff-n00000001.journal")
    with pytest.raises(StorageError, match="used up its epochs"):
        Bench(bench.files).committer.open()
    assert not bench.files.is_locked(FOLDER / "lock")


def test_two_lines_never_share_a_folder() -> None:
    bench = Bench()
    bench.committer.open()
    names = bench.files.list_directory(FOLDER)
    with pytest.raises(StorageError, match=r"/data/journal is in use by process 4711: stop it"):
        Bench(bench.files).committer.open()
    assert bench.files.list_directory(FOLDER) == names
    bench.append(b"undisturbed")
    assert bench.step()
    bench.committer.close()
    assert Bench(bench.files).committer.open() == 2


def test_a_failed_opening_leaves_nothing_open_and_may_be_tried_again() -> None:
    bench = Bench()
    bench.files.inject = lambda call, operation: Fault.EIO if operation == "fdatasync" else None
    with pytest.raises(StorageError, match="cannot be opened"):
        bench.committer.open()
    assert bench.files.open_handles == 0
    bench.files.inject = nowhere
    assert bench.committer.open() == 2
    assert bench.committer.stats().segment == "e00000002-n00000001.journal"
    with pytest.raises(StateError, match="opened before"):
        bench.committer.open()


def test_preallocation_is_a_favour() -> None:
    bench = Bench()
    bench.files.inject = lambda call, operation: Fault.ENOSPC if operation == "preallocate" else None
    bench.committer.open()
    bench.append(b"x")
    assert bench.step()
    assert bench.committer.stats().retired_segments == 0


def test_closing_commits_everything_and_gives_the_folder_back() -> None:
    bench = Bench()
    bench.committer.open()
    bench.append(b"a")
    bench.committer.close()
    bench.committer.close()
    assert bench.published == [1]
    assert bench.files.open_handles == 0
    assert bench.committer.stats().state is WriterState.CLOSED
    with pytest.raises(StateError, match="not open"):
        bench.append(b"b")


def test_closing_with_a_dead_disk_says_what_is_lost() -> None:
    bench = Bench()
    bench.committer.open()
    bench.append(b"a")
    bench.files.inject = lambda call, operation: Fault.EIO if operation == "write" else None
    with pytest.raises(
        StorageError, match=r"closed with 1 records that the disk did not take: OSError: .*Input/output"
    ):
        bench.committer.close()
    assert bench.files.open_handles == 0
    assert bench.published == []


def test_the_figures_add_up() -> None:
    bench = Bench()
    bench.files.sync_ms = 3
    epoch = bench.committer.open()
    for _ in range(4):
        bench.append(bytes(100))
        bench.step()
    bench.append(b"waits")
    stats = bench.committer.stats()
    assert (stats.epoch, stats.commits, stats.written_bytes) == (epoch, 4, 4 * BLOCK_BYTES)
    assert (stats.appended_sequence, stats.durable_sequence, stats.queued_bytes) == (5, 4, 45)
    assert stats.sync_counts[SYNC_BOUNDS_S.index(0.005)] == sum(stats.sync_counts) == 4
    assert stats.sync_sum_s == pytest.approx(0.012)
    assert bench.committer.free_bytes() == bench.files.free
    bench.files.inject = lambda call, operation: Fault.EIO
    with pytest.raises(StorageError, match="free space"):
        bench.committer.free_bytes()


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Committer(MemoryFiles(), FOLDER, boot_id=b"short", notify=print, clock_ns=Clock())
    with pytest.raises(ValueError, match="one block at least"):
        Bench(segment_bytes=4096)
    bench = Bench()
    bench.committer.open()
    with pytest.raises(ValueError, match="at most 4194304"):
        bench.append(bytes(MAX_PAYLOAD_BYTES + 1))
    for kind in (0, 256):
        with pytest.raises(ValueError, match="from 1 to 255"):
            bench.committer.append(kind, b"")  # type: ignore[arg-type]
    assert bench.append(memoryview(b"next")) == 1  # type: ignore[arg-type]
    assert bench.step()
    assert bench.read() == [b"next"]


def test_how_long_sound_waited_is_told_also_when_nobody_looked_meanwhile() -> None:
    bench = Bench()
    bench.committer.open()
    bench.append(arrival_ns=bench.clock())
    assert bench.step(70)
    bench.append(arrival_ns=bench.clock())
    assert bench.step(50)
    assert bench.committer.oldest_pending_ns() is None
    assert 70 <= bench.committer.take_longest_wait_ns() / 1e6 <= 72
    assert bench.committer.take_longest_wait_ns() == 0
    bench.append()
    bench.step(500)
    assert bench.committer.take_longest_wait_ns() == 0, "what is no sound waits as long as it likes"
