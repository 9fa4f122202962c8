"""Batched receiving and sending of datagrams: many per system call, into rows made beforehand.

Owns: the receive and send arenas and the C structures that point into them. Refuses to know: what a datagram means.

Theory of operation: ``recvmmsg`` and ``sendmmsg`` (Linux) take an array of ``mmsghdr``; ours are NumPy arrays with the C
layout, filled with pointers once. Row i of the arena belongs to header i for ever, so one call costs the kernel's work and
a microsecond, and leaves lengths, source addresses and the kernel's receive times as columns. Elsewhere, and on a machine
whose layout we have not proven, ``PortableReceiver`` does the same with one call a datagram.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

ROW_BYTES: Final = 1536
"""A datagram longer than this is no RTP of a codec we speak: it is cut, marked, and dropped by the plane."""
NAME_BYTES: Final = 28
CONTROL_BYTES: Final = 64
PORT_BITS: Final = 16
"""The lowest bits of a source's key are its port; what is above says which host."""
_SO_TIMESTAMPNS: Final = 35
_FOLD: Final = secrets.randbits(64) | 1
"""Folds IPv6 addresses into keys; drawn at start, so that nobody can choose an address whose key is another's."""

_MSGHDR = np.dtype(
    {
        "names": ["name", "namelen", "iov", "iovlen", "control", "controllen", "flags", "len"],
        "formats": ["<u8", "<u4", "<u8", "<u8", "<u8", "<u8", "<i4", "<u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
_MSGHDR_BYTES: Final = 64
_IOVEC = np.dtype([("base", "<u8"), ("len", "<u8")])

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


def batched_calls_available() -> bool:
    """Say whether ``recvmmsg`` with the layout above can be used here (64-bit little-endian Linux)."""
    return sys.platform == "linux" and struct.calcsize("P") == 8 and sys.byteorder == "little"


class Receiver(Protocol):
    """Fills rows of an arena from sockets."""

    arena: U8
    """uint8[capacity, ROW_BYTES]; valid until the next ``receive`` into the same rows."""
    lengths: I32
    """int32[capacity]; a datagram that did not fit has length 0."""

    def prepare(self, sock: socket.socket) -> None:
        """Switch on what this receiver needs on a new socket."""
        ...

    def receive(self, sock: socket.socket, first_row: int, most: int) -> int:
        """Receive up to ``most`` datagrams into rows from ``first_row`` on; return how many came, 0 when none waits."""
        ...

    def receive_all(self, sockets: Sequence[socket.socket | None], most: int) -> list[int]:
        """Receive up to ``most`` datagrams from each socket, from row 0 on; return how many came from each.

        What the arena has no room for stays in the kernel.
        """
        ...

    def sources(self, count: int) -> U64:
        """Return uint64[count]: each datagram's source as ``source_key`` makes it."""
        ...

    def arrivals(self, count: int, now_ns: int) -> I64:
        """Return int64[count]: monotonic arrival times, the kernel's where it gives them."""
        ...


def source_key(host: str, port: int) -> int:
    """Return a 64-bit key for an address: IPv4 exactly, IPv6 folded. 0 is never a key of a real address."""
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        if packed[:12] == b"\x00" * 10 + b"\xff\xff":
            return _key4(packed[12:], port)
        high, low = struct.unpack("=QQ", packed)
        return int((high ^ (low * _FOLD)) & 0xFFFFFFFFFFFF0000 | port) or 1
    return _key4(socket.inet_aton(host), port)


def _key4(packed: bytes, port: int) -> int:
    return int.from_bytes(packed, "big") << 16 | port


def _keys(names: U8) -> U64:
    """Vectorised ``source_key`` over raw ``sockaddr`` rows: uint8[n, NAME_BYTES] to uint64[n]."""
    family = names[:, 0].astype(np.uint16) | names[:, 1].astype(np.uint16) << 8
    port = names[:, 2].astype(np.uint64) << np.uint64(8) | names[:, 3].astype(np.uint64)
    four = np.ascontiguousarray(names[:, 4:8]).view(">u4")[:, 0].astype(np.uint64) << np.uint64(16) | port
    if not (family == socket.AF_INET6).any():
        return four
    six = np.ascontiguousarray(names[:, 8:24])
    mapped = (six[:, :10] == 0).all(axis=1) & (six[:, 10:12] == 255).all(axis=1)
    halves = six.view(np.uint64)
    folded = (halves[:, 0] ^ (halves[:, 1] * np.uint64(_FOLD))) & np.uint64(0xFFFFFFFFFFFF0000) | port
    inner = np.ascontiguousarray(six[:, 12:16]).view(">u4")[:, 0].astype(np.uint64) << np.uint64(16) | port
    return np.where(family == socket.AF_INET6, np.where(mapped, inner, np.maximum(folded, np.uint64(1))), four)


def address_of(name: bytes) -> tuple[str, int]:
    """Return host and port of a raw ``sockaddr``; an IPv4 address mapped into IPv6 comes back as IPv4."""
    family, port = struct.unpack_from("=H", name)[0], struct.unpack_from("!H", name, 2)[0]
    if family == socket.AF_INET6:
        if name[8:20] == b"\x00" * 10 + b"\xff\xff":
            return socket.inet_ntoa(name[20:24]), port
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), port
    return socket.inet_ntoa(name[4:8]), port


class BatchedReceiver:
    """``recvmmsg`` into rows made beforehand. One instance belongs to one thread."""

    def __init__(self, capacity: int) -> None:
        self.arena: U8 = np.zeros((capacity, ROW_BYTES), dtype=np.uint8)
        self.lengths: I32 = np.zeros(capacity, dtype=np.int32)
        self.names: U8 = np.zeros((capacity, NAME_BYTES), dtype=np.uint8)
        self._control: U8 = np.zeros((capacity, CONTROL_BYTES), dtype=np.uint8)
        self._vectors = np.zeros(capacity, dtype=_IOVEC)
        self._headers = np.zeros(capacity, dtype=_MSGHDR)
        rows = np.arange(capacity, dtype=np.uint64)
        self._vectors["base"] = self.arena.ctypes.data + rows * np.uint64(ROW_BYTES)
        self._vectors["len"] = ROW_BYTES
        self._headers["name"] = self.names.ctypes.data + rows * np.uint64(NAME_BYTES)
        self._headers["iov"] = self._vectors.ctypes.data + rows * np.uint64(_IOVEC.itemsize)
        self._headers["iovlen"] = 1
        self._headers["control"] = self._control.ctypes.data + rows * np.uint64(CONTROL_BYTES)
        self._headers["namelen"] = NAME_BYTES
        self._headers["controllen"] = CONTROL_BYTES
        self._base = self._headers.ctypes.data
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
        self._recvmmsg.restype = ctypes.c_int
        self._used = 0

    def prepare(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def receive(self, sock: socket.socket, first_row: int, most: int) -> int:
        got: int = self._recvmmsg(
            sock.fileno(), self._base + first_row * _MSGHDR_BYTES, most, socket.MSG_DONTWAIT, None
        )
        if got <= 0:
            # An ICMP error for something we sent (ECONNREFUSED) is reported once by the next receive: nothing was received.
            return 0
        self._used = max(self._used, first_row + got)
        return got

    def receive_all(self, sockets: Sequence[socket.socket | None], most: int) -> list[int]:
        # The one loop of the plane that runs for each call: nothing is looked up inside that can be looked up before.
        receive, base, flag, capacity = self._recvmmsg, self._base, socket.MSG_DONTWAIT, len(self.lengths)
        counts = [0] * len(sockets)
        filled = 0
        for index, sock in enumerate(sockets):
            if sock is None:
                continue
            room = most if filled + most <= capacity else capacity - filled
            got = receive(sock.fileno(), base + filled * _MSGHDR_BYTES, room, flag, None)
            if got > 0:
                counts[index] = got
                filled += got
        self._used = max(self._used, filled)
        return counts

    def sources(self, count: int) -> U64:
        return _keys(self.names[:count])

    def arrivals(self, count: int, now_ns: int) -> I64:
        """Return arrival times and make the rows ready for the next batch: call it once after the last ``receive``."""
        headers = self._headers[:count]
        whole = (headers["flags"] & socket.MSG_TRUNC) == 0
        self.lengths[:count] = np.where(whole, headers["len"], 0)
        stamped = headers["controllen"] >= 32
        stamps = self._control[:count, 16:32].copy().view(np.int64)
        wall_ns = stamps[:, 0] * 1_000_000_000 + stamps[:, 1]
        offset_ns = _wall_offset_ns()
        arrived: I64 = np.where(stamped, wall_ns - offset_ns, now_ns)
        # A stepped wall clock must not throw a packet into the past or the future: two seconds is more than a tick can lag.
        arrived = np.where((arrived > now_ns) | (arrived < now_ns - 2_000_000_000), now_ns, arrived)
        used = self._headers[: self._used]
        used["namelen"] = NAME_BYTES
        used["controllen"] = CONTROL_BYTES
        self._used = 0
        return arrived


def _wall_offset_ns() -> int:
    return time.time_ns() - time.monotonic_ns()


class PortableReceiver:
    """One ``recvfrom_into`` a datagram: slower, the same columns. For machines without ``recvmmsg``."""

    def __init__(self, capacity: int) -> None:
        self.arena: U8 = np.zeros((capacity, ROW_BYTES), dtype=np.uint8)
        self.lengths: I32 = np.zeros(capacity, dtype=np.int32)
        self._keys: U64 = np.zeros(capacity, dtype=np.uint64)
        self._addresses: list[tuple[str, int]] = [("", 0)] * capacity

    def prepare(self, sock: socket.socket) -> None:
        sock.setblocking(False)

    def receive(self, sock: socket.socket, first_row: int, most: int) -> int:
        for row in range(first_row, first_row + most):
            try:
                length, address = sock.recvfrom_into(self.arena[row], ROW_BYTES)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNREFUSED, errno.EINTR):
                    raise
                return row - first_row
            self.lengths[row] = 0 if length >= ROW_BYTES else length
            self._keys[row] = source_key(address[0], address[1])
            self._addresses[row] = (address[0], address[1])
        return most

    def receive_all(self, sockets: Sequence[socket.socket | None], most: int) -> list[int]:
        counts = []
        filled = 0
        for sock in sockets:
            got = 0 if sock is None else self.receive(sock, filled, min(most, len(self.lengths) - filled))
            counts.append(got)
            filled += got
        return counts

    def sources(self, count: int) -> U64:
        return self._keys[:count]

    def arrivals(self, count: int, now_ns: int) -> I64:
        return np.full(count, now_ns, dtype=np.int64)

    def address(self, row: int) -> tuple[str, int]:
        return self._addresses[row]


def make_receiver(capacity: int) -> BatchedReceiver | PortableReceiver:
    """Return the best receiver that this machine has, with ``capacity`` rows."""
    return BatchedReceiver(capacity) if batched_calls_available() else PortableReceiver(capacity)


def source_address(receiver: BatchedReceiver | PortableReceiver, row: int) -> tuple[str, int]:
    """Return where the datagram in ``row`` came from."""
    if isinstance(receiver, PortableReceiver):
        return receiver.address(row)
    return address_of(receiver.names[row].tobytes())


class Sender:
    """Sends the rows of an arena: ``sendmmsg`` where there is one, ``sendto`` elsewhere. One instance, one thread."""

    def __init__(self, capacity: int, *, batched: bool | None = None) -> None:
        self.arena: U8 = np.zeros((capacity, ROW_BYTES), dtype=np.uint8)
        self.lengths: I32 = np.zeros(capacity, dtype=np.int32)
        self.names: U8 = np.zeros((capacity, NAME_BYTES), dtype=np.uint8)
        self.name_lengths: I32 = np.zeros(capacity, dtype=np.int32)
        self.failed = 0
        self._batched = batched_calls_available() if batched is None else batched
        if not self._batched:
            return
        self._vectors = np.zeros(capacity, dtype=_IOVEC)
        self._headers = np.zeros(capacity, dtype=_MSGHDR)
        rows = np.arange(capacity, dtype=np.uint64)
        self._vectors["base"] = self.arena.ctypes.data + rows * np.uint64(ROW_BYTES)
        self._headers["name"] = self.names.ctypes.data + rows * np.uint64(NAME_BYTES)
        self._headers["iov"] = self._vectors.ctypes.data + rows * np.uint64(_IOVEC.itemsize)
        self._headers["iovlen"] = 1
        self._base = self._headers.ctypes.data
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
        self._sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        self._sendmmsg.restype = ctypes.c_int

    def ready(self, count: int) -> None:
        """Take over ``lengths`` and ``name_lengths`` of the first ``count`` rows: call it once before the sends of a batch."""
        if self._batched:
            self._vectors["len"][:count] = self.lengths[:count]
            self._headers["namelen"][:count] = self.name_lengths[:count]

    def send(self, sock: socket.socket, first_row: int, count: int) -> int:
        """Send ``count`` rows from ``first_row`` on; return how many went. What the kernel refuses is dropped and counted."""
        if self._batched:
            sent = max(
                int(self._sendmmsg(sock.fileno(), self._base + first_row * _MSGHDR_BYTES, count, socket.MSG_DONTWAIT)),
                0,
            )
        else:
            sent = 0
            for row in range(first_row, first_row + count):
                try:
                    sock.sendto(self.arena[row, : self.lengths[row]].tobytes(), address_of(self.names[row].tobytes()))
                except OSError:
                    break
                sent += 1
        self.failed += count - sent
        return sent


def pack_address(host: str, port: int, family: int) -> bytes:
    """Return the raw ``sockaddr`` for ``host`` on a socket of ``family``; IPv4 is mapped for an IPv6 socket.

    Raises OSError when ``host`` is no literal address.
    """
    if family == socket.AF_INET6:
        packed = (
            socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
            if ":" in host
            else b"\x00" * 10 + b"\xff\xff" + socket.inet_aton(host)
        )
        return struct.pack("=H", family) + struct.pack("!HI", port, 0) + packed + b"\x00" * 4
    return struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(host) + b"\x00" * 8


def bind_port(host: str, first: int, last: int, start: int) -> tuple[socket.socket, int] | None:
    """Bind a UDP socket to a free even port of [first, last], looking from ``start`` on; None when none is free."""
    low = first + first % 2
    pairs = (last - low) // 2 + 1
    for step in range(pairs):
        port = low + ((start + step) % pairs) * 2
        sock = bind_exactly(host, port)
        if sock is not None:
            return sock, port
    return None


def bind_exactly(host: str, port: int) -> socket.socket | None:
    """Bind a UDP socket to this port; None when somebody else has it. Raises OSError for any other trouble."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise OSError(error.errno, f"cannot bind UDP {host}:{port}: {os.strerror(error.errno or 0)}") from None
        return None
    return sock
