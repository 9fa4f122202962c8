"""``aftertone sip trace``: ladders, filters, and a file that begins anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aftertone.cli import trace
from aftertone.cli.trace import Filter, Ladders, Tail, network_of, rung
from aftertone.errors import UsageError
from aftertone.roles.folder import Folder, write_status
from aftertone.sip.trace import CallTrace, Recorder, Traced, message_to_json, pack_trace
from aftertone.store.blobs import SIGNALLING_SUFFIX, DirectoryBlobs, message_key
from tests.support.captures import read_pcap
from tests.unit.cli.shell import Shell, some_messages
from tests.unit.sip.kit import FLOW, MS, request

NEWEST = some_messages()[-1]
RINGING = b"SIP/2.0 180 Ringing\r\nCall-ID: call-1@peer\r\nCSeq: 1 INVITE\r\n\r\n"


def passing(*steps: tuple[bytes, bool]) -> list[dict[str, Any]]:
    """Return lines of the file, 20 ms apart; ``True``: sent by us."""
    recorder = Recorder()
    lines: list[dict[str, Any]] = []

    def heard(call: CallTrace, message: Traced) -> None:
        lines.append(
            {"call_id": call.call_id, "is_call": call.is_call, **message_to_json(message, 1_700_000_000_000_000)}
        )

    recorder.watcher = heard
    for number, (data, is_sent) in enumerate(steps):
        (recorder.sent if is_sent else recorder.received)(data, FLOW, 20 * MS * number)
    return lines


def shown(lines: list[dict[str, Any]], **chosen: Any) -> list[str]:
    ladders = Ladders(Filter(**chosen), 60)
    return [text for line in lines for text in ladders.take(line)]


def test_a_ladder_of_one_call() -> None:
    text = shown(passing((request(), False), (RINGING, True)))
    assert text[0] == ""
    assert text[1].startswith("#1 ")
    assert text[1].endswith("  UDP 192.0.2.7:5062  call-1@peer")
    assert text[2:] == [
        "       0 ms |---------- INVITE sip:box@192.0.2.1 ---------->",
        "      20 ms <------------ 180 Ringing (INVITE) ------------|",
    ]


def test_calls_that_interleave_go_on_under_their_names() -> None:
    other = request(call_id="call-2")
    text = shown(passing((request(), False), (other, False), (RINGING, True)))
    heads = [line.split("  ")[0] for line in text if line.startswith("#")]
    assert heads[0].startswith("#1 ")
    assert heads[1].startswith("#2 ")
    assert heads[2] == "#1 goes on"
    assert text[-1].startswith("      40 ms <")


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({}, 1),
        ({"everything": True}, 2),
        ({"number": "ANN"}, 1),
        ({"number": "box@"}, 1),
        ({"number": "v=0"}, 0),
        ({"number": "70"}, 0),
        ({"network": network_of("192.0.2.7")}, 1),
        ({"network": network_of("192.0.2.0/24")}, 1),
        ({"network": network_of("2001:db8::/32")}, 0),
    ],
)
def test_filters_choose_calls(chosen: dict[str, Any], count: int) -> None:
    lines = passing((request(), False), (request("OPTIONS", call_id="ping"), False), (RINGING, True))
    assert sum(line.startswith("#") and "goes on" not in line for line in shown(lines, **chosen)) == count
    ladders = Ladders(Filter(**chosen))
    assert sum(ladders.shows(line) for line in lines) == {0: 0, 1: 2, 2: 3}[count]


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="neither an address nor a network"):
        network_of("phone.example.net")
    assert network_of("") is None


def test_what_passed_too_quickly_is_said() -> None:
    assert shown([{"missed": 12}]) == ["(12 messages passed too quickly to be shown)"]


def test_what_a_peer_wrote_cannot_steer_the_terminal() -> None:
    evil = request(uri="sip:\x1b[2J\x9b@x", call_id="a\x1b]0;b")
    assert all(char.isprintable() for line in shown(passing((evil, False))) for char in line)
    assert rung("\x1b[2J", 5, 20, sent=True).isprintable()


def test_calls_without_end_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MAX_CALLS", 3)
    ladders = Ladders(Filter())
    for number in range(10):
        (line,) = passing((request(call_id=f"c{number}"), False))
        list(ladders.take(line))
    assert len(ladders._calls) <= 3


def test_a_tail_reads_whole_lines_and_notices_a_file_that_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tail = Tail(path)
    assert tail.lines() == []
    path.write_bytes(b"one\ntw")
    assert tail.lines() == [b"one"]
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert tail.lines() == [b"two", b"three"]
    path.write_bytes(b"four\n")
    assert tail.lines() == [b"four"]
    path.unlink()
    assert tail.lines() == []
    path.write_bytes(b"five\n")
    assert tail.lines() == [b"five"]


def test_live_it_holds_the_lease_shows_what_comes_and_leaves_nothing_behind(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(shell.data)
    write_status(folder, "line", {})
    steps = iter(passing((request(), False), (RINGING, True)))
    leases = []

    def sleep(_: float) -> None:
        leases.append((folder.run / "trace.json").exists())
        line = next(steps, None)
        if line is None:
            raise KeyboardInterrupt
        with (folder.run / "trace.jsonl").open("a") as file:
            file.write("cut off}\n" + json.dumps(line) + "\n")

    monkeypatch.setattr("aftertone.cli.trace.time.sleep", sleep)
    done = shell("sip", "trace")
    assert done.status == 0
    assert [line.split(" ms ")[1][0] for line in done.out.splitlines() if " ms " in line] == ["|", "<"]
    assert leases == [True] * 3
    assert not (folder.run / "trace.json").exists()


def test_live_as_json(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(shell.data)
    write_status(folder, "line", {})
    lines = passing((request(), False), (request("OPTIONS", call_id="ping"), False))
    (folder.run / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aftertone.cli.trace.time.sleep", sleep)
    assert [json.loads(line)["call_id"] for line in shell("sip", "trace", "--json").out.splitlines()] == ["call-1@peer"]


def test_without_a_line_it_says_so(shell: Shell) -> None:
    assert "no line runs" in shell.fails("sip", "trace")
    assert "of one message" in shell.fails("sip", "trace", "--pcap", "x.pcap")


def keep(shell: Shell) -> None:
    recorder = Recorder()
    recorder.received(request(), FLOW, 0)
    recorder.keep("call-1@peer")
    recorder.sent(RINGING, FLOW, 30 * MS)
    call = recorder.take("call-1@peer")
    assert call is not None
    call.left_out = 2
    document = pack_trace(call, now_ns=30 * MS, unix_ms=1_700_000_000_030)
    DirectoryBlobs(shell.data / "blobs").put(message_key(NEWEST.id, SIGNALLING_SUFFIX), document)


def test_the_call_of_a_message(shell: Shell) -> None:
    keep(shell)
    first, *rungs, last = shell("sip", "trace", str(NEWEST.id)).out.splitlines()
    assert first == "UDP 192.0.2.7:5062  call-1@peer"
    assert [line.split()[0] for line in rungs] == ["0", "30"]
    assert last == "(2 messages in the middle were not kept)"
    assert shell("sip", "trace", "--json", str(NEWEST.id)).json()["left_out"] == 2


def test_a_capture_file_of_a_message(shell: Shell, tmp_path: Path) -> None:
    keep(shell)
    file = tmp_path / "call.pcap"
    assert shell("sip", "trace", "last", "--pcap", file).out == f"{file}: {file.stat().st_size} bytes\n"
    assert [packet.data for packet in read_pcap(file.read_bytes())] == [request(), RINGING]
    assert shell("sip", "trace", "last", "--pcap", file, "--json").json()["bytes"] == file.stat().st_size
    assert "cannot write" in shell.fails("sip", "trace", "last", "--pcap", tmp_path / "no" / "file")


def test_a_message_without_it(shell: Shell) -> None:
    assert "no signalling was kept" in shell.fails("sip", "trace", str(some_messages()[0].id))
