"""What each payload type of a recording stands for.

Owns: the reading of the envelope's payload types and of the ``media`` events by which a call changes them. Refuses to know:
what the payloads sound like.

Specification: RFC 3551 section 6 for the numbers that never need a description; RFC 3264 section 8.3.2 for changing them.

Theory of operation: numbers mean what was agreed when the packet arrived; a number that is not in that agreement is looked
up in the later ones (a peer may be ahead of its answer), then in the earlier ones (or behind it), then among the static
ones. If nothing at all in a recording is understood, its most frequent type is taken for the codec that the call was
answered with, and the packets are to be kept beside the audio, since that is a guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aftertone.journal import Event, PacketBatch
from aftertone.model import Codec, Envelope

CODECS: Final = tuple(Codec)
NO_AUDIO: Final = -1
"""Keys and comfort noise: they say that nothing was lost, and sound like silence."""
UNKNOWN: Final = -2

_STATIC: Final[Mapping[int, int]] = {
    0: CODECS.index(Codec.PCMU),
    8: CODECS.index(Codec.PCMA),
    9: CODECS.index(Codec.G722),
    13: NO_AUDIO,
}
_NAMES: Final[Mapping[str, int]] = {
    **{codec.value.lower(): index for index, codec in enumerate(CODECS)},
    "telephone-event": NO_AUDIO,
    "cn": NO_AUDIO,
}
_FIRST_DYNAMIC: Final = 96


@dataclass(frozen=True, slots=True, eq=False)
class Meanings:
    """What every packet of a recording is."""

    kind: NDArray[np.int8]
    """Index into ``CODECS``, or ``NO_AUDIO``, or ``UNKNOWN``; shape [n]."""
    notes: tuple[str, ...]
    certain: bool
    """False when packets were guessed at or not understood: then they are worth keeping as they came."""


def read_meanings(envelope: Envelope, events: Iterable[Event], packets: PacketBatch) -> Meanings:
    """Say what every packet is. Never raises because of what a peer sent or a description said."""
    agreed_ns, agreements = _agreements(envelope, events)
    current = np.searchsorted(agreed_ns, packets.arrival_ns, side="right") - 1
    pairs = current * 256 + packets.payload_type
    kind = np.full(len(packets), UNKNOWN, np.int8)
    for pair in np.unique(pairs).tolist():
        kind[pairs == pair] = _look_up(agreements, pair // 256, pair % 256)
    unknown = packets.payload_type[kind == UNKNOWN]
    if not len(unknown):
        return Meanings(kind, (), True)
    numbers, counts = np.unique(unknown, return_counts=True)
    if not (kind >= 0).any():
        number = int(numbers[np.argmax(counts)])
        guess = _guess(envelope, number)
        if guess is not None:
            kind[packets.payload_type == number] = guess
            return Meanings(kind, (f"payload type {number} was never agreed and was taken for {CODECS[guess]}",), False)
    listed = ", ".join(f"{count} of type {number}" for number, count in zip(numbers, counts, strict=True))
    return Meanings(kind, (f"packets that nobody agreed on were not played: {listed}",), False)


def _agreements(envelope: Envelope, events: Iterable[Event]) -> tuple[NDArray[np.int64], list[dict[int, int]]]:
    """Return from when on which numbers held; the first holds from the beginning of time."""
    known = [(p.number, p.name) for p in envelope.payload_types]
    found = [(np.iinfo(np.int64).min, _table(known))]
    for event in sorted(events, key=lambda event: event.at_ns):
        if event.name == "media":
            try:
                types = [(int(number), str(name)) for number, name, *_ in json.loads(event.detail)["payload_types"]]
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            found.append((event.at_ns, _table(types)))
    return np.array([at_ns for at_ns, _ in found], np.int64), [table for _, table in found]


def _table(types: Sequence[tuple[int, str]]) -> dict[int, int]:
    return {number: _NAMES[name.lower()] for number, name in types if name.lower() in _NAMES}


def _look_up(agreements: Sequence[Mapping[int, int]], current: int, number: int) -> int:
    for table in (*agreements[current:], *reversed(agreements[:current]), _STATIC):
        if number in table:
            return table[number]
    return UNKNOWN


def _guess(envelope: Envelope, number: int) -> int | None:
    if number < _FIRST_DYNAMIC:
        return None
    return _NAMES.get(envelope.codec.lower(), CODECS.index(Codec.OPUS) if not envelope.codec else None)
