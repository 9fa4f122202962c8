"""Cuts the power at every point of a log, in every way that is legal and chosen, and judges what recovery makes of it.

Owns: walking through the log, remembering states that were recovered already, the work of several processes, the tally. Refuses
to know: what is right (`oracle`), what a disk may do (`disk`).

Theory of operation: a cut comes after one operation and after all that was said until the next, at the latest at the next moment
that was told. Many cuts leave the same state; recovery runs once for each, the judgement for each cut. Nested cuts: recovery of
some of these states is recorded itself, together with one more call, and cut at every point in the same way.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from tests.crash.powercut.disk import Disk, State, choices, state_of
from tests.crash.powercut.mutants import SOUND, Mutant, named
from tests.crash.powercut.operations import Log, Operation, Said, Write
from tests.crash.powercut.oracle import Found, Promises, judge, recover
from tests.crash.powercut.recorder import Recorder, RecordingFiles
from tests.crash.powercut.recording import memory, record
from tests.crash.powercut.sqlite_calls import recorded
from tests.support.files import Fault, at_call, nowhere

SECOND_CALL: Final = 9
"""The call that is taken after the first cut."""
PARTS: Final = 8
"""Pieces of a log that processes work on; more than processes, so that they end together."""
FAILING_SYNC: Final = 12
"""The sync of the journal that fails for mutants that need one: in the middle of the first calls."""
_STRIDE: Final = 11
_SECOND_LIVES: Final = 12


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    point: int
    after: str
    """The last operation before the cut."""
    text: str


@dataclass(slots=True)
class Tally:
    """What was tried and what came of it."""

    points: int = 0
    states: int = 0
    recoveries: int = 0
    nested: int = 0
    """Recoveries that were cut themselves."""
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another tally."""
        self.points += other.points
        self.states += other.states
        self.recoveries += other.recoveries
        self.nested += other.nested
        self.violations += other.violations

    @property
    def kinds(self) -> Counter[str]:
        """The violations by what they say, numbers left out."""
        return Counter("".join("#" if char.isdigit() else char for char in one.text) for one in self.violations)


@dataclass(frozen=True, slots=True)
class Depth:
    """How many states a point gets: see `disk.choices`."""

    full: int = 5
    some: int = 6


DEEP: Final = Depth()
SHALLOW: Final = Depth(full=2, some=1)


@dataclass(frozen=True, slots=True)
class Cut:
    """One point of a log."""

    point: int
    after: Operation
    disk: Disk
    said: Promises
    latest_ns: int


def cuts(log: Log, base: Disk | None = None, said: Promises | None = None) -> Iterator[Cut]:
    """Yield every point at which the power may go. The disk and the promises are the walker's own: copy what is kept."""
    disk = Disk() if base is None else copy.deepcopy(base)
    promises = Promises() if said is None else copy.deepcopy(said)
    latest_ns = _latest(log)
    for point, operation in enumerate(log):
        if isinstance(operation, Said):
            promises.hear(operation.text)
        else:
            disk.take(operation)
        is_last = point + 1 == len(log)
        if is_last or not isinstance(log[point + 1], Said):
            yield Cut(point, operation, disk, promises, latest_ns[point])


def _latest(log: Log) -> list[int]:
    """Return for each point the next moment that is told after it."""
    latest, moment_ns = [0] * len(log), 0
    for point in range(len(log) - 1, -1, -1):
        latest[point] = moment_ns
        operation = log[point]
        if isinstance(operation, Said) and operation.text.startswith('["time"'):
            moment_ns = int(operation.text[len('["time", ') : -1])
    last_ns = max(latest, default=0)
    return [moment or last_ns for moment in latest]


