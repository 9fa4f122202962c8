"""Those who asked to be told: the notifier's half of event subscriptions.

Owns: subscriptions, their expiry, and the NOTIFY requests inside them. Refuses to know: who may subscribe, and what the
bodies say; the application decides the one and writes the other.

Specification: RFC 6665 sections 4.2 and 4.4, RFC 3842 section 3 for the one package that we have.

Theory of operation: a subscription is a dialog with an end. It has one newest state; at most one NOTIFY is under way, and
whatever becomes new meanwhile waits as that state, so that states that nobody saw are skipped and what arrives last is what
holds. Changes are told at most once a second; an accepted or refreshed SUBSCRIBE is answered by the
present state at once. A subscription ends with a terminating NOTIFY, or when a NOTIFY fails; each has at most one deadline
in the agent's queue, so none can be forgotten.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from aftertone.sip import mwi
from aftertone.sip.builder import Fields, contact_uri
from aftertone.sip.checks import Refusal
from aftertone.sip.core import COOKIE, ClientTransaction, Core, ServerTransaction, Waiting
from aftertone.sip.dialog import Dialog, dialog_from_request
from aftertone.sip.events import DialogId, SubscriptionEnded, SubscriptionId
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.headers import parse_media_type, parse_number, parse_params
from aftertone.sip.message import Request, Response
from aftertone.sip.settings import SECOND_NS
from aftertone.sip.transaction import CLIENT_OTHER

BODIES: Final = {mwi.PACKAGE: mwi.CONTENT_TYPE}
"""The packages that we can notify of, and how."""
MIN_EXPIRES_S: Final = 60
"""Shorter ones would cost more in refreshing than they tell."""
DEFAULT_EXPIRES_S: Final = 3600
"""RFC 3842 section 3.4."""
MAX_EXPIRES_S: Final = 86_400
PACE_NS: Final = SECOND_NS
"""Between two NOTIFYs about changes: a phone has only one lamp."""
CSEQ_JUMP: Final = 100
"""More NOTIFYs than an earlier process can have sent after it was last asked what to keep."""
MAX_RETRY_AFTER_S: Final = 600
"""A subscriber that asks for more peace than this is told again after it."""


@dataclass(eq=False, slots=True)
class Subscription(Waiting):
    """One subscriber and what it is to know."""

    id: SubscriptionId
    owner: Subscriptions
    dialog: Dialog
    event: str
    """The value of Event, with the id that the subscriber gave it."""
    content_type: str
    user: str
    source: str
    expires_ns: int
    body: bytes
    ending: str = ""
    """Why it is over; the NOTIFY that says so is the last one."""
    stale: bool = True
    """The newest state has not been sent yet."""
    next_ns: int = 0
    """Not before this is a state sent."""
    under_way: ClientTransaction | None = field(default=None, repr=False)

    def deadline_ns(self) -> int | None:
        """Return when something is to be done next; None while an answer must come first."""
        waits = self.stale and self.under_way is None
        if self.ending:
            return self.next_ns if waits else None
        return min(self.expires_ns, self.next_ns) if waits else self.expires_ns

    def answered(self, response: Response, now_ns: int) -> None:
        """Take the final response to the NOTIFY under way."""
        self.owner.notified(self, response, now_ns)

    def unanswered(self, now_ns: int) -> None:
        """Hear that no response came in time."""
        self.owner.notified(self, None, now_ns)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be known of a subscription to go on with it in another process."""

    id: DialogId
    local: str
    remote: str
    routes: tuple[str, ...]
    target: str
    flow: Flow
    local_cseq: int
    remote_cseq: int
    event: str
    user: str
    expires_ns: int


