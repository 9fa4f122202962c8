"""Inputs that were worth keeping: the seeds of the conformance tests, and what the fuzzer found new ways with.

Owns: the files ``corpus/<target>.txt``, one input a line in base64. Refuses to know: targets.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("corpus")


def read(target: str) -> list[bytes]:
    """Return the kept inputs of a target, the seeds first."""
    path = FOLDER / f"{target}.txt"
    kept = [base64.b64decode(line) for line in path.read_text().split()] if path.exists() else []
    return [*seeds(target), *kept]


def write(target: str, inputs: list[bytes]) -> None:
    """Keep inputs, shortest first, without the seeds."""
    known = set(seeds(target))
    lines = sorted({one for one in inputs if one not in known}, key=lambda one: (len(one), one))
    (FOLDER / f"{target}.txt").write_text("".join(base64.b64encode(one).decode() + "\n" for one in lines))


def seeds(target: str) -> list[bytes]:
    """Return where a target begins: well-formed input, and the tortures of the RFCs."""
    from tests.conformance import test_rfc4475, test_rfc5118
    from tests.unit.sip.kit import SDP, request

    messages = [case[1] for case in test_rfc4475.CASES.values()]
    messages += [case.data for case in test_rfc5118.CASES.values()]
    packet = bytes((0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4)) + bytes(20)
    report = bytes.fromhex("80c9000101020304 81ca0003010203040105") + b"hello" + bytes(1)
    match target:
        case "sip" | "stream":
            return [*messages, b"".join(messages[:3])]
        case "sip-agent":
            call = [request(), request("ACK", to_tag="x"), request("BYE", cseq=2, to_tag="x")]
            return [b"\0\0".join(call), *messages]
        case "sdp":
            key = b"AES_CM_128_HMAC_SHA1_80 inline:" + base64.b64encode(bytes(30))
            keyed = SDP.replace(b"RTP/AVP", b"RTP/SAVP") + b"a=crypto:1 %b|2^20|1:4 WSH=64\r\na=crypto:2 %b\r\n" % (
                key,
                key,
            )
            return [SDP, keyed, test_rfc5118.PLAIN, test_rfc5118.TWO_FAMILIES, test_rfc5118.MAPPED]
        case "rtp":
            return [len(packet).to_bytes(2, "big") + packet, (len(report).to_bytes(2, "big") + report) * 3]
        case _:
            return [report, bytes.fromhex("81c80001") + bytes(24) + report]
