"""aftertone.sip.trace: what is kept of each call, and what is not."""

from __future__ import annotations

import pytest

from aftertone.errors import DamagedError
from aftertone.sip.flow import Flow
from aftertone.sip.trace import (
    BYTES_IN_RING,
    CALLS_IN_RING,
    LONGEST_LABEL,
    LONGEST_NAME,
    MAX_SECRETS,
    OTHERS_IN_RING,
    CallTrace,
    Recorder,
    Traced,
    blanked,
    call_id_of,
    label_of,
    pack_trace,
    unpack_trace,
)
from tests.unit.sip.kit import FLOW, MS, request

RINGING = b"SIP/2.0 180 Ringing\r\nCall-ID: call-1@peer\r\nCSeq: 1 INVITE\r\n\r\n"


def kept(recorder: Recorder, call_id: str = "call-1@peer") -> CallTrace:
    recorder.keep(call_id)
    found = recorder.take(call_id)
    assert found is not None
    return found


def test_what_passes_is_kept_in_order_with_time_and_direction() -> None:
    recorder = Recorder()
    recorder.received(request(), FLOW, 5)
    recorder.sent(RINGING, FLOW, 6)
    trace = kept(recorder)
    assert (trace.call_id, trace.began_ns, trace.is_call, trace.left_out) == ("call-1@peer", 5, True, 0)
    assert trace.messages == [
        Traced(5, False, "UDP", FLOW.local, FLOW.remote, request()),
        Traced(6, True, "UDP", FLOW.local, FLOW.remote, RINGING),
    ]
    assert [message.label for message in trace.messages] == ["INVITE sip:box@192.0.2.1", "180 Ringing (INVITE)"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b'Authorization: Digest username="ann", response="5ec2e7"', b"Authorization: Digest *********"),
        (b"authorization:5ec2e7", b"authorization:******"),
        (b"Proxy-Authorization : Basic YW5u5ec2e7", b"Proxy-Authorization : Basic **********"),
        (b"Authorization: 5ec2e7 5ec2e7", b"Authorization: ****** ******"),
        (b'Authorization: Digest\r\n response="5ec2e7"\r\n\t,5ec2e7', b"Authorization: Digest\r\n ****"),
        (b"Authorization\r\n : 5ec2e7", b"Authorization\r\n : ******"),
        (b'Authentication-Info: rspauth="5ec2e7"', b"Authentication-Info: ****"),
        (b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:5ec2e7|2^20|1:4", b"inline:******|2^20|1:4"),
        (b"a=crypto:1 F INLINE:5ec2e7;inline:5ec2e7", b"INLINE:******;inline:******"),
        (b"k=clear:5ec2e7", b"k=************"),
        (b"a=key-mgmt:mikey 5ec2e7+/=", b"mikey *********"),
        (b"To: <sips:ann:5ec2e7@example.net>", b"<sips:ann:******@example.net>"),
        (b"Contact: <sip:ann@192.0.2.1;line=00000000005ec2e7>", b"<sip:ann@192.0.2.1;line=****************>"),
    ],
)
def test_secrets_are_blank_and_everything_else_is_as_it_was(line: bytes, shown: bytes) -> None:
    data = b"INVITE sip:a SIP/2.0\r\nCall-ID: x\r\n" + line + b"\r\nSubject: tea\r\n\r\nbody"
    clean = blanked(data)
    assert b"5ec2e7" not in clean
    assert shown in clean
    assert len(clean) == len(data)
    assert clean.endswith(b"\r\nSubject: tea\r\n\r\nbody")


def test_a_message_without_secrets_is_kept_as_it_is() -> None:
    assert blanked(request()) == request()


def test_a_message_full_of_secrets_is_unreadable_as_a_whole() -> None:
    clean = blanked(b"INVITE a\r\n" + b"k=5ec2e7\r\n" * (MAX_SECRETS + 1) + b"rest")
    assert clean.startswith(b"****** *\r\n")
    assert clean.endswith(b"****")
    assert b"5ec2e7" not in clean


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"INVITE a SIP/2.0\r\nCall-ID: one@two \r\n\r\n", "one@two"),
        (b"INVITE a SIP/2.0\r\ni:one\r\n\r\n", "one"),
        (b"INVITE a SIP/2.0\r\nCALL-ID\t: One\r\n\r\n", "One"),
        (b"INVITE a SIP/2.0\r\nX: y\r\n\r\nCall-ID: in the body\r\n", ""),
        (b"INVITE a SIP/2.0\r\nX-Call-ID: y\r\n\r\n", ""),
        (b"junk", ""),
        (b"", ""),
        (b"a\r\ni: " + b"x" * 999, "x" * LONGEST_NAME),
    ],
)
def test_to_which_call_a_message_belongs(data: bytes, name: str) -> None:
    assert call_id_of(data) == name


