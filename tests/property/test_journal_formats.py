"""What is packed is unpacked the same; what was damaged is never taken for something else."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aftertone.errors import DamagedError
from aftertone.journal.batch import PacketBatch, pack_batch, unpack_batch
from aftertone.journal.committer import Committer
from aftertone.journal.entry import Entry, unpack
from aftertone.journal.reader import JournalReader
from aftertone.journal.record import (
    HEADER_BYTES,
    Begin,
    End,
    Event,
    Kind,
    Record,
    Refused,
    pack_header,
    parse_header,
    parse_record,
)
from aftertone.journal.segment import SegmentHeader, SegmentName, pack_segment_header, parse_segment_header
from aftertone.model import Caller
from tests.support.files import Clock, MemoryFiles

FOLDER = Path("/j")
u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
i64 = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
uuids = st.integers(0, 2**128 - 1).map(lambda value: UUID(int=value))

entries = st.one_of(
    st.tuples(st.just(Kind.BEGIN), st.builds(Begin, uuids, u32, st.binary(), st.binary(), i64, i64)),
    st.tuples(st.just(Kind.EVENT), st.builds(Event, u32, i64, texts, texts)),
    st.tuples(st.just(Kind.END), st.builds(End, u32, i64, i64, texts, i64)),
    st.tuples(
        st.just(Kind.REFUSED), st.builds(Refused, uuids, i64, u16, texts, st.builds(Caller, texts, texts), texts)
    ),
)
rows = st.tuples(u32, i64, u16, u32, u32, u8, u8, st.binary(max_size=30))


def batch_of(columns: list[tuple[int, int, int, int, int, int, int, bytes]]) -> PacketBatch:
    call, arrival_ns, sequence, timestamp, ssrc, payload_type, marker, payloads = zip(*columns, strict=True)
    return PacketBatch(
        call=np.array(call, np.uint32),
        arrival_ns=np.array(arrival_ns, np.int64),
        sequence=np.array(sequence, np.uint16),
        timestamp=np.array(timestamp, np.uint32),
        ssrc=np.array(ssrc, np.uint32),
        payload_type=np.array(payload_type, np.uint8),
        marker=np.array(marker, np.uint8),
        length=np.array([len(payload) for payload in payloads], np.uint16),
        payloads=b"".join(payloads),
    )


def columns_of(batch: PacketBatch) -> list[tuple[int, int, int, int, int, int, int, bytes]]:
    names = ("call", "arrival_ns", "sequence", "timestamp", "ssrc", "payload_type", "marker")
    columns = [getattr(batch, name).tolist() for name in names]
    return list(zip(*columns, batch.payload_list(), strict=True))


@given(entries)
def test_entries_round_trip(said: tuple[Kind, Begin | Event | End | Refused]) -> None:
    kind, entry = said
    assert unpack(Record(kind, 1, 1, 0, entry.pack())) == entry


@given(st.lists(rows, min_size=1, max_size=40))
def test_batches_round_trip_and_shares_keep_every_packet(
    columns: list[tuple[int, int, int, int, int, int, int, bytes]],
) -> None:
    batch = batch_of(columns)
    assert columns_of(unpack_batch(pack_batch(batch))) == columns
    shares = [row for _, share in batch.split_by_call() for row in columns_of(share)]
    assert shares == sorted(columns, key=lambda row: row[0])


@given(st.sampled_from(list(Kind)), st.binary(max_size=200))
def test_unpacking_anything_raises_only_what_is_declared(kind: Kind, payload: bytes) -> None:
    try:
        entry: Entry = unpack(Record(kind, 1, 1, 0, payload))
    except DamagedError:
        return
    if isinstance(entry, PacketBatch):
        assert pack_batch(entry) == payload
    elif not isinstance(entry, Refused):
        assert entry.pack() == payload


@given(st.binary(max_size=300), u32, u32, st.integers(0, 2**64 - 1), st.data())
def test_a_flipped_bit_in_a_record_never_goes_unnoticed(
    payload: bytes, seed: int, epoch: int, sequence: int, data: st.DataObject
) -> None:
    frame = pack_header(Kind.EVENT, payload, seed=seed, epoch=epoch, sequence=sequence, durable=0) + payload
    header = parse_header(frame, 0, seed=seed, epoch=epoch)
    assert header is not None
    assert parse_record(header, payload) == Record(Kind.EVENT, epoch, sequence, 0, payload)
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    damaged = bytearray(frame)
    damaged[bit // 8] ^= 1 << bit % 8
    header = parse_header(bytes(damaged), 0, seed=seed, epoch=epoch)
    assert header is None or parse_record(header, bytes(damaged[HEADER_BYTES:])) is None


@given(st.binary(max_size=9000), st.sampled_from([b"", b"header"]))
def test_any_bytes_are_a_header_only_when_they_are_one(noise: bytes, prefix: bytes) -> None:
    name = SegmentName(3, 4)
    header = SegmentHeader(name, bytes(16), 5)
    data = pack_segment_header(header)[:4096] + noise if prefix else noise
    assert parse_segment_header(data, name) == (header if prefix else None)


def journal_of(payloads: list[list[bytes]]) -> tuple[MemoryFiles, dict[int, bytes]]:
    """Write commits of these payloads in segments of a few blocks."""
    files, written = MemoryFiles(), dict[int, bytes]()
    committer = Committer(
        files,
        FOLDER,
        boot_id=bytes(range(16)),
        notify=lambda durable: None,
        clock_ns=Clock(),
        segment_bytes=5 * 4096,
    )
    committer.open()
    for commit in payloads:
        for payload in commit:
            written[committer.append(Kind.EVENT, payload, urgent=True)] = payload
        while committer.step():
            pass
    return files, written


commits = st.lists(st.lists(st.binary(max_size=60), min_size=1, max_size=4), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(commits, st.data())
def test_a_damaged_journal_never_says_anything_wrong(payloads: list[list[bytes]], data: st.DataObject) -> None:
    files, written = journal_of(payloads)
    segments = sorted(name for name in files.list_directory(FOLDER) if name != "lock")
    for _ in range(data.draw(st.integers(1, 3))):
        content = files.contents(FOLDER / data.draw(st.sampled_from(segments)))
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["flip", "zero", "noise", "cut", "swap"])):
            case "flip" if content:
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "zero":
                content[at : at + 512] = bytes(len(content[at : at + 512]))
            case "noise":
                noise = data.draw(st.binary(min_size=1, max_size=60))
                content[at : at + len(noise)] = noise
            case "cut":
                del content[at:]
            case "swap":  # one segment shows the contents of another
                content[:] = files.contents(FOLDER / data.draw(st.sampled_from(segments)))
    reader = JournalReader(files, FOLDER)
    found = [(record.sequence, record.payload) for _, record in reader.poll()]
    assert len(found) == len({sequence for sequence, _ in found})
    assert all(written[sequence] == payload for sequence, payload in found)
    assert list(reader.poll()) == []


@settings(max_examples=60, deadline=None)
@given(commits, st.data())
def test_one_flipped_bit_costs_one_record_at_most_and_is_told(payloads: list[list[bytes]], data: st.DataObject) -> None:
    files, written = journal_of(payloads)
    segments = sorted(name for name in files.list_directory(FOLDER) if name != "lock")
    content = files.contents(FOLDER / data.draw(st.sampled_from(segments)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    reader = JournalReader(files, FOLDER)
    found = {record.sequence for _, record in reader.poll()}
    missing = set(written) - found
    # What follows a broken header is found by searching; only at the end of everything nothing follows that could be found.
    assert len(missing) <= 1
    told = {n for damage in reader.damage for n in range(damage.first_sequence, damage.last_sequence + 1)}
    assert missing - told <= {max(written)}
