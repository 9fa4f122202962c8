"""Writing responses and requests.

Owns: the order and the content of the headers that we write. Refuses to know: why a message is sent.

Specification: RFC 3261 sections 8.1.1, 8.2.6, 12.2.1 and 20.

Theory of operation: everything that all responses to one request echo is put together once (``Echo``); each response is
then one join. Values that come from the application are checked for line breaks, because a header that somebody else
wrote into ours would be an open door.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aftertone.errors import UsageError
from aftertone.sip.flow import Flow, bracketed
from aftertone.sip.headers import split_list
from aftertone.sip.message import NAMES, Request

Fields = Iterable[tuple[str, str]]
"""Header names and values to add."""

PHRASES: Final[Mapping[int, str]] = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    302: "Moved Temporarily",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    410: "Gone",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    422: "Session Interval Too Small",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    493: "Undecipherable",
    500: "Server Internal Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    600: "Busy Everywhere",
    603: "Decline",
    606: "Not Acceptable",
}


@dataclass(frozen=True, slots=True)
class Echo:
    """What every response to one request repeats (RFC 3261 section 8.2.6.2)."""

    block: str
    """Via, From, Call-ID and CSeq lines, each ended."""
    to: str
    tagged: bool
    """Whether To had a tag already."""
    routes: str
    """Record-Route lines, each ended: only for what makes a dialog."""


NO_ECHO: Final = Echo("", "", True, "")
"""Of a request that has had its last answer."""


def echo_of(request: Request, flow: Flow) -> Echo:
    """Gather what to repeat; the top Via learns where the request really came from."""
    lines: list[str] = []
    values = request.headers.get("via", [])
    for index, value in enumerate(values):
        if index:
            lines.append(f"Via: {value}\r\n")
            continue
        marked = request.via.received_from(*flow.remote)
        first = value if marked is request.via else ", ".join([marked.serialize(), *split_list(value)[1:]])
        lines.append(f"Via: {first}\r\n")
    lines += [f"{NAMES[name]}: {request.get(name)}\r\n" for name in ("from", "call-id", "cseq") if request.get(name)]
    routes = "".join(f"Record-Route: {value}\r\n" for value in request.headers.get("record-route", ()))
    to = request.get("to")
    return Echo("".join(lines), to, bool(to) and bool(request.to.tag), routes)


def salvage_echo(request: Request, flow: Flow) -> Echo:
    """Gather what to repeat of a request that could not be read whole; its To is taken as it stands."""
    to = request.get("to")
    bare = Request(request.method, request.uri, {k: v for k, v in request.headers.items() if k != "to"})
    return Echo(echo_of(bare, flow).block, to, "tag=" in to.lower(), "")


def build_response(
    echo: Echo,
    status: int,
    *,
    reason: str = "",
    tag: str = "",
    lines: str = "",
    fields: Fields = (),
    body: bytes = b"",
    content_type: str = "",
) -> bytes:
    """Return a response; ``lines`` are header lines of ours, each ended, ``fields`` come from the application.

    Raises UsageError when a reason or field would break out of its line, and for a body without a type.
    """
    to = ""
    if echo.to:
        to = f"To: {echo.to}\r\n" if echo.tagged or not tag else f"To: {echo.to};tag={tag}\r\n"
    extra = field_lines(fields)
    kind = _type_line(body, content_type)
    phrase = one_line(reason) if reason else PHRASES.get(status, "Unknown")
    head = (
        f"SIP/2.0 {status} {phrase}\r\n{echo.block}{to}{echo.routes if 100 < status < 300 else ''}"
        f"{lines}{extra}{kind}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("utf-8", "surrogateescape") + body


def build_request(
    method: str,
    uri: str,
    *,
    via: str,
    cseq: int,
    lines: Fields,
    fields: Fields = (),
    body: bytes = b"",
    content_type: str = "",
) -> bytes:
    """Return a request; ``lines`` are headers of ours (From, To, Call-ID, Route ...), ``fields`` the application's."""
    own = "".join(f"{name}: {value}\r\n" for name, value in lines)
    kind = _type_line(body, content_type)
    head = (
        f"{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\n{own}CSeq: {cseq} {method}\r\n"
        f"{field_lines(fields)}{kind}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("utf-8", "surrogateescape") + body


def via_line(flow: Flow, branch: str) -> str:
    """Return our Via; it asks for the port to be seen (RFC 3581)."""
    host, port = flow.local
    return f"SIP/2.0/{flow.transport} {bracketed(host)}:{port};rport;branch={branch}"


def over_tcp(data: bytes) -> bytes:
    """Return a request of ours for UDP as it goes by TCP: its Via says so (RFC 3261 section 18.1.1)."""
    return data.replace(b"\r\nVia: SIP/2.0/UDP ", b"\r\nVia: SIP/2.0/TCP ", 1)


def contact_uri(flow: Flow, user: str, *, secure: bool = False) -> str:
    """Return the URI under which the peer reaches this agent directly.

    ``secure``: the call is to a sips URI, so that the contact must be one too (RFC 3261 sections 8.1.1.8 and 12.1.1).
    """
    host, port = flow.local
    who = f"{user}@" if user else ""
    if secure and flow.transport == "TLS":
        return f"sips:{who}{bracketed(host)}:{port}"
    suffix = "" if flow.transport == "UDP" else f";transport={flow.transport.lower()}"
    return f"sip:{who}{bracketed(host)}:{port}{suffix}"


def field_lines(fields: Fields) -> str:
    """Return application headers as lines; raise UsageError for one that would break out of its line."""
    return "".join(f"{one_line(name)}: {one_line(value)}\r\n" for name, value in fields)


def _type_line(body: bytes, content_type: str) -> str:
    if not body:
        return ""
    if not content_type:
        raise UsageError("a body needs a content type")
    return f"Content-Type: {one_line(content_type)}\r\n"


def one_line(text: str) -> str:
    """Return ``text`` if it can stand in a header line; raise UsageError otherwise."""
    if "\r" in text or "\n" in text:
        raise UsageError("a header value cannot hold line breaks")
    return text
