"""Offers and answers: which stream, which codec, which way, and what the text of it is."""

from __future__ import annotations

import pytest

from aftertone.model import Codec, PayloadType
from aftertone.sdp.description import SdpError, parse
from aftertone.sdp.negotiation import MediaPlan, NotAcceptable, answer, offer, plan_from_answer

PCMU = PayloadType(0, "PCMU", 8000)
PCMA = PayloadType(8, "PCMA", 8000)
G722 = PayloadType(9, "G722", 8000)
CN = PayloadType(13, "CN", 8000)
KEYS = PayloadType(101, "telephone-event", 8000)

EVENTS = "a=rtpmap:101 telephone-event/8000"
OPUS = "a=rtpmap:111 opus/48000/2"


def described(*media_lines: str, session: str = "c=IN IP4 192.0.2.1") -> bytes:
    """A description with the given lines after the session's; ``session`` replaces the ``c=`` line."""
    lines = ["v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", session, "t=0 0", *media_lines]
    return "\r\n".join(line for line in lines if line).encode() + b"\r\n"


def answered(data: bytes, codecs: tuple[Codec, ...] | None = None) -> tuple[str, MediaPlan]:
    if codecs is None:
        text, plan = answer(data, local_host="198.51.100.7", local_port=20000, session_id=77, version=3)
    else:
        text, plan = answer(data, local_host="198.51.100.7", local_port=20000, session_id=77, version=3, codecs=codecs)
    return text.decode(), plan


def test_the_text_of_an_answer() -> None:
    text, _ = answered(described("m=audio 4000 RTP/AVP 0 8 13 101", EVENTS, "a=ptime:30"))
    assert text == (
        "v=0\r\n"
        "o=- 77 3 IN IP4 198.51.100.7\r\n"
        "s=-\r\n"
        "c=IN IP4 198.51.100.7\r\n"
        "t=0 0\r\n"
        "m=audio 20000 RTP/AVP 0 101 13\r\n"
        "a=rtpmap:0 PCMU/8000\r\n"
        "a=rtpmap:101 telephone-event/8000\r\n"
        "a=rtpmap:13 CN/8000\r\n"
        "a=fmtp:101 0-15\r\n"
        "a=ptime:30\r\n"
        "a=sendrecv\r\n"
    )


def test_the_plan_of_an_answer() -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 0 8 13 101", EVENTS, "a=ptime:30"))
    assert plan == MediaPlan(
        codec=Codec.PCMU,
        payload_type=0,
        payload_types=(PCMU, KEYS, CN, PCMA),
        remote=("192.0.2.1", 4000),
        direction="sendrecv",
        ptime_ms=30,
        telephone_event=101,
        comfort_noise=13,
        rtcp_mux=False,
        remote_rtcp=("192.0.2.1", 4001),
    )


def test_opus_is_answered_as_one_voice() -> None:
    text, plan = answered(described("m=audio 4000 RTP/AVP 0 111", OPUS))
    assert "m=audio 20000 RTP/AVP 111\r\na=rtpmap:111 opus/48000/2\r\n" in text
    assert "a=fmtp:111 maxaveragebitrate=32000; stereo=0; sprop-stereo=0; useinbandfec=1\r\n" in text
    assert plan.codec is Codec.OPUS
    assert plan.payload_type == 111
    assert plan.payload_types == (PayloadType(111, "opus", 48000),)


@pytest.mark.parametrize(
    ("formats", "chosen"),
    [
        ("0 8 9 111", Codec.OPUS),
        ("0 8 9", Codec.G722),
        ("0 8", Codec.PCMU),
        ("8 0", Codec.PCMA),
        ("18 3 0", Codec.PCMU),
    ],
)
def test_the_best_sound_is_chosen_and_between_equals_the_offer_decides(formats: str, chosen: Codec) -> None:
    _, plan = answered(described(f"m=audio 4000 RTP/AVP {formats}", OPUS))
    assert plan.codec is chosen


@pytest.mark.parametrize(
    ("codecs", "chosen"),
    [
        ((Codec.PCMU, Codec.OPUS), Codec.PCMU),
        ((Codec.PCMU, Codec.PCMA, Codec.OPUS), Codec.PCMA),
        ((Codec.G722, Codec.PCMU), Codec.G722),
        ((Codec.OPUS,), Codec.OPUS),
    ],
)
def test_the_owner_may_choose_other_codecs(codecs: tuple[Codec, ...], chosen: Codec) -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 8 0 9 111", OPUS), codecs)
    assert plan.codec is chosen


