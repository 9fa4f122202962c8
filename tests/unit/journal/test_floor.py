"""The floor under the clock, found in the newest segments, whatever became of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from uuid import UUID

import pytest

from aftertone.files import OsFiles
from aftertone.journal import Begin, End, Floor, JournalReader, Kind, Refused, read_floor
from aftertone.journal.committer import Committer
from aftertone.journal.floor import SEGMENTS_READ
from aftertone.journal.segment import BLOCK_BYTES, DATA_OFFSET, NO_FLOOR, SegmentName, parse_segment_header
from aftertone.model import Caller, mint_id
from tests.support.files import Clock, Fault, MemoryFiles, at_call, nowhere

FOLDER = Path("/data/journal")
MS = 1_800_000_000_000
SMALL = DATA_OFFSET + BLOCK_BYTES
"""Room for one commit."""


class Line:
    """One epoch of a journal in memory."""

    def __init__(self, files: MemoryFiles, *, segment_bytes: int = SMALL) -> None:
        self.clock, self.floor, self.call = Clock(), NO_FLOOR, 0
        self.committer = Committer(
            files,
            FOLDER,
            boot_id=bytes(range(16)),
            notify=lambda _: None,
            clock_ns=self.clock,
            segment_bytes=segment_bytes,
            floor=lambda: self.floor,
        )
        self.committer.open()

    def write(self, kind: Kind, payload: bytes) -> None:
        self.committer.append(kind, payload, urgent=True)
        self.committer.step()

    def begin(self, id_ms: int, unix_ms: int) -> None:
        self.call += 1
        message_id = mint_id(id_ms, random.Random(id_ms).randbytes(10))
        self.write(Kind.BEGIN, Begin(message_id, self.call, json.dumps({}).encode(), b"", 1, unix_ms).pack())

    def end(self, unix_ms: int) -> None:
        self.write(Kind.END, End(self.call, 2, unix_ms, "key").pack())

    def refuse(self, refusal_id: UUID, unix_ms: int) -> None:
        self.write(Kind.REFUSED, Refused(refusal_id, unix_ms, 480, "full", Caller(), "sip:x@y").pack())


@pytest.fixture
def files() -> MemoryFiles:
    return MemoryFiles(clock=Clock())


def newest(files: MemoryFiles) -> SegmentName:
    names = [SegmentName.parse(name) for name in files.list_directory(FOLDER)]
    return max(name for name in names if name is not None)


def header_floor(files: MemoryFiles, name: SegmentName) -> Floor:
    header = parse_segment_header(bytes(files.contents(FOLDER / str(name))[:DATA_OFFSET]), name)
    assert header is not None
    return header.floor


def test_a_new_journal_knows_nothing(files: MemoryFiles) -> None:
    assert read_floor(files, FOLDER) == NO_FLOOR
    line = Line(files)
    assert line.committer.found_floor == NO_FLOOR
    assert read_floor(files, FOLDER) == NO_FLOOR


def test_records_tell_of_ids_and_of_the_clock(files: MemoryFiles) -> None:
    line = Line(files, segment_bytes=1 << 20)
    line.begin(MS + 50, MS)
    assert read_floor(files, FOLDER) == Floor(MS + 50, MS)
    line.end(MS + 7)
    assert read_floor(files, FOLDER) == Floor(MS + 50, MS + 7)
    line.refuse(mint_id(MS + 51, bytes(10)), MS - 9)
    assert read_floor(files, FOLDER) == Floor(MS + 51, MS - 9), "the last word on the clock counts, not the highest"
    line.refuse(UUID(int=9), MS + 1)
    line.write(Kind.EVENT, b"x")
    line.write(Kind.BEGIN, b"not a beginning")
    assert read_floor(files, FOLDER) == Floor(MS + 51, MS + 1)


def test_every_segment_and_epoch_carries_the_floor_on(files: MemoryFiles) -> None:
    line = Line(files)
    line.begin(MS, MS)
    line.floor = Floor(MS, MS + 3)
    line.begin(MS + 1, MS + 4)
    assert header_floor(files, SegmentName(1, 2)) == Floor(MS, MS + 3)
    line.committer.close()
    second = Line(files)
    assert second.committer.found_floor == Floor(MS + 1, MS + 4)
    assert header_floor(files, SegmentName(2, 1)) == Floor(MS + 1, MS + 4)
    second.committer.close()
    for path in [name for name in files.list_directory(FOLDER) if name.startswith("e") and "e00000002" not in name]:
        files.unlink(FOLDER / path)
    third = Line(files)
    assert third.committer.found_floor == Floor(MS + 1, MS + 4), "the newest segment is enough, even without a record"
    third.floor = Floor(3, 5)
    third.begin(3, 5)
    third.begin(4, 6)
    assert header_floor(files, newest(files)) == Floor(MS + 1, 5), "ids never fall, the clock may be corrected"


def test_a_torn_header_sends_to_the_segment_before(files: MemoryFiles) -> None:
    line = Line(files)
    line.begin(MS, MS + 1)
    line.committer.close()
    Line(files)
    content = files.contents(FOLDER / str(SegmentName(2, 1)))
    del content[100:]
    assert read_floor(files, FOLDER) == Floor(MS, MS + 1)


def test_records_behind_a_damaged_header_are_read_by_the_boot_id_of_a_neighbour(files: MemoryFiles) -> None:
    line = Line(files)
    for number in range(3):
        line.begin(MS + number, MS + number)
    content = files.contents(FOLDER / str(newest(files)))
    content[:DATA_OFFSET] = bytes(DATA_OFFSET)
    assert read_floor(files, FOLDER) == Floor(MS + 2, MS + 2)


def test_without_floors_in_headers_the_newest_segments_are_read_and_no_more(files: MemoryFiles) -> None:
    line = Line(files)
    for number in range(6):
        line.begin(MS - number, MS - number)  # an older version: its ids followed the clock down
    assert newest(files) == SegmentName(1, 6)
    assert header_floor(files, newest(files)) == NO_FLOOR
    assert read_floor(files, FOLDER) == Floor(MS - 6 + SEGMENTS_READ, MS - 5)


def test_a_disk_that_refuses_costs_the_floor_and_nothing_else(files: MemoryFiles) -> None:
    line = Line(files)
    line.begin(MS, MS)
    line.committer.close()
    before = files.calls
    assert read_floor(files, FOLDER) == Floor(MS, MS)
    for number in range(1, files.calls - before + 1):
        for fault in (Fault.EIO, Fault.ENOSPC):
            files.inject, files.fired = at_call(number, fault), 0
            assert read_floor(files, FOLDER) in (NO_FLOOR, Floor(MS, MS))
            assert files.fired == 1
            assert not files._open, "no descriptor stays open"
    files.inject = nowhere
    assert read_floor(files, FOLDER) == Floor(MS, MS)


def test_a_reader_tells_the_floor_of_a_segment(tmp_path: Path) -> None:
    committer = Committer(
        OsFiles(),
        tmp_path,
        boot_id=bytes(16),
        notify=lambda _: None,
        clock_ns=Clock(),
        floor=lambda: Floor(MS, MS + 1),
    )
    committer.open()
    committer.close()
    reader = JournalReader(OsFiles(), tmp_path)
    assert reader.floor(SegmentName(1, 1)) == Floor(MS, MS + 1)
    assert reader.floor(SegmentName(1, 2)) == NO_FLOOR
    (tmp_path / str(SegmentName(1, 2))).write_bytes(b"short")
    assert reader.floor(SegmentName(1, 2)) == NO_FLOOR
