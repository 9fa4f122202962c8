"""Callers without sound for a SIP server on 127.0.0.1, and what the server needed.

Owns: whole calls (INVITE, 200, ACK, BYE, 200) from one socket, as bytes made from templates, resent when an answer is late; the
latency of each answer, and the server's processor time as the kernel counts it. Refuses to know: which server it is.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from bench.sip_servers import BODY

RESEND_S = 0.5
GIVE_UP_S = 5.0
_TAG = re.compile(rb"\r\nTo:[^\r]*;tag=([^\r;>]+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nCall-ID: *([^\r]+)", re.IGNORECASE)
_METHOD = re.compile(rb"\r\nCSeq: *\d+ +([A-Z]+)", re.IGNORECASE)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Tally:
    """What one run brought."""

    begun: int = 0
    finished: int = 0
    failed: int = 0
    resent: int = 0
    answers_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def per_core(self) -> float:
        """Calls a second that one core of the server would carry."""
        return self.finished / self.cpu_s if self.cpu_s else 0.0

    def percentile(self, share: float) -> float:
        """Milliseconds within which that share of the INVITEs had their 200."""
        ordered = sorted(self.answers_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@dataclass
class _Call:
    begun_s: float
    sent_s: float
    waiting: bytes
    answered: bool = False


class Callers(asyncio.DatagramProtocol):
    """Calls in flight."""

    def __init__(self, port: int, done: Callable[[], None]) -> None:
        self.tally = Tally()
        self.calls: dict[bytes, _Call] = {}
        self._server, self._done = port, done
        self._run = os.urandom(4).hex()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._port = transport.get_extra_info("sockname")[1]

    def begin(self) -> None:
        """Place a call."""
        self.tally.begun += 1
        call_id = f"{self._run}-{self.tally.begun}@127.0.0.1".encode()
        data = self._request("INVITE", call_id, b"", BODY)
        now_s = time.perf_counter()
        self.calls[call_id] = _Call(now_s, now_s, data)
        self._transport.sendto(data)

    def resend(self) -> None:
        """Send again what has waited too long; give up what has waited far too long."""
        now_s = time.perf_counter()
        for call_id, call in list(self.calls.items()):
            if now_s - call.begun_s > GIVE_UP_S:
                del self.calls[call_id]
                self.tally.failed += 1
                self._done()
            elif now_s - call.sent_s > RESEND_S:
                call.sent_s = now_s
                self.tally.resent += 1
                self._transport.sendto(call.waiting)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Take an answer."""
        status = int(data[8:11])
        found = _ID.search(data)
        call = self.calls.get(found[1]) if found else None
        if found is None or call is None or status < 200:
            return
        call_id, method = found[1], _METHOD.search(data)
        now_s = time.perf_counter()
        if method is not None and method[1] == b"BYE" and call.answered:
            del self.calls[call_id]
            self.tally.finished += 1
            self._done()
        elif not call.answered and status == 200:
            call.answered, call.sent_s = True, now_s
            self.tally.answers_ms.append((now_s - call.begun_s) * 1e3)
            tag = _TAG.search(data)
            to_tag = b";tag=" + tag[1] if tag else b""
            self._transport.sendto(self._request("ACK", call_id, to_tag))
            call.waiting = self._request("BYE", call_id, to_tag)
            self._transport.sendto(call.waiting)
        elif not call.answered:
            del self.calls[call_id]
            self.tally.failed += 1
            self._done()

    def _request(self, method: str, call_id: bytes, to_tag: bytes, body: bytes = b"") -> bytes:
        number = 2 if method == "BYE" else 1
        kind = "Content-Type: application/sdp\r\n" if body else ""
        head = (
            f"{method} sip:box@127.0.0.1:{self._server} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{self._port};branch=z9hG4bK{method}{call_id.decode().partition('@')[0]};rport\r\n"
            f'Max-Forwards: 70\r\nFrom: "Load" <sip:load@127.0.0.1:{self._port}>;tag={call_id.decode().partition("@")[0]}\r\n'
            f"To: <sip:box@127.0.0.1:{self._server}>{to_tag.decode()}\r\nCall-ID: {call_id.decode()}\r\nCSeq: {number} {method}\r\n"
            f"Contact: <sip:load@127.0.0.1:{self._port}>\r\n{kind}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far, to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def at_rate(port: int, pid: int, per_s: float, seconds: float) -> Tally:
    """Place so many calls a second, evenly, whatever the server does."""
    callers, close = await _callers(port, lambda: None)
    begin_cpu, begin_s = cpu_s(pid), time.perf_counter()
    for number in range(int(per_s * seconds)):
        due_s = begin_s + number / per_s
        while (pause_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(min(pause_s, 0.001))
        callers.begin()
        if number % 50 == 0:
            callers.resend()
            await asyncio.sleep(0)
    return await _finish(callers, close, pid, begin_cpu, begin_s)


async def at_once(port: int, pid: int, window: int, calls: int) -> Tally:
    """Keep ``window`` calls in flight until ``calls`` have been placed: as many a second as the server can."""
    callers, close = await _callers(port, lambda: callers.begin() if callers.tally.begun < calls else None)
    begin_cpu, begin_s = cpu_s(pid), time.perf_counter()
    for _ in range(window):
        callers.begin()
    while callers.tally.begun < calls and time.perf_counter() - begin_s < 60:
        await asyncio.sleep(0.1)
        callers.resend()
    return await _finish(callers, close, pid, begin_cpu, begin_s)


async def _callers(port: int, done: Callable[[], None]) -> tuple[Callers, Callable[[], None]]:
    loop = asyncio.get_running_loop()
    transport, callers = await loop.create_datagram_endpoint(
        lambda: Callers(port, done), remote_addr=("127.0.0.1", port), local_addr=("127.0.0.1", 0)
    )
    return callers, transport.close


async def _finish(callers: Callers, close: Callable[[], None], pid: int, begin_cpu: float, begin_s: float) -> Tally:
    while callers.calls and time.perf_counter() - begin_s < 120:
        await asyncio.sleep(0.02)
        callers.resend()
    callers.tally.wall_s = time.perf_counter() - begin_s
    callers.tally.cpu_s = cpu_s(pid) - begin_cpu
    close()
    return callers.tally
