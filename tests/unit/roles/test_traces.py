"""aftertone.roles.traces: what is journalled of a call, and how a watcher is served."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from aftertone.config import Trace
from aftertone.errors import StorageFullError
from aftertone.journal.record import Kind, Signalling
from aftertone.model import mint_id
from aftertone.roles import traces
from aftertone.roles.clock import LineClock
from aftertone.roles.folder import Folder, write_status
from aftertone.roles.notes import Notes
from aftertone.roles.traces import FILE_BYTES, FLUSH_BYTES, FLUSH_S, WATCHER, Traces, Watch
from aftertone.sip import events as sip
from aftertone.sip.trace import Recorder, unpack_trace
from tests.support.clerk import AtOnce
from tests.unit.roles.world import Notebook, VirtualLoop, World
from tests.unit.sip.kit import FLOW, MS, request

OK = b"SIP/2.0 200 OK\r\nCall-ID: call-1@peer\r\nCSeq: 2 BYE\r\n\r\n"
MESSAGE = mint_id(1_700_000_000_000, bytes(10))


def noted(settings: Trace) -> list[Signalling]:
    """Return what is journalled of a call that rang, was answered and ended."""
    logger = structlog.wrap_logger(None, processors=[structlog.testing.LogCapture()])
    clock = LineClock(logger)
    journal = Notebook([], lambda: 0.0)
    recorder = Recorder()
    subject = Traces(settings, recorder, clock)
    recorder.received(request(), FLOW, 1 * MS)
    subject.keep("call-1@peer")
    recorder.sent(OK, FLOW, 2 * MS)
    if subject.keeps("call-1@peer"):
        subject.write(Notes(journal, random.Random(1).randbytes, logger, clock), MESSAGE, 7, "call-1@peer")
    subject.write(Notes(journal, random.Random(1).randbytes, logger, clock), MESSAGE, 7, "call-1@peer")
    assert [trace.call_id for trace in recorder.latest()] == ["call-1@peer"]
    return [Signalling.unpack(payload) for payload in journal.payloads(Kind.SIGNALLING)]


def test_a_finished_call_is_journalled_once() -> None:
    (record,) = noted(Trace())
    assert (record.message_id, record.call) == (MESSAGE, 7)
    found = unpack_trace(record.document)
    assert [message.data for message in found.messages] == [request(), OK]
    assert found.messages[1].at_ns - found.messages[0].at_ns == 1 * MS


def test_nothing_is_journalled_when_the_owner_does_not_want_it() -> None:
    assert noted(Trace(keep=False)) == []


def test_the_switchboard_keeps_a_call_from_its_ring_and_writes_when_all_is_said() -> None:
    world = World()
    recorder = world.board.traces.recorder
    for number in range(10):
        recorder.received(request(call_id=f"call-{number}@peer"), FLOW, number)
    caller, _ = world.recording()
    assert recorder.keeps(caller.dialog.call_id)
    caller.hang_up()
    world.sync()
    assert world.journal.story[-2:] == ["answer 200", "journal SIGNALLING"]
    (payload,) = world.journal.payloads(Kind.SIGNALLING)
    assert Signalling.unpack(payload).message_id == world.journal.begins[0].message_id
    assert not recorder.keeps(caller.dialog.call_id)


def test_a_disk_that_takes_no_new_calls_is_not_asked_to_take_signalling() -> None:
    world = World()
    recorder = world.board.traces.recorder
    for number in range(10):
        recorder.received(request(call_id=f"call-{number}@peer"), FLOW, number)
    caller, _ = world.recording()
    world.blocked = StorageFullError("no room")
    caller.hang_up()
    world.sync()
    world.loop.advance(1)
    assert world.journal.story[-1] == "answer 200"
    assert not world.journal.payloads(Kind.SIGNALLING)
    assert not recorder.keeps(caller.dialog.call_id)


def test_a_call_that_was_given_up_is_not_kept_any_more() -> None:
    world = World()
    recorder = world.board.traces.recorder
    for number in range(10):
        recorder.received(request(call_id=f"call-{number}@peer"), FLOW, number)
    caller = world.invite()
    assert recorder.keeps(caller.dialog.call_id)
    world.tell(sip.CallCancelled(caller.transaction))
    assert not recorder.keeps(caller.dialog.call_id)
    world.loop.advance(100)
    assert not world.journal.payloads(Kind.SIGNALLING)


class Watched:
    """A watch whose time a test holds in its hands."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.somebody = False
        self.folder = Folder(folder)
        self.folder.make()
        self.loop = VirtualLoop()
        self.recorder = Recorder()
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self.loop.face)
        monkeypatch.setattr(traces, "read_status", lambda _folder, _name: {} if self.somebody else None)
        self.file = self.folder.run / "trace.jsonl"
        self.file.write_text("left behind by a line that died\n")
        self.watch = Watch(self.folder, self.recorder, clerk=AtOnce(), unix_us=lambda: 1_700_000_000_000_000)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def look(self, somebody: bool) -> None:
        self.somebody = somebody
        self.watch.look()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def test_nothing_is_written_while_nobody_watches(watched: Watched) -> None:
    watched.look(somebody=False)
    watched.recorder.received(request(), FLOW, 0)
    watched.loop.advance(10)
    assert not watched.file.exists()
    assert watched.loop.pending() == 0
    assert watched.recorder.watcher is None


