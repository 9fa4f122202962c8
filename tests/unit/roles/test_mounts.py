"""Which mount a folder lies on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aftertone.roles.mounts import Mount, find_mount, mount_of

TABLE = """\
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
30 27 0:25 / /run rw,nosuid - tmpfs tmpfs rw,size=24684084k
31 27 8:17 / /srv/my\\040disk rw - xfs /dev/sdb1 rw
32 27 8:33 / /srv/tab\\011and\\134slash rw - vfat /dev/sdc1 rw
33 27 8:49 / /srv/Müsik rw - exfat /dev/sdd1 rw
34 27 8:65 / /srv rw - ext2 /dev/sde1 rw
35 27 0:40 / /over rw - overlay overlay rw
36 27 0:39 /sub /over rw shared:4 - btrfs /dev/my\\040disk rw,nobarrier,subvol=/sub

broken line
37 27 8:66 / /home rw ext4 /dev/sdf1 rw
38 27 8:66 / /home - ext4
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


def test_options_of_the_mount_and_of_the_file_system_stand_together() -> None:
    assert find_mount(Path("/home"), TABLE) == Mount("/", "ext4", "rw,relatime,discard", "/dev/vda", "254:0")
    options = "rw,nobarrier,subvol=/sub"
    assert find_mount(Path("/over/x"), TABLE) == Mount("/over", "btrfs", options, "/dev/my disk", "0:39")


def test_a_mount_point_that_is_no_utf_8_disturbs_nobody() -> None:
    table = "40 27 8:1 / /mnt/\udcff\udcfe rw - vfat x rw\n" + TABLE
    found = find_mount(Path("/home"), table)
    assert found is not None
    assert found.point == "/"
    named = Mount("/mnt/\udcff\udcfe", "vfat", "rw", "x", "8:1")
    assert find_mount(Path(os.fsdecode(b"/mnt/\xff\xfe/var")), table) == named


def test_a_link_leads_to_where_the_bytes_really_are(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    table = f"1 1 8:1 / / rw - ext4 a rw\n2 1 8:2 / {tmp_path}/real rw - xfs b rw\n"
    found = find_mount(tmp_path / "link", table)
    assert found is not None
    assert found.kind == "xfs"


def test_a_table_without_a_mount_for_us(tmp_path: Path) -> None:
    assert find_mount(Path("/home"), "") is None
    assert mount_of(Path("/home"), tmp_path) is None


def test_the_table_of_this_machine(tmp_path: Path) -> None:
    found = mount_of(tmp_path)
    assert found is not None
    assert tmp_path.is_relative_to(found.point)
