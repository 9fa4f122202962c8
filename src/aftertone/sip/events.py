"""What an agent hands out: bytes to send, and what happened.

Owns: the values. Refuses to know: who acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response

TransactionId = NewType("TransactionId", int)
"""Names a request of a peer while it waits for our answer; never used twice by one agent."""
CallId = NewType("CallId", int)
"""Names a call that we placed; never used twice by one agent."""
SubscriptionId = NewType("SubscriptionId", int)
"""Names a subscription of a peer; never used twice by one agent."""
RequestId = NewType("RequestId", int)
"""Names a request of ours outside every call; never used twice by one agent."""


@dataclass(frozen=True, slots=True)
class DialogId:
    """Names a dialog (RFC 3261 section 12)."""

    call_id: str
    local_tag: str
    remote_tag: str


@dataclass(frozen=True, slots=True)
class Transmit:
    """Bytes to send over a flow, whole and in order."""

    data: bytes
    flow: Flow


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """A new INVITE; 100 Trying has been sent. Answer with ``Agent.respond``.

    ``dialog_id`` names the dialog that a 2xx will confirm; a failure leaves none.
    """

    transaction_id: TransactionId
    request: Request
    flow: Flow
    dialog_id: DialogId


@dataclass(frozen=True, slots=True)
class CallCancelled:
    """The caller gave up (CANCEL or early BYE), or nobody answered within the ring limit; the INVITE has its answer.

    It may come after a 2xx was handed to ``Agent.respond``, when that still waited for a PRACK.
    """

    transaction_id: TransactionId
    reason: str = ""
    """The Reason header of the caller's CANCEL or BYE (RFC 3326)."""


@dataclass(frozen=True, slots=True)
class ProvisionalConfirmed:
    """A reliable provisional answer of ours has arrived. ``body``: an answer, when ours was an offer (RFC 3262)."""

    dialog_id: DialogId
    transaction_id: TransactionId
    body: bytes


@dataclass(frozen=True, slots=True)
class CallConfirmed:
    """The 2xx to the first INVITE is acknowledged. ``body``: what came with the ACK, an answer when our 2xx offered."""

    dialog_id: DialogId
    body: bytes


@dataclass(frozen=True, slots=True)
class CallNotConfirmed:
    """No ACK came for a 2xx of ours within 64*T1; BYE has been sent and ByeFinished follows."""

    dialog_id: DialogId


@dataclass(frozen=True, slots=True)
class DialogEnded:
    """The peer sent BYE. Nothing is answered until ``Agent.respond``, which may wait for what must be durable first.

    It may come without CallConfirmed before it, when the ACK is lost or late. After 64*T1 the peer waits no more, and the
    dialog is forgotten without an answer.
    """

    dialog_id: DialogId
    transaction_id: TransactionId
    request: Request


@dataclass(frozen=True, slots=True)
class ReofferReceived:
    """A new offer of the peer (re-INVITE, UPDATE, or PRACK): new media, hold. Answer with ``Agent.respond``.

    A re-INVITE without a body asks for an offer of ours. An UPDATE without one is only a refresh and is not told.
    """

    dialog_id: DialogId
    transaction_id: TransactionId
    request: Request


@dataclass(frozen=True, slots=True)
class ReofferConfirmed:
    """The 2xx to a re-INVITE is acknowledged; ``body`` is an answer when our 2xx offered."""

    dialog_id: DialogId
    transaction_id: TransactionId
    body: bytes


@dataclass(frozen=True, slots=True)
class ReofferAnswered:
    """A re-INVITE or UPDATE of ours was accepted: ``response.body`` answers ``offer``, which holds from now on."""

    dialog_id: DialogId
    response: Response
    offer: bytes
    wished: bool
    """False for a refresh, whose offer is the description that held before."""


@dataclass(frozen=True, slots=True)
class ReofferFailed:
    """``Agent.reoffer`` came to nothing; the session is as it was (RFC 6141)."""

    dialog_id: DialogId
    status: int


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """Nobody refreshed the session, or the peer no longer knows it; BYE has been sent and ByeFinished follows."""

    dialog_id: DialogId


@dataclass(frozen=True, slots=True)
class RequestInDialog:
    """Another request inside a call, such as INFO with a digit. Answer with ``Agent.respond``."""

    dialog_id: DialogId
    transaction_id: TransactionId
    request: Request


@dataclass(frozen=True, slots=True)
class ByeFinished:
    """Our BYE is over and the dialog gone. ``status``: what the peer answered, None when it did not answer."""

    dialog_id: DialogId
    status: int | None


@dataclass(frozen=True, slots=True)
class CallProgress:
    """A provisional response to a call of ours (180 and the like; 100 is not told)."""

    call: CallId
    status: int
    response: Response
    dialog_id: DialogId | None = None
    """The early dialog, when the response makes one."""


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """A call of ours was answered. The ACK has been sent, unless our INVITE had no body: then ``Agent.acknowledge``."""

    call: CallId
    dialog_id: DialogId
    response: Response


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call of ours ended unanswered. ``status``: the peer's, 408 without an answer, 487 when we cancelled."""

    call: CallId
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """The final response to a request of ours outside every call, whatever its status."""

    request: RequestId
    response: Response


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """No answer came to such a request. ``status``: 408 within 64*T1, 503 when its connection was lost or never opened."""

    request: RequestId
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class FlowLost:
    """A connection is gone, or could not be opened."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class RequestOutside:
    """A REGISTER: a request outside every call that the application answers, with ``Agent.respond``."""

    transaction_id: TransactionId
    request: Request
    flow: Flow


@dataclass(frozen=True, slots=True)
class SubscriptionAsked:
    """A new SUBSCRIBE for a package of ours. ``Agent.accept_subscription`` grants it, ``Agent.respond`` refuses it."""

    transaction_id: TransactionId
    request: Request
    flow: Flow


@dataclass(frozen=True, slots=True)
class SubscriptionEnded:
    """A subscription is over: by its subscriber, by its time, by a NOTIFY that failed, or by us."""

    subscription: SubscriptionId


Event = (
    IncomingCall
    | CallCancelled
    | ProvisionalConfirmed
    | CallConfirmed
    | CallNotConfirmed
    | DialogEnded
    | ReofferReceived
    | ReofferConfirmed
    | ReofferAnswered
    | ReofferFailed
    | SessionExpired
    | RequestInDialog
    | ByeFinished
    | CallProgress
    | CallAnswered
    | CallFailed
    | RequestAnswered
    | RequestFailed
    | FlowLost
    | RequestOutside
    | SubscriptionAsked
    | SubscriptionEnded
)
Output = Transmit | Event
