"""The machine's own voice: the prompts that come with the package, and the beep.

Owns: which prompts exist. Refuses to know: when they are played, and the owner's greetings.

Theory of operation: prompts are FLAC files inside the package, rendered once by ``tools/prompts`` (NOTICE names the voice).
They are read on first use and kept: all of them together are half a minute of audio.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aftertone.audio.clips import Clip
from aftertone.audio.flac import read_audio
from aftertone.errors import NotFoundError

PROMPTS: Final = (
    "greeting_default",
    "goodbye",
    "longest_reached",
    "storage_apology",
    "storage_refused",
    "sample_message",
)
"""Every prompt there is; ``tools/prompts/prompts.toml`` has the words."""

BEEP_HZ: Final = 1000
BEEP_MS: Final = 250
BEEP_PEAK_DBFS: Final = -10.0
"""As loud as the prompts feel; a full-scale beep hurts an ear that strained to hear a quiet greeting."""

_BEEP_EDGE_MS: Final = 10
_BEEP_RATE_HZ: Final = 16_000


@cache
def prompt(name: str) -> Clip:
    """Return the prompt of this name. Raises NotFoundError when there is none; reads its file the first time."""
    if name not in PROMPTS:
        raise NotFoundError(f"there is no prompt {name!r}; there are {', '.join(PROMPTS)}")
    content = resources.files("aftertone.audio").joinpath("prompts", f"{name}.flac").read_bytes()
    samples, rate_hz = read_audio(content)
    samples.flags.writeable = False
    return Clip(name, samples, rate_hz)


@cache
def beep() -> Clip:
    """Return the beep after which a recording begins: 250 ms of 1000 Hz with raised-cosine edges, so that it does not click."""
    count = _BEEP_RATE_HZ * BEEP_MS // 1000
    edge = _BEEP_RATE_HZ * _BEEP_EDGE_MS // 1000
    envelope: NDArray[np.float64] = np.ones(count)
    envelope[:edge] = (1 - np.cos(np.pi * (np.arange(edge) + 0.5) / edge)) / 2
    envelope[-edge:] = envelope[:edge][::-1]
    wave = envelope * np.sin(2 * np.pi * BEEP_HZ * np.arange(count) / _BEEP_RATE_HZ)
    samples = np.round(32767 * 10 ** (BEEP_PEAK_DBFS / 20) * wave).astype(np.int16)
    samples.flags.writeable = False
    return Clip("beep", samples, _BEEP_RATE_HZ)
