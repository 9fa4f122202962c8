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


def pack_details(message: Message) -> dict[str, object]:
    """Return the object; what a message does not have is left out."""
    found: dict[str, object] = {
        "holds": [list(span) for span in message.holds],
        "end_detail": message.end_detail,
        "origin": {name: value for name, value in message.origin.to_json().items() if value},
        "srtp": message.srtp,
    }
    return {name: value for name, value in found.items() if value}


def unpack_details(data: Mapping[str, Any]) -> Details:
    """Return the fields; keys that this program does not know are ignored. Raises TypeError, ValueError."""
    holds = tuple((int(first), int(last)) for first, last in data.get("holds", ()))
    return Details(
        holds=holds,
        end_detail=str(data.get("end_detail", "")),
        origin=Origin.from_json(data.get("origin")),
        srtp=str(data.get("srtp", "")),
    )
