"""One lasting relation with a peer.

Owns: tags, route set, remote target, the order of requests in both directions, and the 2xx or ACK that may have to be
sent again. Refuses to know: transactions and events.

Specification: RFC 3261 section 12.

Theory of operation: a dialog begins with the INVITE that makes it (early), is confirmed by a 2xx and ends with a BYE of
either side. Requests towards a caller go over the flow that its latest request in the dialog came by: the ACK of a 2xx
travels the route set backwards, so that flow is the next hop when the proxies record routes, the caller itself when they
do not, and open in the NAT in front of it either way.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from aftertone.sip.budgets import OpenCall
from aftertone.sip.builder import Fields, build_request, via_line
from aftertone.sip.events import DialogId, TransactionId
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow, Transport, bracketed
from aftertone.sip.headers import parse_address
from aftertone.sip.message import Request, Response
from aftertone.sip.uri import Uri, parse_uri

if TYPE_CHECKING:
    from aftertone.sip.own_offers import OwnOffer
    from aftertone.sip.proof import Proof
    from aftertone.sip.reliable import Provisionals
    from aftertone.sip.session_timer import SessionTimer


class Phase(enum.Enum):
    """How far a dialog has come."""

    EARLY = "early"
    CONFIRMED = "confirmed"
    LEAVING = "leaving"
    """Our BYE is under way."""
    LEFT = "left"
    """The peer's BYE came and waits for its answer."""


@dataclass(eq=False, slots=True)
class Unacknowledged:
    """A 2xx to an INVITE that is sent again until its ACK comes (RFC 3261 section 13.3.1.4)."""

    dialog: Dialog
    transaction_id: TransactionId
    cseq: int
    data: bytes
    flow: Flow
    offered: bool
    """The 2xx carries the offer, so the ACK owes an answer."""
    pause_ns: int
    resend_ns: int
    give_up_ns: int

    def deadline_ns(self) -> int:
        """Return when something is to be done next."""
        return min(self.resend_ns, self.give_up_ns)


@dataclass(eq=False, slots=True)
class Dialog:
    """The state of one dialog; ``local`` and ``remote`` are whole From/To values with their tags."""

    id: DialogId
    local: str
    remote: str
    routes: tuple[str, ...]
    """The route set in the order in which we use it."""
    target: str
    flow: Flow
    caller: bool
    """We placed the call."""
    local_cseq: int
    remote_cseq: int | None = None
    phase: Phase = Phase.EARLY
    first: TransactionId | None = None
    """The INVITE of the peer that made the dialog."""
    confirmed: bool = False
    """The ACK of the first INVITE has passed."""
    unacknowledged: Unacknowledged | None = None
    bye_fields: Fields | None = None
    """A BYE of ours that waits until the ACK has come; the headers it is to carry."""
    owes_ack: int | None = None
    """CSeq number of our INVITE whose 2xx made the offer, until the application answers it."""
    silent: bool = False
    """Nobody was told of this dialog, so nobody is told of its end."""
    counted: OpenCall | None = None
    """How a call of a peer is counted in its budget."""
    pending: set[TransactionId] = field(default_factory=set)
    """Requests of the peer inside the dialog that wait for their answer."""
    offers: set[TransactionId] = field(default_factory=set)
    """Those of them that are offers: re-INVITE, UPDATE or PRACK."""
    user: str = ""
    """User part of our Contact."""
    remote_allow: frozenset[str] = frozenset()
    """Methods that the peer says it takes."""
    negotiated: bool = False
    """Offer and answer have passed while the dialog is early, so that a new offer may follow."""
    description: tuple[bytes, str] = (b"", "")
    """Our latest description and its type, which a refresh by re-INVITE says again."""
    provisionals: Provisionals | None = None
    """What we answered reliably before the final answer."""
    invite_cseq: int = 1
    """CSeq number of the INVITE of ours that made the dialog."""
    last_rseq: int | None = None
    """Number of the latest reliable provisional answer of the peer."""
    owes_prack: int | None = None
    """RSeq of the peer's provisional answer whose offer the application has not answered."""
    wish: OwnOffer | None = None
    """An offer of ours that waits until the dialog is free for it."""
    offer: OwnOffer | None = None
    """The one that is under way."""
    session: SessionTimer | None = None
    proof: Proof | None = None
    """How we say who we are, when a request of ours is challenged."""
    said: Fields = ()
    """What the latest request of ours said of that."""

    def in_order(self, number: int) -> bool:
        """Note the CSeq number of a request; False when it is older than one that came before (section 12.2.2)."""
        if self.remote_cseq is not None and number < self.remote_cseq:
            return False
        self.remote_cseq = number
        return True

    def request(
        self,
        method: str,
        branch: str,
        *,
        cseq: int | None = None,
        fields: Fields = (),
        body: bytes = b"",
        content_type: str = "",
        user_agent: str = "",
    ) -> bytes:
        """Write a request inside the dialog (section 12.2.1.1); without ``cseq`` it takes the next number.

        What it says of who we are is in ``said`` afterwards; an ACK says in ``fields`` what its INVITE said (section 22.1).
        """
        if cseq is None:
            self.local_cseq += 1
            cseq = self.local_cseq
        uri, routes = self.target, self.routes
        if routes and not _is_loose(routes[0]):
            # A strict router wants its own URI in the request line and the target at the end of the route.
            uri, routes = parse_address(routes[0]).uri, (*routes[1:], f"<{self.target}>")
        self.said = ()
        if self.proof is not None and method != "ACK":
            self.said = self.proof.fields(method, uri, body, self.next_flow())
        lines = [("Route", route) for route in routes]
        lines += [("From", self.local), ("To", self.remote), ("Call-ID", self.id.call_id)]
        if user_agent:
            lines.append(("User-Agent", user_agent))
        return build_request(
            method,
            uri,
            via=via_line(self.next_flow(), branch),
            cseq=cseq,
            lines=lines,
            fields=(*fields, *self.said),
            body=body,
            content_type=content_type,
        )

    def may_pass(self, response: Response, said: Fields, flow: Flow) -> bool:
        """Take the answer to a request of ours; return whether it was a challenge that the same request, sent again, answers.

        ``said`` and ``flow``: of that request.
        """
        # Behind a proxy the end may be anybody, whatever it says of its place.
        return self.proof is not None and self.proof.mends(response, said, flow, "" if self.routes else self.target)

    def next_flow(self) -> Flow:
        """Return where requests inside the dialog go: for a call of ours the first route or the target, if it says."""
        return self.literal_flow() if self.caller else self.flow

    def literal_flow(self) -> Flow:
        """Return the flow to the first route or the target when that is an address, else the flow known so far."""
        return literal_flow(parse_address(self.routes[0]).uri if self.routes else self.target, self.flow)


