"""The clock of the line: the wall clock, and what the machine has to say for it.

Owns: reading the clocks, the kernel's word on synchronisation, the hardware clock, and telling the log when the clock is set
or loses trust. Refuses to know: what follows from the evidence (``timekeeper``).

Specification: adjtimex(2) for STA_UNSYNC; the kernel's Documentation/ABI/testing/sysfs-class-rtc for ``since_epoch``.

Theory of operation: synchronised is what adjtimex(2) says; asking changes nothing and needs no rights. Daemons tell the kernel,
chrony only with ``rtcsync`` in its settings. Time was kept over a power cut where the machine is a guest, whose host has a
clock, or where a hardware clock shows nearly the time of the wall clock. One whose battery is empty, or that never had any
(some boards have the chip and no battery), starts at a year of its own and does not agree. A clock whose driver does not
show its time is taken for one that agrees.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from aftertone.journal.segment import Floor
from aftertone.model import Clock
from aftertone.roles.timekeeper import Evidence, Reading, Timekeeper

AGREES_WITHIN_S: Final = 86_400
"""A hardware clock may run in local time, up to 14 hours away, and drift; an empty battery is off by months and more."""
LOOK_AGAIN_NS: Final = 60_000_000_000
"""Asking a hardware clock takes a slow bus on small boards, so its word holds for a minute, or until the clock is set."""

_STA_UNSYNC: Final = 0x40
_HOSTS: Final = ("kvm-clock", "hyperv", "xen")
"""Beginnings of the names of clock sources that a host provides."""


_LIBC: Final = ctypes.CDLL(None)


class _Timex(ctypes.Structure):
    """The beginning of struct timex of adjtimex(2), up to the field that is read, and room for all the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def is_synchronised() -> bool:
    """Say whether the kernel takes the wall clock for synchronised; False where it cannot be asked."""
    values = _Timex()
    try:
        state = _LIBC.adjtimex(ctypes.byref(values))
    except (OSError, AttributeError):
        return False
    return state >= 0 and not values.status & _STA_UNSYNC


class Ground:
    """What the machine has to say for its clock. ``sys`` and ``proc`` are where the kernel shows itself."""

    def __init__(
        self,
        sys: Path = Path("/sys"),
        proc: Path = Path("/proc"),
        synchronised: Callable[[], bool] = is_synchronised,
    ) -> None:
        self._clocks = sys / "class" / "rtc"
        self._synchronised = synchronised
        self._is_guest = _is_guest(sys, proc)

    def kept_time(self, wall_ms: int) -> bool:
        """Say whether something counted on while the machine was off, and agrees with ``wall_ms``. May take milliseconds."""
        return self._is_guest or any(_agrees(clock, wall_ms) for clock in self._hardware_clocks())

    def is_synchronised(self) -> bool:
        """Say whether the kernel takes the wall clock for synchronised. Microseconds."""
        return self._synchronised()

    def look(self, wall_ms: int) -> Evidence:
        """Return all the evidence."""
        return Evidence(self.is_synchronised(), self.kept_time(wall_ms))

    def _hardware_clocks(self) -> list[Path]:
        try:
            return sorted(self._clocks.iterdir())
        except OSError:
            return []


def _agrees(clock: Path, wall_ms: int) -> bool:
    try:
        shown_s = int((clock / "since_epoch").read_text(encoding="ascii"))
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        # EINVAL: the chip itself says that it lost its time.
        return False
    return abs(shown_s - wall_ms / 1000) <= AGREES_WITHIN_S


def _is_guest(sys: Path, proc: Path) -> bool:
    source = _text(sys / "devices" / "system" / "clocksource" / "clocksource0" / "current_clocksource")
    if source.startswith(_HOSTS):
        return True
    flags = (line for line in _text(proc / "cpuinfo").splitlines() if line.startswith("flags"))
    return "hypervisor" in next(flags, "").split()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def boot_ns() -> int:
    """Return the time since the machine was started, also that which it slept, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class LineClock:
    """The clock that a line asks. One thread asks it; ``resume`` and ``floor`` may be called by any."""

    def __init__(
        self,
        logger: structlog.typing.FilteringBoundLogger | None = None,
        *,
        ground: Ground | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = boot_ns,
    ) -> None:
        self._logger = logger if logger is not None else structlog.get_logger("aftertone.line")
        self._ground = ground if ground is not None else Ground()
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._keeper = Timekeeper()
        self._mutex = threading.Lock()
        self._kept_time = False
        self._looked_ns: int | None = None
        self._clock: Clock | None = None

    def resume(self, floor: Floor) -> None:
        """Go on from where earlier runs were, as their journal tells. Any thread."""
        with self._mutex:
            self._keeper.resume(floor)

    def floor(self) -> Floor:
        """Return what a segment that is made now should say of the time. Any thread."""
        with self._mutex:
            return self._keeper.floor()

    def now(self) -> Reading:
        """Read the clock. Logs each time that it was set, and when it gains or loses trust."""
        wall_ms, now_ns = self._wall_ns() // 1_000_000, self._monotonic_ns()
        was_set = self._keeper.step_ms(wall_ms, now_ns) != 0
        if was_set or self._looked_ns is None or now_ns - self._looked_ns > LOOK_AGAIN_NS:
            self._kept_time, self._looked_ns = self._ground.kept_time(wall_ms), now_ns
        evidence = Evidence(self._ground.is_synchronised(), self._kept_time)
        with self._mutex:
            reading = self._keeper.read(wall_ms, now_ns, evidence)
        if reading.step_ms:
            self._logger.warning("the clock of the machine was set", by_s=reading.step_ms / 1000)
        if reading.clock is not self._clock:
            if reading.clock is Clock.UNSURE:
                self._logger.warning("the clock is not to be trusted: times may be wrong, the order is not")
            elif self._clock is not None:
                self._logger.warning("the clock is to be trusted again")
            self._clock = reading.clock
        return reading

    def mint(self, reading: Reading, entropy: bytes) -> UUID:
        """Return an id that comes after every one before, whatever the clock did. ``entropy``: 10 random bytes."""
        with self._mutex:
            return self._keeper.mint(reading.unix_ms, entropy)
