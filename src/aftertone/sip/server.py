"""The answering half of a user agent: requests of peers.

Owns: which request starts, changes or ends what, and every answer that needs no application. Refuses to know: mailboxes,
media, and responses of peers.

Specification: RFC 3261 sections 8.2, 9.2, 11, 12.2.2, 13.3, 14.2, 15.1.2; RFC 3262 section 3; RFC 3311 section 5; RFC 4028
section 9; RFC 6026 section 7.1.

Theory of operation: a retransmission stops at its transaction. What is refused for its form is answered without state,
so that refusing costs no memory: the same request gets the same answer, tag included, each time. Answers go to the
address that the request came from and are never sent to any other. REFER is declined with 603 inside a call (RFC 3515 section
2.4.2 names it for that): a machine goes nowhere, and the call goes on. Outside of calls it is a method that is not allowed.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Final

from aftertone.sip import session_timer
from aftertone.sip.bodies import unwrapped
from aftertone.sip.budgets import Verdict
from aftertone.sip.builder import PHRASES, Echo, Fields, build_response, contact_uri, echo_of, salvage_echo
from aftertone.sip.checks import Door, Refusal, read_whole, refusal, transaction_key
from aftertone.sip.client import ClientSide
from aftertone.sip.core import Core, ServerTransaction
from aftertone.sip.dialog import Dialog, Phase, Unacknowledged, dialog_from_request
from aftertone.sip.events import (
    CallCancelled,
    CallConfirmed,
    CallNotConfirmed,
    DialogEnded,
    DialogId,
    IncomingCall,
    ReofferConfirmed,
    ReofferReceived,
    RequestInDialog,
    RequestOutside,
    SubscriptionAsked,
    SubscriptionId,
    TransactionId,
)
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request
from aftertone.sip.reliable import Answer, ReliableAnswers
from aftertone.sip.session_timer import SessionTimer
from aftertone.sip.settings import SECOND_NS
from aftertone.sip.subscriptions import Subscriptions
from aftertone.sip.transaction import SERVER_INVITE, SERVER_OTHER, Do, On

MAX_GAIN: Final = 3
"""How many times as long as a datagram its answer may be; a longer one is shortened, or not sent. Real requests are longer than
their answers; one that is not was made to have us send something to somebody else."""
BUDGET_RETRY_S: Final = 30
"""What is asked of a source that has asked too much."""


class ServerSide:
    """Requests of peers and our answers."""

    def __init__(self, core: Core, client: ClientSide, subscriptions: Subscriptions) -> None:
        self._core = core
        self._client = client
        self.door: Door | None = None
        self.line_of: Callable[[Request, Flow], str] = lambda *_: ""
        self._subscriptions = subscriptions
        self.reliable = ReliableAnswers(core, self)
        core.hang_up = self.bye
        settings = core.settings
        self._server_line = f"Server: {settings.user_agent}\r\n" if settings.user_agent else ""
        self._allow_lines = f"Allow: {', '.join(settings.allow)}\r\n" + (
            f"Supported: {', '.join(settings.supported)}\r\n" if settings.supported else ""
        )
        self._option_lines = (
            f"Accept: {', '.join(settings.accept)}\r\nAccept-Encoding: identity\r\nAccept-Language: *\r\n"
            + (f"Allow-Events: {', '.join(settings.allow_events)}\r\n" if settings.allow_events else "")
        )

    # Requests

    def on_request(self, request: Request, flow: Flow, now_ns: int) -> None:
        """Take a request that parsed; raise ParseError when a header that it needs does not."""
        core = self._core
        read_whole(request)
        if request.method in ("INVITE", "UPDATE", "ACK", "PRACK"):
            request = unwrapped(request, core.settings.accept)
        if request.method == "ACK":
            self._on_ack(request, flow, now_ns)
            return
        key = transaction_key(request, request.method)
        known = core.server.get(key)
        if known is not None:
            core.stats["retransmissions_absorbed"] += 1
            core.step(known, On.REQUEST, now_ns)
            return
        if request.method == "CANCEL":
            self._on_cancel(request, flow, now_ns)
            return
        if not request.to.tag and self._beyond_budget(request, flow, now_ns):
            return
        refused = refusal(request, core.settings)
        if refused is not None:
            self.refuse(request, flow, refused)
        elif request.method == "SUBSCRIBE":
            self._on_subscribe(request, flow, now_ns)
        elif request.to.tag:
            self._on_request_in_dialog(request, flow, now_ns)
        elif request.method == "INVITE":
            self._on_new_call(request, flow, now_ns)
        elif request.method == "OPTIONS":
            self.refuse(request, flow, Refusal(200), self._allow_lines + self._option_lines)
        elif request.method == "REGISTER":
            transaction = self._open_new(request, flow, now_ns)
            if transaction is not None:
                self._core.outputs.append(RequestOutside(transaction.id, request, flow))
        else:
            self.refuse(request, flow, Refusal(481))

    def on_garbage(self, request: Request, error: ParseError, flow: Flow) -> None:
        """Answer a request that does not parse, with what could be salvaged of it."""
        if request.method == "ACK":
            return
        try:
            echo = echo_of(request, flow)
        except ParseError:
            echo = salvage_echo(request, flow)
        status = error.sip_status
        reason = f"{PHRASES[status]} ({error})" if status == 400 else ""
        tag = self._stateless_tag(request)
        data = build_response(echo, status, reason=_printable(reason), tag=tag, lines=self._server_line)
        self._reply(request, flow, status, data, functools.partial(build_response, echo, status, tag=tag))

    def _beyond_budget(self, request: Request, flow: Flow, now_ns: int) -> bool:
        """Refuse a new call or registration of a source that asks too much; keeps nothing."""
        guard, host = self._core.guard, flow.remote[0]
        if request.method not in ("INVITE", "REGISTER", "SUBSCRIBE"):
            return False
        verdict = guard.crowded(host, self._core.load(), now_ns)
        if verdict is Verdict.TAKE:
            ask = guard.call if request.method == "INVITE" else guard.registration
            verdict = ask(host, now_ns)
        if verdict is Verdict.REFUSE:
            self.refuse(request, flow, Refusal(503, (("Retry-After", str(BUDGET_RETRY_S)),)))
        return verdict is not Verdict.TAKE

    def _on_new_call(self, request: Request, flow: Flow, now_ns: int) -> None:
        core = self._core
        merge_key = (request.call_id, request.from_.tag, str(request.cseq.number))
        if merge_key in core.merged:
            self.refuse(request, flow, Refusal(482))
            return
        short = session_timer.too_short(request, core.settings)
        if short is not None:
            self.refuse(request, flow, Refusal(422, tuple(short)))
            return
        if core.load() >= core.settings.max_transactions or len(core.dialogs) >= core.settings.max_dialogs:
            self.refuse(request, flow, Refusal(503, (("Retry-After", str(core.settings.retry_after_s)),)))
            return
        turned = self.door(request, flow) if self.door is not None else None
        if turned is not None:
            self.refuse(request, flow, turned)
            return
        transaction = self.open(request, flow, now_ns)
        transaction.tag = core.token()
        transaction.merge_key = merge_key
        core.merged[merge_key] = transaction.key
        first_cseq = 1 + core.small_number(2**16)
        dialog = dialog_from_request(request, transaction.tag, flow, first_cseq, transaction.id)
        transaction.dialog = dialog
        core.dialogs[dialog.id] = dialog
        dialog.counted = core.guard.began(flow.remote[0], now_ns, self.line_of(request, flow))
        expires = request.get("expires")
        if (
            expires.isascii()
            and expires.isdigit()
            and 0 < int(expires[:9]) * SECOND_NS < core.settings.timing.ring_limit_ns
        ):
            transaction.extend("R", now_ns + int(expires[:9]) * SECOND_NS)
            # The caller's own limit: section 13.3.1 has 487 for that.
            transaction.late_status = 487
        stamp = request.get("timestamp")
        fields = (("Timestamp", stamp),) if stamp else ()
        transaction.last = build_response(transaction.echo, 100, fields=fields)
        core.step(transaction, On.PROVISIONAL, now_ns)
        core.outputs.append(IncomingCall(transaction.id, request, flow, dialog.id))

    def _on_subscribe(self, request: Request, flow: Flow, now_ns: int) -> None:
        """A SUBSCRIBE begins a subscription, if the application wants it, or goes on with one (RFC 6665 section 4.2.1)."""
        known, refused = self._subscriptions.look(request, flow)
        if refused is not None:
            self.refuse(request, flow, refused)
            return
        transaction = self._open_new(request, flow, now_ns)
        if transaction is None:
            return
        if known is None:
            self._core.outputs.append(SubscriptionAsked(transaction.id, request, flow))
            return
        self.answer(transaction, 200, now_ns, fields=self._subscriptions.answer_fields(transaction))
        self._subscriptions.refresh(known, request, flow, now_ns)

    def accept_subscription(self, transaction_id: TransactionId, body: bytes, now_ns: int) -> SubscriptionId | None:
        """Grant a subscription; see ``Agent.accept_subscription``."""
        transaction = self._core.by_id.get(transaction_id)
        if transaction is None or not transaction.pending or transaction.request.method != "SUBSCRIBE":
            self._core.stats["late_answers"] += 1
            return None
        self.answer(transaction, 200, now_ns, fields=self._subscriptions.answer_fields(transaction))
        return self._subscriptions.begin(transaction, body, now_ns)

    def _on_cancel(self, request: Request, flow: Flow, now_ns: int) -> None:
        """CANCEL is answered 200 when it finds its INVITE, which then gets 487 if it is still open (section 9.2)."""
        core = self._core
        target = core.server.get(transaction_key(request, "INVITE"))
        if target is None:
            self.refuse(request, flow, Refusal(481))
            return
        transaction = self.open(request, flow, now_ns)
        transaction.tag = target.tag
        self.answer(transaction, 200, now_ns)
        if target.pending:
            self.abandon(target, 487, now_ns, request.get("reason"))

    def _on_request_in_dialog(self, request: Request, flow: Flow, now_ns: int) -> None:
        core = self._core
        dialog = core.dialogs.get(DialogId(request.call_id, request.to.tag, request.from_.tag))
        if dialog is None or core.load() >= 2 * core.settings.max_transactions:
            self.refuse(request, flow, Refusal(481 if dialog is None else 503))
            return
        if not dialog.in_order(request.cseq.number):
            self.refuse(request, flow, Refusal(500))
            return
        if request.method == "BYE":
            self._on_bye(dialog, request, flow, now_ns)
        elif dialog.phase in (Phase.LEAVING, Phase.LEFT):
            self.refuse(request, flow, Refusal(481))
        elif request.method == "OPTIONS":
            self.refuse(request, flow, Refusal(200), self._allow_lines + self._option_lines)
        elif request.method in ("INVITE", "UPDATE"):
            self._on_reoffer(dialog, request, flow, now_ns)
        elif request.method == "PRACK":
            self.reliable.on_prack(dialog, request, flow, now_ns)
        elif request.method == "REFER":
            self.refuse(request, flow, Refusal(603))
        else:
            dialog.flow = flow
            transaction = self.open(request, flow, now_ns, dialog)
            core.outputs.append(RequestInDialog(dialog.id, transaction.id, request))

    def _on_bye(self, dialog: Dialog, request: Request, flow: Flow, now_ns: int) -> None:
        core = self._core
        transaction = self.open(request, flow, now_ns, dialog)
        if dialog.phase is Phase.CONFIRMED:
            dialog.phase = Phase.LEFT
            core.quiet(dialog)
            self.refuse_pending(dialog, transaction.id, now_ns)
            core.outputs.append(DialogEnded(dialog.id, transaction.id, request))
            return
        # Ours crossed theirs, or they hang up what they had not let ring out (section 15): nobody needs to decide.
        transaction.dialog = None
        dialog.pending.discard(transaction.id)
        self.answer(transaction, 200 if dialog.phase is not Phase.LEFT else 481, now_ns)
        ringing = core.by_id.get(dialog.first) if dialog.first is not None else None
        if dialog.phase is Phase.EARLY and ringing is not None and ringing.pending:
            self.abandon(ringing, 487, now_ns, request.get("reason"))

    def _on_reoffer(self, dialog: Dialog, request: Request, flow: Flow, now_ns: int) -> None:
        """A re-INVITE or UPDATE: one at a time, and none while an offer of ours is open (14.2; RFC 3311 section 5.2)."""
        core = self._core
        waiting = dialog.unacknowledged
        is_invite = request.method == "INVITE"
        describes = is_invite or bool(request.body)
        short = session_timer.too_short(request, core.settings)
        refused: Refusal | None = None
        if dialog.offers or (dialog.phase is Phase.EARLY and (is_invite or (describes and not dialog.negotiated))):
            refused = Refusal(500, (("Retry-After", str(core.small_number(10))),))
        elif (waiting is not None and waiting.offered) or dialog.owes_ack is not None or _crosses(dialog, request):
            refused = Refusal(491)
        elif short is not None:
            refused = Refusal(422, tuple(short))
        elif waiting is not None and is_invite:
            # The ACK is lost or late, but who sends this has seen the 2xx. An UPDATE may have been sent before it came.
            self._acknowledged(waiting, b"", now_ns)
            refused = Refusal(481) if dialog.phase is not Phase.CONFIRMED else None
        if refused is not None:
            # Kept, unlike other refusals: a copy that comes later must not be taken for a request that may succeed now.
            self.answer(self.open(request, flow, now_ns), refused.status, now_ns, fields=refused.fields)
            return
        dialog.flow = flow
        transaction = self.open(request, flow, now_ns, dialog)
        if not describes:
            self.answer(transaction, 200, now_ns)
            return
        dialog.offers.add(transaction.id)
        if is_invite:
            transaction.last = build_response(transaction.echo, 100)
            core.step(transaction, On.PROVISIONAL, now_ns)
        core.outputs.append(ReofferReceived(dialog.id, transaction.id, request))

    def _on_ack(self, request: Request, flow: Flow, now_ns: int) -> None:
        """An ACK belongs to a failure (its transaction) or to a 2xx (its dialog); it is never answered."""
        core = self._core
        known = core.server.get(transaction_key(request, "INVITE"))
        if known is not None and Do.PASS not in core.step(known, On.ACK, now_ns):
            return
        dialog = core.dialogs.get(DialogId(request.call_id, request.to.tag, request.from_.tag))
        waiting = dialog.unacknowledged if dialog is not None else None
        if dialog is None or waiting is None or waiting.cseq != request.cseq.number:
            core.stats["dropped_ack"] += 1
            return
        dialog.flow = flow
        self._acknowledged(waiting, request.body, now_ns)

    def _acknowledged(self, waiting: Unacknowledged, body: bytes, now_ns: int) -> None:
        core, dialog = self._core, waiting.dialog
        core.stop_resending(dialog)
        if not dialog.confirmed:
            dialog.confirmed = True
            if dialog.counted is not None:
                core.guard.confirmed(dialog.counted)
            core.outputs.append(CallConfirmed(dialog.id, body))
        else:
            core.outputs.append(ReofferConfirmed(dialog.id, waiting.transaction_id, body))
        if dialog.bye_fields is not None:
            self.bye(dialog, now_ns)
        else:
            self._client.offers.poke(dialog, now_ns)

    # Answers

    def respond(
        self,
        transaction_id: TransactionId,
        status: int,
        *,
        reason: str,
        fields: Fields,
        body: bytes,
        content_type: str,
        now_ns: int,
    ) -> None:
        """Answer a request; see ``Agent.respond``."""
        core = self._core
        transaction = core.by_id.get(transaction_id)
        if transaction is None or not transaction.pending:
            core.stats["late_answers"] += 1
            return
        answer, dialog = Answer(status, reason, tuple(fields), body, content_type), transaction.dialog
        if dialog is None or dialog.first != transaction_id:
            self.answer(transaction, status, now_ns, **answer.parts())
        else:
            self.reliable.respond(transaction, dialog, answer, now_ns)

    def answer(
        self,
        transaction: ServerTransaction,
        status: int,
        now_ns: int,
        *,
        reason: str = "",
        fields: Fields = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> None:
        core, request, dialog = self._core, transaction.request, transaction.dialog
        lines = self._server_line
        session = None
        if request.method in ("INVITE", "UPDATE") and 100 < status < 300:
            user = core.settings.user or request.target.user
            contact = contact_uri(core.reached(transaction.flow), user, secure=request.uri[:5].lower() == "sips:")
            lines = f"Contact: <{contact}>\r\n{self._allow_lines}{lines}"
            if status >= 200 and (dialog is None or dialog.phase is not Phase.EARLY or request.method == "INVITE"):
                session = session_timer.agree(request, core.settings, dialog.session if dialog is not None else None)
                fields = (*fields, *session_timer.answer_fields(session)) if session is not None else fields
        transaction.last = build_response(
            transaction.echo,
            status,
            reason=reason,
            tag=transaction.tag if status > 100 else "",
            lines=lines,
            fields=fields,
            body=body,
            content_type=content_type,
        )
        kind = On.PROVISIONAL if status < 200 else On.SUCCESS if status < 300 else On.FAILURE
        core.step(transaction, kind, now_ns)
        if kind is On.PROVISIONAL and status > 100 and request.method == "INVITE":
            transaction.extend("S", now_ns + core.settings.timing.remind_ns)
            core.settle(transaction)
        if kind is On.PROVISIONAL:
            return
        if not transaction.flow.reliable and request.method != "SUBSCRIBE":
            # Over a connection it is needed should that be lost, and most are over at once; a subscription begins with its answer.
            transaction.rest()
        if dialog is None:
            return
        dialog.pending.discard(transaction.id)
        dialog.offers.discard(transaction.id)
        if transaction.id == dialog.first:
            self.reliable.end(dialog)
        if request.method == "BYE" or (kind is On.FAILURE and transaction.id == dialog.first):
            core.drop_dialog(dialog)
        elif request.method in ("INVITE", "UPDATE", "PRACK") and kind is On.SUCCESS:
            if body:
                dialog.description = (body, content_type)
            if request.method != "PRACK":
                self._accepted(transaction, request, dialog, body, now_ns)
                self._begin_session(dialog, session, now_ns)
        self._client.offers.poke(dialog, now_ns)

    def _begin_session(self, dialog: Dialog, agreed: session_timer.Interval | None, now_ns: int) -> None:
        """Run the interval that our 2xx named, in place of the one before."""
        core = self._core
        if dialog.session is not None:
            core.timers.set(dialog.session, None)
            dialog.session = None
        if agreed is not None:
            dialog.session = SessionTimer(dialog, agreed.seconds, we_refresh=agreed.refresher == "uas")
            dialog.session.restart(now_ns)
            core.timers.set(dialog.session, dialog.session.deadline_ns())

    def _accepted(
        self, transaction: ServerTransaction, request: Request, dialog: Dialog, body: bytes, now_ns: int
    ) -> None:
        """A 2xx confirms the dialog, refreshes its target, and is sent again until the ACK comes."""
        core, timing = self._core, self._core.settings.timing
        if transaction.id == dialog.first:
            dialog.phase = Phase.CONFIRMED
        elif request.contact is not None:
            dialog.target = request.contact.uri
        if request.method != "INVITE":
            return
        dialog.unacknowledged = waiting = Unacknowledged(
            dialog=dialog,
            transaction_id=transaction.id,
            cseq=request.cseq.number,
            data=transaction.last,
            flow=transaction.flow,
            offered=bool(body) and not request.body,
            pause_ns=timing.t1_ns,
            resend_ns=now_ns + timing.t1_ns,
            give_up_ns=now_ns + timing.give_up_ns,
        )
        core.timers.set(waiting, waiting.deadline_ns())

    def abandon(self, transaction: ServerTransaction, status: int, now_ns: int, reason: str = "") -> None:
        """Give an open INVITE its last answer without asking the application, and tell it."""
        first = transaction.dialog is None or transaction.dialog.first == transaction.id
        self.answer(transaction, status, now_ns)
        if first:
            self._core.outputs.append(CallCancelled(transaction.id, _printable(reason)))

    def refuse_pending(self, dialog: Dialog, except_id: TransactionId | None, now_ns: int) -> None:
        """Answer 487 to what waits in a dialog that ends (section 15.1.2)."""
        for transaction_id in sorted(dialog.pending):
            transaction = self._core.by_id.get(transaction_id)
            if transaction is not None and transaction_id != except_id and transaction.pending:
                self.answer(transaction, 487, now_ns)

    def bye(self, dialog: Dialog, now_ns: int) -> None:
        """End a dialog from our side, now."""
        self.refuse_pending(dialog, None, now_ns)
        self._client.bye(dialog, now_ns)

    # Time

    def wake(self, transaction: ServerTransaction, now_ns: int) -> None:
        """Run the timers of a transaction that are due."""
        core = self._core
        while (event := transaction.due(now_ns)) is not None:
            effects = core.step(transaction, event, now_ns)
            if Do.EXPIRED not in effects:
                continue
            core.stats[f"expired_{event.value}"] += 1
            if event is On.R:
                self.abandon(transaction, transaction.late_status if transaction.tag else 500, now_ns)
            elif event is On.P and transaction.dialog is not None:
                transaction.dialog.pending.discard(transaction.id)
                transaction.dialog.offers.discard(transaction.id)
                if transaction.request.method == "BYE":
                    core.drop_dialog(transaction.dialog)
        core.settle(transaction)

    def resend(self, waiting: Unacknowledged, now_ns: int) -> None:
        """Send a 2xx again, or give up the call when its ACK has not come in 64*T1 (section 13.3.1.4)."""
        core = self._core
        if now_ns >= waiting.give_up_ns:
            core.stats["expired_2xx"] += 1
            core.outputs.append(CallNotConfirmed(waiting.dialog.id))
            self.bye(waiting.dialog, now_ns)
            return
        core.transmit(waiting.data, waiting.flow)
        waiting.pause_ns = min(2 * waiting.pause_ns, core.settings.timing.t2_ns)
        waiting.resend_ns = now_ns + waiting.pause_ns
        core.timers.set(waiting, waiting.deadline_ns())

    # Small parts

    def _open_new(self, request: Request, flow: Flow, now_ns: int) -> ServerTransaction | None:
        """Open the transaction of a request that the application may answer; None when there are too many already."""
        core = self._core
        if core.load() >= core.settings.max_transactions:
            self.refuse(request, flow, Refusal(503, (("Retry-After", str(core.settings.retry_after_s)),)))
            return None
        transaction = self.open(request, flow, now_ns)
        transaction.tag = core.token()
        return transaction

    def open(self, request: Request, flow: Flow, now_ns: int, dialog: Dialog | None = None) -> ServerTransaction:
        core = self._core
        table = SERVER_INVITE if request.method == "INVITE" else SERVER_OTHER
        reply = self._reply_flow(request, flow)
        timing = core.settings.timing
        transaction = ServerTransaction(table, request, echo_of(request, flow), reply, timing, now_ns)
        transaction.id = TransactionId(core.next_id())
        transaction.key = transaction_key(request, request.method)
        transaction.dialog = dialog
        core.server[transaction.key] = transaction
        core.by_id[transaction.id] = transaction
        if dialog is not None:
            dialog.pending.add(transaction.id)
        core.settle(transaction)
        return transaction

    def refuse(self, request: Request, flow: Flow, answer: Refusal, lines: str = "") -> None:
        """Answer without keeping anything (section 8.2.7)."""
        echo: Echo = echo_of(request, flow)
        tag = "" if echo.tagged else self._stateless_tag(request)
        data = build_response(echo, answer.status, tag=tag, lines=lines + self._server_line, fields=answer.fields)
        shorter = functools.partial(build_response, echo, answer.status, tag=tag, fields=answer.fields)
        self._reply(request, flow, answer.status, data, shorter)

    def _reply(self, request: Request, flow: Flow, status: int, data: bytes, shorter: Callable[[], bytes]) -> None:
        """Send what keeps nothing. Nobody has proven to be at that address: it never gets much more than came from there."""
        core = self._core
        if not flow.reliable and len(data) > MAX_GAIN * core.asked_bytes:
            data = shorter()
            if len(data) > MAX_GAIN * core.asked_bytes:
                core.stats["unanswered_tiny"] += 1
                return
        core.stats[f"answered_{status}"] += 1
        core.transmit(data, self._reply_flow(request, flow))

    def _stateless_tag(self, request: Request) -> str:
        """Return a tag that is the same each time for the same request, and that nobody else can foretell."""
        parts = (request.get("via"), request.get("call-id"), request.get("from"), request.get("cseq"))
        text = "\n".join(parts).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, key=self._core.secret, digest_size=8).hexdigest()

    def flow_lost(self, flow: Flow) -> None:
        """Send answers to requests of a lost connection to where their Via says, by a new one (section 18.2.2)."""
        core = self._core
        for transaction in core.server.values():
            # Over UDP there is no connection to lose, and what has had its last answer knows no Via any more.
            if transaction.flow == flow and flow.reliable:
                port = transaction.request.via.port or (5061 if flow.transport == "TLS" else 5060)
                transaction.flow = Flow(flow.transport, (flow.remote[0], port), flow.local)
                waiting = transaction.dialog.unacknowledged if transaction.dialog is not None else None
                if waiting is not None and waiting.flow == flow:
                    waiting.flow = transaction.flow

    def _reply_flow(self, request: Request, flow: Flow) -> Flow:
        """Return where the answer goes: back, except for the setting that RFC 3261 section 18.2.2 has as its rule."""
        via = request.via
        if flow.reliable or not self._core.settings.answer_to_sent_by or "rport" in via.params:
            return flow
        return Flow(flow.transport, (flow.remote[0], via.port or 5060), flow.local)


def _crosses(dialog: Dialog, request: Request) -> bool:
    """Tell whether an offer of the peer meets one of ours that is under way (RFC 3261 14.2, RFC 3311 section 5.2)."""
    ours = dialog.offer
    if ours is None or ours.retry_ns is not None:
        return False
    if request.method == "INVITE":
        return ours.method == "INVITE" or bool(ours.body)
    return bool(request.body) and bool(ours.body)


def _printable(text: str) -> str:
    return "".join(mark if mark.isprintable() else "?" for mark in text)[:120]
