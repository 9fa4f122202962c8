"""SRTP: what one direction of an encrypted stream does to its RTP and RTCP packets.

Owns: the layout of protected packets, the packet index, the state of each synchronisation source. Refuses to know: ciphers
(``transform``), how keys were agreed on, sockets.

Theory of operation: an ``SrtpSender`` protects, an ``SrtpReceiver`` opens; each has one master key. A packet is opened in the order
that RFC 3711 section 3.3 gives: guess the index, refuse what was here before, authenticate, and only then decrypt and remember.
Nothing that is not authentic changes anything, and nothing raises: what is refused is None. Sources get a state with
their first authentic packet, so only who has the key can make us keep one.

A receiver that hears a stream from its middle on cannot know how often its sequence numbers wrapped. RFC 4568 section 6.4.2 lets
streams begin with a rollover counter of 0; a caller who sent from the first ringing on may have wrapped once before we
listened, so a first packet with a low number is tried with 1 as well.

Counter mode: header | ciphertext | index word, in RTCP only | MKI | tag. GCM: header | ciphertext | tag | index word | MKI.

Spec: RFC 3711 sections 3.1, 3.3 and 3.4; RFC 7714 sections 8 and 9. The key derivation rate is 0; re-keying is a new object.
"""

from __future__ import annotations

import struct
from typing import Final

from aftertone.model import MasterKey
from aftertone.rtp.replay import ReplayWindow
from aftertone.rtp.transform import rtcp_transform, rtp_transform

MOST_SOURCES: Final = 32
"""Sources that one receiver remembers. A call changes its source a few times; beyond, the oldest is forgotten."""
_RTP_HEADER: Final = 12
_RTCP_HEADER: Final = 8
_WORD: Final = struct.Struct("!I")
_ENCRYPTED: Final = 0x80000000
_HALF: Final = 1 << 15


