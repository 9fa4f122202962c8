"""The scripted evening: what a machine's storage parts do while people call, listen and change things.

Owns: the script, and what is said to the world at which moment. Refuses to know: who records it, and cuts.

Theory of operation: the real journal writer, delivery, catalog, blobs and directory run in one thread, step by step, on a clock
that moves when told: 20 ms a tick, and `SYNC_MS` for each sync of the journal. Every caller's sound is different and a function
of the call's number, so whoever finds it can tell whose it is and where it ends. What is said is one JSON array a line:

    ["time", ns]                the clock has moved on; a cut before the next word may have come as late as this
    ["epoch", n]                the line has begun this epoch
    ["start", call]             the beginning was given to the journal
    ["begin", call]             the beginning is durable: the beep is played
    ["reached", call, n]        so many packets of the call have reached the machine by now
    ["ending", call]            the end was given to the journal
    ["end", call]               the end is durable: BYE is answered 200
    ["held", call, n]           it was put on hold, or taken back, after so many packets; its end will confirm that
    ["signalling", call]        what was said about it on the wire is durable
    ["refused", number]         a refusal is durable
    ["wish", what, value]       somebody asked for a change ...
    ["done", what, value]       ... and was answered that it is so
    ["ready"]                   the machine has started
    ["rest"]                    everything is delivered

Run it alone on a folder: ``python -m tests.crash.powercut.evening FOLDER WORDS [MUTANT]``, where each word goes to the file WORDS in one
write; that is how it runs on a file system that is recorded from outside.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast
from unittest import mock
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from aftertone.audio.codec import encode
from aftertone.config import Settings
from aftertone.delivery.deliver import Deliverer
from aftertone.errors import AftertoneError, EnvironmentFault, StorageError
from aftertone.files import OS_FILES, Files
from aftertone.journal import Begin, End, Event, JournalReader, Kind, Refused, Signalling, pack_batch
from aftertone.journal.committer import Committer
from aftertone.journal.reader import READ_PATIENCE
from aftertone.model import Action, Caller, Codec, EndReason
from aftertone.roles.desk import open_desk
from aftertone.roles.folder import Folder
from aftertone.store.blobs import DirectoryBlobs
from aftertone.store.catalog import Catalog
from aftertone.web.mailboxes import _store_greeting
from aftertone.web.services import DeskServices
from tests.support.files import Clock
from tests.support.recordings import a_batch, an_envelope, voiced

TICK_MS: Final = 20
SYNC_MS: Final = 4
FRAME_BYTES: Final = 160
SEGMENT_BYTES: Final = 40 * 1024
UNIX_MS: Final = 1_760_000_000_000
LONGEST_FRAMES: Final = 100
NUMBERS: Final = ["+1 202 555 0143"]
PATIENCE: Final = 40
"""Tries of one thing before the evening is given up; each failing disk gets better at some time."""

Say = Callable[[str], None]


def message_id(call: int) -> UUID:
    """Return the id of a call's message."""
    return an_envelope(seed=call).id


@functools.cache
def speech(call: int) -> bytes:
    """Return what that caller says, mu-law, `LONGEST_FRAMES` frames."""
    samples = voiced(LONGEST_FRAMES * TICK_MS / 1000, 8000, 90.0 + 7 * call)
    return b"".join(encode(Codec.PCMU, samples, 8000))[: LONGEST_FRAMES * FRAME_BYTES]


def last_word(call: int) -> str:
    """Return what that caller's telephone says with its BYE."""
    return f'Q.850;cause=16;text="call {call}"'


def signalling(call: int) -> bytes:
    """Return what was said about a call on the wire, as it is stored."""
    return json.dumps({"v": 1, "call_id": f"call-{call}", "left_out": 0, "messages": []}).encode()


def greeting(number: int) -> bytes:
    """Return a greeting's audio file, or what stands for one here."""
    return random.Random(1000 + number).randbytes(900 + 700 * number)


def sha256(content: bytes) -> str:
    """Return a digest in hex."""
    return hashlib.sha256(content).hexdigest()


class TimedFiles:
    """Passes everything on, and lets each sync take time."""

    def __init__(self, files: Files, clock: Clock, say: Say) -> None:
        self._files, self._clock, self._say = files, clock, say

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def fdatasync(self, handle: int) -> None:
        try:
            self._files.fdatasync(handle)
        finally:
            self._clock.advance_ms(SYNC_MS)
            self._say(json.dumps(["time", self._clock()]))


