"""Reading and writing session descriptions: what is taken, what is refused, and that nothing else is raised."""

from __future__ import annotations

import pytest

from aftertone.sdp.description import (
    MAX_BYTES,
    MAX_LINES,
    MAX_MEDIA,
    Description,
    Media,
    Origin,
    SdpError,
    decimal,
    parse,
    serialize,
)

PHONE = (
    b"v=0\r\n"
    b"o=alice 2890844526 2890844527 IN IP4 192.0.2.1\r\n"
    b"s=Talk\r\n"
    b"c=IN IP4 192.0.2.1\r\n"
    b"t=0 0\r\n"
    b"a=tool:phone\r\n"
    b"m=audio 49170 RTP/AVP 0 101\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\n"
    b"a=sendrecv\r\n"
    b"m=video 51372 RTP/AVP 31\r\n"
    b"c=IN IP6 2001:db8::7\r\n"
)


def test_every_part_is_read() -> None:
    assert parse(PHONE) == Description(
        origin=Origin("alice", "2890844526", "2890844527", "192.0.2.1"),
        session_name="Talk",
        host="192.0.2.1",
        timing="0 0",
        attributes=(("tool", "phone"),),
        media=(
            Media(
                "audio",
                49170,
                "RTP/AVP",
                ("0", "101"),
                attributes=(("rtpmap", "101 telephone-event/8000"), ("sendrecv", "")),
            ),
            Media("video", 51372, "RTP/AVP", ("31",), host="2001:db8::7"),
        ),
    )


def test_what_was_read_is_written_byte_for_byte() -> None:
    assert serialize(parse(PHONE)) == PHONE


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\r\n", b" \r\n", b"\r\n\r\n", b"\t\n"])
def test_line_ends_of_odd_peers(line_end: bytes) -> None:
    assert parse(PHONE.replace(b"\r\n", line_end)) == parse(PHONE)


def test_blank_lines_and_a_byte_order_mark_before_the_first_line() -> None:
    assert parse(b"\xef\xbb\xbf\r\n" + PHONE) == parse(PHONE)


def test_a_last_line_without_an_end() -> None:
    assert parse(PHONE.rstrip()) == parse(PHONE)


def test_lines_that_say_nothing_about_streams_are_forgotten() -> None:
    more = PHONE.replace(
        b"t=0 0\r\n", b"i=x\r\nu=http://x\r\ne=a@b\r\np=+1\r\nb=AS:84\r\nt=0 0\r\nr=7d 1h 0\r\nz=0 0\r\nk=clear:x\r\n"
    )
    assert parse(more) == parse(PHONE)


def test_a_letter_nobody_knows_does_not_lose_the_call() -> None:
    assert parse(PHONE.replace(b"s=Talk\r\n", b"s=Talk\r\ny=0105\r\n")) == parse(PHONE)


def test_missing_lines_take_neutral_values() -> None:
    bare = parse(b"v=0\nm=audio 5004 RTP/AVP 0\n")
    assert bare == Description(media=(Media("audio", 5004, "RTP/AVP", ("0",)),))


@pytest.mark.parametrize(
    ("line", "origin"),
    [
        (b"o=", Origin()),
        (b"o=bob", Origin("bob")),
        (b"o=bob 1 2 IN IP4", Origin("bob", "1", "2")),
        (b"o=bob x 99999999999999999999999 IN IP4 h extra", Origin("bob", "x", "99999999999999999999999", "h")),
    ],
)
def test_origins_that_are_not_as_they_should_be(line: bytes, origin: Origin) -> None:
    assert parse(b"v=0\r\n" + line).origin == origin


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"IN IP4 192.0.2.1", "192.0.2.1"),
        (b"in ip4 192.0.2.1", "192.0.2.1"),
        (b"IN IP4 224.2.1.1/127/3", "224.2.1.1"),
        (b"IN IP6 [2001:db8::1]", "2001:db8::1"),
        (b"IN IP4 media.example.com", "media.example.com"),
        (b"ATM NSAP 47.0091", None),
        (b"IN IP4", None),
        (b"", None),
    ],
)
def test_connection_lines(value: bytes, host: str | None) -> None:
    assert parse(b"v=0\r\nc=" + value).host == host