class SrtpSender:
    """Protects what we send with ``master``. Belongs to one thread."""

    __slots__ = ("_counter", "_mki", "_rtcp", "_rtcp_index", "_rtp", "_sequence", "master")

    def __init__(self, master: MasterKey) -> None:
        self.master = master
        self._rtp, self._rtcp = rtp_transform(master), rtcp_transform(master)
        self._mki = master.mki
        self._sequence = -1
        self._counter = 0
        self._rtcp_index = 0

    def protect(self, packet: bytes) -> bytes:
        """Return our next RTP packet protected.

        Packets come in order, with one SSRC. Raises ValueError for what is no RTP packet, struct.error after 2^48 packets,
        which is beyond what a key may protect.
        """
        start = _payload_start(packet, len(packet))
        if start is None:
            raise ValueError("not an RTP packet")
        sequence = packet[2] << 8 | packet[3]
        if sequence < self._sequence:
            self._counter += 1
        self._sequence = sequence
        transform, head, ssrc = self._rtp, packet[:start], _WORD.unpack_from(packet, 8)[0]
        counter = _WORD.pack(self._counter)
        bound = b"" if transform.is_gcm else counter
        sealed, tag = transform.seal(head, packet[start:], ssrc, self._counter << 16 | sequence, bound)
        if transform.is_gcm:
            return head + sealed + tag + self._mki
        return head + sealed + self._mki + tag

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Return an RTCP packet protected and encrypted. Raises ValueError for what is none, or after 2^31 of them."""
        if len(packet) < _RTCP_HEADER:
            raise ValueError("not an RTCP packet")
        index = self._rtcp_index
        if index >= _ENCRYPTED:
            raise ValueError("this key has protected as many RTCP packets as it may")
        self._rtcp_index += 1
        transform, head, ssrc = self._rtcp, packet[:_RTCP_HEADER], _WORD.unpack_from(packet, 4)[0]
        word = _WORD.pack(index | _ENCRYPTED)
        sealed, tag = transform.seal(head, packet[_RTCP_HEADER:], ssrc, index, word)
        if transform.is_gcm:
            return head + sealed + tag + word + self._mki
        return head + sealed + word + self._mki + tag


class SrtpReceiver:
    """Opens what arrives under ``master``. Belongs to one thread."""

    __slots__ = ("_mki", "_rtcp", "_rtcp_windows", "_rtp", "_rtp_windows", "master")

    def __init__(self, master: MasterKey) -> None:
        self.master = master
        self._rtp, self._rtcp = rtp_transform(master), rtcp_transform(master)
        self._mki = master.mki
        self._rtp_windows: dict[int, ReplayWindow] = {}
        self._rtcp_windows: dict[int, ReplayWindow] = {}

    def open(self, packet: bytes) -> bytes | None:
        """Return the RTP packet in ``packet``, or None when it is not authentic, was here before, or is none."""
        transform = self._rtp
        end = len(packet) - transform.tag_bytes - len(self._mki)
        start = _payload_start(packet, end)
        if start is None:
            return None
        tag_at, mki_at = (end, end + transform.tag_bytes) if transform.is_gcm else (end + len(self._mki), end)
        if packet[mki_at : mki_at + len(self._mki)] != self._mki:
            return None
        head, sealed, tag = packet[:start], packet[start:end], packet[tag_at : tag_at + transform.tag_bytes]
        ssrc, sequence = _WORD.unpack_from(packet, 8)[0], packet[2] << 8 | packet[3]
        window = self._rtp_windows.get(ssrc)
        if window is None:
            window = ReplayWindow()
            indices = [sequence, sequence + (1 << 16)] if sequence < _HALF else [sequence]
        else:
            index = window.guess(sequence)
            if not window.is_fresh(index):
                return None
            indices = [index]
        for index in indices:
            bound = b"" if transform.is_gcm else _WORD.pack(index >> 16)
            plain = transform.open(head, sealed, tag, ssrc, index, bound)
            if plain is not None:
                window.take(index)
                _remember(self._rtp_windows, ssrc, window)
                return head + plain
        return None

    def open_rtcp(self, packet: bytes) -> bytes | None:
        """Return the RTCP packet in ``packet``, or None as ``open`` does. One that is authentic and not encrypted is taken."""
        transform, mki = self._rtcp, self._mki
        end = len(packet) - transform.tag_bytes - len(mki) - _WORD.size
        if end < _RTCP_HEADER or packet[0] >> 6 != 2:
            return None
        word_at = end + transform.tag_bytes if transform.is_gcm else end
        tag_at = end if transform.is_gcm else len(packet) - transform.tag_bytes
        mki_at = word_at + _WORD.size
        if packet[mki_at : mki_at + len(mki)] != mki:
            return None
        word, tag = packet[word_at : word_at + _WORD.size], packet[tag_at : tag_at + transform.tag_bytes]
        ssrc, value = _WORD.unpack_from(packet, 4)[0], _WORD.unpack(word)[0]
        index = value & ~_ENCRYPTED
        window = self._rtcp_windows.get(ssrc) or ReplayWindow()
        if not window.is_fresh(index):
            return None
        start = _RTCP_HEADER if value & _ENCRYPTED else end
        plain = transform.open(packet[:start], packet[start:end], tag, ssrc, index, word)
        if plain is None:
            return None
        window.take(index)
        _remember(self._rtcp_windows, ssrc, window)
        return packet[:start] + plain


def is_rtcp(packet: bytes) -> bool:
    """Say whether a datagram on a port that RTP and RTCP share is RTCP (RFC 5761 section 4), protected or not."""
    return len(packet) > 1 and 192 <= packet[1] <= 223


def _remember(windows: dict[int, ReplayWindow], ssrc: int, window: ReplayWindow) -> None:
    if ssrc not in windows and len(windows) >= MOST_SOURCES:
        del windows[next(iter(windows))]
    windows[ssrc] = window


def _payload_start(packet: bytes, size: int) -> int | None:
    """Return where the payload begins, after contributing sources and extension; None unless the first ``size`` bytes are RTP."""
    if size < _RTP_HEADER or packet[0] >> 6 != 2:
        return None
    start = _RTP_HEADER + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        if start + 4 > size:
            return None
        start += 4 + 4 * (packet[start + 2] << 8 | packet[start + 3])
    return start if start <= size else None
