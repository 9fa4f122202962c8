"""What the fuzzer feeds, and what may come of it.

Owns: one function a parser, which raises only when it found something. Refuses to know: where the bytes come from.

Theory of operation: a target hands its bytes to the parser as a peer's datagram would, lets the parser's own kind of error pass,
and checks on top what a crash would not show: that what was read can be written and read again, that columns stay within
their rows, that an agent holds no more than it said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from aftertone.errors import DamagedError, PeerError
from aftertone.rtp import batch, rtcp
from aftertone.sdp import description, negotiation
from aftertone.sdp.crypto import Secrecy
from aftertone.sip import mwi
from aftertone.sip.agent import Agent
from aftertone.sip.checks import read_answer, read_whole, refusal
from aftertone.sip.digest import parse_challenges
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.digest_server import DigestServer, Verdict
from aftertone.sip.diversion import MOST_ENTRIES, called_of, diversion_of
from aftertone.sip.events import Event, IncomingCall, ReofferReceived, RequestInDialog, SubscriptionAsked, Transmit
from aftertone.sip.faults import ParseError
from aftertone.sip.identity import MAX_NAME, claims_of
from aftertone.sip.message import MAX_MESSAGE_BYTES, Request, Response, parse, salvage, serialize
from aftertone.sip.pcap import pack_pcap
from aftertone.sip.registration import Registrant, Registration
from aftertone.sip.settings import AgentSettings
from aftertone.sip.stream import StreamSplitter
from aftertone.sip.trace import Recorder, blanked, call_id_of, label_of, pack_trace, unpack_trace
from tests.fuzz.kinds import kinds_of
from tests.unit.sip.kit import FLOW, TCP_FLOW, agent, seeded

Target = Callable[[bytes], None]
_SETTINGS: Final = AgentSettings()
_ROW_BYTES: Final = 1500
REGISTRANT: Final = Registrant("sip:home", "sip:ann@home", "ann", "0123456789abcdef", "urn:uuid:x")


def sip(data: bytes) -> None:
    """One message with everything that is ever asked of it. May raise ParseError inside, and nothing else."""
    with contextlib.suppress(ParseError):
        message = parse(data)
        again = parse(serialize(message))
        assert type(again) is type(message)
        assert again.body == message.body
        assert {name for name in again.headers if name != "content-length"} == {
            name for name in message.headers if name != "content-length"
        }
        if isinstance(message, Request):
            claims_of(message, trusted=True)
            diversion_of(message)
            list(called_of(message))
            read_whole(message)
            refusal(message, _SETTINGS)
        for read in ("vias", "from_", "to", "cseq", "contact", "content_type"):
            with contextlib.suppress(ParseError):
                getattr(message, read)
    salvage(data)


def sip_agent(data: bytes) -> None:
    """An agent that gets the pieces of the input, split at NUL NUL, as datagrams and on a connection, and answers calls."""
    subject = agent(AgentSettings(allow_events=("message-summary",)))
    now_ns = 0
    for number, piece in enumerate(data.split(b"\0\0")[:16]):
        now_ns += 10_000_000
        subject.receive(piece, TCP_FLOW if number % 2 else FLOW, now_ns)
        _answer(subject.outputs(), subject, now_ns)
    for _ in range(64):
        deadline_ns = subject.deadline_ns()
        if deadline_ns is None:
            break
        now_ns = max(now_ns, deadline_ns)
        subject.advance(now_ns)
        subject.outputs()


def _answer(outputs: list[Transmit | Event], subject: Agent, now_ns: int) -> None:
    for output in outputs:
        if isinstance(output, Transmit):
            parse(output.data)
        elif isinstance(output, (IncomingCall, ReofferReceived, RequestInDialog)):
            subject.respond(output.transaction_id, 200, now_ns=now_ns)
        elif isinstance(output, SubscriptionAsked):
            subject.accept_subscription(output.transaction_id, b"Messages-Waiting: no\r\n", now_ns)


def summary(data: bytes) -> None:
    """The body of a NOTIFY about waiting messages. May raise ParseError inside, and nothing else."""
    with contextlib.suppress(ParseError):
        mwi.parse(data)


def stream(data: bytes) -> None:
    """A connection that delivers the input byte by byte finds the messages that it finds in one read."""
    whole = StreamSplitter()
    messages = whole.feed(data)
    pieces = StreamSplitter()
    single = [message for at in range(len(data)) for message in pieces.feed(data[at : at + 1])]
    assert (messages, whole.failed) == (single, pieces.failed)
    assert whole.pending <= MAX_MESSAGE_BYTES + len(data)


def sdp(data: bytes) -> None:
    """A description, and an answer to it as an offer. May raise PeerError inside (SdpError and its kind)."""
    with contextlib.suppress(PeerError):
        read = description.parse(data)
        assert description.parse(description.serialize(read)).media == read.media
    with contextlib.suppress(PeerError):
        answer, plan = negotiation.answer(data, local_host="192.0.2.1", local_port=4000, session_id=1, version=1)
        assert len(description.parse(answer).media) == len(description.parse(data).media)
        assert plan.payload_types
    with contextlib.suppress(PeerError):
        offer = negotiation.offer(local_host="192.0.2.1", local_port=4000, session_id=1, version=1)
        negotiation.plan_from_answer(offer, data)
    secrecy = Secrecy("optional", bytes)
    with contextlib.suppress(PeerError):
        answer, plan = negotiation.answer(
            data, local_host="192.0.2.1", local_port=4000, session_id=1, version=1, secrecy=secrecy
        )
        assert (plan.keys is not None) is (b"\r\na=crypto:" in answer)
    with contextlib.suppress(PeerError):
        offer = negotiation.offer(local_host="192.0.2.1", local_port=4000, session_id=1, version=1, secrecy=secrecy)
        negotiation.plan_from_answer(offer, data)


def rtp(data: bytes) -> None:
    """A batch of datagrams, each led by two bytes of length: columns stay within their rows, whatever comes."""
    pieces: list[bytes] = []
    while len(data) >= 2 and len(pieces) < 32:
        length = (data[0] << 8 | data[1]) % (_ROW_BYTES + 200)
        pieces.append(data[2 : 2 + length])
        data = data[2 + length :]
    arena = np.zeros((max(1, len(pieces)), _ROW_BYTES), np.uint8)
    lengths = np.zeros(len(arena), np.int32)
    for row, piece in enumerate(pieces):
        arena[row, : len(piece)] = np.frombuffer(piece[:_ROW_BYTES], np.uint8)
        lengths[row] = len(piece)
    headers = batch.parse(arena, lengths)
    assert np.all(headers.payload_start[headers.valid] >= batch.HEADER_BYTES)
    assert np.all(headers.payload_end[headers.valid] <= lengths[headers.valid])
    assert np.all(headers.payload_start <= headers.payload_end)
    assert not np.any(headers.valid & headers.rtcp)
    assert ("valid" in kinds_of(headers)) is bool(headers.valid.any())


def reports(data: bytes) -> None:
    """An RTCP compound: never raises, and never reads more than is there."""
    found = rtcp.parse(data)
    assert len(found.blocks) * 24 + len(found.senders) * 20 + len(found.goodbyes) * 4 <= len(data)


def registration(data: bytes) -> None:
    """A registration that gets the pieces of the input, split at NUL NUL, as answers; and each piece as credentials.

    Whatever comes, there is a next moment, and nobody gets in without the secret.
    """
    entropy = seeded()
    account = Registration(REGISTRANT, DigestClient("ann", "sesame", entropy), entropy, 0)
    server, now_ns = DigestServer("home", b"k" * 16), 0
    for piece in data.split(b"\0\0")[:16]:
        text = piece.decode("utf-8", "surrogateescape")
        credentials = Request("REGISTER", "sip:home", {"authorization": [text]})
        assert server.verify(credentials, {"ann": "sesame"}.get, 0).verdict is not Verdict.OK
        parse_challenges([text])
        with contextlib.suppress(ParseError):
            message = parse(piece)
            if isinstance(message, Response):
                read_answer(message)
                now_ns = max(now_ns, account.deadline_ns() or 0)
                account.ask(FLOW)
                account.answered(message, now_ns)
                assert account.deadline_ns() is not None


def callers(data: bytes) -> None:
    """Who called and for whom: the first line is the Request-URI, each other a header that may say so. Raises nothing at all."""
    uri, *lines = data.decode("utf-8", "surrogateescape").split("\n")[:64]
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    request = Request("INVITE", uri, headers)
    diversion = diversion_of(request)
    named = [one.user for one in called_of(request)]
    assert len(named) <= 4 + 3 * MOST_ENTRIES + len(headers.get("to", ()))
    for trusted in (True, False):
        claims = claims_of(request, trusted=trusted)
        assert max(map(len, (claims.caller.number, claims.caller.name, claims.verstat))) <= MAX_NAME
        f"{claims}{diversion}".encode()
    assert all(name.isprintable() for name in [*named, claims.caller.number, claims.caller.name])


def trace(data: bytes) -> None:
    """Bytes of a message on their way into a trace, its stored form, a capture, and back. May raise nothing."""
    clean = blanked(data)
    assert len(clean) == len(data)
    assert blanked(clean) == clean
    call_id_of(data)
    assert label_of(data).isprintable()
    recorder = Recorder()
    recorder.received(b"INVITE a SIP/2.0\r\nCall-ID: x\r\n" + data, FLOW, 1)
    recorder.sent(data, FLOW, 2)
    for kept in recorder.latest():
        found = unpack_trace(pack_trace(kept, now_ns=3, unix_ms=4))
        assert [message.data for message in found.messages] == [message.data for message in kept.messages]
        pack_pcap(found.messages)
    with contextlib.suppress(DamagedError):
        unpack_trace(data)


TARGETS: Final[Mapping[str, Target]] = {
    "sip": sip,
    "sip-agent": sip_agent,
    "stream": stream,
    "mwi": summary,
    "sdp": sdp,
    "rtp": rtp,
    "rtcp": reports,
    "registration": registration,
    "callers": callers,
    "trace": trace,
}
