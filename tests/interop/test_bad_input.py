"""Garbage, truncated, oversized and hostile datagrams while a call is recorded: the right answer or silence, and no harm."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pytest

from aftertone.audio.codec import decode, encode
from aftertone.model import Codec
from aftertone.rtp.packet import serialize
from aftertone.sdp.negotiation import MediaPlan
from tests.support.lossy import Datagram, Script, call_all, stream
from tests.support.machine import Machine, speech

SPEECH_S: Final = 3.5
"""Several times as long as the attack takes."""
ANSWER_WITHIN_S: Final = 5.0
PAYLOADS: Final = encode(Codec.PCMU, speech(SPEECH_S), 8000)
MUTATIONS: Final = 500
SILENCE: Final[frozenset[int]] = frozenset({0})
"""Stands for: no answer at all."""

_noise = random.Random(4475)


def request(
    method: str = "OPTIONS", *, drop: str = "", extra: str = "", body: bytes = b"", uri: str = "", first_line: str = ""
) -> bytes:
    """Return a request that is right but for what the arguments say; ``{port}`` is filled in by ``ask``."""
    lines = [
        first_line or f"{method} {uri or 'sip:main@127.0.0.1:5060'} SIP/2.0",
        f"Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK{_noise.randbytes(6).hex()};rport",
        "Max-Forwards: 70",
        "From: <sip:mallory@127.0.0.1>;tag=m",
        "To: <sip:main@127.0.0.1>",
        f"Call-ID: {_noise.randbytes(6).hex()}",
        f"CSeq: 1 {method}",
        "Contact: <sip:mallory@127.0.0.1:5060>",
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    kept = [line for line in lines if not (drop and line.startswith(f"{drop}:"))]
    return "\r\n".join([*kept, *([extra] if extra else []), "", ""]).encode() + body


GSM: Final = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP 3\r\n"
WHOLE: Final = request("INVITE", body=GSM)
OPTIONS: Final = request()

DATAGRAMS: Final[dict[str, tuple[bytes, frozenset[int]]]] = {
    "nothing": (b"", SILENCE),
    "a NUL": (b"\0", SILENCE),
    "a keepalive": (b"\r\n\r\n", SILENCE),
    "a thousand line ends": (b"\r\n" * 1000, SILENCE),
    "noise": (_noise.randbytes(1200), SILENCE),
    "the largest datagram, of letters": (b"A" * 65_000, SILENCE),
    "the largest datagram, of NUL": (bytes(65_000), SILENCE),
    "a web request": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", SILENCE),
    "a STUN request": (b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12), SILENCE),
    "an RTP packet": (serialize(0, 1, 1, 1, bytes(160)), SILENCE),
    "a response to nothing": (OPTIONS.replace(OPTIONS.split(b"\r\n")[0], b"SIP/2.0 200 OK"), SILENCE),
    "a response with a huge status": (OPTIONS.replace(OPTIONS.split(b"\r\n")[0], b"SIP/2.0 9999999 OK"), SILENCE),
    "no Via": (request(drop="Via"), SILENCE),
    "an ACK to nothing": (request("ACK"), SILENCE),
    "no To": (request(drop="To"), frozenset({400})),
    "no Call-ID": (request(drop="Call-ID"), frozenset({400})),
    "no CSeq": (request(drop="CSeq"), frozenset({400})),
    "a CSeq of another method": (request("OPTIONS").replace(b"1 OPTIONS", b"1 BYE"), frozenset({400})),
    "a CSeq beyond 31 bits": (request("OPTIONS").replace(b"1 OPTIONS", b"9999999999 OPTIONS"), frozenset({400})),
    "a negative length": (request(drop="Content-Length", extra="Content-Length: -1"), frozenset({400})),
    "a length of letters": (request(drop="Content-Length", extra="Content-Length: many"), frozenset({400})),
    "a length beyond the datagram": (request(drop="Content-Length", extra="Content-Length: 9000"), frozenset({400})),
    "a header of 20 kB": (request(extra="Subject: " + "x" * 20_000), frozenset({513})),
    "five hundred headers": (request(extra="\r\n".join(f"X-{n}: y" for n in range(500))), frozenset({513})),
    "sixty thousand commas": (request(extra="Supported: " + "," * 60_000), frozenset({513})),
    "a version of tomorrow": (request(first_line="OPTIONS sip:main@127.0.0.1 SIP/7.0"), frozenset({505})),
    "a foreign scheme": (request(uri="ftp://127.0.0.1/x"), frozenset({416})),
    "a BYE to nothing": (request("BYE"), frozenset({481})),
    "a CANCEL of nothing": (request("CANCEL"), frozenset({481})),
    "a BYE with a made up tag": (request("BYE", drop="To", extra="To: <sip:main@127.0.0.1>;tag=x"), frozenset({481})),
    "a method in lower case": (request("options"), frozenset({501})),
    "a name that is not UTF-8": (
        request().replace(b"<sip:mallory", b'"\xff\xfe\xc0" <sip:mallory', 1),
        frozenset({200}),
    ),
    "a name of percent signs": (request().replace(b"<sip:mallory", b'"%s%n%x{0}" <sip:mallory', 1), frozenset({200})),
    "no description at all": (request("INVITE", body=b"\0\1\2\3"), frozenset({400, 488})),
    "a description of noise": (request("INVITE", body=_noise.randbytes(900)), frozenset({400, 488})),
    "a port beyond 16 bits": (request("INVITE", body=GSM.replace(b"6000", b"99999999")), frozenset({400, 488})),
    "a thousand streams": (request("INVITE", body=GSM + b"m=audio 1 RTP/AVP 3\r\n" * 1000), frozenset({400, 488})),
    "no usable codec": (request("INVITE", body=GSM), frozenset({488})),
    "another kind of body": (request("INVITE", body=GSM).replace(b"application/sdp", b"text/x-poem"), frozenset({415})),
    "an unsupported extension": (request("INVITE", body=GSM, extra="Require: x, y"), frozenset({420})),
    **{f"an INVITE cut at {cut}": (WHOLE[:cut], frozenset({0, 400})) for cut in range(7, len(WHOLE) - 1, 23)},
}
"""What comes, and what may be answered."""

STREAMS: Final[dict[str, tuple[list[bytes], list[int]]]] = {
    "several messages in one write": ([b"".join(request() for _ in range(5))], [200] * 5),
    "a byte at a time": ([bytes([byte]) for byte in OPTIONS], [200]),
    "no length": ([request(drop="Content-Length")], [400]),
    "two lengths": ([request(extra="Content-Length: 7")], [400]),
    "a web request": ([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], []),
    "more than a message may have": ([b"OPTIONS sip:a SIP/2.0\r\nSubject: " + b"x" * 200_000], []),
}
"""What is written to a TCP connection, and the answers until the machine closes it or all have come."""


def _statuses(data: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"(?:^|\r\n)SIP/2\.0 (\d{3}) ", data)]


def ask(port: int, datagram: bytes) -> list[int]:
    """Send a datagram; return the final statuses that come before the answer to an OPTIONS sent behind it; 0 for silence."""
    behind = request()
    mark = re.search(rb"Call-ID: (\w+)", behind)
    assert mark is not None
    found: list[int] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(ANSWER_WITHIN_S)
        sock.connect(("127.0.0.1", port))
        sock.send(datagram)
        sock.send(behind)
        while mark.group(1) not in (answer := sock.recv(65_536)):
            found += [status for status in _statuses(answer) if status >= 200]
    return found or [0]


def write(port: int, pieces: list[bytes], answers: int) -> list[int]:
    """Write to a connection; return the statuses that come until there are ``answers`` of them or it is closed."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), ANSWER_WITHIN_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                sock.sendall(piece)
            while not answers or len(_statuses(got)) < answers:
                more = sock.recv(65_536)
                if not more:
                    break
                got += more
        except ConnectionError:
            pass  # closed on us in the middle of a piece that was too long: that is an answer as well
    return _statuses(got)


