"""One evening on a real file system, and its cuts: the disk is made again, mounted, started and judged.

Owns: playing an evening on a recorded disk, what had been said at each point of its log, trying one cut, the tally. Refuses to know: which
cuts are worth trying, what a disk may do (`block_cuts`), how to mount (`block_device`), what is right (`oracle`).

Theory of operation: the evening runs in a process of its own on a file system of this kernel, and every request to the disk below is
in one log with what was said. Then the disk is made again as it may be after a cut, and mounted: the kernel plays back its journal as
it does at a boot. What the machine makes of it is judged against every moment at which this disk can have been left behind.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.powercut import block_device as devices
from tests.crash.powercut.block_cuts import BEGINNING, Medium, Selection
from tests.crash.powercut.block_device import (
    FAULTS,
    FILE_SYSTEMS,
    IMAGE,
    WORDS,
    BlockLog,
    Fault,
    Repairs,
    attached,
    mounted,
    repaired,
    settle,
)
from tests.crash.powercut.operations import Said
from tests.crash.powercut.oracle import Found, Promises, judge, recover
from tests.crash.powercut.user_mounts import mounted as serving
from tests.crash.powercut.user_mounts import play_evening


@dataclass(frozen=True, slots=True)
class Evening:
    """An evening that was played on a recorded disk."""

    kind: str
    log: Path
    failure: str = ""
    """How it failed, which it may only when the disk did."""
    found: Found | None = None
    """What was there after the disk was mounted again, for an evening in which a write failed."""


def play(kind: str, folder: Path, mutant: str = "none", fault: Fault | None = None) -> Evening:
    """Play an evening; with ``fault`` a write fails, and the machine is started on that disk afterwards. Raises OSError."""
    system = FILE_SYSTEMS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    device, point, log = folder / "device", folder / "mnt", folder / "log"
    found: Found | None = None
    with serving(devices.__name__, device, str(system.size), str(log)):
        image = device / IMAGE
        with attached(image, direct=True) as disk:
            if devices.run(*system.make, disk) != 0:
                raise OSError(f"{system.make[0]} failed")
            with mounted(disk, point, system):
                settle(point)
                (device / WORDS).write_text(BEGINNING + "\n")
                if fault is not None:
                    (device / FAULTS).write_text(fault.line())
                failure = play_evening(point, device / WORDS, mutant)
        if fault is not None:
            # From the medium: what the kernel kept in its caches went with the device.
            with attached(image, direct=True) as disk, repaired(disk, point, system, Repairs()):
                found = start(point)
    if failure and fault is None:
        raise OSError(f"the evening failed: {failure}")
    return Evening(kind, log, failure, found)


def start(root: Path) -> Found:
    """Start the machine and look at everything; an error that it does not know is something that was found."""
    try:
        return recover(root)
    except Exception as error:
        return Found(problems=[f"recovery crashed: {type(error).__name__}: {error}"])


def crashed(found: Found) -> bool:
    """Tell whether the machine met an error that it does not know."""
    return any(problem.startswith("recovery crashed") for problem in found.problems)


class Story:
    """What had been said at each point of a log."""

    def __init__(self, log: BlockLog) -> None:
        self._log = log
        self._points = [
            point for point in range(len(log)) if point + 1 == len(log) or not isinstance(log[point + 1], Said)
        ]
        self._told = [Promises()]
        self._heard: list[int] = []
        for entry in log:
            if isinstance(entry, Said):
                self._told.append(copy.deepcopy(self._told[-1]))
                self._told[-1].hear(entry.text)
            self._heard.append(len(self._told) - 1)
        self._latest_ns = _latest(log)

    def at(self, selection: Selection) -> Iterator[tuple[int, Promises, int]]:
        """Yield every point at which this cut can have come, what had been said, and how late it can have been."""
        for point in self._points:
            if selection.first_point <= point < selection.epoch.end:
                yield point, self._told[self._heard[point]], self._latest_ns[point]

    @property
    def end(self) -> Promises:
        """What had been said in the end."""
        return self._told[-1]


def _latest(log: BlockLog) -> list[int]:
    """Return for each point the next moment that is told after it, or the last one."""
    moments = [_moment(entry.text) if isinstance(entry, Said) else None for entry in log]
    last_ns = max((moment for moment in moments if moment is not None), default=0)
    latest, next_ns = [0] * len(log), last_ns
    for point in range(len(log) - 1, -1, -1):
        latest[point] = next_ns
        moment = moments[point]
        next_ns = next_ns if moment is None else moment
    return latest


def _moment(text: str) -> int | None:
    word = json.loads(text)
    return int(word[1]) if word[0] == "time" else None


# -- cuts


@dataclass(slots=True)
class Tally:
    """What was tried and what came of it."""

    cuts: int = 0
    judgements: int = 0
    repairs: Repairs = field(default_factory=Repairs)
    lost: int = 0
    """Cuts after which something was missing."""
    crashed: int = 0
    """Starts that met an error the machine does not know."""
    violations: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another tally."""
        self.cuts += other.cuts
        self.judgements += other.judgements
        self.repairs.boot += other.repairs.boot
        self.repairs.by_hand += other.repairs.by_hand
        self.repairs.beyond += other.repairs.beyond
        self.lost += other.lost
        self.crashed += other.crashed
        self.violations += other.violations

    @property
    def kinds(self) -> Counter[str]:
        """The violations by what they say, numbers left out."""
        return Counter("".join("#" if char.isdigit() else char for char in text) for text in self.violations)


class Bench:
    """Tries cuts of one evening in a folder of its own."""

    def __init__(self, evening: Evening, folder: Path) -> None:
        self._kind = FILE_SYSTEMS[evening.kind]
        self.log = devices.load(evening.log)
        self.story = Story(self.log)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._medium = Medium(self.log, self._kind.size, folder)

    def cut(self, selection: Selection, tally: Tally, *, lenient: bool = False, keeps_time: bool = True) -> None:
        """Try one cut.

        ``lenient``: what a file system loses that is mounted only after a check by hand, or not at all, is not ours.
        ``keeps_time``: unfinished speech must be there but for the last quarter of a second.
        """
        tally.cuts += 1
        by_hand = tally.repairs.by_hand
        self._medium.become(selection)
        try:
            with (
                attached(self._medium.path) as disk,
                repaired(disk, self._folder / "mnt", self._kind, tally.repairs) as root,
            ):
                found = start(root)
        except OSError as error:
            tally.lost += 1
            if not lenient:
                tally.violations.append(f"the file system is beyond repair: {error} ({_describe(selection)})")
            return
        is_repaired = tally.repairs.by_hand > by_hand
        broken = self._judge(selection, found, tally, keeps_time=keeps_time)
        if is_repaired and not lenient:
            broken.append(f"the file system takes a check by hand ({_describe(selection)})")
        tally.lost += bool(broken)
        tally.crashed += crashed(found)
        if not (is_repaired and lenient) or crashed(found):
            tally.violations += broken

    def _judge(self, selection: Selection, found: Found, tally: Tally, *, keeps_time: bool) -> list[str]:
        broken: dict[str, str] = {}
        for point, said, latest_ns in self.story.at(selection):
            tally.judgements += 1
            for text in judge(found, said, latest_ns if keeps_time else 0):
                broken.setdefault(text, f"{text} (entry {point}, {_describe(selection)})")
        return list(broken.values())

    def close(self) -> None:
        """Give everything back."""
        self._medium.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _describe(selection: Selection) -> str:
    return f"flush {selection.epoch.number}, {selection.how}"
