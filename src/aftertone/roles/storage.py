"""What the data folder stands on: the mount, its room, how fast it syncs, and what that means for the promise.

Owns: reading the mount table, measuring, the verdict in words. Refuses to know: what is kept there.

Theory of operation: the promise needs a file system that keeps synced bytes and names through a power cut. The table below
says of each known kind whether it does; what is unknown is said to be unknown.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aftertone.errors import StorageError

GOOD: Final = frozenset({"ext4", "xfs", "btrfs", "zfs", "f2fs", "apfs", "bcachefs", "ext3"})
WEAK: Final[Mapping[str, str]] = {
    "tmpfs": "it lives in memory: a power cut or a restart loses everything",
    "ramfs": "it lives in memory: a power cut or a restart loses everything",
    "vfat": "it has no journal: a power cut can damage finished messages",
    "exfat": "it has no journal: a power cut can damage finished messages",
    "msdos": "it has no journal: a power cut can damage finished messages",
    "ext2": "it has no journal: a power cut can damage finished messages",
    "nfs": "it is a network: what the server acknowledged may not be on its disk, and SQLite must not live there",
    "nfs4": "it is a network: what the server acknowledged may not be on its disk, and SQLite must not live there",
    "cifs": "it is a network: what the server acknowledged may not be on its disk, and SQLite must not live there",
    "smb3": "it is a network: what the server acknowledged may not be on its disk, and SQLite must not live there",
    "fuse.sshfs": "it is a network: what the server acknowledged may not be on its disk",
    "overlay": "it is the inside of a container image: it goes when the container goes; mount a volume for the data folder",
}
_OCTAL: Final = re.compile(r"\\([0-7]{3})")
"""How the kernel writes blank, tab, line break and backslash in a mount point; all other bytes stand as they are."""
PROBES: Final = 40
PROBE_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table."""

    point: str
    kind: str
    options: str


@dataclass(frozen=True, slots=True)
class StorageReport:
    """What is known about the ground under a folder."""

    mount: Mount | None
    free_bytes: int
    sync_p50_ms: float
    sync_p99_ms: float
    good: bool
    verdict: str


def find_mount(folder: Path, table: str) -> Mount | None:
    """Return the mount that ``folder`` lies on, from the text of /proc/self/mounts; None when the table has none."""
    best: Mount | None = None
    real = str(folder.resolve())
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        point = _OCTAL.sub(lambda found: chr(int(found.group(1), 8)), fields[1])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best.point)):
            best = Mount(point, fields[2], fields[3])
    return best


def mount_of(folder: Path) -> Mount | None:
    """Return the mount that ``folder`` lies on as this machine knows it; None where there is no mount table."""
    try:
        table = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return find_mount(folder, table)


def judge(mount: Mount | None) -> tuple[bool, str]:
    """Return whether the mount keeps the promise, and the sentence that says so."""
    if mount is None:
        return True, "the file system could not be found out; the promise holds if it keeps what was synced"
    options = mount.options.split(",")
    if "nobarrier" in options or "barrier=0" in options:
        return (
            False,
            f"{mount.kind} is mounted with barriers off: a power cut can lose finished messages; remove that option",
        )
    if mount.kind in WEAK:
        return False, f"{mount.kind}: {WEAK[mount.kind]}"
    if mount.kind in GOOD:
        return True, f"{mount.kind}: good"
    return True, f"{mount.kind}: not known to us; the promise holds if it keeps what was synced"


def measure_sync_ms(folder: Path) -> tuple[float, float]:
    """Return p50 and p99 of writing and syncing 8 kB in ``folder``, in milliseconds. Raises StorageError."""
    path = folder / f".probe.{os.getpid()}"
    times: list[float] = []
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for _ in range(PROBES):
                began_s = time.perf_counter()
                os.write(descriptor, b"\xa5" * PROBE_BYTES)
                os.fdatasync(descriptor)
                times.append((time.perf_counter() - began_s) * 1000)
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
    except OSError as error:
        raise StorageError(f"cannot write and sync in {folder}: {error.strerror}") from None
    times.sort()
    return times[len(times) // 2], times[int(len(times) * 0.99) - 1]


def report(folder: Path) -> StorageReport:
    """Look at the ground under ``folder``, measuring for a moment. Raises StorageError when it cannot be written."""
    mount = mount_of(folder)
    good, verdict = judge(mount)
    p50_ms, p99_ms = measure_sync_ms(folder)
    return StorageReport(mount, shutil.disk_usage(folder).free, p50_ms, p99_ms, good, verdict)
