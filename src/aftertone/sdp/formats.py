"""What the payload type numbers of an ``m=`` line mean, and how ours are written.

Owns: static payload types, ``a=rtpmap`` and ``a=fmtp`` for the formats the machine speaks. Refuses to know: offers, answers,
addresses, and every other codec: a format that we do not speak is skipped as if it were not there.

Theory of operation: an ``rtpmap`` decides, a static number needs none (RFC 3551 section 6). Names are compared without
case and looked up together with the clock rate, so that PCMU at 16000 Hz is not mistaken for telephone sound.

Spec: RFC 3551, RFC 3389 (CN), RFC 4733 (telephone-event), RFC 7587 (Opus).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from aftertone.model import CLOCK_RATE_HZ, Codec, PayloadType
from aftertone.sdp.description import Attribute, Media, decimal

TELEPHONE_EVENT: Final = "telephone-event"
COMFORT_NOISE: Final = "CN"

STATIC: Final[Mapping[int, PayloadType]] = {
    0: PayloadType(0, Codec.PCMU.value, 8000),
    8: PayloadType(8, Codec.PCMA.value, 8000),
    9: PayloadType(9, Codec.G722.value, 8000),
    13: PayloadType(13, COMFORT_NOISE, 8000),
}
"""Numbers whose meaning needs no ``rtpmap``. G.722 counts 8000 for its 16000 samples (RFC 3551 section 4.5.2)."""

_CODECS: Final[Mapping[tuple[str, int], str]] = {
    (codec.value.lower(), CLOCK_RATE_HZ[codec]): codec.value for codec in Codec
}

_OPUS: Final = Codec.OPUS.value
OPUS_PARAMETERS: Final = "maxaveragebitrate=32000; stereo=0; sprop-stereo=0; useinbandfec=1"
"""One voice: 32 kbit/s is full-band speech (RFC 7587 section 3.1.1), mono both ways, and redundancy against loss."""
KEYS: Final = "0-15"
"""The telephone-events that we understand: ten digits, star, hash, A to D (RFC 4733 section 3.2)."""


def payload_types(media: Media, ours: Mapping[int, PayloadType] | None = None) -> tuple[PayloadType, ...]:
    """Return the formats of ``media`` that we speak, in its order, each number once.

    ``ours`` gives the meaning of numbers that carry no ``rtpmap``: in an answer, the mapping of the offer, which some
    peers leave out. A malformed ``rtpmap`` is as good as none.
    """
    mapped = _mappings(media.attributes)
    found: dict[int, PayloadType] = {}
    for token in media.formats:
        number = decimal(token, 127)
        if number is None or number in found:
            continue
        if number in mapped:
            name, clock_rate_hz = mapped[number]
            known = PayloadType(number, name, clock_rate_hz) if name else None
        else:
            known = (ours or {}).get(number) or STATIC.get(number)
        if known is not None:
            found[number] = known
    return tuple(found.values())


def _mappings(attributes: Iterable[Attribute]) -> dict[int, tuple[str, int]]:
    """Read the ``rtpmap`` lines: number to (our name or "", clock rate). The first one for a number counts."""
    mapped: dict[int, tuple[str, int]] = {}
    for key, value in attributes:
        if key != "rtpmap":
            continue
        fields = value.split(None, 1)
        number = decimal(fields[0], 127) if len(fields) == 2 else None
        if number is None or number in mapped:
            continue
        name, _, rest = fields[1].partition("/")
        rate, _, channels = rest.partition("/")
        clock_rate_hz = decimal(rate.strip(), 384_000) or 0
        mapped[number] = _our_name(name.strip().lower(), clock_rate_hz, channels.strip()), clock_rate_hz
    return mapped


def _our_name(name: str, clock_rate_hz: int, channels: str) -> str:
    if clock_rate_hz == 0:
        return ""
    if name == TELEPHONE_EVENT:
        return TELEPHONE_EVENT
    if name == "cn":
        return COMFORT_NOISE
    codec = _CODECS.get((name, clock_rate_hz), "")
    # Opus always says two channels, whatever is inside (RFC 7587 section 7); of the others we speak only one.
    return codec if channels in ("", "1") or codec == _OPUS else ""


def attributes(types: Iterable[PayloadType]) -> list[Attribute]:
    """Return the ``rtpmap`` lines of ``types``, then their ``fmtp`` lines.

    Static numbers are mapped as well: RFC 3264 section 5.1 recommends it, and it spares the reader the table.
    """
    maps: list[Attribute] = []
    parameters: list[Attribute] = []
    for known in types:
        channels = "/2" if known.name == _OPUS else ""
        maps.append(("rtpmap", f"{known.number} {known.name}/{known.clock_rate_hz}{channels}"))
        if known.name == _OPUS:
            parameters.append(("fmtp", f"{known.number} {OPUS_PARAMETERS}"))
        elif known.name == TELEPHONE_EVENT:
            parameters.append(("fmtp", f"{known.number} {KEYS}"))
    return maps + parameters
