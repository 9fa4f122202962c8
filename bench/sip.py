"""Measure the SIP side: microseconds per parse, per answer and per whole call, each beside its goal and beside other libraries.

Run: ``make bench-sip``. Figures of one message are the best of several rounds on one core; figures of calls are of one run, over
UDP on 127.0.0.1, with the server in a process of its own whose processor time the kernel counts. Nothing is estimated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.sip_libraries import OTHERS
from bench.sip_load import at_once, at_rate

from aftertone.sip.agent import Agent
from aftertone.sip.builder import build_response, echo_of
from aftertone.sip.checks import read_whole, refusal, transaction_key
from aftertone.sip.diversion import called_of, diversion_of
from aftertone.sip.events import CallAnswered, DialogEnded, IncomingCall, Transmit
from aftertone.sip.flow import Flow
from aftertone.sip.identity import claims_of
from aftertone.sip.message import ParseError, Request, parse
from aftertone.sip.settings import AgentSettings

BODY = (
    b"v=0\r\no=- 20518 0 IN IP4 203.0.113.1\r\ns=-\r\nc=IN IP4 203.0.113.1\r\nt=0 0\r\n"
    b"m=audio 54400 RTP/AVP 0 8 9 111 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:9 G722/8000\r\n"
    b"a=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\n"
    b"a=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
)
HEAD = (
    "INVITE sip:+4930123456@203.0.113.9:5060;user=phone SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 198.51.100.4:5060;rport;branch=z9hG4bK-524287-1---8f1d2c3b4a596877;received=198.51.100.4\r\n"
    "Via: SIP/2.0/UDP 203.0.113.1:5060;branch=z9hG4bKnashds8;rport=5060\r\n"
    "Record-Route: <sip:198.51.100.4;lr;ftag=a73kszlfl>\r\nMax-Forwards: 69\r\n"
    'From: "Anna Schmidt" <sip:+493098765@203.0.113.1>;tag=a73kszlfl\r\nTo: <sip:+4930123456@203.0.113.9>\r\n'
    "Call-ID: 1j9FpLxk3uxtm8tn@203.0.113.1\r\nCSeq: 1 INVITE\r\nContact: <sip:+493098765@203.0.113.1:5060;transport=udp>\r\n"
    "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, NOTIFY, REFER\r\nSupported: timer, 100rel, replaces\r\n"
    "P-Asserted-Identity: <sip:+493098765@203.0.113.1>\r\nDiversion: <sip:+4930123456@203.0.113.1>;reason=no-answer\r\n"
    "User-Agent: ExampleSwitch 7.1\r\nSession-Expires: 1800;refresher=uac\r\nContent-Type: application/sdp\r\n"
)
INVITE = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
PEER = Flow("UDP", ("198.51.100.4", 5060), ("203.0.113.9", 5060))
SETTINGS = AgentSettings()


def best_us(work: Callable[[], object], times: int, rounds: int = 7) -> float:
    """Return microseconds per call in the fastest of ``rounds``."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, time.perf_counter() - begin)
    return best / times * 1e6


def parse_and_use() -> None:
    """Parse the INVITE and read every field that answering it takes."""
    request = parse(INVITE)
    assert isinstance(request, Request)
    read_whole(request)
    transaction_key(request, "INVITE")
    refusal(request, SETTINGS)
    claims_of(request, trusted=True)
    diversion_of(request)
    next(called_of(request))


def answering() -> Callable[[], object]:
    """Return the building of a 200 with a description, as the agent does it."""
    request = parse(INVITE)
    assert isinstance(request, Request)
    echo = echo_of(request, PEER)
    lines = "Contact: <sip:box@203.0.113.9:5060>\r\nAllow: INVITE, ACK, CANCEL, BYE\r\nServer: Aftertone\r\n"

    def work() -> object:
        return build_response(echo, 200, tag="0123", lines=lines, body=BODY, content_type="application/sdp")

    return work


def whole_call(calling: Agent, called: Agent, now_ns: int) -> None:
    """Carry INVITE, 100, 180, 200, ACK, BYE, 200 between two agents."""
    there = Flow("UDP", ("203.0.113.9", 5060), ("198.51.100.4", 5060))
    calling.invite(
        "sip:box@203.0.113.9", from_uri="sip:a@198.51.100.4", body=BODY, content_type="application/sdp", flow=there,
        now_ns=now_ns,
    )  # fmt: skip
    busy = True
    while busy:
        busy = False
        for one, other, flow in ((calling, called, PEER), (called, calling, there)):
            for output in one.outputs():
                busy = True
                if isinstance(output, Transmit):
                    other.receive(output.data, flow, now_ns)
                elif isinstance(output, IncomingCall):
                    one.respond(output.transaction_id, 180, now_ns=now_ns)
                    one.respond(
                        output.transaction_id, 200, body=BODY, content_type="application/sdp", now_ns=now_ns
                    )  # fmt: skip
                elif isinstance(output, CallAnswered):
                    one.bye(output.dialog_id, now_ns)
                elif isinstance(output, DialogEnded):
                    one.respond(output.transaction_id, 200, now_ns=now_ns)


def both_sides(calls: int) -> float:
    """Return microseconds per call for calling and called side together, timers included."""
    calling, called = Agent(SETTINGS, random.Random(1).randbytes), Agent(SETTINGS, random.Random(2).randbytes)
    begin = time.perf_counter()
    for number in range(calls):
        now_ns = number * 2_000_000
        whole_call(calling, called, now_ns)
        for one in (calling, called):
            if (one.deadline_ns() or now_ns + 1) <= now_ns:
                one.advance(now_ns)
    return (time.perf_counter() - begin) / calls * 1e6


