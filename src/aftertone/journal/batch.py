"""Packet batches: the columns of a packets record, and how they are packed.

Owns: `PacketBatch` and its bytes. Refuses to know: RTP, codecs, files.

Specification: docs/journal-format.md, "Packets".

Theory of operation: a batch is what one tick received, as columns and one run of payload bytes in row order. Packing is a
join of buffers and unpacking is a handful of views, so the cost is that of copying the sound; there is no loop over
packets. Rows are best grouped by call, which makes a call's share one slice.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aftertone.errors import DamagedError
from aftertone.journal.record import MAX_PAYLOAD_BYTES

_COUNTS: Final = struct.Struct("<II")
_COLUMNS: Final = (
    ("arrival_ns", "<i8"),
    ("call", "<u4"),
    ("timestamp", "<u4"),
    ("ssrc", "<u4"),
    ("sequence", "<u2"),
    ("length", "<u2"),
    ("payload_type", "<u1"),
    ("marker", "<u1"),
)
"""Name and stored type of each column, in stored order: widest first, so that all are aligned."""

ROW_BYTES: Final = sum(np.dtype(kind).itemsize for _, kind in _COLUMNS)
"""Bytes that a packet takes besides its payload: with `BATCH_BYTES`, what a caller needs to keep a batch below the limit."""
BATCH_BYTES: Final = _COUNTS.size


@dataclass(frozen=True, slots=True, eq=False)
class PacketBatch:
    """Packets of one tick: n rows, each column of shape [n], payloads joined in row order."""

    call: NDArray[np.uint32]
    arrival_ns: NDArray[np.int64]
    """Monotonic arrival time, from the kernel where it gives one."""
    sequence: NDArray[np.uint16]
    timestamp: NDArray[np.uint32]
    ssrc: NDArray[np.uint32]
    payload_type: NDArray[np.uint8]
    marker: NDArray[np.uint8]
    length: NDArray[np.uint16]
    """Bytes of each payload."""
    payloads: bytes

    def __len__(self) -> int:
        """Return the number of packets."""
        return len(self.call)

    def offsets(self) -> NDArray[np.int64]:
        """Return int64[n + 1]: payload i is ``payloads[offsets[i]:offsets[i + 1]]``."""
        offsets = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.length, out=offsets[1:])
        return offsets

    def payload_list(self) -> list[bytes]:
        """Return the payloads one by one, in row order."""
        offsets = self.offsets().tolist()
        return [self.payloads[start:end] for start, end in itertools.pairwise(offsets)]

    def take(self, rows: NDArray[np.int64]) -> PacketBatch:
        """Return a batch of the rows with these indices, in that order."""
        offsets = self.offsets()
        length = self.length[rows]
        starts = offsets[rows]
        ends = np.cumsum(length, dtype=np.int64)
        if len(rows) and np.array_equal(starts[1:], (starts + length)[:-1]):
            payloads = self.payloads[starts[0] : starts[-1] + length[-1]]
        else:
            source = np.repeat(starts - (ends - length), length) + np.arange(ends[-1] if len(ends) else 0)
            payloads = np.frombuffer(self.payloads, np.uint8)[source].tobytes()
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name, _ in _COLUMNS}
        return PacketBatch(**columns, payloads=payloads)

    def split_by_call(self) -> Iterator[tuple[int, PacketBatch]]:
        """Yield each call with its own rows, in their order, lowest call first; about 5 µs a call, so `join_batches` first.

        Columns of the shares are views of this batch when its calls ascend.
        """
        if not len(self):
            return
        grouped = self
        if bool((self.call[1:] < self.call[:-1]).any()):
            grouped = self.take(np.argsort(self.call, kind="stable"))
        starts = np.flatnonzero(np.diff(grouped.call, prepend=np.uint32(~grouped.call[0])))
        bounds = [*starts.tolist(), len(self)]
        byte_bounds = grouped.offsets()[bounds].tolist()
        columns = [(name, getattr(grouped, name)) for name, _ in _COLUMNS]
        for call, (start, end), (first, last) in zip(
            grouped.call[starts].tolist(), itertools.pairwise(bounds), itertools.pairwise(byte_bounds), strict=True
        ):
            share: dict[str, Any] = {name: column[start:end] for name, column in columns}
            yield call, PacketBatch(**share, payloads=grouped.payloads[first:last])


def join_batches(batches: Sequence[PacketBatch]) -> PacketBatch:
    """Return one batch with the rows of all, in order: split a second of ticks by call at once, not each tick."""
    columns: dict[str, Any] = {
        name: np.concatenate([np.empty(0, kind), *(getattr(batch, name) for batch in batches)])
        for name, kind in _COLUMNS
    }
    return PacketBatch(**columns, payloads=b"".join(batch.payloads for batch in batches))


def pack_batch(batch: PacketBatch) -> bytes:
    """Return the payload of a packets record.

    Raises ValueError when columns differ in length, lengths do not add up to the payload bytes, or the record would pass
    the limit of 4 MiB (`ROW_BYTES` says how to stay below it).
    """
    count = len(batch)
    parts = [_COUNTS.pack(count, len(batch.payloads))]
    for name, kind in _COLUMNS:
        column = np.ascontiguousarray(getattr(batch, name), kind)
        if column.shape != (count,):
            raise ValueError(f"column {name} has shape {column.shape} in a batch of {count} packets")
        parts.append(column.tobytes())
    if int(batch.length.sum(dtype=np.int64)) != len(batch.payloads):
        raise ValueError("the lengths of the packets do not add up to the bytes of their payloads")
    parts.append(batch.payloads)
    packed = b"".join(parts)
    if len(packed) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a batch of {len(packed)} bytes passes the limit of {MAX_PAYLOAD_BYTES}: split it")
    return packed


def unpack_batch(payload: bytes | memoryview) -> PacketBatch:
    """Read what ``pack_batch`` made; the columns are read-only views of ``payload``.

    Raises DamagedError when counts and lengths do not add up.
    """
    if len(payload) < _COUNTS.size:
        raise DamagedError(f"a packets record of the journal is too short: {len(payload)} bytes")
    count, payload_bytes = _COUNTS.unpack_from(payload)
    if _COUNTS.size + count * ROW_BYTES + payload_bytes != len(payload):
        raise DamagedError(f"a packets record of the journal does not add up: {count} packets in {len(payload)} bytes")
    columns: dict[str, Any] = {}
    at = _COUNTS.size
    for name, kind in _COLUMNS:
        column = np.frombuffer(payload, kind, count, at)
        column.flags.writeable = False
        columns[name] = column
        at += column.nbytes
    if int(columns["length"].sum(dtype=np.int64)) != payload_bytes:
        raise DamagedError("the packet lengths in a packets record of the journal do not add up")
    return PacketBatch(**columns, payloads=bytes(payload[at:]))
