"""Floods to the port of one call: neither its own recording nor another call suffers."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from aftertone.journal.batch import unpack_batch
from aftertone.media import plane as planes
from aftertone.media import sieve
from aftertone.media.table import Stream
from aftertone.model import Codec
from aftertone.rtp.packet import serialize
from tests.unit.media.test_plane import Bench, arrive, make_bench, say, start

FLOOD = 1000
"""Datagrams in each tick of 20 ms."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sieve is a program for Linux")


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = make_bench()
    yield made
    for row in range(made.plane.table.capacity):
        made.plane.release(row)


@pytest.fixture
def peers() -> Iterator[list[socket.socket]]:
    """The caller, another caller, and somebody else."""
    found = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    for sock in found:
        sock.bind(("127.0.0.1", 0))
    yield found
    for sock in found:
        sock.close()


def recorded(bench: Bench) -> dict[int, list[int]]:
    """Return the sequence numbers that were journalled, by call."""
    found: dict[int, list[int]] = {}
    for data in bench.batches:
        batch = unpack_batch(data)
        for call, sequence in zip(batch.call.tolist(), batch.sequence.tolist(), strict=True):
            found.setdefault(call, []).append(sequence)
    return found


@pytest.mark.parametrize("junk", [b"\x00" * 60, serialize(0, 9, 1, 7, b"\x55" * 160)], ids=["junk", "RTP of a forger"])
def test_a_flood_takes_a_moment_of_its_call_and_nothing_of_others(
    bench: Bench, peers: list[socket.socket], junk: bytes
) -> None:
    caller, other, stranger = peers
    victim, port = start(bench, caller)
    neighbour, other_port = start(bench, other)
    for peer, target, row in ((caller, port, victim), (other, other_port, neighbour)):
        say(peer, target, b"\xff" * 160, 0)
        arrive(bench, row)
    bench.ticks(planes.STRIPES)
    bench.plane.record(victim, 1, bench.now_ns)
    bench.plane.record(neighbour, 2, bench.now_ns)
    for number in range(1, 51):
        for _ in range(FLOOD // 2):
            stranger.sendto(junk, ("127.0.0.1", port))
        say(caller, port, b"\x01" * 160, number)
        say(other, other_port, b"\x02" * 160, number)
        for _ in range(FLOOD // 2):
            stranger.sendto(junk, ("127.0.0.1", port))
        bench.ticks(1)
    bench.ticks(planes.STRIPES)
    kept = recorded(bench)
    assert kept[2] == list(range(1, 51))
    # Until the first visit the flood fills the buffer; from then on every word is there.
    assert set(range(1 + planes.STRIPES, 51)) <= set(kept[1])
    assert len(kept[1]) == len(set(kept[1]))
    assert {p for data in bench.batches for p in unpack_batch(data).payload_list()} == {b"\x01" * 160, b"\x02" * 160}
    assert bench.plane.floods == 1
    before = bench.plane.dropped["flood"]
    bench.plane.release(victim)
    assert bench.plane.dropped["flood"] - before > 40 * FLOOD


def test_a_caller_that_moves_is_heard_again(bench: Bench, peers: list[socket.socket]) -> None:
    caller, moved, stranger = peers
    row, port = start(bench, caller)
    say(caller, port, b"\xff" * 160, 0)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    for _ in range(100):
        stranger.sendto(b"\x00" * 20, ("127.0.0.1", port))
    bench.ticks(planes.STRIPES)
    assert bench.plane.floods == 1
    bench.plane.record(row, 1, bench.now_ns)
    say(moved, port, b"\x02" * 160, 1)
    bench.ticks(planes.STRIPES)
    assert not bench.batches
    bench.plane.agree(row, Stream(Codec.PCMU, 0, (0,), None, None, moved.getsockname()))
    say(moved, port, b"\x02" * 160, 2)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    assert bench.payloads() == [b"\x02" * 160]


def test_a_flood_before_anybody_is_known_puts_up_no_sieve(bench: Bench, peers: list[socket.socket]) -> None:
    caller, _, stranger = peers
    row, port = start(bench, caller)
    for _ in range(100):
        stranger.sendto(b"\x00" * 20, ("127.0.0.1", port))
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    assert bench.plane.floods == 0


def test_whom_the_arena_had_no_room_for_is_first_the_next_time(
    monkeypatch: pytest.MonkeyPatch, peers: list[socket.socket]
) -> None:
    monkeypatch.setattr(planes, "ARENA_ROWS", 4)
    monkeypatch.setattr(planes, "MOST_PER_SOCKET", 2)
    bench = make_bench(capacity=6)
    rows = [start(bench, peers[0]) for _ in range(6)]
    for row, port in rows:
        bench.plane.record(row, row, bench.now_ns)
        for number in range(2):
            say(peers[0], port, b"\xff" * 160, number)
        arrive(bench, row)
    for _ in range(3):
        bench.ticks(planes.STRIPES)
        # Everybody goes on sending: without turns, the first ones would always be heard, and the last ones never.
        for _, port in rows:
            say(peers[0], port, b"\xff" * 160, 9)
    assert set(recorded(bench)) == {row for row, _ in rows}
    for row, _ in rows:
        bench.plane.release(row)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_sieve_lets_one_source_through_and_no_junk_of_it(family: socket.AddressFamily, host: str) -> None:
    with (
        socket.socket(family, socket.SOCK_DGRAM) as ours,
        socket.socket(family, socket.SOCK_DGRAM) as wanted,
        socket.socket(family, socket.SOCK_DGRAM) as other,
    ):
        for sock in (ours, wanted, other):
            sock.bind((host, 0))
        ours.setblocking(False)
        assert sieve.only_from(ours, host, wanted.getsockname()[1])
        for number in range(3):
            other.sendto(bytes([0x80, number]) + bytes(10), ours.getsockname())
            wanted.sendto(bytes([0x00, number]) + bytes(10), ours.getsockname())
        wanted.sendto(b"\x80mine", ours.getsockname())
        assert ours.recv(100) == b"\x80mine"
        with pytest.raises(BlockingIOError):
            ours.recv(100)
        assert sieve.refused(ours) == 6
        sieve.from_anybody(ours)
        other.sendto(b"\x00", ours.getsockname())
        assert ours.recv(100) == b"\x00"


def test_a_sieve_for_a_caller_who_comes_by_ipv4_to_a_socket_for_both() -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wanted,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        ours.bind(("::", 0))
        ours.setblocking(False)
        wanted.bind(("127.0.0.1", 0))
        assert sieve.only_from(ours, *wanted.getsockname())
        target = ("127.0.0.1", ours.getsockname()[1])
        other.sendto(b"\x80other", target)
        wanted.sendto(b"\x80mine", target)
        assert ours.recv(100) == b"\x80mine"
