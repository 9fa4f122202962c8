"""The ear: level and tones of what is being recorded, read off the batch.

Owns: turning packets of any codec into levels and tone flags for the sound watch. Refuses to know: what follows from them.

Theory of operation: not every packet is heard, which costs less and still hears a word or a tone: the watch needs two
loud packets within 100 ms or a run of tone. G.711 is a table look-up for the whole batch at once. G.722 and Opus must be
decoded to be heard, with a decoder of the call's own, which sees two packets of each four. The recording itself is never
decoded here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aftertone.audio.codec import Decoder
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
            turn = self._heard[call] = self._heard.get(call, -1) + 1
            if turn % DECODED_CYCLE >= 2:
                continue
            decoder = self._decoders.get(call)
            if decoder is None:
                decoder = self._decoders[call] = Decoder(codec)
            payload = arena[packet, headers.payload_start[packet] : headers.payload_end[packet]].tobytes()
            samples = decoder.decode(payload)
            if turn % DECODED_CYCLE == 0 or not len(samples):
                # The first of a pair only brings the decoder, which missed what was skipped, back into step.
                continue
            level, tone = classify(samples[None, :], rate_hz)
            self._watch.feed(calls[index : index + 1], level, tone, arrived[packet : packet + 1])
