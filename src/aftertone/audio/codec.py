"""Payloads to samples and back, for the four codecs of the house.

Owns: what a payload of PCMU, PCMA, G.722 or Opus means as audio. Refuses to know: RTP, loss, order, timestamps; whoever
calls has already put the payloads in order and decided what fills the gaps.

Specification: ITU-T G.711; ITU-T G.722 at 64 kbit/s, two samples a byte (RFC 3551 section 4.5.2); RFC 6716 section 3 for
the length of an Opus packet and RFC 7587 for its 48 kHz clock.

Theory of operation: the length of what a payload decodes to is known from its first bytes alone (``expected_samples``), so
a decoder always yields exactly that many samples, whatever happened inside: a payload that the codec rejects becomes
silence of that length and is counted in ``Decoder.corrupt``. Nothing a peer sends makes a decoder raise. The same knowledge
sizes the output of ``decode`` before the first packet is decoded, so ten minutes of Opus cost one array of 58 MB and no
second copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from aftertone.audio import g711
from aftertone.audio.samples import Samples, fit, resample, to_frame
from aftertone.model import CLOCK_RATE_HZ, SAMPLE_RATE_HZ, Codec

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

FRAME_MS: Final = 20
"""What we send: one frame a packet, the only length that every peer takes."""

OPUS_BIT_RATE: Final = 32_000
"""Clear wideband speech; more is not heard in a prompt."""

_OPUS_MAX_SAMPLES: Final = 5760
"""120 ms, the longest Opus packet (RFC 6716 section 3.2.5, requirement R5)."""

_OPUS_DEFAULT_SAMPLES: Final = 960
"""Assumed for a packet that does not even say how long it is."""

_OPUS_FRAME_SAMPLES: Final = (
    *(480, 960, 1920, 2880) * 3,  # SILK: 10, 20, 40, 60 ms
    *(480, 960) * 2,  # hybrid: 10, 20 ms
    *(120, 240, 480, 960) * 4,  # CELT: 2.5, 5, 10, 20 ms
)
"""Frame length at 48 kHz by the configuration number in the first five bits (RFC 6716 table 2)."""


def opus_samples(payload: bytes) -> int | None:
    """Return how long an Opus packet is, in samples at 48 kHz, or None when it does not say. Spec: RFC 6716 section 3."""
    if not payload:
        return None
    frame = _OPUS_FRAME_SAMPLES[payload[0] >> 3]
    code = payload[0] & 3
    if code < 3:
        return frame * (1 if code == 0 else 2)
    if len(payload) < 2:
        return None
    total = frame * (payload[1] & 0x3F)
    return total if 0 < total <= _OPUS_MAX_SAMPLES else None


def expected_samples(codec: Codec, payload: bytes) -> int:
    """Return how many samples ``Decoder.decode`` yields for this payload, at ``SAMPLE_RATE_HZ[codec]``.

    For Opus a payload that does not say counts as 20 ms; an empty payload of the other codecs is empty audio.
    """
    match codec:
        case Codec.PCMU | Codec.PCMA:
            return len(payload)
        case Codec.G722:
            return 2 * len(payload)
        case Codec.OPUS:
            return opus_samples(payload) or _OPUS_DEFAULT_SAMPLES


class Decoder:
    """Turns the payloads of one stream, in order, into samples at ``SAMPLE_RATE_HZ[codec]``.

    Stateful for G.722 and Opus: one decoder for one stream, used by one thread at a time.
    """

    corrupt: int
    """Payloads so far that the codec rejected and silence stands for."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.corrupt = 0
        self._context: AudioCodecContext | None = None
        if codec in (Codec.G722, Codec.OPUS):
            self._context = _decoder_context(codec)

    def decode(self, payload: bytes) -> Samples:
        """Return exactly ``expected_samples(codec, payload)`` new samples; never raises because of the payload."""
        if self.codec is Codec.PCMU:
            return g711.ULAW_TO_LINEAR[np.frombuffer(payload, np.uint8)]
        if self.codec is Codec.PCMA:
            return g711.ALAW_TO_LINEAR[np.frombuffer(payload, np.uint8)]
        count = expected_samples(self.codec, payload)
        if not payload:
            # An empty packet means "flush" to FFmpeg, after which the decoder takes no more.
            self.corrupt += self.codec is Codec.OPUS
            return np.zeros(count, np.int16)
        decoded = _run(self._context, payload) if self._context else None
        if decoded is None:
            self.corrupt += 1
            return np.zeros(count, np.int16)
        return fit(decoded, count)


