"""What has reached the guest, and how late its line says that it is: both from the same wire as the sound.

Owns: asking the guest's kernel for an echo (ICMP) every ``EVERY_S``, and telling until when everything had been taken;
hearing the line's status, which the guest sends. Refuses to know: calls.

Specification: RFC 792. Theory of operation: an emulated processor may be kept waiting by the host, and then what was sent
lies on the wire: no machine can keep what it was not given. The wire keeps its order, and the guest's kernel answers
echoes by itself, in the same place where it takes a call's packets. So whatever was sent before an echo that was answered had
been taken. Aftertone's own delays come after that, and are never excused by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from types import TracebackType
from typing import Final, Self

from tests.crash.vm.image import HOST_ADDRESS, STATUS_PORT

EVERY_S: Final = 0.04
REQUEST: Final = 8
REPLY: Final = 0
IDENTIFIER: Final = 0xA7E0
HEADER: Final = struct.Struct("!BBHHH")


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def request(sequence: int) -> bytes:
    """Return an echo request."""
    blank = HEADER.pack(REQUEST, 0, 0, IDENTIFIER, sequence)
    return HEADER.pack(REQUEST, 0, checksum(blank), IDENTIFIER, sequence)


def answered(datagram: bytes) -> int | None:
    """Return the sequence number of a reply to one of ours, with its IPv4 header, or None for anything else."""
    body = datagram[(datagram[0] & 0x0F) * 4 :] if datagram else b""
    if len(body) < HEADER.size:
        return None
    kind, _, _, identifier, sequence = HEADER.unpack_from(body)
    return int(sequence) if (kind, identifier) == (REPLY, IDENTIFIER) else None


class Echoes:
    """Asks ``address`` until the context is left; on one event loop. For less than the 40 minutes of 65,536 requests."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        self._sent_ns: list[int] = []
        self._newest = -1
        self._told_ms = 0.0
        self._task: asyncio.Task[None] | None = None
        self._statuses = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._statuses.setblocking(False)
        self._statuses.bind((HOST_ADDRESS, STATUS_PORT))

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._socket, self._hear)
        self._task = asyncio.create_task(self._ask())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._socket.close()
        self._statuses.close()

    def reached_until_ns(self) -> int | None:
        """Return a moment (monotonic) before which everything that was sent has been taken; None if nothing was answered."""
        self._hear()
        return self._sent_ns[self._newest] if self._newest >= 0 else None

    def told_ms(self) -> float:
        """Return how long sound has waited for the disk at worst, by what the line has told since this began."""
        with contextlib.suppress(BlockingIOError):
            while True:
                # Read in the middle of a rewrite, a status is not whole.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    status = json.loads(self._statuses.recv(65_536))
                    self._told_ms = max(self._told_ms, float(status["metrics"]["oldest_audio_not_durable_ms"]))
        return self._told_ms

    async def _ask(self) -> None:
        while True:
            self._sent_ns.append(time.monotonic_ns())
            with contextlib.suppress(OSError):
                self._socket.sendto(request((len(self._sent_ns) - 1) & 0xFFFF), (self._address, 0))
            self.told_ms()
            await asyncio.sleep(EVERY_S)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sequence = answered(self._socket.recv(2048))
                if sequence is not None:
                    self._newest = max(self._newest, sequence)
