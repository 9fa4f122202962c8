"""A flood of SIP from one address, in a process of its own: python -m tests.support.flood HOST PORT SOURCE SECONDS A_SECOND.

Owns: INVITEs that nobody confirms, OPTIONS, REGISTERs, scanners and junk, over UDP at a steady pace, and as fast as it is taken over
one TCP connection. It prints how many datagrams it sent and how many bytes came back. Refuses to know: what is attacked.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import sys
import time


def message(method: str, number: int, source: str, transport: str = "UDP", extra: str = "") -> bytes:
    """Return a request that has not been sent before."""
    body = (
        f"v=0\r\no=- 1 1 IN IP4 {source}\r\ns=-\r\nc=IN IP4 {source}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
        if method == "INVITE"
        else ""
    )
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return (
        f"{method} sip:main@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/{transport} {source}:5060;branch=z9hG4bK{method}{number};rport\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:flood@{source}>;tag={number}\r\nTo: <sip:main@127.0.0.1>\r\nCall-ID: {method}-{number}\r\n"
        f"CSeq: 1 {method}\r\nContact: <sip:flood@{source}:5060>\r\n{extra}{kind}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def main(host: str, port: int, source: str, seconds: float, a_second: int) -> None:
    """Send until the time is over."""
    rng = random.Random(1)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((source, 0))
    udp.setblocking(False)
    tcp = socket.create_connection((host, port), source_address=(source, 0))
    tcp.setblocking(False)
    sent = sent_bytes = received_bytes = 0
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < seconds:
        for number in range(sent, int(passed_s * a_second)):
            data = (
                message("INVITE", number, source),
                message("OPTIONS", number, source),
                message("REGISTER", number, source),
                message("OPTIONS", number, source, extra="User-Agent: friendly-scanner\r\n"),
                rng.randbytes(600),
            )[number % 5]
            with contextlib.suppress(OSError):
                udp.sendto(data, (host, port))
            sent, sent_bytes = sent + 1, sent_bytes + len(data)
        with contextlib.suppress(OSError):
            tcp.send(message("OPTIONS", sent, source, "TCP") * 5)
        with contextlib.suppress(OSError):
            tcp.recv(65_536)
        with contextlib.suppress(OSError):
            while True:
                received_bytes += len(udp.recv(65_536))
        time.sleep(0.002)
    print(json.dumps({"sent": sent, "sent_bytes": sent_bytes, "received_bytes": received_bytes}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), int(sys.argv[5]))
