"""SIP requests and responses: bytes to values and back.

Owns: the start line, the header lines and where the body ends. Refuses to know: transactions, sockets, what a header
leads to. (A *message* of this product is a voicemail; here it is a Request or a Response.)

Specification: RFC 3261 sections 7, 18.3, 20 and 25; RFC 4475 for what to take and what to refuse.

Theory of operation: ``parse`` cuts the head into lines once and keeps the values as text under their lower-case full
names; grammar inside a value is read when somebody asks and remembered. Text is UTF-8 with bytes that are none escaped
(PEP 383), so every byte survives an echo; lengths are counted in bytes. The work is linear in the input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from aftertone.sip.faults import ParseError, SchemeError, TooLargeError, VersionError
from aftertone.sip.headers import (
    BLANK,
    CSeq,
    NameAddr,
    Via,
    is_token,
    parse_address,
    parse_cseq,
    parse_media_type,
    parse_number,
    parse_via,
    split_list,
)
from aftertone.sip.uri import Uri, parse_uri

__all__ = [
    "MAX_HEADERS",
    "MAX_LINE_BYTES",
    "MAX_MESSAGE_BYTES",
    "ParseError",
    "Request",
    "Response",
    "SchemeError",
    "TooLargeError",
    "VersionError",
    "parse",
    "salvage",
    "serialize",
]

MAX_MESSAGE_BYTES: Final = 65_536
"""A UDP datagram cannot be longer; nobody has a reason to send more over TCP."""
MAX_LINE_BYTES: Final = 8_192
"""One header line, unfolded. Certificates and tokens in Identity headers stay below."""
MAX_HEADERS: Final = 128
"""A request through a dozen proxies has about forty."""

VERSION: Final = "SIP/2.0"

COMPACT: Final[Mapping[str, str]] = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
"""The one-letter forms (RFC 3261 section 20 and the IANA registry)."""

_WRITTEN: Final[Sequence[str]] = re.findall(
    r"\S+",
    "Accept Accept-Contact Accept-Encoding Accept-Language Alert-Info Allow Allow-Events Call-ID Call-Info Contact "
    "Content-Disposition Content-Encoding Content-Length Content-Type CSeq Date Diversion Event Expires From "
    "History-Info Identity Max-Forwards Min-SE Organization P-Asserted-Identity P-Called-Party-ID P-Charging-Vector "
    "P-Preferred-Identity Privacy Proxy-Require RAck Reason Record-Route Remote-Party-ID Require Retry-After Route RSeq "
    "Server Session-Expires Session-ID Subject Supported Timestamp To Unsupported User-Agent Via Warning",
)
NAMES: Final[Mapping[str, str]] = {name.lower(): name for name in _WRITTEN}
"""How well-known names are written."""
_KEYS: Final[dict[str, str]] = {
    **{name: name.lower() for name in _WRITTEN},
    **COMPACT,
    **{short.upper(): full for short, full in COMPACT.items()},
}

T = TypeVar("T")


class Memo(Generic[T]):
    """A property that is worked out once per object and then lies in its ``__dict__``.

    ``functools.cached_property`` does the same behind a lock, which costs more than most of our parsers.
    """

    def __init__(self, work: Callable[[Any], T]) -> None:
        self._work = work
        self._name = ""
        self.__doc__ = work.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> T:
        value = self._work(instance)
        instance.__dict__[self._name] = value
        return value


class _Fields:
    """What requests and responses share: header values by lower-case full name, and a body. Treat as immutable."""

    def __init__(self, headers: dict[str, list[str]], body: bytes) -> None:
        self.headers: Final = headers
        self.body: Final = body

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of the header ``name`` (lower case, full form)."""
        values = self.headers.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """Return every element of a header that is a list, whether it came comma-joined or line by line."""
        return [part for value in self.headers.get(name, ()) if value for part in split_list(value)]

    def required(self, name: str) -> str:
        """Return the only value of a header that must stand exactly once; raise ParseError otherwise."""
        values = self.headers.get(name)
        if values is None or len(values) != 1 or not values[0]:
            raise ParseError(f"{NAMES.get(name, name)} must stand exactly once")
        return values[0]

    @Memo
    def vias(self) -> tuple[Via, ...]:
        """Every hop, topmost first."""
        return tuple(parse_via(value) for value in self.all("via"))

    @Memo
    def via(self) -> Via:
        """The topmost hop; the others are not looked at."""
        values = self.headers.get("via")
        if not values:
            raise ParseError("there is no Via")
        return parse_via(split_list(values[0])[0])

    @Memo
    def from_(self) -> NameAddr:
        """Who sends, with the tag of that side."""
        return parse_address(self.required("from"))

    @Memo
    def to(self) -> NameAddr:
        """Who is meant, with the tag of that side once it has answered."""
        return parse_address(self.required("to"))

    @Memo
    def call_id(self) -> str:
        """The name that both sides give to the call."""
        return self.required("call-id")

    @Memo
    def cseq(self) -> CSeq:
        """Number and method."""
        return parse_cseq(self.required("cseq"))

    @Memo
    def contact(self) -> NameAddr | None:
        """Where the sender wants to be reached directly; None when it did not say."""
        values = self.all("contact")
        return parse_address(values[0]) if values else None

    @Memo
    def content_type(self) -> str:
        """``type/subtype`` in lower case; empty when none was given."""
        value = self.get("content-type")
        return parse_media_type(value)[0] if value else ""

    def tokens(self, name: str) -> list[str]:
        """Return the elements of a list of tokens such as Require, Supported or Allow."""
        return [part for part in self.all(name) if part]

    def words(self, name: str) -> frozenset[str]:
        """Return the elements of such a list in lower case, whatever is malformed about it: for headers that only hint."""
        parts = (part.strip(BLANK).lower() for value in self.headers.get(name, ()) for part in value.split(","))
        return frozenset(part for part in parts if part)