def test_the_first_connection_line_of_a_stream_counts() -> None:
    two = parse(b"v=0\nm=audio 4 RTP/AVP 0\nc=IN IP4 192.0.2.1\nc=IN IP4 192.0.2.2\n")
    assert two.media[0].host == "192.0.2.1"


@pytest.mark.parametrize(("value", "timing"), [(b"3034423619 0", "3034423619 0"), (b"now", "0 0"), (b"1 -2", "0 0")])
def test_timing_lines(value: bytes, timing: str) -> None:
    assert parse(b"v=0\r\nt=" + value + b"\r\nt=9 9\r\n").timing == timing


def test_a_count_of_ports_leaves_the_first() -> None:
    assert parse(b"v=0\nm=audio 49170/2 RTP/AVP 0").media[0].port == 49170


def test_attributes_with_odd_blanks_and_colons() -> None:
    assert parse(b"v=0\na= fmtp : 1 a:b \na=flag\na=\na=:x\n").attributes == (("fmtp", "1 a:b"), ("flag", ""))


def test_attributes_are_found_in_any_case_and_the_first_counts() -> None:
    description = parse(b"v=0\na=PTIME:20\na=ptime:30\n")
    assert description.attribute("ptime") == "20"
    assert description.attribute("maxptime") is None


def test_text_that_is_not_utf8_is_replaced() -> None:
    assert parse(b"v=0\r\ns=caf\xe9\r\n").session_name == "caf\ufffd"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"hello",
        b"v=1\r\n",
        b"o=- 0 0 IN IP4 192.0.2.1\r\nv=0\r\n",
        b"v=0\r\nno equals sign\r\n",
        b"v=0\r\n=x\r\n",
        b"v=0\r\n5=x\r\n",
        b"v=0\r\ns=a\0b\r\n",
        b"v=0\r\nm=audio\r\n",
        b"v=0\r\nm=audio 5004\r\n",
        b"v=0\r\nm=audio 65536 RTP/AVP 0\r\n",
        b"v=0\r\nm=audio -1 RTP/AVP 0\r\n",
        b"v=0\r\nm=audio " + b"9" * 10_000 + b" RTP/AVP 0\r\n",
        "v=0\r\nm=audio ٥٠٠٤ RTP/AVP 0\r\n".encode(),
        b"v=0\r\n" + b"s" * (MAX_BYTES + 1),
        b"v=0\r\n" + b"a=x\r\n" * MAX_LINES,
        b"v=0\r\n" + b"m=audio 4 RTP/AVP 0\r\n" * (MAX_MEDIA + 1),
    ],
)
def test_what_is_no_description_is_refused(data: bytes) -> None:
    with pytest.raises(SdpError):
        parse(data)


def test_what_is_just_within_the_limits_is_taken() -> None:
    full = b"v=0\r\n" + b"m=audio 4 RTP/AVP 0\r\n" * MAX_MEDIA + b"a=x\r\n" * (MAX_LINES - MAX_MEDIA - 1)
    assert len(parse(full).media) == MAX_MEDIA


def test_a_malformed_description_is_the_peers_fault_and_answered_400() -> None:
    assert SdpError.sip_status == 400


@pytest.mark.parametrize(
    "wrong",
    [
        Description(session_name="a\r\nm=audio 1 RTP/AVP 0"),
        Description(origin=Origin(username="two words")),
        Description(origin=Origin(username="")),
        Description(host="192.0.2.1\n"),
        Description(attributes=(("", "x"),)),
        Description(attributes=(("a:b", "x"),)),
        Description(attributes=(("a", "x\ny"),)),
        Description(media=(Media("audio", 1, "RTP/AVP", ("0 8",)),)),
    ],
)
def test_a_value_that_would_break_the_lines_is_not_written(wrong: Description) -> None:
    with pytest.raises(ValueError, match=r"not|cannot"):
        serialize(wrong)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("127", 127),
        ("128", None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1 ", None),
        ("٣", None),
        ("9" * 5000, None),
    ],
)
def test_decimal_takes_ascii_digits_within_the_bound(text: str, value: int | None) -> None:
    assert decimal(text, 127) == value
