"""The ground under real mounts: what this kernel says of file systems that were just made."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from aftertone.roles.storage import Level, judge, look
from tests.support.peers import require


class Mounter(Protocol):
    def __call__(self, kind: str, *, megabytes: int = 16, make: str = "", options: str = "") -> Path: ...


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounter]:
    """Makes a file system in a file, mounts it, and unmounts it at the end."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    with ExitStack() as stack:

        def mount(kind: str, *, megabytes: int = 16, make: str = "", options: str = "") -> Path:
            point, image = tmp_path / "disk", tmp_path / "image"
            point.mkdir()
            if kind == "tmpfs":
                command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(point)]
            else:
                if kind == "ext4":
                    require("mkfs.ext4")
                elif shutil.which(f"mkfs.{kind}") is None:
                    pytest.skip(f"not installed: mkfs.{kind}")
                with image.open("wb") as file:
                    file.truncate(megabytes << 20)
                subprocess.run([f"mkfs.{kind}", "-q", *make.split(), str(image)], check=True, capture_output=True)
                command = ["mount", "-o", f"loop{options}", str(image), str(point)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"this system does not mount {kind}: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(point)], check=True)
            return point

        yield mount


@pytest.mark.parametrize(
    ("make", "options", "level", "said"),
    [
        ("", "", Level.GOOD, "good, it has a journal"),
        ("-O ^has_journal", "", Level.BAD, "this ext4 has no journal"),
        ("", ",nobarrier", Level.BAD, "the option nobarrier"),
    ],
)
def test_ext4(mounted: Mounter, make: str, options: str, level: Level, said: str) -> None:
    point = mounted("ext4", make=make, options=options)
    (point / "var").mkdir()
    ground = look(point / "var")
    advice, disk = judge(ground)
    assert (advice.level, said in advice.found) == (level, True), advice
    assert str(point) in advice.found
    assert disk.level is Level.CAUTION
    assert f"over the file {point.parent / 'image'}" in disk.found
    (device,) = ground.disks
    assert device.write_cache in ("write back", "write through")


@pytest.mark.parametrize(("kind", "megabytes"), [("xfs", 320), ("btrfs", 160)])
def test_others_that_are_good(mounted: Mounter, kind: str, megabytes: int) -> None:
    point = mounted(kind, megabytes=megabytes)
    ground = look(point)
    assert judge(ground)[0].level is Level.GOOD
    (device,) = ground.disks
    assert device.backing == str(point.parent / "image")


def test_memory_is_no_disk(mounted: Mounter) -> None:
    (advice,) = judge(look(mounted("tmpfs")))
    assert advice.level is Level.BAD
    assert "lives in memory" in advice.found
