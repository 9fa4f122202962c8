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
from dataclasses import dataclass, field
from typing import Final, TypedDict

from aftertone.sip.builder import Fields
from aftertone.sip.core import Core, ServerTransaction
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.headers import is_token, parse_number
from aftertone.sip.message import Request

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
