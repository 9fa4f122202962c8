"""The media plane over real loopback sockets, its clock in the test's hand."""

from __future__ import annotations

import itertools
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from aftertone.audio.g711 import encode_ulaw
from aftertone.config import PortRange
from aftertone.errors import BusyError
from aftertone.journal.batch import unpack_batch
from aftertone.media import plane as planes
from aftertone.media.plane import (
    KeyPressed,
    Latched,
    Limits,
    LongestReached,
    MediaEvent,
    Plane,
    Played,
    Silent,
    ToneHeard,
)
from aftertone.media.player import COMFORT_NOISE, KEEPALIVE_NS
from aftertone.media.sockets import PortableReceiver
from aftertone.media.table import Stream
from aftertone.model import Codec
from aftertone.rtp.events import TelephoneEvent
from aftertone.rtp.events import serialize as serialize_event
from aftertone.rtp.packet import serialize

SECOND_NS = 1_000_000_000
LIMITS = Limits(silence_ns=10 * SECOND_NS, tone_ns=4 * SECOND_NS, longest_ns=600 * SECOND_NS)
SILENCE = dict.fromkeys(Codec, b"\xff" * 160)


@dataclass
class Bench:
    """A plane, what it journalled, and the time."""

    plane: Plane
    batches: list[bytes] = field(default_factory=list)
    now_ns: int = field(default_factory=time.monotonic_ns)

    def ticks(self, count: int) -> list[MediaEvent]:
        """Let 20 ms pass ``count`` times."""
        events: list[MediaEvent] = []
        for _ in range(count):
            self.now_ns += planes.TICK_NS
            events += self.plane.tick(self.now_ns)
        return events

    def payloads(self) -> list[bytes]:
        return [payload for data in self.batches for payload in unpack_batch(data).payload_list()]


def make_bench(capacity: int = 4, ports: PortRange | None = None) -> Bench:
    batches: list[bytes] = []
    plane = Plane(
        capacity,
        host="127.0.0.1",
        ports=ports or PortRange(22000, 22999),
        limits=LIMITS,
        silence=SILENCE,
        journal=lambda data, _oldest_ns: batches.append(data),
        entropy=lambda n: bytes(range(1, n + 1)),
    )
    return Bench(plane, batches)


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if "stamped_by_us" in request.fixturenames:
        request.getfixturevalue("stamped_by_us")
    made = make_bench()
    yield made
    for row in range(made.plane.table.capacity):
        made.plane.release(row)


