"""Crypto lines: whatever a peer writes raises nothing, and no key survives the blanking of a text."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from aftertone.model import MasterKey, Suite
from aftertone.sdp.crypto import CryptoLine, parse_line, serialize_line
from aftertone.sip.trace import blanked

PIECES = st.sampled_from(
    [
        *list(Suite),
        "1",
        "inline:",
        "INLINE:",
        "|",
        ":",
        ";",
        "2^",
        "2^20",
        " ",
        "\t",
        "KDR=",
        "WSH=64",
        "-",
        "=",
        "A" * 40,
    ]
)


@st.composite
def lines(draw: st.DrawFn) -> CryptoLine:
    suite = draw(st.sampled_from(list(Suite)))
    key = draw(st.binary(min_size=suite.key_bytes, max_size=suite.key_bytes))
    salt = draw(st.binary(min_size=suite.salt_bytes, max_size=suite.salt_bytes))
    return CryptoLine(draw(st.integers(0, 999_999_999)), MasterKey(suite, key, salt, draw(st.binary(max_size=128))))


@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=20).map("".join)))
def test_nothing_raises_and_what_is_read_can_be_blanked(value: str) -> None:
    line = parse_line(value)
    if line is not None:
        secret = base64.b64encode(line.master.key + line.master.salt).rstrip(b"=")
        assert secret not in blanked(value.encode())


@given(lines())
def test_a_line_comes_back(line: CryptoLine) -> None:
    name, value = serialize_line(line)
    assert name == "crypto"
    assert parse_line(value) == line
    assert parse_line(blanked(value.encode()).decode()) is None
