"""What the data folder stands on, and what that means for the promise.

Owns: the judgement of file systems, mount options and disks in words; room; measuring a sync. Refuses to know: what is kept
there, how the kernel tells (`mounts`, `block_device`).

Theory of operation: the promise needs a file system that keeps synced bytes and names through a power cut, and a disk that
keeps what it confirmed. The first can be known, so what is wrong with it is an alarm (``BAD``). The second cannot: a disk
that lies looks like one that does not until somebody pulls the plug. So a disk of a doubtful kind is a ``CAUTION``, which
alarms nobody and says how to find out. What is not known to us is said to be unknown.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from aftertone.errors import StorageError, StorageFullError
from aftertone.roles.block_device import SYS, Disk, disks_under, has_journal
from aftertone.roles.mounts import PROC, Mount, mount_of

GOOD: Final = frozenset({"ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "ext3", "jfs", "nilfs2"})
_MEMORY: Final = "it lives in memory, and a power cut or a restart loses everything"
_UNFINISHED: Final = "a cut while anything is written can damage files that were finished long ago"
_BARE: Final = f"it has no journal: {_UNFINISHED}"
_NETWORK: Final = (
    "it is a network folder: what its server confirmed may not be on the server's disk, and SQLite must not live there"
)
_WINDOWS: Final = "its driver was not made to keep files through a power cut"
_LAYER: Final = "it is the inside of a container, which goes, with all messages, when the container is made anew"
WEAK: Final[Mapping[str, str]] = {
    "tmpfs": _MEMORY,
    "ramfs": _MEMORY,
    "vfat": _BARE,
    "exfat": _BARE,
    "msdos": _BARE,
    "ext2": _BARE,
    "nfs": _NETWORK,
    "nfs4": _NETWORK,
    "cifs": _NETWORK,
    "smb3": _NETWORK,
    "smbfs": _NETWORK,
    "fuse.sshfs": _NETWORK,
    "ceph": _NETWORK,
    "fuse.glusterfs": _NETWORK,
    "ntfs3": _WINDOWS,
    "fuseblk": _WINDOWS,
    "overlay": _LAYER,
    "aufs": _LAYER,
}
"""Why a file system does not keep the promise."""
_MOVE: Final = "Move the data folder to a local disk with ext4, xfs or btrfs."
_MOUNT_A_VOLUME: Final = (
    "Mount a volume for the data folder (with Docker: -v aftertone:/data), and name it with --data."
)
_NO_BARRIERS: Final = frozenset({"nobarrier", "barrier=0", "fsync_mode=nobarrier"})
_UNSYNCED: Final = frozenset({"volatile", "fsync=volatile"})
_PULL: Final = "Pull the plug to know: aftertone doctor --pull-the-plug"
LONGEST_OPTIONS: Final = 120
PROBES: Final = 200
FEWEST_PROBES: Final = 20
MEASURE_S: Final = 2.0
"""Nobody waits longer for a slow disk, unless the fewest probes take longer."""
PROBE_BYTES: Final = 8192


class Level(StrEnum):
    """How a finding is meant."""

    GOOD = "good"
    CAUTION = "caution"
    """Worth knowing; no alarm."""
    BAD = "bad"
    """The promise does not hold."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What was looked at and found, and what to do about it."""

    level: Level
    found: str
    todo: str = ""
    why: str = ""
    """Of something bad: the reason by itself."""

    @property
    def sentence(self) -> str:
        """Both in one line."""
        return f"{self.found}. {self.todo}" if self.todo else f"{self.found}."


@dataclass(frozen=True, slots=True)
class Ground:
    """What is under a folder, as far as the system tells."""

    folder: Path
    mount: Mount | None
    journal: bool | None = None
    """Of an ext4 or ext3: whether it has one. None: not known, or another file system."""
    disks: tuple[Disk, ...] = ()


@dataclass(frozen=True, slots=True)
class StorageReport:
    """The ground, what to think of it, and what was measured."""

    advice: Advice
    """About the file system."""
    disks: tuple[Advice, ...]
    """About each disk."""
    free_bytes: int
    """Room for this user."""
    disk_bytes: int
    """The size of the file system."""
    free_files: int | None
    """Inodes that are left; None where the file system does not count them."""
    sync_p50_ms: float
    sync_p99_ms: float
    unmeasured: StorageError | None = None
    """Why a sync could not be measured; the two above are 0 then."""


