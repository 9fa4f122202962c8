"""Level and call-progress tones, measured on many frames at once.

Owns: two facts about a frame of audio: how loud it is, and whether it is a tone that a telephone exchange makes (dial,
busy, congestion, ringback). Refuses to know: calls and time; ``watch`` turns the facts into history.

Specification: levels in dBov as RFC 6464 and RFC 6465 mean them: 0 is a square wave at full scale, a full-scale sine is
-3, and -127 is the floor. Tone frequencies from ITU-T E.180 and its list of national tones.

Theory of operation: exchanges make their tones of seven frequencies, alone or in five pairs. For each of these sets the
cosines and sines of its frequencies span a space; the part of a frame's power that lies inside it is what the set
explains, whatever the phases and amplitudes (a least squares fit). A frame is a tone when its best set explains 90 % of its
power. Projecting on every set would cost 22 products a sample; so the frames are first multiplied by the 14 cosines and
sines, and the rest happens on these 14 numbers with matrices prepared once per frame length: with B = QR, the power in
the span of B is |R^-T B'x|^2. The mean is taken out of frames and columns alike, as a constant offset is not sound.

A steady vowel can put most of a frame into one harmonic near 400 Hz: of 59,068 loud frames of 20 ms of a woman's recorded
speech, 0.4 % pass for a tone, hardly ever more than four in a row. A single frame's verdict is a hint; ``watch`` asks for a
run of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aftertone.audio.samples import Samples

Levels = NDArray[np.float32]
Flags = NDArray[np.bool_]

TONE_FREQUENCIES_HZ: Final = (350, 400, 425, 440, 450, 480, 620)

TONES_HZ: Final = ((350, 440), (350, 450), (400, 450), (440, 480), (480, 620), (425,))
"""The sets that are tried. A pair covers its members alone, so only 425 Hz needs a set of its own: North American dial,
British dial, British ringback, North American ringback and busy, and the one tone of most other countries."""

TONE_SHARE: Final = 0.9
"""The part of a frame's power that its best set must explain. Noise adds to the rest: 90 % is 9.5 dB of SNR."""

TONE_SHARE_SHORT: Final = 0.95
"""The same for frames shorter than 15 ms, which have so few periods that vowels fit more easily."""

TONE_MIN_DBOV: Final = -60.0
"""Quieter than any exchange plays; below it codec rounding would decide."""

FLOOR_DBOV: Final = -127.0

_SHORT_FRAME_S: Final = 0.015
_MIN_FRAME_S: Final = 0.010
_MAX_FRAME_S: Final = 0.060
"""Shorter frames cannot tell 440 from 480 Hz from a vowel; longer ones are judged by their first 60 ms."""

_FULL_SCALE: Final = 32768.0


@dataclass(frozen=True, slots=True, eq=False)
class _Bank:
    """What is prepared for one frame length at one rate."""

    columns: NDArray[np.float32]
    """[m, 15]: seven cosines, seven sines, all free of a mean; and ones."""
    whiten: NDArray[np.float32]
    """[14, 4 * sets]: from the 14 products to at most four orthonormal coordinates a set, coordinate-major."""
    share: float
    """Which part of the power makes a tone."""


@lru_cache(maxsize=64)
def _bank(frame_length: int, rate_hz: int) -> _Bank:
    """Prepare a frame length; the cache is bounded because the peer chooses frame lengths."""
    phase = 2 * np.pi * np.outer(np.arange(frame_length), TONE_FREQUENCIES_HZ) / rate_hz
    columns = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
    columns -= columns.mean(axis=0)
    count = len(TONE_FREQUENCIES_HZ)
    whiten = np.zeros((2 * count, 4, len(TONES_HZ)))
    for index, tone in enumerate(TONES_HZ):
        members = [TONE_FREQUENCIES_HZ.index(frequency) for frequency in tone]
        members += [member + count for member in members]
        triangle = np.linalg.qr(columns[:, members], mode="r")
        whiten[members, : len(members), index] = np.linalg.inv(triangle)
    ones = np.ones((frame_length, 1))
    return _Bank(
        np.ascontiguousarray(np.concatenate([columns, ones], axis=1), dtype=np.float32),
        np.ascontiguousarray(whiten.reshape(2 * count, -1), dtype=np.float32),
        TONE_SHARE if frame_length >= _SHORT_FRAME_S * rate_hz else TONE_SHARE_SHORT,
    )


def classify_g711(payloads: NDArray[np.uint8], table: Samples) -> tuple[Levels, Flags]:
    """Return (level_dbov float32[n], tone bool[n]) for uint8[n, m] payloads of G.711 at 8 kHz.

    ``table`` is ``g711.ULAW_TO_LINEAR`` or ``g711.ALAW_TO_LINEAR``. See ``classify``.
    """
    # take() reads twice as fast as indexing does.
    return _classify((table.astype(np.float32) / _FULL_SCALE).take(payloads), 8000)


def classify(frames: Samples, rate_hz: int) -> tuple[Levels, Flags]:
    """Return (level_dbov float32[n], tone bool[n]) for int16[n, m]: n frames of m samples each, new arrays.

    Levels are clipped to -127..0 and leave a constant offset out. Frames shorter than 10 ms have a level and are never a
    tone; of frames longer than 60 ms the first 60 ms are searched for a tone. n or m may be 0.
    """
    return _classify(frames.astype(np.float32) / _FULL_SCALE, rate_hz)


def _classify(frames: NDArray[np.float32], rate_hz: int) -> tuple[Levels, Flags]:
    count, length = frames.shape
    level = np.full(count, FLOOR_DBOV, np.float32)
    tone = np.zeros(count, np.bool_)
    if not count or not length:
        return level, tone
    judged = min(length, round(_MAX_FRAME_S * rate_hz))
    if judged < round(_MIN_FRAME_S * rate_hz):
        power = frames.var(axis=1)
        return _level(power, level), tone
    bank = _bank(judged, rate_hz)
    head = frames[:, :judged]
    products = head @ bank.columns
    head_power = _power(head, products[:, -1])
    power = head_power if judged == length else frames.var(axis=1)
    _level(power, level)
    coordinates = products[:, :-1] @ bank.whiten
    np.square(coordinates, out=coordinates)
    explained = coordinates.reshape(count, 4, -1).sum(axis=1).max(axis=1)
    np.greater(explained, bank.share * judged * head_power, out=tone)
    tone &= level >= TONE_MIN_DBOV
    return level, tone


def _power(frames: NDArray[np.float32], total: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean square without the mean. float32 sums of a frame are exact enough: the floor of 16 bits is at -96 dBov."""
    length = frames.shape[1]
    mean = total / length
    power: NDArray[np.float32] = np.einsum("ij,ij->i", frames, frames) / length - mean * mean
    return np.maximum(power, 0, out=power)


def _level(power: NDArray[np.float32], out: Levels) -> Levels:
    np.log10(power, out=out, where=power > 0)
    np.multiply(out, 10, out=out, where=power > 0)
    return np.clip(out, FLOOR_DBOV, 0, out=out)
