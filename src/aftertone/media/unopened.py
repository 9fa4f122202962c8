"""Sound of an encrypted call that no key opens: how much there is, and whether it is not encrypted at all.

Owns: the figures, and telling plain packets from encrypted ones. Refuses to know: keys, and what is done about it.

Theory of operation: a peer that agreed on keys and then sends plain sound, or sound under another key, would leave an empty recording.
What came is counted, so that the message can say so. Where encryption was only taken because it was offered (`sip.srtp` is
"optional"), plain sound is taken all the same once ``CONVINCING`` packets in a row were plain and none was authentic before: a message is worth
more than a promise that its sender does not keep. The header of an encrypted packet is as readable as that of a plain one, so the
payload tells: an authentication tag of 4, 10 or 16 bytes makes the length of G.711 or G.722 no multiple of five milliseconds, and
an encrypted Opus packet begins with another byte each time. Those that convinced are held back meanwhile, so that none is lost. Whoever wanted to slip sound in would have to come before the
first authentic packet of a call whose sender sends none, and the message says that it was not encrypted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONVINCING: Final = 25
"""Half a second of 20 ms: by then the greeting is being played, and an authentic packet would have come."""
_SHORTEST: Final = 10
"""Shorter payloads are keys, comfort noise or pauses, and say nothing."""
_STEP: Final = 40
"""Bytes of 5 ms of G.711 or G.722."""
_FIRST_DYNAMIC: Final = 96


Arrived = tuple[bytes, int]
"""A datagram, and when it came, in monotonic nanoseconds."""


@dataclass(frozen=True, slots=True)
class Unopened:
    """What came of one recording's sound that no key opened."""

    packets: int = 0
    plain: bool = False
    """It was not encrypted, and is in the recording."""


class PlainEar:
    """Hears the packets of one call that no key opens, in order, until it is sure that they are plain."""

    __slots__ = ("_last", "held")

    def __init__(self) -> None:
        self._last: tuple[bytes, int, int] | None = None
        self.held: list[Arrived] = []
        """The packets that may be plain, fewer than ``CONVINCING``."""

    def hear(self, packet: bytes, arrival_ns: int = 0) -> bool:
        """Take one in; True when it is sure, and then it is not held. Never raises, whatever the bytes."""
        if len(packet) < 12 or packet[0] & 0xF0 != 0x80:
            self.held = []
            return False
        kind, payload = packet[1] & 0x7F, packet[12 + 4 * (packet[0] & 0x0F) :]
        if len(payload) < _SHORTEST:
            return False
        # The first byte of an Opus packet says how it is coded, which seldom changes.
        sign = (packet[8:12], kind, payload[0] if kind >= _FIRST_DYNAMIC else 0)
        if kind < _FIRST_DYNAMIC and len(payload) % _STEP:
            self.held = []
            return False
        if sign != self._last:
            self.held, self._last = [], sign
        if len(self.held) >= CONVINCING - 1:
            return True
        self.held.append((packet, arrival_ns))
        return False
