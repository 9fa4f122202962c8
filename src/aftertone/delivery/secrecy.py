"""Whether a call's sound was encrypted on its way, from its envelope and its journalled events, and what no key opened.

Owns: the reading of ``srtp`` in both, and of the events ``plain`` and ``unopened``. Refuses to know: keys; the journal has none.

Theory of operation: the envelope tells what held when the call was answered, a ``media`` event what holds from then on. A message counts
as encrypted when all of the call was, since a listener asks whether anybody could have listened too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from aftertone.journal import Event
from aftertone.model import Envelope

PARTLY: Final = "part of the call was not encrypted on its way"
PLAIN: Final = "keys were agreed on, but the sound came without encryption"
NOTABLE_PACKETS: Final = 25
MOST_PACKETS: Final = 30_000
"""Ten minutes of 20 ms: what an empty recording is long at most."""
_LONGEST_NAME: Final = 60


def read_secrecy(envelope: Envelope, events: Iterable[Event]) -> tuple[str, tuple[str, ...]]:
    """Return the last suite that protected the sound, empty unless all of it was protected, and what is to be noted."""
    # Without a codec nothing was agreed when the call was answered: the first event tells.
    found = [envelope.srtp] if envelope.codec else []
    for event in sorted(events, key=lambda event: event.at_ns):
        if event.name == "plain":
            return "", (PLAIN,)
        if event.name != "media":
            continue
        try:
            found.append(str(json.loads(event.detail)["srtp"])[:_LONGEST_NAME])
        except (ValueError, TypeError, KeyError, RecursionError):
            # Written before calls could be encrypted, or damaged: it says nothing new.
            continue
    if not all(found):
        return "", (PARTLY,) if any(found) else ()
    return (found[-1] if found else ""), ()


def unopened_packets(events: Iterable[Event]) -> int:
    """Return how many packets of sound came that no key opened, 0 for so few that they may be anything."""
    for event in events:
        if event.name == "unopened" and event.detail.isascii() and event.detail.isdigit() and len(event.detail) < 10:
            count = int(event.detail)
            return min(count, MOST_PACKETS) if count >= NOTABLE_PACKETS else 0
    return 0