def look(folder: Path, *, proc: Path = PROC, sys: Path = SYS) -> Ground:
    """Return what ``folder`` stands on. Reads a few small files; what the system does not tell stays empty."""
    mount = mount_of(folder, proc)
    if mount is None:
        return Ground(folder, None)
    journal = has_journal(mount, sys) if mount.kind in ("ext4", "ext3") else None
    return Ground(folder, mount, journal, disks_under(mount, sys))


def judge(ground: Ground) -> tuple[Advice, ...]:
    """Return what to think of it: first the file system, then each disk."""
    about = [judge_mount(ground)]
    if ground.mount is None or ground.mount.kind in WEAK:
        return tuple(about)
    about += map(judge_disk, ground.disks)
    if not ground.disks:
        text = f"which disk is behind {ground.mount.source or ground.mount.kind} could not be found out"
        about.append(Advice(Level.CAUTION, text, _PULL))
    return tuple(about)


def judge_mount(ground: Ground) -> Advice:
    """Return whether the file system keeps what was synced."""
    mount = ground.mount
    if mount is None:
        text = f"the file system of {ground.folder} could not be found out (no /proc/self/mountinfo)"
        return Advice(Level.CAUTION, text, "Make sure that it is a local ext4, xfs or btrfs.")
    what = f"{mount.kind} ({mount.source or 'no source'} on {mount.point}, {_shortened(mount.options)})"
    if wrong := _wrong_with(mount, ground.journal):
        return _bad(what, "; and ".join(why for why, _ in wrong), " ".join(todo for _, todo in wrong))
    if mount.kind in ("ext4", "ext3"):
        if ground.journal:
            return Advice(Level.GOOD, f"{what}: good, it has a journal")
        text = f"{what}: good if it has a journal, which could not be found out here"
        return Advice(Level.CAUTION, text, f"Look for has_journal in the answer of: tune2fs -l {mount.source}")
    if mount.kind == "zfs":
        return Advice(Level.GOOD, f"{what}: good, as long as 'zfs get sync {mount.source}' does not say disabled")
    if mount.kind in GOOD:
        return Advice(Level.GOOD, f"{what}: good")
    text = f"{what}: not known to us; the promise holds if it keeps what was synced"
    return Advice(Level.CAUTION, text, f"{_PULL}; or choose ext4, xfs or btrfs.")


def _wrong_with(mount: Mount, journal: bool | None) -> list[tuple[str, str]]:
    """Return each reason why the mount does not keep the promise, with what to do."""
    options, wrong = set(mount.options.split(",")), []
    if mount.kind in WEAK:
        wrong.append((WEAK[mount.kind], _MOUNT_A_VOLUME if WEAK[mount.kind] == _LAYER else _MOVE))
    if journal is False:
        todo = f"Stop, unmount {mount.point}, run 'tune2fs -O has_journal {mount.source}', and mount it again."
        wrong.append((f"this {mount.kind} has no journal: {_UNFINISHED}", todo))
    if off := options & _NO_BARRIERS:
        todo = f"Remove {min(off)} from /etc/fstab, and remount {mount.point}."
        wrong.append((f"the option {min(off)} keeps the disk from being told to write its cache down", todo))
    if options & _UNSYNCED:
        wrong.append(("it is mounted so that syncs do nothing", f"Remove the option {min(options & _UNSYNCED)}."))
    return wrong


def _shortened(options: str) -> str:
    # Those of an overlay name all the layers of an image.
    return options if len(options) <= LONGEST_OPTIONS else options[: LONGEST_OPTIONS - 1] + "…"


def _bad(what: str, why: str, todo: str) -> Advice:
    return Advice(Level.BAD, f"{what}: it works, but a power cut can cost finished messages, because {why}", todo, why)


