"""What one recording becomes: a message, its audio file, and perhaps its packets.

Owns: the decision between message and hang-up, the audio file with its tags. Refuses to know: where anything is stored.

Theory of operation: everything here is a function of the journal's records, so a delivery that is repeated makes the same
bytes. When in doubt it is a message: a detector that fails, packets that cannot be decoded, a beginning that was damaged.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID, uuid5

import numpy as np

from aftertone.audio.flac import write_flac
from aftertone.audio.samples import Samples
from aftertone.audio.vad import speech_spans
from aftertone.delivery.assemble import Assembled, assemble
from aftertone.delivery.held import HeldCall
from aftertone.delivery.quality import told
from aftertone.delivery.rtpdump import SUFFIX, pack_rtpdump
from aftertone.delivery.secrecy import read_secrecy, unopened_packets
from aftertone.journal import PacketBatch
from aftertone.journal.segment import NO_FLOOR, Floor
from aftertone.model import Caller, Clock, EndReason, Envelope, Kind, Message, State, mint_id
from aftertone.store.blobs import message_key
from aftertone.store.rows import valid_mailbox_name
from aftertone.store.tags import pack_tags

DEFAULT_MAILBOX: Final = "main"
LISTEN_MS: Final = 2_000
"""Speech is looked for in pieces of this length, the loudest first: nearly always the first one tells, at the cost of a
thirtieth of a minute. Only a recording in which nobody speaks is listened to as a whole."""
_OVERLAP_MS: Final = 500
REASON: Final = "reason"
"""Name of the event that keeps the Reason header of a BYE or CANCEL."""
LONGEST_DETAIL: Final = 200
_DIGITAL_SILENCE: Final = 16
"""Nothing in a piece is louder than this: two steps of G.711, which is no voice."""

_PACKET_MS: Final = 20

SpeechDetector = Callable[[Samples, int], list[tuple[int, int]]]

_NAMESPACE: Final = UUID("6f0d5bf4-9b0e-5c1a-8a51-6e9d2a1c7f30")


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """A recording, ready to be stored."""

    message: Message
    """Complete but for ``blob_sha256``, ``blob_bytes`` and ``delivered_unix_ms``."""
    audio: bytes
    """The FLAC file, empty when there was no audio."""
    packets_key: str
    packets: bytes
    """The packets as they came, empty unless they are worth keeping."""


def envelope_of(call: HeldCall, unix_ms: int, *, floor: Floor = NO_FLOOR) -> tuple[Envelope, tuple[str, ...]]:
    """Return the call's envelope, or a makeshift when it was lost, and what is to be noted about that.

    ``floor`` is that of the first segment that mentions the call: it gives a makeshift its place among the others.
    """
    if call.begin is None:
        ended_unix_ms = call.end.unix_ms if call.end is not None else 0
        # From the journal alone, so that a delivery that is repeated makes the same id.
        name = uuid5(_NAMESPACE, f"epoch {call.key[0]} call {call.key[1]}")
        makeshift_id = mint_id(floor.id_ms or ended_unix_ms, name.bytes[:10])
        notes = ("the journal lost the beginning of this recording; its caller and mailbox are not known",)
        started_unix_ms = ended_unix_ms or unix_ms
        envelope = Envelope(makeshift_id, DEFAULT_MAILBOX, Caller(), started_unix_ms, "", (), clock=Clock.UNSURE)
        return envelope, notes
    try:
        envelope = Envelope.from_json(json.loads(call.begin.envelope_json))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        begin = call.begin
        notes = ("the envelope of this recording could not be read; its caller and mailbox are not known",)
        envelope = Envelope(begin.message_id, DEFAULT_MAILBOX, Caller(), begin.unix_ms, "", (), clock=Clock.UNSURE)
        return envelope, notes
    envelope = replace(envelope, id=call.begin.message_id)
    if not valid_mailbox_name(envelope.mailbox):
        return envelope, (f"addressed to {envelope.mailbox[:80]!r}, which cannot be a mailbox",)
    return envelope, ()


def wrap(
    call: HeldCall,
    envelope: Envelope,
    packets: PacketBatch,
    *,
    notes: tuple[str, ...] = (),
    detect: SpeechDetector = speech_spans,
) -> Parcel:
    """Turn one finished recording into what is stored of it. Pure; memory as ``assemble``."""
    assembled = assemble(envelope, packets, call.end, call.events)
    unopened = unopened_packets(call.events)
    assembled = _or_silence(assembled, unopened)
    kind, doubts = _kind(assembled, detect)
    reason, oddities = _end_reason(call)
    srtp, openness = read_secrecy(envelope, call.events)
    reported = told(call.events)
    message = Message(
        id=envelope.id,
        mailbox=envelope.mailbox if valid_mailbox_name(envelope.mailbox) else DEFAULT_MAILBOX,
        kind=kind,
        state=State.NEW,
        caller=envelope.caller,
        started_unix_ms=envelope.started_unix_ms,
        duration_ms=assembled.duration_ms,
        audio_ms=assembled.audio_ms,
        cut_off=call.end is None,
        codec=assembled.codec,
        sample_rate_hz=assembled.rate_hz,
        lost_packets=assembled.lost_packets,
        end_reason=reason,
        blob=message_key(envelope.id) if len(assembled.samples) else "",
        blob_sha256="",
        blob_bytes=0,
        mailbox_reason=envelope.mailbox_reason,
        forwarded=envelope.forwarded,
        notes=(
            *notes,
            *assembled.notes,
            *doubts,
            *oddities,
            *openness,
            *_unopened_notes(unopened),
            *_call_notes(call, assembled),
        ),
        clock=envelope.clock,
        holds=assembled.holds,
        jitter_ms=assembled.jitter_ms,
        peer_lost=reported.peer_lost,
        round_trip_ms=reported.round_trip_ms,
        end_detail=_end_detail(call),
        origin=envelope.origin,
        srtp="" if unopened and assembled.undecodable else srtp,
    )
    audio = io.BytesIO()
    if message.blob:
        write_flac(audio, assembled.samples, assembled.rate_hz, pack_tags(envelope, message))
    dump = pack_rtpdump(packets, envelope.started_unix_ms) if assembled.keep_packets else b""
    return Parcel(message, audio.getvalue(), message_key(envelope.id, SUFFIX), dump)


def _or_silence(assembled: Assembled, unopened: int) -> Assembled:
    """Return silence as long as what was said when all of it was such that no key opens it: somebody spoke, which is a message."""
    if not unopened or len(assembled.samples):
        return assembled
    samples = np.zeros(unopened * _PACKET_MS * assembled.rate_hz // 1000, np.int16)
    milliseconds = unopened * _PACKET_MS
    return replace(assembled, samples=samples, duration_ms=milliseconds, audio_ms=milliseconds, undecodable=True)


def _unopened_notes(unopened: int) -> tuple[str, ...]:
    if not unopened:
        return ()
    seconds = max(1, unopened * _PACKET_MS // 1000)
    return (f"sound came that could not be opened, about {seconds} s of it: not encrypted as it was agreed",)


def _kind(assembled: Assembled, detect: SpeechDetector) -> tuple[Kind, tuple[str, ...]]:
    if assembled.undecodable:
        return Kind.MESSAGE, ()
    if not len(assembled.samples):
        return Kind.HANGUP, ()
    try:
        for piece in _loudest_first(assembled.samples, assembled.rate_hz):
            if detect(piece, assembled.rate_hz):
                return Kind.MESSAGE, ()
    except Exception as error:  # whatever a detector dies of, a message is not lost over it
        return Kind.MESSAGE, (f"nobody could tell whether somebody speaks ({type(error).__name__})",)
    return Kind.HANGUP, ()


def _loudest_first(samples: Samples, rate_hz: int) -> list[Samples]:
    length = LISTEN_MS * rate_hz // 1000
    step = length - _OVERLAP_MS * rate_hz // 1000
    pieces = [samples[start : start + length] for start in range(0, len(samples), step)]
    power = [float(np.mean(np.square(piece, dtype=np.float32))) for piece in pieces]
    loudest = sorted(range(len(pieces)), key=power.__getitem__, reverse=True)
    return [pieces[index] for index in loudest if np.abs(pieces[index].astype(np.int32)).max() > _DIGITAL_SILENCE]


def _end_reason(call: HeldCall) -> tuple[EndReason, tuple[str, ...]]:
    if call.end is None:
        return EndReason.CUT_OFF, ()
    try:
        return EndReason(call.end.reason), ()
    except ValueError:
        return EndReason.CUT_OFF, (f"ended for a reason that this version does not know: {call.end.reason[:80]!r}",)


def _end_detail(call: HeldCall) -> str:
    """Return what the peer's BYE said about the end, the last word if there are several."""
    said = [event.detail for event in call.events if event.name == REASON]
    return said[-1][:LONGEST_DETAIL] if said else ""


def _call_notes(call: HeldCall, assembled: Assembled) -> tuple[str, ...]:
    notes = []
    if assembled.digits.strip("#"):
        notes.append(f"keys pressed: {assembled.digits[:80]}")
    if call.damaged:
        notes.append("the journal was damaged while this was recorded; some sound may be missing")
    if assembled.keep_packets:
        notes.append("the packets are kept beside the audio")
    return tuple(notes)
