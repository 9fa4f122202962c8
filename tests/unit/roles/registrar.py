"""A registrar for tests on the loopback: real sockets, one number, answers that a test may change.

Owns: a UDP socket and a TCP listener on one port, the digest, what came. Refuses to know: who registers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from aftertone.sip.builder import build_response, echo_of
from aftertone.sip.digest_server import DigestServer, Verdict
from aftertone.sip.flow import Flow, Transport
from aftertone.sip.message import Request, parse
from aftertone.sip.stream import StreamSplitter

LOCAL = "127.0.0.1"


@dataclass
class Registrar:
    """Start it inside a running loop."""

    secret: str = "sesame"
    expires_s: int = 600
    port: int = 0
    silent: bool = False
    seen: tuple[str, int] | None = None
    """What Via says of where requests come from, when it is not where they come from."""
    answers: list[int] = field(default_factory=list)
    """Statuses to answer the next requests with, before the usual goes on."""
    extra: tuple[tuple[str, str], ...] = ()
    taken: list[Request] = field(default_factory=list)
    """Each REGISTER that was answered with 200."""
    came: int = 0
    pings: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    digest: DigestServer = field(default_factory=lambda: DigestServer("home", b"k" * 16))
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _udp: asyncio.DatagramTransport | None = None
    _tcp: asyncio.Server | None = None

    async def start(self) -> Registrar:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve, LOCAL, self.port)
        self.port = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(LOCAL, self.port))
        return self

    async def stop(self) -> None:
        """Close everything, connections too."""
        if self._tcp is not None:
            self._tcp.close()
        if self._udp is not None:
            self._udp.close()
        self.drop()
        await asyncio.sleep(0)

    def drop(self) -> None:
        """Cut every connection."""
        for writer in self.writers:
            writer.close()
        self.writers.clear()

    async def until(self, question: Callable[[], bool]) -> None:
        """Wait until the answer is true, looked at with each request."""
        async with asyncio.timeout(10):
            while not question():
                self.changed.clear()
                await self.changed.wait()

    def answer(self, data: bytes, remote: tuple[str, int], transport: Transport) -> bytes | None:
        """Return what to send back for what came."""
        if not data.strip():
            self.pings += 1
            self.changed.set()
            return None
        request = parse(data)
        assert isinstance(request, Request)
        self.came += 1
        self.changed.set()
        flow = Flow(transport, self.seen or remote, (LOCAL, self.port))
        return None if self.silent else self._decide(request, flow)

    def _decide(self, request: Request, flow: Flow) -> bytes:
        echo = echo_of(request, flow)
        if self.answers:
            return build_response(echo, self.answers.pop(0), tag="r", fields=self.extra)
        verdict = self.digest.verify(request, {"ann": self.secret}.get, 0).verdict
        if verdict is not Verdict.OK:
            asks = [("WWW-Authenticate", value) for value in self.digest.challenges(0)]
            return build_response(echo, 401, tag="r", fields=asks)
        self.taken.append(request)
        granted_s = min(self.expires_s, int(request.get("expires")))
        assert request.contact is not None
        contact = ("Contact", f"<{request.contact.uri}>;expires={granted_s}")
        return build_response(echo, 200, tag="r", fields=[contact, *self.extra])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        splitter = StreamSplitter()
        while data := await reader.read(65_536):
            if not data.strip():
                self.answer(data, (LOCAL, 0), "TCP")
                continue
            for message in splitter.feed(data):
                answer = self.answer(message, writer.get_extra_info("peername"), "TCP")
                if answer is not None:
                    writer.write(answer)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        answer = self._registrar.answer(data, address, "UDP")
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, address)
