"""Which source of packets belongs to which call.

Owns: the address that each call listens to. Refuses to know: sockets, and what is in the packets beyond that they are RTP.

Theory of operation: behind a NAT the address in a session description is often not the one that packets come from, so the
machine answers to where they do come from (symmetric RTP, RFC 4961), and then stays there: a stranger who sends to the
port of a running call neither ends up in its recording nor turns its sound away. Calls are rows of columns; a call is

- waiting: the packets of any source are let in, so that nothing of the first words is lost. A packet from the address
  in the session description locks at once; another source locks with ``PROBATION_PACKETS`` in a row;
- locked: only that source is let in, whatever its SSRC (which may change). Others are strangers, refused and counted.

Only signalling opens a lock again: ``signal`` with another address (a re-INVITE that moved the media) or ``open``.

An address is whatever 64 bit key the caller makes of host and port; 0 means none.

Spec: RFC 4961; RFC 3550 appendix A.1 (probation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

NO_ADDRESS: Final = 0
PROBATION_PACKETS: Final = 3
"""Packets in a row that make a source unknown to the signalling the stream of a call: 60 ms, too many for one who only
sprays ports, and over before the greeting has begun."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of a batch."""

    accepted: npt.NDArray[np.bool_]
    """Packets that belong to their call; the others came from strangers."""
    locked: npt.NDArray[np.intp]
    """Rows of the batch whose packet locked its call just now, each call at most once."""


class SourceLatch:
    """The columns of ``calls`` calls, all waiting without a signalled address at first. Used from one thread."""

    __slots__ = ("_candidate", "_seen", "address", "signalled", "strangers")

    def __init__(self, calls: int) -> None:
        self.address = np.zeros(calls, dtype=np.uint64)
        """Key of the address that each call is locked to; 0 while waiting."""
        self.signalled = np.zeros(calls, dtype=np.uint64)
        """Key of the address in the session description; 0 when it names none."""
        self.strangers = np.zeros(calls, dtype=np.int64)
        """Packets refused since ``open``."""
        self._candidate = np.zeros(calls, dtype=np.uint64)
        self._seen = np.zeros(calls, dtype=np.int64)

    def open(self, call: int, signalled: int = NO_ADDRESS) -> None:
        """Begin a call in row ``call``: waiting, nothing counted."""
        self.strangers[call] = 0
        self._wait(call, signalled)

    def signal(self, call: int, signalled: int) -> bool:
        """Tell of the address in a later description. Return True when it is another one, and the call waits again."""
        if int(self.signalled[call]) == signalled:
            return False
        self._wait(call, signalled)
        return True

    def _wait(self, call: int, signalled: int) -> None:
        self.address[call] = NO_ADDRESS
        self.signalled[call] = signalled
        self._candidate[call] = NO_ADDRESS
        self._seen[call] = 0

    def expected(self, call: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        """Return the address that each call is locked to, or while it waits the one that was signalled."""
        locked = self.address[call]
        return np.where(locked != NO_ADDRESS, locked, self.signalled[call])

    def admit(self, call: npt.NDArray[np.integer], source: npt.NDArray[np.uint64]) -> Admission:
        """Judge a batch in order of arrival: packet i, valid RTP, came to call row ``call[i]`` from key ``source[i]``.

        The packets of locked calls are judged together; those of waiting calls (the first three of each call) one by one.
        """
        accepted = (self.address[call] == source) & (source != NO_ADDRESS)
        locked: list[int] = []
        if not accepted.all():
            for row in np.flatnonzero(self.address[call] == NO_ADDRESS).tolist():
                accepted[row], locks = self._first_packet(int(call[row]), int(source[row]))
                if locks:
                    locked.append(row)
            strange = call[~accepted]
            if len(strange):
                np.add.at(self.strangers, strange, 1)
        return Admission(accepted, np.array(locked, dtype=np.intp))

    def _first_packet(self, call: int, source: int) -> tuple[bool, bool]:
        """Judge a packet of a call that was waiting when the batch began: whether it is let in, and whether it locks."""
        current = int(self.address[call])
        if source == NO_ADDRESS:
            return False, False
        if current != NO_ADDRESS:
            return current == source, False
        in_a_row = int(self._seen[call]) + 1 if int(self._candidate[call]) == source else 1
        self._candidate[call] = source
        self._seen[call] = in_a_row
        if source == int(self.signalled[call]) or in_a_row >= PROBATION_PACKETS:
            self.address[call] = source
            return True, True
        return True, False
