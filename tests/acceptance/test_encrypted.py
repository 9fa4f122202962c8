"""Encrypted calls from end to end: the greeting before the answer, the beep, the words, and what the message says about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from aftertone.audio.clips import Clip, encode_clip
from aftertone.audio.codec import decode
from aftertone.model import Codec
from aftertone.sdp.crypto import Policy
from tests.support.bare_phone import Phone, voice
from tests.support.callers import Party, wish
from tests.support.machine import machine, speech

SPEECH_S = 1.5
GREETED_S = 7.0
"""From the first packet of the greeting until the beep is over."""
POLICIES: tuple[Policy, ...] = ("off", "optional", "required")


def test_a_call_is_encrypted_from_the_first_sound_on_where_the_caller_offers_it(tmp_path: Path) -> None:
    with machine(tmp_path / "data", SIP__EARLY_MEDIA="true") as made:
        wishes = [replace(wish(made.uri, policy, SPEECH_S), srtp=policy) for policy in POLICIES]
        with Party(wishes) as party:
            outcomes = party.outcomes()
        for policy, outcome in zip(POLICIES, outcomes, strict=True):
            assert outcome.early_ms > 1000 and outcome.beep_heard and outcome.hung_up
            assert outcome.srtp == ("" if policy == "off" else "AEAD_AES_256_GCM")
        expected = decode(Codec.PCMU, encode_clip(Clip("speech", speech(SPEECH_S), 8000), Codec.PCMU).frames)
        for message in made.wait_for_messages(len(POLICIES)):
            assert message["srtp"] == ("" if message["caller"]["number"] == "off" else "AEAD_AES_256_GCM")
            np.testing.assert_array_equal(made.audio(message["id"])[0], expected)
        printed = made.log() + "".join(path.read_text() for path in (made.data / "run").glob("*.json"))
        assert "inline:" not in printed
        assert made.log().count("keys for SRTP came over a transport that is not encrypted") == 1


def test_a_phone_that_agrees_on_keys_and_sends_plain_sound_is_recorded_and_found_out(tmp_path: Path) -> None:
    key = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0"
    said = list(encode_clip(Clip("speech", speech(SPEECH_S), 8000), Codec.PCMU).frames)
    with machine(tmp_path / "data") as made:
        # It sends nothing before it speaks, so that all that tells is what it says.
        phone = Phone(made.sip_port, "100", voice(said, 20), lines=(key,), pause_s=GREETED_S, reads_reports=False)
        phone.start().finish()
        (message,) = made.wait_for_messages(1)
        assert (message["kind"], message["srtp"]) == ("message", "")
        assert message["notes"] == ["keys were agreed on, but the sound came without encryption"]
        np.testing.assert_array_equal(made.audio(message["id"])[0], decode(Codec.PCMU, said))
