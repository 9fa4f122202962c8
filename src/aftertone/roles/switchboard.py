"""The switchboard: SIP's events, the media plane's events and the journal's word, brought to the call they belong to.

Owns: the live calls of a line, from the INVITE to the last answer. Refuses to know: sockets, threads, files, the catalog;
what it needs of them comes in by its constructor.

Theory of operation: everything happens on the event loop's thread. A call is a ``Ringing`` until it is answered and a
``Live`` afterwards; a ``Live`` is the ports of its deposit script: each effect of the script is a few lines here. The two
promises are kept by order: the begin record is appended with the 200 and the script waits for it before the beep; the end
record is appended after the last packet was taken from the socket, and BYE is said or answered when it is durable. Whether a
call can be kept is asked when it comes and again when it has rung; one that cannot is told so aloud (`refusals`). Should
the disk not answer for ``END_WITHIN_S``, the caller is let go with a 500, never with a 200, and the log says so: waiting longer
would save nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from aftertone.config import Settings
from aftertone.errors import AftertoneError, BusyError, StorageError
from aftertone.journal.record import Begin, End, Event, Kind
from aftertone.media.plane import KeyPressed, LongestReached, MediaEvent, PlainSound, Plane, Played, Silent, ToneHeard
from aftertone.media.table import Stream
from aftertone.model import Caller, Codec, EndReason, Envelope
from aftertone.net.endpoint import SipEndpoint
from aftertone.roles.calls import Live, Media, Ringing
from aftertone.roles.clips import Clips, Track
from aftertone.roles.clock import LineClock
from aftertone.roles.durability import Durability
from aftertone.roles.early import EarlyGreetings
from aftertone.roles.notes import MAX_REASON, Journal, Notes, readable_text, uri_text
from aftertone.roles.peers import Peers, Turned
from aftertone.roles.refusals import SDP_TYPE, Refusals
from aftertone.roles.routing import mailbox_of, origin_of
from aftertone.roles.secrecy import NOTABLE_PACKETS, Secrecies, suite_of
from aftertone.roles.terms import is_on_hold, key_of_info, quality_event, stream_of, warning_of
from aftertone.roles.timekeeper import Reading
from aftertone.roles.traces import Traces
from aftertone.sdp import negotiation
from aftertone.sdp.crypto import Policy
from aftertone.sdp.negotiation import MediaPlan
from aftertone.sip import events as sip
from aftertone.sip.diversion import diversion_of
from aftertone.sip.flow import Flow
from aftertone.sip.identity import claims_of, target_user
from aftertone.sip.message import Request, serialize
from aftertone.sip.reliable import is_reliable, is_required
from aftertone.sip.trace import Recorder, blanked
from aftertone.voicemail.deposit import DURABLE_WITHIN_S, HangUp
from aftertone.voicemail.directory import Directory

END_WITHIN_S: Final = 4.0


class Switchboard:
    """All calls of one line. ``admission`` returns why no new call can be taken, or None when it can."""

    def __init__(
        self,
        settings: Settings,
        endpoint: SipEndpoint,
        plane: Plane,
        clips: Clips,
        journal: Journal,
        durability: Durability,
        *,
        admission: Callable[[], AftertoneError | None],
        entropy: Callable[[int], bytes],
        logger: structlog.typing.FilteringBoundLogger,
        clock: LineClock | None = None,
        peers: Peers | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.endpoint, self.plane = endpoint, plane
        self.directory = Directory()
        self.peers = peers or Peers(settings.sip, secret=entropy(16), logger=logger)
        self.stopping = False
        self.counters: Counter[str] = Counter()
        self._settings, self._clips, self._journal, self._durability = settings, clips, journal, durability
        self._admission, self._entropy, self._logger = admission, entropy, logger
        self._loop = asyncio.get_running_loop()
        self._ringing: dict[sip.TransactionId, Ringing] = {}
        self._live: dict[sip.DialogId, Live] = {}
        self._rows: dict[int, Live] = {}
        self._next_number = 1
        # One clock for calls and refusals: their ids ascend together.
        self._clock = clock if clock is not None else LineClock(logger)
        self._secrecies = Secrecies(settings.sip.srtp, entropy, logger)
        self._notes = Notes(journal, entropy, logger, self._clock)
        self.traces = traces or Traces(settings.trace, Recorder(), self._clock)
        self._early: EarlyGreetings[Ringing] = EarlyGreetings(self._answer)
        self.refusals = Refusals(
            endpoint,
            plane,
            clips,
            self._notes,
            self.counters,
            self._secrecies,
            entropy=entropy,
            logger=logger,
            caller_of=self._caller_of,
        )

    # -- what others ask

    @property
    def live_calls(self) -> int:
        """Calls that are answered and not over."""
        return len(self._live)

    @property
    def ringing_calls(self) -> int:
        """Calls that have not been answered yet."""
        return len(self._ringing)

    def storage_failed(self) -> None:
        """The journal takes nothing any more: every caller hears the truth."""
        self._tell_all(lambda live: live.call.run(live.call.script.storage_failed()))

    def shut_down(self) -> None:
        """End everything politely; new calls are refused from now on."""
        self.stopping = True
        for transaction in list(self._ringing):
            ringing = self._stop_ringing(transaction)
            if ringing is not None:
                self.plane.release(ringing.row)
                self.refusals.plain(ringing.event, 480, "shutting down")
        self.refusals.shut_down()
        self._tell_all(lambda live: live.call.run(live.call.script.shutting_down()))

    def _tell_all(self, tell: Callable[[Live], None]) -> None:
        for live in list(self._rows.values()):
            try:
                tell(live)
            except Exception:
                # One call's trouble must not keep the others from being told.
                self._logger.exception("a call could not be told", message=str(live.envelope.id))

    # -- SIP

    def on_sip(self, event: sip.Event) -> None:
        """Take one event of the agent."""
        match event:
            case sip.IncomingCall():
                self._on_call(event)
            case sip.CallCancelled(transaction, why):
                self._on_cancelled(transaction, why)
            case sip.ProvisionalConfirmed(dialog, transaction, body):
                self._on_provisional_confirmed(dialog, transaction, body)
            case sip.CallConfirmed(dialog, body):
                self._on_confirmed(dialog, body)
            case sip.CallNotConfirmed(dialog):
                self._on_gone(dialog, EndReason.NO_ACK)
            case sip.SessionExpired(dialog):
                self._on_gone(dialog, EndReason.SESSION_EXPIRED)
            case sip.DialogEnded(dialog, transaction, request):
                self._on_bye(dialog, transaction, request)
            case sip.ReofferReceived(dialog, transaction, request):
                self._on_reoffer(dialog, transaction, request)
            case sip.ReofferConfirmed(dialog, _, body):
                self._on_reoffer_confirmed(dialog, body)
            case sip.ReofferAnswered(dialog, response, offer):
                self._on_reoffer_answered(dialog, offer, response.body)
            case sip.RequestInDialog(dialog, transaction, request):
                self._on_request(dialog, transaction, request)
            case sip.ByeFinished(dialog, _):
                self._release(dialog)

    def _caller_of(self, event: sip.IncomingCall) -> Caller:
        trusted = self.peers.trusts(event.request, event.flow)
        return claims_of(event.request, trusted=trusted).caller

    def _on_call(self, event: sip.IncomingCall) -> None:
        request = event.request
        self.counters["offered"] += 1
        peer = self.peers.of(request, event.flow)
        if isinstance(peer, Turned):
            self.refusals.plain(event, peer.answer.status, peer.reason, retry_after_s=None)
            return
        choice = mailbox_of(self.directory, request, peer)
        if choice is None:
            self.refusals.plain(event, 404, f"no mailbox {target_user(request)!r}", retry_after_s=None)
            return
        if self.stopping:
            self.refusals.plain(event, 503, "shutting down")
            return
        blocked = self._admission()
        if blocked is not None:
            self.refusals.aloud(event, blocked, self._host(event.flow))
            return
        try:
            row, port = self.plane.lease()
        except BusyError as error:
            self.refusals.plain(event, 503, str(error), retry_after_s=5)
            return
        try:
            self._check_offer(request, event.flow, port, peer.srtp)
        except AftertoneError as error:
            self.plane.release(row)
            warning = warning_of(error, self._host(event.flow))
            self.refusals.plain(event, error.sip_status, str(error), retry_after_s=None, headers=warning)
            return
        except BaseException:
            self.plane.release(row)
            raise
        ringing = Ringing(event, choice.mailbox, choice.reason, row, port, peer, diversion_of(request))
        self._ringing[event.transaction_id] = ringing
        login = self.peers.login_for(peer)
        if login is not None:
            self.endpoint.agent.log_in(event.dialog_id, login)
        self.traces.keep(event.dialog_id.call_id)
        rings = self._settings.calls.rings if choice.mailbox.rings is None else choice.mailbox.rings
        if ringing.diversion is not None or not rings:
            self._rung(ringing)
            return
        # Who insists on reliable answers and made no offer wants ours in the first of them (RFC 3262 section 5).
        offer = self._open_media(ringing, 180)[0] if is_required(request) and not request.body else b""
        self.endpoint.respond(event.transaction_id, 180, body=offer, content_type=SDP_TYPE if offer else "")
        ringing.timer = self._loop.call_later(rings * self._settings.calls.ring_s, self._rung, ringing)

    def _rung(self, ringing: Ringing) -> None:
        """It has rung long enough: answer, or greet first."""
        if not self._settings.sip.early_media or not self._greet_early(ringing):
            self._answer(ringing)

    def _open_media(self, ringing: Ringing, status: int) -> tuple[bytes, MediaPlan | None]:
        """Describe our side before the answer, in an answer with ``status``; return that, and what is agreed already."""
        request = ringing.event.request
        media = ringing.media = self._media_for(ringing)
        body = self._describe(media, request.body)
        ringing.said = b"" if is_reliable(request, status, body) else body
        if media.plan is not None:
            self.plane.agree(ringing.row, self._stream_of(media.plan, media))
        return body, media.plan

    def _media_for(self, ringing: Ringing) -> Media:
        session_id = int.from_bytes(self._entropy(7), "big")
        return Media(self._host(ringing.event.flow), ringing.port, session_id, srtp=ringing.peer.srtp)

    def _stream_of(self, plan: MediaPlan, media: Media) -> Stream:
        return stream_of(plan, plain_is_taken=self._secrecies.takes_plain(media.srtp))

    def _greet_early(self, ringing: Ringing) -> bool:
        """Play the greeting before the answer; False when the call is to be answered first."""
        request = ringing.event.request
        if not request.body or ringing.media is not None or self._admission() is not None:
            return False
        body, plan = self._open_media(ringing, 183)
        if plan is None or plan.remote is None or is_on_hold(plan):
            ringing.media, ringing.said = None, b""
            return False
        track = self._clips.track("greeting", ringing.mailbox.name, plan.codec, plan.ptime_ms)
        if not self._early.has_room(plan.remote[0], track.seconds):
            ringing.media, ringing.said = None, b""
            return False
        self._early.begin(ringing.row, ringing, plan.remote[0], track.seconds)
        ringing.greeted = True
        self.counters["greeted_early"] += 1
        self.endpoint.respond(ringing.event.transaction_id, 183, body=body, content_type=SDP_TYPE)
        self.plane.play(ringing.row, track.packets, track.packet_ms)
        return True

    def _check_offer(self, request: Request, flow: Flow, port: int, srtp: Policy) -> None:
        """Refuse what cannot be agreed on before the phone rings for nothing. Raises SdpError, NotAcceptable."""
        if request.body:
            negotiation.answer(
                request.body,
                local_host=self._host(flow),
                local_port=port,
                session_id=0,
                version=0,
                secrecy=self._secrecies.wanted(own=srtp),
            )

    def _host(self, flow: Flow) -> str:
        return flow.local[0]

    def _answer(self, ringing: Ringing) -> None:
        # While it rang the disk may have filled up or failed.
        blocked = self._admission()
        if blocked is not None:
            self._refuse_ringing(ringing, blocked)
            return
        event, request = ringing.event, ringing.event.request
        self._early.forget(ringing.row)
        media, body = ringing.media, ringing.said
        if media is None:
            media = self._media_for(ringing)
            body = self._describe(media, request.body)
        now_ns, now = time.monotonic_ns(), self._clock.now()
        envelope = self._envelope(ringing, media, now)
        number, self._next_number = self._next_number, self._next_number + 1
        envelope_json = json.dumps(envelope.to_json()).encode()
        # What was hashed with a password can be guessed at: it is no more for keeping than keys are.
        invite = blanked(serialize(request))
        begin = Begin(envelope.id, number, envelope_json, invite, now_ns, now.unix_ms)
        try:
            sequence = self._journal.append(Kind.BEGIN, begin.pack(), urgent=True)
        except AftertoneError as error:
            self._refuse_ringing(ringing, StorageError(str(error)))
            return
        del self._ringing[event.transaction_id]
        dialog = event.dialog_id
        self.endpoint.respond(event.transaction_id, 200, body=body, content_type=SDP_TYPE if body else "")
        live = Live(self, ringing.row, number, envelope, media, dialog, event.transaction_id, greeted=ringing.greeted)
        # Until the ACK an early greeting may be playing still.
        live.clip = "greeting" if ringing.greeted else ""
        self._live[dialog] = live
        self._rows[ringing.row] = live
        if media.plan is not None and ringing.media is None:
            self.plane.agree(ringing.row, self._stream_of(media.plan, media))
        self._secrecies.note(media.plan, event.flow)
        if media.plan is not None and media.plan.direction == "inactive":
            self._mark_hold(live, is_held=True)
        self._durability.when(sequence, lambda: self._begin_is_durable(live))
        self.counters["answered"] += 1
        self.peers.called(ringing.peer, now.unix_ms)
        self._logger.info(
            "call answered",
            message=str(envelope.id),
            mailbox=envelope.mailbox,
            peer=envelope.peer,
            by=ringing.peer.label,
        )

    def _describe(self, media: Media, offer: bytes) -> bytes:
        """Return our description: the answer to ``offer``, or an offer of ours when there is none."""
        media.version += 1
        host, port, session, version = media.host, media.port, media.session_id, media.version
        if not offer:
            media.offer = negotiation.offer(
                local_host=host,
                local_port=port,
                session_id=session,
                version=version,
                secrecy=self._secrecies.offered(media.plan, media.srtp),
            )
            return media.offer
        body, media.plan = negotiation.answer(
            offer,
            local_host=host,
            local_port=port,
            session_id=session,
            version=version,
            secrecy=self._secrecies.wanted(media.plan, media.srtp),
        )
        return body

    def _envelope(self, ringing: Ringing, media: Media, now: Reading) -> Envelope:
        request, flow = ringing.event.request, ringing.event.flow
        plan = media.plan
        claims, diversion = claims_of(request, trusted=ringing.peer.trust), ringing.diversion
        return Envelope(
            id=self._clock.mint(now, self._entropy(10)),
            mailbox=ringing.mailbox.name,
            caller=claims.caller,
            started_unix_ms=now.unix_ms,
            codec=plan.codec.value if plan else "",
            payload_types=plan.payload_types if plan else (),
            mailbox_reason=ringing.reason,
            forwarded=diversion is not None,
            call_id=ringing.event.dialog_id.call_id,
            request_uri=uri_text(request.uri),
            peer=f"{flow.remote[0]}:{flow.remote[1]}",
            clock=now.clock,
            origin=origin_of(ringing.peer, claims, diversion),
            identity=claims.identity,
            srtp=suite_of(plan),
        )

    def _begin_is_durable(self, live: Live) -> None:
        live.call.run(live.call.script.durable())

    def _on_cancelled(self, transaction: sip.TransactionId, why: str) -> None:
        if self.refusals.cancelled(transaction):
            return
        ringing = self._stop_ringing(transaction)
        if ringing is not None:
            self.counters["cancelled"] += 1
            self._logger.info("the caller gave up", peer=ringing.event.flow.remote[0], reason=why)
            self.plane.release(ringing.row)
            return
        live = next((live for live in self._live.values() if live.invite == transaction), None)
        if live is not None:
            live.cancelled = True
            self._note_reason(live, why)
            live.call.run(live.call.script.caller_gone())

    def _note_reason(self, live: Live, why: str) -> None:
        """Keep what the peer says about the end (RFC 3326); it stands before the end in the journal."""
        if why and not live.call.ended:
            self._notes.event(Event(live.number, time.monotonic_ns(), "reason", readable_text(why)[:MAX_REASON]))

    def _on_provisional_confirmed(self, dialog: sip.DialogId, transaction: sip.TransactionId, body: bytes) -> None:
        """The PRACK of an offer of ours brings the answer."""
        live, ringing = self._live.get(dialog), self._ringing.get(transaction)
        if live is not None and live.media.plan is None:
            self._take_answer(live, body)
        elif ringing is not None and ringing.media is not None and ringing.media.plan is None:
            try:
                ringing.media.plan = negotiation.plan_from_answer(ringing.media.offer, body)
            except AftertoneError as error:
                self._stop_ringing(transaction)
                self.plane.release(ringing.row)
                warning = warning_of(error, self._host(ringing.event.flow))
                self.refusals.plain(ringing.event, 488, str(error), retry_after_s=None, headers=warning)
                return
            self.plane.agree(ringing.row, self._stream_of(ringing.media.plan, ringing.media))

    def _stop_ringing(self, transaction: sip.TransactionId) -> Ringing | None:
        """Take a call out of those that ring, if it is there. Its row is the caller's to give back."""
        ringing = self._ringing.pop(transaction, None)
        if ringing is not None:
            self.traces.forget(ringing.event.dialog_id.call_id)
            self._early.forget(ringing.row)
            if ringing.timer is not None:
                ringing.timer.cancel()
        return ringing

    def _refuse_ringing(self, ringing: Ringing, error: AftertoneError) -> None:
        event = ringing.event
        self._stop_ringing(event.transaction_id)
        agreed = ringing.media.plan if ringing.media is not None else None
        self.refusals.aloud(event, error, self._host(event.flow), (ringing.row, ringing.port), agreed)

    def _on_confirmed(self, dialog: sip.DialogId, body: bytes) -> None:
        live = self._live.get(dialog)
        if live is None or live.confirmed:
            return
        live.confirmed = True
        if live.media.plan is None and not self._take_answer(live, body):
            # A late offer without a usable answer: there is no sound to wait for.
            live.call.run([*live.call.script.caller_gone(), HangUp()])
            return
        if live.call.ended:
            # Storage failed or the machine is being stopped: there is a farewell, and no greeting any more.
            return
        live.call.run(live.call.script.answered(greeted=live.greeted))
        live.waiting = self._loop.call_later(
            (0 if live.greeted else self._track(live, "greeting").seconds) + DURABLE_WITHIN_S,
            self._not_durable,
            live,
        )

    def _not_durable(self, live: Live) -> None:
        live.call.run(live.call.script.not_durable())

    def _take_answer(self, live: Live, body: bytes) -> bool:
        """Take over the answer to an offer of ours, and journal what its payload types mean."""
        try:
            plan = negotiation.plan_from_answer(live.media.offer, body)
        except AftertoneError as error:
            self._logger.warning("no usable answer to our offer", message=str(live.envelope.id), error=str(error))
            return False
        self._agree(live, plan)
        return True

    def _agree(self, live: Live, plan: MediaPlan) -> None:
        before = live.media.plan
        changed = before is None or (before.payload_types, suite_of(before)) != (plan.payload_types, suite_of(plan))
        is_cut_otherwise = self._cut(live) != (plan.codec, plan.ptime_ms)
        # A call that begins by only talking to us is no hold; one that comes to that is.
        is_held = plan.direction == "inactive" if live.media.plan is None else is_on_hold(plan)
        live.media.plan = plan
        self.plane.agree(live.row, self._stream_of(plan, live.media))
        if is_cut_otherwise and self.plane.table.playing[live.row]:
            # The packets that are left must be of the codec whose number they will bear, and as long as the peer wants them.
            track = self._track(live, live.clip)
            self.plane.play(live.row, track.rest(self.plane.played_ms(live.row)), track.packet_ms)
        if changed and not live.call.ended:
            types = [[p.number, p.name, p.clock_rate_hz] for p in plan.payload_types]
            detail = json.dumps({"codec": plan.codec.value, "payload_types": types, "srtp": suite_of(plan)})
            self._notes.event(Event(live.number, time.monotonic_ns(), "media", detail))
        self._mark_hold(live, is_held=is_held)

    def _mark_hold(self, live: Live, *, is_held: bool) -> None:
        """Note a hold or its end; during a hold nobody is expected to speak, so silence does not end the recording."""
        if is_held is live.held:
            return
        live.held = is_held
        now_ns = time.monotonic_ns()
        self.plane.hold(live.row, now_ns, is_held=is_held)
        if not live.call.ended:
            self._notes.event(Event(live.number, now_ns, "hold" if is_held else "resume"))

    def _cut(self, live: Live) -> tuple[Codec, int]:
        plan = live.media.plan
        return (plan.codec, plan.ptime_ms) if plan is not None else (Codec.PCMU, negotiation.USUAL_PTIME_MS)

    def _track(self, live: Live, clip: str) -> Track:
        return self._clips.track(clip, live.envelope.mailbox, *self._cut(live))

    def _on_bye(self, dialog: sip.DialogId, transaction: sip.TransactionId, request: Request) -> None:
        live = self._live.get(dialog)
        if live is None:
            self.endpoint.respond(transaction, 200)
            return
        live.bye = transaction
        self._note_reason(live, request.get("reason"))
        self._on_gone(dialog, EndReason.CALLER_HUNG_UP)

    def _on_gone(self, dialog: sip.DialogId, reason: EndReason) -> None:
        live = self._live.get(dialog)
        if live is not None:
            live.call.run(live.call.script.caller_gone(reason))

    def _on_reoffer(self, dialog: sip.DialogId, transaction: sip.TransactionId, request: Request) -> None:
        live = self._live.get(dialog)
        if live is None:
            self._on_early_reoffer(dialog, transaction, request)
            return
        media = replace(live.media)
        try:
            body = self._describe(media, request.body)
        except AftertoneError as error:
            self.endpoint.respond(transaction, error.sip_status, headers=warning_of(error, media.host))
            return
        plan, media.plan = media.plan, live.media.plan
        live.media = media
        if request.body and plan is not None:
            self._agree(live, plan)
        self.endpoint.respond(transaction, 200, body=body, content_type=SDP_TYPE)

    def _on_early_reoffer(self, dialog: sip.DialogId, transaction: sip.TransactionId, request: Request) -> None:
        """A new offer before the answer: where the sound goes may change, the codec of a greeting that plays may not."""
        ringing = next((one for one in self._ringing.values() if one.event.dialog_id == dialog), None)
        if ringing is None or ringing.media is None or ringing.media.plan is None:
            self.endpoint.respond(transaction, 481 if ringing is None else 488)
            return
        media, before = replace(ringing.media), ringing.media.plan
        try:
            body = self._describe(media, request.body)
        except AftertoneError as error:
            self.endpoint.respond(transaction, error.sip_status, headers=warning_of(error, media.host))
            return
        plan = media.plan
        if plan is None or (plan.codec, plan.ptime_ms) != (before.codec, before.ptime_ms):
            self.endpoint.respond(transaction, 488)
            return
        ringing.media = media
        self.plane.agree(ringing.row, self._stream_of(plan, media))
        self.endpoint.respond(transaction, 200, body=body, content_type=SDP_TYPE)

    def _on_reoffer_answered(self, dialog: sip.DialogId, offer: bytes, body: bytes) -> None:
        """A refresh of ours said again what holds, and the answer may say anew where the sound goes."""
        live = self._live.get(dialog)
        if live is not None and body:
            live.media.offer = offer
            self._take_answer(live, body)

    def _on_reoffer_confirmed(self, dialog: sip.DialogId, body: bytes) -> None:
        live = self._live.get(dialog)
        if live is not None and body:
            self._take_answer(live, body)

    def _on_request(self, dialog: sip.DialogId, transaction: sip.TransactionId, request: Request) -> None:
        live = self._live.get(dialog)
        self.endpoint.respond(transaction, 200 if live is not None else 481)
        if live is not None and request.method == "INFO":
            key = key_of_info(request)
            if key:
                self._press(live, key)

    # -- media

    def on_media(self, events: list[MediaEvent]) -> None:
        """Take what one tick of the plane brought."""
        for event in events:
            live = self._rows.get(event.row)
            if live is None:
                self._on_early_media(event)
                continue
            script = live.call.script
            match event:
                case Played():
                    live.call.run(script.played())
                case KeyPressed(_, key):
                    self._press(live, key)
                case Silent():
                    live.call.run(script.silent())
                case ToneHeard():
                    live.call.run(script.tone())
                case LongestReached():
                    live.call.run(script.longest())
                case PlainSound():
                    self._note_plain(live)

    def _on_early_media(self, event: MediaEvent) -> None:
        """Take what happens on a row whose call is not answered."""
        match event:
            case Played(row) if not self._early.due(row):
                self.refusals.played(row)
            case KeyPressed(row, "#"):
                self._early.due(row)

    def _press(self, live: Live, key: str) -> None:
        if not live.call.ended:
            self._notes.event(Event(live.number, time.monotonic_ns(), "digit", key))
        live.call.run(live.call.script.key(key))

    # -- what scripts ask

    def play(self, live: Live, clip: str) -> None:
        """Play a clip to a call in the codec that was agreed."""
        live.clip = clip
        track = self._track(live, clip)
        self.plane.play(live.row, track.packets, track.packet_ms)

    def start_recording(self, live: Live) -> None:
        """Journal what arrives from now on."""
        self.plane.record(live.row, live.number, time.monotonic_ns())
        if self.plane.unopened(live.row).plain:
            self._note_plain(live)

    def _note_plain(self, live: Live) -> None:
        if live.plain or live.call.ended:
            return
        live.plain = True
        self.counters["plain_despite_keys"] += 1
        self._notes.event(Event(live.number, time.monotonic_ns(), "plain"))
        self._logger.warning(
            "keys were agreed on, and the sound comes without encryption; it is taken, since sip.srtp does not require it",
            message=str(live.envelope.id),
            peer=live.envelope.peer,
        )

    def _note_what_is_known(self, live: Live, now_ns: int, *, heard: bool) -> None:
        """Note how good the line was, and what no key opened: an empty recording must say that somebody spoke."""
        quality = quality_event(live.number, now_ns, self.plane.quality(live.row))
        if quality is not None:
            self._notes.event(quality)
        unopened = self.plane.unopened(live.row)
        if unopened.plain:
            self._note_plain(live)
        if unopened.packets < NOTABLE_PACKETS:
            return
        self._notes.event(Event(live.number, now_ns, "unopened", str(unopened.packets)))
        if not heard:
            self.counters["unopened"] += 1
            self._secrecies.unheard(live.envelope.peer)
            self._logger.error(
                "sound came that no key opens",
                message=str(live.envelope.id),
                peer=live.envelope.peer,
                packets=unopened.packets,
            )

    def alarms(self) -> list[dict[str, str]]:
        """Return what somebody must know about calls."""
        return self._secrecies.alarms()

    def end_recording(self, live: Live, reason: EndReason) -> None:
        """Journal the end of a recording; the call hears when it is durable."""
        now_ns = time.monotonic_ns()
        since_ns = int(self.plane.table.recording_since_ns[live.row])
        last_sound_ns = self.plane.finish(live.row, now_ns)
        trailing = reason in (EndReason.SILENCE, EndReason.TONE)
        end = End(
            live.number,
            now_ns,
            self._clock.now().unix_ms,
            reason.value,
            (last_sound_ns or since_ns) if trailing else 0,
        )
        self.counters[f"ended_{reason.value}"] += 1
        try:
            self._note_what_is_known(live, now_ns, heard=last_sound_ns > 0)
        except Exception:
            # It is good to have, and the end is a promise.
            self._logger.exception("what is known of a call could not be noted", message=str(live.envelope.id))
        try:
            sequence = self._journal.append(Kind.END, end.pack(), urgent=True)
        except AftertoneError as error:
            self._logger.error(
                "the end of a recording was not journalled", message=str(live.envelope.id), error=str(error)
            )
            self._loop.call_soon(self._let_go, live)
            return
        timer = self._loop.call_later(END_WITHIN_S, self._give_up_waiting, live)
        self._durability.when(sequence, lambda: self._end_is_durable(live, timer))
        self._logger.info("recording ended", message=str(live.envelope.id), reason=reason.value)

    def _end_is_durable(self, live: Live, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        live.kept = True
        self._let_go(live)

    def _give_up_waiting(self, live: Live) -> None:
        self._logger.error("the disk did not confirm the end of a recording in time", message=str(live.envelope.id))
        self._let_go(live)

    def _let_go(self, live: Live) -> None:
        live.call.end_became_durable()

    def confirm_hang_up(self, live: Live) -> None:
        """Answer the caller's BYE and forget the call. 200 says that the end is durable; without that the answer is 500."""
        if live.bye is not None:
            self.endpoint.respond(live.bye, 200 if live.kept else 500)
            self._release(live.dialog)
        elif live.cancelled:
            self._release(live.dialog)

    def _release(self, dialog: sip.DialogId) -> None:
        live = self._live.pop(dialog, None)
        if live is None:
            return
        if live.waiting is not None:
            live.waiting.cancel()
        self._rows.pop(live.row, None)
        self.plane.release(live.row)
        if self._admission() is not None:
            # The room that is left, and the reserve, are for what callers say.
            self.traces.forget(dialog.call_id)
        elif self.traces.keeps(dialog.call_id):
            # In a turn of its own: the last answer is still to be sent.
            self._loop.call_soon(self.traces.write, self._notes, live.envelope.id, live.number, dialog.call_id)
