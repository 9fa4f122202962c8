"""What the machine says about its clock, read from trees like those of /sys and /proc."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from aftertone.journal import Floor
from aftertone.model import Clock, id_time_ms
from aftertone.roles.clock import AGREES_WITHIN_S, LOOK_AGAIN_NS, Ground, LineClock, is_synchronised
from aftertone.roles.timekeeper import RELEASED_UNIX_MS, Evidence

NOW_S = RELEASED_UNIX_MS // 1000 + 20_000_000
NOW_MS = NOW_S * 1000
CPU = "processor\t: 0\nmodel name\t: Board\nflags\t\t: fpu vme{} sse2\nbugs\t\t: hypervisor_bug\n"


class Machine:
    """A folder that looks like /sys and /proc."""

    def __init__(self, folder: Path) -> None:
        self.sys, self.proc, self.synchronised = folder / "sys", folder / "proc", False
        self.proc.mkdir(parents=True)
        self.source("tsc")
        (self.proc / "cpuinfo").write_text(CPU.format(""))

    def source(self, name: str) -> None:
        folder = self.sys / "devices" / "system" / "clocksource" / "clocksource0"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "current_clocksource").write_text(f"{name}\n")

    def hardware_clock(self, shown: str | None, name: str = "rtc0") -> None:
        folder = self.sys / "class" / "rtc" / name
        folder.mkdir(parents=True, exist_ok=True)
        if shown is not None:
            (folder / "since_epoch").write_text(f"{shown}\n")

    def look(self) -> Evidence:
        return Ground(self.sys, self.proc, lambda: self.synchronised).look(NOW_MS)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_board_without_a_clock(machine: Machine) -> None:
    assert machine.look() == Evidence(synchronised=False, kept_time=False)
    machine.synchronised = True
    assert machine.look() == Evidence(synchronised=True, kept_time=False)


def test_where_nothing_can_be_read_nothing_is_said(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "none", tmp_path / "none", lambda: False)
    assert ground.look(NOW_MS) == Evidence(synchronised=False, kept_time=False)


@pytest.mark.parametrize(
    ("shown", "kept"),
    [
        (str(NOW_S), True),
        (str(NOW_S + AGREES_WITHIN_S), True),
        (str(NOW_S - 14 * 3600), True),
        (str(NOW_S - AGREES_WITHIN_S - 1), False),
        ("17", False),
        ("", False),
        ("soon", False),
        (None, True),
    ],
)
def test_a_hardware_clock_counts_when_it_agrees(machine: Machine, shown: str | None, kept: bool) -> None:
    machine.hardware_clock(shown)
    assert machine.look().kept_time is kept


def test_one_of_several_hardware_clocks_is_enough(machine: Machine) -> None:
    machine.hardware_clock("17", "rtc0")
    machine.hardware_clock(str(NOW_S), "rtc1")
    assert machine.look().kept_time


def test_a_guest_has_the_clock_of_its_host(machine: Machine) -> None:
    (machine.proc / "cpuinfo").write_text(CPU.format(" hypervisor"))
    assert machine.look().kept_time


@pytest.mark.parametrize("source", ["kvm-clock", "hyperv_clocksource_tsc_page", "xen"])
def test_a_host_may_be_known_by_its_clock(machine: Machine, source: str) -> None:
    machine.source(source)
    assert machine.look().kept_time


def test_the_kernel_can_be_asked() -> None:
    assert is_synchronised() in (True, False)


def test_the_kernel_of_this_machine_can_be_looked_at() -> None:
    assert isinstance(Ground().look(NOW_MS).kept_time, bool)


class Board:
    """A line's clock on a machine whose times a test sets."""

    def __init__(self, machine: Machine, wall_s: float) -> None:
        self.wall_s, self.now_s, self.log = wall_s, 100.0, structlog.testing.LogCapture()
        self.clock = LineClock(
            structlog.wrap_logger(None, processors=[self.log]),
            ground=Ground(machine.sys, machine.proc, lambda: machine.synchronised),
            wall_ns=lambda: int(self.wall_s * 1e9),
            monotonic_ns=lambda: int(self.now_s * 1e9),
        )

    def wait(self, seconds: float) -> None:
        self.wall_s, self.now_s = self.wall_s + seconds, self.now_s + seconds

    def told(self) -> list[str]:
        told = [str(entry["event"]) for entry in self.log.entries]
        self.log.entries.clear()
        return told


def test_a_board_boots_at_1970_and_is_set_by_the_network(machine: Machine) -> None:
    board = Board(machine, 30)
    board.clock.resume(Floor(NOW_MS + 7, NOW_MS))
    first = board.clock.now()
    assert (first.unix_ms, first.clock) == (NOW_MS, Clock.UNSURE)
    assert id_time_ms(board.clock.mint(first, bytes(10))) == NOW_MS + 8
    assert board.told() == ["the clock is not to be trusted: times may be wrong, the order is not"]
    board.wait(10)
    assert board.clock.now().unix_ms == NOW_MS + 10_000
    assert board.told() == []
    board.wait(1)
    board.wall_s, machine.synchronised = NOW_S + 5_000.0, True
    set_now = board.clock.now()
    assert (set_now.unix_ms, set_now.clock) == (NOW_MS + 5_000_000, Clock.TRUSTED)
    assert board.told() == ["the clock of the machine was set", "the clock is to be trusted again"]
    assert board.clock.floor() == Floor(NOW_MS + 8, NOW_MS + 5_000_000)
    board.wait(1)
    board.clock.now()
    assert board.told() == []


def test_a_trusted_clock_says_nothing(machine: Machine) -> None:
    machine.hardware_clock(str(NOW_S))
    board = Board(machine, NOW_S)
    assert board.clock.now().clock is Clock.TRUSTED
    assert board.told() == []


def test_the_hardware_clock_is_asked_once_a_minute_and_when_the_clock_was_set(machine: Machine) -> None:
    machine.hardware_clock("17")
    board = Board(machine, NOW_S)
    assert board.clock.now().clock is Clock.UNSURE
    machine.hardware_clock(str(NOW_S))
    board.wait(LOOK_AGAIN_NS / 1e9 - 1)
    assert board.clock.now().clock is Clock.UNSURE
    board.wait(2)
    assert board.clock.now().clock is Clock.TRUSTED
    machine.hardware_clock("17")
    board.wait(1)
    board.wall_s += 5 * 86_400
    assert board.clock.now().clock is Clock.UNSURE
    machine.hardware_clock(str(NOW_S + 5 * 86_400))
    board.wait(LOOK_AGAIN_NS / 1e9 + 1)
    assert board.clock.now().clock is Clock.TRUSTED


def test_a_network_that_is_away_for_a_day_costs_no_trust(machine: Machine) -> None:
    """The kernel takes back its word some hours after the last answer of a time server; the clock goes on all the same."""
    machine.synchronised = True
    board = Board(machine, NOW_S)
    assert board.clock.now().clock is Clock.TRUSTED
    machine.synchronised = False
    board.wait(86_400)
    assert board.clock.now().clock is Clock.TRUSTED
    board.wall_s += 3600
    assert board.clock.now().clock is Clock.UNSURE, "somebody set it, and nothing vouches for that"


def test_a_hand_that_sets_the_system_and_not_the_hardware_clock_is_not_enough(machine: Machine) -> None:
    machine.hardware_clock(str(NOW_S))
    board = Board(machine, NOW_S)
    board.clock.now()
    board.wall_s += 80 * 365 * 86_400
    assert board.clock.now().clock is Clock.UNSURE
