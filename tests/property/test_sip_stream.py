"""Properties of the splitter: however a connection is cut into reads, the same messages come out of it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from aftertone.sip.stream import StreamSplitter
from tests.unit.sip.kit import request

MESSAGES = [request(branch="z9hG4bK1"), request("OPTIONS", branch="z9hG4bK2"), request("BYE", body=b"\r\n\r\nINVITE")]
PIECES = st.lists(st.one_of(st.sampled_from(MESSAGES), st.sampled_from([b"\r\n\r\n", b"\r\n"])), max_size=8)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 3000), max_size=12), awaited=st.sets(st.integers(0, 12)))
def test_reads_and_keepalives_change_no_message(pieces: list[bytes], cuts: list[int], awaited: set[int]) -> None:
    whole = b"".join(pieces)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    splitter, found = StreamSplitter(), []
    for number, (begin, end) in enumerate(itertools.pairwise(places)):
        splitter.awaits_pong = splitter.awaits_pong or number in awaited
        found += splitter.feed(whole[begin:end])
    assert found == [piece for piece in pieces if len(piece) > 4]
    assert splitter.failed == ""
    assert splitter.pending == 0


@given(reads=st.lists(st.binary(max_size=200), max_size=10), awaits=st.booleans())
def test_any_bytes_end_in_messages_or_a_failure(reads: list[bytes], awaits: bool) -> None:
    splitter = StreamSplitter()
    splitter.awaits_pong = awaits
    out = sum(len(message) for data in reads for message in splitter.feed(data))
    assert out + splitter.pending <= sum(map(len, reads))
