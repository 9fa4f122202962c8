"""The reserve: when it is made, what it is good for on a full disk, and what happens where there is none."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from aftertone.errors import StorageError, StorageFullError
from aftertone.files import OsFiles
from aftertone.journal.committer import Committer, JournalInUse
from aftertone.journal.reader import JournalReader
from aftertone.journal.record import Kind
from aftertone.journal.reserve import RESERVE_NAME, RETRY_NS, Reserve, says_full
from aftertone.journal.segment import BLOCK_BYTES, DATA_OFFSET, SegmentName
from aftertone.journal.stats import WriterState
from tests.support.files import Clock, Fault, MemoryFiles, at_call, nowhere

FOLDER = Path("/data/journal")
PATH = FOLDER / RESERVE_NAME
SEGMENT = DATA_OFFSET + 4 * BLOCK_BYTES
RESERVE = 16 * BLOCK_BYTES


class Bench:
    """A committer on a disk of a certain size."""

    def __init__(self, capacity: int | None = None, files: MemoryFiles | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.files = MemoryFiles(clock=self.clock) if files is None else files
        self.files.capacity = capacity if files is None else files.capacity
        self.published: list[int] = []
        self.committer = Committer(
            self.files,
            FOLDER,
            boot_id=bytes(16),
            notify=self.published.append,
            clock_ns=self.clock,
            segment_bytes=SEGMENT,
            **{"reserve_bytes": RESERVE, **settings},
        )

    def commit(self, payload: bytes = b"x") -> bool:
        self.committer.append(Kind.EVENT, payload, urgent=True)
        return self.committer.step()

    def fill(self, leave_bytes: int = 0) -> None:
        """Let somebody else take all room but this much."""
        capacity = self.files.capacity
        assert capacity is not None
        self.files.capacity = capacity - self.files.free_bytes(FOLDER) + leave_bytes

    def payloads(self) -> list[bytes]:
        reader = JournalReader(self.files, FOLDER)
        found = [record.payload for _, record in reader.poll()]
        assert reader.damage == []
        return found

    def segments(self) -> list[str]:
        return sorted(name for name in self.files.list_directory(FOLDER) if name.endswith(".journal"))

    @property
    def state(self) -> WriterState:
        return self.committer.stats().state


def test_it_is_made_when_it_is_asked_for_and_is_durable_then() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.files.log.clear()
    bench.committer.tend_reserve(0)
    log = [line.replace(f"{FOLDER}/", "").replace(str(FOLDER), "journal") for line in bench.files.log]
    assert log == [
        "allocated_bytes reserve",
        "free_bytes journal",
        "unlink reserve",
        "open_new reserve",
        *(f"{call} 5" for call in ("preallocate", "fdatasync", "close")),
        "sync_directory journal",
        "allocated_bytes reserve",
    ]
    assert bench.committer.stats().reserve_bytes == RESERVE
    assert bench.files.contents(PATH) == b""
    bench.files.log.clear()
    bench.committer.tend_reserve(0)
    assert len(bench.files.log) == 1, "one that is there is left alone"


def test_it_is_never_made_of_room_that_must_stay_free() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.fill(RESERVE + 5 * BLOCK_BYTES)
    bench.committer.tend_reserve(6 * BLOCK_BYTES)
    stats = bench.committer.stats()
    assert (stats.reserve_bytes, stats.reserve_why) == (0, "too little room is free to keep any in reserve")
    bench.committer.tend_reserve(5 * BLOCK_BYTES)
    assert bench.files.free_bytes(FOLDER) == 5 * BLOCK_BYTES
    stats = bench.committer.stats()
    assert (stats.reserve_bytes, stats.reserve_why) == (RESERVE, "")


def test_on_a_full_disk_calls_go_on_for_as_long_as_it_lasts_and_then_it_fails() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.fill()
    said = []
    while bench.state is WriterState.OK:
        said.append(os.urandom(BLOCK_BYTES - 100))
        bench.commit(said[-1])
        assert len(said) < 100
    # The preallocated segment, and then the reserve but for its header, block by block.
    assert len(bench.published) == 4 + (RESERVE - DATA_OFFSET) // BLOCK_BYTES
    assert bench.payloads() == said[: len(bench.published)]
    assert bench.committer.stats().full
    assert bench.committer.stats().reserve_bytes == 0
    assert bench.committer.stats().reserve_why == "it was used up on a full disk"
    assert not bench.files.allocated_bytes(PATH)
    assert len(bench.segments()) == 3, "the first, the reserve, and one that took nothing"

    bench.committer.tend_reserve(0)
    assert not bench.files.allocated_bytes(PATH), "while the journal fails, the first room is for what was said"
    bench.files.capacity = 1 << 20
    bench.clock.advance_ms(2000)
    assert bench.committer.step()
    assert bench.payloads() == said
    assert not bench.committer.stats().full
    bench.committer.tend_reserve(0)
    assert bench.committer.stats().reserve_bytes == RESERVE


def test_nobody_can_take_its_blocks_on_the_way() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.fill()
    taken = []

    def thief(call: int, operation: str) -> None:
        """Take every block that anybody gives back."""
        bench.files.inject = nowhere
        taken.append(bench.files.free_bytes(FOLDER))
        bench.files.inject = thief

    bench.files.inject = thief
    for _ in range(6):
        assert bench.commit(bytes(BLOCK_BYTES - 100))
    assert taken
    assert not any(taken)


def test_a_segment_of_the_reserve_is_as_long_as_the_reserve() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.fill()
    for _ in range(5):
        bench.commit(bytes(BLOCK_BYTES - 100))
    bench.files.capacity = 1 << 20
    for _ in range(20):
        bench.commit(bytes(BLOCK_BYTES - 100))
    sizes = [len(bench.files.contents(FOLDER / name)) for name in bench.segments()]
    assert sizes[:3] == [SEGMENT, RESERVE, SEGMENT]


def test_a_full_disk_without_a_reserve_fails_at_once() -> None:
    bench = Bench(1 << 20, reserve_bytes=0)
    bench.committer.open()
    bench.fill()
    for _ in range(4):
        assert bench.commit(bytes(BLOCK_BYTES - 100))
    assert not bench.commit()
    assert bench.state is WriterState.FAILED
    assert bench.committer.stats().full


def test_a_broken_disk_does_not_spend_it() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.files.inject = lambda call, operation: Fault.EIO if operation == "fdatasync" else None
    assert not bench.commit()
    assert bench.state is WriterState.FAILED
    stats = bench.committer.stats()
    assert (stats.full, stats.reserve_bytes) == (False, RESERVE)
    bench.files.inject = nowhere
    bench.clock.advance_ms(2000)
    assert bench.committer.step()
    assert bench.files.allocated_bytes(PATH) == RESERVE


def test_a_disk_that_breaks_and_then_is_full_still_has_it() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.commit(b"first")
    bench.fill()
    bench.files.inject = at_call(1, Fault.EIO, "fdatasync")
    assert bench.commit(b"second")
    assert bench.payloads() == [b"first", b"second"]
    assert bench.committer.stats().reserve_bytes == 0


@pytest.mark.parametrize("operation", ["open_existing", "rename", "sync_directory", "size", "list_directory"])
def test_a_reserve_that_cannot_be_used_is_the_second_failure(operation: str) -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.fill()
    for _ in range(4):
        bench.commit(bytes(BLOCK_BYTES - 100))
    bench.files.inject = lambda call, what: Fault.EIO if what == operation else None
    assert not bench.commit(b"last")
    assert bench.state is WriterState.FAILED
    bench.files.inject = nowhere
    bench.files.capacity = 1 << 20
    bench.clock.advance_ms(2000)
    assert bench.committer.step()
    assert bench.payloads()[-1] == b"last"
    assert bench.files.open_handles <= 3, "segment, lock, and the reader's"


def test_a_file_that_somebody_wrote_into_never_becomes_a_segment() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.files.contents(PATH).extend(b"notes")
    bench.fill()
    for _ in range(5):
        bench.commit(bytes(BLOCK_BYTES - 100))
    assert bench.state is WriterState.FAILED
    assert bench.files.contents(PATH) == b"notes"


def test_a_segment_with_the_same_name_is_never_replaced() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.fill(BLOCK_BYTES)
    theirs = FOLDER / str(SegmentName(1, 2))
    handle = bench.files.open_new(theirs)
    bench.files.write(handle, [b"theirs"])
    bench.files.close(handle)
    for _ in range(5):
        bench.commit(bytes(BLOCK_BYTES - 100))
    assert bench.files.contents(theirs) == b"theirs"


@pytest.mark.parametrize(("code", "tries"), [(errno.EOPNOTSUPP, 1), (errno.ENOSYS, 1), (errno.EIO, 2)])
def test_a_disk_that_cannot_keep_room_is_a_fact_and_no_error(code: int, tries: int) -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    asked = []

    def refuse(handle: int, size_bytes: int) -> None:
        asked.append(size_bytes)
        raise OSError(code, os.strerror(code))

    bench.files.preallocate = refuse  # type: ignore[method-assign]
    for _ in range(2):
        bench.committer.tend_reserve(0)
        bench.committer.tend_reserve(0)
        bench.clock.now_ns += RETRY_NS
    assert asked == [RESERVE] * tries
    stats = bench.committer.stats()
    assert os.strerror(code) in stats.reserve_why
    assert (stats.state, stats.reserve_bytes) == (WriterState.OK, 0)
    assert RESERVE_NAME not in bench.files.list_directory(FOLDER)


def test_a_disk_that_only_says_that_it_keeps_room_has_none() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.files.preallocate = lambda handle, size_bytes: None  # type: ignore[method-assign]
    for _ in range(3):
        bench.committer.tend_reserve(0)
    assert "keeps no blocks" in bench.committer.stats().reserve_why
    assert bench.files.log.count(f"open_new {PATH}") == 1
    assert RESERVE_NAME not in bench.files.list_directory(FOLDER)


def test_another_setting_makes_it_anew_and_none_removes_it() -> None:
    bench = Bench(1 << 24, reserve_bytes=1 << 22)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.committer.close()
    for wanted in (1 << 23, 1 << 20, 0):
        again = Bench(files=bench.files, reserve_bytes=wanted)
        again.committer.open()
        again.committer.tend_reserve(0)
        assert again.files.allocated_bytes(PATH) == again.committer.stats().reserve_bytes == wanted
        again.committer.close()


def test_one_from_before_is_known_at_once_and_opening_does_not_touch_it() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.committer.close()
    bench.fill()
    again = Bench(files=bench.files)
    with pytest.raises(StorageFullError, match=r"cannot be opened: .*No space left"):
        again.committer.open()
    assert again.files.open_handles == 0
    assert again.files.allocated_bytes(PATH) == RESERVE
    for _ in range(20):
        with pytest.raises(StorageFullError):
            again.committer.open()
    assert len(again.segments()) <= 3, "a row of attempts leaves no row of files"
    again.files.capacity = 1 << 20
    assert again.committer.open() > 1
    assert again.committer.stats().reserve_bytes == RESERVE


def test_readers_pass_it_over() -> None:
    bench = Bench(1 << 20)
    bench.committer.open()
    bench.committer.tend_reserve(0)
    bench.commit(b"said")
    assert SegmentName.parse(RESERVE_NAME) is None
    reader = JournalReader(bench.files, FOLDER)
    assert [record.payload for _, record in reader.poll()] == [b"said"]
    assert (reader.epochs(), reader.damage) == ((1,), [])


def test_a_folder_in_use_is_told_apart_from_a_broken_one() -> None:
    bench = Bench()
    bench.committer.open()
    with pytest.raises(JournalInUse, match="in use by process 4711") as caught:
        Bench(files=bench.files).committer.open()
    assert not caught.value.retry
    bench.committer.close()
    bench.files.inject = lambda call, operation: Fault.EIO if operation == "lock" else None
    with pytest.raises(StorageError) as broken:
        Bench(files=bench.files).committer.open()
    assert not isinstance(broken.value, (JournalInUse, StorageFullError))


@pytest.mark.parametrize(("code", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_what_says_that_there_is_no_room(code: int, full: bool) -> None:
    assert says_full(OSError(code, "")) is full
    assert not says_full(MemoryError())


def test_on_a_real_disk_it_holds_blocks_and_becomes_a_segment_with_them(tmp_path: Path) -> None:
    wanted = 1 << 20
    reserve = Reserve(OsFiles(), tmp_path, wanted)
    reserve.tend(0, 0)
    if reserve.why:
        pytest.skip(f"this disk keeps no room: {reserve.why}")
    path = tmp_path / RESERVE_NAME
    assert path.stat().st_size == 0
    assert path.stat().st_blocks * 512 == reserve.held_bytes >= wanted
    inode = path.stat().st_ino
    committer = Committer(
        OsFiles(), tmp_path, boot_id=bytes(16), notify=lambda _: None, clock_ns=Clock(), reserve_bytes=wanted
    )
    committer.open()
    committer._full = True
    segment, committer._segment = committer._segment, None
    assert segment is not None
    segment.abandon()
    committer.append(Kind.EVENT, b"said", urgent=True)
    assert committer.step()
    committer.close()
    assert (tmp_path / "e00000001-n00000002.journal").stat().st_ino == inode
    assert [record.payload for _, record in JournalReader(OsFiles(), tmp_path).poll()] == [b"said"]
