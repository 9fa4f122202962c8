"""Reports of many calls as rows of bytes: read by the strict reader of the tests, and by our own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aftertone.rtp.compounds import LONGEST_BYTES, Figures, write_compounds
from aftertone.rtp.rtcp import Compound, ReportBlock, SenderReport, parse
from tests.support.rtcp import read

WORD = st.integers(0, 2**32 - 1)
CALL = st.fixed_dictionaries(
    {
        "ssrc": WORD,
        "sends": st.booleans(),
        "ntp": st.integers(0, 2**64 - 1),
        "timestamp": st.integers(0, 2**33),
        "packets": st.integers(0, 2**40),
        "octets": st.integers(0, 2**40),
        "hears": st.booleans(),
        "block": st.tuples(WORD, st.integers(0, 255), st.integers(-(2**30), 2**30), WORD, WORD),
        "last_report": WORD,
        "delay": WORD,
    }
)
NAME = "abcdefghijklmn+/"


@given(st.lists(CALL, min_size=1, max_size=9))
def test_each_row_says_what_its_call_has_to_say(calls: list[dict[str, object]]) -> None:
    count = len(calls)
    columns = {name: [call[name] for call in calls] for name in calls[0]}
    figures = Figures(
        ssrc=np.array(columns["ssrc"], np.int64),
        cname=np.tile(np.frombuffer(NAME.encode(), np.uint8), (count, 1)),
        sends=np.array(columns["sends"], np.bool_),
        ntp=np.array(columns["ntp"], np.uint64),
        timestamp=np.array(columns["timestamp"], np.int64),
        packets=np.array(columns["packets"], np.int64),
        octets=np.array(columns["octets"], np.int64),
        hears=np.array(columns["hears"], np.bool_),
        blocks=np.array(columns["block"], np.int64),
        last_report=np.array(columns["last_report"], np.int64),
        delay=np.array(columns["delay"], np.int64),
    )
    rows, lengths = write_compounds(figures)
    assert rows.shape == (count, LONGEST_BYTES)
    for row in range(count):
        data = rows[row, : lengths[row]].tobytes()
        strict = read(data)
        assert (strict.kind, strict.cname) == ("SR" if figures.sends[row] else "RR", NAME)
        assert strict.ssrc == figures.ssrc[row]
        sender = SenderReport(
            int(figures.ssrc[row]),
            int(figures.ntp[row]),
            int(figures.timestamp[row]) % 2**32,
            int(figures.packets[row]) % 2**32,
            int(figures.octets[row]) % 2**32,
        )
        source, fraction, lost, highest, jitter = figures.blocks[row].tolist()
        lost = min(max(lost, -(2**23)), 2**23 - 1)
        report = (source, fraction, lost, highest, jitter, int(figures.last_report[row]), int(figures.delay[row]))
        assert parse(data) == Compound(
            (sender,) if figures.sends[row] else (), (ReportBlock(*report),) if figures.hears[row] else ()
        )
