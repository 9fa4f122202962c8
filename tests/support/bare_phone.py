"""A telephone of bare sockets, which sends any packets at any time, and keeps all that it hears.

Owns: one call over UDP: INVITE, ACK, BYE as text, sound and reports as datagrams. Refuses to know: the machine's own code for any of
it, so that both can be wrong in different ways only.

Theory of operation: one thread a call (``start``, ``finish``). It answers the machine's reports as it should, with what it lost by its
own count, so that the machine can know the way there and back.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from tests.support.rtcp import Report, peer_report, read

HOST: Final = "127.0.0.1"
SSRC: Final = 0x5EED
ANSWER_WITHIN_S: Final = 20.0
REPORT_DELAY_S: Final = 0.05
"""Between the machine's report and ours, so that the time since is something to subtract."""


@dataclass(frozen=True)
class Said:
    """One packet to send."""

    at_s: float
    """Since the phone began to speak."""
    kind: int
    ticks: int
    payload: bytes
    marker: bool = False


@dataclass(frozen=True)
class Heard:
    """One packet of the machine."""

    at_s: float
    kind: int
    marker: bool
    sequence: int
    timestamp: int
    payload: bytes


@dataclass
class Phone:
    """One call, from ``sip:number@...``: ``lines`` are the attributes of its offer, ``formats`` the numbers of its formats."""

    sip_port: int
    number: str
    said: list[Said]
    formats: str = "0"
    lines: tuple[str, ...] = ()
    mux: bool = False
    missed: int = 0
    """Packets of the machine that it claims to have lost."""
    reads_reports: bool = True
    """False where they come encrypted, which it does not understand."""
    pause_s: float = 1.5
    """From the first packet of the machine until it speaks: greeting and beep."""
    heard: list[Heard] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    bye_status: int = 0
    target: tuple[str, int] = ("", 0)
    speaking: threading.Event = field(default_factory=threading.Event)

    def start(self) -> Phone:
        """Call."""
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def finish(self, within_s: float = 60) -> None:
        """Wait until the call is over; raises what went wrong in it."""
        self._thread.join(within_s)
        assert not self._thread.is_alive(), f"the call of {self.number} did not end"
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with self._bound() as self._sip, self._bound() as self._sound, self._bound() as self._own:
                self._call()
        except BaseException as error:  # it is raised where the test waits
            self._failure = error

    @staticmethod
    def _bound() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((HOST, 0))
        return sock

    def _call(self) -> None:
        answer = self._ask("INVITE", 1, "", self._offer())
        assert answer.startswith("SIP/2.0 200"), answer
        found = re.search(r"^m=audio (\d+) ", answer, re.MULTILINE)
        assert found, answer
        self.target = (HOST, int(found[1]))
        self._theirs = self.target if "a=rtcp-mux" in answer else (HOST, self.target[1] + 1)
        assert self.mux == ("a=rtcp-mux" in answer)
        to = re.search(r"^To: *([^\r]+)", answer, re.MULTILINE)
        assert to
        self._send("ACK", 1, to[1])
        while not self.heard:
            self._listen(time.monotonic() + 1)
        began_s = self.heard[0].at_s + self.pause_s
        self._listen(began_s)
        self.speaking.set()
        for number, one in enumerate(self.said):
            self._listen(began_s + one.at_s)
            header = struct.pack("!BBHII", 0x80, one.kind | one.marker << 7, number, one.ticks, SSRC)
            self._sound.sendto(header + one.payload, self.target)
        self._listen(time.monotonic() + 0.02)
        self.bye_status = int(self._ask("BYE", 2, to[1]).split()[1])
        self._listen(time.monotonic() + 0.05)

    def _offer(self) -> str:
        rtcp = "a=rtcp-mux" if self.mux else f"a=rtcp:{self._own.getsockname()[1]}"
        lines = (
            *("v=0", f"o=- 1 1 IN IP4 {HOST}", "s=-", f"c=IN IP4 {HOST}", "t=0 0"),
            f"m=audio {self._sound.getsockname()[1]} RTP/AVP {self.formats}",
            *(rtcp, *self.lines),
        )
        return "\r\n".join(lines) + "\r\n"

    def _send(self, method: str, cseq: int, to: str, body: str = "") -> None:
        host, port = self._sip.getsockname()
        here = f"{host}:{port}"
        lines = [
            f"{method} sip:main@{HOST}:{self.sip_port} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{self.number}{method}",
            f"From: <sip:{self.number}@{HOST}>;tag=phone",
            f"To: {to or f'<sip:main@{HOST}>'}",
            f"Call-ID: {self.number}@phone",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:{here}>",
            "Max-Forwards: 70",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self._sip.sendto(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), (HOST, self.sip_port))

    def _ask(self, method: str, cseq: int, to: str, body: str = "") -> str:
        """Send a request and return its final answer."""
        self._send(method, cseq, to, body)
        deadline_s = time.monotonic() + ANSWER_WITHIN_S
        while time.monotonic() < deadline_s:
            if select.select([self._sip], [], [], 0.1)[0]:
                text = self._sip.recv(65_536).decode()
                if text.startswith("SIP/2.0 ") and not text.startswith("SIP/2.0 1") and f"{cseq} {method}" in text:
                    return text
        raise AssertionError(f"no answer to {method}")

    def _listen(self, until_s: float) -> None:
        while (left_s := until_s - time.monotonic()) > 0:
            for sock in select.select([self._sound, self._own], [], [], left_s)[0]:
                data, now_s = sock.recv(2000), time.monotonic()
                if 192 <= data[1] <= 223:
                    assert (sock is self._sound) == self.mux
                    if self.reads_reports:
                        self._answer(read(data), now_s)
                    continue
                _, second, sequence, timestamp, _ = struct.unpack_from("!BBHII", data)
                self.heard.append(Heard(now_s, second & 0x7F, second >= 128, sequence, timestamp, data[12:]))

    def _answer(self, report: Report, now_s: float) -> None:
        self.reports.append(report)
        if report.kind != "SR" or report.goodbye:
            return
        time.sleep(REPORT_DELAY_S)
        delay = round((time.monotonic() - now_s) * 65_536)
        lsr = report.ntp >> 16 & 0xFFFFFFFF
        data = peer_report(SSRC, about=report.ssrc, lost=self.missed, lsr=lsr, dlsr=delay, ntp=1 << 40)
        (self._sound if self.mux else self._own).sendto(data, self._theirs)


def voice(payloads: list[bytes], packet_ms: int, *, kind: int = 0, begin_s: float = 0.0, ticks: int = 0) -> list[Said]:
    """Return payloads of an 8000 Hz clock, sent at their pace from ``begin_s`` on."""
    return [
        Said(begin_s + n * packet_ms / 1000, kind, ticks + n * packet_ms * 8, payload, n == 0)
        for n, payload in enumerate(payloads)
    ]
