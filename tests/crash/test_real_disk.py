"""A few cuts of a real file system in every test run; ``make crash`` plays thousands, on three of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.crash.powercut import failed_sync
from tests.crash.powercut.block_cuts import ATOM_BYTES, BEGINNING, Medium, Selection, choose, epochs, selections
from tests.crash.powercut.block_device import BlockLog, BlockWrite, Flush, why_not
from tests.crash.powercut.operations import Said
from tests.crash.powercut.real_disk import LIES, Evenings, hunt_all, search, workers
from tests.support.figures import tell
from tests.support.peers import missing

SEED = 20261125
CAUGHT = ("no-sync", "acknowledge-first", "sqlite-normal", "slow-commits")
"""Mutants that a real file system shows at once, whichever cuts are chosen."""

Disk = tuple[ProcessPoolExecutor, Path]


@pytest.fixture(scope="module")
def disk() -> Iterator[Disk]:
    if reason := why_not("ext4"):
        missing(reason)
    with workers() as apart:
        yield apart


@pytest.fixture(scope="module")
def evenings(disk: Disk) -> Evenings:
    return Evenings(*disk, "ext4")


def test_no_cut_of_ext4_loses_anything(disk: Disk, evenings: Evenings) -> None:
    row = search(disk[0], evenings, "ext4", ATOM_BYTES, 160, SEED)
    assert row.violations == []
    assert row.tally.cuts == 160
    assert row.tally.judgements >= 160
    tell(
        f"power cuts of a real {row.kind}: {row.tally.cuts} distinct ones at {row.entries} entries of the disk's log, "
        f"{row.tally.judgements} judgements: nothing lost"
    )


def test_a_disk_that_lies_loses_something_and_the_machine_starts(disk: Disk, evenings: Evenings) -> None:
    row = search(disk[0], evenings, "ext4", ATOM_BYTES, 40, SEED, LIES)
    assert row.violations == []
    assert row.tally.lost > 0


def test_mutants_are_caught(disk: Disk) -> None:
    hunts = hunt_all(*disk, "ext4", SEED, CAUGHT)
    assert [found.mutant for found in hunts if not found.seen] == []


def test_what_was_confirmed_survives_a_write_that_the_disk_refused(disk: Disk) -> None:
    seen, struck = failed_sync.strike_some(*disk, ["ext4"], 2, SEED)
    for one in seen:
        tell(f"a block that the disk refused, {one}")
    assert [text for refused in struck for text in refused.tally.violations] == []
    assert all(refused.tally.cuts > 1 for refused in struck)


# -- the model


def _write(block: int, blocks: int = 1, fill: bytes = b"x") -> BlockWrite:
    return BlockWrite(block * ATOM_BYTES, fill * (blocks * ATOM_BYTES))


LOG: BlockLog = [
    _write(0, fill=b"0"),
    Flush(),
    Said(BEGINNING),
    _write(1, fill=b"1"),
    Said('["start", 1]'),
    _write(2, 3, fill=b"2"),
    Flush(),
    Said('["begin", 1]'),
    _write(1, fill=b"3"),
]


def _disks(log: BlockLog, chosen: list[Selection], folder: Path) -> list[bytes]:
    medium = Medium(log, 8 * ATOM_BYTES, folder)
    found = []
    for selection in chosen:
        medium.become(selection)
        found.append(medium.path.read_bytes()[::ATOM_BYTES])
    medium.close()
    return found


def test_what_was_flushed_is_always_there_and_the_rest_may_be(tmp_path: Path) -> None:
    chosen = choose(LOG, ATOM_BYTES, 1000, SEED)
    disks = _disks(LOG, chosen, tmp_path)
    before = {one for one, cut in zip(disks, chosen, strict=True) if cut.epoch.number == 0}
    after = {one for one, cut in zip(disks, chosen, strict=True) if cut.epoch.number == 1}
    assert after == {b"01222\0\0\0", b"03222\0\0\0"}
    assert {b"0\0\0\0\0\0\0\0", b"01\0\0\0\0\0\0", b"0\x00222\0\0\0"} <= before
    assert any(one.count(b"2") in (1, 2) for one in before), "nothing was torn"
    assert all(one[0:1] == b"0" for one in disks)


def test_a_cut_is_legal_from_its_last_write_until_the_flush() -> None:
    first, second = epochs(LOG)
    assert (first.start, first.end, first.durable) == (2, 6, 1)
    assert (second.start, second.end, second.durable) == (6, 9, 6)
    points = {one.first_point for one in selections(LOG, first, ATOM_BYTES, random.Random(SEED))}
    assert points == {2, 3, 5}


def test_flushes_that_were_not_done_leave_everything_pending(tmp_path: Path) -> None:
    first, second = epochs(LOG, lies=1)
    assert (first.durable, second.durable) == (1, 1)
    bare = [one for one in choose(LOG, ATOM_BYTES, 1000, SEED, 1) if one.how == "nothing"]
    assert _disks(LOG, bare, tmp_path) == [b"0\0\0\0\0\0\0\0"] * 2


def test_the_order_of_cuts_does_not_matter(tmp_path: Path) -> None:
    chosen = choose(LOG, ATOM_BYTES, 1000, SEED)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    backwards = _disks(LOG, chosen[::-1], tmp_path / "one")
    assert backwards[::-1] == _disks(LOG, chosen, tmp_path / "two")
