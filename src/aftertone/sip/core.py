"""The tables that both halves of a user agent share.

Owns: live transactions and dialogs, the queue of deadlines, what is to go out, and the counters. Refuses to know: what a
request means.

Theory of operation: every object that waits has one entry in ``timers``; ``settle`` keeps that entry true after each
step and forgets what is over. So when all calls have ended and their timers have run, every table is empty: the
simulation checks it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final

from aftertone.sip.budgets import Guard, Limits
from aftertone.sip.builder import NO_ECHO, Echo, Fields
from aftertone.sip.dialog import Dialog
from aftertone.sip.events import DialogId, Output, TransactionId, Transmit
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response
from aftertone.sip.settings import AgentSettings, Timing
from aftertone.sip.timers import Timers
from aftertone.sip.transaction import Do, On, State, Table, Transaction

TransactionKey = tuple[str, ...]

COOKIE: Final = "z9hG4bK"
"""What the branch of every RFC 3261 peer begins with."""


class ServerTransaction(Transaction):
    """A request of a peer."""

    __slots__ = ("dialog", "echo", "id", "key", "late_status", "merge_key", "request", "tag")

    def __init__(self, table: Table, request: Request, echo: Echo, flow: Flow, timing: Timing, now_ns: int) -> None:
        super().__init__(table, flow, timing, now_ns)
        self.request = request
        self.echo = echo
        self.id = TransactionId(0)
        self.key: TransactionKey = ()
        self.merge_key: TransactionKey | None = None
        self.tag = ""
        self.late_status = 480
        """What an INVITE gets that rang too long."""
        self.dialog: Dialog | None = None

    def rest(self) -> None:
        """Forget what only an open transaction needs. From now on it meets copies with its last message, for half a minute: at a
        thousand calls a second that is most of what an agent holds."""
        # A PRACK that comes late still asks for the number.
        self.request = Request(self.request.method, "", {"cseq": self.request.headers["cseq"]})
        self.echo = NO_ECHO
        self.dialog = None


class Waiting:
    """Somebody who waits for the answer to a request of ours. Identity is equality, so that it can be a key."""

    __slots__ = ()

    def answered(self, response: Response, now_ns: int) -> None:
        """Take the final response."""
        raise NotImplementedError

    def unanswered(self, now_ns: int) -> None:
        """Hear that none came in time."""
        raise NotImplementedError


class ClientTransaction(Transaction):
    """A request of ours. ``user``: the call or dialog that it belongs to, or None when nobody waits for the answer.

    ``datagram``: what is sent instead, and where, when the TCP connection for a large request cannot be opened. ``said``: what
    the request said of who we are.
    """

    __slots__ = ("datagram", "key", "said", "user")

    def __init__(
        self, table: Table, key: TransactionKey, user: object, data: bytes, flow: Flow, timing: Timing, now_ns: int
    ) -> None:
        super().__init__(table, flow, timing, now_ns, data)
        self.key = key
        self.user = user
        self.datagram: tuple[bytes, Flow] | None = None
        self.said: Fields = ()


class Core:
    """State without behaviour of its own; see the module."""

    def __init__(self, settings: AgentSettings, entropy: Callable[[int], bytes], guard: Guard | None = None) -> None:
        self.settings: Final = settings
        self.guard: Final = guard if guard is not None else Guard(Limits())
        self.stats: Final[Counter[str]] = Counter()
        self.timers: Final[Timers[Hashable]] = Timers()
        self.server: Final[dict[TransactionKey, ServerTransaction]] = {}
        self.by_id: Final[dict[TransactionId, ServerTransaction]] = {}
        self.merged: Final[dict[TransactionKey, TransactionKey]] = {}
        self.client: Final[dict[TransactionKey, ClientTransaction]] = {}
        self.dialogs: Final[dict[DialogId, Dialog]] = {}
        self.outputs: list[Output] = []
        self.reached: Callable[[Flow], Flow] = lambda flow: flow
        """The flow as its peer sees it: what our Contact must say behind a NAT."""
        self.hang_up: Callable[[Dialog, int], None]
        """Ends a dialog from our side; the answering half sets it, which alone knows what is open."""
        self.secret: Final = entropy(16)
        self.asked_bytes = 0
        """Length of the message that is being taken."""
        self._entropy = entropy
        self._last_id = 0

    def transmit(self, data: bytes, flow: Flow) -> None:
        """Send ``data`` over ``flow``."""
        self.outputs.append(Transmit(data, flow))

    def next_id(self) -> int:
        """Return a number that this agent has not used."""
        self._last_id += 1
        return self._last_id

    def token(self) -> str:
        """Return 64 bits of entropy as text, for tags, branches and Call-IDs (section 19.3 asks for 32)."""
        return self._entropy(8).hex()

    def small_number(self, limit: int) -> int:
        """Return a random number from 0 to ``limit``."""
        return int.from_bytes(self._entropy(4), "big") % (limit + 1)

    def load(self) -> int:
        """Return the number of live transactions."""
        return len(self.server) + len(self.client)

    def step(self, transaction: Transaction, event: On, now_ns: int) -> tuple[Do, ...]:
        """Move a machine, send what it wants sent, keep its deadline; return the effects for the caller to look at."""
        effects = transaction.handle(event, now_ns)
        for effect in effects:
            if effect is Do.SEND and transaction.last:
                self.transmit(transaction.last, transaction.flow)
            elif effect is Do.ACK:
                self.transmit(transaction.ack, transaction.flow)
        self.settle(transaction)
        return effects

    def settle(self, transaction: Transaction) -> None:
        """Keep the deadline of a transaction true, or forget it when it is over."""
        if transaction.state is not State.TERMINATED:
            self.timers.set(transaction, transaction.deadline_ns())
            return
        self.timers.set(transaction, None)
        if isinstance(transaction, ServerTransaction):
            self.server.pop(transaction.key, None)
            self.by_id.pop(transaction.id, None)
            if transaction.merge_key is not None:
                self.merged.pop(transaction.merge_key, None)
        elif isinstance(transaction, ClientTransaction):
            self.client.pop(transaction.key, None)

    def drop_dialog(self, dialog: Dialog) -> None:
        """Forget a dialog and whatever it is waiting for."""
        if self.dialogs.pop(dialog.id, None) is not None and dialog.counted is not None:
            self.guard.ended(dialog.counted, confirmed=dialog.confirmed)
        self.quiet(dialog)

    def quiet(self, dialog: Dialog) -> None:
        """Nothing happens of itself in this dialog any more: it is being left."""
        self.stop_resending(dialog)
        waiting = dialog.provisionals.waiting if dialog.provisionals is not None else None
        for item in (waiting, dialog.session, dialog.offer):
            if item is not None:
                self.timers.set(item, None)
        dialog.wish = dialog.offer = dialog.session = None

    def stop_resending(self, dialog: Dialog) -> None:
        """The ACK came, or nobody needs it any more."""
        if dialog.unacknowledged is not None:
            self.timers.set(dialog.unacknowledged, None)
            dialog.unacknowledged = None
