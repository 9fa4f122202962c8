"""The table of calls: one row a call, one array a fact.

Owns: the columns and what a fresh row holds. Refuses to know: how a tick moves them on.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

import numpy as np

from aftertone.media.protection import Protection
from aftertone.media.sockets import NAME_BYTES
from aftertone.model import CLOCK_RATE_HZ, Codec, MasterKey

CODECS: Final = (Codec.PCMU, Codec.PCMA, Codec.G722, Codec.OPUS)
"""Position in this tuple is a codec's number in the table."""


@dataclass(frozen=True, slots=True)
class Stream:
    """How one call's sound travels, as the descriptions agreed."""

    codec: Codec
    payload_type: int
    accepted: tuple[int, ...]
    """Every payload type that may arrive, telephone-event and comfort noise included."""
    telephone_event: int | None = None
    comfort_noise: int | None = None
    remote: tuple[str, int] | None = None
    """Where the peer says it wants to hear us; None while it does not (hold)."""
    ptime_ms: int = 20
    """Sound in each packet that the peer wants, 10 to 60; of Opus any length will do."""
    sending: MasterKey | None = None
    receiving: MasterKey | None = None
    """What the stream is protected with; both None when it is not encrypted."""
    remote_rtcp: tuple[str, int] | None = None
    """Where the peer wants reports, also on hold; None when it does not say."""
    rtcp_mux: bool = False
    """Reports travel on the port of the sound (RFC 5761)."""
    plain_is_taken: bool = False
    """Should the peer not encrypt after all, its plain sound is taken: nobody required keys."""


class Table:
    """Columns over ``capacity`` rows. Arrays are written by the plane alone."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.active = np.zeros(capacity, dtype=np.bool_)
        self.codec = np.zeros(capacity, dtype=np.uint8)
        self.payload_type = np.zeros(capacity, dtype=np.uint8)
        self.event_type = np.full(capacity, -1, dtype=np.int16)
        self.noise_type = np.full(capacity, -1, dtype=np.int16)
        self.accepts = np.zeros((capacity, 128), dtype=np.bool_)
        self.recording = np.zeros(capacity, dtype=np.bool_)
        self.journal_call = np.zeros(capacity, dtype=np.uint32)
        self.recording_since_ns = np.zeros(capacity, dtype=np.int64)
        self.told = np.zeros(capacity, dtype=np.bool_)
        self.held = np.zeros(capacity, dtype=np.bool_)
        self.resumed_ns = np.zeros(capacity, dtype=np.int64)
        self.ptime_ms = np.full(capacity, 20, dtype=np.int64)
        self.frame = np.zeros(capacity, dtype=np.int32)
        self.frames = np.zeros(capacity, dtype=np.int32)
        self.frame_ns = np.full(capacity, 20_000_000, dtype=np.int64)
        self.playing = np.zeros(capacity, dtype=np.bool_)
        self.due_ns = np.zeros(capacity, dtype=np.int64)
        self.marker = np.zeros(capacity, dtype=np.bool_)
        self.sequence = np.zeros(capacity, dtype=np.uint16)
        self.timestamp = np.zeros(capacity, dtype=np.uint32)
        self.sent_ns = np.zeros(capacity, dtype=np.int64)
        self.sent_packets = np.zeros(capacity, dtype=np.int64)
        self.sent_octets = np.zeros(capacity, dtype=np.int64)
        self.ssrc = np.zeros(capacity, dtype=np.uint32)
        self.remote_name = np.zeros((capacity, NAME_BYTES), dtype=np.uint8)
        self.remote_length = np.zeros(capacity, dtype=np.int32)
        self.sockets: list[socket.socket | None] = [None] * capacity
        self.clips: list[tuple[bytes, ...]] = [()] * capacity
        self.protection = Protection(capacity)

    def begin(self, row: int, sock: socket.socket, *, sequence: int, timestamp: int, ssrc: int) -> None:
        """Make ``row`` a fresh call, which accepts nothing before ``agree``."""
        self.sockets[row] = sock
        self.clips[row] = ()
        for column in (
            self.recording,
            self.playing,
            self.told,
            self.held,
            self.resumed_ns,
            self.journal_call,
            self.recording_since_ns,
            self.sent_packets,
            self.sent_octets,
        ):
            column[row] = 0
        self.due_ns[row] = self.sent_ns[row] = 0
        self.sequence[row], self.timestamp[row], self.ssrc[row] = sequence, timestamp, ssrc
        self.remote_length[row] = 0
        self.accepts[row] = False
        self.active[row] = True

    def agree(self, row: int, stream: Stream) -> None:
        """Take over what was agreed, at the start or by a new offer; the place in our own stream is kept."""
        self.codec[row] = CODECS.index(stream.codec)
        self.payload_type[row] = stream.payload_type
        self.ptime_ms[row] = stream.ptime_ms
        self.event_type[row] = -1 if stream.telephone_event is None else stream.telephone_event
        self.noise_type[row] = -1 if stream.comfort_noise is None else stream.comfort_noise
        self.accepts[row] = False
        self.accepts[row, list(stream.accepted)] = True
        self.protection.agree(row, stream.sending, stream.receiving, plain_is_taken=stream.plain_is_taken)

    def end(self, row: int) -> socket.socket | None:
        """Free ``row``; returns its socket for the owner to close."""
        self.active[row] = self.recording[row] = self.playing[row] = False
        self.clips[row] = ()
        self.protection.end(row)
        sock, self.sockets[row] = self.sockets[row], None
        return sock


def clock_rate_hz(number: int) -> int:
    """Return the RTP clock of the codec with this number in the table."""
    return CLOCK_RATE_HZ[CODECS[number]]
