"""A clerk for the event loop: small files are written on a thread of their own, so that no sound waits for a disk.

Owns: what waits to be written, newest of each kind, and the thread. Refuses to know: files; a job is a function.

Theory of operation: a write of a few hundred bytes into the page cache returns at once, until the disk is so busy that the kernel
makes whoever writes wait for it, for seconds. What the line tells by files (its status, a trace, where phones are) is worth
that wait, but the sound of its calls is not. So jobs are handed over; one that has not begun is replaced by a newer one of its
kind, and at the end the clerk gets a moment to finish. Nothing that was promised to anybody goes this way: that is the journal's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

Job = Callable[[], None]

CLOSE_WITHIN_S: Final = 0.5
"""What the end of a line has for the last files; a disk that takes longer keeps the ones before."""


class Clerk:
    """One thread and at most one waiting job of each kind. All methods return at once, but for ``settle`` and ``close``."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._doing = ""
        self._over = False
        self._thread: threading.Thread | None = None

    def write(self, kind: str, job: Job) -> None:
        """Have ``job`` done soon, in place of one of the same kind that has not begun. An OSError of it is passed over."""
        with self._wake:
            if self._over:
                return
            self._jobs[kind] = job
            if self._thread is None:
                # A daemon: a disk that never answers must not keep the process from ending.
                self._thread = threading.Thread(target=self._work, name="clerk", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def is_free(self, kind: str) -> bool:
        """Tell whether no job of this kind waits or is being done."""
        with self._wake:
            return kind not in self._jobs and self._doing != kind

    def settle(self, within_s: float = CLOSE_WITHIN_S) -> bool:
        """Wait a moment until nothing is left to do; False when it was not done by then."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._jobs and not self._doing, within_s)

    def close(self, within_s: float = CLOSE_WITHIN_S) -> bool:
        """``settle``, and take no more jobs."""
        done = self.settle(within_s)
        with self._wake:
            self._over = True
            self._wake.notify_all()
        return done

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._over)
                if not self._jobs or self._over:
                    return
                self._doing = next(iter(self._jobs))
                job = self._jobs.pop(self._doing)
            try:
                job()
            except OSError:
                # The disk took nothing: the reader sees an older file. The role goes on, and the disk has alarms of its own.
                pass
            except Exception:
                # One kind's mistake must not keep the others from being written for ever.
                _log.exception("a small file could not be written")
            finally:
                with self._wake:
                    self._doing = ""
                    self._wake.notify_all()
