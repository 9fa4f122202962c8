"""SIP, SIPS and tel URIs.

Owns: the parts of a URI and the percent escapes in them. Refuses to know: how a host is found (RFC 3263).

Specification: RFC 3261 section 19.1, RFC 3966 for tel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from aftertone.sip.faults import ParseError, SchemeError
from aftertone.sip.headers import Params, is_token, parse_host_port, parse_params, serialize_params

SCHEMES: Final = ("sip", "sips", "tel")
"""What a Request-URI of ours may be."""


@dataclass(frozen=True, slots=True)
class Uri:
    """One URI in its parts, escapes kept as they came."""

    scheme: str
    user: str
    """Without the password; the number of a tel URI."""
    host: str
    """An IPv6 literal has its brackets; empty for tel."""
    port: int | None
    params: Params
    headers: str = ""
    """What follows a question mark, uninterpreted."""

    def serialize(self) -> str:
        """Return the URI without headers, which must not stand in a request line."""
        if self.scheme == "tel":
            return f"tel:{self.user}{serialize_params(self.params)}"
        user = f"{self.user}@" if self.user else ""
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}:{user}{self.host}{port}{serialize_params(self.params)}"


def parse_uri(text: str) -> Uri:
    """Read a URI; raise SchemeError for a scheme that is none of ours and ParseError for anything malformed."""
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon or not is_token(scheme) or not rest:
        raise ParseError(f"not a URI: {text[:48]!r}")
    if any(mark in rest for mark in ' \t"<>'):
        raise ParseError("a URI holds blanks, quotes or brackets")
    if scheme not in SCHEMES:
        raise SchemeError(f"a URI of scheme {scheme[:16]!r}")
    if scheme == "tel":
        number, semicolon, tail = rest.partition(";")
        return Uri(scheme, number, "", None, parse_params(tail) if semicolon else {})
    # A user may hold semicolons and question marks; only the last @ before the host counts (RFC 3261 section 25.1).
    userinfo, at, place = rest.rpartition("@")
    place, question, headers = place.partition("?")
    place, semicolon, tail = place.partition(";")
    host, port = parse_host_port(place)
    if at and not userinfo:
        raise ParseError("a URI with an empty user")
    user = userinfo.partition(":")[0]
    return Uri(scheme, user, host, port, parse_params(tail) if semicolon else {}, headers if question else "")


def unescape(text: str) -> str:
    """Resolve percent escapes; bytes that are not UTF-8 are read as Latin-1, so that no name is lost."""
    return readable(unquote_to_bytes(text.encode("utf-8", "surrogateescape")))


def readable(raw: bytes) -> str:
    """Return bytes from a header as printable text: UTF-8 if they are, else Latin-1; control characters go."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return "".join(mark for mark in text if mark.isprintable())
