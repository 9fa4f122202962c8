"""Batched sockets: the fast and the portable way bring the same columns."""

from __future__ import annotations

import contextlib
import select
import socket
import time

import pytest

from aftertone.media import sockets
from aftertone.media.sockets import BatchedReceiver, PortableReceiver, Sender

batched = pytest.mark.skipif(not sockets.batched_calls_available(), reason="recvmmsg is not available here")
KINDS = [pytest.param(BatchedReceiver, marks=batched), PortableReceiver]


def wait_for(sock: socket.socket) -> None:
    assert select.select([sock], [], [], 5)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_was_sent_is_in_the_rows(kind: type[BatchedReceiver | PortableReceiver], host: str) -> None:
    bound = sockets.bind_port(host, 20000, 20999, 7)
    assert bound is not None
    sock, port = bound
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with sock, socket.socket(family, socket.SOCK_DGRAM) as peer:
        assert port % 2 == 0
        receiver = kind(16)
        receiver.prepare(sock)
        before_ns = time.monotonic_ns()
        peer.bind((host, 0))
        for size in (12, 172, sockets.ROW_BYTES + 400):
            peer.sendto(bytes([size % 251]) * size, (host, port))
        wait_for(sock)
        got = receiver.receive(sock, 2, 14)
        assert got == 3
        now_ns = time.monotonic_ns()
        arrived = receiver.arrivals(5, now_ns)
        assert receiver.lengths[2:5].tolist() == [12, 172, 0]
        assert receiver.arena[3, :172].tobytes() == bytes([172]) * 172
        assert ((arrived[2:] >= before_ns - 1_000_000) & (arrived[2:] <= now_ns)).all()
        assert set(receiver.sources(5)[2:].tolist()) == {sockets.source_key(host, peer.getsockname()[1])}
        assert sockets.source_address(receiver, 3) == (host, peer.getsockname()[1])
        assert receiver.receive(sock, 0, 16) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_rows_can_be_used_again(kind: type[BatchedReceiver | PortableReceiver]) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        sock.bind(("127.0.0.1", 0))
        receiver = kind(4)
        receiver.prepare(sock)
        for content in (b"first datagram", b"second"):
            peer.sendto(content, sock.getsockname())
            wait_for(sock)
            assert receiver.receive(sock, 0, 4) == 1
            receiver.arrivals(1, time.monotonic_ns())
            assert receiver.arena[0, : receiver.lengths[0]].tobytes() == content
            assert receiver.sources(1)[0] == sockets.source_key("127.0.0.1", peer.getsockname()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_many_sockets_fill_the_rows_one_after_the_other(kind: type[BatchedReceiver | PortableReceiver]) -> None:
    with contextlib.ExitStack() as stack:
        first, silent, last, peer = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(4)
        )
        receiver = kind(5)
        for sock in (first, silent, last):
            sock.bind(("127.0.0.1", 0))
            receiver.prepare(sock)
        for sock, contents in ((first, (b"a", b"b", b"c")), (last, (b"d", b"e", b"f", b"g"))):
            for content in contents:
                peer.sendto(content, sock.getsockname())
            wait_for(sock)
        assert receiver.receive_all([first, None, silent, last], 2) == [2, 0, 0, 2]
        assert receiver.arrivals(4, time.monotonic_ns()).shape == (4,)
        assert receiver.lengths[:4].tolist() == [1, 1, 1, 1]
        assert receiver.arena[:4, 0].tobytes() == b"abde"
        peer.sendto(b"h", first.getsockname())
        wait_for(first)
        # What was left is there at the next visit.
        assert receiver.receive_all([last, first], 8) == [2, 2]
        assert receiver.arena[:4, 0].tobytes() == b"fgch"


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_arena_has_no_room_for_stays_in_the_kernel(kind: type[BatchedReceiver | PortableReceiver]) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        receiver = kind(3)
        for sock in (one, two):
            sock.bind(("127.0.0.1", 0))
            receiver.prepare(sock)
            for content in (b"x", b"y"):
                peer.sendto(content, sock.getsockname())
            wait_for(sock)
        assert receiver.receive_all([one, two, one], 2) == [2, 1, 0]
        receiver.arrivals(3, time.monotonic_ns())
        assert receiver.receive_all([one, two], 2) == [0, 1]
        assert receiver.arena[0, :1].tobytes() == b"y"


@pytest.mark.parametrize("batch", [pytest.param(True, marks=batched), False])
def test_rows_are_sent(batch: bool) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind(("127.0.0.1", 0))
        name = sockets.pack_address("127.0.0.1", peer.getsockname()[1], socket.AF_INET)
        sender = Sender(8, batched=batch)
        for row, content in enumerate((b"one", b"two", b"three")):
            sender.arena[row, : len(content)] = memoryview(content)
            sender.lengths[row] = len(content)
            sender.names[row, : len(name)] = memoryview(name)
            sender.name_lengths[row] = len(name)
        sender.ready(3)
        assert sender.send(sock, 0, 3) == 3
        assert [peer.recv(100) for _ in range(3)] == [b"one", b"two", b"three"]
        assert sender.failed == 0


@pytest.mark.parametrize("batch", [pytest.param(True, marks=batched), False])
def test_what_the_kernel_refuses_is_counted(batch: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sender = Sender(2, batched=batch)
        name = sockets.pack_address("255.255.255.255", 9, socket.AF_INET)
        sender.names[0, : len(name)] = memoryview(name)
        sender.name_lengths[0] = len(name)
        sender.lengths[0] = 4
        sender.ready(1)
        assert sender.send(sock, 0, 1) == 0
        assert sender.failed == 1


def test_an_address_survives_packing() -> None:
    for host in ("127.0.0.1", "192.0.2.7"):
        assert sockets.address_of(sockets.pack_address(host, 4711, socket.AF_INET)) == (host, 4711)
        assert sockets.address_of(sockets.pack_address(host, 4711, socket.AF_INET6)) == (host, 4711)
    assert sockets.address_of(sockets.pack_address("2001:db8::7", 4711, socket.AF_INET6)) == ("2001:db8::7", 4711)


def test_ports_run_out_without_an_exception() -> None:
    first = sockets.bind_port("127.0.0.1", 21000, 21001, 0)
    assert first is not None
    with first[0]:
        assert sockets.bind_port("127.0.0.1", 21000, 21001, 0) is None
