"""What the kernel tells about the disks under a mount.

Owns: the way from a mount through partitions, dm, md and btrfs down to the disks, and reading their properties in sysfs.
Refuses to know: what a property is worth; `storage` judges.

Specification: the kernel's Documentation/ABI/stable/sysfs-block and testing/sysfs-fs-ext4.

Theory of operation: /sys/dev/block/MAJOR:MINOR leads to a block device. One with ``slaves`` is made of others; one with a
file ``partition`` is a part of the folder above; what is left is a disk. The kernel's view of a disk's cache is
``queue/write_cache``: a sync is followed by a flush only where that says ``write back``. Whether a disk obeys the flush, and
whether it has capacitors to save its cache, no file tells. Everything read here may be missing, in a container for
instance; then it is empty. ``sys`` is a parameter so that tests can build a machine out of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aftertone.roles.mounts import Mount

SYS: Final = Path("/sys")
DEEPEST: Final = 8
"""Devices that may stand on each other; a real stack has two or three. Deeper ones are not looked at."""
MOST_DISKS: Final = 64
"""Disks that are looked at; an array with more has a person who knows them."""
LONGEST: Final = 200
"""Characters of a property that are kept: a model is a few words, and a device chooses them itself."""
_NO_JOURNAL: Final = "<none>"


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk as the kernel describes it; empty text is what it does not tell."""

    name: str
    model: str = ""
    bus: str = ""
    """``usb``, ``sd`` (a card), ``mmc`` (soldered flash), ``nvme``, ``scsi`` (SATA and SAS too), ``virtual``, ``network``,
    ``memory``, ``loop``, or empty."""
    write_cache: str = ""
    """``write back``: the kernel flushes at each sync. ``write through``: it believes that there is nothing to flush."""
    cache_type: str = ""
    """What the drive itself said about its cache, where the SCSI layer keeps that."""
    fua: bool = False
    rotational: bool = False
    removable: bool = False
    backing: str = ""
    """The file behind a loop device."""


def disks_under(mount: Mount, sys: Path = SYS) -> tuple[Disk, ...]:
    """Return the disks that hold the mount, each once; empty where there is none or it cannot be found out."""
    found: dict[Path, Disk] = {}
    for device in _devices_of(mount, sys):
        for disk in _disks_below(device, DEEPEST):
            if len(found) < MOST_DISKS:
                found.setdefault(disk, _describe(disk))
    return tuple(found.values())


def has_journal(mount: Mount, sys: Path = SYS) -> bool | None:
    """Return whether a mounted ext4 (or ext3) keeps a journal; None when that cannot be found out.

    The kernel names the process of the journal in ``journal_task``, and ``<none>`` when there is no journal.
    """
    for device in _devices_of(mount, sys):
        task = _read(sys / "fs" / "ext4" / device.name / "journal_task")
        if task:
            return task != _NO_JOURNAL
    return None


def _devices_of(mount: Mount, sys: Path) -> list[Path]:
    device = sys / "dev" / "block" / mount.device
    if mount.device and not mount.device.startswith("0:") and device.exists():
        return [device.resolve()]
    # An anonymous number: the source names the device, or one of several.
    found: list[Path] = []
    for source in mount.source.split(":"):
        if source.startswith("/dev/"):
            device = sys / "class" / "block" / Path(source).resolve().name
            if device.exists():
                found.append(device.resolve())
    if mount.kind == "btrfs" and found:
        return _btrfs_members(found[0], sys) or found
    return found


def _btrfs_members(one: Path, sys: Path) -> list[Path]:
    for members in sys.glob("fs/btrfs/*/devices"):
        if (members / one.name).exists():
            return sorted(member.resolve() for member in members.iterdir())
    return []


def _disks_below(device: Path, deepest: int) -> Iterator[Path]:
    slaves = device / "slaves"
    below = sorted(slaves.iterdir()) if slaves.is_dir() else []
    if below and deepest:
        for slave in below[:MOST_DISKS]:
            yield from _disks_below(slave.resolve(), deepest - 1)
    elif (device / "partition").exists() and deepest:
        yield from _disks_below(device.parent, deepest - 1)
    else:
        yield device


def _describe(disk: Path) -> Disk:
    vendor = _read(disk / "device" / "vendor")
    model = _read(disk / "device" / "model") or _read(disk / "device" / "name")
    if vendor and vendor != "ATA" and not vendor.startswith("0x"):
        model = f"{vendor} {model}".strip()
    return Disk(
        name=disk.name,
        model=model,
        bus=_bus(disk, model),
        write_cache=_read(disk / "queue" / "write_cache"),
        cache_type=next((_read(path) for path in sorted(disk.glob("device/scsi_disk/*/cache_type"))), ""),
        fua=_read(disk / "queue" / "fua") == "1",
        rotational=_read(disk / "queue" / "rotational") == "1",
        removable=_read(disk / "removable") == "1",
        backing=_read(disk / "loop" / "backing_file"),
    )


_BY_NAME: Final = (
    (re.compile(r"loop\d"), "loop"),
    (re.compile(r"(zram|ram)\d"), "memory"),
    (re.compile(r"(nbd|rbd|drbd)\d"), "network"),
    (re.compile(r"x?vd[a-z]"), "virtual"),
    (re.compile(r"nvme"), "nvme"),
    (re.compile(r"sd[a-z]"), "scsi"),
)
_VIRTUAL: Final = re.compile(r"QEMU|VMware|VBOX|Virtual|Msft|Google|Amazon|Xen", re.IGNORECASE)


def _bus(disk: Path, model: str) -> str:
    if any(re.fullmatch(r"usb\d+", part) for part in disk.parts):
        return "usb"
    if disk.name.startswith("mmcblk"):
        return "sd" if _read(disk / "device" / "type") == "SD" else "mmc"
    if _VIRTUAL.search(model):
        return "virtual"
    return next((bus for pattern, bus in _BY_NAME if pattern.match(disk.name)), "")


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "".join(c for c in text if c.isprintable()).strip()[:LONGEST]
