"""Offers and answers: what two sides agree to send each other, as a ``MediaPlan``.

Owns: the choice of stream and codec, directions and hold, packet time, and the text of our answers and offers. Refuses to
know: sockets, audio, who called. Addresses of the peer are hints only: the media plane locks on what really arrives.

Theory of operation. Of an offer, the first audio stream that is plain RTP, has a port and a codec that we speak is taken;
every other stream is answered with port 0 in its place (RFC 3264 section 6). No such stream: NotAcceptable, answered 488.
A stream that can be encrypted goes before one that cannot; whether one may or must be is told by ``Secrecy``
(``profiles``, ``crypto``).

Choice of codec: ours, best sound first (``DEFAULT_CODECS``), among those offered. RFC 3264 section 6.1 recommends the
offer's order unless there is a reason; ours is that the recording is kept for years and the offer's order serves a
conversation. The two G.711 laws sound the same, so between them the offer decides. A peer that takes no packets of 20 ms
gets Opus only if it offers nothing else, since that is how we send it.

The answer names exactly one codec, with its telephone-event and comfort noise: peers that are given several switch in
the middle of a call, or mistake the list for a wish to renegotiate; one is what all of them cope with. Yet careless peers
send the other G.711 law or comfort noise without having agreed on it, and their static numbers leave no doubt, so
``MediaPlan.payload_types`` names those too when the clock fits. There is no ``a=silenceSupp`` (RFC 3108): it belongs to
ATM, and silence that is not sent is a gap in the timestamps, which delivery fills.

Hold is a direction, or the address 0.0.0.0 of RFC 2543, which means "do not send to me".

Spec: RFC 3264, RFC 4568 sections 5 and 7 (keys), RFC 5761 section 5.1.1 (rtcp-mux), RFC 3605 (a=rtcp), RFC 7587 section 7
(Opus).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from aftertone.model import CLOCK_RATE_HZ, Codec, PayloadType
from aftertone.sdp.crypto import CryptoLine, Keys, Secrecy, answer_line, offer_lines, serialize_line
from aftertone.sdp.description import Attribute, Description, Media, Origin, SdpError, decimal, parse, serialize
from aftertone.sdp.formats import COMFORT_NOISE, STATIC, TELEPHONE_EVENT, attributes, payload_types
from aftertone.sdp.profiles import NotAcceptable, agreed_keys, candidates, none_fits, offered_profile, takeable

__all__ = ["DEFAULT_CODECS", "Direction", "MediaPlan", "NotAcceptable", "answer", "offer", "plan_from_answer"]

DEFAULT_CODECS: Final = (Codec.OPUS, Codec.G722, Codec.PCMA, Codec.PCMU)
"""Every codec that we speak, best sound first."""

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

USUAL_PTIME_MS: Final = 20
SHORTEST_PTIME_MS: Final = 10
LONGEST_PTIME_MS: Final = 60

_G711: Final = frozenset({Codec.PCMA.value, Codec.PCMU.value})
_IMPLIED: Final = (STATIC[0], STATIC[8], STATIC[13])
_OPUS_PTIMES_MS: Final = (10, 20, 40, 60)
"""Packet times that are one Opus frame (RFC 6716 section 2.1.4)."""
_OFFERED_NUMBERS: Final[Mapping[Codec, int]] = {Codec.OPUS: 96, Codec.G722: 9, Codec.PCMA: 8, Codec.PCMU: 0}
_OFFERED_KEYS: Final[Mapping[int, int]] = {8000: 101, 48000: 102}

_FLOWS: Final[Mapping[Direction, tuple[bool, bool]]] = {
    "sendrecv": (True, True),
    "sendonly": (True, False),
    "recvonly": (False, True),
    "inactive": (False, False),
}
"""Whether the side that says so sends, and whether it receives."""
_NAMED: Final[Mapping[tuple[bool, bool], Direction]] = {flows: name for name, flows in _FLOWS.items()}


@dataclass(frozen=True, slots=True)
class MediaPlan:
    """What was agreed for the one audio stream of a call."""

    codec: Codec
    payload_type: int
    """The number that we send ``codec`` with."""
    payload_types: tuple[PayloadType, ...]
    """All that may arrive, the chosen codec first."""
    remote: tuple[str, int] | None
    """Where the peer says that it receives (an IP address, never a name). None: it is on hold by address, or what it
    names is no unicast address that we can reach from ours; then only the source latch knows."""
    direction: Direction
    """Ours: "recvonly" means that we receive only."""
    ptime_ms: int
    """Sound in each packet that we send: 10 to 60, a multiple of 10."""
    telephone_event: int | None
    """Number of the telephone-event that goes with ``codec``; None when it was not agreed."""
    comfort_noise: int | None
    """Number with which we may send comfort noise; None when it was not agreed."""
    rtcp_mux: bool = False
    """True when RTCP comes and goes on the port of the RTP."""
    remote_rtcp: tuple[str, int] | None = None
    """Where the peer wants RTCP; None whenever ``remote`` is None."""
    keys: Keys | None = None
    """What RTP and RTCP are protected with; None for a stream that is not encrypted."""


def answer(
    offer: bytes,
    *,
    local_host: str,
    local_port: int,
    session_id: int,
    version: int,
    codecs: Sequence[Codec] = DEFAULT_CODECS,
    secrecy: Secrecy | None = None,
) -> tuple[bytes, MediaPlan]:
    """Answer an offer, the first of a dialog or a later one.

    ``local_host`` is the IP address that we receive at. The caller raises ``version`` by one with each answer in the
    dialog that differs from the one before. Without ``secrecy`` nothing is encrypted. Raises SdpError (400) when the offer
    is malformed, NotAcceptable (488) when none of its streams can be taken, ValueError when ``local_host`` is not an IP
    address. Spec: RFC 3264 section 6.
    """
    family = _family(local_host)
    offered = parse(offer)
    index, known, voice, line = _choose(offered, codecs, secrecy)
    stream, codec = offered.media[index], Codec(voice.name)
    keys = _keys_for(voice, known)
    noise = _noise_for(voice, known)
    agreed = tuple(p for p in (voice, keys, noise) if p is not None)
    theirs, remote = _flow(offered, stream, family)
    direction = _NAMED[theirs[1], theirs[0]]
    ptime_ms = _ptime(offered, stream, codec)
    mux = stream.attribute("rtcp-mux") is not None
    our_line = answer_line(line, secrecy) if line is not None and secrecy is not None else None
    plan = MediaPlan(
        codec=codec,
        payload_type=voice.number,
        payload_types=_arrivals(agreed, codecs),
        remote=remote,
        direction=direction,
        ptime_ms=ptime_ms,
        telephone_event=keys.number if keys else None,
        comfort_noise=noise.number if noise else None,
        rtcp_mux=mux,
        remote_rtcp=_rtcp(stream, remote, mux),
        keys=Keys(our_line.master, line.master, stream.protocol) if line is not None and our_line is not None else None,
    )
    lines = () if our_line is None else (our_line,)
    ours = _stream(stream.protocol, local_port, agreed, ptime_ms, direction, mux=mux, lines=lines)
    media = tuple(ours if n == index else _refused(m) for n, m in enumerate(offered.media))
    # RFC 3264 section 6: the times of an answer are those of the offer.
    return serialize(_session(local_host, session_id, version, media, offered.timing)), plan


def offer(
    *,
    local_host: str,
    local_port: int,
    session_id: int,
    version: int,
    codecs: Sequence[Codec] = DEFAULT_CODECS,
    direction: Direction = "sendrecv",
    ptime_ms: int = USUAL_PTIME_MS,
    secrecy: Secrecy | None = None,
) -> bytes:
    """Write an offer of one audio stream: for a call of our own, and for an INVITE that came without one.

    All of ``codecs`` in order, telephone-event for each clock rate, comfort noise beside an 8000 Hz codec. What it
    offers may arrive from the moment it is sent. With ``secrecy`` it offers keys: in RTP/SAVP where they are required, in
    RTP/AVP where they are not (RFC 8643), and the key that was agreed on before where there is one. Raises ValueError when
    ``local_host`` is not an IP address, or no codec is given. Spec: RFC 3264 section 5.
    """
    _family(local_host)
    if not codecs:
        raise ValueError("an offer needs a codec")
    voices = [PayloadType(_OFFERED_NUMBERS[c], c.value, CLOCK_RATE_HZ[c]) for c in codecs]
    rates = dict.fromkeys(v.clock_rate_hz for v in voices)
    keys = [PayloadType(_OFFERED_KEYS[rate], TELEPHONE_EVENT, rate) for rate in rates]
    noise = [STATIC[13]] if 8000 in rates else []
    profile = offered_profile(secrecy)
    lines = offer_lines(secrecy) if secrecy is not None and secrecy.policy != "off" else ()
    stream = _stream(profile, local_port, (*voices, *keys, *noise), ptime_ms, direction, mux=True, lines=lines)
    return serialize(_session(local_host, session_id, version, (stream,), "0 0"))


def plan_from_answer(offer: bytes, answer: bytes) -> MediaPlan:
    """Return what an ``answer`` to our ``offer`` agrees on.

    The first codec in the answer that we offered is the one that we send, with the answer's number; what arrives bears the
    offer's number by RFC 3264 section 5.1 and the answer's in practice, so the plan names both. Raises SdpError when either
    is malformed, NotAcceptable when the answer takes no stream, no codec or, where the profile demands one, no key of ours.
    """
    ours, theirs = parse(offer), parse(answer)
    index = next((n for n, m in enumerate(ours.media) if m.kind == "audio"), None)
    if index is None:
        raise SdpError("the offer has no audio stream")
    stream = _answered(theirs.media, index)
    agreed = agreed_keys(ours.media[index], stream)
    offered = payload_types(ours.media[index])
    names = {(p.name, p.clock_rate_hz) for p in offered}
    known = payload_types(stream, {p.number: p for p in offered})
    known = tuple(p for p in known if (p.name, p.clock_rate_hz) in names)
    voice = next((p for p in known if _is_voice(p)), None)
    if voice is None:
        raise NotAcceptable("the answer takes none of the codecs offered")
    keys, noise = _keys_for(voice, known), _noise_for(voice, known)
    codec = Codec(voice.name)
    flows, remote = _flow(theirs, stream, _family(ours.media[index].host or ours.host or ours.origin.host))
    sends, receives = _FLOWS[_direction(ours, ours.media[index])]
    mux = ours.media[index].attribute("rtcp-mux") is not None and stream.attribute("rtcp-mux") is not None
    return MediaPlan(
        codec=codec,
        payload_type=voice.number,
        payload_types=_arrivals(
            _both_numbers((voice, *known), offered), [Codec(p.name) for p in offered if _is_voice(p)]
        ),
        remote=remote,
        direction=_NAMED[sends and flows[1], receives and flows[0]],
        ptime_ms=_ptime(theirs, stream, codec),
        telephone_event=_offered_number(keys, offered),
        comfort_noise=noise.number if noise else None,
        rtcp_mux=mux,
        remote_rtcp=_rtcp(stream, remote, mux),
        keys=agreed,
    )


def _choose(
    description: Description, codecs: Sequence[Codec], secrecy: Secrecy | None
) -> tuple[int, tuple[PayloadType, ...], PayloadType, CryptoLine | None]:
    """Return the index of the stream to take, its formats that we know, the one to speak, and the key to take."""
    rank = {str(codec): place for place, codec in enumerate(codecs)}
    laws = rank.keys() & _G711
    rank |= dict.fromkeys(laws, min((rank[law] for law in laws), default=0))

    for index, line in candidates(description.media, secrecy):
        stream = description.media[index]
        known = payload_types(stream)
        cannot = _too_long(description, stream)
        voices = (p for p in known if p.name in rank)
        voice = min(voices, key=lambda p: (p.name in cannot, rank[p.name]), default=None)
        if voice is not None:
            return index, known, voice, line
    raise none_fits(secrecy)


def _answered(media: Sequence[Media], index: int) -> Media:
    """Return the stream that answers our stream ``index``, or the first audio stream when the peer lost count."""
    for stream in [*media[index : index + 1], *media]:
        if takeable(stream):
            return stream
    raise NotAcceptable("the answer takes no audio stream")


def _is_voice(known: PayloadType) -> bool:
    return known.name not in (TELEPHONE_EVENT, COMFORT_NOISE)


def _keys_for(voice: PayloadType, known: Iterable[PayloadType]) -> PayloadType | None:
    """Return the telephone-event with the clock of ``voice``, else any.

    RFC 4733 section 2.1 wants equal clocks; older Asterisk and Linphone offer only 8000 Hz beside Opus, and a wrong clock
    costs a wrong duration while a refused format costs the keys.
    """
    keys = [p for p in known if p.name == TELEPHONE_EVENT]
    return next((p for p in keys if p.clock_rate_hz == voice.clock_rate_hz), keys[0] if keys else None)


def _noise_for(voice: PayloadType, known: Iterable[PayloadType]) -> PayloadType | None:
    """Return the comfort noise with the clock of ``voice``: with another it would break the timestamps (RFC 3389)."""
    same = (p for p in known if p.name == COMFORT_NOISE and p.clock_rate_hz == voice.clock_rate_hz)
    return next(same, None)


def _both_numbers(known: Iterable[PayloadType], offered: Sequence[PayloadType]) -> tuple[PayloadType, ...]:
    """Name each agreed format by the offer's number, then by the answer's where that is free."""
    arriving: dict[int, PayloadType] = {}
    answered = tuple(dict.fromkeys(known))
    for theirs in answered:
        for ours in offered:
            if (ours.name, ours.clock_rate_hz) == (theirs.name, theirs.clock_rate_hz):
                arriving.setdefault(ours.number, ours)
    for theirs in answered:
        arriving.setdefault(theirs.number, theirs)
    return tuple(arriving.values())


def _offered_number(known: PayloadType | None, offered: Iterable[PayloadType]) -> int | None:
    if known is None:
        return None
    return next(p.number for p in offered if (p.name, p.clock_rate_hz) == (known.name, known.clock_rate_hz))


def _arrivals(agreed: Sequence[PayloadType], codecs: Sequence[Codec]) -> tuple[PayloadType, ...]:
    """Add what careless peers send unasked to what was agreed: see the module's text."""
    if agreed[0].clock_rate_hz != 8000:
        return tuple(agreed)
    taken = {p.number for p in agreed}
    names = {p.name for p in agreed}
    spoken = {codec.value for codec in codecs} | {COMFORT_NOISE}
    implied = (p for p in _IMPLIED if p.number not in taken and p.name not in names and p.name in spoken)
    return (*agreed, *implied)


