"""Provisional answers that must arrive.

Owns: the order and the resending of our 18x to one INVITE, what a PRACK acknowledges, and the 2xx that waits for it. Refuses
to know: what the descriptions inside say.

Specification: RFC 3262 sections 3 and 5.

Theory of operation: a caller that requires ``100rel`` gets every 18x reliably; one that supports it gets those that carry a
description, because those alone must not be lost. One is under way at a time; what comes after it waits in line, the final 2xx
too as long as a description is unacknowledged. Without a PRACK for 64*T1 the INVITE is refused with 504, since whoever
cannot confirm a ring could not confirm an answer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypedDict

from aftertone.sip.builder import Fields
from aftertone.sip.checks import Refusal
from aftertone.sip.core import Core, ServerTransaction
from aftertone.sip.dialog import Dialog
from aftertone.sip.events import ByeFinished, ProvisionalConfirmed, ReofferReceived
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.headers import is_token, parse_number
from aftertone.sip.message import Request

if TYPE_CHECKING:
    from aftertone.sip.server import ServerSide

TAG: Final = "100rel"
MAX_QUEUED: Final = 4
"""Provisional answers that wait for the one before them; a ring more or less does not matter."""
MAX_RSEQ: Final = 2**31 - 1


class Parts(TypedDict):
    """What an answer has besides its status."""

    reason: str
    fields: Fields
    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the application."""

    status: int
    reason: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content_type: str = ""

    def parts(self) -> Parts:
        """Return all but the status."""
        return Parts(reason=self.reason, fields=self.fields, body=self.body, content_type=self.content_type)


@dataclass(eq=False, slots=True)
class Unpracked:
    """A reliable provisional answer that is sent again until its PRACK comes."""

    transaction: ServerTransaction
    rseq: int
    data: bytes
    flow: Flow
    described: bool
    offered: bool
    """Its description is an offer, so the PRACK owes an answer."""
    pause_ns: int
    resend_ns: int
    give_up_ns: int

    def deadline_ns(self) -> int:
        """Return when something is to be done next."""
        return min(self.resend_ns, self.give_up_ns)


@dataclass(eq=False, slots=True)
class Provisionals:
    """What one INVITE of a peer was answered reliably."""

    rseq: int
    """Number of the last one."""
    waiting: Unpracked | None = None
    queued: deque[Answer] = field(default_factory=deque)
    final: Answer | None = None
    """The 2xx that waits."""
    over: bool = False
    """The INVITE has its final answer: nothing is sent again, a late PRACK is still welcome."""


def is_required(request: Request) -> bool:
    """Tell whether the peer insists on reliable provisional answers."""
    return TAG in request.words("require")


def is_reliable(request: Request, status: int, body: bytes) -> bool:
    """Tell whether this answer to an INVITE is to be sent reliably (RFC 3262 section 3)."""
    if not 100 < status < 200:
        return False
    return is_required(request) or (bool(body) and TAG in request.words("supported"))


def parse_rack(request: Request) -> tuple[int, int, str]:
    """Return the RSeq and CSeq numbers and the method that a PRACK names. Raises ParseError. Spec: section 7.2."""
    words = request.required("rack").split()
    if len(words) != 3 or not is_token(words[2]):
        raise ParseError("not a RAck")
    return parse_number(words[0], MAX_RSEQ), parse_number(words[1], MAX_RSEQ), words[2]


def acknowledged_by(request: Request, provisionals: Provisionals | None) -> Unpracked | None:
    """Return the answer that a PRACK acknowledges, None when it is none of ours. Raises ParseError."""
    rseq, cseq, method = parse_rack(request)
    waiting = provisionals.waiting if provisionals is not None else None
    if waiting is None or method != "INVITE":
        return None
    known = waiting.rseq == rseq and waiting.transaction.request.cseq.number == cseq
    return waiting if known else None


def must_wait(provisionals: Provisionals | None, answer: Answer) -> bool:
    """Tell whether an answer has to wait for a PRACK."""
    if provisionals is None or provisionals.waiting is None or provisionals.over:
        return False
    if answer.status < 200:
        return True
    described = provisionals.waiting.described or any(one.body for one in provisionals.queued)
    return answer.status < 300 and described


def first_of(core: Core) -> Provisionals:
    """Return an empty list, whose numbers begin somewhere (section 3: 1 to 2**31 - 1)."""
    return Provisionals(core.small_number(2**16))


