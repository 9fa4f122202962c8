"""Plain sound is told from encrypted sound by its packets alone."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.media.unopened import CONVINCING, PlainEar
from aftertone.model import MasterKey, Suite
from aftertone.rtp.packet import serialize
from aftertone.rtp.srtp import SrtpSender

G711, OPUS = b"\x55" * 160, b"\x78" + bytes(range(60))


def _packets(kind: int, payload: bytes, count: int = 200) -> list[bytes]:
    return [serialize(kind, number, number * 160, 7, payload) for number in range(count)]


def _convinced_after(packets: Iterable[bytes]) -> int | None:
    ear = PlainEar()
    return next((count for count, packet in enumerate(packets, 1) if ear.hear(packet)), None)


@pytest.mark.parametrize(("kind", "payload"), [(0, G711), (8, G711[:80]), (9, G711 * 3), (111, OPUS)])
def test_plain_sound_convinces_within_half_a_second(kind: int, payload: bytes) -> None:
    assert _convinced_after(_packets(kind, payload)) == CONVINCING


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize(("kind", "payload"), [(0, G711), (8, G711[:80]), (9, G711 * 3), (111, OPUS)])
def test_encrypted_sound_never_does(suite: Suite, kind: int, payload: bytes) -> None:
    noise = random.Random(1)
    sender = SrtpSender(MasterKey(suite, noise.randbytes(suite.key_bytes), noise.randbytes(suite.salt_bytes)))
    assert _convinced_after(map(sender.protect, _packets(kind, payload, 2_000))) is None


def test_keys_and_pauses_say_nothing_and_two_streams_are_not_one() -> None:
    sound = _packets(0, G711, CONVINCING)
    assert _convinced_after([*sound[:-1], serialize(101, 99, 0, 7, b"\x05\x0a\x00\xa0"), sound[-1]]) == CONVINCING + 1
    assert _convinced_after([*sound[:-1], serialize(0, 99, 0, 8, G711), *sound[:-1]]) is None
    assert _convinced_after([*sound[:-1], b"\x00" * 40, sound[-1]]) is None


@given(st.lists(st.binary(max_size=60)))
def test_any_bytes_are_heard_out(packets: list[bytes]) -> None:
    ear = PlainEar()
    for packet in packets:
        ear.hear(packet)