def _run(context: AudioCodecContext, payload: bytes) -> Samples | None:
    """Return what FFmpeg makes of a payload, or None when it rejects it."""
    from av import FFmpegError, Packet

    try:
        frames = context.decode(Packet(payload))
    except (FFmpegError, ValueError):
        return None
    pieces = [frame.to_ndarray().reshape(-1) for frame in frames]
    return np.concatenate(pieces).astype(np.int16, copy=False) if pieces else None


def _decoder_context(codec: Codec) -> AudioCodecContext:
    from av.audio.codeccontext import AudioCodecContext

    context = AudioCodecContext.create("g722" if codec is Codec.G722 else "libopus", "r")
    context.layout = "mono"
    context.sample_rate = SAMPLE_RATE_HZ[codec]
    context.format = "s16"
    context.thread_count = 1
    context.open()
    return context


def decode(codec: Codec, payloads: Sequence[bytes], *, decoder: Decoder | None = None) -> Samples:
    """Decode a run of payloads, in order, into one new array at ``SAMPLE_RATE_HZ[codec]``.

    The result has the sum of ``expected_samples`` of all payloads. Pass a ``decoder`` to carry its state on from an earlier
    run, or to read its ``corrupt`` count afterwards. Never raises because of a payload.
    """
    decoder = decoder or Decoder(codec)
    if codec in (Codec.PCMU, Codec.PCMA):
        return decoder.decode(b"".join(payloads))
    out = np.empty(sum(expected_samples(codec, payload) for payload in payloads), np.int16)
    position = 0
    for payload in payloads:
        piece = decoder.decode(payload)
        out[position : position + len(piece)] = piece
        position += len(piece)
    return out


def ticks_per_frame(codec: Codec) -> int:
    """Return by how much the RTP timestamp grows for each 20 ms frame that ``encode`` makes."""
    return CLOCK_RATE_HZ[codec] * FRAME_MS // 1000


def encode(codec: Codec, samples: Samples, rate_hz: int) -> list[bytes]:
    """Encode audio of any rate as 20 ms frames, ready to be payloads; the last frame is filled up with silence.

    Opus yields one frame more when its look-ahead needs it, so that no end of a word is cut. Raises ValueError for a rate
    that no audio has.
    """
    sample_rate_hz = SAMPLE_RATE_HZ[codec]
    per_frame = sample_rate_hz * FRAME_MS // 1000
    audio = resample(samples, rate_hz, sample_rate_hz)
    frames = -(-len(audio) // per_frame)
    audio = fit(audio, frames * per_frame)
    match codec:
        case Codec.PCMU | Codec.PCMA:
            coded = g711.encode_ulaw(audio) if codec is Codec.PCMU else g711.encode_alaw(audio)
            return [row.tobytes() for row in coded.reshape(frames, per_frame)]
        case Codec.G722 | Codec.OPUS:
            return _encode_with_ffmpeg(codec, audio.reshape(frames, per_frame))


def _encode_with_ffmpeg(codec: Codec, frames: Samples) -> list[bytes]:
    if not len(frames):
        return []
    from av.audio.codeccontext import AudioCodecContext

    context = AudioCodecContext.create("g722" if codec is Codec.G722 else "libopus", "w")
    context.layout = "mono"
    context.format = "s16"
    context.sample_rate = SAMPLE_RATE_HZ[codec]
    context.thread_count = 1
    if codec is Codec.OPUS:
        context.bit_rate = OPUS_BIT_RATE
        context.options = {"application": "voip", "frame_duration": str(FRAME_MS), "vbr": "on"}
    packets: list[bytes] = []
    for index, row in enumerate(frames):
        frame = to_frame(row, SAMPLE_RATE_HZ[codec])
        frame.pts = index * len(row)
        packets += [bytes(packet) for packet in context.encode(frame)]
    packets += [bytes(packet) for packet in context.encode(None)]
    return [packet for packet in packets if packet]
