"""One segment being written: made, filled in whole commits, given up.

Owns: the order of the calls that make a segment and its records durable. Refuses to know: which records, when, and what to do
after an error: it raises the OSError.

Theory of operation: the name of a segment is durable before its header, and the header before the first record. So a
reader never sees a record in a file that a power cut could take away by its name, a segment without a header holds
nothing, and an epoch that anybody has seen a record of is never used again.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from pathlib import Path

from aftertone.files import Files, sync, write_all
from aftertone.journal.segment import BLOCK_BYTES, DATA_OFFSET, SegmentHeader, pack_segment_header


class SegmentOutput:
    """An open segment. After any OSError from it, call `abandon` and never write to it again."""

    def __init__(self, files: Files, path: Path, header: SegmentHeader, handle: int) -> None:
        self._files = files
        self._handle = handle
        self.path = path
        self.header = header
        self.size_bytes = 0
        self.limit_bytes = 0
        """Where the next segment is to begin; a single longer record is written all the same."""
        self.acknowledged = 0
        """Commits that were durable in this segment."""

    @staticmethod
    def create(files: Files, directory: Path, header: SegmentHeader) -> SegmentOutput:
        """Make the file; `settle` comes next. Raises FileExistsError when the name is taken; on an error there is no file."""
        path = directory / str(header.name)
        return SegmentOutput(files, path, header, files.open_new(path))

    @staticmethod
    def adopt(files: Files, source: Path, header: SegmentHeader) -> SegmentOutput:
        """Give an empty file of the same folder, with the blocks that it holds, the name of a segment.

        `settle` comes next. Raises FileExistsError when the name is taken, OSError otherwise, also when the file is not
        empty. On an error no descriptor is left open and the file has its old name.
        """
        name, directory = str(header.name), source.parent
        path = directory / name
        handle = files.open_existing(source)
        try:
            if files.size(handle):
                raise OSError(errno.EINVAL, "somebody wrote into it", str(source))
            # A rename replaces; nothing of ours has that name, and what is not ours is not ours to replace.
            if name in files.list_directory(directory):
                raise FileExistsError(errno.EEXIST, "the segment exists already", str(path))
            files.rename(source, path)
        except BaseException:
            with contextlib.suppress(OSError):
                files.close(handle)
            raise
        return SegmentOutput(files, path, header, handle)

    def settle(self) -> None:
        """Make the name durable; `prepare` comes next."""
        self._files.sync_directory(self.path.parent)

    def prepare(self, segment_bytes: int) -> None:
        """Reserve blocks where the file system can, write the header and make it durable."""
        self.limit_bytes = segment_bytes
        with contextlib.suppress(OSError):  # reserving is a favour: what the writes say is what counts
            self._files.preallocate(self._handle, segment_bytes)
        self.size_bytes += write_all(self._files, self._handle, [pack_segment_header(self.header)])
        self.sync()

    def write(self, buffers: Sequence[bytes]) -> None:
        """Append buffers, padded with zeros to a whole block. Durable only after `sync`."""
        padding = -sum(map(len, buffers)) % BLOCK_BYTES
        self.size_bytes += write_all(self._files, self._handle, [*buffers, bytes(padding)])

    def sync(self) -> None:
        """Return when everything written is durable."""
        sync(self._files, self._handle)

    def abandon(self) -> None:
        """Close the file as it is. An error from close changes nothing: what was acknowledged was synced before."""
        with contextlib.suppress(OSError):
            self._files.close(self._handle)

    @property
    def is_empty(self) -> bool:
        """True while only the header has been written."""
        return self.size_bytes <= DATA_OFFSET