@dataclass(slots=True)
class _Call:
    number: int
    """What the journal calls it in this epoch."""
    frames: int = 0


@dataclass(slots=True)
class _Waiting:
    sequence: int
    word: list[Any] = field(default_factory=list)


class Line:
    """The writing half of a line: calls whose packets arrive each tick, and the journal."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._calls: dict[int, _Call] = {}
        self._gone: dict[int, _Call] = {}
        self._numbers = 0
        self.open_epoch = 0
        self._waiting: list[_Waiting] = []
        self._committer = Committer(
            cast(Files, TimedFiles(house.files, house.clock, house.say_text)),
            house.folder.journal,
            boot_id=bytes(range(16)),
            notify=self._durable,
            clock_ns=house.clock,
            segment_bytes=SEGMENT_BYTES,
        )

    def open(self) -> int:
        """Begin an epoch."""
        self.open_epoch = self._committer.open()
        self._house.say("epoch", self.open_epoch)
        return self.open_epoch

    def begin(self, call: int, *, silent: bool = False) -> None:
        """Answer a call; from a silent one no packet ever comes."""
        self._numbers += 1
        self._calls[call] = _Call(self._numbers, LONGEST_FRAMES if silent else 0)
        envelope = an_envelope(seed=call)
        self._house.say("start", call)
        begin = Begin(
            envelope.id,
            self._numbers,
            json.dumps(envelope.to_json()).encode(),
            b"INVITE",
            self._house.clock(),
            envelope.started_unix_ms,
        )
        self._append(Kind.BEGIN, begin.pack(), ["begin", call], urgent=True)

    def hold(self, call: int, *, is_held: bool = True) -> None:
        """Put a call on hold, with music: its packets go on coming."""
        one = self._calls[call]
        self._house.say("held", call, one.frames)
        self._note(one, "hold" if is_held else "resume")

    def end(self, call: int) -> None:
        """Hear a BYE; what is known about the call by then stands before its end."""
        gone = self._gone[call] = self._calls.pop(call)
        self._house.say("ending", call)
        self._note(gone, "reason", last_word(call))
        self._note(gone, "quality", json.dumps({"peer_lost": call, "round_trip_ms": 10 * call}))
        end = End(gone.number, self._house.clock(), UNIX_MS, EndReason.CALLER_HUNG_UP.value, 0)
        self._append(Kind.END, end.pack(), ["end", call], urgent=True)

    def signal(self, call: int) -> None:
        """Write what was said about a call that is over."""
        record = Signalling(message_id(call), self._gone[call].number, signalling(call))
        self._append(Kind.SIGNALLING, record.pack(), ["signalling", call])

    def refuse(self, number: int) -> None:
        """Refuse a call."""
        refused = Refused(UUID(int=number), UNIX_MS, 486, "busy", Caller("1", "Eve"), "sip:x@example.com")
        self._append(Kind.REFUSED, refused.pack(), ["refused", number])

    def hear(self) -> None:
        """Take one packet of each call that is speaking."""
        now_ns = self._house.clock()
        for call, one in self._calls.items():
            if one.frames == LONGEST_FRAMES:
                continue
            payload = speech(call)[one.frames * FRAME_BYTES : (one.frames + 1) * FRAME_BYTES]
            row = (now_ns, one.frames & 0xFFFF, one.frames * FRAME_BYTES, 0xC0FFEE + call, 0, payload)
            one.frames += 1
            self._house.say("reached", call, one.frames)
            self._append(Kind.PACKETS, pack_batch(a_batch([row], one.number)), [], arrival_ns=now_ns)

    def step(self) -> None:
        """Let the writer work."""
        self._committer.step()

    def settle(self) -> None:
        """Let the writer work until nothing waits. Raises StorageError when it cannot."""
        for _ in range(PATIENCE):
            if self._committer.due_ns() is None:
                return
            self._house.clock.advance_ms(500)
            self._committer.step()
        raise StorageError("the journal did not get anything done")

    def die(self) -> None:
        """End like a process that is killed: what was not committed is gone."""
        self._committer._release()

    def _append(self, kind: Kind, payload: bytes, word: list[Any], **how: Any) -> None:
        sequence = self._committer.append(kind, payload, **how)
        if word:
            self._waiting.append(_Waiting(sequence, word))

    def _note(self, one: _Call, name: str, detail: str = "") -> None:
        self._append(Kind.EVENT, Event(one.number, self._house.clock(), name, detail).pack(), [])

    def _durable(self, sequence: int) -> None:
        while self._waiting and self._waiting[0].sequence <= sequence:
            self._house.say(*self._waiting.pop(0).word)


class House:
    """One machine's storage parts on one folder."""

    def __init__(self, root: Path, say: Say, files: Files = OS_FILES, clock: Clock | None = None) -> None:
        self.folder = Folder(root)
        self.files = files
        self.clock = clock or Clock()
        self.say_text = say
        self.line = Line(self)
        self._desk: DeskServices | None = None
        self._delivery: tuple[Catalog, Deliverer] | None = None
        self._readers: list[JournalReader] = []

    def say(self, *word: Any) -> None:
        """Say something to the world."""
        self.say_text(json.dumps(word))

    def wait(self, milliseconds: float) -> None:
        """Let time pass."""
        self.clock.advance_ms(milliseconds)
        self.say("time", self.clock())

    def boot(self) -> None:
        """Start line, delivery and desk."""
        self.start_line()
        self.start_delivery()
        self.start_desk()
        self.say("ready")

    def start_line(self) -> None:
        """Start a line; one that cannot open its journal tries again, as long as it takes."""
        self.line = Line(self)
        self._insist(self.line.open)

    def start_desk(self) -> None:
        """Open the desk, anew when it is open."""
        if self._desk is not None:
            self._desk.catalog.close()
            self._desk = None
        catalog, services = self._insist(lambda: open_desk(self.folder, Settings(), "token", self.files))
        self._desk = replace(services, import_audio=bytes, catalog=catalog)

    def start_delivery(self) -> None:
        """Start delivery, anew when it runs."""
        if self._delivery is not None:
            self._delivery[0].close()
            self._delivery = None

        def start() -> tuple[Catalog, Deliverer]:
            catalog = Catalog.open(self.folder.catalog, unix_ms=lambda: UNIX_MS, files=self.files)
            self._readers.append(JournalReader(self.files, self.folder.journal, patience=READ_PATIENCE))
            try:
                deliverer = Deliverer(
                    self._readers[-1],
                    DirectoryBlobs(self.folder.blobs, self.files),
                    catalog,
                    unix_ms=lambda: UNIX_MS,
                    detect=_somebody_speaks,
                    logger=_Silence(),  # type: ignore[arg-type]
                )
                deliverer.recover()
            except BaseException:
                catalog.close()
                raise
            return catalog, deliverer

        self._delivery = self._insist(start)

    @property
    def desk(self) -> DeskServices:
        """The open desk."""
        assert self._desk is not None
        return self._desk

    def tick(self, ticks: int = 1) -> None:
        """Let time pass for the line."""
        for _ in range(ticks):
            self.wait(TICK_MS)
            self.line.hear()
            self.line.step()

    def deliver(self, steps: int = 1) -> None:
        """Let delivery take some steps."""
        assert self._delivery is not None
        for _ in range(steps):
            self._delivery[1].step(self.clock())

    def change(self, what: str, value: Any, act: Callable[[], object]) -> None:
        """Ask the desk for something until it says yes; nobody is told yes before."""
        self.say("wish", what, value)
        self._insist(act)
        self.say("done", what, value)

    def set_greeting(self, number: int) -> None:
        """Change the greeting."""
        content = greeting(number)
        self.change("greeting", sha256(content), lambda: _store_greeting(self.desk, "main", content))

    def set_rings_and_numbers(self) -> None:
        """Change what a mailbox is called by, and how long it rings."""

        def rings() -> None:
            self.desk.catalog.set_rings("main", 5)
            self.desk.publish_directory()

        self.change("numbers", NUMBERS, lambda: self.desk.catalog.set_numbers("main", NUMBERS))
        self.change("rings", 5, rings)

    def act(self, call: int, action: Action, state: str) -> None:
        """Change the state of a message."""
        self.change(
            f"state {call}",
            state,
            lambda: self.desk.catalog.act(message_id(call), action, UNIX_MS + self.clock.now_ns // 10**6),
        )

    def rest(self) -> None:
        """Let everything that waits be written and delivered. Raises StorageError when that does not happen."""
        assert self._delivery is not None
        self.line.settle()
        for attempt in range(PATIENCE):
            # A recording that failed is tried again after at most a minute.
            self.wait(1_100 if attempt < 5 else 61_000)
            before = self._delivery[1].metrics()
            worked = self._delivery[1].step(self.clock())
            after = self._delivery[1].metrics()
            if (
                not worked
                and not before["waiting"]
                and not after["waiting"]
                and before["failures"] == after["failures"]
            ):
                self.say("rest")
                return
        raise StorageError(f"delivery does not come to rest: {self._delivery[1].failing()}")

    def close(self) -> None:
        """Let go of everything, as the end of all processes does."""
        self.line.die()
        for reader in self._readers:
            reader.close()
        for part in (self._desk.catalog if self._desk else None, self._delivery[0] if self._delivery else None):
            if part is not None:
                with contextlib.suppress(AftertoneError):
                    part.close()
        self._desk = self._delivery = None

    def _insist(self, act: Callable[[], Any]) -> Any:
        for _ in range(PATIENCE):
            try:
                return act()
            except EnvironmentFault:
                if self._read_only():
                    raise  # it does not get better, and SQLite waits five seconds for the lock that it cannot make, each time
                self.wait(TICK_MS)
        return act()

    def _read_only(self) -> bool:
        """Say whether the kernel has taken the folder's file system out of service, as btrfs does after a refused superblock."""
        return bool(os.statvfs(self.folder.root).f_flag & os.ST_RDONLY)


@mock.patch("time.time_ns", lambda: UNIX_MS * 1_000_000)  # so that every evening writes the same bytes
def play(house: House) -> None:
    """Play the evening."""
    line = house.line
    house.boot()
    line = house.line
    line.begin(1)
    house.tick(8)
    line.begin(2)
    house.tick(2)
    line.begin(3, silent=True)
    house.set_greeting(1)
    line.hold(2)
    house.tick(4)
    line.end(3)
    line.refuse(1)
    house.tick(3)
    line.hold(2, is_held=False)
    house.deliver(2)
    house.tick(8)
    line.end(2)
    house.tick()
    line.signal(2)
    house.deliver(2)
    house.act(2, Action.HEAR, "heard")
    house.tick(12)
    line.end(1)
    house.tick()
    house.deliver(3)
    house.set_rings_and_numbers()
    house.act(2, Action.DELETE, "deleted")
    line.begin(4)
    house.tick(6)
    house.set_greeting(2)
    house.change("password", "argon2", lambda: house.desk.catalog.set_password_hash("argon2"))
    house.tick(4)
    line.die()
    house.start_line()
    line = house.line
    house.start_desk()
    line.begin(5)
    house.tick(5)
    house.start_delivery()
    house.deliver(2)
    house.act(1, Action.HEAR, "heard")
    house.tick(5)
    line.end(5)
    house.tick()
    line.signal(5)
    house.tick()
    house.rest()


def play_briefly(house: House) -> None:
    """Play a short evening with one of everything, for faults at each single call."""
    house.boot()
    house.line.begin(1)
    house.tick(4)
    house.set_greeting(1)
    house.line.begin(2)
    house.tick(4)
    house.line.end(1)
    house.line.refuse(1)
    house.tick(1)
    house.line.signal(1)
    house.line.settle()
    house.deliver(2)
    house.rest()
    house.act(1, Action.HEAR, "heard")
    house.set_rings_and_numbers()
    house.line.die()
    house.start_line()
    house.line.begin(3)
    house.tick(3)
    house.line.end(3)
    house.rest()


def _somebody_speaks(samples: NDArray[np.int16], rate_hz: int) -> list[tuple[int, int]]:
    return [(0, len(samples) * 1000 // rate_hz)] if len(samples) else []


class _Silence:
    """Logs nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def main() -> None:
    """Play the evening on a folder, with the words going to a file."""
    from tests.crash.powercut.mutants import SOUND, named

    root, words = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY)
    mutant = named(sys.argv[3]) if len(sys.argv) > 3 else SOUND

    def say(text: str) -> None:
        os.write(words, text.encode() + b"\n")

    with mutant.patch():
        house = House(root, say, mutant.wrap(OS_FILES))
        play(house)
        house.close()


if __name__ == "__main__":
    main()
