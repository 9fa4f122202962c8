"""A switchboard whose surroundings a test holds in its hands: the disk, the phones, the sound and the time.

Owns: stand-ins for journal, media plane, clips, endpoint and event loop, and the one story in which all of them write what
was done to them. Refuses to know: what is right.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import random
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import structlog

from aftertone.config import Settings
from aftertone.errors import AftertoneError, BusyError
from aftertone.journal.record import Begin, End, Event, Kind, Refused
from aftertone.media.plane import MediaEvent
from aftertone.media.reports import LineQuality
from aftertone.media.table import Stream
from aftertone.media.unopened import Unopened
from aftertone.model import Codec, Mailbox
from aftertone.roles.clips import Track
from aftertone.roles.durability import Durability
from aftertone.roles.switchboard import Switchboard
from aftertone.sip import events as sip
from aftertone.sip.message import Request, Response, parse
from aftertone.voicemail.directory import Directory
from tests.unit.sip.kit import FLOW, SDP, agent, request

FRAMES = 50
"""Every clip here takes a second."""
OTHER_SDP = SDP.replace(b"4000 RTP/AVP 0", b"4100 RTP/AVP 8")
HOLD_SDP = SDP + b"a=sendonly\r\n"
UNKNOWN_CODEC_SDP = SDP.replace(b"RTP/AVP 0", b"RTP/AVP 18")
BROKEN_SDP = b"v=0\r\nthis is no description\r\n"


class VirtualLoop:
    """As much of an event loop as callbacks need; time passes when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._queue: list[tuple[float, int, asyncio.Handle]] = []
        self._count = itertools.count()

    @property
    def face(self) -> asyncio.AbstractEventLoop:
        """Itself, as those see it who ask for an event loop."""
        return cast(asyncio.AbstractEventLoop, self)

    def time(self) -> float:
        return self.now_s

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context["message"]) from context.get("exception")

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self.face, context)
        heapq.heappush(self._queue, (when, next(self._count), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now_s, callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_soon(callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Forget nothing: cancelled handles are passed over when their time comes."""

    def pending(self) -> int:
        """How many callbacks wait for their time."""
        return sum(not handle.cancelled() for _, _, handle in self._queue)

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass, and run what is due in order."""
        end_s = self.now_s + seconds
        while self._queue and self._queue[0][0] <= end_s:
            when, _, handle = heapq.heappop(self._queue)
            self.now_s = max(self.now_s, when)
            if not handle.cancelled():
                handle._run()
        self.now_s = end_s


@dataclass
class Notebook:
    """A journal that keeps what it is given and is durable as far as the test says."""

    story: list[str]
    clock_s: Callable[[], float]
    entries: list[tuple[Kind, bytes]] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    """When each entry came."""
    not_taken: list[tuple[Kind, bytes]] = field(default_factory=list)
    durable: int = 0
    full: bool = False
    at_once: bool = False
    notify: Callable[[int], None] = lambda _: None

    def append(self, kind: Kind, payload: bytes, *, arrival_ns: int | None = None, urgent: bool = False) -> int:
        if self.full:
            self.not_taken.append((kind, payload))
            raise BusyError("the journal is full")
        assert urgent == (kind in (Kind.BEGIN, Kind.END)), "what a caller waits for is urgent, nothing else is"
        self.entries.append((kind, payload))
        self.at_s.append(self.clock_s())
        self.story.append(f"journal {kind.name}")
        if self.at_once:
            self.sync()
        return len(self.entries)

    def sync(self, behind: int = 0) -> None:
        """Make everything durable but the last ``behind`` records."""
        self.durable = max(self.durable, len(self.entries) - behind)
        self.notify(self.durable)

    def payloads(self, kind: Kind) -> list[bytes]:
        return [payload for found, payload in self.entries if found is kind]

    @property
    def begins(self) -> list[Begin]:
        return [Begin.unpack(payload) for payload in self.payloads(Kind.BEGIN)]

    @property
    def ends(self) -> list[End]:
        return [End.unpack(payload) for payload in self.payloads(Kind.END)]

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(e.name, e.detail) for e in map(Event.unpack, self.payloads(Kind.EVENT))]

    @property
    def refusals(self) -> list[Refused]:
        return [Refused.unpack(payload) for payload in self.payloads(Kind.REFUSED)]

    def number_of(self, kind: Kind, call: int) -> int | None:
        """Return the sequence number of a call's begin or end."""
        reader: Any = Begin if kind is Kind.BEGIN else End
        for number, (found, payload) in enumerate(self.entries, 1):
            if found is kind and reader.unpack(payload).call == call:
                return number
        return None


class Columns:
    """The columns of the real table that a switchboard reads."""

    def __init__(self, capacity: int) -> None:
        self.recording_since_ns = np.zeros(capacity, np.int64)
        self.playing = np.zeros(capacity, np.bool_)
        self.frame = np.zeros(capacity, np.int32)


class Sound:
    """A media plane without sound. It complains when a row is used that nobody leased."""

    def __init__(self, story: list[str], journal: Notebook, capacity: int) -> None:
        self.table = Columns(capacity)
        self.story, self.journal = story, journal
        self.free = list(range(capacity))
        self.leased: set[int] = set()
        self.streams: dict[int, list[Stream]] = {}
        self.plays: dict[int, tuple[bytes, ...]] = {}
        self.recording: dict[int, int] = {}
        self.held: dict[int, bool] = {}
        self.last_sound_ns = 0
        self.reported = LineQuality()
        self.not_opened = Unopened()

    def lease(self) -> tuple[int, int]:
        if not self.free:
            raise BusyError("no place")
        row = self.free.pop(0)
        self.leased.add(row)
        self.streams[row] = []
        self.recording.pop(row, None)
        return row, 20_000 + 2 * row

    def agree(self, row: int, stream: Stream) -> None:
        assert row in self.leased
        self.streams[row].append(stream)

    def play(self, row: int, frames: tuple[bytes, ...], frame_ms: int = 20) -> None:
        assert row in self.leased
        name = frames[0].split()[0].decode() if frames else "nothing"
        if name == "beep":
            self._must_be_durable(self.recording[row])
        self.plays[row] = frames
        self.table.playing[row], self.table.frame[row] = True, 0
        self.story.append(f"play {name}")

    def played_ms(self, row: int) -> int:
        return int(self.table.frame[row]) * 20

    def stop(self, row: int) -> None:
        assert row in self.leased
        self.table.playing[row] = False

    def hold(self, row: int, now_ns: int, *, is_held: bool) -> None:
        assert row in self.leased
        self.held[row] = is_held

    def record(self, row: int, journal_call: int, now_ns: int) -> None:
        assert row in self.leased
        self._must_be_durable(journal_call)
        self.recording[row] = journal_call
        self.table.recording_since_ns[row] = now_ns
        self.story.append("record")

    def finish(self, row: int, now_ns: int) -> int:
        assert row in self.leased
        self.story.append("last packet")
        return self.last_sound_ns

    def unopened(self, row: int) -> Unopened:
        assert row in self.leased
        return self.not_opened

    def quality(self, row: int) -> LineQuality:
        assert row in self.leased
        return self.reported

    def release(self, row: int) -> None:
        assert row in self.leased
        self.leased.remove(row)
        self.free.append(row)
        self.table.playing[row] = False

    def _must_be_durable(self, call: int) -> None:
        number = self.journal.number_of(Kind.BEGIN, call)
        assert number is not None
        assert self.journal.durable >= number


class Clips:
    """Every clip takes a second, and every frame of it says what it is."""

    def frames(self, clip: str, mailbox: str, codec: Codec) -> tuple[bytes, ...]:
        return tuple(f"{clip} {mailbox} {codec.value} {index}".encode() for index in range(FRAMES))

    def track(self, clip: str, mailbox: str, codec: Codec, ptime_ms: int) -> Track:
        return Track(self.frames(clip, mailbox, codec), ptime_ms)


class Switch:
    """An endpoint that carries nothing anywhere."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.answers: dict[sip.TransactionId, list[int]] = {}
        self.bodies: dict[sip.TransactionId, bytes] = {}
        self.headers: dict[sip.TransactionId, dict[str, str]] = {}
        self.byes: list[sip.DialogId] = []

    def respond(
        self,
        transaction_id: sip.TransactionId,
        status: int,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> None:
        assert (content_type == "application/sdp") == bool(body)
        self.answers.setdefault(transaction_id, []).append(status)
        self.bodies[transaction_id] = body
        self.headers[transaction_id] = dict(headers)
        self.story.append(f"answer {status}")

    def bye(self, dialog_id: sip.DialogId) -> None:
        self.byes.append(dialog_id)
        self.story.append("bye")


class AgentSwitch:
    """An endpoint with the real agent inside and phones outside; ``on_sent`` hears each message that leaves."""

    def __init__(self, loop: VirtualLoop, on_sent: Callable[[Request | Response], None]) -> None:
        self.agent = agent()
        self.on_event: Callable[[sip.Event], None] = lambda _: None
        self._loop, self._on_sent = loop, on_sent
        self._timer: asyncio.TimerHandle | None = None
        self._flushing = False

    @property
    def now_ns(self) -> int:
        return int(self._loop.now_s * 1e9)

    def respond(self, transaction_id: sip.TransactionId, status: int, **rest: Any) -> None:
        self.agent.respond(transaction_id, status, now_ns=self.now_ns, **rest)
        self._flush()

    def bye(self, dialog_id: sip.DialogId) -> None:
        self.agent.bye(dialog_id, self.now_ns)
        self._flush()

    def receive(self, data: bytes) -> None:
        """Take a datagram."""
        self.agent.receive(data, FLOW, self.now_ns)
        self._flush()

    def _wake(self) -> None:
        self.agent.advance(self.now_ns)
        self._flush()

    def _flush(self) -> None:
        if self._flushing:
            return
        self._flushing = True
        while outputs := self.agent.outputs():
            for output in outputs:
                if isinstance(output, sip.Transmit):
                    self._on_sent(parse(output.data))
                else:
                    self.on_event(output)
        self._flushing = False
        if self._timer is not None:
            self._timer.cancel()
        deadline_ns = self.agent.deadline_ns()
        # A microsecond late: a float of seconds must never be just before the deadline.
        self._timer = None if deadline_ns is None else self._loop.call_at((deadline_ns + 1000) / 1e9, self._wake)


@dataclass
class Caller:
    """One call as the fake endpoint knows it."""

    world: World
    transaction: sip.TransactionId
    dialog: sip.DialogId
    event: sip.IncomingCall

    @property
    def answers(self) -> list[int]:
        return self.world.switch.answers.get(self.transaction, [])

    def confirm(self, body: bytes = b"") -> None:
        self.world.tell(sip.CallConfirmed(self.dialog, body))

    def hang_up(self, extra: str = "") -> sip.TransactionId:
        """Say BYE; return the name under which its answer is found."""
        transaction = self.world.next_transaction()
        self.world.tell(sip.DialogEnded(self.dialog, transaction, message("BYE", to_tag="us", cseq=9, extra=extra)))
        return transaction

    def offer(self, body: bytes, method: str = "INVITE") -> sip.TransactionId:
        """Send a re-INVITE or UPDATE."""
        transaction = self.world.next_transaction()
        asked = message(method, to_tag="us", cseq=5, body=body)
        self.world.tell(sip.ReofferReceived(self.dialog, transaction, asked))
        return transaction

    def info(self, content_type: str, body: bytes) -> sip.TransactionId:
        """Send an INFO."""
        transaction = self.world.next_transaction()
        asked = message("INFO", to_tag="us", cseq=6, body=body, content_type=content_type)
        self.world.tell(sip.RequestInDialog(self.dialog, transaction, asked))
        return transaction


def message(method: str = "INVITE", **values: Any) -> Request:
    """Return a request as the agent hands it out."""
    found = parse(request(method, **values))
    assert isinstance(found, Request)
    return found


class World:
    """A switchboard and everything around it."""

    def __init__(
        self,
        *,
        capacity: int = 4,
        agent_inside: bool = False,
        early_media: bool = False,
        sip: dict[str, Any] | None = None,
        **calls: Any,
    ) -> None:
        self.loop = VirtualLoop()
        self.story: list[str] = []
        self.journal = Notebook(self.story, self.loop.time)
        self.sound = Sound(self.story, self.journal, capacity)
        self.switch = Switch(self.story)
        self.sent: list[Request | Response] = []
        self.agent_switch = AgentSwitch(self.loop, self.sent.append)
        self.blocked: AftertoneError | None = None
        self.log = structlog.testing.LogCapture()
        self._transactions = itertools.count(1)
        durability = Durability(self.loop.face)
        self.journal.notify = durability.notify
        endpoint = self.agent_switch if agent_inside else self.switch
        asyncio._set_running_loop(self.loop.face)
        try:
            self.board = Switchboard(
                Settings.model_validate({"calls": calls, "sip": {"early_media": early_media, **(sip or {})}}),
                cast(Any, endpoint),
                cast(Any, self.sound),
                cast(Any, Clips()),
                self.journal,
                durability,
                admission=lambda: self.blocked,
                entropy=random.Random(1).randbytes,
                logger=structlog.wrap_logger(
                    None, wrapper_class=structlog.make_filtering_bound_logger(10), processors=[self.log]
                ),
            )
        finally:
            asyncio._set_running_loop(None)
        self.agent_switch.on_event = self.board.on_sip
        self.durability = durability

    def next_transaction(self) -> sip.TransactionId:
        return sip.TransactionId(next(self._transactions))

    def tell(self, event: sip.Event) -> None:
        """Hand an event of the agent to the switchboard."""
        self.board.on_sip(event)

    def hear(self, *events: MediaEvent) -> None:
        """Hand what a tick of the plane brought to the switchboard."""
        self.board.on_media(list(events))

    def sync(self, behind: int = 0) -> None:
        """Let the disk catch up."""
        self.journal.sync(behind)
        self.loop.advance()

    def invite(self, *, user: str = "main", body: bytes = SDP, extra: str = "") -> Caller:
        """Let the phone ring."""
        transaction = self.next_transaction()
        dialog = sip.DialogId(f"call-{transaction}@peer", "us", "them")
        asked = message(uri=f"sip:{user}@192.0.2.1", body=body, extra=extra, call_id=dialog.call_id)
        event = sip.IncomingCall(transaction, asked, FLOW, dialog)
        self.tell(event)
        return Caller(self, transaction, dialog, event)

    def answered(self, **values: Any) -> Caller:
        """Return a call that rang out, is acknowledged, and whose beginning is not durable yet."""
        caller = self.invite(**values)
        self.loop.advance(15)
        assert caller.answers[-1] == 200
        caller.confirm()
        return caller

    def recording(self, **values: Any) -> tuple[Caller, int]:
        """Return a call that is being recorded, and its row."""
        from aftertone.media.plane import Played

        caller = self.answered(**values)
        row = self.row_of(caller)
        self.sync()
        self.hear(Played(row))
        self.hear(Played(row))
        assert self.sound.recording[row]
        return caller, row

    def row_of(self, caller: Caller) -> int:
        return self.board._live[caller.dialog].row

    def set_mailboxes(self, *boxes: Mailbox) -> None:
        self.board.directory = Directory(1, "main", {box.name: box for box in boxes})

    def envelopes(self) -> list[dict[str, Any]]:
        return [json.loads(begin.envelope_json) for begin in self.journal.begins]

    def rest(self) -> None:
        """Fail unless nothing is left of any call."""
        assert (self.board.live_calls, self.board.ringing_calls) == (0, 0)
        assert not self.board._rows
        assert not self.board.refusals.being_told
        assert not self.sound.leased
