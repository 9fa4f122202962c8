"""The ear: level and tones of what is being recorded, read off the batch.

Owns: turning packets of any codec into levels and tone flags for the sound watch. Refuses to know: what follows from them.

Theory of operation: not every packet is heard, which costs less and still hears a word or a tone: the watch needs two
loud packets within 100 ms or a run of tone. G.711 is a table look-up for the whole batch at once. G.722 and Opus must be
decoded to be heard, with a decoder of the call's own, which sees two packets of each four. Of packets that are longer than
30 ms all are heard, in pieces of 20 ms, so that a peer's packet time changes nothing about what is sound. The recording itself
is never decoded here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aftertone.audio.codec import Decoder, expected_samples
from aftertone.audio.g711 import ALAW_TO_LINEAR, ULAW_TO_LINEAR
from aftertone.audio.listen import classify, classify_g711
from aftertone.audio.watch import SoundWatch
from aftertone.media.table import CODECS, Table
from aftertone.model import SAMPLE_RATE_HZ, Codec
from aftertone.rtp.batch import Headers

SAMPLED: Final = 2
"""Every second packet: 40 ms apart at 20 ms a packet, so that two sounds in a row lie within the watch's 100 ms. With G.711
this saves 0.3 to 0.6 us of 2.5 us a packet."""
LONGEST_SKIPPED_BYTES: Final = 240
"""30 ms of G.711: of longer packets every one is heard, because twice their length comes too close to those 100 ms."""
DECODED_CYCLE: Final = 4
"""Of so many packets of a codec that must be decoded, two in a row are decoded and the second is heard: 80 ms apart at 20 ms
a packet, still within the watch's 100 ms."""
LONGEST_SKIPPED_MS: Final = 30
"""For the same reason as with G.711."""
PIECE_MS: Final = 20
"""A long packet counts as so many short ones that arrived with it: two loud ones are sound, one is a click."""

Rows = npt.NDArray[np.intp]


class Ear:
    """Listens to the recordings of a table. One thread."""

    def __init__(self, table: Table, watch: SoundWatch) -> None:
        self._table, self._watch = table, watch
        self._decoders: dict[int, Decoder] = {}
        self._heard: dict[int, int] = {}

    def reset(self, row: int) -> None:
        """Forget this row: a recording begins, or the call is over."""
        self._decoders.pop(row, None)
        self._heard.pop(row, None)

    def listen(
        self,
        arena: npt.NDArray[np.uint8],
        headers: Headers,
        owner: Rows,
        packets: Rows,
        arrived: npt.NDArray[np.int64],
    ) -> None:
        """Hear the ``packets`` (rows of ``arena``) of the calls ``owner`` and tell the watch."""
        table = self._table
        calls = owner[packets]
        kind = headers.payload_type[packets].astype(np.int16)
        voice = (kind != table.event_type[calls]) & (kind != table.noise_type[calls])
        static = np.where(kind == 0, 0, np.where(kind == 8, 1, table.codec[calls]))
        length = headers.payload_end[packets] - headers.payload_start[packets]
        voice &= length > 0
        for number, codec in enumerate(CODECS):
            mine = voice & (static == number)
            if not mine.any():
                continue
            if codec in (Codec.PCMU, Codec.PCMA):
                # By the sequence number, so that nothing has to be remembered.
                mine &= (headers.sequence[packets] % SAMPLED == 0) | (length > LONGEST_SKIPPED_BYTES)
                self._hear_g711(codec, arena, headers, calls, packets, length, mine, arrived)
            else:
                self._hear_decoded(codec, arena, headers, calls, packets, mine, arrived)

    def _hear_g711(
        self,
        codec: Codec,
        arena: npt.NDArray[np.uint8],
        headers: Headers,
        calls: Rows,
        packets: Rows,
        length: npt.NDArray[np.int32],
        mine: npt.NDArray[np.bool_],
        arrived: npt.NDArray[np.int64],
    ) -> None:
        table = ULAW_TO_LINEAR if codec is Codec.PCMU else ALAW_TO_LINEAR
        for size in np.unique(length[mine]).tolist():
            chosen = np.flatnonzero(mine & (length == size))
            start = headers.payload_start[packets[chosen]]
            if (start == start[0]).all():
                payloads = arena[packets[chosen], int(start[0]) : int(start[0]) + size]
            else:
                payloads = arena[packets[chosen][:, None], start[:, None] + np.arange(size)]
            pieces = max(1, size // (8 * PIECE_MS)) if size > LONGEST_SKIPPED_BYTES else 1
            if pieces > 1:
                payloads = payloads[:, : pieces * 8 * PIECE_MS].reshape(-1, 8 * PIECE_MS)
                chosen = np.repeat(chosen, pieces)
            level, tone = classify_g711(payloads, table)
            self._watch.feed(calls[chosen], level, tone, arrived[packets[chosen]])

    def _hear_decoded(
        self,
        codec: Codec,
        arena: npt.NDArray[np.uint8],
        headers: Headers,
        calls: Rows,
        packets: Rows,
        mine: npt.NDArray[np.bool_],
        arrived: npt.NDArray[np.int64],
    ) -> None:
        rate_hz = SAMPLE_RATE_HZ[codec]
        for index in np.flatnonzero(mine).tolist():
            call, packet = int(calls[index]), int(packets[index])
            payload = arena[packet, headers.payload_start[packet] : headers.payload_end[packet]].tobytes()
            is_long = expected_samples(codec, payload) * 1000 > LONGEST_SKIPPED_MS * rate_hz
            turn = self._heard[call] = self._heard.get(call, -1) + 1
            if turn % DECODED_CYCLE >= 2 and not is_long:
                continue
            decoder = self._decoders.get(call)
            if decoder is None:
                decoder = self._decoders[call] = Decoder(codec)
            samples = decoder.decode(payload)
            if (turn % DECODED_CYCLE == 0 and not is_long) or not len(samples):
                # The first of a pair only brings the decoder, which missed what was skipped, back into step.
                continue
            piece = rate_hz * PIECE_MS // 1000
            pieces = len(samples) // piece if is_long else 1
            frames = samples[: pieces * piece].reshape(pieces, piece) if is_long else samples[None, :]
            level, tone = classify(frames, rate_hz)
            self._watch.feed(np.repeat(calls[index], pieces), level, tone, np.repeat(arrived[packet], pieces))