class ReliableAnswers:
    """What all INVITEs of peers are answered before their final answer, as far as it must arrive."""

    def __init__(self, core: Core, server: ServerSide) -> None:
        self._core = core
        self._server = server

    def respond(self, transaction: ServerTransaction, dialog: Dialog, answer: Answer, now_ns: int) -> None:
        """Answer the INVITE that made ``dialog``: now, reliably, or when what came before has arrived."""
        provisionals = dialog.provisionals
        if provisionals is not None and provisionals.final is not None:
            self._core.stats["late_answers"] += 1
        elif must_wait(provisionals, answer):
            self._queue(dialog, answer)
        elif is_reliable(transaction.request, answer.status, answer.body):
            self._send(transaction, dialog, answer, now_ns)
        else:
            self._server.answer(transaction, answer.status, now_ns, **answer.parts())

    def on_prack(self, dialog: Dialog, request: Request, flow: Flow, now_ns: int) -> None:
        """What a PRACK acknowledges is not sent again; its offer, if it makes one, is the application's to answer."""
        core, provisionals = self._core, dialog.provisionals
        waiting = acknowledged_by(request, provisionals)
        if provisionals is None or waiting is None:
            self._server.refuse(request, flow, Refusal(481))
            return
        dialog.flow = flow
        core.timers.set(waiting, None)
        provisionals.waiting = None
        dialog.negotiated = dialog.negotiated or (waiting.described and bool(request.body or not waiting.offered))
        transaction = self._server.open(request, flow, now_ns, dialog)
        core.outputs.append(
            ProvisionalConfirmed(dialog.id, waiting.transaction.id, request.body if waiting.offered else b"")
        )
        if not request.body or waiting.offered:
            self._server.answer(transaction, 200, now_ns)
        elif not dialog.negotiated or dialog.offers or dialog.offer is not None:
            self._server.answer(transaction, 488, now_ns)
        else:
            dialog.offers.add(transaction.id)
            core.outputs.append(ReofferReceived(dialog.id, transaction.id, request))
        self._go_on(dialog, now_ns)

    def _go_on(self, dialog: Dialog, now_ns: int) -> None:
        """Send what waited in line for a PRACK."""
        provisionals = dialog.provisionals
        first = self._core.by_id.get(dialog.first) if dialog.first is not None else None
        while provisionals is not None and first is not None and provisionals.waiting is None and not provisionals.over:
            if provisionals.queued:
                self._send(first, dialog, provisionals.queued.popleft(), now_ns)
            elif provisionals.final is not None:
                final, provisionals.final = provisionals.final, None
                self._server.answer(first, final.status, now_ns, **final.parts())
            else:
                return

    def _send(self, transaction: ServerTransaction, dialog: Dialog, answer: Answer, now_ns: int) -> None:
        """Send a provisional answer with a number of its own until its PRACK comes (RFC 3262 section 3)."""
        core, timing = self._core, self._core.settings.timing
        provisionals = dialog.provisionals = dialog.provisionals or first_of(core)
        provisionals.rseq += 1
        fields = (*answer.fields, ("Require", TAG), ("RSeq", str(provisionals.rseq)))
        self._server.answer(transaction, answer.status, now_ns, **replace(answer, fields=fields).parts())
        provisionals.waiting = waiting = Unpracked(
            transaction=transaction,
            rseq=provisionals.rseq,
            data=transaction.last,
            flow=transaction.flow,
            described=bool(answer.body),
            offered=bool(answer.body) and not transaction.request.body and not dialog.negotiated,
            pause_ns=timing.t1_ns,
            resend_ns=now_ns + timing.t1_ns,
            give_up_ns=now_ns + timing.give_up_ns,
        )
        core.timers.set(waiting, waiting.deadline_ns())

    def _queue(self, dialog: Dialog, answer: Answer) -> None:
        provisionals = dialog.provisionals
        if provisionals is None:
            return
        if answer.status >= 200:
            provisionals.final = answer
        elif len(provisionals.queued) < MAX_QUEUED:
            provisionals.queued.append(answer)
        else:
            self._core.stats["dropped_provisional_queue"] += 1

    def withdraw(self, dialog: Dialog, now_ns: int) -> None:
        """Hang up a call whose 2xx still waits for a PRACK: it is refused instead."""
        first = self._core.by_id.get(dialog.first) if dialog.first is not None else None
        if (
            first is not None
            and first.pending
            and dialog.provisionals is not None
            and dialog.provisionals.final is not None
        ):
            self._server.answer(first, 480, now_ns)
            self._core.outputs.append(ByeFinished(dialog.id, None))
        else:
            self._core.stats["late_byes"] += 1

    def end(self, dialog: Dialog) -> None:
        """The INVITE has its final answer: nothing that came before is sent again."""
        provisionals = dialog.provisionals
        if provisionals is not None:
            provisionals.over, provisionals.final = True, None
            provisionals.queued.clear()
            if provisionals.waiting is not None:
                self._core.timers.set(provisionals.waiting, None)

    def resend(self, waiting: Unpracked, now_ns: int) -> None:
        """Send a provisional answer again, at twice the pause each time, or give the call up (RFC 3262 section 3)."""
        core = self._core
        if now_ns >= waiting.give_up_ns:
            core.stats["expired_prack"] += 1
            self._server.abandon(waiting.transaction, 504, now_ns)
            return
        core.transmit(waiting.data, waiting.flow)
        waiting.pause_ns *= 2
        waiting.resend_ns = now_ns + waiting.pause_ns
        core.timers.set(waiting, waiting.deadline_ns())
