"""From a mount to its disks, on machines that are made of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from aftertone.roles.block_device import DEEPEST, LONGEST, Disk, disks_under, has_journal
from aftertone.roles.mounts import Mount

SATA = {"queue/write_cache": "write back\n", "queue/rotational": "1\n", "queue/fua": "0\n", "removable": "0\n"}


class Machine:
    """A tree like /sys."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys"
        for folder in ("dev/block", "class/block"):
            (self.sys / folder).mkdir(parents=True)

    def device(self, where: str, number: str = "", files: Mapping[str, str] | None = None) -> Path:
        """Make a block device at ``devices/<where>``; ``number`` is its major:minor."""
        path = self.sys / "devices" / where
        path.mkdir(parents=True, exist_ok=True)
        for name, text in (files or {}).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
        (self.sys / "class" / "block" / path.name).symlink_to(path)
        if number:
            (self.sys / "dev" / "block" / number).symlink_to(path)
        return path

    def stack(self, upper: Path, *lower: Path) -> None:
        (upper / "slaves").mkdir(exist_ok=True)
        for device in lower:
            (upper / "slaves" / device.name).symlink_to(device)

    def disks(self, number: str, kind: str = "ext4", source: str = "/dev/none") -> list[Disk]:
        return list(disks_under(Mount("/", kind, "rw", source, number), self.sys))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_partition_belongs_to_its_disk(machine: Machine) -> None:
    more = {
        "device/vendor": "ATA     \n",
        "device/model": "WDC WD40\n",
        "device/scsi_disk/0:0:0:0/cache_type": "write back\n",
    }
    machine.device("pci0000:00/ata1/host0/block/sda", files={**SATA, **more})
    machine.device("pci0000:00/ata1/host0/block/sda/sda2", "8:2", {"partition": "2\n"})
    assert machine.disks("8:2") == [
        Disk("sda", "WDC WD40", "scsi", "write back", cache_type="write back", rotational=True)
    ]


def test_an_nvme_disk_with_nothing_to_lose(machine: Machine) -> None:
    files = {"queue/write_cache": "write through\n", "queue/fua": "1\n", "queue/rotational": "0\n"}
    machine.device("pci0/nvme/nvme0/nvme0n1", files={**files, "device/model": "SAMSUNG MZ1LB960\n"})
    machine.device("pci0/nvme/nvme0/nvme0n1/nvme0n1p1", "259:1", {"partition": "1\n"})
    assert machine.disks("259:1") == [Disk("nvme0n1", "SAMSUNG MZ1LB960", "nvme", "write through", fua=True)]


def test_a_usb_disk_is_known_by_its_way(machine: Machine) -> None:
    files = {"queue/write_cache": "write through\n", "removable": "1\n"}
    names = {"device/vendor": "SanDisk\n", "device/model": "Ultra Fit\n"}
    machine.device("pci0000:00/usb2/2-1/2-1:1.0/host3/block/sdb", "8:16", {**files, **names})
    assert machine.disks("8:16") == [Disk("sdb", "SanDisk Ultra Fit", "usb", "write through", removable=True)]


@pytest.mark.parametrize(("kind", "bus"), [("SD", "sd"), ("MMC", "mmc")])
def test_cards_and_soldered_flash(machine: Machine, kind: str, bus: str) -> None:
    machine.device("soc/mmc0/mmcblk0", files={"device/type": f"{kind}\n", "device/name": "SC32G\n"})
    machine.device("soc/mmc0/mmcblk0/mmcblk0p2", "179:2", {"partition": "2\n"})
    assert machine.disks("179:2") == [Disk("mmcblk0", "SC32G", bus)]


@pytest.mark.parametrize(
    ("name", "files", "bus"),
    [
        ("vda", {"device/vendor": "0x1af4\n"}, "virtual"),
        ("xvda", {}, "virtual"),
        ("sda", {"device/vendor": "QEMU\n", "device/model": "QEMU HARDDISK\n"}, "virtual"),
        ("nvme0n1", {"device/model": "Amazon Elastic Block Store\n"}, "virtual"),
        ("nbd0", {}, "network"),
        ("rbd3", {}, "network"),
        ("zram0", {}, "memory"),
        ("ram1", {}, "memory"),
        ("loop7", {"loop/backing_file": "/srv/image\n"}, "loop"),
        ("strange0", {}, ""),
    ],
)
def test_kinds_of_disks(machine: Machine, name: str, files: Mapping[str, str], bus: str) -> None:
    machine.device(f"virtual/block/{name}", "1:1", files)
    (disk,) = machine.disks("1:1")
    assert (disk.name, disk.bus) == (name, bus)
    assert disk.model == _model(files)
    assert disk.backing == files.get("loop/backing_file", "").strip()