class Searcher:
    """Recovers states in a folder of its own and remembers what it found."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="aftertone-cut-", dir=memory()))
        self._found: dict[bytes, Found] = {}

    def found(self, state: State, tally: Tally) -> Found:
        """Recover a state, or remember it."""
        key = state.key
        found = self._found.get(key)
        if found is None:
            state.write(self.root / "cut")
            found = self._found[key] = recover(self.root / "cut")
            tally.recoveries += 1
        return found

    def search(self, log: Log, depth: Depth, seed: int, points: range | None, most: int) -> Tally:
        """Cut a log at each point in ``points`` (None: all), until there are ``most`` violations."""
        tally = Tally()
        for cut in cuts(log):
            if points is not None and cut.point not in points:
                continue
            self._try(cut, depth, seed, tally)
            if len(tally.violations) >= most:
                break
        return tally

    def _try(self, cut: Cut, depth: Depth, seed: int, tally: Tally) -> None:
        tally.points += 1
        for effects in choices(cut.disk, random.Random(f"{seed} {cut.point}"), full=depth.full, some=depth.some):
            state = state_of(cut.disk, effects)
            tally.states += 1
            for text in judge(self.found(state, tally), cut.said, cut.latest_ns):
                tally.violations.append(Violation(cut.point, describe(cut.after), text))

    def hunt(self, log: Log, depth: Depth, seed: int) -> Tally:
        """Look for one violation: at points from all over the log first, then at those between."""
        tally = Tally()
        for start in range(_STRIDE):
            for index, cut in enumerate(cuts(log)):
                if index % _STRIDE == start:
                    self._try(cut, depth, seed, tally)
                    if tally.violations:
                        return tally
        return tally

    def nest(self, log: Log, count: int, depth: Depth, seed: int, most: int, mutant: Mutant) -> Tally:
        """Cut the recoveries of ``count`` states of a log at each of their points; ``mutant`` is what recovers them."""
        tally = Tally()
        rng = random.Random(f"nest {seed}")
        wanted = set(rng.sample(range(len(log)), min(count * 3, len(log))))
        for cut in cuts(log):
            if cut.point not in wanted or tally.nested >= count or not cut.said.ready:
                continue
            effects = rng.choice(list(choices(cut.disk, rng, full=depth.full, some=depth.some)))
            self._nest_one(state_of(cut.disk, effects), cut, depth, seed, tally, mutant)
            if len(tally.violations) >= most:
                break
        return tally

    def _nest_one(self, state: State, cut: Cut, depth: Depth, seed: int, tally: Tally, mutant: Mutant) -> None:
        tally.nested += 1
        root = self.root / "nested"
        state.write(root)
        recorder = Recorder(root)
        base = recorder.found()
        said = copy.deepcopy(cut.said)
        said.cut(cut.latest_ns)
        with recorded(recorder), mutant.patch():
            recover(root, mutant.wrap(RecordingFiles(recorder)), recorder.say, SECOND_CALL)
        for inner in cuts(recorder.log, base, said):
            self._try(inner, depth, seed, tally)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.root, ignore_errors=True)


def describe(operation: Operation) -> str:
    """Return an operation in a few words."""
    if isinstance(operation, Write):
        return f"Write(serial={operation.serial}, offset={operation.offset}, {len(operation.data)} bytes)"
    return str(operation)


# -- several processes


@cache
def pool() -> ProcessPoolExecutor:
    """Return the processes that share the work; they live as long as this one."""
    return ProcessPoolExecutor(os.cpu_count() or 1, multiprocessing.get_context("spawn"), remember_statements)


def remember_statements() -> None:
    """Let all catalogs that this process opens share what SQLAlchemy compiled: half of a recovery's time goes into that."""
    honest, shared = sa.create_engine, LRUCache(500)  # type: ignore[var-annotated]

    def create(*args: Any, **options: Any) -> sa.Engine:
        engine = honest(*args, **options)
        engine._compiled_cache = shared
        return engine

    sa.create_engine = create
    # Statements are remembered for each dialect object; ours are all alike.
    SQLiteDialect_pysqlite.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[method-assign]
    SQLiteDialect_pysqlite.__hash__ = lambda self: 1  # type: ignore[method-assign]


def search(log: Log, depth: Depth = DEEP, *, seed: int = 1, most: int = 50) -> Tally:
    """Cut a log at every point, on all processors."""
    size = -(-len(log) // PARTS)
    parts = [range(start, min(start + size, len(log))) for start in range(0, len(log), size)]
    return _gather(pool().submit(_search, log, depth, seed, part, most) for part in parts)


def nest(log: Log, count: int, *, seed: int = 1, most: int = 50) -> Tally:
    """Cut ``count`` recoveries at every point, on all processors."""
    workers = os.cpu_count() or 1
    each = -(-count // workers)
    return _gather(pool().submit(_nest, log, each, seed * 1000 + part, most, SOUND.name) for part in range(workers))


def hunt(names: Sequence[str]) -> dict[str, Tally]:
    """Let each mutant live through an evening and look for what it breaks, on all processors."""
    hunts = {name: pool().submit(_hunt, name) for name in names}
    return {name: found.result() for name, found in hunts.items()}


def _search(log: Log, depth: Depth, seed: int, points: range, most: int) -> Tally:
    with closing(Searcher()) as searcher:
        return searcher.search(log, depth, seed, points, most)


def _nest(log: Log, count: int, seed: int, most: int, mutant: str) -> Tally:
    with closing(Searcher()) as searcher:
        return searcher.nest(log, count, SHALLOW, seed, most, named(mutant))


def _hunt(name: str) -> Tally:
    mutant = named(name)
    with closing(Searcher()) as searcher:
        if mutant.needs_second_life:
            return searcher.nest(record(), _SECOND_LIVES, SHALLOW, 1, 1, mutant)
        fault = at_call(FAILING_SYNC, Fault.EIO, "fdatasync") if mutant.needs_fault else nowhere
        return searcher.hunt(record(mutant, fault), SHALLOW, 1)


def _gather(parts: Iterable[Future[Tally]]) -> Tally:
    tally = Tally()
    for part in list(parts):
        tally.add(part.result())
    return tally
