"""baresip calls the machine: a real softphone leaves a message in every codec, and hears the greeting and the beep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from aftertone.audio.prompts import BEEP_MS, prompt
from aftertone.audio.samples import Samples, resample
from aftertone.model import SAMPLE_RATE_HZ, Codec
from tests.support.baresip import Baresip, baresip, beep_span_ms, loud_span_ms, require_modules
from tests.support.disks import small_disk
from tests.support.machine import Machine, machine, speech, wait_until

PAUSE_S: Final = 1.5
"""Silence before the words: longer than greeting and beep, as people wait for the beep."""
SPEECH_S: Final = 2.5
LENGTH_TOLERANCE_MS: Final = 300
"""The recording begins with the beep, and when baresip heard that is known up to its jitter buffer."""
SPEECH_TOLERANCE_MS: Final = 30
BEEP_TOLERANCE_MS: Final = 40

EACH_CODEC: Final = pytest.mark.parametrize("codec", list(Codec))


def _said(rate_hz: int) -> Samples:
    words = resample(speech(SPEECH_S, 16000), 16000, rate_hz)
    return np.concatenate([np.zeros(round(PAUSE_S * rate_hz), np.int16), words, np.zeros(rate_hz // 2, np.int16)])


@pytest.fixture(scope="module")
def phones(answering: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Codec, Baresip]]:
    """One softphone for each codec, all calling at the same time."""
    folder = tmp_path_factory.mktemp("baresip")
    with ExitStack() as stack:
        for codec in Codec:
            require_modules(codec)
        yield {
            codec: stack.enter_context(
                baresip(answering, Path(folder / codec), codec, _said(SAMPLE_RATE_HZ[codec]), caller=f"baresip-{codec}")
            )
            for codec in Codec
        }


def _message(machine: Machine, phone: Baresip, codec: Codec) -> dict[str, Any]:
    phone.finish()
    caller = f"baresip-{codec}"
    found = wait_until(
        lambda: [m for m in machine.messages() if m["caller"]["number"] == caller], f"{caller}'s message"
    )
    assert len(found) == 1
    return found[0]


@EACH_CODEC
def test_a_softphone_leaves_a_message(answering: Machine, phones: dict[Codec, Baresip], codec: Codec) -> None:
    phone = phones[codec]
    message = _message(answering, phone, codec)
    assert message["kind"] == "message"
    assert message["codec"] == codec
    assert message["end_reason"] == "caller_hung_up"
    assert message["lost_packets"] == 0
    said, rate_hz = phone.said()
    beep = beep_span_ms(*phone.heard())
    assert beep is not None
    assert abs(message["audio_ms"] - (len(said) * 1000 // rate_hz - beep[0])) <= LENGTH_TOLERANCE_MS


@EACH_CODEC
def test_every_word_is_kept(answering: Machine, phones: dict[Codec, Baresip], codec: Codec) -> None:
    phone = phones[codec]
    message = _message(answering, phone, codec)
    kept, kept_hz = answering.audio(message["id"])
    assert kept_hz == SAMPLE_RATE_HZ[codec]
    kept_begin, kept_end = loud_span_ms(kept, kept_hz)
    said_begin, said_end = loud_span_ms(*phone.said())
    assert abs((kept_end - kept_begin) - (said_end - said_begin)) <= SPEECH_TOLERANCE_MS
    assert said_end - said_begin > SPEECH_S * 900


@EACH_CODEC
def test_greeting_and_beep_are_heard(answering: Machine, phones: dict[Codec, Baresip], codec: Codec) -> None:
    phone = phones[codec]
    _message(answering, phone, codec)
    heard, rate_hz = phone.heard()
    beep = beep_span_ms(heard, rate_hz)
    assert beep is not None
    assert abs(beep[1] - beep[0] - BEEP_MS) <= BEEP_TOLERANCE_MS
    greeting = loud_span_ms(heard[: beep[0] * rate_hz // 1000], rate_hz)
    assert greeting[1] - greeting[0] > 100


@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA])
def test_what_was_said_is_what_is_kept(answering: Machine, phones: dict[Codec, Baresip], codec: Codec) -> None:
    """Sample by sample, but for the rounding of baresip's encoder, which is not the ITU's."""
    phone = phones[codec]
    kept = answering.audio(_message(answering, phone, codec)["id"])[0].astype(np.int32)
    said = phone.said()[0].astype(np.int32)[-len(kept) :]
    assert len(kept) == len(said)
    assert int(np.count_nonzero(np.abs(kept - said) > 16 + np.abs(said) // 16)) == 0


def test_a_softphone_hears_why_its_call_is_refused(tmp_path: Path) -> None:
    """By early media: a real phone plays it, from the first word to the last."""
    require_modules(Codec.PCMU)
    # The reserve and a journal file want more room than this disk has.
    with (
        small_disk(tmp_path, 40, "tmpfs") as disk,
        machine(disk) as full,
        baresip(full, tmp_path / "phone", Codec.PCMU, speech(20.0), caller="told") as phone,
    ):
        wait_until(lambda: "SIP/2.0 480" in phone.output(), "the refusal")
        phone.quit()
        heard, rate_hz = phone.heard()
        sentence = prompt("storage_refused")
        begin_ms, end_ms = loud_span_ms(heard, rate_hz)
        first_ms, last_ms = loud_span_ms(sentence.samples, sentence.rate_hz)
        assert abs((end_ms - begin_ms) - (last_ms - first_ms)) <= 60
        assert full.messages() == []
