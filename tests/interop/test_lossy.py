"""Calls over a bad network: what is kept is as long as what was said, and where nothing was lost it is the same."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pytest

from aftertone.audio.codec import decode, encode
from aftertone.audio.samples import Samples
from aftertone.model import SAMPLE_RATE_HZ, Codec
from aftertone.sdp.negotiation import MediaPlan
from tests.support.lossy import FRAME_MS, Damaged, Datagram, Script, call_all, damage, stream
from tests.support.machine import Machine, speech, wait_until

SPEECH_S: Final = 2.6
TOLERANCE_MS: Final = 20
SEEDS: Final = (1, 2026)
FRAME: Final = 160
PAYLOADS: Final = {codec: encode(codec, speech(SPEECH_S, 16000), 16000) for codec in Codec}
LENGTH_MS: Final = {codec: len(payloads) * FRAME_MS for codec, payloads in PAYLOADS.items()}
"""2600 ms; one frame more for Opus, whose encoder looks ahead."""
HALF: Final = len(PAYLOADS[Codec.PCMU]) // 2
SMOOTHED: Final = 2
"""Frames beside a loss that concealment may touch to make the join inaudible."""


def _whole(plan: MediaPlan) -> list[Datagram]:
    return stream(PAYLOADS[plan.codec], plan)


def _damaged(plan: MediaPlan, seed: int) -> Damaged:
    return damage(_whole(plan), seed)


def _bad(seed: int) -> Script:
    return lambda plan: _damaged(plan, seed).datagrams


def _wrapping(plan: MediaPlan) -> list[Datagram]:
    """Sequence numbers wrap after 0.7 s, timestamps after 1.3 s."""
    return stream(PAYLOADS[plan.codec], plan, sequence=65536 - 35, timestamp=2**32 - 65 * FRAME)


def _wrapping_badly(plan: MediaPlan) -> list[Datagram]:
    return damage(_wrapping(plan), SEEDS[0]).datagrams


def _two_sources(plan: MediaPlan) -> list[Datagram]:
    """The caller's phone is replaced in the middle, by a transfer or a restart: another SSRC, other numbers."""
    first, second = PAYLOADS[plan.codec][:HALF], PAYLOADS[plan.codec][HALF:]
    numbers = {"sequence": 54_321, "timestamp": 4_000_000_000, "ssrc": 0xBADCAFE}
    return [*stream(first, plan), *stream(second, plan, begin_ms=HALF * FRAME_MS, **numbers)]


def _with_strangers(plan: MediaPlan) -> list[Datagram]:
    """From 0.2 s on somebody sends loud noise with the very numbers that the caller is about to use."""
    own = _whole(plan)
    noise = bytes(np.random.default_rng(7).integers(0, 256, FRAME, np.uint8))
    forged = [Datagram(one.at_ms - 10, one.data[:12] + noise, by_stranger=True) for one in own[10:]]
    return [*own, *forged]


def _stalled(plan: MediaPlan) -> list[Datagram]:
    """The network holds everything back for 0.9 s, then delivers it at once."""
    return [
        Datagram(1500 + index / 100, one.data) if 600 <= one.at_ms < 1500 else one
        for index, one in enumerate(_whole(plan))
    ]


SCRIPTS: Final[dict[str, tuple[Codec, Script]]] = {
    **{f"clean-{codec}": (codec, _whole) for codec in Codec},
    **{f"bad-{codec}-{seed}": (codec, _bad(seed)) for codec in Codec for seed in SEEDS},
    "wrapping": (Codec.PCMU, _wrapping),
    "wrapping-badly": (Codec.PCMU, _wrapping_badly),
    "two-sources": (Codec.PCMU, _two_sources),
    "with-strangers": (Codec.PCMU, _with_strangers),
    "stalled": (Codec.PCMU, _stalled),
}


@dataclass(frozen=True)
class Kept:
    """What the machine made of one call."""

    message: dict[str, Any]
    samples: Samples


@pytest.fixture(scope="module")
def kept(answering: Machine) -> dict[str, Kept]:
    """All calls of ``SCRIPTS``, made at the same time."""
    outcomes = asyncio.run(call_all(answering.uri, SCRIPTS))
    assert {name: o.failure for name, o in outcomes.items() if not (o.beep_heard and o.hung_up)} == {}
    messages = {m["caller"]["number"]: m for m in answering.wait_for_messages(len(SCRIPTS))}
    assert set(messages) == set(SCRIPTS)
    return {name: Kept(message, answering.audio(message["id"])[0]) for name, message in messages.items()}


