"""Everything the line can play, encoded once for each codec.

Owns: the frames of prompts, of the beep, of silence, and of each mailbox's greeting as the directory names it. Refuses to
know: calls.

Theory of operation: encoding takes milliseconds a second of audio, so it happens at start and when the directory changed,
on another thread, and never for a call. A peer that wants longer or shorter packets than 20 ms gets the same bytes cut anew, once
for all calls that want that length. A greeting that cannot be read leaves the default greeting in its place and a
warning that the desk shows: a caller never meets silence because of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from aftertone.audio.clips import Clip, encode_clip, load_clip
from aftertone.audio.codec import FRAME_MS
from aftertone.audio.packing import pack_frames, packet_ms
from aftertone.audio.prompts import beep, prompt
from aftertone.errors import AftertoneError
from aftertone.media.table import CODECS
from aftertone.model import Codec
from aftertone.voicemail.deposit import BEEP, FAREWELLS, GREETING
from aftertone.voicemail.directory import GREETINGS, Directory

Frames = tuple[bytes, ...]
DEFAULT_GREETING: Final = "greeting_default"
_FRAME: Final = Clip("silence", np.zeros(160, np.int16), 8000)
REFUSED: Final = "storage_refused"
"""What a caller hears whose call cannot be kept."""
LEAD_S: Final = 0.2
"""Silence before it: it comes by early media, and some phones open their ear only when they have read the 183."""
TAIL_S: Final = 0.16
"""Silence behind every clip after which we say nothing: a phone whose jitter buffer moves only when something arrives
(baresip, tests/interop) would keep the end of the beep or of the goodbye to itself."""


MOST_PACKED: Final = 64
"""Clips kept in packets of unusual lengths: three lengths of a few codecs and greetings; beyond that all are made anew."""


@dataclass(frozen=True, slots=True)
class Track:
    """A clip as it is sent to one call."""

    packets: Frames
    packet_ms: int

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return len(self.packets) * self.packet_ms / 1000

    def rest(self, passed_ms: int) -> Frames:
        """Return what is left of it when so much has been played."""
        return self.packets[passed_ms // self.packet_ms :]


class Clips:
    """Frames by (name, codec). Built off the loop, read on it."""

    def __init__(self) -> None:
        """Encode all prompts. Takes a fraction of a second."""
        self._frames: dict[tuple[str, Codec], Frames] = {}
        self._greetings: dict[str, dict[Codec, Frames]] = {}
        self._by_mailbox: dict[str, dict[Codec, Frames]] = {}
        self._packed: dict[tuple[int, int], tuple[Frames, Track]] = {}
        self.warnings: list[str] = []
        clips = [
            beep(),
            *(prompt(name) for name in (DEFAULT_GREETING, *FAREWELLS.values())),
            _with_lead(prompt(REFUSED)),
        ]
        for clip in clips:
            name = BEEP if clip is clips[0] else clip.name
            for codec in CODECS:
                self._frames[name, codec] = encode_clip(
                    clip if name == DEFAULT_GREETING else _with_tail(clip), codec
                ).frames
        self.silence: Mapping[Codec, bytes] = {codec: encode_clip(_FRAME, codec).frames[0] for codec in CODECS}

    def learn(self, folder: Path, directory: Directory) -> None:
        """Encode the greetings that ``directory`` names; what is known already is kept. Errors become ``warnings``."""
        wanted = {m.name: m.greeting for m in directory.mailboxes.values() if m.greeting is not None}
        known: dict[str, dict[Codec, Frames]] = {}
        warnings: list[str] = []
        for mailbox, file in wanted.items():
            try:
                known[file] = self._greetings.get(file) or self._encode(folder / GREETINGS / file)
            except (AftertoneError, OSError) as error:
                warnings.append(f"the greeting of mailbox {mailbox} cannot be played, the default greeting is: {error}")
        self._greetings = known
        # The loop's thread reads this one name: it sees all of the old greetings or all of the new ones.
        self._by_mailbox = {mailbox: known[file] for mailbox, file in wanted.items() if file in known}
        self.warnings = warnings

    def frames(self, clip: str, mailbox: str, codec: Codec) -> Frames:
        """Return what to send for ``clip`` (a prompt's name, ``greeting`` or ``beep``) to a caller of ``mailbox``."""
        if clip != GREETING:
            return self._frames[clip, codec]
        greeting = self._by_mailbox.get(mailbox)
        return self._frames[DEFAULT_GREETING, codec] if greeting is None else greeting[codec]

    def track(self, clip: str, mailbox: str, codec: Codec, ptime_ms: int) -> Track:
        """Return ``frames`` in packets of ``ptime_ms``, or of what the codec can do instead."""
        frames, length_ms = self.frames(clip, mailbox, codec), packet_ms(codec, ptime_ms)
        if length_ms == FRAME_MS:
            return Track(frames, FRAME_MS)
        found = self._packed.get((id(frames), length_ms))
        # What is kept holds on to its frames, so that their identity cannot become that of others.
        if found is None or found[0] is not frames:
            if len(self._packed) >= MOST_PACKED:
                self._packed.clear()
            found = (frames, Track(pack_frames(codec, frames, length_ms), length_ms))
            self._packed[id(frames), length_ms] = found
        return found[1]

    @staticmethod
    def _encode(path: Path) -> dict[Codec, Frames]:
        clip = load_clip(path)
        return {codec: encode_clip(clip, codec).frames for codec in CODECS}


def _with_lead(clip: Clip) -> Clip:
    silence = np.zeros(round(clip.rate_hz * LEAD_S), np.int16)
    return Clip(clip.name, np.concatenate([silence, clip.samples]), clip.rate_hz)


def _with_tail(clip: Clip) -> Clip:
    silence = np.zeros(round(clip.rate_hz * TAIL_S), np.int16)
    return Clip(clip.name, np.concatenate([clip.samples, silence]), clip.rate_hz)
