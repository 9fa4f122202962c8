"""What payload type numbers mean."""

from __future__ import annotations

import pytest

from aftertone.model import PayloadType
from aftertone.sdp.description import Media
from aftertone.sdp.formats import attributes, payload_types


def stream(formats: str, *rtpmaps: str) -> Media:
    return Media("audio", 4000, "RTP/AVP", tuple(formats.split()), None, tuple(("rtpmap", r) for r in rtpmaps))


def test_static_numbers_need_no_rtpmap() -> None:
    assert payload_types(stream("0 3 8 9 13 18")) == (
        PayloadType(0, "PCMU", 8000),
        PayloadType(8, "PCMA", 8000),
        PayloadType(9, "G722", 8000),
        PayloadType(13, "CN", 8000),
    )


@pytest.mark.parametrize(
    ("rtpmap", "known"),
    [
        ("96 opus/48000/2", PayloadType(96, "opus", 48000)),
        ("96 OPUS/48000/2", PayloadType(96, "opus", 48000)),
        ("96 opus/48000", PayloadType(96, "opus", 48000)),
        ("96\topus/48000/2", PayloadType(96, "opus", 48000)),
        ("96  pcma/8000", PayloadType(96, "PCMA", 8000)),
        ("96 PCMU/8000/1", PayloadType(96, "PCMU", 8000)),
        ("96 g722/8000", PayloadType(96, "G722", 8000)),
        ("96 Telephone-Event/8000", PayloadType(96, "telephone-event", 8000)),
        ("96 telephone-event/48000", PayloadType(96, "telephone-event", 48000)),
        ("96 cn/16000", PayloadType(96, "CN", 16000)),
    ],
)
def test_what_an_rtpmap_names(rtpmap: str, known: PayloadType) -> None:
    assert payload_types(stream("96", rtpmap)) == (known,)


@pytest.mark.parametrize(
    "rtpmap",
    [
        "96 opus/16000/2",
        "96 PCMU/16000",
        "96 PCMU/8000/2",
        "96 G722/16000",
        "96 speex/8000",
        "96 telephone-event",
        "96 telephone-event/0",
        "96 telephone-event/999999999999",
        "96 PCMU",
        "96",
        "",
        "x PCMU/8000",
        "128 PCMU/8000",
        "97 PCMU/8000",
    ],
)
def test_what_we_do_not_speak_is_not_there(rtpmap: str) -> None:
    assert payload_types(stream("96", rtpmap)) == ()


def test_an_rtpmap_overrules_the_table() -> None:
    assert payload_types(stream("0 8", "0 speex/8000", "8 opus/48000/2")) == (PayloadType(8, "opus", 48000),)


def test_the_first_rtpmap_and_the_first_mention_of_a_number_count() -> None:
    assert payload_types(stream("96 0 96", "96 PCMA/8000", "96 PCMU/8000")) == (
        PayloadType(96, "PCMA", 8000),
        PayloadType(0, "PCMU", 8000),
    )


def test_numbers_that_are_none_are_skipped() -> None:
    assert payload_types(stream("* 0 -1 128 webrtc-datachannel")) == (PayloadType(0, "PCMU", 8000),)


def test_a_number_without_rtpmap_means_what_we_offered_it_for() -> None:
    ours = {96: PayloadType(96, "opus", 48000), 0: PayloadType(0, "PCMU", 8000)}
    assert payload_types(stream("96 0 97"), ours) == (ours[96], ours[0])


def test_lines_of_our_own_formats() -> None:
    types = (PayloadType(96, "opus", 48000), PayloadType(0, "PCMU", 8000), PayloadType(101, "telephone-event", 8000))
    assert attributes(types) == [
        ("rtpmap", "96 opus/48000/2"),
        ("rtpmap", "0 PCMU/8000"),
        ("rtpmap", "101 telephone-event/8000"),
        ("fmtp", "96 maxaveragebitrate=32000; stereo=0; sprop-stereo=0; useinbandfec=1"),
        ("fmtp", "101 0-15"),
    ]