def _said(codec: Codec) -> Samples:
    return decode(codec, PAYLOADS[codec])


def _lost(codec: Codec, seed: int) -> tuple[int, ...]:
    count = len(PAYLOADS[codec])
    return damage([Datagram(index * FRAME_MS, b"") for index in range(count)], seed).lost


@pytest.mark.parametrize("codec", list(Codec))
def test_a_clean_call_is_kept_sample_for_sample(kept: dict[str, Kept], codec: Codec) -> None:
    found = kept[f"clean-{codec}"]
    assert found.message["codec"] == codec
    assert found.message["sample_rate_hz"] == SAMPLE_RATE_HZ[codec]
    assert found.message["lost_packets"] == 0
    assert abs(found.message["audio_ms"] - SPEECH_S * 1000) <= TOLERANCE_MS
    np.testing.assert_array_equal(found.samples, _said(codec))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("codec", list(Codec))
def test_a_bad_network_changes_no_length(kept: dict[str, Kept], codec: Codec, seed: int) -> None:
    clean, bad = kept[f"clean-{codec}"], kept[f"bad-{codec}-{seed}"]
    lost = _lost(codec, seed)
    assert len(lost) >= 7
    assert bad.message["kind"] == "message"
    assert bad.message["lost_packets"] == len(lost)
    assert abs(bad.message["audio_ms"] - clean.message["audio_ms"]) <= TOLERANCE_MS
    assert abs(bad.message["duration_ms"] - clean.message["duration_ms"]) <= TOLERANCE_MS


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA])
def test_what_was_not_lost_is_kept_sample_for_sample(kept: dict[str, Kept], codec: Codec, seed: int) -> None:
    frames = kept[f"bad-{codec}-{seed}"].samples.reshape(-1, FRAME)
    said = _said(codec).reshape(-1, FRAME)
    near = {frame for lost in _lost(codec, seed) for frame in range(lost - SMOOTHED, lost + SMOOTHED + 1)}
    far = [index for index in range(len(said)) if index not in near]
    assert len(far) > len(said) // 2
    np.testing.assert_array_equal(frames[far], said[far])


def test_numbers_may_wrap(kept: dict[str, Kept]) -> None:
    assert kept["wrapping"].message["lost_packets"] == 0
    np.testing.assert_array_equal(kept["wrapping"].samples, _said(Codec.PCMU))


def test_numbers_may_wrap_on_a_bad_network(kept: dict[str, Kept]) -> None:
    found = kept["wrapping-badly"]
    assert found.message["lost_packets"] == len(_lost(Codec.PCMU, SEEDS[0]))
    np.testing.assert_array_equal(found.samples, kept[f"bad-{Codec.PCMU}-{SEEDS[0]}"].samples)


def test_the_source_may_change(kept: dict[str, Kept]) -> None:
    """The second source is placed by its arrival, so the join is only as exact as the timers of a busy machine."""
    found = kept["two-sources"]
    said = _said(Codec.PCMU)
    assert found.message["lost_packets"] == 0
    assert abs(found.message["audio_ms"] - LENGTH_MS[Codec.PCMU]) <= 3 * TOLERANCE_MS
    np.testing.assert_array_equal(found.samples[: HALF * FRAME], said[: HALF * FRAME])
    np.testing.assert_array_equal(found.samples[-(len(said) - HALF * FRAME) :], said[HALF * FRAME :])


def test_strangers_are_not_heard(answering: Machine, kept: dict[str, Kept]) -> None:
    found = kept["with-strangers"]
    assert found.message["lost_packets"] == 0
    np.testing.assert_array_equal(found.samples, _said(Codec.PCMU))
    forged = len(PAYLOADS[Codec.PCMU]) - 10

    def refused() -> bool:
        status = json.loads((answering.data / "run" / "line.json").read_text())
        return int(status["metrics"]["rtp_dropped_stranger_packets_total"]) >= forged

    wait_until(refused, "the metric that counts strangers")


def test_a_stalled_network_loses_nothing(kept: dict[str, Kept]) -> None:
    assert kept["stalled"].message["lost_packets"] == 0
    np.testing.assert_array_equal(kept["stalled"].samples, _said(Codec.PCMU))
