"""A test caller: the machine's own SIP core, the other way round.

Owns: placing one call, hearing the beep, speaking, hanging up, and telling what happened. Refuses to know: mailboxes and
everything else behind the line; it sees the machine as any telephone does.

Theory of operation: one endpoint on a free port, one RTP socket, one coroutine. It sends nothing before the beep has ended
and stops with the last frame, so that what the machine keeps can be compared with what was sent, sample by sample.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import numpy as np

from aftertone.audio.clips import Clip, encode_clip
from aftertone.audio.codec import Decoder
from aftertone.audio.prompts import BEEP_HZ
from aftertone.audio.samples import Samples
from aftertone.errors import AftertoneError, UsageError
from aftertone.model import SAMPLE_RATE_HZ, Codec
from aftertone.net.addresses import local_host_towards
from aftertone.net.endpoint import SipEndpoint
from aftertone.net.resolver import Resolver, Target
from aftertone.net.tls import Tls
from aftertone.rtp.packet import serialize
from aftertone.rtp.srtp import SrtpReceiver, SrtpSender
from aftertone.sdp import negotiation
from aftertone.sdp.crypto import Policy, Secrecy
from aftertone.sdp.negotiation import MediaPlan
from aftertone.sip import events as sip
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import bracketed
from aftertone.sip.settings import AgentSettings
from aftertone.sip.uri import parse_uri

FRAME_S: Final = 0.02
BEEP_FRAMES: Final = 4
BEEP_OVER_S: Final = 0.06
"""No beep for as long as this after a beep: the machine listens."""
BEEP_LEVEL: Final = 300.0
BEEP_SHARE: Final = 0.8
ANSWER_WITHIN_S: Final = 120.0
BEEP_WITHIN_S: Final = 90.0
BYE_WITHIN_S: Final = 35.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What to do: whom to call, what to say, how."""

    uri: str
    audio: Clip
    codec: Codec | None = None
    """None offers every codec and takes what the machine chooses."""
    from_uri: str = ""
    display_name: str = ""
    hang_up: bool = True
    """False goes away without a BYE, as a phone with an empty battery does."""
    headers: tuple[tuple[str, str], ...] = ()
    srtp: Policy = "off"
    """Whether to offer keys: not at all, for who takes them (RFC 8643), or in a profile that needs them."""
    login: DigestClient | None = None
    """Who we are, for a machine or a proxy that asks."""
    authorities: Path | None = None
    """Certificates that are trusted besides the system's, over TLS."""
    verify: bool = True
    """Whether a server must prove its name over TLS."""


@dataclass(slots=True)
class Outcome:
    """What happened."""

    ringing: bool = False
    answered: bool = False
    beep_heard: bool = False
    sent_ms: int = 0
    codec: str = ""
    early_ms: int = 0
    """Sound that came before any answer."""
    hung_up: bool = False
    bye_status: int | None = None
    failure: str = ""
    status: int = 0
    srtp: str = ""
    """What the sound was encrypted with; empty when it was not."""


@dataclass(slots=True)
class _BeepEar:
    """Listens for the beep: frames that are one sine of its frequency."""

    decoder: Decoder
    rate_hz: int
    run: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    last_s: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, payload: bytes) -> None:
        samples = self.decoder.decode(payload)
        if _is_beep(samples, self.rate_hz):
            self.run += 1
            self.last_s = time.monotonic()
            if self.run >= BEEP_FRAMES:
                self.heard.set()
        elif self.heard.is_set():
            self.ended.set()
        else:
            self.run = 0


def _is_beep(samples: Samples, rate_hz: int) -> bool:
    if not len(samples):
        return False
    signal = samples.astype(np.float64)
    power = float(np.mean(signal**2))
    if power < BEEP_LEVEL**2:
        return False
    phase = 2 * np.pi * BEEP_HZ * np.arange(len(signal)) / rate_hz
    part = 2 * abs(np.mean(signal * np.exp(-1j * phase))) ** 2
    return bool(part / power >= BEEP_SHARE)


