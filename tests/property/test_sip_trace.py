"""Traces of hostile bytes: nothing raises, nothing secret is shown, nothing grows."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from aftertone.sip.pcap import pack_pcap
from aftertone.sip.trace import Recorder, blanked, call_id_of, label_of, pack_trace, unpack_trace
from tests.unit.sip.kit import FLOW, request

SECRET = "hunter2deadbeef"
names = st.sampled_from(
    ["Authorization", "authorization", "Proxy-Authorization", "PROXY-AUTHORIZATION", "Authentication-Info"]
)
blanks = st.sampled_from(["", " ", "\t", " \t ", "\r\n "])
noise = st.text(string.ascii_letters + string.digits + ' ,="/;:@.<>\\', max_size=40).filter(
    lambda text: SECRET not in text
)
pieces = st.sampled_from(
    [
        b"\r\n",
        b"\r",
        b"\n",
        b":",
        b" ",
        b"sip:",
        b"@",
        b"Call-ID:",
        b"i:",
        b"Authorization",
        b"inline:",
        b"k=",
        b"SIP/2.0",
        b"a",
    ]
)


@given(st.lists(st.one_of(st.binary(max_size=20), pieces), max_size=60).map(b"".join))
def test_hostile_bytes_raise_nothing(data: bytes) -> None:
    call_id_of(data)
    label_of(data)
    clean = blanked(data)
    assert len(clean) == len(data)
    assert blanked(clean) == clean
    recorder = Recorder()
    recorder.received(b"INVITE a\r\nCall-ID: x\r\n" + data, FLOW, 1)
    recorder.sent(data, FLOW, 2)
    for trace in recorder.latest():
        found = unpack_trace(pack_trace(trace, now_ns=3, unix_ms=4))
        assert [message.data for message in found.messages] == [message.data for message in trace.messages]
        pack_pcap(found.messages)


@given(names, blanks, blanks, noise, noise, st.booleans())
def test_credentials_are_never_shown(
    name: str, before: str, after: str, left: str, right: str, is_folded: bool
) -> None:
    fold = "\r\n " if is_folded else ""
    line = f"{name}{before}:{after}Digest {left}{fold}{SECRET}{right}"
    assert SECRET.encode() not in blanked(request("REGISTER", extra=line + "\r\nX: y"))


@given(noise, st.sampled_from(["inline:", "INLINE:"]), st.sampled_from(["", "|2^20", ";inline:" + SECRET, " "]))
def test_keys_are_never_shown(left: str, word: str, right: str) -> None:
    body = f"v=0\r\na=crypto:1 {left} {word}{SECRET}{right}\r\nk=prompt:{SECRET}\r\n".encode()
    assert SECRET.encode() not in blanked(request(body=body))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3000), st.booleans()), max_size=400))
def test_however_much_is_said_the_bounds_hold(steps: list[tuple[int, int, bool]]) -> None:
    recorder = Recorder(bytes_a_call=8192)
    for at_ns, (number, size, is_kept) in enumerate(steps):
        method = "OPTIONS" if number % 3 else "INVITE"
        recorder.received(request(method, call_id=f"c{number}", body=b"x" * size, content_type="a/b"), FLOW, at_ns)
        if is_kept:
            recorder.keep(f"c{number}")
            recorder.take(f"c{number}")
    traces = recorder.latest()
    assert len(traces) <= 150
    assert all(sum(len(message.data) for message in trace.messages) <= 8192 for trace in traces)