def test_what_careless_peers_send_is_named_only_if_we_speak_it() -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 8"), (Codec.PCMA,))
    assert plan.payload_types == (PCMA, CN)
    assert plan.comfort_noise is None


def test_a_static_number_that_was_given_another_meaning_is_not_implied() -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 0 13", "a=rtpmap:13 telephone-event/8000"))
    assert plan.payload_types == (PCMU, PayloadType(13, "telephone-event", 8000), PCMA)


def test_telephone_event_with_the_clock_of_the_codec() -> None:
    events = ("a=rtpmap:101 telephone-event/8000", "a=rtpmap:102 telephone-event/48000")
    _, wide = answered(described("m=audio 4000 RTP/AVP 111 0 101 102", OPUS, *events))
    _, narrow = answered(described("m=audio 4000 RTP/AVP 111 0 102 101", OPUS, *events), (Codec.PCMU,))
    assert wide.telephone_event == 102
    assert narrow.telephone_event == 101


def test_telephone_event_with_another_clock_is_better_than_none() -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 111 101", OPUS, EVENTS))
    assert plan.payload_types == (PayloadType(111, "opus", 48000), KEYS)


def test_comfort_noise_with_another_clock_is_not_taken() -> None:
    text, plan = answered(described("m=audio 4000 RTP/AVP 111 13", OPUS))
    assert plan.comfort_noise is None
    assert "m=audio 20000 RTP/AVP 111\r\n" in text


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("sendrecv", "sendrecv"),
        ("sendonly", "recvonly"),
        ("recvonly", "sendonly"),
        ("inactive", "inactive"),
        ("SendOnly", "recvonly"),
    ],
)
def test_directions_mirror_each_other(theirs: str, ours: str) -> None:
    text, plan = answered(described("m=audio 4000 RTP/AVP 0", f"a={theirs}"))
    assert plan.direction == ours
    assert f"a={ours}\r\n" in text


def test_a_direction_of_the_session_holds_where_the_stream_has_none() -> None:
    session = "c=IN IP4 192.0.2.1\r\na=sendonly"
    _, inherited = answered(described("m=audio 4000 RTP/AVP 0", session=session))
    _, own = answered(described("m=audio 4000 RTP/AVP 0", "a=sendrecv", session=session))
    assert inherited.direction == "recvonly"
    assert own.direction == "sendrecv"


@pytest.mark.parametrize(
    ("direction", "ours"),
    [("sendrecv", "recvonly"), ("sendonly", "recvonly"), ("recvonly", "inactive"), ("inactive", "inactive")],
)
@pytest.mark.parametrize("nowhere", ["IN IP4 0.0.0.0", "IN IP6 ::", "IN IP6 ::ffff:0.0.0.0"])
def test_the_old_way_of_hold_is_an_address_of_zeros(nowhere: str, direction: str, ours: str) -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 0", f"c={nowhere}", f"a={direction}"))
    assert plan.direction == ours
    assert plan.remote is None
    assert plan.remote_rtcp is None


@pytest.mark.parametrize(
    ("session", "media", "remote"),
    [
        ("c=IN IP4 192.0.2.1", "", ("192.0.2.1", 4000)),
        ("c=IN IP4 192.0.2.1", "c=IN IP4 192.0.2.9", ("192.0.2.9", 4000)),
        ("", "c=IN IP4 192.0.2.9", ("192.0.2.9", 4000)),
        ("", "", None),
        ("c=IN IP6 ::ffff:192.0.2.4", "", ("192.0.2.4", 4000)),
        ("c=IN IP6 2001:db8::1", "", None),
        ("c=IN IP4 224.2.1.1/127", "", None),
        ("c=IN IP4 255.255.255.255", "", None),
        ("c=IN IP4 media.example.com", "", None),
        ("c=IN IP4 192.0.2.300", "", None),
    ],
)
def test_where_the_peer_receives(session: str, media: str, remote: tuple[str, int] | None) -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 0", media, session=session))
    assert plan.remote == remote
    assert plan.direction == "sendrecv"