class _Rtp(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.on_packet: Callable[[bytes], None] | None = None
        self._sender: SrtpSender | None = None
        self._receiver: SrtpReceiver | None = None
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002 - the protocol's signature
        opened = data if self._receiver is None else self._receiver.open(data)
        if self.on_packet is not None and opened is not None and len(opened) > 12 and opened[0] >> 6 == 2:
            self.on_packet(opened)

    def protect(self, plan: MediaPlan) -> str:
        """Speak and hear as agreed from now on; returns the suite, empty for none. The same keys again change nothing."""
        keys = plan.keys
        if keys is None:
            self._sender = self._receiver = None
            return ""
        if self._sender is None or self._sender.master != keys.sending:
            self._sender = SrtpSender(keys.sending)
        if self._receiver is None or self._receiver.master != keys.receiving:
            self._receiver = SrtpReceiver(keys.receiving)
        return keys.sending.suite.value

    def send(self, packet: bytes, address: tuple[str, int]) -> None:
        """Send one packet, protected if that was agreed."""
        if self.transport is not None:
            self.transport.sendto(packet if self._sender is None else self._sender.protect(packet), address)


class TestCaller:
    """One call. ``report`` hears a line for each thing that happens."""

    def __init__(self, wish: Wish, report: Callable[[str], None]) -> None:
        self._wish, self._report = wish, report
        self.outcome = Outcome()
        self.sent_ns: list[int] = []
        """Monotonic time of each frame that was sent."""
        self.early: list[bytes] = []
        """Payloads that came before any answer, as they came; their codec is the outcome's."""
        self._answered: asyncio.Future[sip.CallAnswered | None] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self._plan: MediaPlan | None = None
        self._dialog: sip.DialogId | None = None
        self._call: sip.CallId | None = None
        self._offer = b""
        self._rtp: _Rtp | None = None
        self._endpoint: SipEndpoint | None = None

    async def run(self) -> Outcome:
        """Call, speak, hang up. Raises UsageError for a URI that cannot be called, EnvironmentFault without a network."""
        target = await resolve(self._wish.uri)
        local_host = local_host_towards(target.address)
        self._endpoint = endpoint = SipEndpoint(
            AgentSettings(user_agent="Aftertone test caller", user="caller"),
            self._on_event,
            hosts=(local_host,),
            port=0,
            tls=Tls(authorities=self._wish.authorities, verify=self._wish.verify)
            if target.transport == "TLS"
            else None,
        )
        await endpoint.start()
        loop = asyncio.get_running_loop()
        rtp_transport, rtp = await loop.create_datagram_endpoint(_Rtp, local_addr=(local_host, 0))
        self._rtp = rtp
        try:
            port = rtp_transport.get_extra_info("sockname")[1]
            codecs = negotiation.DEFAULT_CODECS if self._wish.codec is None else (self._wish.codec,)
            self._offer = negotiation.offer(
                local_host=local_host,
                local_port=port,
                session_id=secrets.randbits(48),
                version=1,
                codecs=codecs,
                secrecy=Secrecy(self._wish.srtp, secrets.token_bytes),
            )
            self._report(f"calling {self._wish.uri}")
            self._call = endpoint.invite(
                self._wish.uri,
                from_uri=self._wish.from_uri or f"sip:test-caller@{bracketed(local_host)}",
                display_name=self._wish.display_name,
                body=self._offer,
                content_type="application/sdp",
                flow=endpoint.flow_for(target),
                headers=self._wish.headers,
                login=self._wish.login,
            )
            await self._converse(endpoint, rtp)
        finally:
            rtp_transport.close()
            await endpoint.stop()
        return self.outcome

    def give_up(self) -> None:
        """Hang up in the middle, whatever is being said."""
        if self._endpoint is not None and self._dialog is not None:
            self._endpoint.bye(self._dialog)

    async def _converse(self, endpoint: SipEndpoint, rtp: _Rtp) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answered = await self._answered
        except TimeoutError:
            self._fail("nobody answered")
            return
        if answered is None:
            return
        said = answered.response.body
        # Who answered the offer reliably before need not say it again (RFC 6337 section 3.1.1).
        plan = self._plan if self._plan and not said else negotiation.plan_from_answer(self._offer, said)
        self._plan = plan
        self._dialog = answered.dialog_id
        self.outcome.codec = plan.codec.value
        self.outcome.srtp = rtp.protect(plan)
        self._report(f"answered ({plan.codec.value}{', ' + self.outcome.srtp if self.outcome.srtp else ''})")
        ear = _BeepEar(Decoder(plan.codec), SAMPLE_RATE_HZ[plan.codec])
        voice = {p.number for p in plan.payload_types if p.name == plan.codec.value}
        rtp.on_packet = lambda data: ear.hear(data[12:]) if data[1] & 0x7F in voice else None
        await self._wait_for_beep(ear)
        if not self._gone.is_set():
            await self._speak(rtp, plan)
        if self._gone.is_set():
            self._report("the machine hung up")
        elif self._wish.hang_up:
            endpoint.bye(self._dialog)
            await self._wait_for_bye()

    async def _wait_for_beep(self, ear: _BeepEar) -> None:
        deadline_s = time.monotonic() + BEEP_WITHIN_S
        while not ear.ended.is_set() and not self._gone.is_set():
            await asyncio.sleep(0.005)
            now_s = time.monotonic()
            if ear.heard.is_set() and now_s - ear.last_s > BEEP_OVER_S:
                break
            if now_s > deadline_s:
                self._report("no beep was heard; speaking all the same")
                return
        if ear.heard.is_set():
            self.outcome.beep_heard = True
            self._report("beep heard")

    async def _speak(self, rtp: _Rtp, plan: MediaPlan) -> None:
        """Send the audio in real time, paced by the clock, so that a late wake-up delays nothing that follows."""
        if plan.remote is None:
            self._report("the machine does not want to hear anything")
            return
        encoded = encode_clip(self._wish.audio, plan.codec)
        sequence, timestamp, ssrc = secrets.randbits(15), secrets.randbits(32), secrets.randbits(32)
        began_s = time.monotonic()
        for index, frame in enumerate(encoded.frames):
            await asyncio.sleep(max(0.0, began_s + index * FRAME_S - time.monotonic()))
            if self._gone.is_set():
                break
            packet = serialize(plan.payload_type, sequence + index, timestamp, ssrc, frame, marker=index == 0)
            rtp.send(packet, plan.remote)
            self.sent_ns.append(time.monotonic_ns())
            timestamp += encoded.ticks_per_frame
            self.outcome.sent_ms += 20
        await asyncio.sleep(FRAME_S)
        self._report(f"sent {self.outcome.sent_ms / 1000:.2f} s of sound")

    async def _wait_for_bye(self) -> None:
        try:
            async with asyncio.timeout(BYE_WITHIN_S):
                await self._gone.wait()
        except TimeoutError:
            self._fail("the machine did not confirm that we hung up")
            return
        self.outcome.hung_up = True
        if self.outcome.bye_status == 200:
            self._report("hung up; the machine confirmed: what was said is on its disk")
        else:
            self._fail(f"hung up; the machine answered {self.outcome.bye_status}")

    def _on_event(self, event: sip.Event) -> None:
        match event:
            case sip.CallProgress(_, status, response):
                if status == 180 and not self.outcome.ringing:
                    self.outcome.ringing = True
                    self._report("ringing")
                if response.body and self._plan is None:
                    self._listen_early(response.body)
            case sip.CallAnswered():
                self.outcome.answered = True
                if not self._answered.done():
                    self._answered.set_result(event)
            case sip.CallFailed(_, status, reason):
                self.outcome.status = status
                if self.early:
                    self._report(f"heard {self.outcome.early_ms / 1000:.2f} s of sound")
                self._fail(f"refused: {status} {reason}")
                if not self._answered.done():
                    self._answered.set_result(None)
            case sip.DialogEnded(_, transaction, _):
                if self._endpoint is not None:
                    self._endpoint.respond(transaction, 200)
                self._gone.set()
            case sip.ByeFinished(_, status):
                self.outcome.bye_status = status
                self._gone.set()
            case sip.ReofferReceived(_, transaction, _) | sip.RequestInDialog(_, transaction, _):
                if self._endpoint is not None:
                    self._endpoint.respond(transaction, 488)

    def _listen_early(self, answer: bytes) -> None:
        """Hear what comes before any answer (RFC 3960)."""
        if self._rtp is None:
            return
        try:
            plan = self._plan = negotiation.plan_from_answer(self._offer, answer)
        except AftertoneError as error:
            self._report(f"a description before the answer cannot be used: {error}")
            return
        voice = {p.number for p in plan.payload_types if p.name == plan.codec.value}

        def hear(data: bytes) -> None:
            if data[1] & 0x7F in voice:
                self.early.append(data[12:])
                self.outcome.early_ms += plan.ptime_ms

        self.outcome.codec = plan.codec.value
        self.outcome.srtp = self._rtp.protect(plan)
        self._report(f"not answered, but there is something to hear ({plan.codec.value})")
        self._rtp.on_packet = hear

    def _fail(self, text: str) -> None:
        self.outcome.failure = text
        self._report(text)


async def resolve(uri: str) -> Target:
    """Return where a SIP URI leads first. Raises UsageError for a malformed one, EnvironmentFault for no address."""
    try:
        parsed = parse_uri(_full(uri))
        if parsed.port == 0:
            raise ParseError("port 0")
        return (await Resolver().resolve(parsed))[0]
    except (ParseError, UsageError) as error:
        raise UsageError(
            f"{uri!r} is no SIP address: {error}; write sip:mailbox@host or sip:mailbox@host:port"
        ) from None


def _full(uri: str) -> str:
    return uri if uri.lower().startswith(("sip:", "sips:")) else f"sip:{uri}"
