"""aftertone.sip.pcap: captures, read by a small reader of their own that knows nothing of the writer."""

from __future__ import annotations

import pytest

from aftertone.sip.flow import Address
from aftertone.sip.pcap import pack_pcap
from aftertone.sip.trace import Traced
from tests.support.captures import Packet, read_pcap

US: Address = ("192.0.2.1", 5060)
PEER: Address = ("192.0.2.7", 40_000)
AT_NS = 1_700_000_001_234_567_000


def traced(data: bytes = b"OPTIONS", *, sent: bool = False, local: Address = US, remote: Address = PEER) -> Traced:
    return Traced(AT_NS, sent, "UDP", local, remote, data)


def test_both_directions() -> None:
    assert read_pcap(pack_pcap([traced(b"in"), traced(b"out!", sent=True)])) == [
        Packet(1_700_000_001_234_567, PEER, US, b"in"),
        Packet(1_700_000_001_234_567, US, PEER, b"out!"),
    ]


def test_ipv6() -> None:
    local, remote = ("2001:db8::1", 5060), ("2001:db8::2", 5062)
    assert read_pcap(pack_pcap([traced(local=local, remote=remote)])) == [
        Packet(1_700_000_001_234_567, remote, local, b"OPTIONS")
    ]


def test_a_zone_a_name_and_two_families_do_not_stop_it() -> None:
    packets = read_pcap(
        pack_pcap(
            [
                traced(local=("fe80::1", 5060), remote=("fe80::2%eth0", 5060)),
                traced(local=("203.0.113.1", 5060), remote=("2001:db8::2", 5060)),
                traced(local=("example.net", 5060)),
            ]
        )
    )
    assert [(packet.source[0], packet.target[0]) for packet in packets] == [
        ("fe80::2", "fe80::1"),
        ("2001:db8::2", "::ffff:cb00:7101"),
        ("192.0.2.7", "0.0.0.0"),
    ]


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_a_message_that_fits_into_no_datagram_is_cut(host: str) -> None:
    remote = ("192.0.2.7", 1) if "." in host else ("2001:db8::7", 1)
    (packet,) = read_pcap(pack_pcap([traced(bytes(70_000), local=(host, 1), remote=remote)]))
    assert 65_000 < len(packet.data) < 65_536


@pytest.mark.parametrize("size", range(8))
def test_odd_and_even_lengths_and_sums_of_zero(size: int) -> None:
    for filling in range(256):
        (packet,) = read_pcap(pack_pcap([traced(bytes([filling]) * size)]))
        assert packet.data == bytes([filling]) * size


def test_nothing_is_an_empty_capture() -> None:
    assert read_pcap(pack_pcap([])) == []
