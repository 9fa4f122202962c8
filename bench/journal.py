"""What the journal costs: commits, syncs, processor time, age of the oldest sound, for many calls at once.

    python bench/journal.py [folder] [seconds]

A tick each 20 ms brings one packet of 160 bytes for each call, as a G.711 line does (50 packets/s a call), and is packed and
appended as one batch. ``cpu`` is the processor time of the process, packing and writer thread together, over the wall time;
``load`` is what making up the packets alone costs and is subtracted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aftertone.files import OsFiles, machine_boot_id
from aftertone.journal import (
    JournalReader,
    JournalWriter,
    Kind,
    PacketBatch,
    pack_batch,
    unpack_batch,
)
from aftertone.journal.record import pack_header

TICK_NS = 20_000_000
PAYLOAD_BYTES = 160


def make_batch(calls: int, tick: int, now_ns: int, payloads: bytes) -> PacketBatch:
    """One packet of each call."""
    return PacketBatch(
        call=np.arange(calls, dtype=np.uint32),
        arrival_ns=np.full(calls, now_ns, np.int64),
        sequence=np.full(calls, tick & 0xFFFF, np.uint16),
        timestamp=np.full(calls, tick * PAYLOAD_BYTES & 0xFFFFFFFF, np.uint32),
        ssrc=np.arange(calls, dtype=np.uint32),
        payload_type=np.zeros(calls, np.uint8),
        marker=np.zeros(calls, np.uint8),
        length=np.full(calls, PAYLOAD_BYTES, np.uint16),
        payloads=payloads,
    )


class TimedFiles(OsFiles):
    """Notes how long each fdatasync takes."""

    def __init__(self) -> None:
        self.syncs_ms: list[float] = []

    def fdatasync(self, handle: int) -> None:
        """Sync and note."""
        began = time.perf_counter()
        super().fdatasync(handle)
        self.syncs_ms.append((time.perf_counter() - began) * 1e3)


def run(calls: int, folder: Path, seconds: float, *, write: bool) -> tuple[float, str]:
    """Return the processor share in per cent and the line of the table."""
    files = TimedFiles()
    writer = JournalWriter(files, folder, boot_id=machine_boot_id(), notify=lambda _: None)
    payloads = np.random.default_rng(1).bytes(calls * PAYLOAD_BYTES)
    if write:
        writer.open()
    ages_ms: list[float] = []
    ticks = int(seconds * 1e9 / TICK_NS)
    began_ns, began_cpu_ns = time.monotonic_ns(), time.process_time_ns()
    for tick in range(ticks):
        due_ns = began_ns + tick * TICK_NS
        if (wait_ns := due_ns - time.monotonic_ns()) > 0:
            time.sleep(wait_ns / 1e9)
        batch = make_batch(calls, tick, due_ns, payloads)
        if not write:
            continue
        oldest_ns = writer.oldest_pending_ns()
        ages_ms.append(0.0 if oldest_ns is None else (time.monotonic_ns() - oldest_ns) / 1e6)
        writer.append(Kind.PACKETS, pack_batch(batch), arrival_ns=due_ns)
    wall_ns = time.monotonic_ns() - began_ns
    share = (time.process_time_ns() - began_cpu_ns) / wall_ns * 100
    if not write:
        return share, ""
    stats = writer.stats()
    writer.close()
    p50, p99 = np.percentile(files.syncs_ms, (50, 99))
    line = (
        f"{stats.commits / wall_ns * 1e9:9.1f}/s {stats.written_bytes / wall_ns * 1e3:8.2f} MB/s {p50:8.2f} ms {p99:8.2f} ms"
        f" {np.percentile(ages_ms, 50):8.0f} ms {np.percentile(ages_ms, 99):8.0f} ms {max(ages_ms):8.0f} ms"
    )
    return share, line


def measure_batches() -> None:
    """Pack, check and unpack a batch of 5,000 packets."""
    payloads = np.random.default_rng(1).bytes(5000 * PAYLOAD_BYTES)
    batch = make_batch(5000, 1, 1, payloads)
    packed = pack_batch(batch)
    for name, work in (
        ("pack", lambda: pack_batch(batch)),
        ("frame", lambda: pack_header(Kind.PACKETS, packed, seed=1, epoch=1, sequence=1, durable=0)),
        ("unpack", lambda: unpack_batch(packed)),
        ("split 5,000 calls of", lambda: list(batch.split_by_call())),
    ):
        best = min(_time(work) for _ in range(20))
        print(f"{name} 5,000 packets of {PAYLOAD_BYTES} bytes: {best * 1e3:.2f} ms")


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure_reading(folder: Path) -> None:
    """Read everything back."""
    reader = JournalReader(OsFiles(), folder)
    began = time.perf_counter()
    size = sum(len(record.payload) for _, record in reader.poll())
    took = time.perf_counter() - began
    print(f"read back {size / 1e6:.0f} MB in {took:.2f} s: {size / 1e6 / took:.0f} MB/s; damage: {reader.damage}")
    reader.close()


def main() -> None:
    """Print the figures."""
    measure_batches()
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as root:
        print("calls    commits       bytes   sync p50   sync p99     age p50     age p99     age max     cpu")
        for calls in (100, 1000, 2000):
            idle, _ = run(calls, Path(root), seconds / 3, write=False)
            share, line = run(calls, Path(root) / "journal", seconds, write=True)
            print(f"{calls:5d} {line} {share - idle:6.1f} %")
        measure_reading(Path(root) / "journal")


if __name__ == "__main__":
    main()