@pytest.mark.parametrize("theirs", ["2001:db8::1", "[2001:DB8::1]", "2001:db8::1%eth0"])
def test_an_answer_by_ipv6(theirs: str) -> None:
    data = described("m=audio 4000 RTP/AVP 0", session=f"c=IN IP6 {theirs}")
    text, plan = answer(data, local_host="2001:db8::7", local_port=20000, session_id=1, version=1)
    assert b"o=- 1 1 IN IP6 2001:db8::7\r\n" in text
    assert b"c=IN IP6 2001:db8::7\r\n" in text
    assert plan.remote == ("2001:db8::1", 4000)


@pytest.mark.parametrize(
    ("lines", "ptime_ms"),
    [
        ((), 20),
        (("a=ptime:10",), 10),
        (("a=ptime:60",), 60),
        (("a=ptime:5",), 10),
        (("a=ptime:0",), 20),
        (("a=ptime:200",), 60),
        (("a=ptime:25",), 20),
        (("a=ptime:30.0",), 30),
        (("a=ptime:fast",), 20),
        (("a=ptime:40", "a=maxptime:30"), 30),
        (("a=maxptime:10",), 10),
        (("a=maxptime:240",), 20),
    ],
)
def test_packet_times(lines: tuple[str, ...], ptime_ms: int) -> None:
    text, plan = answered(described("m=audio 4000 RTP/AVP 0", *lines))
    assert plan.ptime_ms == ptime_ms
    assert f"a=ptime:{ptime_ms}\r\n" in text


@pytest.mark.parametrize(("wish", "ptime_ms"), [(10, 10), (20, 20), (30, 20), (50, 40), (60, 60)])
def test_packet_times_of_opus_are_one_frame(wish: int, ptime_ms: int) -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 111", OPUS, f"a=ptime:{wish}"))
    assert plan.ptime_ms == ptime_ms


def test_a_peer_that_takes_only_short_packets_gets_a_codec_that_can_be_cut() -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 111 0", OPUS, "a=maxptime:10"))
    assert (plan.codec, plan.ptime_ms) == (Codec.PCMU, 10)
    _, plan = answered(described("m=audio 4000 RTP/AVP 111", OPUS, "a=maxptime:10"))
    assert plan.codec is Codec.OPUS


def test_a_packet_time_of_the_session() -> None:
    _, plan = answered(described("m=audio 4000 RTP/AVP 0", session="c=IN IP4 192.0.2.1\r\na=ptime:40"))
    assert plan.ptime_ms == 40


def test_the_times_of_the_offer_are_repeated() -> None:
    text, _ = answered(described("m=audio 4000 RTP/AVP 0").replace(b"t=0 0", b"t=2873397496 2873404696"))
    assert "t=2873397496 2873404696\r\n" in text


def test_streams_that_we_do_not_take_are_refused_in_their_place() -> None:
    text, plan = answered(
        described(
            "m=video 5000 RTP/AVP 96 97",
            "m=audio 4000 RTP/AVP 0",
            "m=audio 4002 RTP/AVP 0",
            "m=image 5002 udptl t38",
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        )
    )
    assert [(m.kind, m.port, m.protocol, m.formats) for m in parse(text.encode()).media] == [
        ("video", 0, "RTP/AVP", ("96",)),
        ("audio", 20000, "RTP/AVP", ("0",)),
        ("audio", 0, "RTP/AVP", ("0",)),
        ("image", 0, "udptl", ("t38",)),
        ("application", 0, "UDP/DTLS/SCTP", ("webrtc-datachannel",)),
    ]
    assert plan.remote == ("192.0.2.1", 4000)


def test_the_first_stream_that_can_be_taken_is_taken() -> None:
    text, plan = answered(
        described(
            "m=audio 4000 RTP/SAVP 0",
            "m=audio 0 RTP/AVP 0",
            "m=audio 4004 RTP/AVP 18",
            "m=audio 4006 RTP/AVP",
            "m=audio 4008 rtp/avpf 8",
        )
    )
    assert [m.port for m in parse(text.encode()).media] == [0, 0, 0, 0, 20000]
    assert parse(text.encode()).media[3].formats == ("0",)
    assert parse(text.encode()).media[4].protocol == "rtp/avpf"
    assert plan.codec is Codec.PCMA


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("m=audio 0 RTP/AVP 0",),
        ("m=audio 4000 RTP/AVP 18 3",),
        ("m=audio 4000 RTP/AVP 101 13", EVENTS),
        ("m=audio 4000 RTP/AVP 96",),
        ("m=audio 4000 RTP/SAVP 0",),
        ("m=audio 4000 RTP/SAVPF 0",),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 0",),
        ("m=video 4000 RTP/AVP 0",),
    ],
)
def test_nothing_that_can_be_taken_is_not_acceptable(lines: tuple[str, ...]) -> None:
    with pytest.raises(NotAcceptable):
        answered(described(*lines))