def _direction(description: Description, stream: Media) -> Direction:
    """Return the direction that the writer of ``description`` gives ``stream``: its own, else the session's."""
    for scope in (stream.attributes, description.attributes):
        for name, _ in scope:
            for direction in _FLOWS:
                if name == direction:
                    return direction
    return "sendrecv"


def _flow(description: Description, stream: Media, family: int) -> tuple[tuple[bool, bool], tuple[str, int] | None]:
    """Return whether the peer sends and receives, and where it receives."""
    sends, receives = _FLOWS[_direction(description, stream)]
    address = _ip(stream.host or description.host or "")
    if address is None:
        return (sends, receives), None
    if address.is_unspecified:
        return (sends, False), None
    if address.is_multicast or address.version > family or str(address) == "255.255.255.255":
        return (sends, receives), None
    return (sends, receives), (str(address), stream.port)


def _rtcp(stream: Media, remote: tuple[str, int] | None, mux: bool) -> tuple[str, int] | None:
    """Return where RTCP goes: the same port with mux, the one of ``a=rtcp``, else the next one (RFC 3550 section 11)."""
    if remote is None or mux:
        return remote
    fields = (stream.attribute("rtcp") or "").split()
    port = decimal(fields[0], 65_535) if fields else None
    # The address that may follow is ignored: reports about a stream go to where the stream goes, never to a third party.
    return remote[0], port or min(remote[1] + 1, 65_535)


