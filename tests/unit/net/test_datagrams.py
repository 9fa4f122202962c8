"""aftertone.net.datagrams: binding, and a kernel that is full."""

from __future__ import annotations

import socket

import pytest

from aftertone.net.addresses import SocketName
from aftertone.net.datagrams import Datagrams, bound_socket


class Owner:
    """Takes what a socket tells."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def datagram(self, data: bytes, address: SocketName, host: str) -> None:
        self.told.append((data, address, host))

    def socket_error(self) -> None:
        self.told.append("error")


def test_a_socket_tells_what_comes_and_whether_it_is_full() -> None:
    owner = Owner()
    port = Datagrams(owner, "192.0.2.1")
    port.datagram_received(b"x", ("192.0.2.1", 5))
    port.error_received(OSError())
    assert owner.told == [(b"x", ("192.0.2.1", 5), "192.0.2.1"), "error"]
    seen = [port.full]
    for change in (port.pause_writing, port.resume_writing):
        change()
        seen.append(port.full)
    assert seen == [False, True, False]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_port_is_taken_or_nothing_is_left_open(kind: socket.SocketKind) -> None:
    with bound_socket("127.0.0.1", 0, kind) as first:
        port: int = first.getsockname()[1]
        if kind == socket.SOCK_STREAM:
            first.listen()
        assert not first.getblocking()
        with pytest.raises(OSError, match="in use"):
            bound_socket("127.0.0.1", port, kind)
