"""Playing: due frames of all calls become datagrams, the path of silent calls is kept open.

Owns: our own RTP streams: sequence, timestamp, marker, pace. Refuses to know: what is played and why.

Specification: RFC 3550 section 5.1 (header), RFC 3551 section 4.1 (marker at the start of a talkspurt), RFC 6263
(keepalive), RFC 3389 (comfort noise).

Theory of operation: at each tick the rows whose frame is due are found with one comparison; their headers are written as
columns of the send arena, their payloads copied beside, and each socket is given its rows in one call. A clip has frames of
10 to 60 ms, as its call's peer wants them; a tick sends all that fall due until it, so frames of 30 ms leave after 20 and 40 ms in
turn. A tick that comes late sends the frames that were missed, those of ``CATCH_UP_NS`` at most; beyond that the clip resumes
where it is, because a burst only overflows the peer's jitter buffer. A call that plays nothing sends one frame of comfort noise, or of silence where
that was not agreed, each ``KEEPALIVE_NS``: enough for NATs and for peers that hang up on a dead stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from aftertone.media.sockets import Sender
from aftertone.media.table import CODECS, Table, clock_rate_hz
from aftertone.model import Codec
from aftertone.rtp.batch import HEADER_BYTES
from aftertone.rtp.packet import write_headers

MS: Final = 1_000_000
FRAME_MS: Final = 20
CATCH_UP_NS: Final = 60_000_000
AT_NEXT_TICK: Final = -1
KEEPALIVE_NS: Final = 3_000_000_000
COMFORT_NOISE: Final = b"\x46"
"""Noise at -70 dBov and no spectrum: there is somebody, and it is quiet (RFC 3389 section 3)."""

Rows = npt.NDArray[np.intp]


class Player:
    """Sends for a table. ``silence`` holds one 20 ms frame of silence for each codec."""

    def __init__(self, table: Table, silence: Mapping[Codec, bytes]) -> None:
        self._table = table
        self._sender = Sender(table.capacity)
        self._silence = [silence[codec] for codec in CODECS]
        self._clock_hz = np.array([clock_rate_hz(n) for n in range(len(CODECS))], dtype=np.int64)
        self.sent_packets = 0

    def play(self, row: int, frames: tuple[bytes, ...], frame_ms: int = FRAME_MS) -> None:
        """Start ``frames`` of ``frame_ms`` each on ``row`` at the next tick, in place of what plays there."""
        table = self._table
        table.clips[row] = frames
        table.frame[row], table.frames[row] = 0, len(frames)
        table.frame_ns[row] = frame_ms * MS
        table.playing[row] = True
        table.marker[row] = True
        table.due_ns[row] = AT_NEXT_TICK

    def stop(self, row: int) -> None:
        """Stop what plays on ``row``; nothing is reported for it."""
        self._table.playing[row] = False
        self._table.clips[row] = ()

    def tick(self, now_ns: int) -> list[int]:
        """Send all that is due. Returns the rows whose clip has just come to its end."""
        table = self._table
        table.due_ns[table.playing & (table.due_ns == AT_NEXT_TICK)] = now_ns
        oldest_ns = now_ns - np.maximum(CATCH_UP_NS - table.frame_ns, 0)
        late = table.playing & (table.due_ns < oldest_ns) & (table.frame < table.frames)
        table.due_ns[late] = oldest_ns[late]
        while True:
            due = np.flatnonzero(table.playing & (table.due_ns <= now_ns) & (table.frame < table.frames))
            if not due.size:
                break
            payloads = [
                table.clips[row][frame] for row, frame in zip(due.tolist(), table.frame[due].tolist(), strict=True)
            ]
            self._send(due, payloads, table.payload_type[due], now_ns)
            table.frame[due] += 1
            table.due_ns[due] += table.frame_ns[due]
        done = np.flatnonzero(table.playing & (table.frame >= table.frames) & (table.due_ns <= now_ns))
        for row in done.tolist():
            self.stop(row)
        self._keep_open(now_ns)
        return done.tolist()

    def _keep_open(self, now_ns: int) -> None:
        table = self._table
        quiet = np.flatnonzero(
            table.active & ~table.playing & (table.remote_length > 0) & (table.sent_ns + KEEPALIVE_NS <= now_ns)
        )
        if not quiet.size:
            return
        noise = table.noise_type[quiet]
        columns = (noise.tolist(), table.codec[quiet].tolist(), table.ptime_ms[quiet].tolist())
        payloads = [
            COMFORT_NOISE if kind >= 0 else self._silence_of(codec, ptime_ms)
            for kind, codec, ptime_ms in zip(*columns, strict=True)
        ]
        self._send(quiet, payloads, np.where(noise >= 0, noise, table.payload_type[quiet]).astype(np.uint8), now_ns)

    def _silence_of(self, codec: int, ptime_ms: int) -> bytes:
        frame = self._silence[codec]
        if ptime_ms >= FRAME_MS or CODECS[codec] is Codec.OPUS:
            return frame
        return frame[: len(frame) * ptime_ms // FRAME_MS]

    def _send(self, rows: Rows, payloads: list[bytes], payload_types: npt.NDArray[np.uint8], now_ns: int) -> None:
        table, sender = self._table, self._sender
        count = len(rows)
        self._advance_clock(rows, now_ns)
        arena = sender.arena
        write_headers(
            arena[:count],
            payload_types,
            table.sequence[rows].astype(np.int64),
            table.timestamp[rows].astype(np.int64),
            table.ssrc[rows],
            table.marker[rows],
        )
        for index, payload in enumerate(payloads):
            arena[index, HEADER_BYTES : HEADER_BYTES + len(payload)] = memoryview(payload)
        lengths = np.array([len(payload) for payload in payloads], dtype=np.int32)
        sender.lengths[:count] = HEADER_BYTES + lengths
        sender.names[:count] = table.remote_name[rows]
        sender.name_lengths[:count] = table.remote_length[rows]
        table.protection.protect(rows, arena, sender.lengths)
        sender.ready(count)
        known = table.remote_length[rows] > 0
        table.sent_packets[rows] += known
        table.sent_octets[rows] += known * lengths
        for index, row in enumerate(rows.tolist()):
            sock = table.sockets[row]
            if sock is not None and known[index]:
                self.sent_packets += sender.send(sock, index, 1)
        table.sequence[rows] += np.uint16(1)
        table.marker[rows] = False
        table.sent_ns[rows] = now_ns

    def _advance_clock(self, rows: Rows, now_ns: int) -> None:
        """Move timestamps on: by one frame inside a talkspurt, by the time that passed before a new one."""
        table = self._table
        codec = table.codec[rows]
        frame_ticks = table.frame_ns[rows] * self._clock_hz[codec] // 1_000_000_000
        passed = ((now_ns - table.sent_ns[rows]) * self._clock_hz[codec] // 1_000_000_000).astype(np.int64)
        resumed = (~table.playing[rows]) | table.marker[rows]
        first = table.sent_ns[rows] == 0
        step = np.where(first, 0, np.where(resumed, np.maximum(passed, frame_ticks), frame_ticks))
        table.timestamp[rows] += step.astype(np.uint32)
