"""Reports between the plane and a peer that reads and writes RTCP by itself."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.config import PortRange
from aftertone.media import plane as planes
from aftertone.media import reports
from aftertone.media.plane import Plane
from aftertone.media.reports import TURN_TICKS, LineQuality
from aftertone.media.sockets import PortableReceiver
from aftertone.media.table import Stream
from aftertone.model import Codec, MasterKey, Suite
from aftertone.rtp.rtcp import INTERVAL_NS
from aftertone.rtp.srtp import SrtpReceiver, SrtpSender
from tests.support.rtcp import Report, peer_goodbye, peer_report, read
from tests.unit.media.test_plane import LIMITS, SECOND_NS, SILENCE, Bench, arrive, make_bench, say

SSRC = 7
"""Of everything that ``say`` says."""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    # Arrival times are the test's, not the kernel's.
    monkeypatch.setattr(planes, "make_receiver", PortableReceiver)
    monkeypatch.setattr(reports, "make_receiver", PortableReceiver)
    made = make_bench()
    yield made
    for row in range(made.plane.table.capacity):
        made.plane.release(row)


@pytest.fixture
def peer() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Sockets for sound and for reports."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sound,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own,
    ):
        for sock in (sound, own):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(5)
        yield sound, own


Peer = tuple[socket.socket, socket.socket]


def start(bench: Bench, peer: Peer, *, mux: bool = False) -> tuple[int, int]:
    row, port = bench.plane.lease()
    sound, own = peer
    rtcp = (sound if mux else own).getsockname()
    bench.plane.agree(
        row, Stream(Codec.PCMU, 0, (0, 13, 101), 101, 13, sound.getsockname(), remote_rtcp=rtcp, rtcp_mux=mux)
    )
    return row, port


def drain(sock: socket.socket) -> list[bytes]:
    found = []
    while select.select([sock], [], [], 0)[0]:
        found.append(sock.recv(2000))
    return found


def is_report(data: bytes) -> bool:
    return 192 <= data[1] <= 223


def pass_time(bench: Bench, nanoseconds: int) -> None:
    bench.ticks(nanoseconds // planes.TICK_NS)


def reports_to(sock: socket.socket) -> list[Report]:
    return [read(data) for data in drain(sock) if is_report(data)]


@pytest.mark.parametrize("mux", [False, True])
def test_a_call_reports_every_five_seconds_and_says_goodbye(bench: Bench, peer: Peer, *, mux: bool) -> None:
    row, _ = start(bench, peer, mux=mux)
    pass_time(bench, 60 * SECOND_NS)
    sound = drain(peer[0])
    found = [read(data) for data in (sound if mux else drain(peer[1])) if is_report(data)]
    # The test's entropy is the same each time, so the pauses are too: 0.5 of the usual, by the standard's compensation.
    assert 20 <= len(found) <= 60 * SECOND_NS / (INTERVAL_NS * 0.5 / 1.22) + 1
    assert {report.kind for report in found} <= {"SR", "RR"}
    assert len({report.cname for report in found}) == 1
    assert len(found[0].cname) == 16
    ssrc = int(bench.plane.table.ssrc[row])
    assert {report.ssrc for report in found} == {ssrc}
    latest = [report for report in found if report.kind == "SR"][-1]
    voice = [data for data in sound if not is_report(data)]
    assert latest.packets in (len(voice), len(voice) - 1)
    assert latest.octets == latest.packets
    assert not any(report.goodbye for report in found)
    bench.plane.release(row)
    (last,) = reports_to(peer[0] if mux else peer[1])
    assert last.goodbye
    assert bench.plane.reports.sent == len(found) + 1


def test_the_times_of_a_report_belong_together(bench: Bench, peer: Peer) -> None:
    row, _ = start(bench, peer)
    bench.plane.play(row, (b"\xff" * 160,) * 1000)
    pass_time(bench, 15 * SECOND_NS)
    found = reports_to(peer[1])
    assert len(found) > 2
    passed_s = (found[-1].ntp - found[0].ntp) / 2**32
    assert passed_s > 5
    assert abs((found[-1].timestamp - found[0].timestamp & 0xFFFFFFFF) / 8000 - passed_s) < 0.001
    assert found[-1].packets - found[0].packets == pytest.approx(passed_s * 50, abs=1)


@pytest.mark.parametrize("mux", [False, True])
def test_what_is_lost_on_the_way_to_us_is_reported(bench: Bench, peer: Peer, *, mux: bool) -> None:
    row, port = start(bench, peer, mux=mux)
    for number in range(40):
        if number % 4 != 1:
            say(peer[0], port, b"\xff" * 160, number)
    arrive(bench, row)
    pass_time(bench, INTERVAL_NS)
    (block,) = reports_to(peer[0] if mux else peer[1])[0].blocks
    assert (block.ssrc, block.lost, block.highest) == (SSRC, 10, 39)
    assert block.fraction == 256 * 10 // 40
    assert block.lsr == block.dlsr == 0


def test_the_time_since_the_peers_report_is_told(bench: Bench, peer: Peer) -> None:
    row, port = start(bench, peer)
    say(peer[0], port, b"\xff" * 160, 1)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    peer[1].sendto(peer_report(SSRC, about=0, ntp=0x0000_AAAA_BBBB_0000), ("127.0.0.1", port + 1))
    wait_for_own(bench, row)
    bench.ticks(TURN_TICKS)
    heard_ns = bench.now_ns
    drain(peer[1])
    while not (found := reports_to(peer[1])):
        bench.ticks(1)
    (block,) = found[0].blocks
    assert block.lsr == 0xAAAABBBB
    assert abs(block.dlsr / 65_536 - (bench.now_ns - heard_ns) / 1e9) < 0.2


def wait_for_own(bench: Bench, row: int) -> None:
    assert select.select([bench.plane.reports._sockets[row]], [], [], 5)[0]


def send_report(bench: Bench, peer: Peer, row: int, port: int, data: bytes, *, mux: bool) -> None:
    """Send from the peer's proper port and let the plane see it."""
    (peer[0] if mux else peer[1]).sendto(data, ("127.0.0.1", port if mux else port + 1))
    if mux:
        arrive(bench, row)
    else:
        wait_for_own(bench, row)
    bench.ticks(TURN_TICKS)


