"""The reserve: room on the disk that is kept for calls in progress.

Owns: the file ``reserve`` in the journal's folder, and how it becomes a segment. Refuses to know: records, and when a disk
counts as full.

Specification: docs/journal-format.md, "The reserve".

Theory of operation: an empty file that holds blocks (FALLOC_FL_KEEP_SIZE). When the disk is full the blocks are not given
back to it: whoever filled it would take them in the same moment, and btrfs would free them only later. The file is renamed
instead: it becomes the next segment and brings its blocks along. It is made again when there is room for it above what must
stay free. A disk on which no room can be kept (it knows no fallocate, or only says that it does) has no reserve; `why` says so.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Final

from aftertone.files import Files, sync
from aftertone.journal.output import SegmentOutput
from aftertone.journal.segment import SegmentHeader

RESERVE_NAME: Final = "reserve"
SLACK_BYTES: Final = 1024 * 1024
"""File systems round up, and some count their own bookkeeping; a reserve larger than that belongs to another setting."""
RETRY_NS: Final = 60_000_000_000
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NEVER: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def says_full(error: BaseException) -> bool:
    """Tell whether an error means that there is no room: on the disk, in a quota, for another file."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


class Reserve:
    """The reserve of one journal folder. One thread at a time; `held_bytes` and `why` may be read from any."""

    def __init__(self, files: Files, directory: Path, wanted_bytes: int) -> None:
        """``wanted_bytes`` 0: no reserve, and one that is there goes."""
        self.held_bytes = 0
        """Bytes of disk that it held when it was last looked at."""
        self.why = ""
        """Why it does not hold what it should, empty when it does."""
        self._files = files
        self._path = directory / RESERVE_NAME
        self._wanted_bytes = wanted_bytes
        self._never = False
        self._retry_ns = 0

    def look(self) -> int:
        """Return how many bytes of disk it holds now. Never raises OSError: what cannot be seen cannot be used."""
        try:
            self.held_bytes = self._files.allocated_bytes(self._path) if self._wanted_bytes else 0
        except OSError:
            self.held_bytes = 0
        return self.held_bytes

    def tend(self, keep_free_bytes: int, now_ns: int) -> None:
        """Make it if it is missing or has another size, unless fewer than ``keep_free_bytes`` would stay free.

        Durable on return when `held_bytes` says that it is there. Never raises OSError; what went wrong is in `why`, and is
        tried again a minute later, or never on a disk that cannot do it.
        """
        held, wanted = self.look(), self._wanted_bytes
        if self._never or now_ns < self._retry_ns:
            return
        if not wanted:
            # It was wanted once: whatever holds room now holds it for nothing.
            self._give_up("", now_ns, never=True)
            return
        if wanted <= held <= wanted + SLACK_BYTES:
            self.why = ""
            return
        try:
            if self._files.free_bytes(self._path.parent) + held - wanted < keep_free_bytes:
                if not held:
                    self.why = self.why or "too little room is free to keep any in reserve"
                return
            self._make()
            self.why = ""
        except OSError as error:
            self._give_up(str(error), now_ns, never=error.errno in _NEVER)
        else:
            if self.look() < wanted:
                self._give_up("this file system keeps no blocks for a file that is empty", now_ns, never=True)

    def _make(self) -> None:
        self._remove()
        handle = self._files.open_new(self._path)
        try:
            self._files.preallocate(handle, self._wanted_bytes)
            sync(self._files, handle)
        finally:
            self._files.close(handle)
        self._files.sync_directory(self._path.parent)

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(self._path)

    def _give_up(self, why: str, now_ns: int, *, never: bool) -> None:
        self.why = why
        self._never = never
        self._retry_ns = now_ns + RETRY_NS
        with contextlib.suppress(OSError):
            self._remove()
        self.look()

    def become(self, header: SegmentHeader) -> SegmentOutput | None:
        """Give it the name of ``header``'s segment, which is not durable yet; None when there is none.

        Raises OSError, and then it is what it was; FileExistsError when that name is taken.
        """
        if not self.look():
            return None
        segment = SegmentOutput.adopt(self._files, self._path, header)
        self.held_bytes = 0
        self.why = "it was used up on a full disk"
        return segment
