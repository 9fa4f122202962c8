"""SRTP for any packet, any order and any change of a bit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aftertone.model import MasterKey, Suite
from aftertone.rtp.replay import WINDOW, ReplayWindow
from aftertone.rtp.srtp import SrtpReceiver, SrtpSender

SUITES = st.sampled_from(list(Suite))


def _key(suite: Suite, mki: bytes) -> MasterKey:
    return MasterKey(suite, bytes(range(suite.key_bytes)), bytes(range(suite.salt_bytes)), mki)


def _rtp(sequence: int, payload: bytes, ssrc: int, csrcs: int = 0) -> bytes:
    head = bytes((0x80 | csrcs, 8)) + (sequence & 0xFFFF).to_bytes(2, "big") + bytes(4) + ssrc.to_bytes(4, "big")
    return head + bytes(4 * csrcs) + payload


@given(
    SUITES,
    st.binary(max_size=4),
    st.binary(max_size=200),
    st.integers(0, 0xFFFF),
    st.integers(0, 2**32 - 1),
    st.integers(0, 15),
    st.data(),
)
def test_any_packet_comes_back_and_any_flipped_bit_is_refused(
    suite: Suite, mki: bytes, payload: bytes, sequence: int, ssrc: int, csrcs: int, data: st.DataObject
) -> None:
    master = _key(suite, mki)
    packet = _rtp(sequence, payload, ssrc, csrcs)
    report = bytes((0x81, 201, 0, 1)) + ssrc.to_bytes(4, "big") + payload
    sender = SrtpSender(master)
    for protected, plain in ((sender.protect(packet), packet), (sender.protect_rtcp(report), report)):
        receiver = SrtpReceiver(master)
        open_ = receiver.open if plain is packet else receiver.open_rtcp
        bit = data.draw(st.integers(0, 8 * len(protected) - 1))
        spoilt = bytearray(protected)
        spoilt[bit // 8] ^= 1 << bit % 8
        assert open_(bytes(spoilt)) is None
        cut = data.draw(st.integers(0, len(protected) - 1))
        assert open_(protected[:cut]) is None
        assert open_(protected) == plain
        assert open_(protected) is None


@given(SUITES, st.binary(max_size=3), st.lists(st.binary(max_size=80), max_size=10))
def test_hostile_bytes_raise_nothing(suite: Suite, mki: bytes, datagrams: list[bytes]) -> None:
    receiver = SrtpReceiver(_key(suite, mki))
    for datagram in datagrams:
        assert receiver.open(datagram) is None
        assert receiver.open_rtcp(datagram) is None


@given(SUITES, st.integers(0, 0x7FFF), st.lists(st.integers(-WINDOW + 1, 2 * WINDOW), max_size=60))
def test_each_packet_is_taken_once_in_any_order_within_the_window(suite: Suite, first: int, steps: list[int]) -> None:
    """Steps wander forth and back around the wrap of the sequence number."""
    master = _key(suite, b"")
    base = 0x10000 - first % 300
    window, receiver, taken = ReplayWindow(), SrtpReceiver(master), set[int]()
    highest = base
    for step in [0, *steps]:
        index = max(base, highest + step)
        sender = SrtpSender(master)
        sender._counter = index >> 16
        packet = _rtp(index, b"sound", 7)
        opened = receiver.open(sender.protect(packet))
        fresh = index not in taken and index > highest - WINDOW
        assert (opened == packet) is fresh
        assert window.is_fresh(index) is fresh
        if fresh:
            window.take(index)
            taken.add(index)
            highest = max(highest, index)