@pytest.mark.parametrize("mux", [False, True])
def test_what_the_peer_says_about_us_is_known(bench: Bench, peer: Peer, *, mux: bool) -> None:
    row, port = start(bench, peer, mux=mux)
    assert bench.plane.quality(row) == LineQuality()
    say(peer[0], port, b"\xff" * 160, 1)
    arrive(bench, row)
    bench.plane.play(row, (b"\xff" * 160,) * 100)
    while not (found := reports_to(peer[0] if mux else peer[1])):
        bench.ticks(1)
    ssrc = int(bench.plane.table.ssrc[row])
    lsr = found[0].ntp >> 16 & 0xFFFFFFFF
    data = peer_report(SSRC, about=ssrc, lost=5, jitter=80, lsr=lsr, dlsr=0)
    send_report(bench, peer, row, port, data, mux=mux)
    quality = bench.plane.quality(row)
    assert (quality.peer_lost, quality.peer_jitter_ms, quality.said_goodbye) == (5, 10, False)
    assert quality.sent_packets > 50
    assert quality.round_trip_ms is not None
    # The test's peer answers at once; the plane looks at its sockets once in ten ticks, and here no kernel says when it came.
    assert 0 < quality.round_trip_ms <= 250
    send_report(bench, peer, row, port, peer_goodbye(SSRC), mux=mux)
    assert bench.plane.quality(row).said_goodbye
    assert bench.plane.reports.goodbyes == 1
    assert bench.plane.dropped["malformed"] == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81\xc9\x00\x07",
        peer_report(SSRC, about=123, lost=4),
        peer_report(SSRC, about=0x0708_090A, lost=1_000_000),
        b"\xa1" + peer_report(SSRC, about=0x0708_090A, lost=4)[1:],
        peer_goodbye(SSRC)[8:],
    ],
    ids=["empty", "cut", "other stream", "more than sent", "padded", "no report first"],
)
def test_reports_that_make_no_sense_say_nothing(bench: Bench, peer: Peer, data: bytes) -> None:
    row, port = start(bench, peer)
    assert int(bench.plane.table.ssrc[row]) == 0x0708_090A
    pass_time(bench, SECOND_NS)
    send_report(bench, peer, row, port, data, mux=False)
    assert bench.plane.quality(row).peer_lost is None
    assert not bench.plane.quality(row).said_goodbye


