"""RTCP: what we send is well formed, what arrives is read as far as it makes sense."""

from __future__ import annotations

import pytest

from aftertone.rtp.rtcp import (
    INTERVAL_NS,
    MAX_PACKETS,
    Compound,
    ReportBlock,
    SenderReport,
    goodbye,
    parse,
    pause_ns,
    receiver_report,
)

BLOCK = ReportBlock(0xDEADBEEF, 12, -3, 0x1_FFFE, 77, 5, 6)


def test_the_least_report() -> None:
    assert receiver_report(0x01020304, "ab") == bytes.fromhex("80c90001 01020304 81ca0003 01020304 01026162 00000000")


@pytest.mark.parametrize("cname", ["a", "ab", "abc", "abcd", "ü" * 127, "x" * 255])
def test_a_name_ends_with_zeros_on_a_word(cname: str) -> None:
    description = receiver_report(1, cname)[8:]
    assert len(description) % 4 == 0
    assert int.from_bytes(description[2:4], "big") == len(description) // 4 - 1
    assert description[10:].rstrip(b"\0").decode() == cname
    assert description.endswith(b"\0")


def test_a_report_about_a_stream_comes_back() -> None:
    assert parse(receiver_report(1, "name", [BLOCK, BLOCK])) == Compound(blocks=(BLOCK, BLOCK))


def test_a_goodbye_comes_back() -> None:
    assert parse(goodbye(42, "name", [BLOCK])) == Compound(blocks=(BLOCK,), goodbyes=(42,))


@pytest.mark.parametrize(("lost", "told"), [(2**30, 2**23 - 1), (-(2**30), -(2**23)), (0, 0), (-1, -1)])
def test_losses_are_cut_to_their_field(lost: int, told: int) -> None:
    (block,) = parse(receiver_report(1, "name", [ReportBlock(9, 255, lost, 0, 0)])).blocks
    assert (block.packets_lost, block.fraction_lost) == (told, 255)


def test_our_own_mistakes() -> None:
    for cname in ("", "x" * 256):
        with pytest.raises(ValueError, match="CNAME"):
            receiver_report(1, cname)
    with pytest.raises(ValueError, match="31 blocks"):
        receiver_report(1, "name", [BLOCK] * 32)


def test_reports_come_every_five_seconds_on_average_and_never_in_step() -> None:
    pauses = [pause_ns(chance, is_first=False) for chance in (0, 0x8000, 0xFFFF)]
    assert [round(pause / INTERVAL_NS, 2) for pause in pauses] == [0.41, 0.82, 1.23]
    assert abs(pause_ns(0x8000, is_first=True) * 2 - pauses[1]) <= 1


SENDER = bytes.fromhex("80c80006 00000007 0102030405060708 000000a0 00000032 00001f40")


def test_a_sender_report() -> None:
    assert parse(SENDER).senders == (SenderReport(7, 0x0102030405060708, 160, 50, 8000),)


def test_a_compound_as_peers_send_it() -> None:
    application = bytes.fromhex("81cc0003 00000007 61626364 00000000")
    farewell = bytes.fromhex("82cb0003 00000007 00000008 03627965")
    compound = parse(SENDER + receiver_report(7, "peer", [BLOCK]) + application + farewell)
    assert compound == Compound(parse(SENDER).senders, (BLOCK,), (7, 8))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\xc8\x00",
        b"\x00" * 40,
        SENDER[:-1],
        bytes.fromhex("80c80001 00000007"),
        bytes.fromhex("9fc90000"),
        bytes.fromhex("9fcb0000"),
        bytes.fromhex("80c9ffff 00000007"),
    ],
)
def test_what_makes_no_sense_says_nothing(data: bytes) -> None:
    assert parse(data) == Compound()


def test_what_came_before_the_nonsense_counts() -> None:
    assert parse(SENDER + b"\x00\x01\x02\x03\x04").senders == parse(SENDER).senders
    assert parse(bytes.fromhex("9fc90001 00000007")).blocks == ()
    assert parse(bytes.fromhex("83cb0002 00000007 00000008")).goodbyes == (7, 8)


def test_a_datagram_of_countless_packets_is_read_up_to_the_limit() -> None:
    assert len(parse(bytes.fromhex("81cb0001 00000007") * 200).goodbyes) == MAX_PACKETS
