"""What SRTP costs: microseconds per packet of 20 ms of G.711, for each suite.

Run it with ``python bench/srtp.py`` where the package is installed, or with ``PYTHONPATH=src``. It prints what this machine
measured, the best of several rounds. A call receives 50 packets a second, and sends as many while it plays. The last lines are
what a batch costs in the media plane, with and without encrypted calls in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from aftertone.media.protection import Protection
from aftertone.model import MasterKey, Suite
from aftertone.rtp.packet import serialize
from aftertone.rtp.srtp import SrtpReceiver, SrtpSender

PACKETS = 5000
ROUNDS = 5
ROW_BYTES = 1536


def measure(name: str, prepare: Callable[[], Callable[[], object]], count: int = PACKETS) -> None:
    """Print the best time of what ``prepare`` returns, which handles ``count`` packets, per packet."""
    best_s = float("inf")
    for _ in range(ROUNDS):
        work = prepare()
        began_s = time.perf_counter()
        work()
        best_s = min(best_s, time.perf_counter() - began_s)
    print(f"{name:<58} {best_s / count * 1e6:>8.2f} us")


def main() -> None:
    packets = [serialize(0, number, number * 160, 7, bytes(160)) for number in range(PACKETS)]
    for suite in Suite:
        master = MasterKey(suite, os.urandom(suite.key_bytes), os.urandom(suite.salt_bytes))
        sender = SrtpSender(master)
        protected = [sender.protect(packet) for packet in packets]
        forged = [packet[:-1] + bytes((packet[-1] ^ 1,)) for packet in protected]
        measure(f"protect, {suite}", lambda m=master: _all(SrtpSender(m).protect, packets))
        measure(f"open, {suite}", lambda m=master, p=protected: _all(SrtpReceiver(m).open, p))
        measure(f"refuse a forgery, {suite}", lambda m=master, f=forged: _all(_begun(m, packets[0]).open, f))
    key, nonce = os.urandom(16), os.urandom(16)
    measure(
        "for comparison: a new cipher context for each packet",
        lambda: _all(lambda packet: Cipher(AES(key), CTR(nonce)).encryptor().update(packet), packets),
    )
    for secured in (0, 1, 1000):
        measure(f"a batch of 5,000 in the plane, {secured} of 1,000 calls encrypted", lambda n=secured: _batch(n))


def _all(work: Callable[[bytes], object], packets: list[bytes]) -> Callable[[], object]:
    return lambda: [work(packet) for packet in packets]


def _begun(master: MasterKey, first: bytes) -> SrtpReceiver:
    """A receiver that knows the source, so that a forgery is tried once."""
    receiver = SrtpReceiver(master)
    receiver.open(SrtpSender(master).protect(first))
    return receiver


def _batch(secured: int) -> Callable[[], object]:
    master = MasterKey(Suite.AES_128_GCM, bytes(16), bytes(12))
    protection = Protection(1000)
    for row in range(secured):
        protection.agree(row, master, master)
    owner = np.repeat(np.arange(1000, dtype=np.intp), 5)
    arena = np.zeros((PACKETS, ROW_BYTES), dtype=np.uint8)
    lengths = np.zeros(PACKETS, dtype=np.int32)
    senders = [SrtpSender(master) for _ in range(1000)]
    for index, row in enumerate(owner.tolist()):
        packet = serialize(0, index, 0, row, bytes(160))
        data = senders[row].protect(packet) if row < secured else packet
        arena[index, : len(data)] = np.frombuffer(data, dtype=np.uint8)
        lengths[index] = len(data)
    return lambda: protection.open(owner, arena, lengths)


if __name__ == "__main__":
    main()