@given(st.binary(max_size=120) | st.binary(max_size=60).map(lambda tail: peer_report(SSRC, about=0x0708_090A) + tail))
def test_any_bytes_are_heard_without_a_word(data: bytes) -> None:
    plane = make_bench(capacity=1).plane
    row, _ = plane.lease()
    plane.agree(row, Stream(Codec.PCMU, 0, (0,), rtcp_mux=True))
    plane.reports.hear(row, data, 1)
    quality = plane.quality(row)
    assert quality.peer_lost in (None, 0)
    assert quality.round_trip_ms is None
    plane.release(row)


@pytest.mark.parametrize("mux", [False, True])
def test_reports_of_strangers_are_not_read(bench: Bench, peer: Peer, *, mux: bool) -> None:
    row, port = start(bench, peer, mux=mux)
    say(peer[0], port, b"\xff" * 160, 1)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    about = int(bench.plane.table.ssrc[row])
    drain(peer[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        # From another host; on the port of the sound, from another port of the same host as well.
        stranger.bind(("127.0.0.2", 0))
        target = ("127.0.0.1", port if mux else port + 1)
        stranger.sendto(peer_report(SSRC, about=about, lost=1), target)
        if mux:
            arrive(bench, row)
        else:
            wait_for_own(bench, row)
        bench.ticks(TURN_TICKS)
        assert bench.plane.reports.dropped == {"malformed": 0, "stranger": 1, "unauthentic": 0}
        assert bench.plane.quality(row).peer_lost is None
        pass_time(bench, INTERVAL_NS)
        assert not drain(stranger)
    assert reports_to(peer[0] if mux else peer[1])


@pytest.mark.parametrize("mux", [False, True])
def test_the_reports_of_an_encrypted_call_are_encrypted(bench: Bench, peer: Peer, *, mux: bool) -> None:
    row, port = bench.plane.lease()
    sound, own = peer
    ours, theirs = (MasterKey(Suite.AES_128_CM_80, bytes([n]) * 16, bytes([n]) * 14) for n in (1, 2))
    rtcp = (sound if mux else own).getsockname()
    stream = Stream(Codec.PCMU, 0, (0,), None, None, sound.getsockname(), 20, ours, theirs, rtcp, mux)
    bench.plane.agree(row, stream)
    pass_time(bench, INTERVAL_NS)
    found = [data for data in drain(sound if mux else own) if is_report(data)]
    plain = [SrtpReceiver(ours).open_rtcp(data) for data in found]
    assert found
    assert all(data is not None and read(data).ssrc == int(bench.plane.table.ssrc[row]) for data in plain)
    ssrc = int(bench.plane.table.ssrc[row])
    send_report(bench, peer, row, port, peer_report(SSRC, about=ssrc, lost=1), mux=mux)
    assert bench.plane.quality(row).peer_lost is None
    sealed = SrtpSender(theirs).protect_rtcp(peer_report(SSRC, about=ssrc, lost=1))
    send_report(bench, peer, row, port, sealed, mux=mux)
    assert bench.plane.quality(row).peer_lost == 1
    assert (bench.plane.dropped if mux else bench.plane.reports.dropped)["unauthentic"] == 1


def test_reports_go_where_the_peers_came_from(bench: Bench, peer: Peer) -> None:
    """Behind a NAT the port for reports is another one than the description says."""
    row, port = start(bench, peer)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mapped:
        mapped.bind(("127.0.0.1", 0))
        mapped.sendto(peer_report(SSRC, about=1), ("127.0.0.1", port + 1))
        wait_for_own(bench, row)
        bench.ticks(TURN_TICKS)
        pass_time(bench, INTERVAL_NS)
        assert reports_to(mapped)
        # A refresh that says the same again changes nothing.
        sound, own = peer
        drain(own)
        stream = Stream(Codec.PCMU, 0, (0, 13, 101), 101, 13, sound.getsockname(), remote_rtcp=own.getsockname())
        bench.plane.agree(row, stream)
        pass_time(bench, INTERVAL_NS)
        assert reports_to(mapped)
        assert not drain(own)


def test_a_flood_of_reports_costs_a_few_readings(bench: Bench, peer: Peer) -> None:
    row, port = start(bench, peer)
    for _ in range(100):
        peer[1].sendto(peer_report(SSRC, about=1), ("127.0.0.1", port + 1))
    wait_for_own(bench, row)
    bench.ticks(3 * TURN_TICKS)
    assert bench.plane.reports.received == 6


def test_a_call_without_a_descriptor_for_reports_goes_without(peer: Peer) -> None:
    plane = Plane(
        4,
        host="127.0.0.1",
        ports=PortRange(22000, 22999),
        limits=LIMITS,
        silence=SILENCE,
        journal=lambda _data, _oldest_ns: None,
        entropy=bytes,
        report_sockets=1,
    )
    bench = Bench(plane)
    first, _ = start(bench, peer)
    second, _ = start(bench, peer)
    third, _ = start(bench, peer, mux=True)
    assert plane.reports.without_socket == 1
    pass_time(bench, INTERVAL_NS)
    names = {report.cname for report in reports_to(peer[1])}
    assert len(names) == 1
    plane.release(first)
    fourth, _ = start(bench, peer)
    assert plane.reports.without_socket == 1
    for row in (second, third, fourth):
        plane.release(row)


def test_a_port_that_somebody_has_is_not_taken_from_him(peer: Peer) -> None:
    bench = make_bench(ports=PortRange(23010, 23011))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 23011))
        row, _ = start(bench, peer)
        assert bench.plane.reports.without_socket == 1
        pass_time(bench, INTERVAL_NS)
        bench.plane.release(row)
    assert not drain(peer[1])


