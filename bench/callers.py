"""Many callers in one process: real dialogs, real RTP, and an exact account of what was sent.

    python bench/callers.py SIP_PORT CALLS CALLS_A_SECOND

Owns: the load of ``bench/recordings.py``, which starts it and talks to it by lines: it prints a JSON object when all calls
are up, hangs up when it reads a line, and prints another object when all are down. Refuses to know: what is measured.

Theory of operation: one thread. Every call is an INVITE, ACK and BYE of its own from one SIP socket, and 50 packets of
G.711 speech a second from one RTP socket to the port that its 200 named. The calls are spread over ``PHASES`` moments of
each 20 ms, as callers are; the packets of one moment are rows of one arena and leave in one ``sendmmsg``, so that the load
takes little of the processor that it shares with what it measures. Packet number n of a call has sequence number n, so
that the journal alone tells what is missing. Answers are timed with the kernel's stamps, because we may be busy sending.
"""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aftertone.audio.g711 import encode_ulaw
from aftertone.audio.prompts import prompt
from aftertone.audio.samples import resample
from aftertone.media.sockets import Sender, pack_address
from aftertone.rtp.packet import write_headers

HOST = "127.0.0.1"
PHASES = 10
PHASE_NS = 20_000_000 // PHASES
FRAME_BYTES = 160
T1_NS = 500_000_000
GIVE_UP_NS = 30_000_000_000
_SO_TIMESTAMPNS = 35
_AUDIO_PORT = re.compile(rb"^m=audio (\d+) ", re.MULTILINE)
_TO = re.compile(rb"^To: *([^\r]+)", re.MULTILINE | re.IGNORECASE)
_CALL_ID = re.compile(rb"^Call-ID: *bench-(\d+)@", re.MULTILINE | re.IGNORECASE)
_CSEQ = re.compile(rb"^CSeq: *(\d+ [A-Z]+)", re.MULTILINE | re.IGNORECASE)
_ECHOED = re.compile(rb"^(?:Via|From|To|Call-ID|CSeq):[^\r]*\r\n", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without an answer."""

    request: bytes
    asked_unix_ns: int
    resend_ns: int


class Phase:
    """The calls that speak at one moment of the 20 ms: rows of one arena."""

    def __init__(self, capacity: int, speech: npt.NDArray[np.uint8]) -> None:
        self._sender, self._speech = Sender(capacity), speech
        self._sender.lengths[:] = 12 + FRAME_BYTES
        self.calls = np.zeros(capacity, dtype=np.int64)
        self.packets = np.zeros(capacity, dtype=np.int64)
        self.count = 0

    def add(self, call: int, port: int) -> None:
        """Let ``call`` speak from now on."""
        name = pack_address(HOST, port, socket.AF_INET)
        self._sender.names[self.count, : len(name)] = memoryview(name)
        self._sender.name_lengths[self.count] = len(name)
        self.calls[self.count] = call
        self.count += 1

    def send(self, sock: socket.socket) -> None:
        """Send the next packet of each call."""
        rows = slice(0, self.count)
        number, calls, arena = self.packets[rows], self.calls[rows], self._sender.arena[rows]
        write_headers(
            arena, np.zeros(self.count, np.uint8), number, number * FRAME_BYTES, (calls + 1).astype(np.uint32)
        )
        # Each call says something else at the same time.
        arena[:, 12 : 12 + FRAME_BYTES] = self._speech[(number + calls * 37) % len(self._speech)]
        self._sender.ready(self.count)
        first = 0
        while first < self.count:
            first += self._sender.send(sock, first, self.count - first)
        self.packets[rows] += 1


class Callers:
    """All calls, from the first INVITE to the last answer to a BYE."""

    def __init__(self, sip_port: int, count: int, rate: float) -> None:
        self._target, self._count, self._pause_ns = (HOST, sip_port), count, int(1e9 / rate)
        self._sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sip.bind((HOST, 0))
        self._sip.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._sip.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        self._sip.setblocking(False)
        # What the machine says to us is not listened to: it fills this small buffer and the kernel drops the rest.
        self._rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._rtp.bind((HOST, 0))
        self._rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        clip = prompt("sample_message")
        samples = resample(clip.samples, clip.rate_hz, 8000)
        speech = encode_ulaw(samples[: len(samples) // FRAME_BYTES * FRAME_BYTES]).reshape(-1, FRAME_BYTES)
        self._phases = [Phase(count // PHASES + 1, speech) for _ in range(PHASES)]
        self._next_phase_ns = time.monotonic_ns()
        self._turn = 0
        self.latest_ns = 0
        """How late the latest packets left."""
        self._waiting: dict[int, Waiting] = {}
        self._remote: dict[int, bytes] = {}
        """The To of each call, with the tag of the machine."""
        self.answer_ms: list[float] = []
        self.bye_ms: list[float] = []
        self.resent = 0
        self.failures: list[str] = []

    def call_all(self) -> None:
        """Place every call and return when all are answered or have failed."""
        self._each(self._invite, lambda: len(self.answer_ms) + len(self.failures) >= self._count)

    def hang_up_all(self) -> None:
        """End every call and return when all ends are confirmed. Nobody speaks any more."""
        for phase in self._phases:
            phase.count = 0
        self._each(self._bye, lambda: len(self.bye_ms) + len(self.failures) >= self._count)

    def speak_until_told(self) -> None:
        """Speak until a line comes in."""
        while not select.select([sys.stdin], [], [], 0)[0]:
            self._turn_once(None)
        sys.stdin.readline()

    def packets(self) -> list[int]:
        """Return how many packets each call has sent, in the order of the calls."""
        sent = np.zeros(self._count, dtype=np.int64)
        for phase in self._phases:
            known = phase.packets > 0
            sent[phase.calls[known]] = phase.packets[known]
        return [int(n) for n in sent]

    def _each(self, action: Callable[[int], None], done: Callable[[], bool]) -> None:
        """Start ``action`` for each call at the agreed rate and return when all are ``done``; resend what stays unanswered."""
        began_ns = time.monotonic_ns()
        next_call = 0
        while not done():
            now_ns = time.monotonic_ns()
            due_ns = began_ns + next_call * self._pause_ns if next_call < self._count else None
            if due_ns is not None and due_ns <= now_ns:
                action(next_call)
                next_call += 1
                continue
            self._resend(now_ns)
            if now_ns - began_ns > self._count * self._pause_ns + GIVE_UP_NS:
                self.failures += [f"call {call}: no answer" for call in self._waiting]
                return
            self._turn_once(due_ns)

    def _turn_once(self, due_ns: int | None) -> None:
        """Send when a phase is due, else hear SIP until something is."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._next_phase_ns:
            self.latest_ns = max(self.latest_ns, now_ns - self._next_phase_ns)
            self._phases[self._turn].send(self._rtp)
            self._turn = (self._turn + 1) % PHASES
            self._next_phase_ns += PHASE_NS
            return
        wake_ns = self._next_phase_ns if due_ns is None else min(self._next_phase_ns, due_ns)
        if select.select([self._sip], [], [], max(0, wake_ns - now_ns) / 1e9)[0]:
            self._hear()

    def _invite(self, call: int) -> None:
        host, port = self._rtp.getsockname()
        body = (
            f"v=0\r\no=- {call} 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\n"
            "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
        )
        self._ask(call, self._request(call, "INVITE", 1, b"<sip:main@bench>", body.encode()))

    def _bye(self, call: int) -> None:
        self._ask(call, self._request(call, "BYE", 2, self._remote[call]))

    def _request(self, call: int, method: str, number: int, to: bytes, body: bytes = b"") -> bytes:
        host, port = self._sip.getsockname()
        head = (
            f"{method} sip:main@{HOST}:{self._target[1]} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {host}:{port};rport;branch=z9hG4bK-{method}-{call}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:+4930{call:07d}@{host}>;tag=bench{call}\r\nTo: "
        ).encode()
        kind = "Content-Type: application/sdp\r\n" if body else ""
        rest = (
            f"\r\nCall-ID: bench-{call}@{host}\r\nCSeq: {number} {method}\r\nContact: <sip:bench@{host}:{port}>\r\n"
            f"{kind}Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        return head + to + rest + body

    def _ask(self, call: int, request: bytes) -> None:
        self._waiting[call] = Waiting(request, time.time_ns(), time.monotonic_ns() + T1_NS)
        self._sip.sendto(request, self._target)

    def _resend(self, now_ns: int) -> None:
        # In the order of their deadlines: what is asked again goes to the end.
        while self._waiting:
            call, waiting = next(iter(self._waiting.items()))
            if waiting.resend_ns > now_ns:
                return
            self._waiting[call] = replace(self._waiting.pop(call), resend_ns=now_ns + T1_NS)
            self.resent += 1
            self._sip.sendto(waiting.request, self._target)

    def _hear(self) -> None:
        """Take every SIP message that waits."""
        while True:
            try:
                data, control, _, source = self._sip.recvmsg(65536, 256)
            except BlockingIOError:
                return
            stamps = [struct.unpack("=qq", value[:16]) for _, kind, value in control if kind == _SO_TIMESTAMPNS]
            stamp_ns = stamps[0][0] * 1_000_000_000 + stamps[0][1] if stamps else time.time_ns()
            found, sequence = _CALL_ID.search(data), _CSEQ.search(data)
            if found is None or sequence is None:
                continue
            call = int(found[1])
            if not data.startswith(b"SIP/2.0 "):
                if data.startswith(b"BYE "):
                    self.failures.append(f"call {call}: the machine hung up")
                    echoed = b"".join(_ECHOED.findall(data))
                    self._sip.sendto(b"SIP/2.0 200 OK\r\n" + echoed + b"Content-Length: 0\r\n\r\n", source)
            elif (status := int(data[8:11])) >= 200:
                self._answered(call, sequence[1], status, data, stamp_ns)

    def _answered(self, call: int, sequence: bytes, status: int, data: bytes, stamp_ns: int) -> None:
        to = _TO.search(data)
        if sequence.endswith(b"INVITE") and to is not None:
            # Also for a 200 that is repeated: the ACK before was lost.
            self._sip.sendto(self._request(call, "ACK", 1, to[1]), self._target)
        waiting = self._waiting.get(call)
        if waiting is None or sequence not in waiting.request:
            return
        del self._waiting[call]
        took_ms = (stamp_ns - waiting.asked_unix_ns) / 1e6
        port = _AUDIO_PORT.search(data)
        if status != 200:
            self.failures.append(f"call {call}: {data[8:].partition(bytes((13,)))[0].decode('ascii', 'replace')}")
        elif sequence.endswith(b"BYE"):
            self.bye_ms.append(took_ms)
        elif port is not None and to is not None:
            self.answer_ms.append(took_ms)
            self._remote[call] = to[1]
            self._phases[call % PHASES].add(call, int(port[1]))


def main() -> None:
    """Call, speak until told to stop, hang up; print what happened."""
    callers = Callers(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    callers.call_all()
    print(json.dumps({"answer_ms": callers.answer_ms, "failures": callers.failures}), flush=True)
    callers.speak_until_told()
    spoke_cpu_s = time.process_time()
    if not callers.failures:
        callers.hang_up_all()
    facts = {
        "bye_ms": callers.bye_ms,
        "packets": callers.packets(),
        "resent": callers.resent,
        "latest_ms": callers.latest_ns / 1e6,
        "cpu_s": spoke_cpu_s,
        "failures": callers.failures,
    }
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
