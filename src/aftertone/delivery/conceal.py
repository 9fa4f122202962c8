"""Fills gaps in speech so that a lost packet is hardly heard.

Owns: what stands in a gap. Refuses to know: packets, why there is a gap, and everything outside it: received samples are
never changed, not even for an overlap.

Specification: in the spirit of ITU-T G.711 Appendix I (pitch waveform replication), with what a live receiver does not have:
the audio after the gap.

Theory of operation: on each side of a gap the repetition length is found by normalised cross-correlation of the nearest
20 ms with what lies further out: coarse on a copy at about 8 kHz for the pitch, then exactly, for a multiple of the pitch, so
that a long gap does not buzz with one short period. The side's waveform is continued into the gap by repeating that length;
each seam is cross-faded inside the repeated piece, and the first sample is joined to its neighbour by a step that decays.
The two continuations are cross-faded over the gap at constant power, as far as they differ. Each side carries 60 ms at
most, so a longer gap fades out, is silent, and fades in. Nothing gets louder than the audio beside the gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aftertone.audio.samples import Samples

CARRIED_MS: Final = 60
"""How far one side reaches into a gap; a gap of more than twice this is silent in its middle."""

_CONTEXT_MS: Final = 65
_TEMPLATE_MS: Final = 20
_SHORTEST_CONTEXT_MS: Final = 6
_PITCH_MS: Final = (2.5, 15.0)
"""400 Hz down to 66 Hz; higher voices repeat at a multiple."""
_SEAM_MS: Final = 1.5
_COARSE_RATE_HZ: Final = 8000

_Audio: TypeAlias = NDArray[np.float64]


def conceal(samples: Samples, gaps: Sequence[tuple[int, int]], rate_hz: int) -> Samples:
    """Return a copy of ``samples`` (int16[n]) with each gap filled; everything outside the gaps is the same, bit for bit.

    ``gaps`` are ``(start, end)`` in samples, ascending and disjoint. What the array holds inside a gap does not matter. A
    filled gap serves as context for the next one, so a gap costs a fixed amount of work. Raises ValueError for gaps that
    overlap or lie outside.
    """
    out = samples.copy()
    previous = 0
    for start, end in gaps:
        if not previous <= start <= end <= len(out):
            raise ValueError(f"gap {start} to {end} overlaps another or lies outside of {len(out)} samples")
        previous = end
    context = _CONTEXT_MS * rate_hz // 1000
    for index, (start, end) in enumerate(gaps):
        if start == end:
            continue
        next_gap = gaps[index + 1][0] if index + 1 < len(gaps) else len(out)
        before = out[max(0, start - context) : start].astype(np.float64)
        after = out[end : min(next_gap, end + context)].astype(np.float64)
        out[start:end] = _fill(before, after, end - start, rate_hz)
    return out


def concealed_samples(gap: int, rate_hz: int) -> int:
    """Return how many samples of a gap get sound; the rest of it is silence."""
    return min(gap, 2 * CARRIED_MS * rate_hz // 1000)


def _fill(before: _Audio, after: _Audio, length: int, rate_hz: int) -> Samples:
    reach = min(length, CARRIED_MS * rate_hz // 1000)
    fade = np.cos(np.pi / 2 * (np.arange(reach) + 0.5) / reach) ** 2
    filled = np.zeros(length)
    forward = _continue(before, reach, rate_hz)
    backward = _continue(after[::-1], reach, rate_hz)[::-1]
    if reach == length:
        filled = _mix(forward, backward, fade)
    else:
        filled[:reach] += forward * fade
        filled[length - reach :] += backward * fade[::-1]
    loudest = max(np.abs(before).max(initial=0), np.abs(after).max(initial=0))
    bounded: Samples = np.clip(np.rint(filled), -loudest, min(loudest, 32767)).astype(np.int16)
    return bounded


def _mix(forward: _Audio, backward: _Audio, fade: _Audio) -> _Audio:
    """Cross-fade so that power stays level: two alike waves add up in amplitude, two unlike ones in power."""
    energy = np.sqrt(np.dot(forward, forward) * np.dot(backward, backward))
    if energy == 0:
        return forward * fade + backward * fade[::-1]
    alike = max(0.0, float(np.dot(forward, backward) / energy))
    rise = fade[::-1]
    return (forward * fade + backward * rise) / np.sqrt(fade**2 + rise**2 + 2 * alike * fade * rise)


def _continue(context: _Audio, length: int, rate_hz: int) -> _Audio:
    """Continue ``context`` beyond its end by ``length`` samples; silence when there is too little of it to repeat."""
    if len(context) < _SHORTEST_CONTEXT_MS * rate_hz // 1000 or not context.any():
        return np.zeros(length)
    lag = _repetition(context, length, rate_hz)
    piece = context[-lag:].copy()
    seam = min(round(_SEAM_MS * rate_hz / 1000), lag // 2, len(context) - lag)
    ramp = (np.arange(seam) + 1) / (seam + 1)
    step = 0.0
    if seam:
        earlier = context[-lag - seam : -lag]
        # What is heard before the piece begins again is what came before it the first time.
        piece[-seam:] += (earlier - piece[-seam:]) * ramp
        step = float(context[-1] - earlier[-1])
    out = np.resize(piece, length)
    joined = min(seam, length)
    out[:joined] += step * (1 - ramp[:joined])
    return out


def _repetition(context: _Audio, length: int, rate_hz: int) -> int:
    """Return after how many samples ``context`` repeats itself best, a multiple of the pitch that suits ``length``."""
    factor = max(1, rate_hz // _COARSE_RATE_HZ)
    coarse = context[len(context) % factor :].reshape(-1, factor).mean(axis=1)
    coarse_rate_hz = rate_hz / factor
    shortest, longest = (round(ms * coarse_rate_hz / 1000) for ms in _PITCH_MS)
    pitch = factor * _best_lag(coarse, shortest, longest, round(_TEMPLATE_MS * coarse_rate_hz / 1000))
    # Half of what must be filled, so that every piece is heard about twice, as far as the context reaches.
    reachable = len(context) - _template(len(context), _TEMPLATE_MS * rate_hz // 1000)
    times = max(1, min(round(length / 2 / pitch), 3, reachable // pitch))
    blur = factor * times
    return _best_lag(context, times * pitch - blur, times * pitch + blur, _TEMPLATE_MS * rate_hz // 1000)


def _template(context: int, wished: int) -> int:
    """Return how much of a context is compared; half of a short one, so that there is something to compare it with."""
    return min(wished, context // 2)


def _best_lag(context: _Audio, shortest: int, longest: int, wished: int) -> int:
    """Return the lag between ``shortest`` and ``longest`` at which the end of ``context`` resembles what came before."""
    size = _template(len(context), wished)
    longest = max(1, min(longest, len(context) - size))
    shortest = max(1, min(shortest, longest))
    template = context[-size:]
    searched = context[len(context) - size - longest : len(context) - shortest]
    products = np.correlate(searched, template, "valid")
    squares = np.concatenate([[0.0], np.cumsum(searched**2)])
    energy = squares[size:] - squares[:-size]
    likeness = products / np.sqrt(np.maximum(energy, 1.0))
    return longest - int(np.argmax(likeness))