def literal_flow(uri_text: str, flow: Flow) -> Flow:
    """Return the flow to a URI whose host is an address; ``flow`` when it is a name, which is not ours to look up.

    A URI that names no transport means UDP (RFC 3263 section 4.1), unless it is just where ``flow`` leads already.
    """
    try:
        uri = parse_uri(uri_text)
        host = str(ipaddress.ip_address(uri.host.strip("[]")))
    except (ValueError, ParseError):
        return flow
    named = uri.params.get("transport")
    wanted = "TLS" if uri.scheme == "sips" else (named or "UDP").upper()
    remote = (host, uri.port or (5061 if wanted == "TLS" else 5060))
    known = remote == flow.remote and (named is None or wanted == flow.transport)
    if known or wanted not in ("UDP", "TCP", "TLS") or (flow.transport == "TLS" and wanted != "TLS"):
        # What came encrypted does not go on in the open because a Contact says so.
        return flow
    return Flow(cast(Transport, wanted), remote, flow.local, either=named is None and wanted == "UDP")


def dialog_from_request(request: Request, tag: str, flow: Flow, local_cseq: int, first: TransactionId) -> Dialog:
    """Make the dialog that an INVITE of a peer begins (RFC 3261 section 12.1.1); raise ParseError for bad routes."""
    contact = request.contact
    return Dialog(
        id=DialogId(request.call_id, tag, request.from_.tag),
        local=f"{request.required('to')};tag={tag}",
        remote=request.required("from"),
        routes=_routes(request.all("record-route")),
        target=contact.uri if contact else f"sip:{bracketed(flow.remote[0])}:{flow.remote[1]}",
        flow=flow,
        caller=False,
        local_cseq=local_cseq,
        remote_cseq=request.cseq.number,
        first=first,
        user=request.target.user,
        remote_allow=_methods(request),
    )


def dialog_from_response(response: Response, local: str, uri: str, flow: Flow) -> Dialog:
    """Make the dialog that a response to an INVITE of ours begins: early for a 1xx, confirmed for a 2xx.

    Raises ParseError for bad routes. Spec: RFC 3261 section 12.1.2.
    """
    confirmed = response.status >= 200
    contact = response.contact
    return Dialog(
        id=DialogId(response.call_id, response.from_.tag, response.to.tag),
        local=local,
        remote=response.required("to"),
        routes=_routes(response.all("record-route"))[::-1],
        target=contact.uri if contact else uri,
        flow=flow,
        caller=True,
        local_cseq=response.cseq.number,
        phase=Phase.CONFIRMED if confirmed else Phase.EARLY,
        confirmed=confirmed,
        invite_cseq=response.cseq.number,
        user=_user_of(parse_address(local).uri),
        remote_allow=_methods(response),
    )


def confirm(dialog: Dialog, response: Response) -> None:
    """Confirm an early dialog of a call of ours; the route set is that of the 2xx (section 13.2.2.4)."""
    dialog.phase, dialog.confirmed = Phase.CONFIRMED, True
    dialog.routes = _routes(response.all("record-route"))[::-1]
    dialog.remote = response.required("to")
    if response.contact is not None:
        dialog.target = response.contact.uri
    dialog.remote_allow = _methods(response) or dialog.remote_allow


def _methods(message: Request | Response) -> frozenset[str]:
    return frozenset(word.upper() for word in message.words("allow"))


def _user_of(uri: str) -> str:
    try:
        return parse_uri(uri).user
    except ParseError:
        return ""


def _routes(values: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        parse_address(value)
    return tuple(values)


def _is_loose(route: str) -> bool:
    uri = parse_address(route).uri
    try:
        parsed: Uri = parse_uri(uri)
    except ParseError:
        return True
    return "lr" in parsed.params
