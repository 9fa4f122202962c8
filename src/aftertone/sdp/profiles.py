"""Profiles: which streams may be taken, encrypted or not, and which keys an answer agrees on.

Owns: the names of profiles and what a ``Secrecy`` makes of a stream. Refuses to know: codecs, the text of keys (``crypto``).

Theory of operation: RTP/SAVP and RTP/SAVPF need a key. RTP/AVP and RTP/AVPF may have one: peers that would rather talk
unencrypted than not at all offer it so, and an answer with a key makes the stream an encrypted one of that profile. Others
offer two streams, one of each kind, and have the better one taken. Streams keyed by DTLS are none that we take.

Spec: RFC 3711, RFC 4568 section 3, RFC 4585, RFC 5124, RFC 8643.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aftertone.sdp import crypto
from aftertone.sdp.crypto import CryptoLine, Keys, Policy, Secrecy
from aftertone.sdp.description import Media, SdpError

PLAIN: Final = "RTP/AVP"
SECURE: Final = "RTP/SAVP"
_PLAIN: Final = frozenset({PLAIN, "RTP/AVPF"})
_SECURE: Final = frozenset({SECURE, "RTP/SAVPF"})
_KINDS: Final[dict[Policy, str]] = {
    "off": "unencrypted",
    "optional": "unencrypted or SDES-keyed",
    "required": "encrypted, SDES-keyed",
}


class NotAcceptable(SdpError):
    """The description is well formed, and nothing in it is a stream that we can take."""

    sip_status = 488


def takeable(stream: Media) -> bool:
    """Say whether a stream is one of the kinds that we speak, whatever its keys."""
    return stream.kind == "audio" and stream.port != 0 and stream.protocol.upper() in _PLAIN | _SECURE


def candidates(media: Sequence[Media], secrecy: Secrecy | None) -> list[tuple[int, CryptoLine | None]]:
    """Return the streams of an offer that may be taken, as places in it, encrypted ones first, each with the key to take."""
    policy = policy_of(secrecy)
    streams = [(index, stream) for index, stream in enumerate(media) if takeable(stream)]
    found: list[tuple[int, CryptoLine | None]] = []
    if policy != "off":
        lines = ((index, crypto.choose(crypto.parse_lines(stream.attributes))) for index, stream in streams)
        found += [(index, line) for index, line in lines if line is not None]
    if policy != "required":
        found += [(index, None) for index, stream in streams if stream.protocol.upper() in _PLAIN]
    return found


def policy_of(secrecy: Secrecy | None) -> Policy:
    """Return the policy; who says nothing encrypts nothing."""
    return "off" if secrecy is None else secrecy.policy


def none_fits(secrecy: Secrecy | None) -> NotAcceptable:
    """Return what an offer without a stream for us is refused with."""
    kind = _KINDS[policy_of(secrecy)]
    return NotAcceptable(f"the offer has no {kind} RTP audio stream with a codec that this machine speaks")


def offered_profile(secrecy: Secrecy | None) -> str:
    """Return the profile of our own offer: what was agreed on before, else a plain one unless keys are required."""
    if secrecy is None or secrecy.policy == "off":
        return PLAIN
    if secrecy.agreed is not None:
        return secrecy.agreed.profile
    return SECURE if secrecy.policy == "required" else PLAIN


def agreed_keys(ours: Media, theirs: Media) -> Keys | None:
    """Return the keys that an answer takes of our offer. Raises NotAcceptable when a profile needs one and none is taken."""
    pair = crypto.accepted(crypto.parse_lines(ours.attributes), crypto.parse_lines(theirs.attributes))
    if pair is not None:
        return Keys(*pair, ours.protocol)
    if {ours.protocol.upper(), theirs.protocol.upper()} & _SECURE:
        raise NotAcceptable("the answer takes none of the keys offered")
    return None
