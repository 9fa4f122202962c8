"""Offers and refreshes of ours inside a dialog: re-INVITE and UPDATE.

Owns: that one is under way at a time, glare, and what the answers mean for the session. Refuses to know: what a description
says; requests of peers.

Specification: RFC 3261 sections 12.2.1.2, 14.1; RFC 3311 section 5.1; RFC 4028 section 7.4; RFC 6141 (a refused offer
leaves the session as it was).

Theory of operation: what the application wants said is a *wish*; a newer wish replaces an older one that has not been sent. It
is sent when nothing else is open in the dialog: no 2xx without ACK, no offer of the peer, none of ours. Glare (491, or 500 with
Retry-After) is tried again after a pause that differs between the two sides, ``ATTEMPTS`` times in all. UPDATE is used when the
peer allows it, else re-INVITE with the description that holds already. A peer that answers 408, 481 or nothing at all has lost
the call: it is ended from our side too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aftertone.sip import session_timer
from aftertone.sip.builder import Fields, contact_uri
from aftertone.sip.core import COOKIE, ClientTransaction, Core
from aftertone.sip.dialog import Dialog, Phase
from aftertone.sip.events import ReofferAnswered, ReofferFailed, SessionExpired
from aftertone.sip.flow import Flow
from aftertone.sip.message import Response
from aftertone.sip.session_timer import SessionTimer
from aftertone.sip.settings import MILLISECOND_NS, SECOND_NS
from aftertone.sip.transaction import Do, On, State

if TYPE_CHECKING:
    from aftertone.sip.client import ClientSide

ATTEMPTS: Final = 5
LONGEST_PAUSE_S: Final = 10
"""What a Retry-After may ask for inside a call."""
GONE: Final = frozenset({408, 481})
GONE_FIELDS: Final = (("Reason", 'SIP;cause=481;text="The other side no longer knows the call"'),)


@dataclass(eq=False, slots=True)
class OwnOffer:
    """One re-INVITE or UPDATE of ours, from the wish to the last answer."""

    dialog: Dialog
    body: bytes
    content_type: str
    told: bool
    """The application wished it, and is told what came of it."""
    method: str = ""
    cseq: int = 0
    branch: str = ""
    attempts: int = 0
    minimum_s: int = 0
    """What a 422 asked for."""
    retry_ns: int | None = None
    failure_ack: bytes = b""
    ack: tuple[bytes, Flow] | None = None
    said: Fields = ()
    """What it said of who we are; its ACK says the same (RFC 3261 section 22.1)."""

    def deadline_ns(self) -> int | None:
        """Return when it is tried again, None while it is under way."""
        return self.retry_ns


class OwnOffers:
    """Our offers in all dialogs."""

    def __init__(self, core: Core, client: ClientSide) -> None:
        self._core = core
        self._client = client

    def wish(self, dialog: Dialog, body: bytes, content_type: str, now_ns: int) -> None:
        """Offer ``body`` as soon as the dialog is free for it."""
        dialog.wish = OwnOffer(dialog, body, content_type, told=True)
        self.poke(dialog, now_ns)

    def refresh(self, dialog: Dialog, now_ns: int) -> None:
        """Refresh the session, unless an offer of ours is about to do so anyway."""
        if dialog.wish is None and dialog.offer is None:
            dialog.wish = OwnOffer(dialog, b"", "", told=False)
            self.poke(dialog, now_ns)

    def poke(self, dialog: Dialog, now_ns: int) -> None:
        """Something in the dialog is over: send what waited for it."""
        busy = dialog.offer is not None or dialog.unacknowledged is not None or dialog.owes_ack is not None
        if dialog.wish is None or busy or dialog.offers or dialog.phase is not Phase.CONFIRMED or not dialog.confirmed:
            return
        dialog.offer, dialog.wish = dialog.wish, None
        self._send(dialog.offer, now_ns)

    def wake(self, offer: OwnOffer, now_ns: int) -> None:
        """The pause after a glare is over: try again, when nobody else is at it now."""
        offer.retry_ns = None
        dialog = offer.dialog
        dialog.offer = None
        if dialog.wish is None or (offer.told and not dialog.wish.body):
            dialog.wish = offer
        self.poke(dialog, now_ns)

    def _send(self, offer: OwnOffer, now_ns: int) -> None:
        core, dialog = self._core, offer.dialog
        offer.attempts += 1
        offer.method = "UPDATE" if "UPDATE" in dialog.remote_allow else "INVITE"
        body, content_type = offer.body, offer.content_type
        if not body and offer.method == "INVITE":
            body, content_type = dialog.description
        offer.branch = COOKIE + core.token()
        flow = dialog.next_flow()
        fields: list[tuple[str, str]] = [
            ("Contact", f"<{contact_uri(core.reached(flow), core.settings.user or dialog.user)}>"),
            ("Allow", ", ".join(core.settings.allow)),
            ("Supported", ", ".join(core.settings.supported)),
            *session_timer.request_fields(core.settings, dialog.session, offer.minimum_s),
        ]
        data = dialog.request(
            offer.method,
            offer.branch,
            fields=[(name, value) for name, value in fields if value],
            body=body,
            content_type=content_type,
            user_agent=core.settings.user_agent,
        )
        offer.cseq, offer.said = dialog.local_cseq, dialog.said
        offer.body, offer.content_type = body, content_type
        offer.failure_ack = dialog.request("ACK", offer.branch, cseq=offer.cseq)
        self._client.open((offer.branch, offer.method), offer, data, flow, now_ns, offer.said)

    def on_response(
        self, offer: OwnOffer, transaction: ClientTransaction, kind: On, response: Response, now_ns: int
    ) -> None:
        """Take a response to a re-INVITE or UPDATE of ours."""
        transaction.ack = offer.failure_ack
        if Do.PASS not in self._core.step(transaction, kind, now_ns) or kind is On.PROVISIONAL:
            return
        dialog = offer.dialog
        challenged = dialog.may_pass(response, transaction.said, transaction.flow)
        if kind is On.SUCCESS:
            self._accepted(offer, response, now_ns)
        elif challenged and dialog.offer is offer and dialog.phase is Phase.CONFIRMED:
            self.wake(offer, now_ns)
        else:
            self._refused(offer, response.status, response, now_ns)

    def expired(self, offer: OwnOffer, transaction: ClientTransaction, now_ns: int) -> None:
        """No answer came."""
        if transaction.state is State.PROCEEDING:
            transaction.terminate()
        self._refused(offer, 408, None, now_ns)

    def unsent(self, offer: OwnOffer, now_ns: int) -> None:
        """The connection that it went over is lost: as if 503 had come (RFC 3261 section 8.1.3.1)."""
        self._refused(offer, 503, None, now_ns)

    def _accepted(self, offer: OwnOffer, response: Response, now_ns: int) -> None:
        dialog = offer.dialog
        if offer.ack is not None:
            # The same 2xx again: its ACK was lost.
            self._core.transmit(*offer.ack)
            return
        if offer.method == "INVITE":
            offer.ack = self._client.ack(dialog, offer.cseq, b"", "", offer.said)
        if dialog.offer is not offer or dialog.phase is not Phase.CONFIRMED:
            return
        dialog.offer = None
        if response.contact is not None:
            dialog.target = response.contact.uri
        if offer.body:
            dialog.description = (offer.body, offer.content_type)
            self._core.outputs.append(ReofferAnswered(dialog.id, response, offer.body, offer.told))
        self._restart(dialog, response, now_ns)
        self.poke(dialog, now_ns)

    def begin(self, dialog: Dialog, response: Response, now_ns: int) -> None:
        """A call of ours was answered: begin the session that its 2xx agrees on."""
        if session_timer.read_interval(response) is not None:
            self._restart(dialog, response, now_ns)

    def _restart(self, dialog: Dialog, response: Response, now_ns: int) -> None:
        """Begin a new interval as the 2xx says; without a word of it the one that ran runs again (RFC 4028 section 7.2)."""
        said = session_timer.read_interval(response)
        if said is not None and said.seconds >= session_timer.SMALLEST_S:
            dialog.session = dialog.session or SessionTimer(dialog, said.seconds, we_refresh=True)
            dialog.session.interval_s = said.seconds
            dialog.session.we_refresh = said.refresher != "uas"
        if dialog.session is not None:
            dialog.session.restart(now_ns)
            self._core.timers.set(dialog.session, dialog.session.deadline_ns())

    def _refused(self, offer: OwnOffer, status: int, response: Response | None, now_ns: int) -> None:
        core, dialog = self._core, offer.dialog
        if dialog.offer is not offer or dialog.phase is not Phase.CONFIRMED:
            return
        pause_ns = self._pause_ns(dialog, status, response)
        if pause_ns is not None and offer.attempts < ATTEMPTS:
            if status == 422 and response is not None:
                offer.minimum_s = session_timer.read_minimum(response)
            offer.retry_ns = now_ns + pause_ns
            core.timers.set(offer, offer.retry_ns)
            return
        dialog.offer = None
        if offer.told:
            core.outputs.append(ReofferFailed(dialog.id, status))
        if status in GONE:
            self.lost(dialog, GONE_FIELDS, now_ns)
        else:
            self.poke(dialog, now_ns)

    def _pause_ns(self, dialog: Dialog, status: int, response: Response | None) -> int | None:
        """Return how long to wait before the next attempt, None when there is none (sections 14.1 and 21.5.1)."""
        if status == 422:
            return 0
        if status == 491:
            if dialog.caller:
                return (2100 + 10 * self._core.small_number(190)) * MILLISECOND_NS
            return 10 * self._core.small_number(200) * MILLISECOND_NS
        asked = response.get("retry-after").strip() if response is not None and status in (500, 503) else ""
        if not asked[:1].isdigit():
            return None
        digits = "".join(mark for mark in asked[:3] if mark.isdigit())
        return min(int(digits), LONGEST_PAUSE_S) * SECOND_NS + 10 * self._core.small_number(50) * MILLISECOND_NS

    # Session timers

    def watch(self, timer: SessionTimer, now_ns: int) -> None:
        """A session is to be refreshed, or nobody has refreshed it."""
        if now_ns >= timer.end_ns:
            self._core.stats["sessions_expired"] += 1
            self.lost(timer.dialog, session_timer.EXPIRED, now_ns)
            return
        timer.postpone(now_ns)
        self._core.timers.set(timer, timer.deadline_ns())
        self.refresh(timer.dialog, now_ns)

    def lost(self, dialog: Dialog, fields: Fields, now_ns: int) -> None:
        """End a call whose other side is gone; the application hears of it, and ByeFinished follows."""
        if dialog.phase is not Phase.CONFIRMED:
            return
        dialog.bye_fields = fields
        self._core.outputs.append(SessionExpired(dialog.id))
        self._core.hang_up(dialog, now_ns)
