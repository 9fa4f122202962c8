"""How many messages wait in each mailbox: told to the line by files.

Owns: ``run/counts-<role>.json``, written by those who have the catalog, read by the line, which has none. Refuses to know: the
catalog itself (what it needs of it comes in as two functions), lamps, and SIP.

Theory of operation: delivery and the desk publish, each for itself, because each goes on when the other is dead. A publisher asks
the catalog five times a second whether any process has committed, which costs microseconds, and counts only then; so a change
by any face is in the file within moments. A file says when the catalog was looked at, by the monotonic clock of the machine,
and is written again each second while nothing changes. The reader takes the file of the latest look: what it says is true but
for the moment, whoever wrote it. When both publishers are dead nothing can change, and the last file holds, after a reboot too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from aftertone.errors import AftertoneError
from aftertone.roles.folder import Folder, write_status

PUBLISHERS: Final = ("delivery", "desk")
LOOK_S: Final = 0.2
"""Between two questions whether anything has changed."""
AGAIN_NS: Final = 1_000_000_000
"""A file that says the same is written again after this, so that its reader knows that it holds."""

Waiting = Mapping[str, tuple[int, int]]
"""New and heard messages by the key of the mailbox (its name in lower case); a mailbox without any may be missing."""


class Publisher:
    """One role that tells. Not for several threads at once."""

    def __init__(
        self,
        folder: Folder,
        role: str,
        version: Callable[[], int],
        waiting: Callable[[], Waiting],
        *,
        logger: structlog.typing.FilteringBoundLogger,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``version`` is another number after any commit by any process; ``waiting`` counts. Both may raise."""
        self._folder, self._name = folder, f"counts-{role}"
        self._version, self._waiting, self._logger, self._clock_ns = version, waiting, logger, clock_ns
        self._seen: int | None = None
        self._counts: Waiting = {}
        self._looked_ns = self._written_ns = -(2**62)
        self._failing = False

    def look(self, *, at_once: bool = False) -> None:
        """Publish if something changed, or if it is time to say that nothing did; returns at once before ``LOOK_S`` is over.

        A catalog that cannot be read is tried again at the next look, and said once in the log.
        """
        now_ns = self._clock_ns()
        if not at_once and now_ns - self._looked_ns < LOOK_S * 1e9:
            return
        self._looked_ns = now_ns
        try:
            version = self._version()
            changed = version != self._seen
            if changed:
                self._counts = self._waiting()
        except AftertoneError as error:
            if not self._failing:
                self._logger.warning("lamps are not told of changes: the catalog cannot be read", error=str(error))
            self._failing = True
            return
        self._failing, self._seen = False, version
        if changed or now_ns - self._written_ns >= AGAIN_NS:
            self._written_ns = now_ns
            # The moment of the look, not of the writing: what was committed in between may be missing.
            write_status(self._folder, self._name, {"looked_ns": now_ns, "waiting": self._counts})


def read_counts(folder: Folder, now_ns: int) -> Waiting | None:
    """Return what the latest look saw, None when nobody ever published or nothing can be read at this moment."""
    best: tuple[bool, int] | None = None
    counts: Waiting | None = None
    for role in PUBLISHERS:
        try:
            value = json.loads((folder.run / f"counts-{role}.json").read_text(encoding="utf-8"))
            looked_ns = int(value["looked_ns"])
            found = {str(key): (int(new), int(heard)) for key, (new, heard) in value["waiting"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Never written, or read in the middle of a rewrite: the next look has it.
            continue
        # The monotonic clock began anew at a boot: a look in the future is one of an earlier boot, older than any of this one.
        rank = (looked_ns <= now_ns, looked_ns)
        if best is None or rank > best:
            best, counts = rank, found
    return counts
