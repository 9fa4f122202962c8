"""UDP sockets, and binding in general.

Owns: one bound socket and whether the kernel takes more from it. Refuses to know: SIP.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Protocol

from aftertone.net.addresses import SocketName, family_of

RECEIVE_BUFFER_BYTES: Final = 4 * 2**20
"""Asked for each UDP socket: room for some thousand requests while the loop is busy; the kernel may grant less."""


class DatagramOwner(Protocol):
    """What a socket tells; the endpoint."""

    def datagram(self, data: bytes, address: SocketName, host: str) -> None:
        """Take one datagram that came to the socket bound to ``host``."""

    def socket_error(self) -> None:
        """Hear that the network refused an earlier datagram."""


class Datagrams(asyncio.DatagramProtocol):
    """One UDP socket. ``full``: the kernel takes no more for now, so that datagrams are dropped as on any full link."""

    def __init__(self, owner: DatagramOwner, host: str) -> None:
        self.host = host
        self.transport: asyncio.DatagramTransport | None = None
        self.full = False
        self._owner = owner

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: SocketName) -> None:
        """Hand on one datagram."""
        self._owner.datagram(data, addr, self.host)

    def error_received(self, exc: Exception) -> None:  # noqa: ARG002
        """Hand on what the network says about an earlier datagram."""
        self._owner.socket_error()

    def pause_writing(self) -> None:
        """Hear that the kernel takes no more."""
        self.full = True

    def resume_writing(self) -> None:
        """Hear that it does again."""
        self.full = False


def bound_socket(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Return a socket bound to an address literal, not blocking. Raises OSError, with nothing left open."""
    family = family_of(host)
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock
