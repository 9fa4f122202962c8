"""The small facts of a call that a message shows and nobody searches by.

Owns: their JSON form, one object, in the catalog's column ``details`` and in the tags of the audio. Refuses to know: rows, tags.

Theory of operation: a fact that is not there says nothing, so old rows and files stay valid and a new fact needs no
migration: a key here, a field of ``model.Message``, and both ways carry it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from aftertone.model import Message, Origin


class Details(TypedDict):
    """The fields of a message that travel in the object."""

    holds: tuple[tuple[int, int], ...]
    end_detail: str
    origin: Origin
    srtp: str
    jitter_ms: int | None
    peer_lost: int | None
    round_trip_ms: int | None


def pack_details(message: Message) -> dict[str, object]:
    """Return the object; what a message does not have is left out."""
    found: dict[str, object] = {
        "holds": [list(span) for span in message.holds],
        "end_detail": message.end_detail,
        "origin": {name: value for name, value in message.origin.to_json().items() if value},
        "srtp": message.srtp,
        "jitter_ms": message.jitter_ms,
        "peer_lost": message.peer_lost,
        "round_trip_ms": message.round_trip_ms,
    }
    return {name: value for name, value in found.items() if value not in (None, "", [], {})}


def unpack_details(data: Mapping[str, Any]) -> Details:
    """Return the fields; keys that this program does not know are ignored. Raises TypeError, ValueError."""
    holds = tuple((int(first), int(last)) for first, last in data.get("holds", ()))
    return Details(
        holds=holds,
        end_detail=str(data.get("end_detail", "")),
        origin=Origin.from_json(data.get("origin")),
        srtp=str(data.get("srtp", "")),
        jitter_ms=_figure(data, "jitter_ms"),
        peer_lost=_figure(data, "peer_lost"),
        round_trip_ms=_figure(data, "round_trip_ms"),
    )


def _figure(data: Mapping[str, Any], name: str) -> int | None:
    return None if data.get(name) is None else int(data[name])