def test_a_call_that_never_spoke_says_no_goodbye(bench: Bench, peer: Peer) -> None:
    row, _ = start(bench, peer)
    bench.plane.release(row)
    assert not drain(peer[1])


def test_a_call_that_was_over_before_the_first_tick_is_never_due(bench: Bench, peer: Peer) -> None:
    row, _ = start(bench, peer)
    other, _ = start(bench, peer)
    bench.plane.release(row)
    bench.ticks(TURN_TICKS)
    due_ns = bench.plane.reports._due_ns
    assert due_ns[row] == np.iinfo(np.int64).max > due_ns[other]


def test_a_row_knows_nothing_of_the_call_before(bench: Bench, peer: Peer) -> None:
    row, port = start(bench, peer)
    say(peer[0], port, b"\xff" * 160, 1)
    arrive(bench, row)
    bench.ticks(planes.STRIPES)
    send_report(bench, peer, row, port, peer_report(SSRC, about=int(bench.plane.table.ssrc[row])), mux=False)
    assert bench.plane.quality(row).peer_lost == 0
    bench.plane.release(row)
    drain(peer[1])
    again, _ = start(bench, peer)
    assert again == row
    assert bench.plane.quality(row) == LineQuality()
    pass_time(bench, INTERVAL_NS)
    assert reports_to(peer[1])[0].blocks == []
