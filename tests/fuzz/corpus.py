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
        case "trace":
            keyed = request(body=b"a=crypto:1 X inline:abc|2^20\r\na=key-mgmt:mikey AAAA\r\nk=clear:x\r\n")
            secret = request("REGISTER", extra='Authorization: Digest username="a",\r\n response="b"')
            return [secret, keyed, b'{"call_id":"x","left_out":0,"messages":[]}', *messages]
        case "sip-agent":
            call = [request(), request("ACK", to_tag="x"), request("BYE", cseq=2, to_tag="x")]
            ask = request(
                "SUBSCRIBE",
                extra="Event: message-summary\r\nExpires: 600\r\nAccept: application/simple-message-summary",
            )
            rel = request(
                extra="Require: 100rel\r\nSupported: timer\r\nSession-Expires: 90;refresher=uac\r\nMin-SE: 90"
            )
            return [b"\0\0".join(call), b"\0\0".join((ask, ask)), rel, *messages]
        case "sdp":
            key = b"AES_CM_128_HMAC_SHA1_80 inline:" + base64.b64encode(bytes(30))
            keyed = SDP.replace(b"RTP/AVP", b"RTP/SAVP") + b"a=crypto:1 %b|2^20|1:4 WSH=64\r\na=crypto:2 %b\r\n" % (
                key,
                key,
            )
            return [SDP, keyed, test_rfc5118.PLAIN, test_rfc5118.TWO_FAMILIES, test_rfc5118.MAPPED]
        case "registration":
            head = (
                b"Via: SIP/2.0/UDP 192.0.2.1:5060;received=203.0.113.5;rport=41000;branch=z9hG4bKx\r\n"
                b"From: <sip:ann@home>;tag=a\r\nTo: <sip:ann@home>;tag=b\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n"
            )
            asks = (
                b'SIP/2.0 401 X\r\n%bWWW-Authenticate: Digest realm="r", nonce="n", algorithm=SHA-256, qop="auth,auth-int"\r\n\r\n'
                % head
            )
            takes = (
                b'SIP/2.0 200 X\r\n%bContact: <sip:ann@192.0.2.1;line=0123456789abcdef>;expires=60;pub-gruu="sip:a@b;gr"\r\n'
                b"Service-Route: <sip:p;lr>\r\nPath: <sip:e;lr>\r\nRequire: outbound\r\nFlow-Timer: 30\r\n\r\n" % head
            )
            brief = b"SIP/2.0 423 X\r\n%bMin-Expires: 7200\r\n\r\n" % head
            busy = b"SIP/2.0 503 X\r\n%bRetry-After: 9 (x)\r\n\r\n" % head
            return [b"\0\0".join((asks, takes, brief, busy)), b'Digest username="ann", realm="home", nonce="n"']
        case "callers":
            forwarded = (
                b'sip:vm@192.0.2.1;target=sip:200%40x;cause=408\nfrom: "Ann" <sip:ann@x>\nto: <sip:vm@x>\n'
                b"diversion: <sip:200@x>;reason=no-answer;privacy=off, <sip:201@x>;reason=user-busy\n"
                b"history-info: <sip:200@x?Reason=SIP%3Bcause%3D486&Privacy=history>;index=1,<sip:v@x;cause=408>;index=1.1;mp=1"
            )
            asserted = (
                b"tel:+12025550143\nfrom: =?utf-8?Q?J=C3=BC?= <sip:anonymous@anonymous.invalid>\nprivacy: id;user\n"
                b"p-asserted-identity: <sip:+1202;verstat=TN-Validation-Passed@x>, <tel:+12025550143>\n"
                b"remote-party-id: <sip:1@x>;party=calling;privacy=full\nidentity: e30.c2ln;alg=ES256\np-called-party-id: <sip:1@x>"
            )
            return [forwarded, asserted]
        case "mwi":
            return [b"Messages-Waiting: yes\r\nMessage-Account: sip:a@b\r\nVoice-Message: 2/8 (0/2)\r\n\r\nTo: x\r\n"]
        case "rtp":
            return [len(packet).to_bytes(2, "big") + packet, (len(report).to_bytes(2, "big") + report) * 3]
        case _:
            return [report, bytes.fromhex("81c80001") + bytes(24) + report]
