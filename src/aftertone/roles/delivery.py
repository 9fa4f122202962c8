"""Delivery's process: what the line journalled becomes messages.

Owns: the clockwork around the deliverer and its status. Refuses to know: what a step does.

Theory of operation: a plain loop: step, and when there was nothing to do, wait a moment or for SIGTERM. Storage that is away
is tried again with growing pauses; the journal keeps everything meanwhile. On SIGTERM one more round is made, so that the
calls which the line has just ended are delivered before the machine stops.
"""

from __future__ import annotations

import signal
import time
from typing import Final

from aftertone.delivery.deliver import Deliverer
from aftertone.errors import AftertoneError
from aftertone.files import OsFiles
from aftertone.journal.reader import READ_PATIENCE, JournalReader
from aftertone.roles.counts import Publisher
from aftertone.roles.folder import write_status
from aftertone.roles.process import Start, run_role
from aftertone.store.blobs import DirectoryBlobs
from aftertone.store.catalog import Catalog

IDLE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0
STATUS_S: Final = 1.0


def _stopped(seconds: float) -> bool:
    return signal.sigtimedwait({signal.SIGTERM}, seconds) is not None


def main(start: Start) -> None:
    """Deliver until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pause_s = IDLE_S
    while True:
        try:
            catalog = Catalog.open(start.folder.catalog)
        except AftertoneError as error:
            start.logger.error("delivery cannot open the catalog; the journal keeps everything", error=str(error))
            write_status(
                start.folder, "delivery", {"alarms": [_alarm("catalog", f"The catalog cannot be opened: {error}")]}
            )
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            if _stopped(pause_s):
                return
            continue
        try:
            if _deliver(start, catalog):
                return
        except AftertoneError as error:
            start.logger.error("delivery starts again", error=str(error))
        finally:
            catalog.close()
        if _stopped(1.0):
            return


def _deliver(start: Start, catalog: Catalog) -> bool:
    """Deliver until SIGTERM (True) or until the storage must be opened anew (False, or an error)."""
    reader = JournalReader(OsFiles(), start.folder.journal, patience=READ_PATIENCE)
    deliverer = Deliverer(reader, DirectoryBlobs(start.folder.blobs), catalog, logger=start.logger)
    deliverer.recover()
    start.ready({})
    counts = Publisher(start.folder, "delivery", catalog.data_version, catalog.waiting, logger=start.logger)
    told_s = 0.0
    while True:
        worked = deliverer.step(time.monotonic_ns())
        counts.look()
        now_s = time.monotonic()
        if now_s - told_s >= STATUS_S:
            told_s = now_s
            write_status(start.folder, "delivery", {"metrics": deliverer.metrics(), "alarms": _alarms(deliverer)})
        if not worked and _stopped(IDLE_S):
            deliverer.step(time.monotonic_ns())
            counts.look(at_once=True)
            return True


def _alarm(code: str, text: str) -> dict[str, str]:
    return {"code": code, "text": text}


def _alarms(deliverer: Deliverer) -> list[dict[str, str]]:
    """Return what an owner should know: recordings that wait for help, and damage in the journal."""
    failing = deliverer.failing()
    damage = int(deliverer.metrics()["damage"])
    alarms = []
    if failing:
        alarms.append(
            _alarm("delivery", f"{len(failing)} recordings cannot be delivered yet; nothing is lost. {failing[0]}")
        )
    if damage:
        alarms.append(_alarm("journal_damage", f"The journal has {damage} damaged places; run aftertone verify"))
    return alarms


if __name__ == "__main__":
    run_role("delivery", main)
