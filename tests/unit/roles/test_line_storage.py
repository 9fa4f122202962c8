"""The line and its disk: what it refuses with, and when it takes calls again."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog

from aftertone.config import Settings
from aftertone.errors import AftertoneError
from aftertone.files import OsFiles
from aftertone.journal.committer import JournalInUse
from aftertone.journal.record import Kind
from aftertone.roles import line as lines
from aftertone.roles.clips import Clips
from aftertone.roles.folder import Folder, read_status
from aftertone.roles.line import Line
from aftertone.roles.process import Start
from tests.support.files import Fault

MARK = 10_000_000


class Disk(OsFiles):
    """A real folder on a disk that fails when it is told to."""

    fault: Fault | None = None
    where: tuple[str, ...] = ("write", "fdatasync", "preallocate")
    free = 50_000_000
    deaf = False

    def _enter(self, operation: str) -> None:
        if self.fault is not None and operation in self.where:
            code = errno.EIO if self.fault is Fault.EIO else errno.ENOSPC
            raise OSError(code, os.strerror(code))

    def write(self, handle: int, buffers: Any) -> int:
        self._enter("write")
        return super().write(handle, buffers)

    def fdatasync(self, handle: int) -> None:
        self._enter("fdatasync")
        super().fdatasync(handle)

    def preallocate(self, handle: int, size_bytes: int) -> None:
        self._enter("preallocate")
        super().preallocate(handle, size_bytes)

    def lock(self, path: Path) -> int:
        self._enter("lock")
        return super().lock(path)

    def free_bytes(self, path: Path) -> int:
        if self.deaf:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.free

    def disk_bytes(self, path: Path) -> int:
        return 100_000_000


@pytest.fixture(scope="module")
def clips() -> Clips:
    """Encoding all prompts takes longer than everything else here."""
    return Clips()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, clips: Clips) -> Disk:
    made = Disk()
    monkeypatch.setattr(lines, "Clips", lambda: clips)
    monkeypatch.setattr(lines, "OsFiles", lambda: made)
    monkeypatch.setattr(lines, "DISK_CHECK_S", 0.05)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "var")
    made.make()
    return made


def live(folder: Folder, story: Callable[[Line], Coroutine[Any, Any, None]], *, reserve_mb: int = 0) -> None:
    """Run a line while ``story`` happens to it."""
    settings = Settings.model_validate(
        {
            "sip": {"port": 0, "host": "127.0.0.1"},
            "calls": {"at_once": 4},
            "storage": {"low_water_mb": 10, "low_water_percent": 50, "reserve_mb": reserve_mb},
            "journal": {"segment_mb": 1, "commit_ms": 5},
        }
    )

    async def run() -> None:
        line = Line(Start("line", settings, folder, structlog.get_logger(), None))
        running = asyncio.create_task(line.run())
        try:
            while not line._endpoint.port or read_status(folder, "line") is None:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.005)
            await story(line)
        finally:
            line._stop.set()
            await running

    asyncio.run(run())


async def until(question: Callable[[], object], what: str) -> None:
    for _ in range(2000):
        if question():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited for {what}")


def status_of(line: Line) -> int:
    """Return what a new call would be refused with, 0 when it would be taken."""
    blocked: AftertoneError | None = line._admission()
    return 0 if blocked is None else blocked.sip_status


def alarm_of(folder: Folder) -> str:
    status = read_status(folder, "line")
    assert status is not None
    alarms: Any = status["alarms"]
    return next((str(alarm["text"]) for alarm in alarms if alarm["code"] == "storage"), "")


def test_low_space_is_480_and_names_the_mark(disk: Disk, folder: Folder) -> None:
    async def story(line: Line) -> None:
        await until(lambda: status_of(line) == 0, "a line that takes calls")
        disk.free = MARK - 1
        await until(lambda: alarm_of(folder), "the alarm")
        assert status_of(line) == 480
        assert alarm_of(folder) == (
            f"New calls are refused: 10 MB are free in {folder.root}, and new calls need 10 MB (storage.low_water_mb = 10); "
            "make room"
        )
        disk.free = MARK
        await until(lambda: status_of(line) == 0, "calls to be taken again")

    live(folder, story)


@pytest.mark.parametrize(("fault", "status"), [(Fault.EIO, 503), (Fault.ENOSPC, 480)])
def test_a_journal_that_fails_is_503_and_a_full_one_480(
    disk: Disk, folder: Folder, monkeypatch: pytest.MonkeyPatch, fault: Fault, status: int
) -> None:
    monkeypatch.setattr("aftertone.journal.committer.RETRY_NS", 50_000_000)

    async def story(line: Line) -> None:
        told: list[bool] = []
        line._board.storage_failed = lambda: told.append(True)  # type: ignore[method-assign]
        disk.fault = fault
        if fault is Fault.ENOSPC:
            disk.free = 0
        line.journal.append(Kind.EVENT, b"said", urgent=True)
        await until(lambda: not line._metrics()["journal_ok"], "the second failure")
        assert status_of(line) == status
        await until(lambda: told and alarm_of(folder), "callers and owner to be told")
        assert (
            os.strerror(errno.EIO if fault is Fault.EIO else errno.ENOSPC) in alarm_of(folder) or fault is Fault.ENOSPC
        )
        assert read_status(folder, "line")["taking_calls"] is False  # type: ignore[index]
        disk.fault, disk.free = None, 50_000_000
        await until(lambda: status_of(line) == 0, "calls to be taken again")
        assert line._metrics()["journal_ok"] == 1
        await until(lambda: not alarm_of(folder), "the alarm to go")

    live(folder, story)


def test_a_disk_that_does_not_tell_its_room_is_503(disk: Disk, folder: Folder) -> None:
    async def story(line: Line) -> None:
        disk.deaf = True
        await until(lambda: status_of(line) == 503, "the look at the disk")
        await until(lambda: "does not tell its free space" in alarm_of(folder), "the alarm")
        disk.deaf = False
        await until(lambda: status_of(line) == 0, "calls to be taken again")

    live(folder, story)


@pytest.mark.parametrize(
    ("fault", "where", "status"),
    [
        (Fault.ENOSPC, "write", 480),
        (Fault.ENOSPC, "lock", 480),
        (Fault.EIO, "write", 503),
        (Fault.EIO, "lock", 503),
    ],
)
def test_a_journal_that_cannot_be_opened_is_tried_again_while_callers_are_refused(
    disk: Disk, folder: Folder, fault: Fault, where: str, status: int
) -> None:
    disk.fault, disk.where = fault, (where,)

    async def story(line: Line) -> None:
        assert status_of(line) == status
        assert "the journal in" in alarm_of(folder)
        disk.fault = None
        await until(lambda: status_of(line) == 0, "the journal to open")
        await until(lambda: not alarm_of(folder), "the alarm to go")
        assert line.journal.append(Kind.EVENT, b"said") == 1

    live(folder, story)


def test_a_journal_in_use_ends_the_line(disk: Disk, folder: Folder) -> None:
    handle = OsFiles().lock(folder.journal / "lock")

    async def story(line: Line) -> None:
        raise AssertionError("it must not take calls")

    with pytest.raises((JournalInUse, AssertionError), match="in use by process"):
        live(folder, story)
    os.close(handle)


def test_the_reserve_is_made_and_made_again(disk: Disk, folder: Folder) -> None:
    path = folder.journal / "reserve"

    async def story(line: Line) -> None:
        await until(lambda: line._metrics()["reserve_bytes"], "the reserve")
        if not path.stat().st_blocks:
            pytest.skip("this disk keeps no room")
        assert line._metrics()["low_water_bytes"] == MARK
        path.unlink()
        await until(path.exists, "it to be made anew")
        disk.free = MARK - 1
        path.unlink()
        await until(lambda: line._metrics()["reserve_bytes"] == 0, "the line to notice")
        assert not path.exists(), "not of room that must stay free"

    live(folder, story, reserve_mb=1)
