"""What waits for the disk: callbacks that run when a journal record is durable.

Owns: the queue between the journal's writer thread and the event loop. Refuses to know: what is waited for.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable


class Durability:
    """Runs each callback on the loop's thread once its sequence number is durable, in order of the numbers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._durable = 0
        self._woken = False
        self._mutex = threading.Lock()

    def notify(self, sequence: int) -> None:
        """Take the journal's word that everything up to ``sequence`` is durable. Called on the writer's thread."""
        with self._mutex:
            self._durable = max(self._durable, sequence)
            if self._woken:
                return
            self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._release)
        except RuntimeError:
            # The loop is closed: the process is ending and nobody waits any more.
            return

    def when(self, sequence: int, callback: Callable[[], None]) -> None:
        """Run ``callback`` when ``sequence`` is durable, at once if it is. Numbers must not decrease from call to call."""
        # Behind one that waits it waits too, even if both are durable by now: the order is part of the promise.
        if sequence <= self._durable and not self._waiting:
            callback()
        else:
            self._waiting.append((sequence, callback))

    def _release(self) -> None:
        with self._mutex:
            self._woken = False
            durable = self._durable
        while self._waiting and self._waiting[0][0] <= durable:
            self._waiting.popleft()[1]()
