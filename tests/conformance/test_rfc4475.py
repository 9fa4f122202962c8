"""The cases of RFC 4475 (SIP torture tests), each with the verdict of this user agent.

The messages are written afresh around the oddity that each section is about; names and section numbers are the RFC's.
``CALL`` is a call that is told to the application, a number the status of the answer, ``SILENCE`` no reaction at all.
"""

from __future__ import annotations

import pytest

from aftertone.sip.events import CallAnswered, IncomingCall, Transmit
from aftertone.sip.identity import caller_of, target_user
from aftertone.sip.message import Request, Response, parse
from tests.unit.sip.kit import FLOW, SDP, TCP_FLOW, agent, request

CALL = "call"
SILENCE = "silence"

# 3.1.1.1: folds, blanks, compact forms, escaped quotes, lists split over lines, case of names, unknown headers
WSINV = (
    b"INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\r\n"
    b"TO :\r\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\r\n"
    b'from   : "J Rosenberg \\\\\\""       <sip:jdrosen@example.com>\r\n  ;\r\n  tag = 98asjd8\r\n'
    b"MaX-fOrWaRdS: 0068\r\nCall-ID: wsinv.ndaksdj@192.0.2.1\r\nContent-Length   : %d\r\n"
    b"cseq: 0009\r\n  INVITE\r\nVia  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw\r\ns :\r\n"
    b"NewFangledHeader:   newfangled value\r\n continued newfangled value\r\n"
    b"UnknownHeaderWithUnusualValue: ;;,,;;,;\r\nContent-Type: application/sdp\r\n"
    b"Route:\r\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\r\n"
    b"v:  SIP  / 2.0  / TCP     spindle.example.com   ;\r\n  branch  =   z9hG4bK9ikj8  ,\r\n"
    b" SIP  /    2.0   / UDP  192.168.255.111   ; branch=\r\n z9hG4bK30239\r\n"
    b'm:"Quoted string \\"\\"" <sip:jdrosen@example.com> ; newparam =\r\n      newvalue ;\r\n'
    b"  secondparam ; q = 0.33\r\n\r\n" % len(SDP)
) + SDP

BROADCAST = (
    b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923\r\n"
    b"Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1saber23\r\nCall-ID: x\r\nCSeq: 35 INVITE\r\n"
    b"From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nContent-Length: 0\r\n\r\n"
)

ODD_METHOD = "!interesting-Method0123456789_*+`.%indeed'~"
ODD_URI = "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com"