class Subscriptions:
    """All subscriptions of one agent."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._all: dict[SubscriptionId, Subscription] = {}
        self._by_dialog: dict[DialogId, Subscription] = {}
        self._sources: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    # SUBSCRIBE

    def look(self, request: Request, flow: Flow) -> tuple[Subscription | None, Refusal | None]:
        """Return the subscription that a SUBSCRIBE refreshes, if any, and how to refuse it, None to serve it.

        Raises ParseError for headers that cannot be read.
        """
        settings, (event, package) = self._core.settings, event_of(request)
        body_type = BODIES.get(package)
        if body_type is None:
            return None, Refusal(489, (("Allow-Events", ", ".join(BODIES)),))
        known = None
        if request.to.tag:
            known = self._by_dialog.get(DialogId(request.call_id, request.to.tag, request.from_.tag))
            if known is None or known.ending:
                return None, Refusal(481)
            if known.event != event:
                # One dialog, one subscription (RFC 6665 section 4.5.2).
                return None, Refusal(403)
        wanted = {parse_media_type(value)[0] for value in request.all("accept")}
        if wanted and not {body_type, body_type.partition("/")[0] + "/*", "*/*"} & wanted:
            return None, Refusal(406, (("Accept", body_type),))
        if 0 < expires_of(request) < MIN_EXPIRES_S:
            return None, Refusal(423, (("Min-Expires", str(MIN_EXPIRES_S)),))
        full = len(self._all) >= settings.max_subscriptions
        full = full or self._sources[flow.remote[0]] >= settings.max_subscriptions_per_source
        if known is None and full:
            return None, Refusal(503, (("Retry-After", str(settings.retry_after_s)),))
        if known is not None and not known.dialog.in_order(request.cseq.number):
            return None, Refusal(500)
        return known, None

    def answer_fields(self, transaction: ServerTransaction) -> Fields:
        """Return what the 200 says of the subscription (RFC 6665 section 4.2.1.1)."""
        request = transaction.request
        return (("Expires", str(granted_s(request))), self._contact(transaction.flow, request.target.user))

    def begin(self, transaction: ServerTransaction, body: bytes, now_ns: int) -> SubscriptionId:
        """Start what a new SUBSCRIBE asked for and tell the present state; the 200 has been sent."""
        core, request, flow = self._core, transaction.request, transaction.flow
        event, package = event_of(request)
        dialog = dialog_from_request(request, transaction.tag, flow, core.small_number(2**16), transaction.id)
        subscription = Subscription(
            id=SubscriptionId(core.next_id()),
            owner=self,
            dialog=dialog,
            event=event,
            content_type=BODIES[package],
            user=request.target.user,
            source=flow.remote[0],
            expires_ns=0,
            body=body,
        )
        self._keep(subscription)
        self.refresh(subscription, request, flow, now_ns)
        return subscription.id

    def refresh(self, subscription: Subscription, request: Request, flow: Flow, now_ns: int) -> None:
        """Move the end on, or to now, and tell the present state; the 200 has been sent."""
        dialog, seconds = subscription.dialog, granted_s(request)
        dialog.flow = flow
        if request.contact is not None:
            dialog.target = request.contact.uri
        subscription.expires_ns = now_ns + seconds * SECOND_NS
        if not seconds:
            subscription.ending = "timeout"
        self._tell(subscription, now_ns)

    # The application

    def set_state(self, subscription_id: SubscriptionId, body: bytes, now_ns: int, *, again: bool) -> None:
        """Let a subscriber know of a new state; see ``Agent.notify``."""
        subscription = self._all.get(subscription_id)
        if subscription is None or subscription.ending or (subscription.body == body and not again):
            return
        subscription.body, subscription.stale = body, True
        self.wake(subscription, now_ns)

    def end(self, subscription_id: SubscriptionId, reason: str, now_ns: int) -> None:
        """End a subscription with a last NOTIFY; see ``Agent.end_subscription``."""
        subscription = self._all.get(subscription_id)
        if subscription is not None and not subscription.ending:
            subscription.ending = reason
            self._tell(subscription, now_ns)

    def keep(self, subscription_id: SubscriptionId) -> Kept | None:
        """Return what another process needs to go on with a subscription, None when it is over."""
        subscription = self._all.get(subscription_id)
        if subscription is None or subscription.ending:
            return None
        dialog = subscription.dialog
        return Kept(
            id=dialog.id,
            local=dialog.local,
            remote=dialog.remote,
            routes=dialog.routes,
            target=dialog.target,
            flow=dialog.flow,
            local_cseq=dialog.local_cseq,
            remote_cseq=dialog.remote_cseq or 0,
            event=subscription.event,
            user=subscription.user,
            expires_ns=subscription.expires_ns,
        )

    def resume(self, kept: Kept, body: bytes, now_ns: int) -> SubscriptionId | None:
        """Go on with a subscription of an earlier process; see ``Agent.resume``."""
        package = kept.event.partition(";")[0]
        full = len(self._all) >= self._core.settings.max_subscriptions
        if full or kept.id in self._by_dialog or package not in BODIES or kept.expires_ns <= now_ns:
            return None
        dialog = Dialog(
            kept.id, kept.local, kept.remote, kept.routes, kept.target, kept.flow, False,
            kept.local_cseq + CSEQ_JUMP, kept.remote_cseq,
        )  # fmt: skip
        if kept.flow.reliable:
            # The connection went with the process that had it.
            dialog.flow = dialog.literal_flow()
        subscription = Subscription(
            id=SubscriptionId(self._core.next_id()),
            owner=self,
            dialog=dialog,
            event=kept.event,
            content_type=BODIES[package],
            user=kept.user,
            source=kept.flow.remote[0],
            expires_ns=kept.expires_ns,
            body=body,
        )
        self._keep(subscription)
        self._tell(subscription, now_ns)
        return subscription.id

    # What happens to it

    def wake(self, subscription: Subscription, now_ns: int) -> None:
        """Do what is due: the end of its time, or a state that has waited long enough."""
        if not subscription.ending and now_ns >= subscription.expires_ns:
            subscription.ending = "timeout"
            self._tell(subscription, now_ns)
        elif subscription.stale and subscription.under_way is None and now_ns >= subscription.next_ns:
            self._send(subscription, now_ns)
        self._settle(subscription)

    def notified(self, subscription: Subscription, response: Response | None, now_ns: int) -> None:
        """Take the end of a NOTIFY: its final response, or None when there was none (RFC 6665 section 4.2.2)."""
        subscription.under_way = None
        if subscription.id not in self._all:
            return
        if response is not None and 200 <= response.status < 300:
            if subscription.ending and not subscription.stale:
                self._drop(subscription)
                return
        elif response is None or response.status == 481 or "retry-after" not in response.headers or subscription.ending:
            self._core.stats["subscriptions_failed"] += not subscription.ending
            self._drop(subscription)
            return
        else:
            subscription.stale = True
            subscription.next_ns = now_ns + _retry_after_s(response) * SECOND_NS
        self.wake(subscription, now_ns)

    def flow_lost(self, flow: Flow) -> None:
        """Reach the subscribers of a connection that is gone at their Contact, with what was under way there."""
        for subscription in list(self._all.values()):
            dialog = subscription.dialog
            if dialog.flow != flow:
                continue
            dialog.flow = dialog.literal_flow()
            under_way = subscription.under_way
            if under_way is None or not under_way.pending:
                continue
            under_way.terminate()
            self._core.settle(under_way)
            subscription.under_way = None
            if dialog.flow == flow:
                # Its Contact is a name, or the end of this very connection: nobody is there any more.
                self._drop(subscription)
            else:
                subscription.stale = True
                self._settle(subscription)

    # Small parts

    def _tell(self, subscription: Subscription, now_ns: int) -> None:
        """Send the present state as soon as nothing is under way."""
        subscription.stale, subscription.next_ns = True, now_ns
        if subscription.under_way is None:
            self._send(subscription, now_ns)
        self._settle(subscription)

    def _send(self, subscription: Subscription, now_ns: int) -> None:
        core, dialog = self._core, subscription.dialog
        left_s = -((now_ns - subscription.expires_ns) // SECOND_NS)
        state = f"terminated;reason={subscription.ending}" if subscription.ending else f"active;expires={left_s}"
        flow = dialog.next_flow()
        branch = COOKIE + core.token()
        data = dialog.request(
            "NOTIFY",
            branch,
            fields=(
                ("Event", subscription.event),
                ("Subscription-State", state),
                self._contact(flow, subscription.user),
            ),
            body=subscription.body,
            content_type=subscription.content_type if subscription.body else "",
            user_agent=core.settings.user_agent,
        )
        transaction = ClientTransaction(
            CLIENT_OTHER, (branch, "NOTIFY"), subscription, data, flow, core.settings.timing, now_ns
        )
        core.client[transaction.key] = transaction
        core.transmit(data, flow)
        core.settle(transaction)
        core.stats["notifies_sent"] += 1
        subscription.under_way, subscription.stale = transaction, False
        subscription.next_ns = now_ns + PACE_NS

    def _contact(self, flow: Flow, user: str) -> tuple[str, str]:
        return "Contact", f"<{contact_uri(self._core.reached(flow), self._core.settings.user or user)}>"

    def _keep(self, subscription: Subscription) -> None:
        self._all[subscription.id] = self._by_dialog[subscription.dialog.id] = subscription
        self._sources[subscription.source] += 1

    def _settle(self, subscription: Subscription) -> None:
        if subscription.id in self._all:
            self._core.timers.set(subscription, subscription.deadline_ns())

    def _drop(self, subscription: Subscription) -> None:
        del self._all[subscription.id], self._by_dialog[subscription.dialog.id]
        self._sources[subscription.source] -= 1
        if not self._sources[subscription.source]:
            del self._sources[subscription.source]
        self._core.timers.set(subscription, None)
        self._core.outputs.append(SubscriptionEnded(subscription.id))


def event_of(request: Request) -> tuple[str, str]:
    """Return the value of Event as it is repeated in a NOTIFY (package and id alone), and the package."""
    package, semicolon, tail = request.required("event").partition(";")
    package = package.strip(" \t")
    name = parse_params(tail).get("id") if semicolon else None
    return (f"{package};id={name}" if name else package), package


def expires_of(request: Request) -> int:
    """Return how many seconds a SUBSCRIBE asks for; more than 2**32-1 is as much as that. Raises ParseError."""
    value = request.get("expires")
    if not value:
        return DEFAULT_EXPIRES_S
    if not value.isascii() or not value.isdigit():
        raise ParseError("Expires is no number of seconds")
    return parse_number(value, 2**32 - 1) if len(value.lstrip("0")) <= 9 else 2**32 - 1


def granted_s(request: Request) -> int:
    """Return how many seconds a SUBSCRIBE gets: what it asks for, at most ``MAX_EXPIRES_S``."""
    return min(expires_of(request), MAX_EXPIRES_S)


def _retry_after_s(response: Response) -> int:
    digits = response.get("retry-after").partition("(")[0].partition(";")[0].strip(" \t")
    asked = int(digits[:9]) if digits.isascii() and digits.isdigit() else MAX_RETRY_AFTER_S
    return min(max(asked, 1), MAX_RETRY_AFTER_S)
