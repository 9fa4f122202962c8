"""What is wrong with a request before anybody acts on it.

Owns: the inspection of RFC 3261 section 8.2 in its order. Refuses to know: transactions and dialogs.

Theory of operation: ``read_whole`` reads every header that will be used later, so that a malformed one is a 400 at the
door and never an exception in the middle of a call. ``refusal`` then says which answer a well-formed request gets that
we do not serve, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aftertone.sip.core import COOKIE, TransactionKey
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.headers import parse_address, parse_media_type, parse_number
from aftertone.sip.message import Request, Response
from aftertone.sip.settings import AgentSettings

KNOWN_METHODS: Final = frozenset(
    {"INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "REGISTER", "PRACK", "UPDATE", "INFO", "SUBSCRIBE", "NOTIFY"}
    | {"REFER", "MESSAGE", "PUBLISH"}
)
"""What we recognise; any other method is answered 501 instead of 405 (RFC 3261 section 21.5.2)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer, and the headers that explain it."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()


def read_whole(request: Request) -> None:
    """Read all that an answer or a dialog will need; raise ParseError (SchemeError for a foreign Request-URI)."""
    _ = request.via, request.from_, request.to, request.call_id
    if request.cseq.method != request.method:
        raise ParseError("the CSeq names another method")
    if "max-forwards" in request.headers:
        parse_number(request.required("max-forwards"), 255)
    if request.method in ("INVITE", "SUBSCRIBE"):
        for route in request.all("record-route"):
            parse_address(route)
    _ = request.content_type
    _ = request.contact if request.method != "REGISTER" else None
    _ = request.target


def read_answer(response: Response) -> None:
    """Read all that a transaction or dialog of ours will need of a response; raise ParseError."""
    _ = response.vias, response.from_, response.to, response.call_id, response.cseq
    if response.cseq.method in ("INVITE", "UPDATE") and 100 < response.status < 300:
        _ = response.contact
        for route in response.all("record-route"):
            parse_address(route)


def refusal(request: Request, settings: AgentSettings) -> Refusal | None:
    """Return how to refuse a request that is none of our business, or None to serve it (sections 8.2.1 to 8.2.3)."""
    if (
        settings.refuse_spent_hops
        and request.get("max-forwards").strip("0") == ""
        and "max-forwards" in request.headers
    ):
        return Refusal(483)
    if request.method in ("SUBSCRIBE", "NOTIFY"):
        package = request.get("event").partition(";")[0].strip(" \t")
        if package not in settings.allow_events:
            return Refusal(489, (("Allow-Events", ", ".join(settings.allow_events)),) if settings.allow_events else ())
    elif request.method == "REFER" and request.to.tag:
        # Inside a call it is declined there, where the call is known: see ``ServerSide``.
        return None
    elif request.method not in settings.allow:
        status = 405 if request.method in KNOWN_METHODS else 501
        return Refusal(status, (("Allow", ", ".join(settings.allow)),))
    unsupported = [tag for tag in request.tokens("require") if tag.lower() not in settings.supported]
    if unsupported:
        return Refusal(420, (("Unsupported", ", ".join(unsupported)),))
    return _content_refusal(request, settings)


def _content_refusal(request: Request, settings: AgentSettings) -> Refusal | None:
    if request.method not in ("INVITE", "UPDATE", "PRACK"):
        return None
    coding = request.get("content-encoding").strip().lower()
    if coding not in ("", "identity"):
        return Refusal(415, (("Accept-Encoding", "identity"),))
    accept = (("Accept", ", ".join(settings.accept)),)
    if request.body and "handling=optional" not in request.get("content-disposition").replace(" ", "").lower():
        if request.content_type in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
            return Refusal(493)
        # A body of no stated type is taken for ours: a careless phone has a caller too.
        if request.content_type and request.content_type not in settings.accept:
            return Refusal(415, accept)
    wanted = [parse_media_type(value)[0] for value in request.all("accept")]
    ours = settings.accept[0]
    if wanted and not {ours, ours.partition("/")[0] + "/*", "*/*"} & set(wanted):
        return Refusal(406, accept)
    return None


Door = Callable[[Request, Flow], Refusal | None]
"""Asked about an INVITE that would begin a call, how it is to be refused, or None."""


def transaction_key(request: Request, method: str) -> TransactionKey:
    """Return what a retransmission of ``method`` (ACK and CANCEL look for INVITE) has in common with the original.

    Spec: RFC 3261 section 17.2.3, with its rule for RFC 2543 peers, whose branch names nothing. The To tag is left out
    there: the ACK has it, the INVITE has not.
    """
    via = request.via
    sent_by = f"{via.host.lower()}:{via.port or 5060}"
    if via.branch.startswith(COOKIE) and len(via.branch) > len(COOKIE):
        return via.branch, sent_by, method
    return (
        "2543",
        sent_by,
        method,
        request.uri,
        request.call_id,
        request.from_.tag,
        str(request.cseq.number),
        via.branch,
    )
