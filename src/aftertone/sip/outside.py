"""Requests of ours outside every call: REGISTER, OPTIONS, NOTIFY, MESSAGE.

Owns: how such a request is written and what names it. Refuses to know: its transaction (``client``) and what its answer
leads to.

Specification: RFC 3261 section 8.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aftertone.errors import UsageError
from aftertone.sip.builder import build_request, one_line, via_line
from aftertone.sip.core import COOKIE, Core
from aftertone.sip.events import RequestId
from aftertone.sip.flow import Flow
from aftertone.sip.headers import MAX_CSEQ, is_token
from aftertone.sip.uri import parse_uri

OF_CALLS: Final = frozenset({"INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE"})
"""Methods that have commands of their own, because they make, change or end a call."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What is to be sent; see ``Agent.request``. Empty names and a CSeq of 0 are made up."""

    method: str
    target_uri: str
    from_uri: str
    to_uri: str
    route: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    body: bytes
    content_type: str
    call_id: str
    from_tag: str
    cseq: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of it until the answer comes."""

    id: RequestId
    call_id: str
    tag: str


def write_request(core: Core, asking: Asking, flow: Flow) -> tuple[Asked, str, bytes]:
    """Return the request's names, the branch of its transaction and its bytes. Errors as ``Agent.request`` says."""
    if not is_token(asking.method) or asking.method in OF_CALLS:
        raise UsageError(f"{asking.method[:24]!r} is no method of a request outside calls")
    if not 0 <= asking.cseq <= MAX_CSEQ:
        raise UsageError(f"a CSeq is a number from 1 to {MAX_CSEQ}, not {asking.cseq}")
    for uri in (asking.target_uri, asking.from_uri, asking.to_uri, *asking.route):
        one_line(uri)
        parse_uri(uri)
    asked = Asked(
        RequestId(core.next_id()),
        one_line(asking.call_id) or f"{core.token()}{core.token()}",
        one_line(asking.from_tag) or core.token(),
    )
    lines = [("Route", f"<{uri}>") for uri in asking.route]
    lines += [
        ("From", f"<{asking.from_uri}>;tag={asked.tag}"),
        ("To", f"<{asking.to_uri}>"),
        ("Call-ID", asked.call_id),
    ]
    if core.settings.user_agent:
        lines.append(("User-Agent", core.settings.user_agent))
    branch = COOKIE + core.token()
    data = build_request(
        asking.method,
        asking.target_uri,
        via=via_line(flow, branch),
        cseq=asking.cseq or 1,
        lines=lines,
        fields=asking.headers,
        body=asking.body,
        content_type=asking.content_type,
    )
    return asked, branch, data
