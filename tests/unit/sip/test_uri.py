"""aftertone.sip.uri: URIs and what people put into them."""

from __future__ import annotations

import pytest

from aftertone.sip.message import ParseError, SchemeError
from aftertone.sip.uri import parse_uri, readable, unescape


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("sip:alice@example.com", "alice", "example.com", None),
        ("SIPS:alice:secret@example.com:5061;transport=tcp?subject=x", "alice", "example.com", 5061),
        ("sip:user;par=u%40example.net@example.com", "user;par=u%40example.net", "example.com", None),
        ("sip:[2001:db8::9]:5070", "", "[2001:db8::9]", 5070),
        ("tel:+1-201-555-0123;phone-context=x", "+1-201-555-0123", "", None),
    ],
)
def test_parts(text: str, user: str, host: str, port: int | None) -> None:
    uri = parse_uri(text)
    assert (uri.user, uri.host, uri.port) == (user, host, port)


def test_what_follows_the_question_mark_is_kept_apart() -> None:
    uri = parse_uri("sip:a@b;lr?Route=%3Csip:c%3E")
    assert (uri.headers, dict(uri.params), uri.serialize()) == ("Route=%3Csip:c%3E", {"lr": None}, "sip:a@b;lr")
    assert parse_uri("tel:+1;x=y").serialize() == "tel:+1;x=y"


@pytest.mark.parametrize("text", ["", "sip:", "a@b", "sip:a b@c", "<sip:a@b>", "sip:@b", "sip:a@b:0", 'sip:"a"@b'])
def test_broken_uris(text: str) -> None:
    with pytest.raises(ParseError):
        parse_uri(text)


def test_foreign_schemes_are_told_apart_from_broken_ones() -> None:
    with pytest.raises(SchemeError) as caught:
        parse_uri("nobodyKnowsThisScheme:totallyopaquecontent")
    assert caught.value.sip_status == 416


def test_escapes_resolve_to_readable_text() -> None:
    assert unescape("%75se%72") == "user"
    assert unescape("J%C3%BCrgen") == "Jürgen"
    assert unescape("J%FCrgen") == "Jürgen"
    assert unescape("null-%00-null") == "null--null"
    assert unescape("100%") == "100%"
    assert readable(b"a\x00\x07\x7fb") == "ab"
