"""One segment being written: made, filled in whole commits, given up.

Owns: the order of the calls that make a segment and its records durable, and the loop over short and interrupted writes.
Refuses to know: which records, when, and what to do after an error: it raises the OSError.

Theory of operation: the name of a segment is durable before its header, and the header before the first record. So a
reader never sees a record in a file that a power cut could take away by its name, a segment without a header holds
nothing, and an epoch that anybody has seen a record of is never used again.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from aftertone.journal.files import IOV_MAX, Buffer, Files
from aftertone.journal.segment import BLOCK_BYTES, DATA_OFFSET, SegmentHeader, pack_segment_header

_T = TypeVar("_T")

_INTERRUPTIONS: Final = 1000
"""Signals in a row that one call survives; more are an error and not an endless loop."""


class SegmentOutput:
    """An open segment. After any OSError from it, call `abandon` and never write to it again."""

    def __init__(self, files: Files, path: Path, header: SegmentHeader, handle: int) -> None:
        self._files = files
        self._handle = handle
        self.path = path
        self.header = header
        self.size_bytes = 0
        self.acknowledged = 0
        """Commits that were durable in this segment."""

    @staticmethod
    def create(files: Files, directory: Path, header: SegmentHeader) -> SegmentOutput:
        """Make the file and its name durable; `prepare` comes next. On an error no descriptor is left open."""
        path = directory / str(header.name)
        handle = files.open_new(path)
        try:
            files.sync_directory(directory)
        except BaseException:
            with contextlib.suppress(OSError):
                files.close(handle)
            raise
        return SegmentOutput(files, path, header, handle)

    def prepare(self, segment_bytes: int) -> None:
        """Reserve blocks where the file system can, write the header and make it durable."""
        with contextlib.suppress(OSError):  # reserving is a favour: what the writes say is what counts
            self._files.preallocate(self._handle, segment_bytes)
        self._write_all([pack_segment_header(self.header)])
        self.sync()

    def write(self, buffers: Sequence[bytes]) -> None:
        """Append buffers, padded with zeros to a whole block. Durable only after `sync`."""
        padding = -sum(map(len, buffers)) % BLOCK_BYTES
        self._write_all([*buffers, bytes(padding)])

    def sync(self) -> None:
        """Return when everything written is durable."""
        _uninterrupted(partial(self._files.fdatasync, self._handle))

    def abandon(self) -> None:
        """Close the file as it is. An error from close changes nothing: what was acknowledged was synced before."""
        with contextlib.suppress(OSError):
            self._files.close(self._handle)

    def _write_all(self, buffers: Sequence[bytes]) -> None:
        left: list[Buffer] = [buffer for buffer in buffers if buffer]
        first = 0
        while first < len(left):
            written = _uninterrupted(partial(self._files.write, self._handle, left[first : first + IOV_MAX]))
            if written <= 0:
                raise OSError(errno.EIO, "the kernel accepted none of the bytes", str(self.path))
            self.size_bytes += written
            while first < len(left) and written >= len(left[first]):
                written -= len(left[first])
                first += 1
            if written:
                left[first] = memoryview(left[first])[written:]

    @property
    def is_empty(self) -> bool:
        """True while only the header has been written."""
        return self.size_bytes <= DATA_OFFSET


def _uninterrupted(call: Callable[[], _T]) -> _T:
    for _ in range(_INTERRUPTIONS):
        try:
            return call()
        except InterruptedError:  # python retries most of them itself (PEP 475); a wrapped `Files` may not
            continue
    raise OSError(errno.EIO, "interrupted without end")
