"""The ground under the data folder: which mount it is, and what that means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aftertone.errors import StorageError
from aftertone.roles import storage
from aftertone.roles.storage import GOOD, WEAK, Mount, find_mount, judge, measure_sync_ms, report

TABLE = """\
/dev/sda1 / ext4 rw,relatime 0 0
tmpfs /run tmpfs rw,nosuid 0 0
/dev/sdb1 /srv/my\\040disk xfs rw 0 0
/dev/sdc1 /srv/tab\\011and\\134slash vfat rw 0 0
/dev/sdd1 /srv/Müsik exfat rw 0 0
/dev/sde1 /srv ext2 rw 0 0
overlay /over overlay rw 0 0
/dev/sdf1 /over btrfs rw 0 0

broken line
"""


@pytest.mark.parametrize(
    ("folder", "point", "kind"),
    [
        ("/home/ann/var", "/", "ext4"),
        ("/run", "/run", "tmpfs"),
        ("/run/aftertone", "/run", "tmpfs"),
        ("/running", "/", "ext4"),
        ("/srv/other", "/srv", "ext2"),
        ("/srv/my disk/var", "/srv/my disk", "xfs"),
        ("/srv/tab\tand\\slash/var", "/srv/tab\tand\\slash", "vfat"),
        ("/srv/Müsik/var", "/srv/Müsik", "exfat"),
        ("/over/var", "/over", "btrfs"),
    ],
)
def test_a_folder_lies_on_the_longest_and_newest_mount_above_it(folder: str, point: str, kind: str) -> None:
    found = find_mount(Path(folder), TABLE)
    assert found is not None
    assert (found.point, found.kind) == (point, kind)


def test_a_mount_point_that_is_no_utf_8_disturbs_nobody() -> None:
    table = "x /mnt/\udcff\udcfe vfat rw 0 0\n" + TABLE
    assert find_mount(Path("/home"), table) == Mount("/", "ext4", "rw,relatime")
    assert find_mount(Path(os.fsdecode(b"/mnt/\xff\xfe/var")), table) == Mount("/mnt/\udcff\udcfe", "vfat", "rw")


def test_a_link_leads_to_where_the_bytes_really_are(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    found = find_mount(tmp_path / "link", f"a / ext4 rw 0 0\nb {tmp_path}/real xfs rw 0 0\n")
    assert found is not None
    assert found.kind == "xfs"


def test_a_table_without_a_mount_for_us() -> None:
    assert find_mount(Path("/home"), "") is None


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_what_keeps_the_promise(kind: str) -> None:
    assert judge(Mount("/", kind, "rw")) == (True, f"{kind}: good")


@pytest.mark.parametrize("kind", sorted(WEAK))
def test_what_does_not_keep_the_promise_says_why(kind: str) -> None:
    assert judge(Mount("/", kind, "rw")) == (False, f"{kind}: {WEAK[kind]}")


@pytest.mark.parametrize("option", ["nobarrier", "barrier=0"])
def test_barriers_that_are_off_spoil_the_best_file_system(option: str) -> None:
    good, text = judge(Mount("/", "ext4", f"rw,{option}"))
    assert not good
    assert "barriers off" in text


def test_what_is_unknown_is_said_to_be_unknown() -> None:
    good, text = judge(Mount("/", "newfs", "rw"))
    assert good
    assert "not known to us" in text
    good, text = judge(None)
    assert good
    assert "could not be found out" in text


def test_measuring_leaves_nothing_behind(tmp_path: Path) -> None:
    p50_ms, p99_ms = measure_sync_ms(tmp_path)
    assert 0 < p50_ms <= p99_ms
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        measure_sync_ms(tmp_path / "nowhere")


def test_a_disk_that_fails_while_it_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        measure_sync_ms(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_report_puts_it_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PROBES", 3)
    found = report(tmp_path)
    assert found.free_bytes > 0
    assert found.verdict == judge(found.mount)[1]
