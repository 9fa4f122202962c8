"""Bodies of several parts.

Owns: finding the one part that we understand. Refuses to know: what it says. Gateways from the telephone network put a
session description beside a copy of their own signalling; the application sees the description alone.

Specification: RFC 5621 (a user agent must take multipart), RFC 2046 section 5.1.

Theory of operation: one level, cut at the boundary by one split, so linear in the body. The first part of a wanted type
counts. What cannot be read stays as it came and is refused by its type like any other foreign body.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from aftertone.sip.faults import ParseError
from aftertone.sip.headers import BLANK, parse_media_type, unquote
from aftertone.sip.message import Request

MULTIPART: Final = ("multipart/mixed", "multipart/alternative", "multipart/related")
MAX_PARTS: Final = 32
"""Parts that are looked at."""


def unwrapped(request: Request, wanted: Collection[str]) -> Request:
    """Return the request with the wanted part as its whole body, or as it is when there is none."""
    if not request.body or request.content_type not in MULTIPART:
        return request
    boundary = unquote(parse_media_type(request.get("content-type"))[1].get("boundary") or "")
    if not 0 < len(boundary) <= 70:
        return request
    delimiter = b"\r\n--" + boundary.encode("utf-8", "surrogateescape")
    for part in (b"\r\n" + request.body).split(delimiter, MAX_PARTS)[1:]:
        if part.startswith(b"--"):
            break
        head, empty, body = part.partition(b"\r\n\r\n")
        kind = _part_type(head)
        if empty and kind in wanted:
            headers = {**request.headers, "content-type": [kind], "content-length": [str(len(body))]}
            headers.pop("content-disposition", None)
            return Request(request.method, request.uri, headers, body)
    return request


def _part_type(head: bytes) -> str:
    for line in head.decode("utf-8", "surrogateescape").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon and name.strip(BLANK).lower() in ("content-type", "c"):
            try:
                return parse_media_type(value.strip(BLANK))[0]
            except ParseError:
                return ""
    return ""
