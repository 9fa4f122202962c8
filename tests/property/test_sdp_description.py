"""Any bytes: a description or SdpError. Any description: the same again after writing and reading it."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from aftertone.sdp.description import Description, Media, Origin, SdpError, parse, serialize
from aftertone.sdp.negotiation import answer, offer, plan_from_answer

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp"), exclude_characters="[]/\ufeff"),
    min_size=1,
    max_size=12,
)
NAMES = WORDS.map(str.lower).filter(lambda name: ":" not in name and name == name.lower())
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=30).map(lambda v: v.strip(" \t"))
ATTRIBUTES = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(tuple)
NUMBERS = st.integers(0, 2**64 - 1).map(str)
MEDIA = st.builds(
    Media,
    kind=WORDS.map(str.lower).filter(lambda kind: kind == kind.lower()),
    port=st.integers(0, 65_535),
    protocol=WORDS,
    formats=st.lists(WORDS, max_size=6).map(tuple),
    host=st.none() | WORDS,
    attributes=ATTRIBUTES,
)
DESCRIPTIONS = st.builds(
    Description,
    origin=st.builds(Origin, WORDS, WORDS, WORDS, WORDS),
    session_name=VALUES.map(lambda value: value or "-"),
    host=st.none() | WORDS,
    timing=st.tuples(NUMBERS, NUMBERS).map(" ".join),
    attributes=ATTRIBUTES,
    media=st.lists(MEDIA, max_size=4).map(tuple),
)

LINES = st.sampled_from(
    [
        "v=0",
        "o=- 1 1 IN IP4 192.0.2.1",
        "s=-",
        "t=0 0",
        "c=IN IP4 192.0.2.1",
        "c=IN IP4 0.0.0.0",
        "c=IN IP6 ::1",
        "c=IN IP6 fe80::1%x",
        "m=audio 4000 RTP/AVP 0 8 9 13 101 111",
        "m=audio 4000/2 RTP/AVP 111 112",
        "m=audio 4000 RTP/AVP",
        "m=audio 0 RTP/AVP 0",
        "m=video 4002 RTP/SAVPF 96",
        "a=rtpmap:101 telephone-event/8000",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:112 telephone-event/48000",
        "a=rtpmap:",
        "a=rtpmap:0 /",
        "a=sendonly",
        "a=inactive",
        "a=ptime:-3",
        "a=ptime:999999999999999999999999",
        "a=maxptime:1",
        "a=rtcp:",
        "a=rtcp:70000",
        "a=rtcp-mux",
        "a=",
    ]
)
NEARLY = st.lists(LINES | st.text(max_size=20), max_size=20).map(lambda lines: "\r\n".join(["v=0", *lines]).encode())


@given(st.binary(max_size=300) | NEARLY)
def test_no_bytes_raise_anything_but_sdp_error(data: bytes) -> None:
    with contextlib.suppress(SdpError):
        description = parse(data)
        assert parse(serialize(description)).media == description.media


@given(DESCRIPTIONS)
def test_a_description_survives_writing_and_reading(description: Description) -> None:
    assert parse(serialize(description)) == description


@settings(max_examples=300)
@given(NEARLY)
def test_an_answer_fits_its_offer_or_there_is_none(data: bytes) -> None:
    with contextlib.suppress(SdpError):
        text, plan = answer(data, local_host="198.51.100.7", local_port=20000, session_id=1, version=1)
        written = parse(text)
        assert [m.kind for m in written.media] == [m.kind for m in parse(data).media]
        assert [m.port for m in written.media if m.port] == [20000]
        assert 10 <= plan.ptime_ms <= 60
        numbers = [p.number for p in plan.payload_types]
        assert len(set(numbers)) == len(numbers)
        assert plan.payload_types[0].name == plan.codec.value
        assert plan.telephone_event is None or plan.telephone_event in numbers


@settings(max_examples=300)
@given(NEARLY)
def test_no_answer_raises_anything_but_sdp_error(data: bytes) -> None:
    ours = offer(local_host="198.51.100.7", local_port=20000, session_id=1, version=1)
    with contextlib.suppress(SdpError):
        plan = plan_from_answer(ours, data)
        assert plan.payload_types[0].name == plan.codec.value
