"""INVITEs as PBXs and carriers send them: whose mailbox, who called, who forwarded and why.

Written from what these systems are known to send; names, numbers and addresses are of documentation ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import structlog

from aftertone.config import Settings
from aftertone.config.sip import Account
from aftertone.model import Mailbox
from aftertone.roles.peers import Peer, Peers
from aftertone.roles.routing import mailbox_of, origin_of
from aftertone.sip.diversion import diversion_of
from aftertone.sip.flow import Flow
from aftertone.sip.identity import claims_of
from aftertone.sip.message import Request, parse
from aftertone.voicemail.directory import Directory

BOXES = Directory(
    1,
    "main",
    {
        "main": Mailbox("main"),
        "anna": Mailbox("anna", numbers=("200", "+49 30 5550100")),
        "bob": Mailbox("bob", numbers=("201", "+1 202 555 0143")),
    },
)
SIP = Settings.model_validate(
    {
        "sip": {
            "accounts": [
                {"name": "fritz", "registrar": "fritz.box", "user": "620", "mailbox": "main"},
                {"name": "provider", "registrar": "sip.example.net", "user": "1234567e0"},
            ],
            "trunks": [
                {"name": "pbx", "addresses": ["192.0.2.0/28"]},
                {"name": "carrier", "addresses": ["198.51.100.0/24"]},
                {"name": "front-desk", "addresses": ["192.0.2.99"], "mailbox": "bob", "trust": False},
            ],
        }
    }
).sip


@dataclass(frozen=True, slots=True)
class Found:
    """What is to be made of an INVITE."""

    mailbox: str
    reason: str
    number: str
    name: str = ""
    header: str = "From"
    diverted_by: str = ""
    divert_reason: str | None = None
    line: str = ""
    verstat: str = ""


def account_of(request: Request, flow: Flow) -> Account | None:
    known = {("620", "192.0.2.50"): SIP.accounts[0], ("1234567e0", "192.0.2.51"): SIP.accounts[1]}
    return known.get((request.target.user, flow.remote[0]))


def found(head: str, host: str) -> Found | None:
    """Route the INVITE of the peer at ``host``; None when there is no mailbox for it."""
    lines = [line.strip() for line in head.strip().splitlines()]
    rest = ["Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1", "Call-ID: 1@x", "CSeq: 1 INVITE", "Max-Forwards: 70"]
    request = parse("\r\n".join([*lines, *rest, "", ""]).encode())
    assert isinstance(request, Request)
    peers = Peers(SIP, secret=bytes(16), logger=structlog.get_logger(), account_of=account_of)
    peer = peers.of(request, Flow("UDP", (host, 5060), ("203.0.113.1", 5060)))
    assert isinstance(peer, Peer)
    choice = mailbox_of(BOXES, request, peer)
    if choice is None:
        return None
    claims = claims_of(request, trusted=peer.trust)
    origin = origin_of(peer, claims, diversion_of(request))
    return Found(
        choice.mailbox.name,
        choice.reason,
        claims.caller.number,
        claims.caller.name,
        origin.caller_header,
        origin.diverted_by,
        None if origin.divert_reason is None else origin.divert_reason.value,
        origin.line,
        origin.verstat,
    )


TABLE = {
    "Asterisk chan_pjsip, Dial() to an extension of ours that is no mailbox, with Diversion": (
        """INVITE sip:*97@203.0.113.1:5060 SIP/2.0
        From: "Alice" <sip:+12025550198@192.0.2.10>;tag=as1
        To: <sip:*97@203.0.113.1>
        Contact: <sip:asterisk@192.0.2.10:5060>
        P-Asserted-Identity: "Alice" <sip:+12025550198@192.0.2.10>
        Diversion: <sip:200@192.0.2.10>;reason=no-answer
        User-Agent: Asterisk PBX 20""",
        "192.0.2.10",
        Found("anna", "Diversion", "+12025550198", "Alice", "P-Asserted-Identity", "200", "no-answer", "pbx"),
    ),
    "Asterisk that names the mailbox in the Request-URI": (
        """INVITE sip:anna@203.0.113.1 SIP/2.0
        From: "Reception" <sip:201@192.0.2.10>;tag=as2
        To: <sip:anna@203.0.113.1>
        Remote-Party-ID: "Bob" <sip:201@192.0.2.10>;party=calling;privacy=off;screen=no""",
        "192.0.2.10",
        Found("anna", "request URI", "201", "Bob", "Remote-Party-ID", line="pbx"),
    ),
    "FreeSWITCH bridge to voicemail: RFC 4458 in the Request-URI": (
        """INVITE sip:voicemail@203.0.113.1;target=sip:201%40pbx.example.net;cause=486 SIP/2.0
        From: "Extension 200" <sip:200@pbx.example.net>;tag=fs1
        To: <sip:voicemail@203.0.113.1>
        Remote-Party-ID: "Extension 200" <sip:200@pbx.example.net>;party=calling;screen=yes;privacy=off
        User-Agent: FreeSWITCH-mod_sofia/1.10""",
        "192.0.2.11",
        Found(
            "bob",
            "target of the request URI",
            "200",
            "Extension 200",
            "Remote-Party-ID",
            "201",
            "user-busy",
            "pbx",
        ),
    ),
    "FreeSWITCH that hides the number": (
        """INVITE sip:bob@203.0.113.1 SIP/2.0
        From: "Anonymous" <sip:anonymous@anonymous.invalid>;tag=fs2
        To: <sip:bob@203.0.113.1>
        P-Asserted-Identity: <sip:+12025550198@pbx.example.net>
        Privacy: id""",
        "192.0.2.11",
        Found("bob", "request URI", "", "", "", line="pbx"),
    ),
    "3CX: the trunk's number in the Request-URI, Diversion in its own words": (
        """INVITE sip:10000@203.0.113.1:5060 SIP/2.0
        From: "+12025550198"<sip:+12025550198@192.0.2.12:5060;nf=e>;tag=3cx
        To: <sip:10000@203.0.113.1>
        Diversion: "Bob"<sip:201@192.0.2.12:5060>;reason=no-answer;privacy=off;counter=1
        User-Agent: 3CXPhoneSystem 20.0""",
        "192.0.2.12",
        Found("bob", "Diversion", "+12025550198", "+12025550198", "From", "201", "no-answer", "pbx"),
    ),
    "FRITZ!Box rings the phone that registered: the account's mailbox": (
        """INVITE sip:620@203.0.113.1;uniq=1A2B SIP/2.0
        From: "Anna" <sip:01715550199@fritz.box>;tag=fb
        To: <sip:620@fritz.box>
        User-Agent: FRITZ!OS""",
        "192.0.2.50",
        Found("main", "account fritz", "01715550199", "Anna", line="fritz"),
    ),
    "Kamailio before an IMS core: forwarded twice, History-Info by RFC 7044": (
        """INVITE sip:vm-service@203.0.113.1;user=phone SIP/2.0
        From: <tel:+12025550198>;tag=ims
        To: <tel:+12025550143>
        P-Asserted-Identity: <tel:+12025550198>, <sip:+12025550198@ims.example.net;user=phone>
        P-Served-User: <sip:+12025550143@ims.example.net>
        History-Info: <sip:+12025550143@ims.example.net;user=phone>;index=1
        History-Info: <sip:+12025550177@ims.example.net;user=phone;cause=302>;index=1.1;mp=1
        History-Info: <sip:vm-service@203.0.113.1;cause=408>;index=1.1.1;mp=1.1""",
        "198.51.100.7",
        Found(
            "bob",
            "History-Info",
            "+12025550198",
            "",
            "P-Asserted-Identity",
            "+12025550143",
            "unconditional",
            "carrier",
        ),
    ),
    "A carrier that keeps the forwarding party private": (
        """INVITE sip:+49305550999@203.0.113.1;user=phone SIP/2.0
        From: <sip:+12025550198@carrier.example.net;user=phone>;tag=c
        To: <sip:+49305550100@carrier.example.net;user=phone>
        History-Info: <sip:+49305550100@carrier.example.net?Privacy=history>;index=1
        History-Info: <sip:+49305550999@carrier.example.net;cause=486>;index=1.1;mp=1""",
        "198.51.100.7",
        Found("anna", "History-Info", "+12025550198", divert_reason="user-busy", line="carrier"),
    ),
    "Deutsche Telekom: the number in international form, P-Called-Party-ID, number hidden": (
        """INVITE sip:machine@203.0.113.1:5060;transport=tcp SIP/2.0
        From: "Anonymous" <sip:anonymous@anonymous.invalid>;tag=h7g4Esbg
        To: <sip:+49305550100@tel.example.net;user=phone>
        P-Called-Party-ID: <sip:+49305550100@tel.example.net;user=phone>
        Privacy: id""",
        "198.51.100.8",
        Found("anna", "P-Called-Party-ID", "", "", "", line="carrier"),
    ),
    "sipgate: our user name in the Request-URI, the number called in To": (
        """INVITE sip:1234567e0@203.0.113.1:5060 SIP/2.0
        From: "01715550199" <sip:01715550199@sipgate.example.net>;tag=sg
        To: "4930 5550100" <sip:49305550100@sipgate.example.net>
        P-Asserted-Identity: <sip:491715550199@sipgate.example.net;user=phone>""",
        "198.51.100.9",
        Found("anna", "To", "491715550199", "01715550199", "P-Asserted-Identity", line="carrier"),
    ),
    "A carrier of North America that checked the number": (
        """INVITE sip:+12025550143@203.0.113.1 SIP/2.0
        From: "ALICE" <sip:+12025550198@carrier.example.net>;tag=na
        To: <sip:+12025550143@203.0.113.1>
        P-Asserted-Identity: "ALICE" <sip:+12025550198;verstat=TN-Validation-Passed@carrier.example.net;user=phone>
        Identity: eyJhbGciOiJFUzI1NiJ9.e30.c2ln;info=<https://cert.example.net/a.pem>;alg=ES256;ppt=shaken""",
        "198.51.100.10",
        Found(
            "bob",
            "request URI",
            "+12025550198",
            "ALICE",
            "P-Asserted-Identity",
            line="carrier",
            verstat="TN-Validation-Passed",
        ),
    ),
    "A trunk that is not trusted, with a mailbox of its own": (
        """INVITE sip:anna@203.0.113.1 SIP/2.0
        From: <sip:gate@192.0.2.99>;tag=g
        To: <sip:anna@203.0.113.1>
        P-Asserted-Identity: <sip:+12025550111@192.0.2.99>""",
        "192.0.2.99",
        Found("bob", "trunk front-desk", "gate", line="front-desk"),
    ),
    "A stranger who asserts whatever he likes: his From is shown, his Diversion finds a mailbox, no more": (
        """INVITE sip:100@203.0.113.1 SIP/2.0
        From: "Bank" <sip:mallory@192.0.2.200>;tag=m
        To: <sip:100@203.0.113.1>
        P-Asserted-Identity: "Your Bank" <tel:+12025550111;verstat=TN-Validation-Passed>
        P-Preferred-Identity: <tel:+12025550112>
        Remote-Party-ID: <sip:+12025550113@x>;party=calling
        Diversion: <sip:200@x>;reason=no-answer""",
        "192.0.2.200",
        Found("anna", "Diversion", "mallory", "Bank", "From", "200", "no-answer"),
    ),
    "A Request-URI in another spelling of the number": (
        """INVITE tel:030-5550100;phone-context=+49 SIP/2.0
        From: <sip:x@y>;tag=1
        To: <tel:0305550100;phone-context=+49>""",
        "192.0.2.200",
        Found("anna", "request URI", "x"),
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_an_invite_of_the_real_world(case: str) -> None:
    head, host, expected = TABLE[case]
    assert found(head, host) == expected


def test_a_call_to_an_account_is_never_for_nobody() -> None:
    head = """INVITE sip:1234567e0@203.0.113.1 SIP/2.0
        From: <sip:x@y>;tag=1
        To: <sip:+49305550177@sip.example.net>"""
    assert found(head, "192.0.2.51") == Found("main", "default mailbox", "x", line="provider")
    assert found(head, "192.0.2.10") is None, "a trunk is told, so that a PBX may say so"


def test_a_call_for_nobody_we_know_is_for_nobody() -> None:
    head = """INVITE sip:300@203.0.113.1 SIP/2.0
        From: <sip:x@y>;tag=1
        To: <sip:300@203.0.113.1>
        Diversion: <sip:301@x>;reason=no-answer"""
    assert found(head, "192.0.2.10") is None
