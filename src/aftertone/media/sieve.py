"""A sieve before a socket: while its port is flooded, the kernel lets through what comes from one source.

Owns: the filter program and the kernel's count of what it refused. Refuses to know: calls, and when a port is flooded.

Theory of operation: a socket's buffer holds some hundred datagrams. Whoever sends more between two visits pushes out the
caller's own, however cheaply we drop the rest. A classic BPF program on the socket (Linux, no privilege) refuses them before the
buffer. It looks at the source address in the IP header, the source port in the UDP header, and the version in the first byte of
the payload, so that junk under a forged source is refused as well. Fragments of a datagram are joined before. ``connect`` would do
without a program, but also fix our own address, which on a machine with several may be another than the caller writes to.

Elsewhere than on Linux there is no sieve, and a flood costs the flooded call its sound.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import socket
import struct
import sys
from typing import Final

_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_SO_MEMINFO: Final = 55
_DROPS: Final = 8
_LOAD_WORD: Final = 0x20
_LOAD_HALF: Final = 0x28
_LOAD_BYTE: Final = 0x30
_AND: Final = 0x54
_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_NETWORK: Final = 0xFFF00000
"""Offsets from here on count from the IP header, others from the UDP header (SKF_NET_OFF)."""
_PAYLOAD: Final = 8


def only_from(sock: socket.socket, host: str, port: int) -> bool:
    """Let only datagrams through that come from this literal address and may be RTP. False where that cannot be done."""
    if sys.platform != "linux":
        return False
    program = _program(host, port)
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(steps)))
    except OSError:
        return False
    return True


def from_anybody(sock: socket.socket) -> None:
    """Take the sieve away, if there is one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def refused(sock: socket.socket) -> int:
    """Return how many datagrams the kernel has refused at this socket: by the sieve, and for lack of room."""
    try:
        figures = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_DROPS + 1))
    except OSError:
        return 0
    return int.from_bytes(figures[4 * _DROPS :][:4], sys.byteorder)


def _program(host: str, port: int) -> list[tuple[int, int, int, int]]:
    address = ipaddress.ip_address(host.partition("%")[0])
    at = 12 if address.version == 4 else 8
    checks: list[tuple[int, int, int]] = [
        (_LOAD_WORD, _NETWORK + at + offset, int.from_bytes(address.packed[offset : offset + 4], "big"))
        for offset in range(0, len(address.packed), 4)
    ]
    checks.append((_LOAD_HALF, 0, port))
    # Each check is two steps, the last one four; where it fails, it goes to the very end.
    steps: list[tuple[int, int, int, int]] = []
    length = 2 * len(checks) + 5
    for load, offset, value in checks:
        steps.append((load, 0, 0, offset))
        steps.append((_EQUAL, 0, length - len(steps) - 2, value))
    steps += [(_LOAD_BYTE, 0, 0, _PAYLOAD), (_AND, 0, 0, 0xC0), (_EQUAL, 0, 1, 0x80)]
    return [*steps, (_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0)]
