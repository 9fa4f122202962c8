"""Sample arrays: what they are, and how they change their rate.

Owns: the ``Samples`` type and resampling. Refuses to know: where samples come from.

Theory of operation: FFmpeg's resampler is fed a second at a time, so its working memory does not grow with the length of
the audio, and its delay is taken off by cutting or padding to the length that the rates demand: sample k of the output is
the same moment as sample k * from / to of the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import AudioFrame

Samples: TypeAlias = NDArray[np.int16]
"""Mono audio, one int16 for each sampling instant. The rate travels beside it."""

MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 192_000
"""No telephone and no studio samples beyond these; a file that claims to is broken or hostile."""


def check_rate(rate_hz: int) -> None:
    """Raise ValueError when no audio has this sampling rate."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise ValueError(f"a sampling rate of {rate_hz} Hz is outside {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")


def to_frame(samples: Samples, rate_hz: int) -> AudioFrame:
    """Wrap a copy of the samples as an FFmpeg frame. Needs at least one sample."""
    from av import AudioFrame

    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples)[np.newaxis, :], format="s16", layout="mono")
    frame.sample_rate = rate_hz
    return frame


def fit(samples: Samples, count: int) -> Samples:
    """Cut, or lengthen with zeros at the end, to exactly ``count`` samples. May return the argument itself."""
    if len(samples) >= count:
        return samples[:count]
    return np.concatenate([samples, np.zeros(count - len(samples), np.int16)])


def resample(samples: Samples, rate_hz: int, to_rate_hz: int) -> Samples:
    """Change the sampling rate; the result has ``round(len * to / from)`` samples and starts at the same moment.

    Returns the argument itself when the rates are equal. Raises ValueError for a rate outside ``MIN_RATE_HZ`` to
    ``MAX_RATE_HZ``.
    """
    check_rate(rate_hz)
    check_rate(to_rate_hz)
    if rate_hz == to_rate_hz:
        return samples
    wanted = round(len(samples) * to_rate_hz / rate_hz)
    if wanted == 0:
        return np.zeros(0, np.int16)
    from av import AudioResampler

    resampler = AudioResampler(format="s16", layout="mono", rate=to_rate_hz)
    out = np.zeros(wanted, np.int16)
    filled = 0
    for start in range(0, len(samples) + rate_hz, rate_hz):
        block = samples[start : start + rate_hz]
        for frame in resampler.resample(to_frame(block, rate_hz) if len(block) else None):
            piece = frame.to_ndarray()[0][: wanted - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
        if not len(block):
            break
    return out
