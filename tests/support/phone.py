"""A very small SIP phone with a lamp, over real sockets: it registers, subscribes, and shows what it is told.

Owns: its socket, its login, and the lamp. Refuses to know: calls and sound.

Theory of operation: one thread reads; it answers every NOTIFY and lights the lamp by it. The test's thread asks and waits for
the answer. Everything is over UDP, or over one TCP connection that the phone opens.
"""

from __future__ import annotations

import os
import queue
import secrets
import socket
import time
from threading import Thread
from typing import Self

from aftertone.sip.digest_client import DigestClient
from aftertone.sip.faults import ParseError
from aftertone.sip.message import Request, Response, parse
from aftertone.sip.mwi import Summary
from aftertone.sip.mwi import parse as parse_summary
from tests.support.machine import Machine, wait_until

ANSWER_S = 2.0


class SmallPhone:
    """One phone; ``with`` closes it."""

    def __init__(
        self,
        machine: Machine,
        user: str = "nobody",
        secret: str = "",
        *,
        tcp: bool = False,
        server: tuple[str, int] | None = None,
    ) -> None:
        """``server``: a proxy to ask instead of the machine itself."""
        self.machine, self.user, self.tcp = machine, user, tcp
        self.server = server or ("127.0.0.1", machine.sip_port)
        if tcp:
            self.socket = socket.create_connection(self.server)
        else:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind(("127.0.0.1", 0))
        self.lamp: Summary | None = None
        self.told: list[Request] = []
        self._login = DigestClient(user, secret, os.urandom)
        self._answers: queue.Queue[Response] = queue.Queue()
        self._cseq = 0
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def contact(self) -> str:
        """Its URI."""
        host, port = self.socket.getsockname()
        return f"sip:{self.user}@{host}:{port}{';transport=tcp' if self.tcp else ''}"

    def shows(self, new: int, old: int | None = None, within_s: float = 5.0) -> float:
        """Wait until the lamp shows this many new (and old) messages; return how long that took."""
        began_s = time.monotonic()

        def right() -> bool:
            return self.lamp is not None and self.lamp.new == new and old in (None, self.lamp.old)

        wait_until(right, f"the lamp of {self.user} to show {new}/{old}; it shows {self.lamp}", within_s)
        return time.monotonic() - began_s

    def register(self, expires_s: int = 600) -> Response:
        """Register; returns the last answer."""
        return self.ask(
            "REGISTER",
            f"sip:{self.server[0]}:{self.server[1]}",
            f"Contact: <{self.contact}>\r\nExpires: {expires_s}\r\n",
        )

    def subscribe(self, mailbox: str, expires_s: int = 600) -> Response:
        """Subscribe to a mailbox; returns the last answer."""
        extra = f"Contact: <{self.contact}>\r\nEvent: message-summary\r\nExpires: {expires_s}\r\n"
        return self.ask("SUBSCRIBE", f"sip:{mailbox}@{self.server[0]}:{self.server[1]}", extra)

    def ask(self, method: str, uri: str, extra: str) -> Response:
        """Send a request in a dialog of its own, log in when asked to, and return the last answer."""
        call_id = secrets.token_hex(8)
        response = self._exchange(method, uri, extra, call_id, ())
        if response.status in (401, 407):
            self._login.challenged(response)
            response = self._exchange(method, uri, extra, call_id, self._login.authorize(method, uri))
        return response

    def _exchange(
        self, method: str, uri: str, extra: str, call_id: str, login: tuple[tuple[str, str], ...]
    ) -> Response:
        self._cseq += 1
        host, port = self.socket.getsockname()
        lines = "".join(f"{name}: {value}\r\n" for name, value in login)
        data = (
            f"{method} {uri} SIP/2.0\r\n"
            f"Via: SIP/2.0/{'TCP' if self.tcp else 'UDP'} {host}:{port};rport;branch=z9hG4bK{secrets.token_hex(6)}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{self.user}@127.0.0.1>;tag={call_id}\r\nTo: <sip:{self.user}@127.0.0.1>\r\n"
            f"Call-ID: {call_id}\r\nCSeq: {self._cseq} {method}\r\n{lines}{extra}Content-Length: 0\r\n\r\n"
        ).encode()
        deadline_s = time.monotonic() + 10
        while True:
            self._send(data)
            try:
                while True:
                    response = self._answers.get(timeout=ANSWER_S)
                    if (response.call_id, response.cseq.number) == (call_id, self._cseq) and response.status >= 200:
                        return response
            except queue.Empty:
                assert time.monotonic() < deadline_s, f"no answer to {method}"

    def _send(self, data: bytes) -> None:
        if self.tcp:
            self.socket.sendall(data)
        else:
            self.socket.sendto(data, self.server)

    def _read(self) -> None:
        while True:
            try:
                data = self.socket.recv(65_536)
            except OSError:
                return
            if self.tcp and not data:
                return
            # Our messages are short, and one comes at a time: several in one read are cut at the next start line.
            for piece in _pieces(data):
                self._take(piece)

    def _take(self, data: bytes) -> None:
        try:
            message = parse(data)
        except ParseError:
            return
        if isinstance(message, Response):
            self._answers.put(message)
            return
        self.told.append(message)
        if message.method == "NOTIFY" and message.body:
            self.lamp = parse_summary(message.body).summary
        to = message.get("to") if message.to.tag else f"{message.get('to')};tag=lamp"
        vias = "".join(f"Via: {value}\r\n" for value in message.all("via"))
        echo = (
            f"SIP/2.0 200 OK\r\n{vias}From: {message.get('from')}\r\nTo: {to}\r\n"
            f"Call-ID: {message.call_id}\r\nCSeq: {message.get('cseq')}\r\nContent-Length: 0\r\n\r\n"
        )
        try:
            self._send(echo.encode())
        except OSError:
            return


def _pieces(data: bytes) -> list[bytes]:
    starts = [0]
    for mark in (b"\r\nSIP/2.0 ", b"\r\nNOTIFY "):
        at = data.find(mark)
        while at >= 0:
            starts.append(at + 2)
            at = data.find(mark, at + 2)
    starts.sort()
    return [data[begin:end] for begin, end in zip(starts, [*starts[1:], len(data)], strict=True)]
