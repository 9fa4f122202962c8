"""Clips: named audio that the machine plays, encoded once for each codec.

Owns: the step from a greeting or prompt to frames that can be sent as they are. Refuses to know: who plays a clip to whom,
and where greetings are kept.

Theory of operation: playing to a thousand calls costs no encoding, because a clip is resampled and encoded once per codec,
in 20 ms frames, and every call sends the same bytes objects. The audio is taken as it is: an owner's greeting keeps its
own loudness.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aftertone.audio.codec import FRAME_MS, encode, ticks_per_frame
from aftertone.audio.flac import read_audio
from aftertone.audio.samples import Samples, check_rate
from aftertone.model import Codec

MAX_CLIP_SECONDS: Final = 300
"""A greeting of five minutes is a mistake; beyond this a clip is refused, because it is held in memory in every codec."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Audio with a name. The samples are shared and must not be written to."""

    name: str
    samples: Samples
    """int16[n], mono."""
    rate_hz: int

    def __post_init__(self) -> None:
        """Raise ValueError for a rate that no audio has."""
        check_rate(self.rate_hz)

    @property
    def duration_ms(self) -> int:
        """How long it plays, in whole milliseconds, rounded up."""
        return -(-len(self.samples) * 1000 // self.rate_hz)


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A clip as payloads: send one each 20 ms and advance the timestamp by ``ticks_per_frame``."""

    name: str
    codec: Codec
    frames: tuple[bytes, ...]
    ticks_per_frame: int
    """In units of the codec's RTP clock, ``CLOCK_RATE_HZ``: 160, for Opus 960."""

    @property
    def duration_ms(self) -> int:
        """How long it plays: whole frames."""
        return len(self.frames) * FRAME_MS


def load_clip(path: Path, *, name: str | None = None, max_seconds: int = MAX_CLIP_SECONDS) -> Clip:
    """Read any audio file as a clip named ``name``, or after the file.

    Raises what ``read_audio`` raises: NotFoundError, NotAudioError, AudioTooLongError.
    """
    samples, rate_hz = read_audio(path, max_seconds=max_seconds)
    return Clip(name or path.stem, samples, rate_hz)


def encode_clip(clip: Clip, codec: Codec) -> EncodedClip:
    """Encode a clip for one codec. Takes milliseconds per second of audio: do it before calls, off the media tick."""
    frames = encode(codec, clip.samples, clip.rate_hz)
    return EncodedClip(clip.name, codec, tuple(frames), ticks_per_frame(codec))
