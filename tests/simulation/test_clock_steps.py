"""A machine whose clock stands at 1970, at 2106 and anywhere between, over several epochs, with journal, delivery and catalog.

What must hold whatever the clock does: the order of ids is the order of calls, no id comes twice, lists are in the order of
calls, nothing is deleted or renamed, and every message says whether its time is to be believed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from aftertone.journal import End, Kind, Refused
from aftertone.model import Caller, Clock, EndReason, Message
from aftertone.roles.clock import Ground, LineClock
from aftertone.roles.timekeeper import RELEASED_UNIX_MS
from aftertone.store import messages
from tests.support.desk import Shop
from tests.support.recorder import Recorder
from tests.support.recordings import an_envelope, rows_of

YEAR_S = 365.25 * 86_400
NOW_S = RELEASED_UNIX_MS / 1000 + YEAR_S / 2
SHORT = rows_of(seconds=0.2)


@dataclass
class World:
    """The times around a line, and what vouches for the clock."""

    shop: Shop
    wall_s: float = NOW_S
    now_s: float = 1_000.0
    synchronised: bool = False
    hardware_s: float | None = None
    """What the hardware clock says; None: there is none."""
    calls: int = 0

    def wait(self, seconds: float) -> None:
        self.wall_s, self.now_s = self.wall_s + seconds, self.now_s + seconds
        if self.hardware_s is not None:
            self.hardware_s += seconds

    def boot(self) -> Line:
        """Start a line, as after a power cut: the monotonic clock begins anew."""
        self.now_s = 5.0
        return Line(self)

    def evidence(self) -> Ground:
        ground = Ground(Path("/nowhere"), Path("/nowhere"), lambda: self.synchronised)

        def kept_time(wall_ms: int) -> bool:
            return self.hardware_s is not None and abs(self.hardware_s - wall_ms / 1000) < 86_400

        ground.kept_time = kept_time  # type: ignore[method-assign]
        return ground


class Line:
    """What a line does with its clock and its journal when a call is answered, refused or over."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = LineClock(
            ground=world.evidence(),
            wall_ns=lambda: int(world.wall_s * 1e9),
            monotonic_ns=lambda: int(world.now_s * 1e9),
        )
        self.recorder = Recorder(world.shop.journal, segment_bytes=64 * 1024, floor=self.clock.floor)
        self.clock.resume(self.recorder.committer.found_floor)

    def call(self) -> UUID:
        """Take one call."""
        self.world.calls += 1
        number = self.world.calls
        now = self.clock.now()
        envelope = replace(
            an_envelope(seed=number),
            id=self.clock.mint(now, random.Random(number).randbytes(10)),
            caller=Caller(str(number)),
            started_unix_ms=now.unix_ms,
            clock=now.clock,
        )
        self.recorder.begin(envelope, number)
        self.recorder.packets(SHORT, number)
        self.world.wait(60)
        end = End(number, 9 * 10**9, self.clock.now().unix_ms, EndReason.CALLER_HUNG_UP)
        self.recorder.write(Kind.END, end.pack())
        return envelope.id

    def refuse(self) -> UUID:
        """Refuse one call."""
        now = self.clock.now()
        refusal_id = self.clock.mint(now, random.Random(now.unix_ms).randbytes(10))
        refused = Refused(refusal_id, now.unix_ms, 480, "full", Caller("1", "Eve"), "sip:x@example.com")
        self.recorder.write(Kind.REFUSED, refused.pack())
        self.world.wait(1)
        return refusal_id


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    shop = Shop(tmp_path)
    yield World(shop)
    shop.close()


def by_call(world: World) -> list[Message]:
    """Deliver everything; return all messages, oldest first."""
    world.shop.run(world.shop.deliverer())
    found = world.shop.catalog.messages(limit=1000)
    assert world.shop.books().ok
    return found[::-1]


def test_years_back_and_forth_over_three_epochs(world: World) -> None:
    ids = []
    for start_years, steps in ((0, (-50, 80, -30)), (-56, (0, 90, 0)), (80, (-160, 80, 0))):
        world.wall_s = NOW_S + start_years * YEAR_S + world.calls * 60
        line = world.boot()
        for years in steps:
            ids += [line.call(), line.call()]
            world.wall_s += years * YEAR_S
        ids.append(line.call())
        line.recorder.stop()
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids) == 21
    found = by_call(world)
    assert [message.id for message in found] == ids
    assert [message.caller.number for message in found] == [str(n) for n in range(1, 22)]
    assert {message.clock for message in found} == {Clock.UNSURE}
    assert all(message.blob.endswith(f"{message.id}.flac") for message in found)


