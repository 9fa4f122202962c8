"""Reading back: following, tails, damage, epochs, removal."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from aftertone.errors import StateError, StorageError
from aftertone.journal.committer import Committer
from aftertone.journal.reader import DAMAGE_LIMIT, Damage, JournalReader, SequenceSet
from aftertone.journal.record import HEADER_BYTES, MAX_PAYLOAD_BYTES, Kind, Record, pack_header
from aftertone.journal.segment import (
    BLOCK_BYTES,
    DATA_OFFSET,
    SegmentHeader,
    SegmentName,
    pack_segment_header,
    parse_segment_header,
)
from tests.support.files import Clock, Fault, MemoryFiles, at_call, nowhere

FOLDER = Path("/data/journal")
BOOT_ID = bytes(range(16))
FIRST = SegmentName(1, 1)
SECOND = SegmentName(1, 2)


class Journal:
    """A folder in memory with a committer that can be told what to write."""

    def __init__(self, segment_blocks: int = 4000) -> None:
        self.files = MemoryFiles()
        self.clock = Clock()
        self.segment_bytes = DATA_OFFSET + segment_blocks * BLOCK_BYTES
        self.start()

    def start(self) -> None:
        self.committer = Committer(
            self.files,
            FOLDER,
            boot_id=BOOT_ID,
            notify=lambda durable: None,
            clock_ns=self.clock,
            segment_bytes=self.segment_bytes,
        )
        self.committer.open()

    def commit(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.committer.append(Kind.EVENT, payload, urgent=True)
        self.committer.step()

    def content(self, name: SegmentName = FIRST) -> bytearray:
        return self.files.contents(FOLDER / str(name))

    def reader(self) -> JournalReader:
        return JournalReader(self.files, FOLDER)


def sequences(reader: JournalReader) -> list[int]:
    return [record.sequence for _, record in reader.poll()]


def zero(content: bytearray, start: int, length: int) -> None:
    content[start : start + length] = bytes(length)


def test_a_reader_follows_what_is_written() -> None:
    journal = Journal(segment_blocks=3)
    reader = journal.reader()
    assert list(reader.poll()) == []
    for number in range(1, 9):
        journal.commit(b"%d" % number)
        polled = list(reader.poll())
        name = SegmentName(1, (number + 2) // 3)
        assert polled == [(name, Record(Kind.EVENT, 1, number, number - 1, b"%d" % number))]
        assert list(reader.poll()) == []
    assert reader.damage == []
    assert sequences(journal.reader()) == list(range(1, 9))
    reader.close()


def test_polling_costs_a_listing_and_an_fstat_when_nothing_is_new() -> None:
    journal = Journal()
    journal.commit(b"x")
    reader = journal.reader()
    list(reader.poll())
    journal.files.log.clear()
    list(reader.poll())
    assert [line.split()[0] for line in journal.files.log] == ["list_directory", "size"]


def test_a_poll_that_is_given_up_goes_on_where_it_was() -> None:
    journal = Journal(segment_blocks=2)
    for number in range(6):
        journal.commit(b"%d" % number, b"more")
    reader = journal.reader()
    got = [next(iter(reader.poll()))[1].sequence for _ in range(12)]
    assert got == list(range(1, 13))
    assert list(reader.poll()) == []


def test_a_folder_that_is_not_there_yet_is_empty() -> None:
    reader = JournalReader(MemoryFiles(), FOLDER)
    assert list(reader.poll()) == []
    assert reader.epochs() == ()
    assert reader.closed_epochs() == frozenset()


def test_records_of_every_size_are_read_through_the_window() -> None:
    journal = Journal()
    rng = random.Random(3)
    sizes = (0, 1, 4056, 4057, 1 << 20, (1 << 20) - 40, 3, MAX_PAYLOAD_BYTES, 7, 700_000, 700_000)
    payloads = [rng.randbytes(size) for size in sizes]
    journal.commit(*payloads)
    assert [record.payload for _, record in journal.reader().poll()] == payloads


@pytest.mark.parametrize("cut", [1, 39, 40, 41, 100, 140])
def test_a_torn_tail_ends_a_segment_in_silence(cut: int) -> None:
    journal = Journal()
    journal.commit(b"a")
    journal.commit(b"b" * 100)
    content = journal.content()
    del content[DATA_OFFSET + BLOCK_BYTES + HEADER_BYTES + 100 - cut :]
    journal.committer.close()
    journal.start()
    journal.commit(b"c")
    reader = journal.reader()
    assert [(record.epoch, record.sequence) for _, record in reader.poll()] == [(1, 1), (2, 1)]
    assert reader.damage == []


def test_zeros_to_the_end_are_a_tail() -> None:
    journal = Journal()
    journal.commit(b"a")
    journal.commit(b"b")
    zero(journal.content(), DATA_OFFSET + BLOCK_BYTES, BLOCK_BYTES)
    journal.content().extend(bytes(1 << 20))
    reader = journal.reader()
    assert sequences(reader) == [1]
    assert reader.damage == []


def test_a_tail_that_grows_is_read_when_it_is_whole() -> None:
    journal = Journal()
    journal.commit(b"a")
    journal.commit(b"b" * 5000, b"c")
    content = journal.content()
    whole = bytes(content)
    reader = journal.reader()
    got: list[int] = []
    ends = DATA_OFFSET + BLOCK_BYTES + HEADER_BYTES + 5000  # between two records of one commit
    steps = {0, 10, BLOCK_BYTES, *range(DATA_OFFSET, len(whole), 13), *range(ends - 50, ends + 100), len(whole)}
    for size in sorted(steps):
        content[:] = whole[:size]
        got += sequences(reader)
    assert got == [1, 2, 3]
    assert reader.damage == []


def test_a_bad_record_among_good_ones_is_reported_and_passed() -> None:
    journal = Journal()
    for number in range(5):
        journal.commit(b"%d" % number * 50)
    journal.content()[DATA_OFFSET + 2 * BLOCK_BYTES + HEADER_BYTES + 7] ^= 0x10
    reader = journal.reader()
    assert sequences(reader) == [1, 2, 4, 5]
    start = DATA_OFFSET + 2 * BLOCK_BYTES
    assert reader.damage == [Damage(FIRST, start, "acknowledged records are missing", True, 3, 3)]


def test_several_bad_records_in_one_block_are_one_damage() -> None:
    journal = Journal()
    journal.commit(*(b"%d" % number for number in range(20)))
    journal.commit(b"after")
    journal.commit(b"and after")
    zero(journal.content(), DATA_OFFSET + 100, BLOCK_BYTES)
    reader = journal.reader()
    assert sequences(reader) == [1, 2, 22]
    assert reader.damage == [Damage(FIRST, DATA_OFFSET + 82, "acknowledged records are missing", True, 3, 21)]


def test_a_hole_in_the_last_commit_is_a_torn_end() -> None:
    journal = Journal()
    journal.commit(b"a")
    journal.commit(b"b" * 1000, b"c" * 1000, b"d" * 1000)
    zero(journal.content(), DATA_OFFSET + BLOCK_BYTES + 512, 512)
    reader = journal.reader()
    assert sequences(reader) == [1, 3, 4]
    assert reader.damage == [Damage(FIRST, DATA_OFFSET + BLOCK_BYTES, "an unfinished commit was torn", False, 2, 2)]


def test_a_batch_that_was_written_twice_is_read_once() -> None:
    journal = Journal()
    journal.commit(b"a")
    journal.files.inject = at_call(1, Fault.EIO, "fdatasync")
    journal.commit(b"b", b"c")
    journal.commit(b"d")
    reader = journal.reader()
    assert [(str(name)[-9], record.sequence) for name, record in reader.poll()] == [
        ("1", 1), ("1", 2), ("1", 3), ("2", 4),
    ]  # fmt: skip
    zero(journal.content(), DATA_OFFSET + BLOCK_BYTES, HEADER_BYTES)  # what such a disk shows after a restart
    reader = journal.reader()
    assert sequences(reader) == [1, 3, 2, 4]
    assert [damage.acknowledged for damage in reader.damage] == [False]


def test_a_lost_end_of_a_finished_segment_is_noticed_by_the_next() -> None:
    journal = Journal(segment_blocks=2)
    for number in range(4):
        journal.commit(b"%d" % number)
    del journal.content()[DATA_OFFSET + BLOCK_BYTES :]
    reader = journal.reader()
    assert sequences(reader) == [1, 3, 4]
    assert reader.damage == [Damage(FIRST, 0, "its last records are missing", True, 2, 2)]
    reader.remove(FIRST)
    assert FIRST.aside in journal.files.list_directory(FOLDER)


def test_garbage_in_the_padding_costs_nothing_but_is_told() -> None:
    journal = Journal()
    journal.commit(b"a")
    journal.commit(b"b")
    journal.content()[DATA_OFFSET + 900] = 1
    reader = journal.reader()
    assert sequences(reader) == [1, 2]
    assert reader.damage == [Damage(FIRST, DATA_OFFSET + 41, "bytes between two records are not padding", False)]


def test_what_looks_like_a_record_inside_a_damaged_one_is_not_believed() -> None:
    journal = Journal()
    seed = SegmentHeader(FIRST, bytes(16), 1).seed  # the best guess of somebody who does not know the boot id
    forged = pack_header(Kind.BEGIN, b"forged", seed=seed, epoch=1, sequence=2, durable=1) + b"forged"
    real = pack_header(Kind.BEGIN, b"known", seed=_seed(journal), epoch=1, sequence=2, durable=1) + b"known"
    journal.commit(b"a" * 20 + forged * 20)
    journal.commit(b"b")
    damaged = journal.content()
    damaged[DATA_OFFSET] ^= 1  # the frame of the first record is gone, its contents are searched
    assert [record.payload for _, record in journal.reader().poll()] == [b"b"]
    # and the search would have found it, had the checksums held
    at = damaged.index(forged)
    damaged[at : at + len(real)] = real
    assert next(iter(journal.reader().poll()))[1].payload == b"known"


def test_nothing_inside_a_frame_that_holds_is_taken_for_a_record() -> None:
    journal = Journal()
    inner = pack_header(Kind.BEGIN, b"inner", seed=_seed(journal), epoch=1, sequence=9, durable=0) + b"inner"
    journal.commit(b"a" * 100 + inner, b"b" * 100 + inner, b"c")
    content = journal.content()
    second = DATA_OFFSET + HEADER_BYTES + 100 + len(inner)
    content[DATA_OFFSET + HEADER_BYTES] ^= 1  # the frame stands, its contents do not
    assert sequences(journal.reader()) == [2, 3]
    content[second + HEADER_BYTES] ^= 1
    assert sequences(journal.reader()) == [3]


def _seed(journal: Journal) -> int:
    header = parse_segment_header(bytes(journal.content()), FIRST)
    assert header is not None
    return header.seed


def test_a_search_does_not_follow_a_false_length() -> None:
    journal = Journal()
    lure = b"\xf5Atj" + (MAX_PAYLOAD_BYTES).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(28)
    journal.commit(b"a", lure * 5000)
    journal.commit(b"b")
    journal.content()[DATA_OFFSET + 41] ^= 1
    reader = journal.reader()
    assert sequences(reader) == [1, 3]


def test_one_bad_copy_of_the_header_is_enough_and_two_are_borrowed() -> None:
    journal = Journal(segment_blocks=2)
    for number in range(5):
        journal.commit(b"%d" % number)
    zero(journal.content(SECOND), 0, BLOCK_BYTES)
    reader = journal.reader()
    assert sequences(reader) == [1, 2, 3, 4, 5]
    assert reader.damage == []
    zero(journal.content(SECOND), BLOCK_BYTES, BLOCK_BYTES)
    reader = journal.reader()
    assert sequences(reader) == [1, 2, 3, 4, 5]
    assert reader.damage == [Damage(SECOND, 0, "both copies of the segment's header are damaged", True)]
    assert [record.sequence for record in reader.records(SECOND)] == [3, 4]


def test_a_lone_segment_without_header_is_reported_and_kept() -> None:
    journal = Journal()
    journal.commit(b"a")
    zero(journal.content(), 0, DATA_OFFSET)
    journal.committer.close()
    journal.start()
    reader = journal.reader()
    assert sequences(reader) == []
    assert [(damage.segment, damage.acknowledged) for damage in reader.damage] == [(FIRST, True)]
    assert list(reader.records(FIRST)) == []
    reader.remove(FIRST)
    assert sorted(journal.files.list_directory(FOLDER)) == [FIRST.aside, str(SegmentName(2, 1)), "lock"]


def test_a_segment_whose_beginning_was_cut_short_holds_nothing() -> None:
    journal = Journal()
    journal.committer.close()
    for size in (0, 100, BLOCK_BYTES - 1):
        del journal.content()[size:]
        files = journal.files
        handle = files.open_new(FOLDER / str(SECOND))
        reader = journal.reader()
        assert sequences(reader) == []
        assert reader.damage == []
        files.close(handle)
        files.unlink(FOLDER / str(SECOND))


def test_a_segment_of_a_later_format_is_left_alone() -> None:
    journal = Journal(segment_blocks=1)
    journal.commit(b"a")
    journal.commit(b"b")
    journal.content()[:DATA_OFFSET] = pack_segment_header(SegmentHeader(FIRST, BOOT_ID, 1, version=2))
    reader = journal.reader()
    assert sequences(reader) == [2]
    assert [damage.why for damage in reader.damage] == [
        "written in format 2, which this version of Aftertone does not know"
    ]
    assert list(reader.records(FIRST)) == []
    reader.remove(FIRST)
    assert FIRST.aside in journal.files.list_directory(FOLDER)


def test_a_block_that_the_disk_cannot_read_costs_that_block() -> None:
    journal = Journal()
    for number in range(6):
        journal.commit(b"%d" % number)
    bad = DATA_OFFSET + 2 * BLOCK_BYTES
    files = _BadBlock(journal.files, bad)
    reader = JournalReader(files, FOLDER)
    assert sequences(reader) == [1, 2, 4, 5, 6]
    unreadable, missing = reader.damage
    assert unreadable.offset == missing.offset == bad
    assert "cannot read it" in unreadable.why
    assert (missing.first_sequence, missing.last_sequence, missing.acknowledged) == (3, 3, True)


class _BadBlock(MemoryFiles):
    """A disk on which one block of every file cannot be read."""

    def __init__(self, other: MemoryFiles, bad: int) -> None:
        super().__init__()
        self.inodes, self.names, self._bad = other.inodes, other.names, bad

    def read(self, handle: int, offset: int, length: int) -> bytes:
        if offset < self._bad + BLOCK_BYTES and self._bad < offset + length:
            raise OSError(5, "Input/output error")
        return super().read(handle, offset, length)


@pytest.mark.parametrize("fault", [Fault.SHORT, Fault.EINTR])
def test_short_and_interrupted_reads_are_continued(fault: Fault) -> None:
    journal = Journal()
    journal.commit(b"a" * 3000, b"b")
    for number in range(1, 10):
        journal.files.inject = at_call(number, fault, "read")
        assert sequences(journal.reader()) == [1, 2]


@pytest.mark.parametrize("operation", ["list_directory", "open_read", "size", "read"])
def test_an_error_is_told_and_the_next_poll_goes_on(operation: str) -> None:
    journal = Journal(segment_blocks=1)
    journal.commit(b"a")
    journal.commit(b"b")
    reader = journal.reader()
    journal.files.inject = at_call(2, Fault.ENOSPC, operation)
    got: list[int] = []
    for _ in range(3):
        try:
            for _, record in reader.poll():
                got += [record.sequence]  # one by one: what came before the error counts
        except StorageError as error:
            assert "cannot be read" in str(error)
    assert got == [1, 2]
    assert reader.damage == []


def test_epochs_close_when_the_lock_is_free_or_a_newer_one_exists() -> None:
    journal = Journal()
    reader = journal.reader()
    assert (reader.epochs(), reader.closed_epochs()) == ((1,), frozenset())
    journal.committer.close()
    assert reader.closed_epochs() == {1}
    journal.start()
    assert (reader.epochs(), reader.closed_epochs()) == ((1, 2), frozenset({1}))
    for operation in ("list_directory", "is_locked"):
        journal.files.inject = at_call(1, Fault.EIO, operation)
        with pytest.raises(StorageError):
            reader.closed_epochs()


def test_a_segment_is_removed_only_when_read_and_never_the_newest() -> None:
    journal = Journal(segment_blocks=1)
    journal.commit(b"a")
    journal.commit(b"b")
    reader = journal.reader()
    with pytest.raises(StateError, match="not been read to its end"):
        reader.remove(FIRST)
    list(reader.poll())
    with pytest.raises(StateError, match="newest"):
        reader.remove(SECOND)
    journal.files.log.clear()
    reader.remove(FIRST)
    reader.remove(FIRST)
    assert journal.files.log[1:4] == [
        f"sync_directory {FOLDER}",
        f"unlink {FOLDER / str(FIRST)}",
        f"sync_directory {FOLDER}",
    ]
    journal.committer.close()
    assert reader.closed_epochs() == {1}
    with pytest.raises(StateError, match="newest"):
        reader.remove(SECOND)
    journal.start()
    list(reader.poll())
    reader.remove(SECOND)
    assert sorted(journal.files.list_directory(FOLDER)) == ["e00000002-n00000001.journal", "lock"]
    journal.commit(b"c")
    assert sequences(reader) == [1]


def test_a_removal_that_the_disk_refuses_is_told() -> None:
    journal = Journal(segment_blocks=1)
    journal.commit(b"a")
    journal.commit(b"b")
    reader = journal.reader()
    list(reader.poll())
    for operation in ("sync_directory", "unlink", "list_directory"):
        journal.files.inject = at_call(1, Fault.EIO, operation)
        with pytest.raises(StorageError, match="cannot be removed"):
            reader.remove(FIRST)
    journal.files.inject = nowhere
    reader.remove(FIRST)


def test_a_segment_can_be_read_again_by_name() -> None:
    journal = Journal(segment_blocks=1)
    journal.commit(b"a", b"b")
    journal.commit(b"c")
    reader = journal.reader()
    list(reader.poll())
    assert [record.payload for record in reader.records(FIRST)] == [b"a", b"b"]
    assert [record.payload for record in reader.records(SECOND)] == [b"c"]
    assert list(reader.records(SegmentName(9, 9))) == []
    before = journal.files.open_handles
    next(iter(reader.records(FIRST)))
    assert journal.files.open_handles == before


def test_a_segment_that_goes_away_between_listing_and_opening_is_passed() -> None:
    journal = Journal(segment_blocks=1)
    journal.commit(b"a")
    journal.commit(b"b")

    def vanish(call: int, operation: str) -> None:
        if operation == "open_read" and str(FOLDER / str(FIRST)) in journal.files.names:
            journal.files.inject = nowhere
            journal.files.unlink(FOLDER / str(FIRST))

    journal.files.inject = vanish
    reader = journal.reader()
    assert sequences(reader) == [2]
    assert reader.damage == []


def test_the_list_of_damage_is_bounded() -> None:
    journal = Journal()
    for _ in range(DAMAGE_LIMIT + 50):
        journal.commit(b"x")
        journal.commit(b"x")
    content = journal.content()
    for block in range(DATA_OFFSET, len(content) - BLOCK_BYTES, 2 * BLOCK_BYTES):
        zero(content, block, BLOCK_BYTES)
    reader = journal.reader()
    assert len(sequences(reader)) == DAMAGE_LIMIT + 50
    assert len(reader.damage) == DAMAGE_LIMIT
    assert reader.damage_count == DAMAGE_LIMIT + 50


def test_sequence_sets_join_their_ranges() -> None:
    rng = random.Random(11)
    for _ in range(50):
        ours, theirs = SequenceSet(), set[int]()
        for _ in range(60):
            number = rng.randrange(1, 40)
            assert ours.add(number) == (number not in theirs)
            theirs.add(number)
            first = rng.randrange(1, 40)
            last = first + rng.randrange(5)
            assert ours.covers(first, last) == theirs.issuperset(range(first, last + 1))