def _ptime(description: Description, stream: Media, codec: Codec) -> int:
    """Return the packet time to use: the peer's wish within its ``maxptime`` and our own bounds."""
    wish = _milliseconds(stream.attribute("ptime") or description.attribute("ptime")) or USUAL_PTIME_MS
    most = _milliseconds(stream.attribute("maxptime") or description.attribute("maxptime")) or LONGEST_PTIME_MS
    bounded = max(SHORTEST_PTIME_MS, min(wish, most, LONGEST_PTIME_MS)) // 10 * 10
    if codec is Codec.OPUS:
        return max(p for p in _OPUS_PTIMES_MS if p <= bounded)
    return bounded


def _too_long(description: Description, stream: Media) -> frozenset[str]:
    """Return the codecs whose packets as we send them pass the peer's ``maxptime``: Opus, of which ours have 20 ms."""
    most = _milliseconds(stream.attribute("maxptime") or description.attribute("maxptime"))
    return frozenset({Codec.OPUS.value}) if most and most < USUAL_PTIME_MS else frozenset()


def _milliseconds(value: str | None) -> int | None:
    return decimal(value.partition(".")[0], 10_000) if value else None


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        # A zone (fe80::1%eth0) names an interface of the peer's machine, which means nothing on ours.
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


def _family(local_host: str) -> int:
    address = _ip(local_host)
    if address is None:
        raise ValueError(f"not an IP address: {local_host!r}")
    return address.version


def _session(host: str, session_id: int, version: int, media: tuple[Media, ...], timing: str) -> Description:
    origin = Origin("-", str(session_id), str(version), host)
    return Description(origin=origin, host=host, timing=timing, media=media)


def _stream(
    protocol: str,
    port: int,
    types: Sequence[PayloadType],
    ptime_ms: int,
    direction: Direction,
    *,
    mux: bool,
    lines: Sequence[CryptoLine] = (),
) -> Media:
    text: list[Attribute] = [*attributes(types), ("ptime", str(ptime_ms)), (direction, "")]
    text += [serialize_line(line) for line in lines]
    if mux:
        text.append(("rtcp-mux", ""))
    return Media("audio", port, protocol, tuple(str(p.number) for p in types), None, tuple(text))


def _refused(stream: Media) -> Media:
    """Answer a stream with port 0. One format is enough, as they are ignored, and keeps the answer small."""
    return Media(stream.kind, 0, stream.protocol, stream.formats[:1] or ("0",))
