"""What the packet path costs: nanoseconds per packet of each vectorised step, and of the one-at-a-time ones beside them.

Run it with ``python bench/rtp.py`` where the package is installed, or with ``PYTHONPATH=src``. It prints what this machine
measured, the best of several rounds. The goal is 300 ns per packet for ``parse`` with a thousand packets or more in a batch.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import numpy as np

from aftertone.rtp.batch import parse
from aftertone.rtp.events import DigitDetector, TelephoneEvent
from aftertone.rtp.events import serialize as serialize_event
from aftertone.rtp.latch import SourceLatch
from aftertone.rtp.packet import serialize, write_headers
from aftertone.rtp.unwrap import unwrap_sequence, unwrap_timestamp
from aftertone.sdp.negotiation import answer, offer

ROW_BYTES = 1536
ROUNDS = 7


def measure(name: str, batch: int, work: Callable[[], object]) -> None:
    """Print the best time of ``work``, which handles ``batch`` packets, per packet."""
    timer = timeit.Timer(work)
    count, _ = timer.autorange()
    best_s = min(timer.repeat(ROUNDS, count)) / count
    print(f"{name:<44} {batch:>6} {best_s / batch * 1e9:>10.1f} ns each {best_s * 1e6:>10.1f} us in all")


def arena_of(batch: int, *, dressed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Telephone packets of 20 ms; when ``dressed``, each third has a header extension and each fourth padding."""
    arena = np.zeros((batch, ROW_BYTES), dtype=np.uint8)
    lengths = np.zeros(batch, dtype=np.int32)
    for row in range(batch):
        payload = bytes(160)
        data = bytearray(serialize(8, row, row * 160, row, payload))
        if dressed and row % 3 == 0:
            data[0] |= 0x10
            data[12:12] = bytes.fromhex("bede000111223344")
        if dressed and row % 4 == 0:
            data[0] |= 0x20
            data += b"\0\0\0\4"
        arena[row, : len(data)] = np.frombuffer(data, dtype=np.uint8)
        lengths[row] = len(data)
    return arena, lengths


def main() -> None:
    rng = np.random.default_rng(1)
    for batch in (100, 1000, 4000, 8000):
        arena, lengths = arena_of(batch, dressed=False)
        measure("batch.parse, plain packets", batch, lambda a=arena, n=lengths: parse(a, n))
        arena, lengths = arena_of(batch, dressed=True)
        measure("batch.parse, a third extended, a fourth padded", batch, lambda a=arena, n=lengths: parse(a, n))
    batch = 4000
    latch = SourceLatch(batch)
    calls = rng.integers(0, batch, batch)
    sources = calls.astype(np.uint64) + np.uint64(1)
    for call in range(batch):
        latch.open(call, call + 1)
    latch.admit(np.arange(batch), np.arange(1, batch + 1, dtype=np.uint64))
    measure("latch.admit, all locked", batch, lambda: latch.admit(calls, sources))
    strange = np.where(np.arange(batch) % 10 == 0, np.uint64(9), sources)
    measure("latch.admit, all locked, a tenth strangers", batch, lambda: latch.admit(calls, strange))
    counted = np.arange(batch)
    sequences, ticks = counted.astype(np.uint16), counted.astype(np.uint32)
    measure("unwrap_sequence", batch, lambda: unwrap_sequence(sequences))
    measure("unwrap_timestamp", batch, lambda: unwrap_timestamp(ticks))
    out = np.zeros((batch, ROW_BYTES), dtype=np.uint8)
    types = np.full(batch, 8, dtype=np.uint8)
    measure("packet.write_headers", batch, lambda: write_headers(out, types, counted, counted, ticks))
    payload = bytes(160)
    measure("packet.serialize, one at a time", 1, lambda: serialize(8, 1, 160, 1, payload))
    detector, key = DigitDetector(), serialize_event(TelephoneEvent(5, False, 10, 160))
    measure("DigitDetector.receive, one at a time", 1, lambda: detector.receive(key, 8000, 0))
    data = offer(local_host="192.0.2.1", local_port=4000, session_id=1, version=1)
    measure("sdp answer to an offer of four codecs", 1, lambda: _answer(data))


def _answer(data: bytes) -> object:
    return answer(data, local_host="192.0.2.2", local_port=4002, session_id=1, version=1)


if __name__ == "__main__":
    main()
