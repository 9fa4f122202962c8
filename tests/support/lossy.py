"""A caller whose network is bad on purpose: packet by packet, by a seed.

Owns: scripts of datagrams (what is sent, when, from which socket), the damage that a network does to them, and a test
caller that speaks such a script. Refuses to know: what should be kept of it.

Theory of operation: a script is a list of datagrams with times. Damage is a function from one script to another, so that a
test knows exactly what was lost; nothing is left to chance but what the seed decides. The caller is the machine's own test
caller up to the beep, then it sends the script instead of its audio.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from aftertone.audio.clips import Clip
from aftertone.audio.codec import ticks_per_frame
from aftertone.model import Codec
from aftertone.roles.caller import Outcome, TestCaller, Wish, _Rtp
from aftertone.rtp.packet import serialize
from aftertone.sdp.negotiation import MediaPlan
from aftertone.sip.flow import Address

FRAME_MS: Final = 20
DELAY_MS: Final = 50
"""A delayed packet comes after the next two."""
ECHO_MS: Final = 10
SEQUENCE: Final = 1000
TIMESTAMP: Final = 500_000
SSRC: Final = 0xC0FFEE


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram of a script."""

    at_ms: float
    """Since the caller began to speak."""
    data: bytes
    by_stranger: bool = False
    """Sent from a socket that has nothing to do with the call."""


Script = Callable[[MediaPlan], list[Datagram]]
"""Makes the datagrams when it is known what was agreed."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A script after the network."""

    datagrams: list[Datagram]
    lost: tuple[int, ...]
    """Which of the original datagrams are missing."""


def stream(
    payloads: Sequence[bytes],
    plan: MediaPlan,
    *,
    begin_ms: float = 0,
    sequence: int = SEQUENCE,
    timestamp: int = TIMESTAMP,
    ssrc: int = SSRC,
) -> list[Datagram]:
    """Return payloads of 20 ms as a stream that nothing happens to."""
    ticks = ticks_per_frame(plan.codec)
    return [
        Datagram(
            begin_ms + index * FRAME_MS,
            serialize(plan.payload_type, sequence + index, timestamp + index * ticks, ssrc, payload, marker=index == 0),
        )
        for index, payload in enumerate(payloads)
    ]


def damage(datagrams: Sequence[Datagram], seed: int, share: float = 0.05) -> Damaged:
    """Lose, duplicate and delay (and so reorder) ``share`` of the datagrams each, rounded up, but not the first or last one.

    A recording begins with the first packet that comes and ends with the last, so these two are what its length hangs on.
    """
    count = -(-len(datagrams) * share // 1)
    chosen = random.Random(seed).sample(range(1, len(datagrams) - 1), int(3 * count))
    lost, doubled, delayed = (set(chosen[part::3]) for part in range(3))
    out = []
    for index, datagram in enumerate(datagrams):
        if index in lost:
            continue
        out.append(replace(datagram, at_ms=datagram.at_ms + DELAY_MS) if index in delayed else datagram)
        if index in doubled:
            out.append(replace(datagram, at_ms=datagram.at_ms + ECHO_MS))
    return Damaged(out, tuple(sorted(lost)))


class LossyCaller(TestCaller):
    """Calls, waits for the beep, sends a script, hangs up."""

    def __init__(self, wish: Wish, script: Script) -> None:
        super().__init__(wish, lambda _: None)
        self._script = script

    async def _speak(self, rtp: _Rtp, plan: MediaPlan) -> None:
        assert plan.remote is not None
        assert rtp.transport is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            await self._send(self._script(plan), rtp.transport, stranger, plan.remote)

    async def _send(
        self,
        datagrams: Sequence[Datagram],
        transport: asyncio.DatagramTransport,
        stranger: socket.socket,
        remote: Address,
    ) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for datagram in sorted(datagrams, key=lambda one: one.at_ms):
            await asyncio.sleep(max(0.0, began_s + datagram.at_ms / 1000 - loop.time()))
            if datagram.by_stranger:
                stranger.sendto(datagram.data, remote)
            else:
                transport.sendto(datagram.data, remote)
        await asyncio.sleep(FRAME_MS / 1000)


async def call_all(uri: str, scripts: dict[str, tuple[Codec, Script]]) -> dict[str, Outcome]:
    """Call ``uri`` with every script at the same time, each from ``sip:<its name>@...``. Returns how the calls went."""
    nothing = Clip("nothing", np.zeros(0, np.int16), 8000)

    async def one(name: str, codec: Codec, script: Script) -> Outcome:
        return await LossyCaller(Wish(uri, nothing, codec, f"sip:{name}@127.0.0.1"), script).run()

    outcomes = await asyncio.gather(*(one(name, codec, script) for name, (codec, script) in scripts.items()))
    return dict(zip(scripts, outcomes, strict=True))
