"""How good the line was, from the packets and from what the peer said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aftertone.delivery.held import HeldCall
from aftertone.delivery.parcel import wrap
from aftertone.delivery.quality import Told, jitter_ms, told
from aftertone.journal import Event
from aftertone.model import Codec
from tests.support.recordings import SECOND_NS, Row, a_batch, an_envelope, rows_of


def jitter(rows: list[Row], tick_ns: float = 125_000.0) -> int | None:
    packets = a_batch(rows)
    kind = np.where(packets.payload_type == 0, 0, -1).astype(np.int8)
    return jitter_ms(packets, kind, np.full(len(packets), tick_ns))


def test_a_steady_stream_has_no_jitter_whatever_wraps_and_pauses() -> None:
    assert jitter(rows_of()) == 0
    assert jitter(rows_of()[::7]) == 0


def test_every_second_packet_that_is_late_makes_jitter() -> None:
    rows = [(row[0] + (index % 2) * 14_000_000, *row[1:]) for index, row in enumerate(rows_of())]
    assert jitter(rows) == 14


def test_outages_keys_and_other_sources_are_no_jitter() -> None:
    rows = rows_of()
    late = [(row[0] + 5 * SECOND_NS, *row[1:]) if index >= 50 else row for index, row in enumerate(rows)]
    assert jitter(late) == 0
    keys = [(*row[:2], 77, row[3], 101, b"\1\0\0\0") if index % 10 == 5 else row for index, row in enumerate(rows)]
    assert jitter(keys) == 0
    others = [(*row[:3], 5 + index // 50, *row[4:]) for index, row in enumerate(rows)]
    assert jitter(others) == 0


def test_too_little_to_tell() -> None:
    assert jitter([]) is None
    assert jitter(rows_of()[:1]) is None
    assert jitter(rows_of(), tick_ns=0.0) is None


def quality(**facts: object) -> Event:
    return Event(7, 1, "quality", json.dumps(facts))


def test_the_last_report_counts() -> None:
    events = [quality(peer_lost=1, round_trip_ms=30), Event(7, 1, "digit", "5"), quality(peer_lost=2)]
    assert told(events) == Told(2, None)
    assert told([]) == Told()


@pytest.mark.parametrize("detail", ["", "[]", "7", "[" * 100_000, '{"peer_lost": "1", "round_trip_ms": true}'])
def test_what_makes_no_sense_says_nothing(detail: str) -> None:
    assert told([Event(7, 1, "quality", detail)]) == Told()


def test_figures_out_of_all_bounds_say_nothing() -> None:
    assert told([quality(peer_lost=-1, round_trip_ms=10**9)]) == Told()


def test_a_message_tells_how_good_the_line_was() -> None:
    call = HeldCall((1, 7), False, events=[quality(peer_lost=0, round_trip_ms=42)])
    message = wrap(call, an_envelope(Codec.PCMU), a_batch(rows_of()), detect=lambda *_: [(0, 1)]).message
    assert (message.jitter_ms, message.peer_lost, message.round_trip_ms) == (0, 0, 42)