_CACHES: Final[Mapping[str, str]] = {
    "write back": "it has a write cache, which the kernel flushes at each sync",
    "write through": "no write cache that could lose anything, or one with power-loss protection",
}
_KINDS: Final[Mapping[str, str]] = {
    "usb": "a USB disk",
    "sd": "an SD card",
    "mmc": "eMMC flash",
    "nvme": "an NVMe disk",
    "virtual": "a virtual disk",
    "network": "a network disk",
    "memory": "a disk in memory",
    "loop": "a loop device",
}
_DOUBTS: Final[Mapping[str, tuple[str, str]]] = {
    "usb": ("many USB bridges confirm a sync before the disk has done it", _PULL),
    "sd": ("many cards confirm a sync too early, or damage other data when the power goes while they write", _PULL),
    "mmc": ("some confirm a sync too early", _PULL),
    "virtual": (
        "whether a sync reaches a real disk is the host's choice",
        "Ask whoever runs the host: the cache mode must not be 'unsafe', and the plug to pull is the host's.",
    ),
    "network": ("whether a sync reaches a real disk is the server's choice", "Ask whoever runs that server."),
}


def judge_disk(disk: Disk) -> Advice:
    """Return what is known of a disk's honesty."""
    kind = _KINDS.get(disk.bus) or ("a disk with platters" if disk.rotational else "a disk")
    silent = disk.bus == "usb" and disk.write_cache == "write through"
    cache = "" if silent or disk.bus in ("loop", "memory") else _CACHES.get(disk.write_cache, "")
    facts = [fact for fact in (disk.model, cache, "FUA" if disk.fua else "") if fact]
    what = f"{disk.name}, {kind}" + (f" ({'; '.join(facts)})" if facts else "")
    if disk.bus == "memory":
        return _bad(what, _MEMORY, _MOVE)
    if disk.write_cache == "write through" and disk.cache_type.startswith("write back"):
        why = "the disk has a write cache that the kernel was told not to flush"
        return _bad(what, why, f"Run: echo 'write back' > /sys/block/{disk.name}/queue/write_cache")
    if disk.bus == "loop":
        text = f"{what} over the file {disk.backing or '(unknown)'}: as good as the storage of that file"
        return Advice(Level.CAUTION, text, "Look at that storage too, with a data folder there.")
    if silent:
        text = f"{what}: the kernel sends it no flushes, since it claims to have no cache; many USB bridges just do not tell"
        return Advice(Level.CAUTION, text, _PULL)
    if disk.bus in _DOUBTS:
        doubt, todo = _DOUBTS[disk.bus]
        return Advice(Level.CAUTION, f"{what}: {doubt}", todo)
    if disk.removable:
        return Advice(Level.CAUTION, f"{what}: it can be taken out while messages are written", _PULL)
    if disk.write_cache not in _CACHES:
        return Advice(Level.CAUTION, f"{what}: the kernel does not tell whether it has a write cache", _PULL)
    return Advice(Level.GOOD, f"{what}: good, if it does what it is told")


def measure_sync_ms(folder: Path) -> tuple[float, float]:
    """Return p50 and p99 of writing and syncing 8 kB in ``folder``, in milliseconds.

    Raises StorageError, StorageFullError when there is no room for that.
    """
    path = folder / f".probe.{os.getpid()}"
    times: list[float] = []
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            end_s = time.perf_counter() + MEASURE_S
            while len(times) < PROBES and (len(times) < FEWEST_PROBES or time.perf_counter() < end_s):
                began_s = time.perf_counter()
                os.write(descriptor, b"\xa5" * PROBE_BYTES)
                os.fdatasync(descriptor)
                times.append((time.perf_counter() - began_s) * 1000)
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
    except OSError as error:
        kind = StorageFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"cannot write and sync in {folder}: {error.strerror}") from None
    times.sort()
    return percentile(times, 0.5), percentile(times, 0.99)


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not pass; 0 when there are none."""
    return ascending[max(0, math.ceil(len(ascending) * share) - 1)] if ascending else 0.0


def report(folder: Path, *, proc: Path = PROC, sys: Path = SYS) -> StorageReport:
    """Look at the ground under ``folder``, measuring for a moment. Raises StorageError when it does not answer at all."""
    advice, *disks = judge(look(folder, proc=proc, sys=sys))
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise StorageError(f"the disk under {folder} does not answer: {error.strerror}") from None
    free_files = status.f_favail if status.f_files else None
    free_bytes, disk_bytes = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    p50_ms, p99_ms, unmeasured = 0.0, 0.0, None
    try:
        p50_ms, p99_ms = measure_sync_ms(folder)
    except StorageError as error:
        unmeasured = error
    return StorageReport(advice, tuple(disks), free_bytes, disk_bytes, free_files, p50_ms, p99_ms, unmeasured)
