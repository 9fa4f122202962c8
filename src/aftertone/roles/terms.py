"""Terms: what signalling agreed, in the words of the media plane.

Owns: small translations: a media plan into a stream, an INFO into a key, a fault of a description into a Warning, what a peer reported of
the sound into a note of the journal. Refuses to know: calls.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Final

from aftertone.errors import AftertoneError
from aftertone.journal.record import Event
from aftertone.media.reports import LineQuality
from aftertone.media.table import Stream
from aftertone.sdp.negotiation import MediaPlan
from aftertone.sip.flow import bracketed
from aftertone.sip.headers import quote
from aftertone.sip.message import Request

MAX_WARNING: Final = 120


def stream_of(plan: MediaPlan, *, plain_is_taken: bool = False) -> Stream:
    """Return what the media plane must know of a plan; ``plain_is_taken`` although keys were agreed on."""
    sends = plan.direction in ("sendrecv", "sendonly")
    return Stream(
        codec=plan.codec,
        payload_type=plan.payload_type,
        accepted=tuple(p.number for p in plan.payload_types),
        telephone_event=plan.telephone_event,
        comfort_noise=plan.comfort_noise,
        remote=plan.remote if sends else None,
        ptime_ms=plan.ptime_ms,
        sending=plan.keys.sending if plan.keys else None,
        receiving=plan.keys.receiving if plan.keys else None,
        plain_is_taken=plain_is_taken,
        remote_rtcp=plan.remote_rtcp,
        rtcp_mux=plan.rtcp_mux,
    )


def is_on_hold(plan: MediaPlan) -> bool:
    """Tell whether the caller does not want to hear us: hold, with or without music (RFC 3264 section 8.4)."""
    return plan.direction in ("recvonly", "inactive")


def warning_of(error: AftertoneError, host: str) -> list[tuple[str, str]]:
    """Return the Warning header that goes with a refused description, none for other faults (RFC 3261 section 20.43)."""
    if error.sip_status not in (488, 606):
        return []
    return [("Warning", f"305 {bracketed(host)} {quote(str(error)[:MAX_WARNING])}")]


def quality_event(call: int, at_ns: int, quality: LineQuality) -> Event | None:
    """Return the note of what the peer reported about a call's sound; None when it reported nothing."""
    if quality.peer_lost is None and quality.round_trip_ms is None and not quality.said_goodbye:
        return None
    return Event(call, at_ns, "quality", json.dumps(dataclasses.asdict(quality)))


def key_of_info(request: Request) -> str | None:
    """Return the key in an INFO of ``application/dtmf-relay`` (``Signal=5``) or ``application/dtmf`` (``5``), else None."""
    kind = (request.content_type or "").partition(";")[0].strip().lower()
    text = request.body[:200].decode("ascii", "replace")
    if kind == "application/dtmf-relay":
        fields = (line.partition("=") for line in text.splitlines())
        text = next((value for name, _, value in fields if name.strip().lower() == "signal"), "")
    elif kind != "application/dtmf":
        return None
    key = text.strip().upper()
    return {"10": "*", "11": "#"}.get(key, key) if key in {*"0123456789*#ABCD", "10", "11"} else None
