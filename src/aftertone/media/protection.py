"""Protection: the calls whose sound is encrypted, opened and sealed apart from the columns.

Owns: the SRTP state of each row that has one, and which rows these are. Refuses to know: how keys were agreed on, what is in a
packet.

Theory of operation: encrypted packets of a batch are found by one look at a column, opened one by one (`bench/srtp.py` says what
that costs), and written back in place: from there on they are rows like all others, and what was refused is a row of length 0. As
this comes before the latch, a packet that is not authentic neither latches a source nor counts as heard. With no
encrypted call, all of it costs a comparison a tick.

A peer that changes its key does so at a moment that we do not know. So the key before it stays good until the first packet
under the new one came: no word is lost to a change of keys.

What no key opens is counted for each row, and taken all the same where that is allowed and it is plainly not encrypted (`media.unopened`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftertone.media.unopened import Arrived, PlainEar, Unopened
from aftertone.model import MasterKey
from aftertone.rtp.srtp import SrtpReceiver, SrtpSender, is_rtcp


@dataclass(slots=True)
class _Row:
    sender: SrtpSender
    receiver: SrtpReceiver
    before: SrtpReceiver | None = None
    ear: PlainEar | None = None
    """Listens for plain sound where that would be taken, until something authentic came."""
    plain: bool = False
    unopened: int = 0

    def open(self, packet: bytes, arrival_ns: int = 0) -> bytes | None:
        if is_rtcp(packet):
            plain = self.receiver.open_rtcp(packet)
            return plain if plain is not None or self.before is None else self.before.open_rtcp(packet)
        plain = self._open(packet)
        if plain is not None:
            self.ear, self.plain = None, False
            return plain
        self.plain = self.plain or (self.ear is not None and self.ear.hear(packet, arrival_ns))
        if self.plain:
            return packet
        self.unopened += 1
        return None

    def take_held(self) -> list[Arrived]:
        if not self.plain or self.ear is None:
            return []
        held, self.ear = self.ear.held, None
        self.unopened = max(0, self.unopened - len(held))
        return held

    def _open(self, packet: bytes) -> bytes | None:
        plain = self.receiver.open(packet)
        if self.before is None:
            return plain
        if plain is None:
            return self.before.open(packet)
        self.before = None
        return plain


class Protection:
    """The encrypted rows of a table of ``capacity`` rows. Used from one thread."""

    __slots__ = ("_rows", "_secure", "_turned")

    def __init__(self, capacity: int) -> None:
        self._rows: dict[int, _Row] = {}
        self._secure = np.zeros(capacity, dtype=np.bool_)
        self._turned: list[tuple[int, bool, list[Arrived]]] = []

    @property
    def live(self) -> int:
        """How many rows are encrypted."""
        return len(self._rows)

    def agree(
        self, row: int, sending: MasterKey | None, receiving: MasterKey | None, *, plain_is_taken: bool = False
    ) -> None:
        """Protect ``row`` with these keys from now on, or no longer. A key that stays keeps its place in the stream.

        ``plain_is_taken``: plain sound of a peer that never sends anything else is better than none.
        """
        if sending is None or receiving is None:
            self.end(row)
            return
        current = self._rows.get(row)
        self._secure[row] = True
        if current is None:
            ear = PlainEar() if plain_is_taken else None
            self._rows[row] = _Row(SrtpSender(sending), SrtpReceiver(receiving), ear=ear)
            return
        if current.sender.master != sending:
            current.sender = SrtpSender(sending)
        if current.receiver.master != receiving:
            current.before, current.receiver = current.receiver, SrtpReceiver(receiving)

    def end(self, row: int) -> None:
        """Forget the keys of ``row``."""
        self._rows.pop(row, None)
        self._secure[row] = False

    def listen(self, row: int) -> None:
        """A recording begins on ``row``: count anew."""
        found = self._rows.get(row)
        if found is not None:
            found.unopened = 0

    def unopened(self, row: int) -> Unopened:
        """Return what came on ``row`` since ``listen`` and was not encrypted as agreed."""
        found = self._rows.get(row)
        return Unopened() if found is None else Unopened(found.unopened, found.plain)

    def take_turned(self) -> list[tuple[int, bool, list[Arrived]]]:
        """Return the rows whose sound turned out to be plain (True) or encrypted after all, since this was asked last.

        With those that are plain comes what was held back until that was sure.
        """
        found, self._turned = self._turned, []
        return found

    def open(
        self,
        owner: npt.NDArray[np.intp],
        arena: npt.NDArray[np.uint8],
        lengths: npt.NDArray[np.int32],
        arrived: npt.NDArray[np.int64] | None = None,
    ) -> int:
        """Open what came for encrypted rows: datagram i of the batch, ``lengths[i]`` bytes of ``arena[i]``, came to ``owner[i]``
        at ``arrived[i]``.

        Arena (contiguous) and lengths are changed in place. Returns how many were refused; their length is 0.
        """
        if not self._rows:
            return 0
        indices = np.flatnonzero(self._secure[owner])
        if not indices.size:
            return 0
        rows, view, width = self._rows, arena.data.cast("B"), arena.shape[1]
        opened = []
        refused = 0
        times = [0] * len(indices) if arrived is None else arrived[indices].tolist()
        columns = (indices.tolist(), owner[indices].tolist(), lengths[indices].tolist(), times)
        for index, row, length, arrival_ns in zip(*columns, strict=True):
            start, found = index * width, rows[row]
            was_plain = found.plain
            plain = found.open(bytes(view[start : start + length]), arrival_ns)
            if found.plain is not was_plain:
                self._turned.append((row, found.plain, found.take_held()))
            if plain is None:
                refused += 1
                opened.append(0)
            else:
                view[start : start + len(plain)] = plain
                opened.append(len(plain))
        lengths[indices] = opened
        return refused

    def protect(self, rows: npt.NDArray[np.intp], arena: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int32]) -> None:
        """Protect what encrypted rows are about to send: packet i is ``lengths[i]`` bytes of ``arena[i]``; changed in place."""
        if not self._rows:
            return
        indices = np.flatnonzero(self._secure[rows])
        if not indices.size:
            return
        view, width = arena.data.cast("B"), arena.shape[1]
        lengthened = []
        columns = (indices.tolist(), rows[indices].tolist(), lengths[indices].tolist())
        for index, row, length in zip(*columns, strict=True):
            start = index * width
            sealed = self._rows[row].sender.protect(bytes(view[start : start + length]))
            view[start : start + len(sealed)] = sealed
            lengthened.append(len(sealed))
        lengths[indices] = lengthened

    def open_report(self, row: int, datagram: bytes) -> bytes | None:
        """Return the RTCP in a datagram that came to ``row`` on a port of its own; None when it is refused."""
        found = self._rows.get(row)
        if found is None:
            return datagram
        return found.open(datagram) if is_rtcp(datagram) else None

    def protect_report(self, row: int, datagram: bytes) -> bytes:
        """Return the RTCP that ``row`` sends as it goes over the wire."""
        found = self._rows.get(row)
        return datagram if found is None else found.sender.protect_rtcp(datagram)
