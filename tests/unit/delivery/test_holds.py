"""Hold and resume as spans: in the events, in the audio, in the message, its tags and the catalog."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aftertone.delivery.assemble import assemble
from aftertone.delivery.held import HeldCall
from aftertone.delivery.holds import MOST_SPANS, hold_spans
from aftertone.delivery.parcel import LONGEST_DETAIL, wrap
from aftertone.journal import Begin, End, Event
from aftertone.model import EndReason
from aftertone.store.details import pack_details, unpack_details
from aftertone.store.tags import pack_tags, unpack_tags
from tests.support.messages import a_message
from tests.support.recordings import SECOND_NS, a_batch, an_envelope, rows_of


def event(at_s: float, name: str, detail: str = "") -> Event:
    return Event(1, round(at_s * SECOND_NS), name, detail)


def end(at_s: float) -> End:
    return End(1, round(at_s * SECOND_NS), 0, EndReason.CALLER_HUNG_UP.value)


def test_a_hold_lasts_to_its_resume_or_to_the_end() -> None:
    events = [event(2, "hold"), event(3, "digit", "5"), event(3, "hold"), event(5, "resume"), event(6, "resume")]
    assert hold_spans([*events, event(7, "hold")], 9 * SECOND_NS) == [
        (2 * SECOND_NS, 5 * SECOND_NS),
        (7 * SECOND_NS, 9 * SECOND_NS),
    ]


@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from(["hold", "resume", "digit"])), max_size=300))
def test_spans_are_ordered_apart_and_bounded(happened: list[tuple[int, str]]) -> None:
    spans = hold_spans([Event(1, at, name) for at, name in happened], 100)
    flat = [moment for span in spans for moment in span]
    assert flat == sorted(flat)
    assert len(spans) <= MOST_SPANS


def test_the_silence_of_a_hold_is_marked_in_the_audio() -> None:
    """Two seconds of talk from second 1 on, a hold of three during which nothing comes, two more seconds of talk."""
    talk = rows_of(seconds=2.0)
    more = rows_of(seconds=2.0, sequence=65_600, timestamp=2**32 - 4_000 + 5 * 8000, start_ns=6 * SECOND_NS)
    made = assemble(an_envelope(), a_batch([*talk, *more]), end(8.0), [event(3.0, "hold"), event(6.0, "resume")])
    assert made.audio_ms == 7000
    ((first, last),) = made.holds
    assert abs(first - 2000) <= 20
    assert abs(last - 5000) <= 20


def test_a_hold_that_never_ends_reaches_the_end_of_the_audio_and_one_outside_is_none() -> None:
    packets = a_batch(rows_of(seconds=2.0))
    made = assemble(an_envelope(), packets, end(9.0), [event(0.2, "hold"), event(0.4, "resume"), event(2.5, "hold")])
    assert made.holds == ((1520, 2000),)
    cut_off = assemble(an_envelope(), packets, None, [event(2.5, "hold")])
    assert cut_off.holds == ((1520, 2000),)


def test_a_message_keeps_holds_and_the_peers_last_word() -> None:
    envelope = an_envelope()
    begin = Begin(envelope.id, 1, json.dumps(envelope.to_json()).encode(), b"", SECOND_NS, 0)
    said = [event(2.0, "hold"), event(2.5, "resume"), event(3, "reason", "Q.850;cause=16" + "x" * 500)]
    call = HeldCall((1, 1), False, begin=begin, end=end(3.0), events=said)
    parcel = wrap(call, envelope, a_batch(rows_of(seconds=2.0)))
    assert parcel.message.holds == ((1020, 1520),)
    assert parcel.message.end_detail.startswith("Q.850;cause=16x")
    assert len(parcel.message.end_detail) == LONGEST_DETAIL
    tags = pack_tags(envelope, parcel.message)
    again = unpack_tags(tags, blob=parcel.message.blob, sha256="", size=0, delivered_unix_ms=0)
    assert again == parcel.message


def test_details_survive_and_unknown_ones_are_ignored() -> None:
    message = replace(a_message(1), holds=((1, 2), (5, 9)), end_detail="SIP;cause=200")
    stored = json.loads(json.dumps(pack_details(message)))
    found = unpack_details({**stored, "later": 1})
    assert (found["holds"], found["end_detail"]) == (message.holds, "SIP;cause=200")
    assert pack_details(a_message(1)) == {}
    assert unpack_details({})["holds"] == ()
