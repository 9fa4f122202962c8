"""Room on the disk: below which mark no new call is taken.

Owns: the mark, and saying in words where it comes from. Refuses to know: how much is free, and who is refused.

Theory of operation: the smaller of an amount and a share of the disk, because two percent of four terabytes would refuse
callers with 80 GB free, and 200 MB of a partition of a gigabyte would waste a fifth of it. Never less than what calls in
progress may need: the reserve, were it to be made again, and one journal file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aftertone.config import Settings

MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Mark:
    """Where new calls stop, in bytes that are free, and which setting says so."""

    free_bytes: int
    why: str

    def __str__(self) -> str:
        """Say both."""
        return f"{self.free_bytes / MB:.0f} MB ({self.why})"


def reserve_bytes(settings: Settings) -> int:
    """Return what is to be kept for calls in progress."""
    return settings.storage.reserve_mb * MB


def mark_of(settings: Settings, disk_bytes: int) -> Mark:
    """Return the mark of a disk of ``disk_bytes``; 0 stands for a disk that does not tell its size."""
    storage = settings.storage
    mark = Mark(storage.low_water_mb * MB, f"storage.low_water_mb = {storage.low_water_mb}")
    share_bytes = int(disk_bytes * storage.low_water_percent / 100)
    if 0 < share_bytes < mark.free_bytes:
        share = f"storage.low_water_percent = {storage.low_water_percent:g} of {disk_bytes / 1e9:.1f} GB"
        mark = Mark(share_bytes, share)
    least_bytes = reserve_bytes(settings) + settings.journal.segment_mb * 1024 * 1024
    if least_bytes > mark.free_bytes:
        least = f"the least: storage.reserve_mb = {storage.reserve_mb} and a file of journal.segment_mb = "
        return Mark(least_bytes, f"{least}{settings.journal.segment_mb}")
    return mark