def test_a_watcher_sees_the_last_calls_and_then_what_passes(watched: Watched) -> None:
    watched.recorder.received(request(), FLOW, 2)
    watched.recorder.received(request("OPTIONS", call_id="ping"), FLOW, 1)
    watched.look(somebody=True)
    assert [(line["call_id"], line["is_call"]) for line in watched.lines()] == [("ping", False), ("call-1@peer", True)]
    assert watched.file.stat().st_mode & 0o777 == 0o600
    watched.recorder.sent(OK, FLOW, 3)
    watched.look(somebody=True)
    watched.loop.advance(FLUSH_S)
    assert [line["sent"] for line in watched.lines()] == [False, False, True]
    watched.look(somebody=False)
    assert not watched.file.exists()
    assert not watched.watch.is_on
    watched.loop.advance(10)
    assert watched.loop.pending() == 0


def test_what_is_too_much_is_counted_and_not_shown(watched: Watched) -> None:
    watched.look(somebody=True)
    for number in range(1000):
        watched.recorder.received(request(call_id=f"c{number}"), FLOW, number)
    watched.loop.advance(FLUSH_S)
    *lines, last = watched.lines()
    assert watched.file.stat().st_size < FLUSH_BYTES + 5000
    assert last == {"missed": 1000 - len(lines)}


def test_the_file_begins_anew_and_never_grows_beyond_its_bound(watched: Watched) -> None:
    watched.look(somebody=True)
    sizes = []
    for number in range(40):
        for _ in range(250):
            watched.recorder.received(request(call_id=f"c{number}"), FLOW, number)
        watched.loop.advance(FLUSH_S)
        sizes.append(watched.file.stat().st_size)
    assert max(sizes) <= FILE_BYTES
    assert sizes != sorted(sizes)


def test_a_disk_that_takes_nothing_costs_the_watcher_only(watched: Watched) -> None:
    watched.look(somebody=True)
    watched.folder.run.joinpath("trace.jsonl").unlink(missing_ok=True)
    watched.folder.run.rmdir()
    watched.recorder.received(request(), FLOW, 0)
    watched.loop.advance(1)
    watched.folder.run.mkdir()
    watched.recorder.received(request(), FLOW, 0)
    watched.loop.advance(1)
    assert len(watched.lines()) == 1


def test_a_call_id_that_is_not_utf_8_is_shown_all_the_same(watched: Watched) -> None:
    watched.recorder.received(request().replace(b"call-1@peer", b"call-\xff@peer"), FLOW, 0)
    watched.look(somebody=True)
    assert watched.lines()[0]["call_id"] == "call-\ufffd@peer"


def test_the_lease_is_a_status_file_as_any_other(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()

    async def look(write: Callable[[], None]) -> bool:
        watch = Watch(folder, Recorder(), clerk=AtOnce())
        write()
        watch.look()
        is_on = watch.is_on
        watch.end()
        return is_on

    assert asyncio.run(look(lambda: None)) is False
    assert asyncio.run(look(lambda: write_status(folder, WATCHER, {}))) is True
