"""RTCP: any bytes are read without raising, any report of ours comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aftertone.rtp.rtcp import Compound, ReportBlock, goodbye, parse, receiver_report

WORD = st.integers(0, 2**32 - 1)
BLOCKS = st.lists(
    st.builds(ReportBlock, WORD, st.integers(0, 255), st.integers(-(2**23), 2**23 - 1), WORD, WORD, WORD, WORD),
    max_size=31,
)
NAMES = st.text(min_size=1, max_size=60)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"\x81\xc8\x00\x06" + tail))
def test_any_bytes_are_read(data: bytes) -> None:
    compound = parse(data)
    assert len(compound.blocks) <= len(data) // 24
    assert len(compound.goodbyes) <= len(data) // 4


@given(WORD, NAMES, BLOCKS)
def test_reports_come_back(ssrc: int, cname: str, blocks: list[ReportBlock]) -> None:
    assert parse(receiver_report(ssrc, cname, blocks)) == Compound(blocks=tuple(blocks))
    assert parse(goodbye(ssrc, cname, blocks)) == Compound(blocks=tuple(blocks), goodbyes=(ssrc,))