def test_not_acceptable_is_answered_488_and_malformed_400() -> None:
    assert NotAcceptable.sip_status == 488
    with pytest.raises(SdpError) as malformed:
        answered(b"not a description")
    assert malformed.value.sip_status == 400


def test_rtcp_shares_the_port_only_if_that_was_offered() -> None:
    muxed, plan = answered(described("m=audio 4000 RTP/AVP 0", "a=rtcp:4009", "a=rtcp-mux"))
    assert muxed.endswith("a=rtcp-mux\r\n")
    assert plan.rtcp_mux
    assert plan.remote_rtcp == ("192.0.2.1", 4000)
    apart, plan = answered(described("m=audio 4000 RTP/AVP 0", "a=rtcp:4009 IN IP4 203.0.113.66"))
    assert "rtcp-mux" not in apart
    assert not plan.rtcp_mux
    assert plan.remote_rtcp == ("192.0.2.1", 4009)


def test_rtcp_of_the_last_port_stays_a_port() -> None:
    _, plan = answered(described("m=audio 65535 RTP/AVP 0", "a=rtcp:none"))
    assert plan.remote_rtcp == ("192.0.2.1", 65535)


def test_a_bundle_is_answered_without_one() -> None:
    text, _ = answered(
        described("m=audio 4000 RTP/AVP 0", "a=mid:0", session="c=IN IP4 192.0.2.1\r\na=group:BUNDLE 0 1")
    )
    assert "BUNDLE" not in text


def test_our_address_must_be_one() -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        answer(described("m=audio 4 RTP/AVP 0"), local_host="localhost", local_port=2, session_id=1, version=1)


def offered(codecs: tuple[Codec, ...] = (Codec.OPUS, Codec.G722, Codec.PCMA, Codec.PCMU)) -> bytes:
    return offer(local_host="198.51.100.7", local_port=20000, session_id=5, version=1, codecs=codecs)


def test_the_text_of_an_offer() -> None:
    assert offered((Codec.OPUS, Codec.PCMA)).decode() == (
        "v=0\r\n"
        "o=- 5 1 IN IP4 198.51.100.7\r\n"
        "s=-\r\n"
        "c=IN IP4 198.51.100.7\r\n"
        "t=0 0\r\n"
        "m=audio 20000 RTP/AVP 96 8 102 101 13\r\n"
        "a=rtpmap:96 opus/48000/2\r\n"
        "a=rtpmap:8 PCMA/8000\r\n"
        "a=rtpmap:102 telephone-event/48000\r\n"
        "a=rtpmap:101 telephone-event/8000\r\n"
        "a=rtpmap:13 CN/8000\r\n"
        "a=fmtp:96 maxaveragebitrate=32000; stereo=0; sprop-stereo=0; useinbandfec=1\r\n"
        "a=fmtp:102 0-15\r\n"
        "a=fmtp:101 0-15\r\n"
        "a=ptime:20\r\n"
        "a=sendrecv\r\n"
        "a=rtcp-mux\r\n"
    )


def test_an_offer_of_opus_alone_has_no_comfort_noise() -> None:
    assert b"m=audio 20000 RTP/AVP 96 102\r\n" in offered((Codec.OPUS,))


@pytest.mark.parametrize(("host", "codecs"), [("nowhere", (Codec.PCMU,)), ("192.0.2.1", ())])
def test_an_offer_of_nothing_or_from_nowhere_is_our_mistake(host: str, codecs: tuple[Codec, ...]) -> None:
    with pytest.raises(ValueError, match=r"not an IP address|needs a codec"):
        offer(local_host=host, local_port=2, session_id=1, version=1, codecs=codecs)


def test_the_plan_from_an_answer() -> None:
    plan = plan_from_answer(offered(), described("m=audio 4000 RTP/AVP 8 101", EVENTS, "a=ptime:10", "a=rtcp-mux"))
    assert plan == MediaPlan(
        codec=Codec.PCMA,
        payload_type=8,
        payload_types=(PCMA, KEYS, PCMU, CN),
        remote=("192.0.2.1", 4000),
        direction="sendrecv",
        ptime_ms=10,
        telephone_event=101,
        comfort_noise=None,
        rtcp_mux=True,
        remote_rtcp=("192.0.2.1", 4000),
    )