@pytest.fixture
def stamped_by_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take arrival times from the test's clock and not from the kernel's."""
    monkeypatch.setattr(planes, "make_receiver", PortableReceiver)


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def start(bench: Bench, peer: socket.socket, *, signalled: bool = True, noise: int | None = None) -> tuple[int, int]:
    """Lease a row that speaks PCMU with ``peer``."""
    row, port = bench.plane.lease()
    remote = peer.getsockname() if signalled else ("127.0.0.1", 9)
    bench.plane.agree(row, Stream(Codec.PCMU, 0, (0, 8, 13, 101), 101, noise, remote))
    return row, port


def say(peer: socket.socket, port: int, payload: bytes, number: int, *, kind: int = 0, ssrc: int = 7) -> None:
    peer.sendto(serialize(kind, number, number * 160, ssrc, payload), ("127.0.0.1", port))


def arrive(bench: Bench, row: int) -> None:
    """Wait until the kernel has something for ``row``."""
    sock = bench.plane.table.sockets[row]
    assert sock is not None
    assert select.select([sock], [], [], 5)[0]


def frame(level: float, hertz: float = 0.0, start_sample: int = 0) -> bytes:
    """Return 20 ms of noise (0 Hz) or of a tone as PCMU."""
    at = np.arange(start_sample, start_sample + 160)
    if hertz:
        wave = level * np.sin(2 * np.pi * hertz * at / 8000)
    else:
        wave = np.random.default_rng(start_sample).normal(0, level, 160)
    return encode_ulaw(np.clip(wave, -32768, 32767).astype(np.int16)).tobytes()


def test_what_arrives_is_journalled_as_it_arrived(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, peer)
    bench.plane.record(row, 42, bench.now_ns)
    sent = [(3, b"\x01" * 160), (1, b"\x02" * 80), (1, b"\x02" * 80), (2, b"")]
    for number, payload in sent:
        say(peer, port, payload, number)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    assert bench.payloads() == [payload for _, payload in sent]
    batch = unpack_batch(bench.batches[0])
    assert batch.sequence.tolist() == [3, 1, 1, 2]
    assert batch.timestamp.tolist() == [480, 160, 160, 320]
    assert set(batch.call.tolist()) == {42}
    assert set(batch.ssrc.tolist()) == {7}


def test_nothing_is_journalled_before_and_after_the_recording(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, peer)
    say(peer, port, b"early" * 32, 1)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    bench.plane.record(row, 1, bench.now_ns)
    say(peer, port, b"in it" * 32, 2)
    arrive(bench, row)
    bench.plane.finish(row, bench.now_ns)
    say(peer, port, b"later" * 32, 3)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    assert bench.payloads() == [b"in it" * 32]


def test_garbage_and_unknown_payload_types_are_counted_and_dropped(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, peer)
    bench.plane.record(row, 1, bench.now_ns)
    peer.sendto(b"", ("127.0.0.1", port))
    peer.sendto(b"garbage", ("127.0.0.1", port))
    peer.sendto(b"\x00" * 40, ("127.0.0.1", port))
    peer.sendto(b"\x80" * 3000, ("127.0.0.1", port))
    say(peer, port, b"x", 1, kind=77)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    assert bench.batches == []
    assert bench.plane.dropped == {"malformed": 4, "stranger": 0, "payload_type": 1, "unauthentic": 0, "flood": 0}


def test_a_stranger_is_not_heard_once_the_source_is_latched(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, peer)
    say(peer, port, b"mine!" * 32, 1)
    arrive(bench, row)
    events = bench.ticks(planes.STRIPES)
    assert events == [Latched(row, peer.getsockname())]
    bench.plane.record(row, 1, bench.now_ns)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        say(stranger, port, b"spam!" * 32, 2)
        arrive(bench, row)
        bench.ticks(planes.STRIPES)
    assert bench.batches == []
    assert bench.plane.dropped["stranger"] == 1


def test_the_source_of_a_call_may_change_its_number_and_its_counters(bench: Bench, peer: socket.socket) -> None:
    """Another SSRC, and counters that wrap, from the address that is latched: a phone that was transferred."""
    row, port = start(bench, peer)
    bench.plane.record(row, 1, bench.now_ns)
    for number in (65_534, 65_535, 0, 1):
        say(peer, port, b"\x01" * 160, number)
    for number in (7, 8):
        say(peer, port, b"\x02" * 160, number, ssrc=99)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    assert bench.payloads() == [b"\x01" * 160] * 4 + [b"\x02" * 160] * 2
    assert bench.plane.dropped["stranger"] == 0


def test_a_caller_behind_a_nat_is_answered_where_its_sound_comes_from(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, peer, signalled=False)
    for number in range(3):
        say(peer, port, b"\xff" * 160, number)
    arrive(bench, row)
    assert Latched(row, peer.getsockname()) in bench.ticks(planes.STRIPES)
    bench.plane.play(row, (b"hello" * 32,))
    bench.ticks(1)
    assert peer.recv(2000)[12:] == b"hello" * 32


def test_a_refresh_with_the_same_address_keeps_the_latch_and_a_new_one_opens_it(
    bench: Bench, peer: socket.socket
) -> None:
    row, port = start(bench, peer, signalled=False)
    stream = Stream(Codec.PCMU, 0, (0,), None, None, ("127.0.0.1", 9))
    for number in range(3):
        say(peer, port, b"\xff" * 160, number)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    bench.plane.agree(row, stream)
    bench.plane.play(row, (b"\x01" * 160,))
    bench.ticks(1)
    assert peer.recv(2000)[12:] == b"\x01" * 160
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as moved:
        moved.bind(("127.0.0.1", 0))
        moved.settimeout(5)
        bench.plane.agree(row, Stream(Codec.PCMU, 0, (0,), None, None, moved.getsockname()))
        bench.plane.play(row, (b"\x02" * 160,))
        bench.ticks(1)
        assert moved.recv(2000)[12:] == b"\x02" * 160


def test_keys_are_told_once(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, peer)
    for duration, end in ((160, False), (320, False), (480, True), (480, True)):
        payload = serialize_event(TelephoneEvent(11, end, 10, duration))
        peer.sendto(serialize(101, duration, 1600, 7, payload), ("127.0.0.1", port))
    arrive(bench, row)
    events = bench.ticks(planes.STRIPES)
    assert [e for e in events if isinstance(e, KeyPressed)] == [KeyPressed(row, "#")]


def test_a_clip_is_played_in_order_at_its_pace_and_told_when_it_is_over(bench: Bench, peer: socket.socket) -> None:
    row, _ = start(bench, peer)
    frames = tuple(bytes([number]) * 160 for number in range(5))
    bench.plane.play(row, frames)
    told = [bench.ticks(1) for _ in range(6)]
    assert told[:5] == [[], [], [], [], []]
    assert told[5] == [Played(row)]
    packets = [peer.recv(2000) for _ in range(5)]
    assert [p[12:] for p in packets] == list(frames)
    sequences = [int.from_bytes(p[2:4], "big") for p in packets]
    timestamps = [int.from_bytes(p[4:8], "big") for p in packets]
    assert np.diff(sequences).tolist() == [1] * 4
    assert np.diff(timestamps).tolist() == [160] * 4
    assert [p[1] >> 7 for p in packets] == [1, 0, 0, 0, 0]


def test_a_late_tick_catches_up_and_does_not_burst(bench: Bench, peer: socket.socket) -> None:
    row, _ = start(bench, peer)
    bench.plane.play(row, tuple(bytes([n]) * 160 for n in range(50)))
    bench.ticks(1)
    bench.now_ns += 400_000_000
    bench.ticks(1)
    received = 0
    while select.select([peer], [], [], 0.05)[0]:
        peer.recv(2000)
        received += 1
    assert received == 1 + 3


@pytest.mark.parametrize("frame_ms", [10, 20, 30, 40, 60])
def test_a_clip_has_the_packets_that_the_peer_wants(bench: Bench, peer: socket.socket, frame_ms: int) -> None:
    row, _ = start(bench, peer)
    frames = tuple(bytes([number]) * (8 * frame_ms) for number in range(120 // frame_ms))
    bench.plane.play(row, frames, frame_ms)
    told = [bench.ticks(1) for _ in range(7)]
    assert told.index([Played(row)]) == 6
    packets = [peer.recv(2000) for _ in frames]
    assert [p[12:] for p in packets] == list(frames)
    timestamps = [int.from_bytes(p[4:8], "big") for p in packets]
    assert np.diff(timestamps).tolist() == [8 * frame_ms] * (len(frames) - 1)
    assert not select.select([peer], [], [], 0.02)[0]


@pytest.mark.parametrize(("frame_ms", "caught_up"), [(10, 6), (30, 2), (60, 1)])
def test_a_late_tick_catches_up_the_same_time_in_packets_of_any_length(
    bench: Bench, peer: socket.socket, frame_ms: int, caught_up: int
) -> None:
    row, _ = start(bench, peer)
    bench.plane.play(row, tuple(bytes([n]) * 8 for n in range(90)), frame_ms)
    bench.ticks(1)
    bench.now_ns += 400_000_000
    bench.ticks(1)
    received = 0
    while select.select([peer], [], [], 0.05)[0]:
        peer.recv(2000)
        received += 1
    assert received == 1 + caught_up
    assert bench.plane.played_ms(row) == received * frame_ms


def test_the_path_is_kept_open_with_no_more_than_the_peer_takes(bench: Bench, peer: socket.socket) -> None:
    row, _ = bench.plane.lease()
    bench.plane.agree(row, Stream(Codec.PCMU, 0, (0,), None, None, peer.getsockname(), ptime_ms=10))
    bench.ticks(1)
    assert peer.recv(2000)[12:] == b"\xff" * 80


@pytest.mark.parametrize(("noise", "expected"), [(13, COMFORT_NOISE), (None, b"\xff" * 160)])
def test_the_path_is_kept_open_while_nothing_plays(
    bench: Bench, peer: socket.socket, noise: int | None, expected: bytes
) -> None:
    start(bench, peer, noise=noise)
    bench.ticks(1)
    first = peer.recv(2000)
    assert first[12:] == expected
    bench.now_ns += KEEPALIVE_NS
    bench.ticks(1)
    second = peer.recv(2000)
    assert second[12:] == expected
    passed = int.from_bytes(second[4:8], "big") - int.from_bytes(first[4:8], "big")
    assert abs(passed - KEEPALIVE_NS * 8 // 1_000_000 - 160) <= 160


def test_a_call_on_hold_hears_nothing(bench: Bench, peer: socket.socket) -> None:
    row, _ = start(bench, peer)
    bench.plane.agree(row, Stream(Codec.PCMU, 0, (0,), None, None, None))
    bench.plane.play(row, (b"\x01" * 160,))
    bench.ticks(3)
    assert not select.select([peer], [], [], 0.1)[0]


def speak(bench: Bench, peer: socket.socket, row: int, port: int, frames: list[bytes]) -> list[MediaEvent]:
    """Send one frame each 20 ms and let the time pass."""
    events: list[MediaEvent] = []
    for number, payload in enumerate(frames):
        say(peer, port, payload, number)
        arrive(bench, row)
        events += bench.ticks(1)
    return events + bench.ticks(planes.STRIPES)


@pytest.mark.usefixtures("stamped_by_us")
def test_silence_is_told_once_and_the_last_sound_is_known(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, peer)
    bench.plane.record(row, 1, bench.now_ns)
    speak(bench, peer, row, port, [frame(4000.0, start_sample=160 * n) for n in range(50)])
    spoken_until_ns = bench.now_ns
    events = bench.ticks(550)
    assert events == [Silent(row)]
    assert abs(bench.plane.finish(row, bench.now_ns) - spoken_until_ns) < 200_000_000


def test_a_caller_who_never_says_anything_is_silent(bench: Bench, peer: socket.socket) -> None:
    row, _ = start(bench, peer)
    bench.plane.record(row, 1, bench.now_ns)
    assert bench.ticks(505) == [Silent(row)]
    assert bench.plane.finish(row, bench.now_ns) == 0


@pytest.mark.usefixtures("stamped_by_us")
def test_a_caller_whose_phone_sends_no_silence_is_silent_all_the_same(bench: Bench, peer: socket.socket) -> None:
    """Silence suppression: speech, one packet of comfort noise, and then nothing (RFC 3389)."""
    row, port = start(bench, peer, noise=13)
    bench.plane.record(row, 1, bench.now_ns)
    speak(bench, peer, row, port, [frame(4000.0, start_sample=160 * n) for n in range(50)])
    spoken_until_ns = bench.now_ns
    say(peer, port, COMFORT_NOISE, 50, kind=13)
    arrive(bench, row)
    assert bench.ticks(480) == []
    say(peer, port, COMFORT_NOISE, 51, kind=13)
    arrive(bench, row)
    assert bench.ticks(70) == [Silent(row)]
    assert abs(bench.plane.finish(row, bench.now_ns) - spoken_until_ns) < 200_000_000


@pytest.mark.usefixtures("stamped_by_us")
def test_a_dial_tone_ends_a_recording_before_silence_would(bench: Bench, peer: socket.socket) -> None:
    row, port = start(bench, peer)
    bench.plane.record(row, 1, bench.now_ns)
    tone = [frame(6000.0, 425.0, 160 * n) for n in range(220)]
    assert speak(bench, peer, row, port, tone) == [Latched(row, peer.getsockname()), ToneHeard(row)]


def test_the_longest_recording_ends(bench: Bench, peer: socket.socket) -> None:
    row, _ = start(bench, peer)
    bench.plane.record(row, 1, bench.now_ns)
    bench.now_ns += LIMITS.longest_ns
    assert bench.ticks(1) == [LongestReached(row)]


def test_the_silence_of_a_hold_ends_nothing_and_counts_anew_after_it(bench: Bench, peer: socket.socket) -> None:
    row, _ = start(bench, peer)
    bench.plane.record(row, 1, bench.now_ns)
    assert bench.ticks(400) == []
    bench.plane.hold(row, bench.now_ns, is_held=True)
    assert bench.ticks(1000) == []
    bench.plane.hold(row, bench.now_ns, is_held=False)
    assert bench.ticks(495) == []
    assert bench.ticks(10) == [Silent(row)]


@pytest.mark.usefixtures("stamped_by_us")
def test_the_tones_of_a_hold_end_nothing(bench: Bench, peer: socket.socket) -> None:
    """Music on hold may hold a note, and a PBX may play a tone."""
    row, port = start(bench, peer)
    bench.plane.record(row, 1, bench.now_ns)
    bench.plane.hold(row, bench.now_ns, is_held=True)
    tone = [frame(6000.0, 425.0, 160 * n) for n in range(220)]
    assert speak(bench, peer, row, port, tone) == [Latched(row, peer.getsockname())]
    bench.plane.hold(row, bench.now_ns, is_held=False)
    assert bench.ticks(10) == []


def test_a_hold_that_never_ends_is_as_long_as_a_recording_may_be(bench: Bench, peer: socket.socket) -> None:
    row, _ = start(bench, peer)
    bench.plane.record(row, 1, bench.now_ns)
    bench.plane.hold(row, bench.now_ns, is_held=True)
    bench.now_ns += LIMITS.longest_ns
    assert bench.ticks(1) == [LongestReached(row)]


def test_each_row_is_visited_once_in_a_round_whatever_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes, "BLOCK_ROWS", 2)
    bench = make_bench(capacity=12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        rows = [start(bench, peer) for _ in range(12)]
        for number in range(2):
            for row, port in rows:
                say(peer, port, b"\xff" * 160, number)
                arrive(bench, row)
            arrived = []
            for _ in range(planes.STRIPES):
                before = bench.plane.received_packets
                bench.ticks(1)
                arrived.append(bench.plane.received_packets - before)
            # Six blocks of two rows: one tick has two of them, and no other tick has more than one.
            assert sorted(arrived) == [2, 2, 2, 2, 4]
    for row, _ in rows:
        bench.plane.release(row)


def test_places_run_out_and_come_back() -> None:
    bench = make_bench(capacity=2)
    first, _ = bench.plane.lease()
    second, _ = bench.plane.lease()
    with pytest.raises(BusyError, match=r"calls\.at_once"):
        bench.plane.lease()
    bench.plane.release(first)
    assert bench.plane.live == 1
    bench.plane.release(bench.plane.lease()[0])
    bench.plane.release(second)
    bench.plane.release(second)
    assert bench.plane.live == 0


def test_ports_run_out() -> None:
    bench = make_bench(ports=PortRange(23000, 23001))
    row, port = bench.plane.lease()
    assert port == 23000
    with pytest.raises(BusyError, match=r"rtp\.ports = 23000-23001"):
        bench.plane.lease()
    bench.plane.release(row)


def test_a_thousand_packets_of_many_calls_come_out_grouped_by_call() -> None:
    bench = make_bench(capacity=30)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        rows = [start(bench, peer) for _ in range(30)]
        for row, port in rows:
            bench.plane.record(row, row + 100, bench.now_ns)
            for number in range(30):
                say(peer, port, bytes([row]) * 160, number)
        for row, _ in rows:
            arrive(bench, row)
        bench.ticks(planes.STRIPES)
    seen: dict[int, int] = {}
    for data in bench.batches:
        batch = unpack_batch(data)
        calls = batch.call.tolist()
        assert len([1 for a, b in itertools.pairwise(calls) if a != b]) == len(set(calls)) - 1
        for call, payload in zip(calls, batch.payload_list(), strict=True):
            assert payload == bytes([call - 100]) * 160
            seen[call] = seen.get(call, 0) + 1
    assert seen == {row + 100: 30 for row, _ in rows}
    for row, _ in rows:
        bench.plane.release(row)
