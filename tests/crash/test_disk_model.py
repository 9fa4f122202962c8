"""The model of a disk: what a cut may leave, by the rules in `tests.crash.powercut.disk`."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from tests.crash.powercut.disk import Disk, choices, state_of
from tests.crash.powercut.operations import (
    Create,
    MakeDirectory,
    Operation,
    Rename,
    Sync,
    SyncDirectory,
    SyncFailed,
    Truncate,
    Unlink,
    Write,
)


def states(operations: Iterable[Operation], seeds: int = 30) -> list[dict[str, bytes | None]]:
    """Return every different state that some choice leaves after these operations."""
    disk = Disk()
    for operation in operations:
        disk.take(operation)
    found: dict[bytes, dict[str, bytes | None]] = {}
    for seed in range(seeds):
        for effects in choices(disk, random.Random(seed)):
            state = state_of(disk, effects)
            found[state.key] = state.files
    return list(found.values())


def contents(operations: Iterable[Operation], path: str = "/a") -> set[bytes | None]:
    return {state.get(path, b"gone") for state in states(operations)}


def test_a_synced_file_without_a_synced_name_may_be_gone() -> None:
    made: list[Operation] = [Create("/a", 1), Write(1, 0, b"said"), Sync(1)]
    assert contents(made) == {b"gone", b"said"}
    assert contents([*made, SyncDirectory("/")]) == {b"said"}


def test_a_synced_name_without_synced_data_may_be_empty_or_zeros() -> None:
    made: list[Operation] = [Create("/a", 1), SyncDirectory("/"), Write(1, 0, b"said")]
    assert contents(made) == {b"", b"said", b"\0\0\0\0"}


def test_sectors_are_there_or_not_one_by_one() -> None:
    data = bytes([1]) * 512 + bytes([2]) * 512 + bytes([3]) * 512
    found = contents([Create("/a", 1), SyncDirectory("/"), Write(1, 0, data)])
    assert data in found
    assert any(content and 2 in content and 1 not in content for content in found), (
        "a later sector without an earlier one"
    )
    assert all(
        len(set(content[at : at + 512])) <= 1 for content in found if content for at in range(0, len(content), 512)
    )


def test_two_writes_to_one_place_leave_either_or_neither() -> None:
    made: list[Operation] = [Create("/a", 1), SyncDirectory("/"), Write(1, 0, b"one"), Write(1, 0, b"two")]
    assert contents(made) >= {b"", b"one", b"two"}


def test_what_a_failed_sync_had_to_write_is_brought_back_by_no_later_one() -> None:
    made: list[Operation] = [Create("/a", 1), SyncDirectory("/"), Write(1, 0, b"said"), SyncFailed(1), Sync(1)]
    assert contents(made) == {b"\0\0\0\0", b"said"}
    again: list[Operation] = [*made, Write(1, 4, b"more"), Sync(1)]
    assert contents(again) == {b"\0\0\0\0more", b"saidmore"}


def test_a_rename_is_one_change() -> None:
    made: list[Operation] = [Create("/a", 1), Write(1, 0, b"old"), Sync(1), SyncDirectory("/")]
    made += [Create("/b", 2), Write(2, 0, b"new"), Sync(2), Rename("/b", "/a")]
    assert contents(made) == {b"old", b"new"}
    assert contents([*made, SyncDirectory("/")]) == {b"new"}
    assert all("/b" not in state for state in states([*made, SyncDirectory("/")]))


def test_an_unlink_is_a_change_like_any_other() -> None:
    made: list[Operation] = [Create("/a", 1), Write(1, 0, b"old"), Sync(1), SyncDirectory("/"), Unlink("/a")]
    assert contents(made) == {b"old", b"gone"}
    assert contents([*made, SyncDirectory("/")]) == {b"gone"}


def test_a_truncation_may_not_have_happened() -> None:
    made: list[Operation] = [Create("/a", 1), SyncDirectory("/"), Write(1, 0, b"long"), Sync(1), Truncate(1, 1)]
    assert contents(made) == {b"long", b"l"}
    assert contents([*made, Sync(1)]) == {b"l"}


def test_what_lies_in_a_folder_that_is_lost_is_lost_too() -> None:
    made: list[Operation] = [MakeDirectory("/f"), Create("/f/a", 1), Write(1, 0, b"said"), Sync(1), SyncDirectory("/f")]
    assert {frozenset(state) for state in states(made)} == {frozenset(), frozenset({"/f", "/f/a"})}
    assert {frozenset(state) for state in states([*made, SyncDirectory("/")])} == {frozenset({"/f", "/f/a"})}


def test_a_state_can_be_written_down(tmp_path: Path) -> None:
    disk = Disk()
    for operation in (MakeDirectory("/f"), Create("/f/a", 1), Write(1, 0, b"said")):
        disk.take(operation)
    root = tmp_path / "root"
    (root / "old").mkdir(parents=True)
    state_of(disk, [effect for unit in disk.pending for effect in unit]).write(root)
    assert [path.relative_to(root).as_posix() for path in sorted(root.rglob("*"))] == ["f", "f/a"]
    assert (root / "f" / "a").read_bytes() == b"said"
