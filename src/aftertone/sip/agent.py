"""The user agent: the one face of this package.

Owns: the contract with the shell (bytes, time and deadlines) and with the application (events and commands). Refuses to
know: sockets, clocks, randomness, mailboxes, media.

Specification: RFC 3261 with the others that the package names.

Theory of operation: five calls are the whole of it. ``receive`` takes one message, ``advance`` takes the time,
``deadline_ns`` says when to call it next, ``outputs`` drains what is to be sent and what happened, and the commands
(``respond``, ``bye``, ``invite`` ...) act for the application. After any of them, drain ``outputs`` and ask for the
deadline again. All calls must come from one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aftertone.errors import UsageError
from aftertone.sip.budgets import Guard
from aftertone.sip.builder import Fields
from aftertone.sip.checks import Door
from aftertone.sip.client import ClientSide, live_dialog
from aftertone.sip.core import ClientTransaction, Core, ServerTransaction
from aftertone.sip.dialog import Phase, Unacknowledged
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.events import CallId, DialogId, FlowLost, Output, RequestId, SubscriptionId, TransactionId
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, parse, salvage
from aftertone.sip.outside import Asking
from aftertone.sip.own_offers import OwnOffer
from aftertone.sip.proof import Login, Proof
from aftertone.sip.reliable import Unpracked
from aftertone.sip.scanners import scanner_of
from aftertone.sip.server import ServerSide
from aftertone.sip.session_timer import SessionTimer
from aftertone.sip.settings import AgentSettings
from aftertone.sip.subscriptions import Kept, Subscription, Subscriptions


@dataclass(frozen=True, slots=True)
class Held:
    """What an agent holds at a moment; all zero when every call is over and its timers have run."""

    server_transactions: int
    client_transactions: int
    dialogs: int
    calls_placed: int
    timers: int
    subscriptions: int = 0
    counted_calls: int = 0
    """Calls that the budgets of their sources count as open; one that stayed would keep its source out for ever."""


class Agent:
    """A user agent over any number of flows."""

    def __init__(self, settings: AgentSettings, entropy: Callable[[int], bytes], guard: Guard | None = None) -> None:
        """``entropy(n)`` returns n bytes that peers cannot foretell: ``os.urandom``, or a seeded source in tests.

        ``guard``: the budgets of new calls and registrations; without one there is no limit but the settings'. The shell
        asks it about each message before ``receive``.
        """
        self._core = Core(settings, entropy, guard)
        self._client = ClientSide(self._core)
        self._subscriptions = Subscriptions(self._core)
        self._server = ServerSide(self._core, self._client, self._subscriptions)

    def admit_by(self, door: Door, line_of: Callable[[Request, Flow], str] = lambda *_: "") -> None:
        """Ask ``door`` about every INVITE that would begin a call, before anything of it is kept.

        What it refuses is answered once, without a transaction: a copy of the request is asked about anew. ``line_of``: by which
        trunk, account or phone an INVITE came that was let in, for ``Guard.open_calls_by``; empty counts for none.
        """
        self._server.door, self._server.line_of = door, line_of

    def reach_by(self, reached: Callable[[Flow], Flow]) -> None:
        """Let ``reached`` say how a peer sees a flow of ours; our Contact towards it then names that address."""
        self._core.reached = reached

    # The shell

    def receive(self, data: bytes, flow: Flow, now_ns: int) -> None:
        """Take one datagram, or one message that a stream splitter cut out. Never raises, whatever the bytes.

        What is not SIP is counted in ``stats`` and ignored; what is a broken request is answered as far as it can be.
        """
        if len(data) < 8 and not data.strip(b"\r\n\0"):
            self._core.stats["keepalives"] += 1
            return
        message = None
        self._core.asked_bytes = len(data)
        try:
            message = parse(data, stream=flow.reliable)
            if isinstance(message, Request):
                if self._is_ignored(message, flow, now_ns):
                    return
                self._server.on_request(message, flow, now_ns)
            else:
                self._client.on_response(message, now_ns)
        except ParseError as error:
            self._core.stats["malformed"] += 1
            broken = message if isinstance(message, Request) and _has_via(message) else salvage(data)
            if broken is not None and not self._is_ignored(broken, flow, now_ns):
                self._server.on_garbage(broken, error, flow)
            elif broken is None:
                self._core.stats["dropped_malformed"] += 1

    def _is_ignored(self, request: Request, flow: Flow, now_ns: int) -> bool:
        if not self._core.settings.ignore_scanners or not scanner_of(request):
            return False
        self._core.guard.scanned(flow.remote[0], now_ns)
        return True

    def flow_lost(self, flow: Flow, now_ns: int, why: str = "the connection is lost") -> None:
        """Hear that a connection is gone: calls that came over it are reached at their Contact from now on.

        Requests of ours that wait for an answer over it end with 503 and ``why`` (RFC 3261 section 8.1.3.1).
        """
        self._core.stats["flows_lost"] += 1
        for dialog in self._core.dialogs.values():
            if dialog.flow == flow and not dialog.caller:
                dialog.flow = dialog.literal_flow()
        self._client.flow_lost(flow, now_ns, why)
        self._server.flow_lost(flow)
        self._subscriptions.flow_lost(flow)
        self._core.outputs.append(FlowLost(flow))

    def transport_failed(self, flow: Flow, now_ns: int, why: str) -> None:
        """Hear that ``flow`` could not be opened: requests that may go by UDP do, the others end with 503 at once.

        Spec: RFC 3261 sections 8.1.3.1 and 18.1.1.
        """
        self._client.send_by_datagram(flow, now_ns)
        self.flow_lost(flow, now_ns, why)

    def uses(self, flow: Flow) -> bool:
        """Return whether a call lives on ``flow``."""
        return any(dialog.flow == flow for dialog in self._core.dialogs.values())

    def deadline_ns(self) -> int | None:
        """Return when ``advance`` has something to do, or None."""
        return self._core.timers.next_ns()

    def advance(self, now_ns: int) -> None:
        """Run every timer that is due at ``now_ns``."""
        for item in self._core.timers.due(now_ns):
            if isinstance(item, Unacknowledged):
                self._server.resend(item, now_ns)
            elif isinstance(item, Unpracked):
                self._server.reliable.resend(item, now_ns)
            elif isinstance(item, OwnOffer):
                self._client.offers.wake(item, now_ns)
            elif isinstance(item, SessionTimer):
                self._client.offers.watch(item, now_ns)
            elif isinstance(item, ServerTransaction):
                self._server.wake(item, now_ns)
            elif isinstance(item, ClientTransaction):
                self._client.wake(item, now_ns)
            elif isinstance(item, Subscription):
                self._subscriptions.wake(item, now_ns)

    def outputs(self) -> list[Output]:
        """Return and forget what is to be sent and what happened, in order."""
        out, self._core.outputs = self._core.outputs, []
        return out

    @property
    def stats(self) -> Mapping[str, int]:
        """Counters by reason, from a fixed set of names; they only grow."""
        return self._core.stats

    def held(self) -> Held:
        """Return how much is alive."""
        core = self._core
        return Held(
            len(core.server),
            len(core.client),
            len(core.dialogs),
            len(self._client.legs),
            len(core.timers),
            len(self._subscriptions),
            core.guard.counted_calls,
        )

    # The application, answering

    def respond(
        self,
        transaction_id: TransactionId,
        status: int,
        *,
        reason: str = "",
        headers: Fields = (),
        body: bytes = b"",
        content_type: str = "",
        now_ns: int,
    ) -> None:
        """Answer a request that an event named.

        A 2xx to an INVITE is sent again until its ACK comes. A provisional answer is sent reliably when the caller requires
        that, or when it has a body and the caller supports it (RFC 3262); a 2xx waits until such a body has arrived. An answer that comes too late, because the caller gave up
        meanwhile, is counted and otherwise ignored: the two may cross. Raises UsageError when a header holds a line
        break, and ValueError for a status that is none.
        """
        if not 100 <= status <= 699:
            raise ValueError(f"{status} is no SIP status")
        self._server.respond(
            transaction_id,
            status,
            reason=reason,
            fields=headers,
            body=body,
            content_type=content_type,
            now_ns=now_ns,
        )

    def log_in(self, dialog_id: DialogId, login: Login) -> None:
        """Answer with ``login`` when a request of ours in a call is challenged (BYE, re-INVITE, UPDATE); see ``proof``.

        Without one, a challenge is a refusal. A call that is over is left alone. Spec: RFC 3261 section 22.
        """
        dialog = live_dialog(self._core, dialog_id)
        if dialog is not None:
            dialog.proof = Proof(login)

    def bye(self, dialog_id: DialogId, now_ns: int, *, reason: str = "") -> None:
        """End a call; ByeFinished follows. Before the ACK of our 2xx the BYE waits for it (RFC 3261 section 15).

        ``reason``: a Reason header (RFC 3326) such as ``Q.850;cause=16``. A dialog that is over already is left alone.
        """
        dialog = live_dialog(self._core, dialog_id)
        if dialog is None or dialog.phase is Phase.EARLY:
            if dialog is not None:
                self._server.reliable.withdraw(dialog, now_ns)
            else:
                self._core.stats["late_byes"] += 1
            return
        dialog.bye_fields = (("Reason", reason),) if reason else ()
        waiting = dialog.unacknowledged
        if waiting is None or dialog.confirmed:
            self._server.bye(dialog, now_ns)

    def reoffer(self, dialog_id: DialogId, body: bytes, content_type: str, now_ns: int) -> None:
        """Offer a new description in a call; ReofferAnswered or ReofferFailed follows, unless the call ends before.

        One offer is under way at a time: a later one waits, and replaces one that waits. Glare is tried again.
        Raises UsageError without a body, or with one of no type.
        """
        if not body or not content_type:
            raise UsageError("an offer needs a body and its type")
        dialog = live_dialog(self._core, dialog_id)
        if dialog is not None and dialog.phase is Phase.CONFIRMED:
            self._client.offers.wish(dialog, body, content_type, now_ns)

    # The application, calling

    def invite(
        self,
        target_uri: str,
        *,
        from_uri: str,
        display_name: str = "",
        body: bytes = b"",
        content_type: str = "",
        flow: Flow,
        headers: Fields = (),
        login: DigestClient | None = None,
        now_ns: int,
    ) -> CallId:
        """Place a call over ``flow``; CallAnswered or CallFailed follows exactly once, perhaps after CallProgress.

        ``login`` answers 401 and 407 (RFC 3261 section 22.2); without it they are failures.
        Without a body the peer makes the offer and ``acknowledge`` answers it. Raises ParseError for a malformed URI,
        UsageError for a header with a line break and BusyError beyond the limits.
        """
        return self._client.invite(
            target_uri,
            from_uri=from_uri,
            display_name=display_name,
            body=body,
            content_type=content_type,
            flow=flow,
            fields=headers,
            login=login,
            now_ns=now_ns,
        )

    def cancel(self, call: CallId, now_ns: int) -> None:
        """Give up a call that is not answered yet; CallFailed follows. Does nothing for one that is over."""
        self._client.cancel(call, now_ns)

    def acknowledge(self, dialog_id: DialogId, body: bytes, content_type: str, now_ns: int) -> None:
        """Answer the offer that came in the 2xx to an INVITE of ours without a body, or in a reliable 18x before it.

        The answer goes out with the ACK, or with the PRACK.
        """
        dialog = live_dialog(self._core, dialog_id)
        if dialog is not None:
            self._client.acknowledge(dialog, body, content_type, now_ns)

    # The application, telling those who subscribed

    def accept_subscription(self, transaction_id: TransactionId, body: bytes, now_ns: int) -> SubscriptionId | None:
        """Grant what SubscriptionAsked asked: 200, then ``body`` as the present state; SubscriptionEnded follows some time.

        None when the answer comes too late. Spec: RFC 6665 section 4.2.1.
        """
        return self._server.accept_subscription(transaction_id, body, now_ns)

    def notify(self, subscription_id: SubscriptionId, body: bytes, now_ns: int, *, again: bool = False) -> None:
        """Let a subscriber know of a new state, unless it is the one that it knows; at most once a second.

        One NOTIFY is under way at a time; a state that waits is replaced by a newer one. Does nothing for a subscription
        that is over. ``again``: also when it knows it already. Spec: RFC 6665 section 4.2.2.
        """
        self._subscriptions.set_state(subscription_id, body, now_ns, again=again)

    def keep(self, subscription_id: SubscriptionId) -> Kept | None:
        """Return what another process needs to go on with a subscription, None when it is over."""
        return self._subscriptions.keep(subscription_id)

    def resume(self, kept: Kept, body: bytes, now_ns: int) -> SubscriptionId | None:
        """Go on with a subscription of an earlier process and tell its state at once; None for one that is over.

        CSeq goes on ``CSEQ_JUMP`` higher than was kept; should the subscriber know nothing of it, its 481 ends it.
        """
        return self._subscriptions.resume(kept, body, now_ns)

    def end_subscription(self, subscription_id: SubscriptionId, reason: str, now_ns: int) -> None:
        """End a subscription with a last NOTIFY; ``reason`` is one of RFC 6665 section 4.1.3, such as ``noresource``."""
        self._subscriptions.end(subscription_id, reason, now_ns)

    # The application, asking outside calls

    def request(
        self,
        method: str,
        target_uri: str,
        *,
        from_uri: str,
        to_uri: str | None = None,
        flow: Flow,
        route: Sequence[str] = (),
        headers: Fields = (),
        body: bytes = b"",
        content_type: str = "",
        call_id: str = "",
        from_tag: str = "",
        cseq: int = 0,
        now_ns: int,
    ) -> RequestId:
        """Send a request that belongs to no call (REGISTER, OPTIONS, NOTIFY, MESSAGE ...) over ``flow``.

        RequestAnswered or RequestFailed follows exactly once. ``to_uri``: what To names, when it is not the target;
        ``route``: URIs of the proxies to pass, nearest first. ``call_id``, ``from_tag``, ``cseq``: to go on with an earlier
        exchange; without them new ones are made. Contact is the caller's to add. Raises ParseError for a malformed URI,
        UsageError for a header with a line break, a method of calls or a CSeq out of range, and BusyError beyond the limits.
        """
        asking = Asking(
            method,
            target_uri,
            from_uri,
            to_uri or target_uri,
            tuple(route),
            tuple(headers),
            body,
            content_type,
            call_id,
            from_tag,
            cseq,
        )
        return self._client.request(asking, flow, now_ns)


def _has_via(request: Request) -> bool:
    try:
        return request.via is not None
    except ParseError:
        return False
