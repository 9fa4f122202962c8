"""A message says that it was encrypted on its way only when all of the call was."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from aftertone.delivery.secrecy import PARTLY, read_secrecy
from aftertone.journal import Event
from aftertone.model import Envelope
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


def test_it_travels_with_envelope_and_message() -> None:
    envelope = replace(an_envelope(), srtp=CM)
    assert Envelope.from_json(json.loads(json.dumps(envelope.to_json()))) == envelope
    assert unpack_details(pack_details(replace(a_message(1), srtp=CM)))["srtp"] == CM
    assert unpack_details({})["srtp"] == ""