def raw(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


def from_line(value: str) -> bytes:
    return request(drop="From", extra=f"From: {value}")


CASES: dict[str, tuple[str, bytes, str | int]] = {
    # The To of the original has a tag of no dialog of ours.
    "wsinv": ("3.1.1.1", WSINV, 481),
    "wsinv as a new call": ("3.1.1.1", raw(WSINV, b";   tag    = 1918181833n", b""), CALL),
    "intmeth": ("3.1.1.2", request(ODD_METHOD, uri=ODD_URI), 501),
    "intmeth name": ("3.1.1.2", from_line('"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f" <sip:a@b>;tag=1'), CALL),
    "esc01": ("3.1.1.3", request(uri="sip:sips%3Auser%40example.com@example.net"), CALL),
    "escnull": ("3.1.1.4", request(uri="sip:null-%00-null@example.com"), CALL),
    "esc02": ("3.1.1.5", request("RE%47IST%45R"), 501),
    "lwsdisp": ("3.1.1.6", request("OPTIONS", drop="From", extra="From: caller<sip:caller@example.com>;tag=323"), 200),
    "longreq": (
        "3.1.1.7",
        request(
            drop="Call-ID",
            extra="Call-ID: "
            + "really" * 20
            + "long\r\nX"
            + "-long" * 40
            + ": "
            + "v" * 900
            + "\r\n"
            + "\r\n".join(f"Via: SIP/2.0/TCP sip{n}.example.com;branch=z9hG4bK{n}" for n in range(34)),
        ),
        CALL,
    ),
    "dblreq": ("3.1.1.8", request("OPTIONS") + request(), 200),
    "semiuri": ("3.1.1.9", request("OPTIONS", uri="sip:user;par=u%40example.net@example.com"), 200),
    "transports": (
        "3.1.1.10",
        request("OPTIONS", extra="v: SIP/2.0/SCTP a;branch=z9hG4bK1, SIP/2.0/UNKNOWN b;branch=z9hG4bK2"),
        200,
    ),
    "mpart01": ("3.1.1.11", request("MESSAGE", body=b"--x\0\xff", content_type="multipart/mixed;boundary=x"), 405),
    "badinv01": ("3.1.2.1", request(drop="Contact", extra='Contact: "Joe" <sip:joe@example.org>;;;;'), 400),
    "badinv01 via": ("3.1.2.1", request(via="SIP/2.0/UDP 192.0.2.15;;,;,,"), SILENCE),
    "clerr": ("3.1.2.2", request(drop="Content-Length", extra="Content-Length: 9999"), 400),
    "ncl": ("3.1.2.3", request(drop="Content-Length", extra="Content-Length: -999"), 400),
    "scalar02": ("3.1.2.4", request(drop="CSeq", extra="CSeq: 36893488147419103232 INVITE"), 400),
    "scalar02 hops": ("3.1.2.4", request(drop="Max-Forwards", extra="Max-Forwards: 300"), 400),
    "scalarlg": (
        "3.1.2.5",
        b"SIP/2.0 503 X\r\nVia: SIP/2.0/UDP a;branch=z\r\nCSeq: 9292394834772304023312 X\r\n\r\n",
        SILENCE,
    ),
    "quotbal": ("3.1.2.6", request(drop="To", extra='To: "Mr. J. User <sip:j.user@example.com>'), 400),
    "ltgtruri": ("3.1.2.7", request(uri="<sip:user@example.com>"), 400),
    "lwsruri": ("3.1.2.8", request(uri="sip:user@example.com; lr"), 400),
    "lwsstart": ("3.1.2.9", raw(request(), b"INVITE ", b"INVITE  "), 400),
    "trws": ("3.1.2.10", raw(request("OPTIONS"), b" SIP/2.0\r\n", b" SIP/2.0  \r\n"), 400),
    # The RFC allows to ignore headers in a Request-URI.
    "escruri": ("3.1.2.11", request(uri="sip:user@example.com?Route=%3Csip:example.com%3E"), CALL),
    "baddate": ("3.1.2.12", request(extra="Date: Fri, 01 Jan 2010 16:00:00 EST"), CALL),
    "regbadct": (
        "3.1.2.13",
        request("REGISTER", drop="Contact", extra="Contact: sip:user@example.com?Route=%3Csip%3E"),
        405,
    ),
    "badaspec": ("3.1.2.14", request("OPTIONS", drop="To", extra='To: "Watson" < sip:t.watson@example.org >'), 400),
    # The RFC allows to be liberal.
    "baddn": ("3.1.2.15", from_line("Bell, Alexander <sip:a.g.bell@example.com>;tag=43"), CALL),
    "badvers": ("3.1.2.16", raw(request("OPTIONS"), b" SIP/2.0\r\n", b" SIP/7.0\r\n"), 505),
    "mismatch01": ("3.1.2.17", request("OPTIONS", drop="CSeq", extra="CSeq: 8 INVITE"), 400),
    "mismatch02": ("3.1.2.18", request("NEWMETHOD", drop="CSeq", extra="CSeq: 8 INVITE"), 400),
    "bigcode": ("3.1.2.19", b"SIP/2.0 4294967301 better not break the receiver\r\nVia: SIP/2.0/UDP a\r\n\r\n", SILENCE),
    # A cookie and nothing behind it: matched by the rules of RFC 2543.
    "badbranch": ("3.2.1", request("OPTIONS", branch="z9hG4bK"), 200),
    "insuf": ("3.3.1", request(drop="From"), 400),
    "insuf call-id": ("3.3.1", request(drop="Call-ID"), 400),
    "insuf cseq": ("3.3.1", request(drop="CSeq"), 400),
    "unkscm": ("3.3.2", request("OPTIONS", uri="nobodyKnowsThisScheme:totallyopaquecontent"), 416),
    "novelsc": ("3.3.3", request("OPTIONS", uri="soap.beep://192.0.2.103:3002"), 416),
    "unksm2": ("3.3.4", request("REGISTER", drop="To", extra="To: isbn:2983792873"), 405),
    "unksm2 as a call": ("3.3.4", request(drop="To", extra="To: isbn:2983792873"), CALL),
    "bext01": ("3.3.5", request("OPTIONS", extra="Require: nothingSupportsThis, nothingSupportsThisEither"), 420),
    "invut": ("3.3.6", request(body=b"<audio>", content_type="application/unknownformat"), 415),
    "regaut01": ("3.3.7", request("REGISTER", extra="Authorization: NoOneKnowsThisScheme opaque-data=here"), 405),
    "multi01": ("3.3.8", request(extra="CSeq: 59 INVITE\r\nFrom: other <sip:a@b>;tag=2"), 400),
    "mcl01": ("3.3.9", request("OPTIONS", extra="Content-Length: 5"), 400),
    "bcast": ("3.3.10", BROADCAST, SILENCE),
    "zeromf": ("3.3.11", request("OPTIONS", drop="Max-Forwards", extra="Max-Forwards: 0"), 483),
    "cparam01": (
        "3.3.12",
        request("REGISTER", drop="Contact", extra="Contact: sip:+19725552222@gw1;unknownparam"),
        405,
    ),
    "regescrt": ("3.3.14", request("REGISTER", drop="Contact", extra="Contact: <sip:u@b?Route=%3Csip%3E>"), 405),
    "sdp01": ("3.3.15", request(extra="Accept: text/nobodyKnowsThis"), 406),
    "inv2543": ("3.4.1", request(via="SIP/2.0/UDP iftgw.example.com", from_tag="", drop="Max-Forwards"), CALL),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("flow", [FLOW, TCP_FLOW], ids=["UDP", "TCP"])
def test_torture(name: str, flow: object) -> None:
    _, data, verdict = CASES[name]
    subject = agent()
    subject.receive(data, FLOW if flow is FLOW else TCP_FLOW, 0)
    outputs = subject.outputs()
    calls = [output for output in outputs if isinstance(output, IncomingCall)]
    answers = [parse(output.data) for output in outputs if isinstance(output, Transmit)]
    statuses = [answer.status for answer in answers if isinstance(answer, Response)]
    assert len(calls) == (1 if verdict == CALL else 0)
    assert statuses == ([100] if verdict == CALL else [] if verdict == SILENCE else [verdict])
    for answer in answers:
        assert answer.via.branch == parse_via_branch(data)


def parse_via_branch(data: bytes) -> str:
    """Return the branch of the top Via, as the peer wrote it."""
    flat = data.replace(b"\r\n ", b" ").partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape")
    for line in flat.split("\r\n"):
        if line.lower().startswith(("via", "v:")):
            first = line.partition(",")[0].replace(" ", "")
            return first.partition("branch=")[2].partition(";")[0] if "branch=" in first else ""
    raise AssertionError("no Via")


def test_what_the_tortuous_invite_says() -> None:
    message = parse(WSINV)
    assert isinstance(message, Request)
    assert message.from_.display == 'J Rosenberg \\"'
    assert (message.from_.tag, message.to.tag) == ("98asjd8", "1918181833n")
    assert [via.branch for via in message.vias] == ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]
    assert (message.cseq.number, message.body) == (9, SDP)
    assert message.contact is not None
    assert message.contact.params == {"newparam": "newvalue", "secondparam": None, "q": "0.33"}
    assert message.get("newfangledheader") == "newfangled value continued newfangled value"


def test_what_odd_characters_become() -> None:
    for name, user in (("esc01", "sips:user@example.com"), ("escnull", "null--null")):
        message = parse(CASES[name][1])
        assert isinstance(message, Request)
        assert target_user(message) == user
    named = parse(CASES["intmeth name"][1])
    assert isinstance(named, Request)
    assert caller_of(named).name == "BEL: NUL: DEL:"


@pytest.mark.parametrize("line", ["SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять - простое", "SIP/2.0 100 "])
def test_unreason_and_noreason(line: str) -> None:
    """Section 3.1.1.12 and 3.1.1.13: any reason phrase, and none."""
    subject = agent()
    call = subject.invite("sip:a@b", from_uri="sip:c@d", flow=FLOW, now_ns=0)
    sent = subject.outputs()[0]
    assert isinstance(sent, Transmit)
    invite = parse(sent.data)
    echo = "".join(f"{name}: {invite.get(name)}\r\n" for name in ("via", "from", "to", "call-id", "cseq"))
    subject.receive(f"{line}\r\n{echo}Content-Length: 0\r\n\r\n".encode(), FLOW, 0)
    assert subject.stats["malformed"] == subject.stats["dropped_response_stray"] == 0
    answered = [output for output in subject.outputs() if isinstance(output, CallAnswered)]
    assert [event.call for event in answered] == ([call] if "200" in line else [])
