"""A message says that it was encrypted on its way only when all of the call was."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from aftertone.audio.flac import read_audio
from aftertone.delivery.held import HeldCall
from aftertone.delivery.parcel import wrap
from aftertone.delivery.secrecy import MOST_PACKETS, PARTLY, PLAIN, read_secrecy, unopened_packets
from aftertone.journal import End, Event
from aftertone.model import Envelope, Kind
from aftertone.store.details import pack_details, unpack_details
from tests.support.messages import a_message
from tests.support.recordings import an_envelope

GCM, CM = "AEAD_AES_128_GCM", "AES_CM_128_HMAC_SHA1_80"


def _media(at_ns: int, srtp: str) -> Event:
    return Event(1, at_ns, "media", json.dumps({"codec": "PCMU", "payload_types": [], "srtp": srtp}))


@pytest.mark.parametrize(
    ("envelope", "events", "expected"),
    [
        (an_envelope(), [], ""),
        (replace(an_envelope(), srtp=CM), [], CM),
        (replace(an_envelope(), srtp=CM), [Event(1, 1, "hold"), _media(2, GCM)], GCM),
        (replace(an_envelope(), codec=""), [_media(1, GCM)], GCM),
        (replace(an_envelope(), codec=""), [], ""),
        (replace(an_envelope(), srtp=CM), [_media(3, GCM), Event(1, 2, "media", "{}"), Event(1, 1, "media", "[")], GCM),
    ],
)
def test_all_of_a_call(envelope: Envelope, events: list[Event], expected: str) -> None:
    assert read_secrecy(envelope, events) == (expected, ())


@pytest.mark.parametrize("events", [[_media(1, "")], [_media(2, CM), _media(1, "")]])
def test_part_of_a_call_is_noted_and_does_not_count(events: list[Event]) -> None:
    assert read_secrecy(replace(an_envelope(), srtp=CM), events) == ("", (PARTLY,))
    assert read_secrecy(an_envelope(), [_media(1, CM)]) == ("", (PARTLY,))


def test_plain_sound_despite_keys_is_noted_and_the_message_not_called_encrypted() -> None:
    assert read_secrecy(replace(an_envelope(), srtp=CM), [Event(1, 5, "plain"), _media(9, CM)]) == ("", (PLAIN,))


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("500", 500),
        ("24", 0),
        ("", 0),
        ("x", 0),
        ("-5", 0),
        ("\u0661" * 3, 0),
        ("9" * 9, MOST_PACKETS),
        ("9" * 5000, 0),
    ],
)
def test_what_no_key_opened_is_counted_whatever_the_record_says(detail: str, expected: int) -> None:
    assert unopened_packets([Event(1, 1, "hold"), Event(1, 2, "unopened", detail)]) == expected


def test_a_caller_whom_no_key_opened_left_a_message_that_says_so() -> None:
    call = HeldCall(
        (1, 1), after_damage=False, end=End(1, 10**10, 5, "silence"), events=[Event(1, 9, "unopened", "500")]
    )
    parcel = wrap(call, replace(an_envelope(), srtp=CM), call.packets.load(1))
    assert parcel.message.kind is Kind.MESSAGE
    assert parcel.message.duration_ms == 10_000
    assert parcel.message.srtp == "", "nobody knows"
    assert any("about 10 s" in note for note in parcel.message.notes)
    samples, rate_hz = read_audio(parcel.audio)
    assert (len(samples), rate_hz) == (80_000, 8_000)


def test_it_travels_with_envelope_and_message() -> None:
    envelope = replace(an_envelope(), srtp=CM)
    assert Envelope.from_json(json.loads(json.dumps(envelope.to_json()))) == envelope
    assert unpack_details(pack_details(replace(a_message(1), srtp=CM)))["srtp"] == CM
    assert unpack_details({})["srtp"] == ""
