"""The tags by which an audio file carries its own envelope.

Owns: both directions between a message and its tags. Refuses to know: how a file holds tags.

Theory of operation: the audio outlives the catalog. Whoever has the file knows whose it is, when it came and what became of
the call, so a deleted catalog is rebuilt from the files. What an owner did afterwards is not in there: files never change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from aftertone.errors import DamagedError
from aftertone.model import EndReason, Envelope, Kind, Message, State
from aftertone.store.details import pack_details, unpack_details

ENVELOPE_TAG: Final = "AFTERTONE_ENVELOPE"
DELIVERY_TAG: Final = "AFTERTONE_DELIVERY"


def pack_tags(envelope: Envelope, message: Message) -> dict[str, str]:
    """Return the tags of a message's audio: the same arguments give the same text."""
    delivery = {
        "v": 1,
        "kind": message.kind.value,
        "mailbox": message.mailbox,
        "duration_ms": message.duration_ms,
        "audio_ms": message.audio_ms,
        "cut_off": message.cut_off,
        "codec": message.codec,
        "sample_rate_hz": message.sample_rate_hz,
        "lost_packets": message.lost_packets,
        "end_reason": message.end_reason.value,
        "notes": list(message.notes),
        **pack_details(message),
    }
    return {ENVELOPE_TAG: _compact(envelope.to_json()), DELIVERY_TAG: _compact(delivery)}


def unpack_tags(tags: Mapping[str, str], *, blob: str, sha256: str, size: int, delivered_unix_ms: int) -> Message:
    """Return the message, new, that a file's tags tell of. Raises DamagedError when they do not."""
    by_name = {name.upper(): value for name, value in tags.items()}
    try:
        envelope = Envelope.from_json(json.loads(by_name[ENVELOPE_TAG]))
        delivery: dict[str, Any] = json.loads(by_name[DELIVERY_TAG])
        return Message(
            id=envelope.id,
            mailbox=str(delivery["mailbox"]),
            kind=Kind(delivery["kind"]),
            state=State.NEW,
            caller=envelope.caller,
            started_unix_ms=envelope.started_unix_ms,
            duration_ms=int(delivery["duration_ms"]),
            audio_ms=int(delivery["audio_ms"]),
            cut_off=bool(delivery["cut_off"]),
            codec=str(delivery["codec"]),
            sample_rate_hz=int(delivery["sample_rate_hz"]),
            lost_packets=int(delivery["lost_packets"]),
            end_reason=EndReason(delivery["end_reason"]),
            blob=blob,
            blob_sha256=sha256,
            blob_bytes=size,
            mailbox_reason=envelope.mailbox_reason,
            forwarded=envelope.forwarded,
            delivered_unix_ms=delivered_unix_ms,
            notes=tuple(str(note) for note in delivery["notes"]),
            clock=envelope.clock,
            **unpack_details(delivery),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{blob} does not carry the tags of a message ({type(error).__name__})") from error


def _compact(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))
