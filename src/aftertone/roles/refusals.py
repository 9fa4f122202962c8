"""Refusals: the calls that are not taken, and the sentence that some of them hear.

Owns: the final answer of a refused call, its note in the journal, and the calls that are being told why. Refuses to know: why
a call is refused, and all calls that are taken.

Specification: RFC 3261 sections 13.3.1.1 and 21; RFC 3960 (early media).

Theory of operation: a machine that cannot keep a message must not answer, or the caller would be charged for talking to
nobody. So the sentence comes by early media: 183 with the answer to the offer, the clip once, then the final status. It
needs a place in the media plane and an offer that can be answered; where one of them is missing, and beyond
``ALOUD_AT_ONCE``, the status comes at once. What is refused is noted when that is decided, whatever the caller does then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from aftertone.errors import AftertoneError, BusyError
from aftertone.media.plane import Plane
from aftertone.model import Caller
from aftertone.net.endpoint import SipEndpoint
from aftertone.roles.clips import REFUSED, Clips
from aftertone.roles.notes import Notes
from aftertone.roles.secrecy import Secrecies
from aftertone.roles.terms import stream_of
from aftertone.sdp import negotiation
from aftertone.sdp.description import SdpError
from aftertone.sdp.negotiation import MediaPlan
from aftertone.sip import events as sip

RETRY_AFTER_S: Final = 60
SDP_TYPE: Final = "application/sdp"
ALOUD_AT_ONCE: Final = 20
"""Calls that are told at the same time; more are answered without a word."""
TO_ONE_ADDRESS: Final = 3
"""Of these, calls whose sound goes to one address. It goes where an offer says before anybody has proven to be there, so this
bounds what a liar can have sent to somebody else: 3 x 64 kbit/s. A PBX through which everybody calls gets as much."""
SUMMARY_S: Final = 60.0
"""How often it is said how many calls were refused beyond those that are noted one by one."""
PATIENCE_S: Final = 2.0
"""Longer than the clip by this much, the caller waits for nothing: the ticks have stopped."""


@dataclass(slots=True)
class Told:
    """A caller who is hearing why, and what comes then."""

    event: sip.IncomingCall
    row: int
    status: int
    address: str
    """Where the sound goes, empty while that is not known."""
    timer: asyncio.TimerHandle


class Refusals:
    """Refused calls of one line. Everything happens on the event loop's thread."""

    def __init__(
        self,
        endpoint: SipEndpoint,
        plane: Plane,
        clips: Clips,
        notes: Notes,
        counters: Counter[str],
        secrecies: Secrecies,
        *,
        entropy: Callable[[int], bytes],
        logger: structlog.typing.FilteringBoundLogger,
        caller_of: Callable[[sip.IncomingCall], Caller],
    ) -> None:
        self._endpoint, self._plane, self._clips = endpoint, plane, clips
        self._notes, self._counters, self._entropy, self._logger = notes, counters, entropy, logger
        self._secrecies, self._caller_of = secrecies, caller_of
        self._loop = asyncio.get_running_loop()
        self._told: dict[sip.TransactionId, Told] = {}
        self._rows: dict[int, Told] = {}
        self._untold = 0

    @property
    def being_told(self) -> int:
        """Callers who are hearing why."""
        return len(self._told)

    def plain(
        self,
        event: sip.IncomingCall,
        status: int,
        reason: str,
        *,
        retry_after_s: int | None = RETRY_AFTER_S,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Answer with ``status`` at once; without ``retry_after_s`` trying again would not help."""
        self._note(event, status, reason)
        self._answer(event.transaction_id, status, retry_after_s, headers)

    def aloud(
        self,
        event: sip.IncomingCall,
        error: AftertoneError,
        host: str,
        leased: tuple[int, int] | None = None,
        agreed: MediaPlan | None = None,
    ) -> None:
        """Say why, if there is a way, then answer with the status of ``error``.

        ``host``: the address that our descriptions name. ``leased``: row and port of a call that was ringing; they are this
        object's from now on, and are given back in any case. ``agreed``: what its peer was told about the sound already.
        """
        self._note(event, error.sip_status, str(error))
        spoken = False
        if event.request.body and len(self._told) < ALOUD_AT_ONCE:
            try:
                leased = leased or self._plane.lease()
                self._speak(event, error.sip_status, host, *leased, agreed)
                spoken = True
            except (BusyError, SdpError) as fault:
                self._logger.debug("a refused call is not told why", why=str(fault))
            except Exception:
                # Whatever goes wrong with the sentence, the caller is owed an answer.
                self._logger.exception("a refused call could not be told why")
        if not spoken:
            if leased is not None:
                self._plane.release(leased[0])
            self._answer(event.transaction_id, error.sip_status, RETRY_AFTER_S)

    def _speak(
        self, event: sip.IncomingCall, status: int, host: str, row: int, port: int, agreed: MediaPlan | None
    ) -> None:
        """Begin to say why.

        Raises SdpError when there is nothing that both sides speak, or nobody who listens; BusyError beyond `TO_ONE_ADDRESS`.
        """
        body, plan = (b"", agreed) if agreed is not None else self._describe(event, host, port)
        if plan.direction not in ("sendrecv", "sendonly"):
            raise SdpError("the caller does not want to hear anything")
        address = "" if plan.remote is None else plan.remote[0]
        if address and sum(told.address == address for told in self._told.values()) >= TO_ONE_ADDRESS:
            raise BusyError(f"{TO_ONE_ADDRESS} callers at {address} are being told already")
        track = self._clips.track(REFUSED, "", plan.codec, plan.ptime_ms)
        if body:
            # Who heard our description before has one answer to the offer, and ignores a second (RFC 3261 section 13.2.1).
            self._endpoint.respond(event.transaction_id, 183, body=body, content_type=SDP_TYPE)
            self._plane.agree(row, stream_of(plan))
        self._plane.play(row, track.packets, track.packet_ms)
        timer = self._loop.call_later(track.seconds + PATIENCE_S, self._finish, event.transaction_id)
        self._told[event.transaction_id] = self._rows[row] = Told(event, row, status, address, timer)
        self._counters["refused_aloud"] += 1

    def _describe(self, event: sip.IncomingCall, host: str, port: int) -> tuple[bytes, MediaPlan]:
        return negotiation.answer(
            event.request.body,
            local_host=host,
            local_port=port,
            session_id=int.from_bytes(self._entropy(7), "big"),
            version=1,
            secrecy=self._secrecies.wanted(),
        )

    def played(self, row: int) -> None:
        """The clip on this row has been played: if it was ours, the caller gets the status."""
        told = self._rows.get(row)
        if told is not None:
            self._finish(told.event.transaction_id)

    def cancelled(self, transaction: sip.TransactionId) -> bool:
        """The caller gave up; True when the call was one of ours. The agent has answered it."""
        return self._forget(transaction) is not None

    def shut_down(self) -> None:
        """Break off: everybody gets the status now."""
        for transaction in list(self._told):
            self._finish(transaction)

    def _finish(self, transaction: sip.TransactionId) -> None:
        told = self._forget(transaction)
        if told is not None:
            self._answer(transaction, told.status, RETRY_AFTER_S)

    def _forget(self, transaction: sip.TransactionId) -> Told | None:
        told = self._told.pop(transaction, None)
        if told is not None:
            told.timer.cancel()
            del self._rows[told.row]
            self._plane.release(told.row)
        return told

    def _answer(
        self,
        transaction: sip.TransactionId,
        status: int,
        retry_after_s: int | None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        again = [("Retry-After", str(retry_after_s))] if retry_after_s is not None else []
        self._endpoint.respond(transaction, status, headers=[*again, *headers])

    def _note(self, event: sip.IncomingCall, status: int, reason: str) -> None:
        self._counters[f"refused_{status}"] += 1
        if self._notes.refusal(status, reason, self._caller_of(event), event.request.uri):
            self._logger.warning("call refused", status=status, reason=reason, peer=event.flow.remote[0])
            return
        if not self._untold:
            self._loop.call_later(SUMMARY_S, self._sum_up, status)
        self._untold += 1

    def _sum_up(self, status: int) -> None:
        """Say how many calls were refused without a line and a note of their own: a flood must fill neither log nor disk."""
        count, self._untold = self._untold, 0
        self._logger.warning("more calls were refused", count=count)
        self._notes.more_refusals(status, count)