def test_a_board_without_a_clock_and_the_network_that_sets_it(world: World) -> None:
    world.synchronised = True
    line = world.boot()
    first = line.call()
    line.recorder.stop()
    world.synchronised, world.wall_s = False, 30.0
    line = world.boot()
    dark = [line.call(), line.call()]
    world.synchronised, world.wall_s = True, NOW_S + 86_400
    late = line.call()
    line.recorder.stop()
    found = by_call(world)
    assert [message.id for message in found] == [first, *dark, late]
    assert [message.clock for message in found] == [Clock.TRUSTED, Clock.UNSURE, Clock.UNSURE, Clock.TRUSTED]
    started = [message.started_unix_ms for message in found]
    assert started == sorted(started), "what is a guess was not too late"
    assert started[1] == started[0] + 60_000, "all that is known is that it was after the last call"
    assert started[2] == started[1] + 60_000, "the time since the boot is known"
    assert started[3] == int((NOW_S + 86_400) * 1000)


def test_a_clock_that_was_wrong_for_a_while_does_not_cast_doubt_on_the_right_one(world: World) -> None:
    world.synchronised, world.wall_s = True, NOW_S + 20 * YEAR_S
    line = world.boot()
    wrong = line.call()
    line.recorder.stop()
    world.wall_s = NOW_S
    line = world.boot()
    right = line.call()
    line.recorder.stop()
    world.synchronised, world.hardware_s = False, NOW_S + 600
    world.wall_s = NOW_S + 600
    line = world.boot()
    kept = line.call()
    line.recorder.stop()
    found = by_call(world)
    assert [message.id for message in found] == [wrong, right, kept]
    assert {message.clock for message in found} == {Clock.TRUSTED}
    assert [message.started_unix_ms for message in found[1:]] == [int(NOW_S * 1000), int(NOW_S * 1000) + 600_000]


def test_a_hardware_clock_with_an_empty_battery(world: World) -> None:
    world.hardware_s = NOW_S
    line = world.boot()
    line.call()
    line.recorder.stop()
    world.hardware_s = world.wall_s = 12.0
    line = world.boot()
    line.call()
    line.recorder.stop()
    assert [message.clock for message in by_call(world)] == [Clock.TRUSTED, Clock.UNSURE]


def test_a_deleted_catalog_comes_back_in_the_same_order_with_the_same_doubts(world: World, tmp_path: Path) -> None:
    world.synchronised = True
    line = world.boot()
    line.call()
    world.synchronised, world.wall_s = False, 0.0
    line.call()
    line.recorder.stop()
    before = by_call(world)
    assert [message.clock for message in before] == [Clock.TRUSTED, Clock.UNSURE]
    world.shop.close()
    for path in (tmp_path / "catalog").iterdir():
        path.unlink()
    world.shop = Shop(tmp_path)
    assert by_call(world) == before


def test_refusals_go_by_arrival(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "REFUSALS_KEPT", 3)
    monkeypatch.setattr(messages, "_PRUNE_EVERY", 1)
    line = world.boot()
    refused = []
    for years in (0, 80, -80, -50, 50, 3):
        world.wall_s += years * YEAR_S
        refused.append(line.refuse())
        line.call()
    line.recorder.stop()
    by_call(world)
    assert refused == sorted(refused)
    assert [refusal.id for refusal in world.shop.catalog.refusals()] == refused[:2:-1]


@pytest.mark.parametrize("seed", range(10))
def test_any_clock_over_many_epochs(world: World, seed: int) -> None:
    chance = random.Random(seed)
    ids, refusals = [], []
    for _ in range(5):
        line = world.boot()
        for _ in range(chance.randrange(4)):
            world.wall_s = max(0.0, chance.choice((world.wall_s, NOW_S + chance.uniform(-56, 200) * YEAR_S)))
            world.synchronised = chance.random() < 0.3
            world.hardware_s = chance.choice((None, world.wall_s, 0.0))
            world.wait(chance.uniform(0, 5))
            ids.append(line.call())
            if chance.random() < 0.3:
                refusals.append(line.refuse())
        line.recorder.stop()
        if chance.random() < 0.5:
            by_call(world)
    assert [message.id for message in by_call(world)] == ids
    together = sorted(ids + refusals)
    assert [one for one in together if one in ids] == ids
    assert [refusal.id for refusal in world.shop.catalog.refusals()] == refusals[::-1]
