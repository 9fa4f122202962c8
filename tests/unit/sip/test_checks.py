"""aftertone.sip.checks: what a request is refused for before anybody acts on it."""

from __future__ import annotations

import pytest

from aftertone.sip.checks import read_answer, read_whole, refusal, transaction_key
from aftertone.sip.message import ParseError, Request, Response, parse
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import request

SETTINGS = AgentSettings(allow_events=("message-summary",), supported=("timer",))


def asked(method: str = "INVITE", **changes: object) -> Request:
    message = parse(request(method, **changes))  # type: ignore[arg-type]
    assert isinstance(message, Request)
    return message


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (asked(), None),
        (asked(body=b""), None),
        (asked("OPTIONS"), None),
        (asked("REGISTER"), 405),
        (asked("PRACK"), None),
        (asked("REFER"), 405),
        (asked("REFER", to_tag="x"), None),
        (asked("MESSAGE"), 405),
        (asked("PUBLISH"), 405),
        (asked(extra="Require: replaces"), 420),
        (asked(extra="Require: Join"), 420),
        (asked("!interesting-Method0123456789_*+`.%indeed'~"), 501),
        (asked("invite"), 501),
        (asked("SUBSCRIBE", extra="Event: presence"), 489),
        (asked("NOTIFY"), 489),
        (asked("SUBSCRIBE", extra="o: message-summary;id=1"), None),
        (asked(extra="Require: timer, nothingSupportsThis"), 420),
        (asked(extra="Require: Timer"), None),
        (asked(content_type="text/plain"), 415),
        (asked(content_type="Application/SDP; charset=x"), None),
        (asked(content_type="text/plain", extra="Content-Disposition: render; handling = optional"), None),
        (asked(drop="Content-Type"), None),
        (asked(extra="Content-Encoding: gzip"), 415),
        (asked(content_type="application/pkcs7-mime"), 493),
        (asked(extra="Accept: text/nobodyKnowsThis"), 406),
        (asked(extra="Accept: text/plain, application/*;q=0.5"), None),
        (asked("INFO", body=b"x", content_type="text/plain"), None),
    ],
)
def test_refusals(message: Request, status: int | None) -> None:
    found = refusal(message, SETTINGS)
    assert (found.status if found else None) == status


def test_a_refusal_says_what_would_have_been_taken() -> None:
    def fields(message: Request) -> dict[str, str]:
        found = refusal(message, SETTINGS)
        assert found is not None
        return dict(found.fields)

    assert fields(asked("REGISTER")) == {"Allow": ", ".join(SETTINGS.allow)}
    assert fields(asked(extra="Require: a\r\nRequire: timer, b")) == {"Unsupported": "a, b"}
    assert fields(asked(content_type="text/plain")) == {"Accept": "application/sdp"}
    assert fields(asked(extra="Content-Encoding: gzip")) == {"Accept-Encoding": "identity"}
    assert fields(asked("NOTIFY")) == {"Allow-Events": "message-summary"}


def test_spent_hops_are_refused_unless_the_setting_says_otherwise() -> None:
    spent = asked(drop="Max-Forwards", extra="Max-Forwards: 00")
    found = refusal(spent, SETTINGS)
    assert found is not None
    assert found.status == 483
    assert refusal(spent, AgentSettings(refuse_spent_hops=False)) is None
    assert refusal(asked(drop="Max-Forwards"), SETTINGS) is None


@pytest.mark.parametrize(
    "message",
    [
        asked(drop="From"),
        asked(drop="Call-ID"),
        asked(drop="CSeq"),
        asked(drop="CSeq", extra="CSeq: 1 BYE"),
        asked(drop="Max-Forwards", extra="Max-Forwards: 256"),
        asked(drop="To", extra='To: "Mr. J. User <sip:j.user@example.com>'),
        asked(extra="Record-Route: <sip:a"),
        asked(drop="Contact", extra='Contact: "Joe" <sip:joe@example.org>;;;;'),
        asked(uri="<sip:user@example.com>"),
        asked(uri="bogus"),
    ],
)
def test_what_an_answer_or_dialog_would_need_is_read_at_the_door(message: Request) -> None:
    with pytest.raises(ParseError):
        read_whole(message)


def test_an_answer_is_read_before_it_moves_anything() -> None:
    def answer(routes: str) -> Response:
        head = (
            f"SIP/2.0 200 OK\r\nv: SIP/2.0/UDP a\r\nf: <sip:a@b>\r\nt: <sip:c@d>\r\ni: 1\r\nCSeq: 1 INVITE\r\n{routes}"
        )
        message = parse(f"{head}\r\n".encode())
        assert isinstance(message, Response)
        return message

    read_answer(answer("Record-Route: <sip:a;lr>\r\n"))
    with pytest.raises(ParseError):
        read_answer(answer("Record-Route: <sip:a\r\n"))


def test_retransmissions_and_their_acks_share_a_key() -> None:
    first = transaction_key(asked(), "INVITE")
    assert transaction_key(asked("ACK", to_tag="x"), "INVITE") == first
    assert transaction_key(asked(branch="z9hG4bKtwo"), "INVITE") != first
    assert transaction_key(asked(via="SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bKone"), "INVITE") != first
    assert transaction_key(asked("CANCEL"), "CANCEL") != first


@pytest.mark.parametrize(
    "via", ["SIP/2.0/UDP 192.0.2.7", "SIP/2.0/UDP 192.0.2.7;branch=1", "SIP/2.0/UDP h;branch=z9hG4bK"]
)
def test_peers_of_the_old_rfc_are_told_apart_by_everything_else(via: str) -> None:
    first = transaction_key(asked(via=via), "INVITE")
    assert transaction_key(asked("ACK", via=via, to_tag="x"), "INVITE") == first
    assert transaction_key(asked(via=via, cseq=2), "INVITE") != first
    assert transaction_key(asked(via=via, call_id="other"), "INVITE") != first
