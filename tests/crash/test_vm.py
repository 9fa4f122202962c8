"""The parts of ``make crash-vm`` that need no guest: what remains of a disk, the judgement, the unit in the documents."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crash.vm import disk, echo, image, rounds
from tests.crash.vm.disk import ATOM_BYTES, Flush, Write
from tests.crash.vm.judge import Change, Promise, Verdict

BLOCKS = 8
Step = tuple[int, int, int] | None
"""Block, count of blocks, content; None is a flush."""

steps = st.lists(
    st.none() | st.tuples(st.integers(0, BLOCKS - 2), st.integers(1, 2), st.integers(1, 255)), min_size=1, max_size=20
)


def log_of(entries: list[Step]) -> bytes:
    """Write a log as QEMU does."""
    log = disk.SUPER.pack(disk.MAGIC, 1, 0, disk.SECTOR_BYTES).ljust(disk.SECTOR_BYTES, b"\0")
    per_block = ATOM_BYTES // disk.SECTOR_BYTES
    for entry in entries:
        sector, sectors, flags = (
            (0, 0, disk.FLUSH) if entry is None else (entry[0] * per_block, entry[1] * per_block, 0)
        )
        log += disk.ENTRY.pack(sector, sectors, flags, 0).ljust(disk.SECTOR_BYTES, b"\0")
        if entry is not None:
            log += bytes([entry[2]]) * (entry[1] * ATOM_BYTES)
    return log + bytes(4 * disk.SECTOR_BYTES)


@given(steps, st.integers(0, 1000))
def test_what_was_flushed_remains_and_nothing_is_there_that_was_not_written(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Step], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("disk")
    base, log = folder / "base.img", folder / "log"
    base.write_bytes(bytes(BLOCKS * ATOM_BYTES))
    log.write_bytes(log_of(entries))
    loss = disk.leave_what_remains(base, log, random.Random(seed))
    after = base.read_bytes()
    last_flush = max((index for index, entry in enumerate(entries) if entry is None), default=-1)
    for block in range(BLOCKS):
        flushed, cached = 0, set()
        for index, entry in enumerate(entries):
            if entry is not None and entry[0] <= block < entry[0] + entry[1]:
                if index < last_flush:
                    flushed = entry[2]
                else:
                    cached.add(entry[2])
        content = after[block * ATOM_BYTES : (block + 1) * ATOM_BYTES]
        assert set(content) <= {flushed, *cached}
        assert len(set(content)) == 1, "a block is torn"
    assert 0 <= loss.lost <= loss.cached


def test_chance_loses_everything_something_and_nothing(tmp_path: Path) -> None:
    losses = set()
    (tmp_path / "log").write_bytes(log_of([None, *((block, 1, 7) for block in range(7)), (0, 1, 8)]))
    for seed in range(30):
        (tmp_path / "disk").write_bytes(bytes(BLOCKS * ATOM_BYTES))
        loss = disk.leave_what_remains(tmp_path / "disk", tmp_path / "log", random.Random(seed))
        assert loss.cached == 7
        losses.add(loss.lost)
    assert {0, 7} < losses


def test_a_write_falls_into_the_blocks_of_the_disk() -> None:
    pieces = list(disk.atoms(Write(ATOM_BYTES - 512, 2 * ATOM_BYTES, 1024)))
    assert [(p.offset, p.length, p.data_at) for p in pieces] == [
        (ATOM_BYTES - 512, 512, 1024),
        (ATOM_BYTES, ATOM_BYTES, 1536),
        (2 * ATOM_BYTES, ATOM_BYTES - 512, 1536 + ATOM_BYTES),
    ]


def test_the_last_entry_may_be_half_in_the_log() -> None:
    entries = disk.read_log(io.BytesIO(log_of([(0, 1, 1), None, (1, 1, 2), (2, 1, 3)])))
    assert [type(entry) for entry in entries] == [Write, Flush, Write, Write]
    flushed, cached = disk.flushed_and_cached(entries)
    assert [w.offset for w in flushed] == [0]
    assert [w.offset for w in cached] == [ATOM_BYTES]


def test_a_log_is_followed_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(log_of([(0, 1, 1), None, (1, 1, 2)]))
    with disk.LogTail(path) as tail:
        assert (tail.advance(), tail.cached) == (True, 1)
        path.write_bytes(log_of([(0, 1, 1), None, *[(1, 1, 2)] * disk.ENTRIES_AT_ONCE]))
        assert (tail.advance(), tail.cached) == (True, disk.ENTRIES_AT_ONCE)
        path.write_bytes(log_of([(0, 1, 1), None, *[(1, 1, 2)] * (2 * disk.ENTRIES_AT_ONCE), None]))
        assert not tail.advance()
        assert (tail.advance(), tail.cached) == (True, 0)


def test_another_log_is_refused() -> None:
    with pytest.raises(disk.LogError):
        disk.read_log(io.BytesIO(b"x" * 1024))
    with pytest.raises(disk.LogError):
        disk.read_log(io.BytesIO(log_of([None]).replace(b"\x01" + bytes(15), b"\x04" + bytes(15))))


def row(number: str = "v1x0", **changes: Any) -> dict[str, Any]:
    whole = {"id": "a", "state": "new", "caller": {"number": number}, "audio_ms": 3000, "cut_off": True}
    return {**whole, "end_reason": "cut_off", "heard_at": None, **changes}


def promise(**changes: Any) -> Promise:
    whole: dict[str, Any] = {
        "number": "v1x0",
        "beep_heard": True,
        "confirmed": False,
        "sent_ms": 3260,
        "reached_ms": 3240,
    }
    return Promise(**whole | changes)


@pytest.mark.parametrize(
    ("made", "rows", "violations"),
    [
        (promise(), [row()], 0),
        (promise(reached_ms=3260), [row()], 1),
        (promise(), [row(cut_off=False)], 1),
        (promise(), [], 1),
        (promise(beep_heard=False, sent_ms=0, reached_ms=0), [], 0),
        (promise(), [row(), row(id="b")], 1),
        (promise(confirmed=True, sent_ms=3020), [row(cut_off=False, end_reason="caller_hung_up")], 0),
        (promise(confirmed=True, sent_ms=3040), [row(cut_off=False, end_reason="caller_hung_up")], 1),
        (promise(confirmed=True, sent_ms=3000), [row()], 1),
        (promise(confirmed=True), [], 1),
        (promise(trouble="refused: 480"), [row()], 1),
    ],
)
def test_a_caller_is_judged(made: Promise, rows: list[dict[str, Any]], violations: int) -> None:
    verdict = Verdict()
    verdict.judge_call(made, list(rows))
    assert len(verdict.violations) == violations, verdict.violations


def test_beyond_the_promise_and_within_the_limit_is_slow() -> None:
    verdict = Verdict(limit_ms=500)
    verdict.judge_call(promise(reached_ms=3500), [row()])
    assert (verdict.violations, verdict.slow, verdict.worst_loss_ms) == ([], 1, 500)
    verdict.judge_call(promise(reached_ms=3520), [row()])
    assert (len(verdict.violations), verdict.slow) == (1, 1)


@pytest.mark.parametrize(
    ("after", "mark", "violations"),
    [
        ({"a": row()}, None, 0),
        ({"a": row(audio_ms=2980)}, None, 1),
        ({"a": row(state="heard", heard_at="now")}, None, 1),
        ({}, None, 1),
        ({"a": row(state="heard", heard_at="now")}, Change("a", confirmed=True), 0),
        ({"a": row()}, Change("a", confirmed=True), 1),
        ({"a": row()}, Change("a", confirmed=False), 0),
        ({"a": row(state="heard", heard_at="now", audio_ms=1)}, Change("a", confirmed=False), 1),
        ({"a": row(state="deleted")}, Change("a", confirmed=False), 1),
        ({}, Change("a", confirmed=True), 1),
    ],
)
def test_earlier_messages_are_judged(after: dict[str, Any], mark: Change | None, violations: int) -> None:
    verdict = Verdict()
    verdict.judge_earlier({"a": row()}, after, mark)
    assert len(verdict.violations) == violations, verdict.violations


def test_a_new_message_of_an_earlier_call_is_a_violation() -> None:
    verdict = Verdict()
    verdict.judge_strangers(["a"], {"a": row("v1x0"), "b": row("v2x0"), "c": row("v1x0")}, {"v2x0"})
    assert len(verdict.violations) == 1


@pytest.mark.parametrize(
    ("after", "change", "violations"),
    [
        ("old", None, 0),
        ("new", None, 1),
        ("old", Change("new", confirmed=False), 0),
        ("new", Change("new", confirmed=False), 0),
        ("half", Change("new", confirmed=False), 1),
        ("old", Change("new", confirmed=True), 1),
    ],
)
def test_a_greeting_is_judged(after: str, change: Change | None, violations: int) -> None:
    verdict = Verdict()
    verdict.judge_greeting("old", after, change)
    assert len(verdict.violations) == violations


def test_the_guest_runs_the_unit_of_the_documents() -> None:
    document = (image.CHECKOUT / "docs" / "operation.md").read_text()
    path, text = image.unit_of(document)
    assert path == "/etc/systemd/system/aftertone.service"
    assert text.startswith("[Unit]\n")
    assert text.endswith("WantedBy=multi-user.target\n")
    assert image.useradd_of(document)[-1] == "aftertone"
    with pytest.raises(image.BuildError):
        image.unit_of("no unit")


def test_a_key_changes_with_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("1")
    keys = {image.key_of([tmp_path / "folder"])}
    (tmp_path / "folder" / "a").write_text("2")
    keys.add(image.key_of([tmp_path / "folder"]))
    (tmp_path / "folder" / "a").rename(tmp_path / "folder" / "b")
    keys.add(image.key_of([tmp_path / "folder"]))
    assert len(keys) == 3
    (tmp_path / "folder" / "__pycache__").mkdir()
    (tmp_path / "folder" / "__pycache__" / "x").write_text("3")
    assert image.key_of([tmp_path / "folder"]) in keys


def test_an_echo_is_told_from_others() -> None:
    asked = echo.request(513)
    assert echo.checksum(asked) == 0
    header = bytes([0x45]) + bytes(19)
    assert echo.answered(header + asked) is None, "a request is no reply"
    assert echo.answered(header + b"\0" + asked[1:]) == 513
    assert echo.answered(b"") is None
    assert echo.answered(header) is None


def test_the_moments_are_repeatable_and_all_there() -> None:
    assert rounds.moments(5, 3) == rounds.moments(7, 3)[:5]
    assert sorted(rounds.moments(10, 3)) == sorted(2 * rounds.MOMENTS)
