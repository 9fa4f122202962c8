"""The floor under the clock: what the journal of earlier runs says about the time.

Owns: finding it in the newest segments. Refuses to know: what a clock is, and what is done with the floor.

Specification: docs/journal-format.md, "The floor under the clock".

Theory of operation: a machine may start with a clock that stands at 1970. What it wrote before says that it is later: each
segment's header holds the floor of the moment at which it was made, and the records behind it go on from there. The newest
segment is never removed, so the floor needs no file of its own and no database. A header that says nothing (a torn one, or
one of a time before headers had the field) sends the reader to the segment before. This is good to have and no reason to
fail: what cannot be read counts as not known.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from aftertone.errors import DamagedError
from aftertone.files import Files
from aftertone.journal.entry import unpack
from aftertone.journal.record import Begin, End, Kind, Record, Refused
from aftertone.journal.scan import Found, SegmentScanner
from aftertone.journal.segment import FORMAT_VERSION, NO_FLOOR, Floor, SegmentHeader, SegmentName
from aftertone.model import id_time_ms

SEGMENTS_READ: Final = 2
"""Segments with records that are read at most: some 32 MiB, so that a start never waits for a long journal."""
HEADERS_READ: Final = 64
"""Segments that are looked at at most; beyond so many empty ones without a floor nothing better is to be expected."""

_TIMED: Final = frozenset({Kind.BEGIN, Kind.END, Kind.REFUSED})


def read_floor(files: Files, directory: Path, listed: list[str] | None = None) -> Floor:
    """Return the floor that the newest segments of a journal folder give, zeros where they give none.

    ``listed`` holds the names in the folder where they are known already. Reads one segment, or `SEGMENTS_READ` when the newest header does not say what was before. Never raises OSError.
    """
    if listed is None:
        try:
            listed = files.list_directory(directory)
        except OSError:
            return NO_FLOOR
    names = sorted(name for name in map(SegmentName.parse, listed) if name is not None)
    floor, read = NO_FLOOR, 0
    for name in names[: -HEADERS_READ - 1 : -1]:
        with contextlib.suppress(OSError):
            before, within, has_data = _floor_of(files, directory, name, names)
            floor = _join(_join(before, within), floor)
            read += has_data
            if before.id_ms or read == SEGMENTS_READ:
                break
    return floor


def _join(earlier: Floor, later: Floor) -> Floor:
    return Floor(max(earlier.id_ms, later.id_ms), later.clock_ms or earlier.clock_ms)


def _floor_of(files: Files, directory: Path, name: SegmentName, names: list[SegmentName]) -> tuple[Floor, Floor, bool]:
    """Return what a segment's header says of the time before it, what its records add, and whether it has any."""
    scanner = SegmentScanner(files, directory, name)
    try:
        header, has_data = scanner.load_header(), scanner.has_data()
        if header is None and has_data:
            header = scanner.header = _borrowed(files, directory, name, names)
        if header is None or header.version != FORMAT_VERSION:
            return NO_FLOOR, NO_FLOOR, False
        within = NO_FLOOR
        for item in scanner.advance():
            if isinstance(item, Found) and item.record.kind in _TIMED:
                within = _join(within, _floor_in(item.record))
        return header.floor, within, has_data
    finally:
        scanner.close()


def _borrowed(files: Files, directory: Path, name: SegmentName, names: list[SegmentName]) -> SegmentHeader | None:
    """Return a header for a segment whose own is damaged: the boot id is that of any other segment of the epoch."""
    for other in names:
        if other.epoch == name.epoch and other != name:
            neighbour = SegmentScanner(files, directory, other)
            try:
                header = neighbour.load_header()
            finally:
                neighbour.close()
            if header is not None and header.version == FORMAT_VERSION:
                return SegmentHeader(name, header.boot_id, 0)
    return None


def _floor_in(record: Record) -> Floor:
    try:
        match unpack(record):
            case Begin(message_id=message_id, unix_ms=unix_ms):
                return Floor(id_time_ms(message_id), max(0, unix_ms))
            case Refused(id=refusal_id, at_unix_ms=unix_ms):
                return Floor(id_time_ms(refusal_id), max(0, unix_ms))
            case End(unix_ms=unix_ms):
                return Floor(0, max(0, unix_ms))
    except DamagedError:
        return NO_FLOOR
    return NO_FLOOR
