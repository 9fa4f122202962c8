"""Reading one segment: record after record, over padding, past damage, up to a tail.

Owns: how the bytes of one segment become records, also while the segment grows. Refuses to know: other segments, sequence
numbers that repeat or are missing (`reader` judges those).

Specification: docs/journal-format.md, "Reading".

Theory of operation: the scanner stands at an offset. There stands a record, or the zeros that fill up a commit's last
block, or the end, or something bad. At something bad it looks for the next record whose checksums hold. If there is one,
what lies between is reported as skipped; if there is none, everything from there on is a tail, which may still grow. Only
the bytes below the size that was read first are looked at, and the kernel shows those complete, so a record in the middle
of being written is a tail and never damage.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aftertone.errors import StateError
from aftertone.files import Files
from aftertone.journal.record import HEADER_BYTES, MAGIC, Record, RecordHeader, parse_header, parse_record
from aftertone.journal.segment import (
    BLOCK_BYTES,
    DATA_OFFSET,
    FORMAT_VERSION,
    SegmentHeader,
    SegmentName,
    parse_segment_header,
)

CHUNK_BYTES: Final = 1024 * 1024
"""Bytes read at once; a longer record is read whole, so a scanner holds at most a little more than 4 MiB."""


@dataclass(frozen=True, slots=True)
class Found:
    """A record and where it stands."""

    offset: int
    record: Record


@dataclass(frozen=True, slots=True)
class Skipped:
    """Bytes that are no record and no padding, with a record behind them."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Blocks that the disk would not give; they are taken for zeros."""

    offset: int
    why: str


class SegmentScanner:
    """Reads one segment from its start. Holds one descriptor until `close`. Raises OSError."""

    def __init__(self, files: Files, directory: Path, name: SegmentName, patience: int = 0) -> None:
        """Open the segment. ``patience``: so many times a read that the disk refuses is an OSError, to be tried again."""
        self.name = name
        self._patience = patience
        self.header: SegmentHeader | None = None
        self._files = files
        self._handle = files.open_read(directory / str(name))
        self._offset = DATA_OFFSET
        self._search_from = 0
        self._drained_size = -1
        self._window = b""
        self._window_start = 0
        self._unreadable: list[Unreadable] = []

    def close(self) -> None:
        """Give the descriptor back."""
        with contextlib.suppress(OSError):
            self._files.close(self._handle)

    def load_header(self) -> SegmentHeader | None:
        """Read the segment's header if it is there yet; None otherwise, or when both copies are bad."""
        if self.header is None:
            self.header = parse_segment_header(self._read(0, DATA_OFFSET), self.name)
        return self.header

    def has_data(self) -> bool:
        """Say whether the file is longer than a header."""
        return self._files.size(self._handle) > DATA_OFFSET

    def advance(self) -> Iterator[Found | Skipped | Unreadable]:
        """Yield what is new since the last call; costs one fstat when nothing is.

        Raises StateError without a header of this format. May be given up at any point: the next call goes on behind what was yielded.
        """
        if self.header is None or self.header.version != FORMAT_VERSION:
            raise StateError(f"segment {self.name} has no header of format {FORMAT_VERSION}: it cannot be read")
        size = self._files.size(self._handle)
        if size == self._drained_size:
            return
        while True:
            step = self._next(self.header.seed, size)
            yield from self._take_unreadable()
            if step is None:
                break
            yield step
        self._drained_size = size
        self._window = b""

    def _next(self, seed: int, size: int) -> Found | Skipped | None:
        while True:
            header, record = self._record_at(self._offset, seed, size)
            if record is not None:
                found = Found(self._offset, record)
                self._offset += HEADER_BYTES + len(record.payload)
                return found
            if header is not None:
                if self._offset + HEADER_BYTES + header.length > size:
                    return None
                return self._search(self._offset + HEADER_BYTES + header.length, seed, size)
            boundary = -(-self._offset // BLOCK_BYTES) * BLOCK_BYTES
            if boundary == self._offset or not self._is_zero(self._offset, min(boundary, size)):
                break
            if boundary > size:
                return None
            self._offset = boundary
        if size - self._offset < HEADER_BYTES:
            return None
        return self._search(self._offset + 1, seed, size)

    def _search(self, start: int, seed: int, size: int) -> Skipped | None:
        at = max(start, self._search_from)
        while at + HEADER_BYTES <= size:
            buffer, index = self._view(at, HEADER_BYTES, size)
            hit = buffer.find(MAGIC, index)
            if hit < 0:
                at = max(at + 1, self._window_start + len(buffer) - len(MAGIC) + 1)
                if at + len(MAGIC) > size:
                    break
                continue
            at = self._window_start + hit
            header, record = self._record_at(at, seed, size)
            if record is not None:
                skipped = Skipped(self._offset, at)
                self._offset = at
                return skipped
            if header is None:
                if at + HEADER_BYTES > size:
                    break
                at += 1
            elif at + HEADER_BYTES + header.length > size:
                break
            else:
                at += HEADER_BYTES + header.length
        self._search_from = at
        return None

    def _record_at(self, at: int, seed: int, size: int) -> tuple[RecordHeader | None, Record | None]:
        if at + HEADER_BYTES > size:
            return None, None
        buffer, index = self._view(at, HEADER_BYTES, size)
        header = parse_header(buffer, index, seed=seed, epoch=self.name.epoch)
        if header is None or at + HEADER_BYTES + header.length > size:
            return header, None
        buffer, index = self._view(at, HEADER_BYTES + header.length, size)
        start = index + HEADER_BYTES
        return header, parse_record(header, buffer[start : start + header.length])

    def _is_zero(self, start: int, end: int) -> bool:
        buffer, index = self._view(start, end - start, end)
        return buffer.count(0, index, index + end - start) == end - start

    def _view(self, at: int, length: int, size: int) -> tuple[bytes, int]:
        """Return a buffer that holds ``length`` bytes from ``at``, and the index of ``at`` in it."""
        index = at - self._window_start
        if index < 0 or index + length > len(self._window):
            self._window = self._read(at, min(max(length, CHUNK_BYTES), size - at))
            self._window_start = at
            index = 0
        return self._window, index

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return self._read_fully(offset, length)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            if self._patience > 0:
                self._patience -= 1
                raise
        # Part of it cannot be read. Take what can, block by block: one bad block must not hide its neighbours.
        pieces = []
        end = offset + length
        while offset < end:
            step = min(BLOCK_BYTES - offset % BLOCK_BYTES, end - offset)
            try:
                piece = self._read_fully(offset, step)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                self._unreadable.append(Unreadable(offset, str(error)))
                piece = bytes(step)
            pieces.append(piece)
            if len(piece) < step:
                break
            offset += step
        return b"".join(pieces)

    def _read_fully(self, offset: int, length: int) -> bytes:
        pieces = []
        while length > 0:
            try:
                piece = self._files.read(self._handle, offset, length)
            except InterruptedError:
                continue
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_unreadable(self) -> list[Unreadable]:
        taken, self._unreadable = self._unreadable, []
        return taken
