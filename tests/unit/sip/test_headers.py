"""aftertone.sip.headers: the grammar inside one value."""

from __future__ import annotations

import pytest

from aftertone.sip.headers import (
    CSeq,
    closing_quote,
    parse_address,
    parse_cseq,
    parse_host_port,
    parse_media_type,
    parse_number,
    parse_params,
    parse_via,
    quote,
    serialize_params,
    split_list,
    unquote,
)
from aftertone.sip.message import ParseError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("a , b,c", ["a", "b", "c"]),
        ('"x, y" <sip:a@b>, <sip:c@d;m=1,2>', ['"x, y" <sip:a@b>', "<sip:c@d;m=1,2>"]),
        (r'"a\", b" <sip:a@b>,c', [r'"a\", b" <sip:a@b>', "c"]),
    ],
)
def test_lists_are_cut_outside_quotes_and_brackets(text: str, parts: list[str]) -> None:
    assert split_list(text) == parts


@pytest.mark.parametrize("text", ["a,", ",a", "a,,b", '"a, b', "<sip:a, b", r'"a\",b'])
def test_broken_lists_are_refused(text: str) -> None:
    with pytest.raises(ParseError):
        split_list(text)


def test_the_closing_quote_is_the_first_that_no_backslash_escapes() -> None:
    assert closing_quote(r'"a\"b\\" "c"', 1) == 7
    with pytest.raises(ParseError):
        closing_quote(r'"abc\"', 1)


@pytest.mark.parametrize("text", ["", "plain", 'a "b" c', "back\\slash", '\\"', "Ünïcode"])
def test_quoting_and_unquoting_give_back_the_text(text: str) -> None:
    assert unquote(quote(text)) == text


def test_quoting_keeps_line_breaks_out_of_a_header() -> None:
    assert quote("a\r\nVia: x") == '"a  Via: x"'


def test_parameters() -> None:
    assert parse_params('Lr; q = 0.5;x="a;b"; y') == {"lr": None, "q": "0.5", "x": '"a;b"', "y": None}
    assert serialize_params({"lr": None, "q": "1"}) == ";lr;q=1"
    for broken in (";", "a;", "a;;b", "=x", 'x="a', "a=1;A=2"):
        with pytest.raises(ParseError):
            parse_params(broken)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("h", "h", None), ("h:5061", "h", 5061), ("h : 7", "h", 7), ("[::1]", "[::1]", None), ("[::1]:9", "[::1]", 9)],
)
def test_hosts(text: str, host: str, port: int | None) -> None:
    assert parse_host_port(text) == (host, port)


@pytest.mark.parametrize("text", ["", ":1", "h:", "h:0", "h:65536", "h:x", "[::1", "[x]", "[::1]5", "a b", "h:٣"])
def test_broken_hosts(text: str) -> None:
    with pytest.raises(ParseError):
        parse_host_port(text)


def test_a_via_in_the_usual_form() -> None:
    via = parse_via("SIP/2.0/udp pc.example.com:5070;branch=z9hG4bK1;rport")
    assert (via.transport, via.host, via.port, via.branch) == ("UDP", "pc.example.com", 5070, "z9hG4bK1")
    assert via.serialize() == "SIP/2.0/UDP pc.example.com:5070;branch=z9hG4bK1;rport"


def test_a_via_with_blanks_wherever_they_may_be() -> None:
    via = parse_via("SIP  / 2.0\t/ TCP   spindle.example.com : 80 ;  branch  =   z9hG4bK9 ; x")
    assert (via.transport, via.host, via.port, via.branch) == ("TCP", "spindle.example.com", 80, "z9hG4bK9")


@pytest.mark.parametrize(
    "text", ["", "SIP/2.0/UDP", "SIP/3.0/UDP h", "HTTP/2.0/UDP h", "SIP/2.0/ h", "SIP/2.0/UDP h;;", "SIP/2.0/U@P h"]
)
def test_broken_vias(text: str) -> None:
    with pytest.raises(ParseError):
        parse_via(text)


def test_a_via_learns_its_source_when_it_asked_or_lied() -> None:
    asked = parse_via("SIP/2.0/UDP 10.0.0.1;rport;branch=z").received_from("192.0.2.1", 999)
    assert asked.params == {"rport": "999", "branch": "z", "received": "192.0.2.1"}
    lied = parse_via("SIP/2.0/UDP 10.0.0.1;branch=z").received_from("192.0.2.1", 999)
    assert lied.params == {"branch": "z", "received": "192.0.2.1"}
    true = parse_via("SIP/2.0/UDP [2001:db8::1];branch=z")
    assert true.received_from("2001:db8::1", 5060) is true


@pytest.mark.parametrize(
    ("text", "display", "uri", "tag"),
    [
        ('"A. \\"G.\\" Bell" <sip:a@b;x=1>;tag=9', 'A. "G." Bell', "sip:a@b;x=1", "9"),
        ("Bell, Alexander <sip:a@b>", "Bell, Alexander", "sip:a@b", ""),
        ("<tel:+1-201>", "", "tel:+1-201", ""),
        ("sip:a@b ; tag = 7", "", "sip:a@b", "7"),
        ('""   <sip:a@b>;tag=1', "", "sip:a@b", "1"),
    ],
)
def test_addresses(text: str, display: str, uri: str, tag: str) -> None:
    address = parse_address(text)
    assert (address.display, address.uri, address.tag) == (display, uri, tag)


@pytest.mark.parametrize(
    "text", ["", "a", '"a" sip:b@c', '"a <sip:b@c>', "<sip:a@b", "<sip:a@b>x", "< sip:a@b >", "<sip:a@b>;;", "<ab>"]
)
def test_broken_addresses(text: str) -> None:
    with pytest.raises(ParseError):
        parse_address(text)


def test_cseq() -> None:
    assert parse_cseq("0009 \t INVITE") == CSeq(9, "INVITE")
    for broken in ("1", "INVITE", "-1 INVITE", "1 IN VITE", "2147483648 INVITE", "36893488147419103232 INVITE", ""):
        with pytest.raises(ParseError):
            parse_cseq(broken)


def test_numbers_are_ascii_digits_within_their_limit() -> None:
    assert parse_number("0068", 255) == 68
    for broken in ("", "256", "+1", "1_0", "²", "1" * 5000, " 1"):
        with pytest.raises(ParseError):
            parse_number(broken, 255)


def test_media_types() -> None:
    assert parse_media_type("Multipart/Mixed; boundary=x") == ("multipart/mixed", {"boundary": "x"})
    for broken in ("text", "/", "a/b c"):
        with pytest.raises(ParseError):
            parse_media_type(broken)
