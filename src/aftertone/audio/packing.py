"""Frames of 20 ms become packets of another length.

Owns: how encoded frames are cut and joined without decoding them. Refuses to know: who wants which length, and timestamps.

Specification: RFC 3551 section 4.2 (sample-based codecs may be cut and joined at any sample), RFC 7587 section 6.1 (the packet time
of Opus is a preference, every receiver takes every frame).

Theory of operation: in G.711 and G.722 each byte stands for itself, so a clip is one run of bytes that can be cut anywhere. Frames of
Opus can be joined only while the encoder stays in one mode (RFC 6716 section 3.2), which it does not do within a sentence,
so Opus keeps its 20 ms.
"""

from __future__ import annotations

from collections.abc import Sequence

from aftertone.audio.codec import FRAME_MS
from aftertone.model import Codec


def packet_ms(codec: Codec, wished_ms: int) -> int:
    """Return how long the packets are that ``codec`` can be sent in when the peer wishes for ``wished_ms``, 10 to 60."""
    return FRAME_MS if codec is Codec.OPUS else wished_ms


def pack_frames(codec: Codec, frames: Sequence[bytes], length_ms: int) -> tuple[bytes, ...]:
    """Return 20 ms ``frames`` as payloads of ``length_ms``, of which the last may be shorter.

    Raises ValueError for a length that ``packet_ms`` would not have returned.
    """
    if length_ms == FRAME_MS:
        return tuple(frames)
    if codec is Codec.OPUS or length_ms <= 0:
        raise ValueError(f"{codec} cannot be packed by {length_ms} ms")
    # All of them are 8 bytes a millisecond: G.711 has 8000 samples of a byte, G.722 16000 of half a byte.
    run, size = b"".join(frames), 8 * length_ms
    return tuple(run[at : at + size] for at in range(0, len(run), size))
