"""A disk that fails at the n-th call, for every n.

Owns: which faults strike which call, the outcome. Refuses to know: what is right (`oracle`).

Theory of operation: a short evening is played once to learn its calls, and then once for each call and each fault that this call
can have: an error, no room, half the bytes, an interruption; and errors that stay for a while. Whoever asked for something asks
again, so the evening must come to its end with everything confirmed. Then everything must be there: as programs see it, and after a
power cut that takes all that is not synced.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.crash.powercut.disk import state_of
from tests.crash.powercut.evening import play_briefly
from tests.crash.powercut.operations import Said
from tests.crash.powercut.oracle import Promises, judge, recover
from tests.crash.powercut.recorder import Recorder
from tests.crash.powercut.recording import memory, perform
from tests.crash.powercut.search import cuts, pool
from tests.support.files import Fault, Injector, nowhere

BURST_CALLS: Final = 9
"""Calls in a row that fail when a disk is away for a while."""
_READS: Final = ("read", "sqlite read", "open_read")
_PIECEMEAL: Final = ("write", "read", "sqlite write")
_INTERRUPTED: Final = ("write", "read", "fdatasync", "sqlite write")


@dataclass(frozen=True, slots=True)
class Strike:
    """Where a fault strikes."""

    call: int
    fault: Fault
    length: int = 1
    """So many calls in a row."""

    def inject(self, call: int, operation: str) -> Fault | None:
        """Strike, when it is time."""
        return self.fault if self.call <= call < self.call + self.length else None


@dataclass(slots=True)
class Outcome:
    """What came of some strikes."""

    strikes: Counter[str] = field(default_factory=Counter)
    recoveries: int = 0
    violations: list[str] = field(default_factory=list)


def strikes(calls: Sequence[str]) -> list[Strike]:
    """Return every strike that makes sense for an evening with these calls; the first ones, which start it, fail twice, too."""
    found: list[Strike] = []
    for number, operation in enumerate(calls, 1):
        found.append(Strike(number, Fault.EIO))
        if operation not in _READS:
            found.append(Strike(number, Fault.ENOSPC))
        if operation in _PIECEMEAL:
            found.append(Strike(number, Fault.SHORT))
        if operation in _INTERRUPTED:
            found.append(Strike(number, Fault.EINTR))
    found += [Strike(number, fault, 2) for number in range(1, 20) for fault in (Fault.EIO, Fault.ENOSPC)]
    return [*found, *(Strike(number, Fault.EIO, BURST_CALLS) for number in range(1, len(calls) + 1, 8))]


def calls_of_a_short_evening() -> list[str]:
    """Return the calls that the short evening makes when nothing fails."""
    recorder, _ = _play(nowhere)
    return recorder.calls


def strike_all(chosen: Sequence[Strike]) -> Outcome:
    """Play an evening for each strike, on all processors."""
    outcome = Outcome()
    size = 25
    parts = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    for part in [pool().submit(strike_some, part) for part in parts]:
        done = part.result()
        outcome.strikes += done.strikes
        outcome.recoveries += done.recoveries
        outcome.violations += done.violations
    return outcome


def strike_some(chosen: Sequence[Strike]) -> Outcome:
    """Play an evening for each strike."""
    outcome = Outcome()
    for strike in chosen:
        _strike(strike, outcome)
    return outcome


def _strike(strike: Strike, outcome: Outcome) -> None:
    recorder, failure = _play(strike.inject)
    name = f"{strike.fault.value} at call {strike.call} ({recorder.struck or 'never reached'})"
    if strike.length > 1:
        name = f"{strike.length} x {name}"
    outcome.strikes[strike.fault.value if strike.length == 1 else "a while"] += 1
    if failure:
        outcome.violations.append(f"{name}: the evening did not come to its end: {failure}")
        return
    said = Promises()
    for operation in recorder.log:
        if isinstance(operation, Said):
            said.hear(operation.text)
    if said.started != said.begun or said.ending != said.ended:
        outcome.violations.append(f"{name}: not everything was confirmed")
    *_, last = cuts(recorder.log)
    root = recorder.root
    for what in ("what programs see", "after a cut"):
        if what == "after a cut":
            state_of(last.disk, []).write(root)
        outcome.recoveries += 1
        outcome.violations += [f"{name}, {what}: {text}" for text in judge(recover(root), said)]
    shutil.rmtree(root, ignore_errors=True)


def _play(inject: Injector) -> tuple[Recorder, str]:
    root = Path(tempfile.mkdtemp(prefix=f"aftertone-fault-{os.getpid()}-", dir=memory()))
    recorder = Recorder(root, inject)
    try:
        perform(recorder, play_briefly)
    except Exception as error:
        shutil.rmtree(root, ignore_errors=True)
        return recorder, f"{type(error).__name__}: {error}"
    return recorder, ""
