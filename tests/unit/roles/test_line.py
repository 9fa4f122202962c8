"""What the line refuses before it takes calls; the line at work is in tests/acceptance."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog

from aftertone.config import Settings
from aftertone.errors import ConfigError
from aftertone.roles import storage
from aftertone.roles.clock import Ground, LineClock
from aftertone.roles.folder import Folder
from aftertone.roles.line import Line
from aftertone.roles.mounts import Mount
from aftertone.roles.process import Start
from aftertone.roles.timekeeper import RELEASED_UNIX_MS


def test_a_public_address_that_is_a_name_is_refused_and_not_met_call_by_call(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()
    settings = Settings.model_validate(
        {"sip": {"public_address": "phone.example.com", "port": 0, "host": "127.0.0.1"}, "calls": {"at_once": 2}}
    )

    async def run() -> None:
        await Line(Start("line", settings, folder, structlog.get_logger(), None)).run()

    with pytest.raises(ConfigError, match=r"sip\.public_address must be an IP address, not 'phone\.example\.com'"):
        asyncio.run(run())
    assert not list(folder.journal.iterdir())


@pytest.mark.parametrize(("accept", "alarms"), [(False, ["weak_storage"]), (True, [])])
def test_weak_storage_is_an_alarm_unless_its_owner_accepted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accept: bool, alarms: list[str]
) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()
    ground = storage.Ground(folder.root, Mount("/", "ext4", "rw", "/dev/sda1", "8:1"), journal=False)
    monkeypatch.setattr(storage, "look", lambda _: ground)
    settings = Settings.model_validate({"storage": {"accept": accept}, "calls": {"at_once": 2}})

    async def run() -> list[dict[str, str]]:
        with structlog.testing.capture_logs() as logs:
            line = Line(Start("line", settings, folder, structlog.get_logger(), None))
        (said, caution) = [entry for entry in logs if str(entry["event"]).startswith("storage: ")]
        assert (said["log_level"], caution["log_level"]) == ("warning" if accept else "error", "warning")
        assert "tune2fs" in said["event"]
        return [alarm for alarm in line._alarms() if alarm["code"] == "weak_storage"]

    found = asyncio.run(run())
    assert [alarm["code"] for alarm in found] == alarms
    assert all("this ext4 has no journal" in alarm["text"] and len(alarm["text"]) < 500 for alarm in found)


def test_a_clock_that_is_not_set_is_an_alarm_and_a_figure(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()

    async def run(wall_s: float) -> tuple[list[str], float]:
        line = Line(
            Start("line", Settings.model_validate({"calls": {"at_once": 2}}), folder, structlog.get_logger(), None)
        )
        ground = Ground(tmp_path / "sys", tmp_path / "proc", lambda: True)
        line._clock = LineClock(ground=ground, wall_ns=lambda: int(wall_s * 1e9))
        line._look_at_the_clock()
        codes = [alarm["code"] for alarm in line._alarms()]
        return [code for code in codes if code == "clock"], line._metrics()["clock_trusted"]

    assert asyncio.run(run(12.0)) == (["clock"], 0.0)
    assert asyncio.run(run(RELEASED_UNIX_MS / 1000)) == ([], 1.0)


def test_a_peer_at_home_is_told_our_own_address_and_others_the_public_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()
    sip = {"public_address": "203.0.113.5", "host": "127.0.0.1"}
    settings = Settings.model_validate({"sip": sip, "calls": {"at_once": 2}})

    async def run() -> list[str | None]:
        line = Line(Start("line", settings, folder, structlog.get_logger(), None))
        peers = ("192.168.178.20", "fe80::1%eth0", "198.51.100.7", "2001:db8::1")
        return [line._advertise((peer, 5060)) for peer in peers]

    assert asyncio.run(run()) == [None, None, "203.0.113.5", None]


def test_a_disk_that_holds_the_status_does_not_hold_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()
    disk, begun, written = threading.Event(), threading.Event(), []

    def slow(_folder: Folder, role: str, status: Mapping[str, object]) -> None:
        begun.set()
        disk.wait(30)
        written.append((role, status["taking_calls"]))

    monkeypatch.setattr("aftertone.roles.line.write_status", slow)
    settings = Settings.model_validate({"calls": {"at_once": 2}})

    async def run() -> None:
        line = Line(Start("line", settings, folder, structlog.get_logger(), None))
        for _ in range(10):
            line._publish_status()
        assert begun.wait(10)
        assert written == [], "the loop went on meanwhile"
        disk.set()
        assert line._clerk.close(10)

    asyncio.run(run())
    assert 1 <= len(written) <= 2, "the first, and the newest of those that waited"
