"""The asking half of a user agent: calls that we place, and BYE in any dialog.

Owns: INVITE, CANCEL, ACK and BYE of ours, requests outside calls, and what their responses mean. Refuses to know: requests of peers.

Specification: RFC 3261 sections 8.1, 9.1, 13.2, 15.1.1; RFC 3262 section 4; RFC 6026 section 7.2.

Theory of operation: a ``Leg`` is one INVITE of ours and lives as long as its transaction, so that each resent 2xx finds
the ACK to send again. A leg tells its user exactly one end: CallAnswered or CallFailed. A 2xx that nobody wants any more
(cancelled too late, or a second branch of a forked call) is acknowledged and hung up. Each branch that rings has an early dialog
of its own, which its 2xx confirms; the others go when the INVITE is over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from aftertone.errors import BusyError
from aftertone.sip import session_timer
from aftertone.sip.builder import Fields, build_request, contact_uri, over_tcp, via_line
from aftertone.sip.checks import read_answer
from aftertone.sip.core import COOKIE, ClientTransaction, Core, Waiting
from aftertone.sip.dialog import Dialog, Phase, confirm, dialog_from_response
from aftertone.sip.digest_client import AuthenticationError, DigestClient
from aftertone.sip.events import (
    ByeFinished,
    CallAnswered,
    CallFailed,
    CallId,
    CallProgress,
    DialogId,
    RequestAnswered,
    RequestFailed,
    RequestId,
)
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.headers import MAX_CSEQ, parse_address, parse_number, quote
from aftertone.sip.message import Response
from aftertone.sip.outside import Asked, Asking, write_request
from aftertone.sip.own_offers import OwnOffer, OwnOffers
from aftertone.sip.proof import Login, Proof
from aftertone.sip.transaction import CLIENT_INVITE, CLIENT_OTHER, Do, On, State
from aftertone.sip.uri import parse_uri

MAX_CHALLENGED: Final = 6
"""INVITEs of one call: some proxies and the called side may each want to know who calls."""
MAX_FORKS: Final = 8
"""Branches of one call that are kept apart; a proxy that rings more phones than this is told nothing of the others."""
MAX_DATAGRAM_BYTES: Final = 1300
"""A larger request goes by TCP where it may (RFC 3261 section 18.1.1): fragments are what firewalls drop first."""


@dataclass(eq=False, slots=True)
class Leg:
    """One call that we place."""

    id: CallId
    uri: str
    tag: str
    from_: str
    to: str
    call_id: str
    cseq: int
    branch: str
    flow: Flow
    transaction: ClientTransaction
    fields: Fields
    body: bytes
    content_type: str
    over: bool = False
    """The user knows how it ended."""
    cancelled: bool = False
    cancel_sent: bool = False
    acks: dict[str, tuple[bytes, Flow] | None] = field(default_factory=dict)
    """By remote tag: the ACK to send again, None while the application owes the answer."""
    early: dict[str, Dialog] = field(default_factory=dict)
    """By remote tag: the branches that ring."""
    minimum_s: int = 0
    """The session interval that a 422 asked for."""
    login: DigestClient | None = None
    credentials: tuple[tuple[str, str], ...] = ()
    """What the last INVITE said of who we are; its ACK says the same (section 22.1)."""

    @property
    def offered(self) -> bool:
        """Whether the INVITE made the offer."""
        return bool(self.body)


@dataclass(eq=False, slots=True)
class _Prack(Waiting):
    """A PRACK of ours that may be challenged; nobody else waits for its answer."""

    dialog: Dialog
    again: Callable[[int], None]
    transaction: ClientTransaction | None = None

    def answered(self, response: Response, now_ns: int) -> None:
        """Send it again when it was challenged, while the branch still rings."""
        sent = self.transaction
        rings = self.dialog.phase in (Phase.EARLY, Phase.CONFIRMED)
        if sent is not None and self.dialog.may_pass(response, sent.said, sent.flow) and rings:
            self.again(now_ns)

    def unanswered(self, now_ns: int) -> None:
        """The INVITE ends by itself."""


class ClientSide:
    """Requests of ours and their responses."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.legs: dict[CallId, Leg] = {}
        self.offers = OwnOffers(core, self)

    def invite(
        self,
        target_uri: str,
        *,
        from_uri: str,
        display_name: str,
        body: bytes,
        content_type: str,
        flow: Flow,
        fields: Fields,
        login: DigestClient | None = None,
        now_ns: int,
    ) -> CallId:
        """Send an INVITE; see ``Agent.invite``."""
        core = self._core
        parse_uri(target_uri)
        parse_uri(from_uri)
        if core.load() >= core.settings.max_transactions or len(core.dialogs) >= core.settings.max_dialogs:
            raise BusyError("too many calls at once: this one was not placed")
        tag, call_id = core.token(), f"{core.token()}{core.token()}"
        name = f"{quote(display_name)} " if display_name else ""
        from_, to, branch = f"{name}<{from_uri}>;tag={tag}", f"<{target_uri}>", COOKIE + core.token()
        fields = tuple(fields)
        credentials = login.authorize("INVITE", target_uri, body) if login is not None else ()
        said = (*fields, *credentials)
        data = self._write_invite(target_uri, from_, to, call_id, branch, 1, flow, said, body, content_type)
        transaction = self.open((branch, "INVITE"), None, data, flow, now_ns)
        leg = Leg(
            CallId(core.next_id()),
            target_uri,
            tag,
            from_,
            to,
            call_id,
            1,
            branch,
            transaction.flow,
            transaction,
            fields,
            body,
            content_type,
            login=login,
            credentials=credentials,
        )
        transaction.user = leg
        self.legs[leg.id] = leg
        return leg.id

    def _write_invite(
        self,
        uri: str,
        from_: str,
        to: str,
        call_id: str,
        branch: str,
        cseq: int,
        flow: Flow,
        fields: Fields,
        body: bytes,
        content_type: str,
        minimum_s: int = 0,
    ) -> bytes:
        who = parse_address(from_).uri
        lines = [("From", from_), ("To", to), ("Call-ID", call_id), *self._capabilities(flow, who, uri)]
        lines += session_timer.request_fields(self._core.settings, None, minimum_s)
        return build_request(
            "INVITE",
            uri,
            via=via_line(flow, branch),
            cseq=cseq,
            lines=lines,
            fields=fields,
            body=body,
            content_type=content_type,
        )

    def _again(self, leg: Leg, now_ns: int) -> None:
        """Send the INVITE once more, as a 422 or a challenge asked (RFC 4028 section 7.3, RFC 3261 section 22.2)."""
        leg.cseq, leg.branch = leg.cseq + 1, COOKIE + self._core.token()
        if leg.login is not None:
            leg.credentials = leg.login.authorize("INVITE", leg.uri, leg.body)
        where = (leg.uri, leg.from_, leg.to, leg.call_id, leg.branch, leg.cseq, leg.flow)
        data = self._write_invite(*where, (*leg.fields, *leg.credentials), leg.body, leg.content_type, leg.minimum_s)
        self._forget_early(leg)
        leg.transaction = self.open((leg.branch, "INVITE"), leg, data, leg.flow, now_ns)
        leg.flow = leg.transaction.flow

    def request(self, asking: Asking, flow: Flow, now_ns: int) -> RequestId:
        """Send a request outside every call; see ``Agent.request``."""
        core = self._core
        if core.load() >= core.settings.max_transactions:
            raise BusyError("too many requests at once: this one was not sent")
        asked, branch, data = write_request(core, asking, flow)
        self.open((branch, asking.method), asked, data, flow, now_ns)
        return asked.id

    def flow_lost(self, flow: Flow, now_ns: int, why: str) -> None:
        """End what waits for an answer over a connection that is gone, as if 503 had come (section 8.1.3.1).

        Only an INVITE that rings goes on: its answer may come over a connection that the peer opens (section 18.2.2).
        """
        core = self._core
        for transaction in list(core.client.values()):
            user = transaction.user
            ringing = isinstance(user, Leg) and transaction.state is State.PROCEEDING
            others = isinstance(user, Waiting) and not isinstance(user, _Prack)
            if transaction.flow != flow or not transaction.pending or ringing or others:
                continue
            transaction.terminate()
            core.settle(transaction)
            if isinstance(user, Asked):
                core.outputs.append(RequestFailed(user.id, 503, why))
            elif isinstance(user, Dialog):
                self._bye_over(user, 503)
            elif isinstance(user, Leg):
                self._fail(user, 503, why)
            elif isinstance(user, OwnOffer):
                self.offers.unsent(user, now_ns)
            self._tidy(transaction)

    def send_by_datagram(self, flow: Flow, now_ns: int) -> None:
        """Send requests by UDP that were to go by TCP for their size, when TCP cannot be opened (section 18.1.1)."""
        core = self._core
        for transaction in core.client.values():
            if transaction.flow != flow or transaction.datagram is None or not transaction.pending:
                continue
            data, plain = transaction.datagram
            transaction.datagram = None
            transaction.restart(plain, data, now_ns)
            if isinstance(transaction.user, Leg):
                transaction.user.flow = plain
            core.stats["sent_by_datagram"] += 1
            core.transmit(data, plain)
            core.settle(transaction)

    def cancel(self, call: CallId, now_ns: int) -> None:
        """Give up a call that is not answered; before the first response the CANCEL waits for it (section 9.1)."""
        leg = self.legs.get(call)
        if leg is None or leg.over:
            return
        leg.cancelled = True
        if leg.transaction.state is State.PROCEEDING:
            self._send_cancel(leg, now_ns)

    def acknowledge(self, dialog: Dialog, body: bytes, content_type: str, now_ns: int) -> None:
        """Send the ACK or PRACK that the application owed because our INVITE had made no offer."""
        if dialog.owes_prack is not None:
            rseq, dialog.owes_prack = dialog.owes_prack, None
            self._prack(dialog, rseq, body, content_type, now_ns)
            return
        cseq, dialog.owes_ack = dialog.owes_ack, None
        if cseq is None:
            return
        asked = [leg for leg in self.legs.values() if leg.call_id == dialog.id.call_id]
        credentials = next((leg.credentials for leg in asked), ())
        ack = self.ack(dialog, cseq, body, content_type, credentials)
        dialog.description = (body, content_type)
        for leg in asked:
            if dialog.id.remote_tag in leg.acks:
                leg.acks[dialog.id.remote_tag] = ack

    def bye(self, dialog: Dialog, now_ns: int) -> None:
        """Send BYE at once; the dialog is gone when it is over."""
        core = self._core
        if dialog.owes_ack is not None:
            self.acknowledge(dialog, b"", "", now_ns)
        core.quiet(dialog)
        dialog.phase = Phase.LEAVING
        self._send_bye(dialog, now_ns)

    def _send_bye(self, dialog: Dialog, now_ns: int) -> None:
        branch = COOKIE + self._core.token()
        fields = dialog.bye_fields or ()
        data = dialog.request("BYE", branch, fields=fields, user_agent=self._core.settings.user_agent)
        self.open((branch, "BYE"), dialog, data, dialog.next_flow(), now_ns, dialog.said)

    def on_response(self, response: Response, now_ns: int) -> None:
        """Take a response; one that matches no request of ours is dropped (section 18.1.2)."""
        core = self._core
        read_answer(response)
        if len(response.vias) != 1:
            core.stats["dropped_response_via"] += 1
            return
        transaction = core.client.get((response.via.branch, response.cseq.method))
        if transaction is None:
            core.stats["dropped_response_stray"] += 1
            return
        kind = On.PROVISIONAL if response.status < 200 else On.SUCCESS if response.status < 300 else On.FAILURE
        leg = transaction.user
        if isinstance(leg, (Leg, Asked)) and (response.call_id, response.from_.tag) != (leg.call_id, leg.tag):
            core.stats["dropped_response_stray"] += 1
            return
        if isinstance(leg, OwnOffer):
            self.offers.on_response(leg, transaction, kind, response, now_ns)
            return
        if kind is On.FAILURE and isinstance(leg, Leg) and leg.transaction is transaction:
            transaction.ack = self._failure_ack(leg, response)
        effects = core.step(transaction, kind, now_ns)
        if Do.PASS in effects:
            if isinstance(leg, Leg):
                self._on_invite_response(leg, kind, response, now_ns)
            elif isinstance(leg, Dialog) and kind is not On.PROVISIONAL:
                if leg.may_pass(response, transaction.said, transaction.flow):
                    self._send_bye(leg, now_ns)
                else:
                    self._bye_over(leg, response.status)
            elif isinstance(leg, Asked) and kind is not On.PROVISIONAL:
                core.outputs.append(RequestAnswered(leg.id, response))
            elif isinstance(leg, Waiting) and kind is not On.PROVISIONAL:
                leg.answered(response, now_ns)
        self._tidy(transaction)

    def wake(self, transaction: ClientTransaction, now_ns: int) -> None:
        """Run the timers of a transaction that are due."""
        while (event := transaction.due(now_ns)) is not None:
            if Do.EXPIRED in self._core.step(transaction, event, now_ns):
                self._expired(transaction, now_ns)
        self._core.settle(transaction)
        self._tidy(transaction)

    def _expired(self, transaction: ClientTransaction, now_ns: int) -> None:
        user = transaction.user
        if isinstance(user, Dialog):
            self._bye_over(user, None)
        elif isinstance(user, Waiting):
            user.unanswered(now_ns)
        elif isinstance(user, OwnOffer):
            self.offers.expired(user, transaction, now_ns)
        elif isinstance(user, Asked):
            self._core.outputs.append(RequestFailed(user.id, 408, "no answer from the peer"))
        elif isinstance(user, Leg):
            if transaction.state is not State.PROCEEDING:
                self._fail(user, 408, "no answer from the peer")
            elif not user.cancelled:
                self.cancel(user.id, now_ns)
            else:
                transaction.terminate()
                self._fail(user, 487, "cancelled; the peer never said so")

    def _on_invite_response(self, leg: Leg, kind: On, response: Response, now_ns: int) -> None:
        if kind is On.SUCCESS:
            self._on_answer(leg, response, now_ns)
        elif kind is On.FAILURE:
            if not (leg.cancelled or leg.over) and self._can_mend(leg, response):
                self._again(leg, now_ns)
                return
            self._forget_early(leg)
            self._fail(leg, response.status, response.reason)
        else:
            if leg.cancelled and not leg.cancel_sent:
                self._send_cancel(leg, now_ns)
            if response.status > 100 and not leg.over:
                self._on_progress(leg, response, now_ns)

    def _can_mend(self, leg: Leg, response: Response) -> bool:
        """Return whether the INVITE may pass when it is sent again, and learn what it must say then."""
        if response.status == 422 and not leg.minimum_s:
            leg.minimum_s = session_timer.read_minimum(response)
            return True
        if response.status not in (401, 407) or leg.login is None or leg.cseq > MAX_CHALLENGED:
            return False
        try:
            leg.login.challenged(response, leg.credentials)
        except AuthenticationError:
            return False
        return True

    def _on_progress(self, leg: Leg, response: Response, now_ns: int) -> None:
        """Tell of a provisional response, and confirm a reliable one: each in its turn, and once (RFC 3262 section 4)."""
        core = self._core
        dialog = self._early_dialog(leg, response)
        rseq = _reliable_number(response)
        if dialog is not None and rseq is not None:
            if dialog.last_rseq is not None and rseq != dialog.last_rseq + 1:
                core.stats["dropped_provisional_order"] += 1
                return
            dialog.last_rseq = rseq
            dialog.negotiated = dialog.negotiated or (leg.offered and bool(response.body))
            if response.body and not leg.offered and not dialog.negotiated:
                dialog.owes_prack, dialog.negotiated = rseq, True
            else:
                self._prack(dialog, rseq, b"", "", now_ns)
        core.outputs.append(CallProgress(leg.id, response.status, response, dialog.id if dialog is not None else None))

    def _early_dialog(self, leg: Leg, response: Response) -> Dialog | None:
        """Return the dialog of the branch that rings, made if need be; None without a tag and beyond the limit."""
        tag = response.to.tag
        if not tag or tag in leg.acks:
            return None
        dialog = leg.early.get(tag)
        if dialog is None and len(leg.early) < MAX_FORKS and len(self._core.dialogs) < self._core.settings.max_dialogs:
            dialog = leg.early[tag] = self._dialog_of(leg, response)
            self._core.dialogs[dialog.id] = dialog
        elif dialog is not None and response.contact is not None:
            dialog.target = response.contact.uri
        return dialog

    def _dialog_of(self, leg: Leg, response: Response) -> Dialog:
        """Make the dialog of a branch. Who may ask there for our login is the one who could ask for it at the INVITE."""
        dialog = dialog_from_response(response, leg.from_, leg.uri, leg.flow)
        dialog.description = (leg.body, leg.content_type)
        login, first = leg.login, leg.flow
        if login is not None:
            dialog.proof = Proof(Login(lambda: login, lambda flow, _: flow.is_as_good_as(first)), login)
        return dialog

    def _prack(self, dialog: Dialog, rseq: int, body: bytes, content_type: str, now_ns: int) -> None:
        core = self._core
        branch = COOKIE + core.token()
        if body:
            dialog.description = (body, content_type)
        fields = (("RAck", f"{rseq} {dialog.invite_cseq} INVITE"),)
        data = dialog.request("PRACK", branch, fields=fields, body=body, content_type=content_type)
        waiting = None
        if dialog.proof is not None:
            waiting = _Prack(dialog, functools.partial(self._prack, dialog, rseq, body, content_type))
        transaction = self.open((branch, "PRACK"), waiting, data, dialog.next_flow(), now_ns, dialog.said)
        if waiting is not None:
            waiting.transaction = transaction

    def _forget_early(self, leg: Leg) -> None:
        for dialog in leg.early.values():
            self._core.drop_dialog(dialog)
        leg.early.clear()

    def _on_answer(self, leg: Leg, response: Response, now_ns: int) -> None:
        """Acknowledge a 2xx, again if it came again (section 13.2.2.4)."""
        core = self._core
        tag = response.to.tag
        if tag in leg.acks:
            ack = leg.acks[tag]
            if ack is not None:
                core.transmit(*ack)
            return
        if len(leg.acks) >= MAX_FORKS:
            core.stats["dropped_response_forks"] += 1
            return
        dialog = leg.early.pop(tag, None)
        if dialog is not None:
            confirm(dialog, response)
        else:
            dialog = self._dialog_of(leg, response)
            core.dialogs[dialog.id] = dialog
        wanted = not leg.over and not leg.cancelled
        if wanted and not leg.offered and response.body and not dialog.negotiated:
            dialog.owes_ack = leg.cseq
            leg.acks[tag] = None
        else:
            leg.acks[tag] = self.ack(dialog, leg.cseq, b"", "", leg.credentials)
        if wanted:
            leg.over = True
            core.outputs.append(CallAnswered(leg.id, dialog.id, response))
            self.offers.begin(dialog, response, now_ns)
            return
        dialog.silent = True
        self.bye(dialog, now_ns)
        self._fail(leg, 487, "cancelled while it was being answered")

    def _fail(self, leg: Leg, status: int, reason: str) -> None:
        if not leg.over:
            leg.over = True
            self._core.outputs.append(CallFailed(leg.id, status, reason))

    def _bye_over(self, dialog: Dialog, status: int | None) -> None:
        core = self._core
        core.drop_dialog(dialog)
        if not dialog.silent:
            core.outputs.append(ByeFinished(dialog.id, status))

    def ack(self, dialog: Dialog, cseq: int, body: bytes, content_type: str, fields: Fields = ()) -> tuple[bytes, Flow]:
        """Send the ACK of a 2xx, a request of its own with a branch of its own (section 13.2.2.4)."""
        core = self._core
        branch = COOKIE + core.token()
        data = dialog.request("ACK", branch, cseq=cseq, fields=fields, body=body, content_type=content_type)
        flow = dialog.next_flow()
        core.transmit(data, flow)
        return data, flow

    def _failure_ack(self, leg: Leg, response: Response) -> bytes:
        """Write the ACK of a failure, part of the INVITE's transaction (section 17.1.1.3)."""
        lines = (("From", leg.from_), ("To", response.required("to")), ("Call-ID", leg.call_id))
        return build_request("ACK", leg.uri, via=via_line(leg.flow, leg.branch), cseq=leg.cseq, lines=lines)

    def _send_cancel(self, leg: Leg, now_ns: int) -> None:
        """Send CANCEL and give the INVITE 64*T1 more to end (section 9.1)."""
        leg.cancel_sent = True
        lines = (("From", leg.from_), ("To", leg.to), ("Call-ID", leg.call_id))
        data = build_request("CANCEL", leg.uri, via=via_line(leg.flow, leg.branch), cseq=leg.cseq, lines=lines)
        self.open((leg.branch, "CANCEL"), None, data, leg.flow, now_ns)
        leg.transaction.extend("R", now_ns + self._core.settings.timing.give_up_ns)
        self._core.settle(leg.transaction)

    def open(
        self, key: tuple[str, str], user: object, data: bytes, flow: Flow, now_ns: int, said: Fields = ()
    ) -> ClientTransaction:
        """Send a request and wait for its answer. ``said``: what it says of who we are."""
        core = self._core
        table = CLIENT_INVITE if key[1] == "INVITE" else CLIENT_OTHER
        datagram = None
        if flow.either and flow.transport == "UDP" and len(data) > MAX_DATAGRAM_BYTES:
            datagram = (data, flow)
            data, flow = over_tcp(data), replace(flow, transport="TCP")
            core.stats["sent_by_stream"] += 1
        transaction = ClientTransaction(table, key, user, data, flow, core.settings.timing, now_ns)
        transaction.datagram, transaction.said = datagram, said
        core.client[key] = transaction
        core.transmit(data, flow)
        core.settle(transaction)
        return transaction

    def _tidy(self, transaction: ClientTransaction) -> None:
        """Forget the leg of a transaction that is over, and the branches that still ring."""
        leg = transaction.user
        if transaction.state is State.TERMINATED and isinstance(leg, Leg) and leg.transaction is transaction:
            self._forget_early(leg)
            self.legs.pop(leg.id, None)

    def _capabilities(self, flow: Flow, from_uri: str, target_uri: str) -> list[tuple[str, str]]:
        settings = self._core.settings
        user = settings.user or parse_uri(from_uri).user
        contact = contact_uri(self._core.reached(flow), user, secure=parse_uri(target_uri).scheme == "sips")
        lines = [("Contact", f"<{contact}>"), ("Allow", ", ".join(settings.allow))]
        if settings.supported:
            lines.append(("Supported", ", ".join(settings.supported)))
        if settings.user_agent:
            lines.append(("User-Agent", settings.user_agent))
        return lines


def _reliable_number(response: Response) -> int | None:
    """Return the RSeq of a provisional response that wants a PRACK, None for one that does not."""
    if "100rel" not in response.words("require"):
        return None
    try:
        return parse_number(response.get("rseq").strip(), MAX_CSEQ)
    except ParseError:
        return None


def live_dialog(core: Core, dialog_id: DialogId) -> Dialog | None:
    """Return a dialog that has been neither ended nor refused, or None."""
    dialog = core.dialogs.get(dialog_id)
    return dialog if dialog is not None and dialog.phase in (Phase.EARLY, Phase.CONFIRMED) else None