def scaling() -> list[tuple[str, float]]:
    """Return by how much the time grows when hostile input is eight times as long: 8 is linear."""
    shapes: dict[str, Callable[[int], str]] = {
        "backslashes in quotes": lambda n: 'From: "' + "\\" * n + '" <sip:a@b>;tag=x',
        "open quotes": lambda n: "From: " + '"' * n,
        "semicolons": lambda n: "Via: SIP/2.0/UDP h" + ";a=" * n,
        "commas": lambda n: "Record-Route: " + "<sip:a>," * (n // 8),
        "brackets": lambda n: "Contact: " + "<" * n,
        "blanks": lambda n: "From:" + " " * n + "x",
        "folds": lambda n: "From: a" + "\r\n " * (n // 3),
    }
    grown: list[tuple[str, float]] = []
    for name, shape in shapes.items():
        times: list[float] = []
        for size in (1000, 8000):
            data = f"INVITE sip:a@b SIP/2.0\r\n{shape(size)}\r\nCSeq: 1 INVITE\r\n\r\n".encode()
            times.append(best_us(lambda data=data: _swallow(data), 200))  # type: ignore[misc]
        grown.append((name, times[1] / times[0]))
    return grown


def _swallow(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        request = parse(data)
        assert isinstance(request, Request)
        for reading in ("via", "from_", "contact"):
            with contextlib.suppress(ParseError):
                getattr(request, reading)
        request.all("record-route")


ADVERSARIES: Mapping[str, Callable[[int], str]] = {
    "one quoted string": lambda n: 'From: "' + "\\" * (n - 60) + '" <sip:a@b>;tag=x',
    "many short headers": lambda n: "\r\n".join("x:" for _ in range(n // 4)),
    "eight lists of 8 kB": lambda n: "\r\n".join(
        "Record-Route: " + "<sip:a>," * (n // 70) + "<sip:a>" for _ in range(8)
    ),
    "one list of commas": lambda n: "Record-Route: " + "," * n,
    "folds": lambda n: "From: a" + "\r\n " * (n // 3),
}


def adversaries_ms() -> list[tuple[str, float]]:
    """Return what 64 kB of hostile header cost, in milliseconds."""
    costs = []
    for name, shape in ADVERSARIES.items():
        data = f"INVITE sip:a@b SIP/2.0\r\n{shape(64_000)}\r\nCSeq: 1 INVITE\r\n\r\n".encode()[:65_000] + b"\r\n\r\n"
        costs.append((name, best_us(lambda data=data: _swallow(data), 20) / 1e3))  # type: ignore[misc]
    return costs


def beside_others() -> None:
    """Print what one message costs in other libraries, measured now."""
    for name, made in OTHERS.items():
        if made is None:
            print(f"{name}: not installed; make bench-sip installs it")
            continue
        hands = made()
        request = hands.read(INVITE)
        read_us = best_us(lambda hands=hands: hands.read(INVITE), 500)  # type: ignore[misc]
        build_us = best_us(lambda hands=hands, request=request: hands.build(request, BODY), 500)  # type: ignore[misc]
        print(f"{f'{name}: parse + used fields; build':46}{read_us:9.1f} us{build_us:9.1f} us")


async def calls(name: str, quick: bool) -> str:
    """Return one line of the table of whole calls over UDP: the server in a process of its own."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("sip_servers.py")), name, str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            return f"{name:12} did not start"
        even = await at_rate(port, server.pid, 200, 2 if quick else 15)
        full = await at_once(port, server.pid, 50, 2_000 if quick else 10_000)
    finally:
        server.kill()
        server.wait()
    return (
        f"{name:12}{even.percentile(0.5):9.2f}{even.percentile(0.99):9.2f}{even.cpu_s / max(1, even.finished) * 1e3:11.3f}"
        f"{full.finished / full.wall_s:11.0f}{full.per_core:11.0f}{even.failed + full.failed:9}{even.resent + full.resent:9}"
    )


def free_port() -> int:
    """Return a UDP port of 127.0.0.1 that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Measure the SIP side, beside other libraries.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    quick = parser.parse_args().quick
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.2f}, Python {sys.version.split()[0]}\n")
    print(f"{'what':46}{'measured':>12}{'goal':>10}")
    print(
        f"{f'parse an INVITE of {len(INVITE)} bytes + used fields':46}{best_us(parse_and_use, 2000):9.1f} us{60:7} us"
    )
    print(f"{'build a 200 with SDP':46}{best_us(answering(), 5000):9.1f} us{15:7} us")
    print(f"{'INVITE-180-200-ACK-BYE-200, both sides':46}{both_sides(3000):9.1f} us{1000:7} us")
    beside_others()
    for name, factor in scaling():
        print(f"{f'8 times as much of: {name}':46}{factor:9.1f} x {8:7} x")
    for name, cost_ms in adversaries_ms():
        print(f"{f'64 kB of: {name}':46}{cost_ms:9.2f} ms{5:7} ms")
    print("\nwhole calls over UDP (INVITE-200-ACK-BYE-200), callers in another process")
    print(f"{'':12}{'at 200 calls/s':>29}{'50 at once':>22}")
    print(
        f"{'server':12}{'p50 ms':>9}{'p99 ms':>9}{'CPU-ms':>11}{'calls/s':>11}{'per core':>11}{'failed':>9}{'resent':>9}"
    )
    for name in ("aftertone", *(name for name, made in OTHERS.items() if made is not None)):
        print(asyncio.run(calls(name, quick)), flush=True)
    print(f"{'goal':12}{3:9}{15:9}{0.5:11}{'':11}{2000:11}")


if __name__ == "__main__":
    main()