def test_every_codec_that_an_answer_lists_may_arrive() -> None:
    plan = plan_from_answer(offered(), described("m=audio 4000 RTP/AVP 9 0 8"))
    assert plan.codec is Codec.G722
    assert plan.payload_types == (G722, PCMU, PCMA, CN)


def test_an_answer_with_other_numbers_is_sent_by_them_and_heard_by_both() -> None:
    plan = plan_from_answer(
        offered(),
        described("m=audio 4000 RTP/AVP 120 121", "a=rtpmap:120 opus/48000/2", "a=rtpmap:121 telephone-event/48000"),
    )
    assert plan.payload_type == 120
    assert plan.telephone_event == 102
    assert plan.payload_types == (
        PayloadType(96, "opus", 48000),
        PayloadType(102, "telephone-event", 48000),
        PayloadType(120, "opus", 48000),
        PayloadType(121, "telephone-event", 48000),
    )


def test_a_number_of_the_answer_that_our_offer_uses_otherwise_means_what_we_offered() -> None:
    plan = plan_from_answer(
        offered((Codec.OPUS, Codec.PCMU)),
        described("m=audio 4000 RTP/AVP 102 96", "a=rtpmap:102 opus/48000/2", "a=rtpmap:96 telephone-event/48000"),
    )
    assert plan.payload_type == 102
    assert plan.payload_types == (PayloadType(96, "opus", 48000), PayloadType(102, "telephone-event", 48000))


def test_an_answer_without_rtpmaps_means_what_was_offered() -> None:
    plan = plan_from_answer(offered(), described("m=audio 4000 RTP/AVP 96 102"))
    assert plan.codec is Codec.OPUS
    assert plan.telephone_event == 102


def test_a_codec_that_was_not_offered_is_passed_over() -> None:
    plan = plan_from_answer(offered((Codec.PCMU,)), described("m=audio 4000 RTP/AVP 9 0"))
    assert plan.codec is Codec.PCMU
    assert G722 not in plan.payload_types


def test_an_answer_that_lost_count_of_the_streams() -> None:
    plan = plan_from_answer(offered(), described("m=video 0 RTP/AVP 31", "m=audio 4000 RTP/AVP 0"))
    assert plan.remote == ("192.0.2.1", 4000)


@pytest.mark.parametrize(
    ("ours", "theirs", "planned"),
    [
        ("sendrecv", "sendrecv", "sendrecv"),
        ("sendrecv", "recvonly", "sendonly"),
        ("sendrecv", "inactive", "inactive"),
        ("sendonly", "recvonly", "sendonly"),
        ("recvonly", "sendrecv", "recvonly"),
        ("inactive", "sendrecv", "inactive"),
    ],
)
def test_a_direction_needs_both_sides(ours: str, theirs: str, planned: str) -> None:
    data = offered().replace(b"a=sendrecv", b"a=" + ours.encode())
    assert plan_from_answer(data, described("m=audio 4000 RTP/AVP 0", f"a={theirs}")).direction == planned


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("m=audio 0 RTP/AVP 0",),
        ("m=audio 4000 RTP/SAVP 0",),
        ("m=audio 4000 RTP/AVP 18",),
        ("m=audio 4000 RTP/AVP 101", EVENTS),
    ],
)
def test_an_answer_that_takes_nothing_is_not_acceptable(lines: tuple[str, ...]) -> None:
    with pytest.raises(NotAcceptable):
        plan_from_answer(offered(), described(*lines))


def test_an_offer_without_sound_has_no_plan() -> None:
    with pytest.raises(SdpError):
        plan_from_answer(described("m=video 4000 RTP/AVP 31"), described("m=audio 4000 RTP/AVP 0"))


def test_our_own_offer_is_one_that_we_answer() -> None:
    text, theirs = answer(offered(), local_host="192.0.2.1", local_port=4000, session_id=1, version=1)
    ours = plan_from_answer(offered(), text)
    assert (ours.codec, ours.payload_type, ours.telephone_event) == (Codec.OPUS, 96, 102)
    assert ours.payload_types == theirs.payload_types
    assert ours.remote == ("192.0.2.1", 4000)
    assert theirs.remote == ("198.51.100.7", 20000)
