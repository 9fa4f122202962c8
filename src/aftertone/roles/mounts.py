"""Which mount a folder lies on.

Owns: reading the kernel's table of mounts. Refuses to know: what a kind of file system is worth.

Specification: proc_pid_mountinfo(5).

Theory of operation: the mount with the longest mount point above the folder counts, of several at one place the newest,
which the table has last. The table, not st_dev, names the device: btrfs gives every volume an anonymous number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")
"""How the kernel writes blank, tab, line break and backslash; all other bytes stand as they are."""
_FIELDS_BEFORE: Final = 6
_FIELDS_AFTER: Final = 3


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table."""

    point: str
    kind: str
    options: str
    """Of this mount and of the file system beneath, joined by commas."""
    source: str = ""
    """What is mounted: a device, a name on a network, or a word."""
    device: str = ""
    """``major:minor`` of the file system; major 0 where no one device is behind it."""


def find_mount(folder: Path, table: str) -> Mount | None:
    """Return the mount that ``folder`` lies on, from the text of /proc/self/mountinfo; None when the table has none."""
    best: Mount | None = None
    real = str(folder.resolve())
    for line in table.splitlines():
        mount = _parse(line)
        if mount is None:
            continue
        inside = real == mount.point or real.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def mount_of(folder: Path, proc: Path = PROC) -> Mount | None:
    """Return the mount that ``folder`` lies on as this machine knows it; None where there is no mount table."""
    try:
        table = (proc / "self" / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return find_mount(folder, table)


def _parse(line: str) -> Mount | None:
    # Optional fields stand between the two groups, and a dash by itself ends them.
    before, dash, after = line.partition(" - ")
    left, right = before.split(" "), after.split(" ")
    if not dash or len(left) < _FIELDS_BEFORE or len(right) < _FIELDS_AFTER:
        return None
    options = dict.fromkeys([*left[5].split(","), *right[2].split(",")])
    return Mount(_plain(left[4]), right[0], ",".join(options), _plain(right[1]), left[2])


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found.group(1), 8)), text)