def mutations() -> list[bytes]:
    """Requests that were right before some of their bytes were changed, lost or doubled. None of them can begin a call."""
    made = []
    for number in range(MUTATIONS):
        data = bytearray(request(("OPTIONS", "BYE", "CANCEL", "REGISTER", "INFO")[number % 5]))
        for _ in range(_noise.randrange(1, 6)):
            at = _noise.randrange(len(data))
            match _noise.randrange(3):
                case 0:
                    data[at] = _noise.randrange(256)
                case 1:
                    del data[at : at + _noise.randrange(1, 40)]
                case _:
                    data[at:at] = data[at : at + _noise.randrange(1, 40)]
        made.append(bytes(data))
    return made


def _hostile_media(plan: MediaPlan) -> list[Datagram]:
    """The caller's words, and between them what is no packet of this call: from the caller's own address, and from another."""
    own = stream(PAYLOADS, plan)
    good = serialize(0, 7, 7, 7, bytes(160))
    rubbish = [
        b"",
        b"\x80",
        good[:11],
        bytes(172),
        b"\x40" + good[1:],
        b"\xff" * 172,
        b"\x8f" + good[1:20],
        b"\x90\x00" + good[2:12] + b"\xbe\xde\xff\xff",
        b"\xa0" + good[1:-1] + b"\xff",
        b"\x80\xc8\x00\x06" + bytes(24),
        b"\x80\x32" + good[2:],
        b"\x80\x65" + good[2:13],
        b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12),
        random.Random(3550).randbytes(1400),
        b"\x01" * 9000,
        bytes(60_000),
    ]
    inside = [Datagram(one.at_ms + 7, rubbish[i % len(rubbish)]) for i, one in enumerate(own[5:])]
    outside = [Datagram(one.at_ms + 3, rubbish[i % len(rubbish)], by_stranger=True) for i, one in enumerate(own[6:])]
    return [*own, *inside, *outside]


