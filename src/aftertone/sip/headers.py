"""Header field values: lists, quoted strings, parameters, addresses, Via, CSeq.

Owns: the grammar inside one header line. Refuses to know: which headers a message needs, or what they lead to.

Specification: RFC 3261 sections 7.3 and 20, grammar of section 25.1; RFC 3581 for rport.

Theory of operation: every function walks its text once. Quoted strings are found by scanning, lists are cut at the
separators outside quotes and angle brackets, and the only regular expressions are single character classes, which cannot
backtrack. So the time is linear in the input, whatever the input. ParseError is the only exception.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aftertone.sip.faults import ParseError
from aftertone.sip.flow import bracketed

BLANK: Final = " \t"
MAX_CSEQ: Final = 2**31 - 1
"""RFC 3261 section 8.1.1.5."""

_TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
_HOST = re.compile(r"[A-Za-z0-9\-._]+")
_HOST6 = re.compile(r"\[[0-9A-Fa-f:.]+\]")
_SEPARATOR = re.compile(r'[",<]')
_SEMICOLON = re.compile(r'[";]')
_MUST_QUOTE = re.compile(r'(["\\])')

Params = Mapping[str, str | None]
"""Parameters by lower-case name; None for one without a value; quoted values keep their quotes."""


@dataclass(frozen=True, slots=True)
class Via:
    """One hop of the way a request came (RFC 3261 section 20.42)."""

    transport: str
    host: str
    """As written: an IPv6 literal has its brackets."""
    port: int | None
    params: Params

    @property
    def branch(self) -> str:
        """Return the transaction's name, empty when the hop gave none."""
        return self.params.get("branch") or ""

    def serialize(self) -> str:
        """Return the header value."""
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {self.host}{port}{serialize_params(self.params)}"

    def received_from(self, host: str, port: int) -> Via:
        """Return the value with the source the request really came from (RFC 3261 18.2.1, RFC 3581 section 4)."""
        host = host.partition("%")[0]
        asked = "rport" in self.params
        if not asked and self.host == bracketed(host):
            return self
        params = dict(self.params)
        params["received"] = host
        if asked:
            params["rport"] = str(port)
        return Via(self.transport, self.host, self.port, params)


@dataclass(frozen=True, slots=True)
class NameAddr:
    """A display name, a URI and the parameters behind them (From, To, Contact, Route ...)."""

    display: str
    """Unquoted; empty when there was none."""
    uri: str
    params: Params

    @property
    def tag(self) -> str:
        """Return the ``tag`` parameter, empty when there is none."""
        return self.params.get("tag") or ""


@dataclass(frozen=True, slots=True)
class CSeq:
    """The order of a request inside its dialog, and its method (RFC 3261 section 20.16)."""

    number: int
    method: str


def is_token(text: str) -> bool:
    """Return whether ``text`` is a ``token``."""
    return _TOKEN.fullmatch(text) is not None


def parse_number(text: str, limit: int) -> int:
    """Return a decimal number of at most ``limit``; raise ParseError for anything else, signs and blanks included."""
    # The length is looked at first: converting a number takes more than linear time in its digits.
    if not text.isascii() or not text.isdigit() or len(text.lstrip("0")) > 10 or int(text) > limit:
        raise ParseError(f"not a number from 0 to {limit}: {text[:24]!r}")
    return int(text)


def closing_quote(text: str, start: int) -> int:
    """Return the index of the quote that ends the string whose opening quote stands just before ``start``."""
    quote = text.find('"', start)
    while quote >= 0:
        slash = text.find("\\", start, quote)
        if slash < 0:
            return quote
        start = slash + 2
        if start > quote:
            quote = text.find('"', start)
    raise ParseError("a quoted string does not end")


def unquote(text: str) -> str:
    """Return the inside of a quoted string with its escapes resolved; any other text as it is."""
    if len(text) < 2 or text[0] != '"':
        return text
    inside = text[1:-1]
    if "\\" not in inside:
        return inside
    out: list[str] = []
    at = 0
    while (slash := inside.find("\\", at)) >= 0:
        out += (inside[at:slash], inside[slash + 1 : slash + 2])
        at = slash + 2
    out.append(inside[at:])
    return "".join(out)


def quote(text: str) -> str:
    """Return ``text`` as a quoted string; line breaks become spaces, so that no header can be smuggled in."""
    flat = text.replace("\r", " ").replace("\n", " ")
    return '"' + _MUST_QUOTE.sub(r"\\\1", flat) + '"'


def split_list(value: str) -> list[str]:
    """Cut a value at the commas outside quotes and angle brackets; raise ParseError for an empty element."""
    if "," not in value:
        return [value]
    parts: list[str] = []
    at = begin = 0
    while (found := _SEPARATOR.search(value, at)) is not None:
        where = found.start()
        what = value[where]
        if what == '"':
            at = closing_quote(value, where + 1) + 1
        elif what == "<":
            at = value.find(">", where) + 1
            if at == 0:
                raise ParseError("an angle bracket does not close")
        else:
            parts.append(value[begin:where].strip(BLANK))
            at = begin = where + 1
    parts.append(value[begin:].strip(BLANK))
    if "" in parts:
        raise ParseError("a list has an empty element")
    return parts


