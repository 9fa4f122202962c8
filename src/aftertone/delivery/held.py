"""What delivery keeps in memory of a call whose end it has not seen.

Owns: the compact form of a call's packets, and putting them into a file when memory is short. Refuses to know: what becomes
of them.

Theory of operation: a packet takes 22 bytes besides its payload, in two byte arrays per call, so ten minutes of G.711 or Opus
take less than 6 MB. Beyond a budget for all calls together the largest are moved to a spill file each, appended in pieces.
Spill files are a copy of what the journal still holds: never synced, and thrown away at start.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from aftertone.errors import DamagedError
from aftertone.journal import Begin, End, Event, PacketBatch, SegmentName

CallKey = tuple[int, int]
"""Epoch of the journal and number of the call in it."""

EVENTS_KEPT: Final = 2_000
"""Keys and changes of one call; nobody presses more in a message."""

_ROW: Final = np.dtype(
    [
        ("arrival_ns", "<i8"),
        ("timestamp", "<u4"),
        ("ssrc", "<u4"),
        ("sequence", "<u2"),
        ("length", "<u2"),
        ("payload_type", "u1"),
        ("marker", "u1"),
    ]
)
_PIECE: Final = struct.Struct("<II")


class HeldPackets:
    """The packets of one call, in order of arrival."""

    def __init__(self) -> None:
        self._rows = bytearray()
        self._payloads = bytearray()
        self._spilled: Path | None = None

    def __len__(self) -> int:
        """Return the bytes of memory taken."""
        return len(self._rows) + len(self._payloads)

    def append(self, batch: PacketBatch) -> int:
        """Take packets in; return how many bytes they take."""
        rows = np.empty(len(batch), _ROW)
        for name in _ROW.names or ():
            rows[name] = getattr(batch, name)
        self._rows += rows.tobytes()
        self._payloads += batch.payloads
        return rows.nbytes + len(batch.payloads)

    def spill(self, path: Path) -> None:
        """Move what is in memory to the end of ``path``; memory keeps it when that fails. Raises OSError."""
        size = path.stat().st_size if self._spilled is not None else 0
        try:
            with path.open("ab" if size else "wb") as file:
                file.write(_PIECE.pack(len(self._rows), len(self._payloads)))
                file.write(self._rows)
                file.write(self._payloads)
        except OSError:
            with suppress(OSError), path.open("ab") as file:
                file.truncate(size)
            raise
        self._spilled = path
        self._rows, self._payloads = bytearray(), bytearray()

    def load(self, call: int) -> PacketBatch:
        """Return all packets as one batch. Raises OSError when a spill file cannot be read, DamagedError."""
        rows, payloads = bytearray(), bytearray()
        if self._spilled is not None:
            data = memoryview(self._spilled.read_bytes())
            while data:
                if len(data) < _PIECE.size or len(data) < _PIECE.size + sum(_PIECE.unpack_from(data)):
                    raise DamagedError(f"{self._spilled} was cut short; start delivery again")
                row_bytes, payload_bytes = _PIECE.unpack_from(data)
                data = data[_PIECE.size :]
                rows += data[:row_bytes]
                payloads += data[row_bytes : row_bytes + payload_bytes]
                data = data[row_bytes + payload_bytes :]
        table = np.frombuffer(bytes(rows + self._rows), _ROW)
        columns: dict[str, Any] = {name: np.ascontiguousarray(table[name]) for name in _ROW.names or ()}
        return PacketBatch(
            call=np.full(len(table), call, np.uint32), payloads=bytes(payloads + self._payloads), **columns
        )

    def discard(self) -> None:
        """Give memory and the spill file back."""
        self._rows, self._payloads = bytearray(), bytearray()
        if self._spilled is not None:
            self._spilled.unlink(missing_ok=True)
            self._spilled = None


@dataclass(slots=True, eq=False)
class HeldCall:
    """One recording between its first record and its delivery."""

    key: CallKey
    after_damage: bool
    """True when something acknowledged was lost in this epoch before the first record of this call."""
    begin: Begin | None = None
    end: End | None = None
    end_segment: SegmentName | None = None
    cut_off: bool = False
    """True when its epoch is closed and no end came."""
    damaged: bool = False
    """True when something acknowledged was lost while the call was open."""
    packets: HeldPackets = field(default_factory=HeldPackets)
    events: list[Event] = field(default_factory=list)
    failures: int = 0
    retry_ns: int = 0
    failure: str = ""
