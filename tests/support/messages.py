"""Messages to put into a catalog."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from aftertone.model import Caller, EndReason, Kind, Message, State, mint_id

_DEFAULT = Message(
    id=mint_id(0, bytes(10)),
    mailbox="main",
    kind=Kind.MESSAGE,
    state=State.NEW,
    caller=Caller("+15550100", "Ada"),
    started_unix_ms=1_750_000_000_000,
    duration_ms=4_200,
    audio_ms=5_000,
    cut_off=False,
    codec="PCMU",
    sample_rate_hz=8000,
    lost_packets=2,
    end_reason=EndReason.CALLER_HUNG_UP,
    blob="messages/00/x.flac",
    blob_sha256="ab" * 32,
    blob_bytes=1234,
    mailbox_reason="default mailbox",
    forwarded=True,
    delivered_unix_ms=1_750_000_005_100,
    notes=("clock not trusted",),
)


def a_message(seed: int, **values: Any) -> Message:
    """Return a message whose id and start follow from ``seed``; ``values`` replace what else it has."""
    started_unix_ms = values.pop("started_unix_ms", _DEFAULT.started_unix_ms + 1000 * seed)
    message_id = mint_id(started_unix_ms, random.Random(seed).randbytes(10))
    return replace(_DEFAULT, **{"id": message_id, "started_unix_ms": started_unix_ms, **values})