@dataclass
class Siege:
    """What the machine answered while calls were recorded, and what it kept of them."""

    datagrams: dict[str, list[int]] = field(default_factory=dict)
    streams: dict[str, list[int]] = field(default_factory=dict)
    mutations: list[list[int]] = field(default_factory=list)
    in_time: bool = False
    lines: set[int] = field(default_factory=set)
    kept: dict[str, tuple[dict[str, Any], bytes]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def siege(answering: Machine) -> Siege:
    """Two calls speak; meanwhile everything above is thrown at the machine."""
    found = Siege()
    speaking = threading.Event()

    def plain(plan: MediaPlan) -> list[Datagram]:
        speaking.set()
        return stream(PAYLOADS, plan)

    scripts: dict[str, tuple[Codec, Script]] = {"plain": (Codec.PCMU, plain), "hostile": (Codec.PCMU, _hostile_media)}
    port = answering.sip_port
    with ThreadPoolExecutor() as pool:
        calls = pool.submit(lambda: asyncio.run(call_all(answering.uri, scripts)))
        assert speaking.wait(20)
        found.lines.add(answering.role_pid("line"))
        found.datagrams = {name: ask(port, datagram) for name, (datagram, _) in DATAGRAMS.items()}
        found.streams = {name: write(port, pieces, len(answers)) for name, (pieces, answers) in STREAMS.items()}
        found.mutations = [ask(port, datagram) for datagram in mutations()]
        found.in_time = not calls.done()
        outcomes = calls.result(60)
    assert {name: o.failure for name, o in outcomes.items() if not o.hung_up} == {}
    found.lines.add(answering.role_pid("line"))
    for message in answering.wait_for_messages(len(scripts)):
        samples, _ = answering.audio(message["id"])
        found.kept[message["caller"]["number"]] = message, samples.tobytes()
    return found


@pytest.mark.parametrize("name", list(DATAGRAMS))
def test_a_datagram_gets_the_right_answer_or_none(siege: Siege, name: str) -> None:
    assert set(siege.datagrams[name]) <= DATAGRAMS[name][1]


@pytest.mark.parametrize("name", list(STREAMS))
def test_a_connection_gets_the_right_answers_or_is_closed(siege: Siege, name: str) -> None:
    assert siege.streams[name] == STREAMS[name][1]


def test_mutations_are_refused_or_ignored(siege: Siege) -> None:
    """None of them ends up as an error of ours (500), and the machine was there after each."""
    assert len(siege.mutations) == MUTATIONS
    assert {status for statuses in siege.mutations for status in statuses} <= {
        0,
        200,
        400,
        405,
        416,
        481,
        483,
        501,
        505,
    }


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_the_calls_are_recorded_whole(siege: Siege, name: str) -> None:
    message, samples = siege.kept[name]
    assert siege.in_time
    assert set(siege.kept) == {"plain", "hostile"}
    assert message["kind"] == "message"
    assert message["lost_packets"] == 0
    np.testing.assert_array_equal(np.frombuffer(samples, np.int16), decode(Codec.PCMU, PAYLOADS))


def test_the_line_goes_on(answering: Machine, siege: Siege) -> None:
    assert siege.lines == {answering.role_pid("line")}
    assert "Traceback" not in answering.log()