def parse_params(text: str) -> dict[str, str | None]:
    """Read ``name=value`` pairs separated by semicolons; ``text`` begins after the first semicolon.

    A name that stands twice is refused: which of the two counts would be anybody's guess.
    """
    params: dict[str, str | None] = {}
    for item in text.split(";") if '"' not in text else _split_quoted(text):
        name, equals, value = item.partition("=")
        name = name.strip(BLANK).lower()
        if name in params or _TOKEN.fullmatch(name) is None:
            raise ParseError(f"a parameter is repeated or has no proper name: {name[:24]!r}")
        params[name] = value.strip(BLANK) if equals else None
    return params


def _split_quoted(text: str) -> list[str]:
    """Cut at the semicolons outside quotes."""
    parts: list[str] = []
    at = begin = 0
    while (found := _SEMICOLON.search(text, at)) is not None:
        where = found.start()
        if text[where] == '"':
            at = closing_quote(text, where + 1) + 1
        else:
            parts.append(text[begin:where])
            at = begin = where + 1
    parts.append(text[begin:])
    return parts


def serialize_params(params: Params) -> str:
    """Return ``;name=value`` for each."""
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in params.items())


def parse_host_port(text: str) -> tuple[str, int | None]:
    """Read ``host``, ``host:port`` or ``[v6]:port``; the host keeps its brackets."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        host, rest = (host + bracket).strip(BLANK), rest.strip(BLANK)
        if _HOST6.fullmatch(host) is None or (rest and not rest.startswith(":")):
            raise ParseError(f"not a host: {text[:48]!r}")
        digits, given = rest[1:], bool(rest)
    else:
        host, colon, digits = text.partition(":")
        host, given = host.rstrip(BLANK), bool(colon)
        if _HOST.fullmatch(host) is None:
            raise ParseError(f"not a host: {text[:48]!r}")
    if not given:
        return host, None
    port = parse_number(digits.strip(BLANK), 65535)
    if port == 0:
        raise ParseError("port 0")
    return host, port


def parse_via(value: str) -> Via:
    """Read one Via element. Spec: RFC 3261 section 20.42."""
    head, semicolon, tail = value.partition(";")
    protocol, _, sent_by = head.strip(BLANK).partition(" ")
    if not protocol.startswith("SIP/2.0/") or "/" in sent_by or not sent_by:
        protocol, sent_by = _loose_via(head)
    transport = protocol[8:]
    host, port = parse_host_port(sent_by.strip(BLANK))
    if _TOKEN.fullmatch(transport) is None:
        raise ParseError("a Via names no transport")
    return Via(transport.upper(), host, port, parse_params(tail) if semicolon else {})


def _loose_via(head: str) -> tuple[str, str]:
    """Read ``SIP / 2.0 / UDP  host``, which blanks may surround anywhere."""
    words = head.replace("\t", " ").split("/", 2)
    if len(words) != 3 or words[0].strip(BLANK).upper() != "SIP" or words[1].strip(BLANK) != "2.0":
        raise ParseError("a Via is not of SIP/2.0")
    transport, _, sent_by = words[2].strip(BLANK).partition(" ")
    return "SIP/2.0/" + transport, sent_by


def parse_address(value: str) -> NameAddr:
    """Read a name-addr or addr-spec with its parameters; without brackets, parameters belong to the header.

    Display names may hold what the grammar calls no token: a caller whose name has a comma still gets to the machine.
    Spec: RFC 3261 section 20.10.
    """
    display = ""
    if value.startswith('"'):
        end = closing_quote(value, 1)
        display = unquote(value[: end + 1])
        opening = end + 1 + len(value[end + 1 :]) - len(value[end + 1 :].lstrip(BLANK))
        if value[opening : opening + 1] != "<":
            raise ParseError("no URI in angle brackets after a quoted name")
    else:
        opening = value.find("<")
        if opening > 0:
            display = value[:opening].strip(BLANK)
    if opening < 0:
        uri, semicolon, tail = value.partition(";")
        uri = uri.rstrip(BLANK)
    else:
        closing = value.find(">", opening)
        if closing < 0:
            raise ParseError("an angle bracket does not close")
        uri = value[opening + 1 : closing]
        rest = value[closing + 1 :].lstrip(BLANK)
        semicolon, tail = rest[:1], rest[1:]
        if semicolon not in ("", ";"):
            raise ParseError("text after an address that is no parameter")
    if ":" not in uri or " " in uri or "\t" in uri or '"' in uri or "<" in uri:
        raise ParseError(f"not a URI: {uri[:48]!r}")
    return NameAddr(display, uri, parse_params(tail) if semicolon else {})


def parse_cseq(value: str) -> CSeq:
    """Read ``4711 INVITE``."""
    number, _, method = value.replace("\t", " ").partition(" ")
    method = method.strip(BLANK)
    if _TOKEN.fullmatch(method) is None:
        raise ParseError("a CSeq names no method")
    return CSeq(parse_number(number, MAX_CSEQ), method)


def parse_media_type(value: str) -> tuple[str, dict[str, str | None]]:
    """Read ``type/subtype;params``; type and subtype come back joined and in lower case."""
    name, semicolon, tail = value.partition(";")
    kind, slash, subtype = name.partition("/")
    kind, subtype = kind.strip(BLANK).lower(), subtype.strip(BLANK).lower()
    if not slash or not is_token(kind) or not is_token(subtype):
        raise ParseError(f"not a media type: {value[:48]!r}")
    return f"{kind}/{subtype}", parse_params(tail) if semicolon else {}