def _model(files: Mapping[str, str]) -> str:
    vendor, model = files.get("device/vendor", "").strip(), files.get("device/model", "").strip()
    return model if vendor.startswith("0x") else f"{vendor} {model}".strip()


def test_encryption_over_volumes_over_an_array_leads_to_every_disk(machine: Machine) -> None:
    disks = [machine.device(f"pci0/ata{n}/block/sd{letter}", files=SATA) for n, letter in enumerate("abc")]
    parts = [machine.device(f"pci0/ata{n}/block/sd{x}/sd{x}1", files={"partition": "1\n"}) for n, x in enumerate("abc")]
    array = machine.device("virtual/block/md0")
    volume, crypt = machine.device("virtual/block/dm-0"), machine.device("virtual/block/dm-1", "253:1")
    machine.stack(array, *parts)
    machine.stack(volume, array)
    machine.stack(crypt, volume, parts[0])
    assert [disk.name for disk in machine.disks("253:1")] == [disk.name for disk in disks]


def test_a_stack_without_an_end_is_given_up(machine: Machine) -> None:
    one, two = machine.device("virtual/block/dm-0", "253:0"), machine.device("virtual/block/dm-1")
    machine.stack(one, two)
    machine.stack(two, one)
    assert len(machine.disks("253:0")) == 1
    assert DEEPEST < 100


def test_btrfs_has_no_number_but_a_source_and_members(machine: Machine) -> None:
    first = machine.device("pci0/ata1/block/sdx7a", files=SATA)
    second = machine.device("pci0/ata2/block/sdx7b", files=SATA)
    assert [disk.name for disk in machine.disks("0:39", "btrfs", "/dev/sdx7b")] == ["sdx7b"]
    other = machine.sys / "fs" / "btrfs" / "ffff" / "devices"
    members = machine.sys / "fs" / "btrfs" / "0e0e" / "devices"
    for folder in (other, members):
        folder.mkdir(parents=True)
    for device in (first, second):
        (members / device.name).symlink_to(device)
    assert [disk.name for disk in machine.disks("0:39", "btrfs", "/dev/sdx7b")] == ["sdx7a", "sdx7b"]


def test_a_source_that_names_several_devices(machine: Machine) -> None:
    for name in ("sdx7a", "sdx7b"):
        machine.device(f"pci0/block/{name}")
    found = machine.disks("0:40", "bcachefs", "/dev/sdx7a:/dev/sdx7b:/dev/sdx7c")
    assert [disk.name for disk in found] == ["sdx7a", "sdx7b"]


@pytest.mark.parametrize("source", ["tmpfs", "server:/export", "/dev/root", "overlay", ""])
def test_no_disk_where_there_is_none(machine: Machine, source: str) -> None:
    assert machine.disks("0:25", "tmpfs", source) == []
    assert machine.disks("", "tmpfs", source) == []


def test_a_device_may_call_itself_anything(machine: Machine) -> None:
    machine.device("pci0/block/sda", "8:0", {"device/model": "\x1b[31mred\n" + "x" * 9999})
    (disk,) = machine.disks("8:0")
    assert "\x1b" not in disk.model
    assert len(disk.model) == LONGEST


@pytest.mark.parametrize(("text", "answer"), [("5365\n", True), ("<none>\n", False), ("", None), (None, None)])
def test_the_journal_of_ext4(machine: Machine, text: str | None, answer: bool | None) -> None:
    machine.device("pci0/block/sda/sda1", "8:1", {"partition": "1\n"})
    if text is not None:
        (machine.sys / "fs" / "ext4" / "sda1").mkdir(parents=True)
        (machine.sys / "fs" / "ext4" / "sda1" / "journal_task").write_text(text)
    assert has_journal(Mount("/", "ext4", "rw", "/dev/root", "8:1"), machine.sys) is answer
