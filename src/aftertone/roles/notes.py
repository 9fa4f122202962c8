"""Notes: what is good to have in the journal, and no reason to fail: keys, changes of the sound, refused calls, signalling.

Owns: writing them without ever raising, and the limit on refusals. Refuses to know: begins and ends, which promises rest on.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from aftertone.errors import AftertoneError
from aftertone.journal.record import Event, Kind, Refused, Signalling
from aftertone.model import Caller
from aftertone.roles.clock import LineClock
from aftertone.sip.trace import blanked
from aftertone.sip.uri import readable

REFUSALS_A_MINUTE: Final = 60
"""More refused calls than this in a minute are a flood: they are counted, and no longer logged and journalled one by one."""
MAX_REASON: Final = 200
MAX_URI: Final = 500


class Journal(Protocol):
    """The one thing that is asked of the journal by those who take calls."""

    def append(self, kind: Kind, payload: bytes, *, arrival_ns: int | None = None, urgent: bool = False) -> int: ...


class Notes:
    """Writes notes for one line. A disk that takes nothing has its alarm already, so a lost note is only logged."""

    def __init__(
        self,
        journal: Journal,
        entropy: Callable[[int], bytes],
        logger: structlog.typing.FilteringBoundLogger,
        clock: LineClock | None = None,
    ) -> None:
        self._journal, self._entropy, self._logger = journal, entropy, logger
        self._clock = clock if clock is not None else LineClock(logger)
        self._minute = 0
        self._refusals = 0

    def event(self, event: Event) -> None:
        """Note that something happened in a call."""
        self._append(Kind.EVENT, event.pack)

    def signalling(self, signalling: Signalling) -> None:
        """Note what was said about a call on the wire."""
        self._append(Kind.SIGNALLING, signalling.pack)

    def refusal(self, status: int, reason: str, caller: Caller, request_uri: str) -> bool:
        """Note a refused call for the owner, up to ``REFUSALS_A_MINUTE``; False beyond."""
        minute = int(time.monotonic() // 60)
        self._refusals = self._refusals + 1 if minute == self._minute else 1
        self._minute = minute
        if self._refusals > REFUSALS_A_MINUTE:
            return False
        self._refused(status, reason, caller, request_uri)
        return True

    def more_refusals(self, status: int, count: int) -> None:
        """Note that so many more calls were refused, one of them with ``status``."""
        self._refused(status, f"{count} more calls were refused within a minute", Caller(), "")

    def _refused(self, status: int, reason: str, caller: Caller, request_uri: str) -> None:
        now = self._clock.now()
        refusal_id = self._clock.mint(now, self._entropy(10))
        uri = uri_text(request_uri)[:MAX_URI]
        self._append(Kind.REFUSED, Refused(refusal_id, now.unix_ms, status, reason[:MAX_REASON], caller, uri).pack)

    def _append(self, kind: Kind, pack: Callable[[], bytes]) -> None:
        try:
            self._journal.append(kind, pack())
        except (AftertoneError, ValueError, struct.error) as error:
            # The latter two: too long for a record, or text that is none. What follows a note is often the end of a call.
            self._logger.warning("a note was not journalled", kind=kind.name, error=str(error))


def readable_text(text: str) -> str:
    """A peer writes these bytes, which need not be UTF-8; the catalog's text must be."""
    return readable(text.encode("utf-8", "surrogateescape"))


def uri_text(uri: str) -> str:
    """Return a Request-URI as it may be kept: without a password, and without the mark by which an account's calls are known."""
    return readable(blanked(uri.encode("utf-8", "surrogateescape")))
