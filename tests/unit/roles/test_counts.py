"""Counts of waiting messages, from those who have the catalog to the line that has none."""

from __future__ import annotations

import json
from pathlib import Path

import structlog

from aftertone.errors import StorageError
from aftertone.model import Action
from aftertone.roles.counts import Publisher, Waiting, read_counts
from aftertone.roles.folder import Folder
from aftertone.store.catalog import Catalog
from tests.support.messages import a_message

S = 1_000_000_000


class World:
    """A folder, a clock, and a catalog that a test changes."""

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root)
        self.folder.make()
        self.now_ns = 100 * S
        self.version = 1
        self.waiting: Waiting = {"main": (1, 2)}
        self.broken = False
        self.counted = 0
        self.logs = structlog.testing.LogCapture()

    def publisher(self, role: str) -> Publisher:
        def waiting() -> Waiting:
            self.counted += 1
            if self.broken:
                raise StorageError("gone")
            return self.waiting

        logger = structlog.wrap_logger(structlog.testing.CapturingLogger(), processors=[self.logs])
        return Publisher(self.folder, role, lambda: self.version, waiting, logger=logger, clock_ns=lambda: self.now_ns)

    def read(self) -> Waiting | None:
        return read_counts(self.folder, self.now_ns)


def test_nobody_published(tmp_path: Path) -> None:
    assert World(tmp_path).read() is None


def test_a_change_is_published_at_the_next_look_and_counted_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    desk = world.publisher("desk")
    desk.look()
    assert world.read() == {"main": (1, 2)}
    world.version, world.waiting = 2, {"main": (2, 2)}
    world.now_ns += S // 10
    desk.look()
    assert world.read() == {"main": (1, 2)}
    desk.look(at_once=True)
    assert world.read() == {"main": (2, 2)}
    for _ in range(20):
        world.now_ns += S
        desk.look()
    assert world.counted == 2


def test_the_latest_look_holds_whoever_is_dead(tmp_path: Path) -> None:
    world = World(tmp_path)
    desk, delivery = world.publisher("desk"), world.publisher("delivery")
    desk.look()
    delivery.look()
    # The desk tells of a change and dies; delivery goes on looking, and sees the next one.
    world.now_ns += S
    world.version, world.waiting = 2, {"main": (0, 3)}
    desk.look()
    assert world.read() == {"main": (0, 3)}
    world.now_ns += S
    world.version, world.waiting = 3, {"main": (1, 3)}
    delivery.look()
    assert world.read() == {"main": (1, 3)}


def test_a_file_that_is_wrong_is_believed_for_a_second_at_most(tmp_path: Path) -> None:
    """One publisher counted just before a commit, wrote just after the other's file, and died: nothing changes any more."""
    behind, world = World(tmp_path), World(tmp_path)
    world.waiting = {"main": (9, 9)}
    desk = world.publisher("desk")
    desk.look()
    behind.now_ns += 1
    behind.publisher("delivery").look()
    world.now_ns += S // 2
    desk.look()
    assert world.read() == {"main": (1, 2)}
    world.now_ns += S // 2
    desk.look()
    assert world.read() == {"main": (9, 9)}
    assert world.counted == 1


def test_after_a_reboot_what_is_fresh_goes_before_what_is_old(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publisher("desk").look()
    world.now_ns = 5 * S
    assert world.read() == {"main": (1, 2)}
    world.waiting = {"main": (7, 7)}
    world.publisher("delivery").look()
    assert world.read() == {"main": (7, 7)}


def test_a_catalog_that_cannot_be_read_is_said_once_and_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    desk = world.publisher("desk")
    desk.look()
    world.version, world.broken, world.waiting = 2, True, {"main": (5, 5)}
    for _ in range(5):
        world.now_ns += 2 * S
        desk.look()
    assert [entry["log_level"] for entry in world.logs.entries] == ["warning"]
    looked_ns = json.loads((world.folder.run / "counts-desk.json").read_text())["looked_ns"]
    assert looked_ns == 100 * S, "a file that may be wrong must not look fresh"
    world.broken = False
    world.now_ns += S
    desk.look()
    assert world.read() == {"main": (5, 5)}


def test_half_a_file_is_no_file(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publisher("desk").look()
    (world.folder.run / "counts-delivery.json").write_text('{"looked_ns": 1, "waiting": {"main": [1')
    assert world.read() == {"main": (1, 2)}


def test_the_catalog_counts_what_a_lamp_shows(tmp_path: Path) -> None:
    catalog = Catalog.open(tmp_path / "c.db")
    try:
        assert catalog.waiting() == {}
        first, second, other = a_message(1), a_message(2), a_message(3, mailbox="Office")
        before = catalog.data_version()
        for one in (first, second, other):
            catalog.record_delivery(one)
        assert catalog.data_version() != before
        assert catalog.waiting() == {"main": (2, 0), "office": (1, 0)}
        catalog.act(first.id, Action.HEAR, 1)
        catalog.act(other.id, Action.DELETE, 1)
        assert catalog.waiting() == {"main": (1, 1)}
        catalog.act(other.id, Action.RESTORE, 1)
        assert catalog.waiting() == {"main": (1, 1), "office": (1, 0)}
    finally:
        catalog.close()