def test_what_belongs_to_no_call_is_not_kept() -> None:
    recorder = Recorder()
    recorder.received(b"junk", FLOW, 0)
    assert recorder.latest() == []


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b"BYE sip:a SIP/2.0\r\n", "BYE sip:a"),
        (b"\r\nSIP/2.0 486 Busy \xff\x1b[2J Here\r\nCSeq: 7 INVITE\r\n", "486 Busy \ufffd?[2J Here (INVITE)"),
        (b"SIP/2.0 200\r\n", "200"),
        (b"", ""),
        (b"x" * 999, "x" * LONGEST_LABEL),
    ],
)
def test_labels(data: bytes, label: str) -> None:
    assert label_of(data) == label


def test_of_a_long_call_the_beginning_and_the_end_are_kept() -> None:
    recorder = Recorder(bytes_a_call=10_000)
    recorder.received(request(), FLOW, 0)
    recorder.keep("call-1@peer")
    for number in range(1, 200):
        recorder.received(request("INFO", cseq=number, to_tag="t"), FLOW, number)
    trace = recorder.take("call-1@peer")
    assert trace is not None
    assert sum(len(message.data) for message in trace.messages) <= 10_000
    times = [message.at_ns for message in trace.messages]
    assert times[:3] == [0, 1, 2]
    assert times[-3:] == [197, 198, 199]
    assert trace.left_out == 200 - len(times)
    assert times == sorted(times)


def test_a_message_that_is_too_long_is_left_out_and_counted() -> None:
    recorder = Recorder()
    recorder.received(request(), FLOW, 0)
    recorder.received(request("INFO", body=b"x" * BYTES_IN_RING, to_tag="t"), FLOW, 1)
    recorder.received(request("BYE", to_tag="t"), FLOW, 2)
    trace = kept(recorder)
    assert [message.at_ns for message in trace.messages] == [0, 2]
    assert trace.left_out == 1


def test_a_flood_pushes_out_the_others_and_not_what_is_kept() -> None:
    recorder = Recorder()
    recorder.received(request(), FLOW, 0)
    recorder.keep("call-1@peer")
    recorder.received(request(call_id="forgotten"), FLOW, 0)
    for number in range(CALLS_IN_RING + OTHERS_IN_RING):
        recorder.received(request(call_id=f"flood-{number}"), FLOW, number + 1)
        recorder.received(request("OPTIONS", call_id=f"ping-{number}"), FLOW, number + 1)
    names = [trace.call_id for trace in recorder.latest()]
    assert len(names) == 1 + CALLS_IN_RING + OTHERS_IN_RING
    assert names[0] == "call-1@peer"
    assert "forgotten" not in names
    assert recorder.take("call-1@peer") is not None
    assert len(recorder.latest()) == CALLS_IN_RING + OTHERS_IN_RING
    assert recorder.take("call-1@peer") is None


def test_to_keep_a_call_that_nobody_heard_of_changes_nothing() -> None:
    recorder = Recorder()
    recorder.keep("nobody")
    assert recorder.take("nobody") is None


def test_who_watches_hears_everything_blanked() -> None:
    recorder = Recorder()
    heard: list[tuple[str, bytes]] = []
    recorder.received(request(), FLOW, 0)
    recorder.watcher = lambda trace, message: heard.append((trace.call_id, message.data))
    recorder.sent(RINGING, FLOW, 1)
    recorder.received(request("REGISTER", call_id="r", extra="Authorization: Digest x"), FLOW, 2)
    assert [name for name, _ in heard] == ["call-1@peer", "r"]
    assert b"Authorization: Digest *\r\n" in heard[1][1]


def test_what_is_stored_is_read_back_byte_for_byte() -> None:
    recorder = Recorder()
    odd = request(call_id="w\u00fcrze").replace(b"Ann", bytes(range(14, 256)).replace(b'"', b""))
    v6 = Flow("TLS", ("fe80::1%eth0", 5061), ("2001:db8::2", 5061))
    recorder.received(odd, FLOW, 1_000 * MS)
    recorder.sent(RINGING.replace(b"call-1@peer", "w\u00fcrze".encode()), v6, 1_250 * MS)
    document = pack_trace(kept(recorder, "w\u00fcrze"), now_ns=2_000 * MS, unix_ms=1_700_000_002_000)
    found = unpack_trace(document)
    assert (found.call_id, found.left_out) == ("w\u00fcrze", 0)
    first, second = found.messages
    assert (first.data, first.at_ns, first.sent) == (odd, 1_700_000_001_000 * MS, False)
    assert (second.at_ns, second.sent, second.transport) == (1_700_000_001_250 * MS, True, "TLS")
    assert (second.remote, second.local) == (v6.remote, v6.local)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"call_id":1,"left_out":0,"messages":[{}]}', b"\xff", b"[" * 9999]
)
def test_a_document_that_is_none_is_refused(document: bytes) -> None:
    with pytest.raises(DamagedError):
        unpack_trace(document)
