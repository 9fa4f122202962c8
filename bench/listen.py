"""Measure what listening costs: run ``python bench/listen.py``; prints microseconds for each 20 ms packet.

The budget is 1 us for G.711 in batches of 500 packets or more, which is 5 % of one core for 1000 calls.
"""

from __future__ import annotations

import time

import numpy as np

from aftertone.audio import g711, listen
from aftertone.audio.watch import SoundWatch

ROUNDS = 200


def best_us(call: object, packets: int) -> float:
    """Return the fastest of ROUNDS calls, in microseconds a packet."""
    assert callable(call)
    call()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best / packets * 1e6


def main() -> None:
    """Print the table."""
    entropy = np.random.default_rng(1)
    for packets in (50, 500, 2000):
        payloads = entropy.integers(0, 256, (packets, 160), dtype=np.uint8)
        wide = entropy.integers(-3000, 3000, (packets, 320), dtype=np.int16)
        watch = SoundWatch(packets)
        rows = np.arange(packets)
        level, tone = listen.classify_g711(payloads, g711.ULAW_TO_LINEAR)
        arrival = np.full(packets, 10**9)
        figures = {
            "G.711": best_us(lambda p=payloads: listen.classify_g711(p, g711.ULAW_TO_LINEAR), packets),
            "16 kHz": best_us(lambda w=wide: listen.classify(w, 16000), packets),
            "watch": best_us(lambda w=watch, a=(rows, level, tone, arrival): w.feed(*a), packets),
        }
        print(f"{packets:5d} packets: " + ", ".join(f"{name} {us:.3f} us" for name, us in figures.items()))


if __name__ == "__main__":
    main()
