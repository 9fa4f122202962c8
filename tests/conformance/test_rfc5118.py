"""The cases of RFC 5118 (SIP torture tests for IPv6), each with the verdict of this user agent and why.

The messages are written afresh around the oddity that each section is about; names and section numbers are the RFC's. Where
its example is a REGISTER or a BYE, whose answer would say nothing about the address, the same oddity is also put into an
OPTIONS or an INVITE, which this agent serves.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from aftertone.sdp import negotiation
from aftertone.sdp.description import SdpError
from aftertone.sip.events import IncomingCall, Transmit
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response, parse
from tests.unit.sip.kit import agent, request

CALL = "call"
HERE = Flow("UDP", ("2001:db8::9:1", 5060), ("2001:db8::10", 5060))
VIA = "SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111"


@dataclass(frozen=True)
class Case:
    """One message, what it is answered, and why."""

    section: str
    data: bytes
    verdict: str | int
    why: str


def description(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()


TWO_FAMILIES = description(
    "v=0",
    "o=bob 280744730 28977631 IN IP4 host.example.com",
    "s=",
    "t=0 0",
    "m=audio 22334 RTP/AVP 0",
    "c=IN IP4 192.0.2.1",
    "m=video 6024 RTP/AVP 107",
    "c=IN IP6 2001:db8::1",
    "a=rtpmap:107 H263-1998/90000",
)
MAPPED = description(
    "v=0",
    "o=assistant 971731711378798081 0 IN IP6 ::ffff:192.0.2.2",
    "s=Call me soon, please!",
    "c=IN IP6 ::ffff:192.0.2.2",
    "t=3338481189 3370017201",
    "m=audio 6000 RTP/AVP 0",
)
PLAIN = description(
    "v=0",
    "o=assistant 971731711378798081 0 IN IP6 2001:db8::20",
    "s=Live feed of today's meeting",
    "c=IN IP6 2001:db8::20",
    "t=3338481189 3370017201",
    "m=audio 6000 RTP/AVP 0 2",
    "a=rtpmap:2 G726-32/8000",
    "m=video 6024 RTP/AVP 107",
    "a=rtpmap:107 H263-1998/90000",
)

CASES = {
    "ipv6-good": Case(
        "4.1",
        request("REGISTER", uri="sip:[2001:db8::10]", via=VIA, drop="Contact", extra="Contact: <sip:c@[2001:db8::1]>"),
        405,
        "well-formed; this agent is no registrar",
    ),
    "ipv6-good for options": Case("4.1", request("OPTIONS", uri="sip:[2001:db8::10]", via=VIA), 200, "well-formed"),
    "ipv6-bad": Case(
        "4.2",
        request("REGISTER", uri="sip:2001:db8::10", via=VIA),
        400,
        "an address without brackets: nobody can tell where its port begins",
    ),
    "ipv6-bad for options": Case("4.2", request("OPTIONS", uri="sip:2001:db8::10", via=VIA), 400, "as above"),
    "port-ambiguous": Case(
        "4.3",
        request("OPTIONS", uri="sip:[2001:db8::10:5070]", via=VIA),
        200,
        "what stands in the brackets is the address, also when its last group looks like a port",
    ),
    "port-unambiguous": Case("4.4", request("OPTIONS", uri="sip:[2001:db8::10]:5070", via=VIA), 200, "well-formed"),
    "via-received-param-with-delim": Case(
        "4.5",
        request("BYE", to_tag="bd76ya", via=VIA.replace(";branch", ";received=[2001:db8::9:255];branch")),
        481,
        "the delimiters are not in the grammar and are taken; there is no such dialog",
    ),
    "via-received-param-no-delim": Case(
        "4.5",
        request("OPTIONS", via=VIA.replace(";branch", ";received=2001:db8::9:255;branch")),
        200,
        "the form that the grammar knows",
    ),
    "ipv6-in-sdp": Case("4.6", request(uri="sip:user@[2001:db8::10]", via=VIA, body=PLAIN), CALL, "a call"),
    "mult-ip-in-header": Case(
        "4.7",
        request(
            "BYE",
            to_tag="9817--94",
            via="SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111",
            extra="Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjh\r\n"
            "Via: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451;received=192.0.2.200",
        ),
        481,
        "hops of both families; there is no such dialog",
    ),
    "mult-ip-in-sdp": Case(
        "4.8", request(uri="sip:user@[2001:db8::10]", via=VIA, body=TWO_FAMILIES), CALL, "each stream has its family"
    ),
    "ipv4-mapped-ipv6": Case(
        "4.9",
        request(
            via="SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKbh19",
            extra="Via: SIP/2.0/UDP [::ffff:192.0.2.2];branch=z9hG4bKas3-111",
            drop="Contact",
            body=MAPPED,
        ).replace(b"Content-Type", b"Contact: <sip:t@[::ffff:192.0.2.2]>\r\nContent-Type"),
        CALL,
        "mapped addresses are addresses",
    ),
    "ipv6-bug-abnf-3-colons": Case(
        "4.10",
        request("OPTIONS", uri="sip:user@[2001:db8:::192.0.2.1]", via="SIP/2.0/UDP lab1.example.com;branch=z9hG4bKas3"),
        200,
        "who writes three colons follows the grammar of RFC 3261 to the letter, and no answer depends on the address",
    ),
    "ipv6-correct-abnf-2-colons": Case(
        "4.10",
        request("OPTIONS", uri="sip:user@[2001:db8::192.0.2.1]", via="SIP/2.0/UDP lab1.example.com;branch=z9hG4bKas3"),
        200,
        "the corrected grammar (RFC 5954)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_torture(name: str) -> None:
    case = CASES[name]
    subject = agent()
    subject.receive(case.data, HERE, 0)
    outputs = subject.outputs()
    calls = [output for output in outputs if isinstance(output, IncomingCall)]
    sent = [output for output in outputs if isinstance(output, Transmit)]
    answers = [parse(output.data) for output in sent]
    assert len(calls) == (1 if case.verdict == CALL else 0), case.why
    assert [a.status for a in answers if isinstance(a, Response)] == [100 if case.verdict == CALL else case.verdict]
    original = parse(case.data) if case.verdict != 400 else None
    for answer in answers:
        assert all(output.flow.remote == HERE.remote for output in sent), (
            "answers go back to where the request came from"
        )
        if original is not None:
            assert [(v.host, v.port, v.branch) for v in answer.vias] == [
                (v.host, v.port, v.branch) for v in original.vias
            ], "the way back is echoed hop by hop"


def test_what_the_brackets_hold_is_the_address() -> None:
    ambiguous, unambiguous = (parse(CASES[name].data) for name in ("port-ambiguous", "port-unambiguous"))
    assert isinstance(ambiguous, Request)
    assert isinstance(unambiguous, Request)
    assert (ambiguous.target.host, ambiguous.target.port) == ("[2001:db8::10:5070]", None)
    assert (unambiguous.target.host, unambiguous.target.port) == ("[2001:db8::10]", 5070)


@pytest.mark.parametrize(
    ("body", "remote"),
    [(PLAIN, ("2001:db8::20", 6000)), (TWO_FAMILIES, ("192.0.2.1", 22334)), (MAPPED, ("192.0.2.2", 6000))],
)
def test_where_the_sound_goes(body: bytes, remote: tuple[str, int]) -> None:
    """A mapped address is where it really lies: in IPv4 (section 4.9)."""
    answer, plan = negotiation.answer(body, local_host="2001:db8::10", local_port=4000, session_id=1, version=1)
    assert plan.remote == remote
    assert b"c=IN IP6 2001:db8::10\r\n" in answer


def test_the_example_of_section_4_6_offers_nothing_that_we_speak() -> None:
    """The RFC's own offer is G.726 alone; the case above has PCMU beside it, so that the call can be one."""
    with pytest.raises(SdpError):
        negotiation.answer(
            PLAIN.replace(b"AVP 0 2", b"AVP 2"), local_host="2001:db8::10", local_port=4000, session_id=1, version=1
        )
