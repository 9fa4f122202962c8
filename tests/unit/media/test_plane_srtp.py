"""The media plane with encrypted calls: what is authentic is journalled decrypted, the rest changes nothing."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import replace

import numpy as np
import pytest

from aftertone.journal.batch import unpack_batch
from aftertone.media import plane as planes
from aftertone.media.plane import KeyPressed, Latched, PlainSound
from aftertone.media.player import KEEPALIVE_NS
from aftertone.media.protection import Protection
from aftertone.media.table import Stream
from aftertone.media.unopened import CONVINCING, Unopened
from aftertone.model import Codec, MasterKey, Suite
from aftertone.rtp import rtcp
from aftertone.rtp.events import TelephoneEvent
from aftertone.rtp.events import serialize as serialize_event
from aftertone.rtp.packet import serialize
from aftertone.rtp.srtp import SrtpReceiver, SrtpSender
from tests.unit.media.test_plane import Bench, arrive, bench, peer, say, stamped_by_us

__all__ = ["bench", "peer", "stamped_by_us"]

EACH_SUITE = pytest.mark.parametrize("suite", list(Suite))


def key(fill: int, suite: Suite = Suite.AES_128_GCM) -> MasterKey:
    return MasterKey(suite, bytes([fill]) * suite.key_bytes, bytes([fill]) * suite.salt_bytes)


def secured(peer: socket.socket, suite: Suite = Suite.AES_128_GCM) -> Stream:
    return Stream(
        Codec.PCMU, 0, (0, 8, 13, 101), 101, None, peer.getsockname(), sending=key(1, suite), receiving=key(2, suite)
    )


def start(bench: Bench, stream: Stream) -> tuple[int, int]:
    row, port = bench.plane.lease()
    bench.plane.agree(row, stream)
    bench.plane.record(row, 42, bench.now_ns)
    return row, port


def packet(number: int, payload: bytes = b"\x01" * 160) -> bytes:
    return serialize(0, number, number * 160, 7, payload)


@EACH_SUITE
def test_the_journal_gets_what_was_said_and_not_what_travelled(bench: Bench, peer: socket.socket, suite: Suite) -> None:
    row, port = start(bench, secured(peer, suite))
    sender = SrtpSender(key(2, suite))
    said = [bytes([n]) * 160 for n in range(3)]
    sent = [sender.protect(packet(n, payload)) for n, payload in enumerate(said)]
    for datagram in (sent[1], sent[0], sent[1], sent[2]):
        peer.sendto(datagram, ("127.0.0.1", port))
    arrive(bench, row)
    events = bench.ticks(planes.STRIPES)
    assert bench.payloads() == [said[1], said[0], said[2]]
    assert unpack_batch(bench.batches[0]).sequence.tolist() == [1, 0, 2]
    assert events == [Latched(row, peer.getsockname())]
    assert bench.plane.dropped == {"malformed": 0, "stranger": 0, "payload_type": 0, "unauthentic": 1, "flood": 0}


def test_what_is_not_authentic_neither_latches_nor_is_recorded(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, secured(peer))
    forger = SrtpSender(key(9))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        for number in range(10):
            say(stranger, port, b"\x09" * 160, number)
            stranger.sendto(forger.protect(packet(number)), ("127.0.0.1", port))
        # Even from the right address: a forged source is no key.
        say(peer, port, b"\x09" * 160, 11)
        arrive(bench, row)
        assert bench.ticks(planes.STRIPES) == []
    assert bench.payloads() == []
    assert bench.plane.dropped["unauthentic"] == 21
    peer.sendto(SrtpSender(key(2)).protect(packet(1)), ("127.0.0.1", port))
    arrive(bench, row)
    assert bench.ticks(planes.STRIPES) == [Latched(row, peer.getsockname())]
    assert len(bench.payloads()) == 1


@EACH_SUITE
def test_what_we_send_is_protected(bench: Bench, peer: socket.socket, suite: Suite) -> None:
    row, _ = start(bench, secured(peer, suite))
    bench.plane.play(row, (b"\x05" * 160, b"\x06" * 160))
    bench.ticks(3)
    receiver = SrtpReceiver(key(1, suite))
    for payload in (b"\x05" * 160, b"\x06" * 160):
        datagram = peer.recv(2000)
        assert payload not in datagram
        opened = receiver.open(datagram)
        assert opened is not None and opened[12:] == payload
    bench.now_ns += KEEPALIVE_NS
    bench.ticks(1)
    assert receiver.open(peer.recv(2000)) is not None, "a keepalive too"


def test_plain_and_encrypted_calls_side_by_side(bench: Bench, peer: socket.socket) -> None:
    plain_row, plain_port = start(bench, replace(secured(peer), sending=None, receiving=None))
    row, port = start(bench, secured(peer))
    bench.plane.table.journal_call[plain_row] = 7
    say(peer, plain_port, b"\x01" * 160, 1)
    say(peer, port, b"\x02" * 160, 1)
    peer.sendto(SrtpSender(key(2)).protect(packet(2, b"\x03" * 160)), ("127.0.0.1", port))
    arrive(bench, row)
    arrive(bench, plain_row)
    bench.ticks(planes.STRIPES)
    assert sorted(bench.payloads()) == [b"\x01" * 160, b"\x03" * 160]
    bench.plane.play(plain_row, (b"\x05" * 160,))
    bench.ticks(1)
    # A keepalive of each call came before.
    assert peer.recv(2000) and peer.recv(2000)
    assert peer.recv(2000)[12:] == b"\x05" * 160


def test_keys_by_events_are_heard(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, secured(peer))
    press = serialize_event(TelephoneEvent(11, True, 10, 800))
    peer.sendto(SrtpSender(key(2)).protect(serialize(101, 1, 160, 7, press)), ("127.0.0.1", port))
    arrive(bench, row)
    assert KeyPressed(row, "#") in bench.ticks(planes.STRIPES)


def test_no_word_is_lost_when_the_peer_changes_its_key(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, secured(peer))
    before, after = SrtpSender(key(2)), SrtpSender(key(3))
    target = ("127.0.0.1", port)
    peer.sendto(before.protect(packet(1, b"a" * 160)), target)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    bench.plane.agree(row, replace(secured(peer), receiving=key(3)))
    peer.sendto(before.protect(packet(2, b"b" * 160)), target)
    peer.sendto(after.protect(packet(3, b"c" * 160)), target)
    peer.sendto(before.protect(packet(4, b"d" * 160)), target)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    assert [payload[:1] for payload in bench.payloads()] == [b"a", b"b", b"c"]


def test_the_same_keys_anew_keep_the_place_in_the_stream(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, secured(peer))
    datagram = SrtpSender(key(2)).protect(packet(1))
    for _ in range(2):
        peer.sendto(datagram, ("127.0.0.1", port))
        arrive(bench, row)
        bench.ticks(planes.STRIPES)
        bench.plane.agree(row, secured(peer))
    assert len(bench.payloads()) == 1, "a repetition stays one"


def test_encryption_can_end_and_a_row_forgets_its_keys(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, secured(peer))
    assert bench.plane.table.protection.live == 1
    bench.plane.agree(row, replace(secured(peer), sending=None, receiving=None))
    say(peer, port, b"\x01" * 160, 1)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    assert bench.payloads() == [b"\x01" * 160]
    bench.plane.agree(row, secured(peer))
    bench.plane.release(row)
    assert bench.plane.table.protection.live == 0


def test_reports_on_a_port_of_their_own_are_opened_and_protected() -> None:
    protection = Protection(2)
    report = rtcp.receiver_report(7, "caller")
    assert protection.open_report(0, report) == protection.protect_report(0, report) == report
    protection.agree(0, key(1), key(2))
    assert protection.open_report(0, report) is None
    assert protection.open_report(0, SrtpSender(key(2)).protect_rtcp(report)) == report
    assert protection.open_report(0, SrtpSender(key(2)).protect(packet(1))) is None, "sound has no place there"
    assert SrtpReceiver(key(1)).open_rtcp(protection.protect_report(0, report)) == report
    assert protection.open_report(1, report) == report
    protection.agree(0, key(1), key(3))
    assert protection.open_report(0, SrtpSender(key(2)).protect_rtcp(rtcp.receiver_report(8, "x"))) is not None


def test_reports_among_the_sound_are_opened_in_place() -> None:
    protection = Protection(1)
    protection.agree(0, key(1), key(2))
    report = rtcp.receiver_report(7, "caller")
    arena = np.zeros((2, 200), np.uint8)
    lengths = np.zeros(2, np.int32)
    for row, datagram in enumerate((SrtpSender(key(2)).protect_rtcp(report), report)):
        arena[row, : len(datagram)] = np.frombuffer(datagram, np.uint8)
        lengths[row] = len(datagram)
    assert protection.open(np.zeros(2, np.intp), arena, lengths) == 1
    assert arena[0, : lengths[0]].tobytes() == report
    assert lengths.tolist() == [len(report), 0]


def test_nothing_waits_in_a_socket_that_was_read(bench: Bench, peer: socket.socket) -> None:
    """A flood of forged packets is read and forgotten like any other."""
    row, port = start(bench, secured(peer))
    for number in range(planes.MOST_PER_SOCKET):
        say(peer, port, b"\x09" * 160, number)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    sock = bench.plane.table.sockets[row]
    assert sock is not None and not select.select([sock], [], [], 0)[0]
    assert bench.plane.dropped["unauthentic"] == planes.MOST_PER_SOCKET


def test_plain_sound_is_recorded_where_keys_are_not_required(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, replace(secured(peer), plain_is_taken=True))
    for number in range(CONVINCING + 10):
        peer.sendto(packet(number), ("127.0.0.1", port))
    arrive(bench, row)
    assert bench.ticks(planes.STRIPES) == [PlainSound(row), Latched(row, peer.getsockname())]
    assert len(bench.payloads()) == CONVINCING + 10, "what convinced is not lost"
    batches = [unpack_batch(batch) for batch in bench.batches]
    assert np.concatenate([batch.sequence for batch in batches]).tolist() == list(range(CONVINCING + 10))
    arrivals_ns = np.concatenate([batch.arrival_ns for batch in batches])
    assert (np.diff(arrivals_ns) >= 0).all() and arrivals_ns[0] > 0
    assert bench.plane.unopened(row) == Unopened(0, plain=True)


def test_what_came_before_the_recording_is_not_in_it_although_it_turns_out_to_be_plain(
    bench: Bench, peer: socket.socket
) -> None:
    row, port = bench.plane.lease()
    bench.plane.agree(row, replace(secured(peer), plain_is_taken=True))
    for first, last in ((0, 10), (10, CONVINCING + 1)):
        for number in range(first, last):
            peer.sendto(packet(number), ("127.0.0.1", port))
        arrive(bench, row)
        bench.ticks(planes.STRIPES)
        if not first:
            bench.plane.record(row, 42, time.monotonic_ns())
    assert len(bench.payloads()) == CONVINCING + 1 - 10


def test_plain_sound_before_the_recording_says_nothing_if_the_caller_encrypts_after_all(
    bench: Bench, peer: socket.socket
) -> None:
    """It may be what is left of an earlier call on this port."""
    row, port = bench.plane.lease()
    bench.plane.agree(row, replace(secured(peer), plain_is_taken=True))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        for number in range(CONVINCING + 3):
            stranger.sendto(packet(number), ("127.0.0.1", port))
        arrive(bench, row)
        assert bench.ticks(planes.STRIPES) == [Latched(row, stranger.getsockname())]
    assert bench.plane.unopened(row).plain
    peer.sendto(SrtpSender(key(2)).protect(packet(1)), ("127.0.0.1", port))
    arrive(bench, row)
    assert bench.ticks(planes.STRIPES) == [Latched(row, peer.getsockname())]
    bench.plane.record(row, 42, bench.now_ns)
    assert bench.plane.unopened(row) == Unopened()


def test_plain_sound_is_counted_and_not_recorded_where_keys_are_required(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, secured(peer))
    for number in range(CONVINCING + 10):
        peer.sendto(packet(number), ("127.0.0.1", port))
    arrive(bench, row)
    assert bench.ticks(planes.STRIPES) == []
    assert bench.payloads() == []
    assert bench.plane.unopened(row) == Unopened(CONVINCING + 10, plain=False)
    bench.plane.record(row, 43, bench.now_ns)
    assert bench.plane.unopened(row) == Unopened()


def test_whoever_was_plain_loses_the_place_to_the_first_authentic_packet(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, replace(secured(peer), plain_is_taken=True))
    sender = SrtpSender(key(2))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        for number in range(CONVINCING + 10):
            stranger.sendto(packet(number), ("127.0.0.1", port))
        arrive(bench, row)
        assert bench.ticks(planes.STRIPES) == [PlainSound(row), Latched(row, stranger.getsockname())]
        for number in range(3):
            peer.sendto(sender.protect(packet(number, b"\x02" * 160)), ("127.0.0.1", port))
        arrive(bench, row)
        assert bench.ticks(planes.STRIPES) == [Latched(row, peer.getsockname())]
        before = len(bench.payloads())
        for number in range(3 * CONVINCING):
            stranger.sendto(packet(number), ("127.0.0.1", port))
        arrive(bench, row)
        assert bench.ticks(2 * planes.STRIPES) == []
    assert len(bench.payloads()) == before
    assert bench.payloads()[-3:] == [b"\x02" * 160] * 3