class Request(_Fields):
    """What a peer asks."""

    def __init__(self, method: str, uri: str, headers: dict[str, list[str]], body: bytes = b"") -> None:
        super().__init__(headers, body)
        self.method: Final = method
        self.uri: Final = uri

    @Memo
    def target(self) -> Uri:
        """The Request-URI in its parts; raises SchemeError for a scheme that is none of ours."""
        return parse_uri(self.uri)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri} {self.get('call-id')}>"


class Response(_Fields):
    """What a peer answers."""

    def __init__(self, status: int, reason: str, headers: dict[str, list[str]], body: bytes = b"") -> None:
        super().__init__(headers, body)
        self.status: Final = status
        self.reason: Final = reason

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason} {self.get('call-id')}>"


def parse(data: bytes, *, stream: bool = False) -> Request | Response:
    """Read one whole message; what follows the announced body is cut off, as UDP wants it.

    ``stream``: the message came over a connection, where Content-Length must stand (RFC 3261 section 20.14).
    Raises ParseError, whose ``sip_status`` is the answer to a request. Spec: RFC 3261 sections 7 and 18.3.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise TooLargeError(f"a message of {len(data)} bytes")
    begin = 0
    while data.startswith(b"\r\n", begin):
        begin += 2
    end = data.find(b"\r\n\r\n", begin)
    if end < 0:
        raise ParseError("no empty line ends the head")
    start, headers = _parse_head(data[begin:end])
    body = data[end + 4 :]
    announced = headers.get("content-length")
    if announced is not None:
        if len(announced) != 1:
            raise ParseError("Content-Length stands more than once")
        length = parse_number(announced[0], 2**32)
        if length > MAX_MESSAGE_BYTES:
            raise TooLargeError(f"a body of {length} bytes")
        if length > len(body):
            raise ParseError(f"the body has {len(body)} of {length} bytes")
        body = body[:length]
    elif stream:
        raise ParseError("no Content-Length on a connection")
    if start[:8].upper() == "SIP/2.0 ":
        return _response(start, headers, body)
    return Request(*_request_line(start), headers, body)


def _parse_head(raw: bytes) -> tuple[str, dict[str, list[str]]]:
    """Cut the head into its start line and the values by name."""
    head = raw.decode("utf-8", "surrogateescape")
    lines = head.split("\r\n")
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
        raise ParseError("a line break inside a line")
    if "\n " in head or "\n\t" in head:
        lines = _unfold(lines)
    if len(lines) - 1 > MAX_HEADERS:
        raise TooLargeError(f"{len(lines) - 1} header lines")
    if len(raw) > MAX_LINE_BYTES:
        for line in lines:
            if len(line.encode("utf-8", "surrogateescape")) > MAX_LINE_BYTES:
                raise TooLargeError("a header line that is too long")
    headers: dict[str, list[str]] = {}
    keys, start = _KEYS, lines[0]
    del lines[0]
    for line in lines:
        name, colon, value = line.partition(":")
        key = keys.get(name) or _key(name)
        if not colon:
            raise ParseError("a header line has no colon")
        if key in headers:
            headers[key].append(value.strip(BLANK))
        else:
            headers[key] = [value.strip(BLANK)]
    return start, headers


def _key(name: str) -> str:
    """Return the lower-case full name of a header as written by the peer."""
    lower = name.rstrip(BLANK).lower()
    if not is_token(lower):
        raise ParseError(f"not a header name: {name[:24]!r}")
    return COMPACT.get(lower, lower)


def _unfold(lines: list[str]) -> list[str]:
    """Join the lines that begin with a blank to the one before (RFC 3261 section 7.3.1)."""
    whole: list[list[str]] = []
    for line in lines:
        if not line.startswith((" ", "\t")):
            whole.append([line])
        elif len(whole) < 2:
            raise ParseError("the first header line is folded")
        else:
            whole[-1].append(line.strip(BLANK))
    return [" ".join(parts) for parts in whole]


def _request_line(line: str) -> tuple[str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[1] or not is_token(words[0]):
        raise ParseError("not a request line")
    if words[2].upper() != VERSION:
        if words[2].upper().startswith("SIP/"):
            raise VersionError(f"version {words[2][:16]!r}")
        raise ParseError("not a request line")
    return words[0], words[1]


def _response(line: str, headers: dict[str, list[str]], body: bytes) -> Response:
    _, code, reason = (line + " ").split(" ", 2)
    if len(code) != 3:
        raise ParseError("not a status line")
    status = parse_number(code, 699)
    if status < 100:
        raise ParseError("not a status line")
    return Response(status, reason[:-1] if reason else "", headers, body)


def salvage(data: bytes) -> Request | None:
    """Gather from a broken request what an answer must echo (Via, From, To, Call-ID, CSeq), or None.

    None for responses, for ACK (never answered) and for bytes without a readable Via. Values are left out when they
    could not stand in a header line.
    """
    head = data[:MAX_MESSAGE_BYTES].lstrip(b"\r\n").partition(b"\r\n\r\n")[0]
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")[: MAX_HEADERS + 1]
    method, _, rest = lines[0].partition(" ")
    if method.upper().startswith("SIP/") or method == "ACK" or not is_token(method):
        return None
    headers: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.rstrip(BLANK).lower()
        name = COMPACT.get(name, name)
        wanted = name in ("via", "from", "to", "call-id", "cseq")
        if colon and wanted and len(value) <= MAX_LINE_BYTES and "\r" not in value and "\n" not in value:
            headers.setdefault(name, []).append(value.strip(BLANK))
    request = Request(method, rest.partition(" ")[0], headers)
    try:
        return request if request.via else None
    except ParseError:
        return None


def serialize(message: Request | Response) -> bytes:
    """Return the bytes of a message; Content-Length is worked out from the body, whatever the headers say."""
    if isinstance(message, Request):
        start = f"{message.method} {message.uri} {VERSION}"
    else:
        start = f"{VERSION} {message.status} {message.reason}"
    fields = ((name, value) for name, values in message.headers.items() for value in values)
    return serialize_fields(start, fields, message.body)


def serialize_fields(start: str, fields: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Return start line, fields (names in any case), Content-Length and body."""
    lines = [start]
    for name, value in fields:
        lower = name.lower()
        if lower != "content-length":
            lines.append(f"{NAMES.get(lower, name)}: {value}")
    lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body
