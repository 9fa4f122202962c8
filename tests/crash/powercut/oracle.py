"""What is there after a cut, and whether it may be like that.

Owns: recovery by the real modules, what is looked at afterwards, the judgement. Refuses to know: how the cut came about.

Theory of operation: `recover` does what a machine does when it starts: the line begins an epoch, delivery cleans up and delivers,
the desk opens and publishes. Then everything is read: rows, audio sample by sample, settings, the snapshot, the books. `Promises`
is made from the words that were said before the cut. `judge` holds one against the other:

- every beginning that was durable has one message; every end that was durable has all of its sound and is not cut off, and all that was
  known about the call: when it was on hold, what its telephone reported, its last word; signalling that was durable is there;
- of unfinished speech at most `LOSS_NS` are missing, counted back from the latest moment the cut can have come;
- sound is a beginning of what that caller said, and nothing else, but for packets that the message says are missing;
- marks, greeting, rings and password are what was confirmed last, or what was asked for since; a greeting is whole;
- the snapshot that the line reads before anybody else has started is readable and names greetings that are whole;
- nothing is there that nobody said; the books balance and nothing waits; no temporary file is left; no epoch comes twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from aftertone.audio.flac import read_audio
from aftertone.audio.g711 import ULAW_TO_LINEAR
from aftertone.delivery.verify import verify
from aftertone.errors import AftertoneError, NotFoundError
from aftertone.files import OS_FILES, Files
from aftertone.journal import JournalReader
from aftertone.model import Kind, Message
from aftertone.roles.folder import Folder
from aftertone.store.blobs import SIGNALLING_SUFFIX, DirectoryBlobs, message_key
from aftertone.voicemail import directory as directories
from tests.crash.powercut.evening import (
    FRAME_BYTES,
    TICK_MS,
    House,
    Say,
    last_word,
    message_id,
    sha256,
    signalling,
    speech,
)

LOSS_NS: Final = 250_000_000
CALLS: Final = range(1, 20)
"""Calls that an evening may have."""


@dataclass(slots=True)
class Promises:
    """What was said so far."""

    now_ns: int = 0
    epochs: set[int] = field(default_factory=set)
    started: set[int] = field(default_factory=set)
    begun: set[int] = field(default_factory=set)
    reached: dict[int, list[int]] = field(default_factory=dict)
    """Call to the moment at which each of its packets reached the machine."""
    ending: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    held: dict[int, list[int]] = field(default_factory=dict)
    """Call to the packets after which it was put on hold and taken back."""
    signalling: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    values: dict[str, list[Any]] = field(default_factory=dict)
    """What was confirmed last, then what was asked for since."""
    ready: bool = False
    needed: dict[int, int] = field(default_factory=dict)
    """Packets of each call that had to be durable at an earlier cut."""

    def cut(self, latest_ns: int) -> None:
        """The power goes, at ``latest_ns`` at the latest; the clock of the next life begins anew."""
        for call, moments_ns in self.reached.items():
            self.needed[call] = _needed(moments_ns, latest_ns)
            self.reached[call] = [0] * len(moments_ns)
        self.now_ns = 0

    def hear(self, text: str) -> None:
        """Take in one word."""
        kind, *rest = json.loads(text)
        match kind:
            case "time":
                self.now_ns = rest[0]
            case "epoch":
                self.epochs.add(rest[0])
            case "start":
                self.started.add(rest[0])
            case "begin":
                self.begun.add(rest[0])
            case "reached":
                self.reached.setdefault(rest[0], []).append(self.now_ns)
            case "ending":
                self.ending.add(rest[0])
            case "end":
                self.ended.add(rest[0])
            case "held":
                self.held.setdefault(rest[0], []).append(rest[1])
            case "signalling":
                self.signalling.add(rest[0])
            case "refused":
                self.refused.add(rest[0])
            case "wish":
                self.values.setdefault(rest[0], [None]).append(rest[1])
            case "done":
                self.values[rest[0]] = [rest[1]]
            case "ready":
                self.ready = True


@dataclass(frozen=True, slots=True)
class Voice:
    """One recording, as it was found."""

    kind: str
    state: str
    cut_off: bool
    frames: int
    """Frames of sound; all of them are what that caller said, but for those that are known to be missing."""
    whole: int
    """Frames from the start up to the first that is missing."""
    peer_lost: int | None = None
    last_word: str = ""
    holds: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Found:
    """What is there after recovery."""

    voices: dict[int, Voice] = field(default_factory=dict)
    signalling: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    values: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    problems: list[str] = field(default_factory=list)
    """What may never be, whatever was promised."""


def recover(root: Path, files: Files = OS_FILES, say: Say = lambda _: None, second_life: int = 0) -> Found:
    """Start the machine in ``root`` and look at everything; with ``second_life`` that call is taken, too, and delivered."""
    found = Found()
    _look_at_the_snapshot(root, found)
    house = House(root, say, files)
    try:
        house.boot()
        found.epoch = house.line.open_epoch
        if second_life:
            house.line.begin(second_life)
            house.tick(4)
            house.line.end(second_life)
            house.tick()
        house.rest()
        _look(house, found)
    except Exception as error:  # whatever a machine dies of when it starts is a finding
        found.problems.append(f"recovery failed: {type(error).__name__}: {error}")
    finally:
        house.close()
    return found


def _look_at_the_snapshot(root: Path, found: Found) -> None:
    """Read what a line would read that starts before the desk does."""
    folder = Folder(root).directory
    try:
        if not (folder / directories.FILE).exists():
            found.values["snapshot"] = None
            return
        snapshot = directories.read(folder)
        names = [mailbox.greeting for mailbox in snapshot.mailboxes.values() if mailbox.greeting]
        for name in names:
            if f"{sha256((folder / directories.GREETINGS / name).read_bytes())}.flac" != name:
                found.problems.append("the snapshot names a greeting that is not whole")
        found.values["snapshot"] = names[0].removesuffix(".flac") if names else None
    except (AftertoneError, OSError) as error:
        found.problems.append(f"the snapshot is not readable: {type(error).__name__}")


def _look(house: House, found: Found) -> None:
    catalog, folder = house.desk.catalog, house.folder
    blobs = DirectoryBlobs(folder.blobs)
    calls = {message_id(call): call for call in CALLS}
    for message in catalog.every_message():
        call = calls.get(message.id)
        if call is None:
            found.problems.append("a message that nobody left")
        else:
            frames, whole = _frames(call, message, blobs, found)
            found.voices[call] = Voice(
                message.kind.value,
                message.state.value,
                message.cut_off,
                frames,
                whole,
                message.peer_lost,
                message.end_detail,
                message.holds,
            )
            found.values[f"state {call}"] = message.state.value
    for call in CALLS:
        with contextlib.suppress(NotFoundError):
            if blobs.get(message_key(message_id(call), SIGNALLING_SUFFIX)) != signalling(call):
                found.problems.append("signalling is not what was said")
            found.signalling.add(call)
    found.refused = {refusal.id.int for refusal in catalog.refusals()}
    row = catalog.mailbox("main")
    found.values |= {
        "rings": row.rings,
        "numbers": list(row.numbers) or None,
        "greeting": row.greeting_sha256,
        "password": catalog.password_hash(),
    }
    if row.greeting_blob is not None and blobs.sha256(row.greeting_blob) != row.greeting_sha256:
        found.problems.append("the greeting is not whole")
    found.values["published"] = _published(folder, found)
    with contextlib.closing(JournalReader(OS_FILES, folder.journal)) as reader:
        books = verify(reader, blobs, catalog)
    if not books.ok or books.pending:
        found.problems.append(f"the books do not balance: {json.dumps(books.to_json())}")
    found.problems += [f"left behind: {path.name}" for path in folder.root.rglob(".*") if "tmp" in path.name]


def _published(folder: Folder, found: Found) -> str | None:
    """Return the greeting that callers hear from now on."""
    greeting = directories.read(folder.directory).mailboxes["main"].greeting
    if greeting is None:
        return None
    content = (folder.directory / directories.GREETINGS / greeting).read_bytes()
    if f"{hashlib.sha256(content).hexdigest()}.flac" != greeting:
        found.problems.append("the published greeting is not whole")
    return greeting.removesuffix(".flac")


def _frames(call: int, message: Message, blobs: DirectoryBlobs, found: Found) -> tuple[int, int]:
    """Return how many frames a recording has, and how many of them stand before the first that is missing."""
    if not message.blob:
        return 0, 0
    content = blobs.get(message.blob)
    if hashlib.sha256(content).hexdigest() != message.blob_sha256:
        found.problems.append("a recording is not what was stored")
        return 0, 0
    samples, _ = read_audio(content)
    said = ULAW_TO_LINEAR[np.frombuffer(speech(call), np.uint8)][: len(samples)]
    if len(samples) % FRAME_BYTES or len(samples) > len(said):
        found.problems.append("a recording is not what that caller said")
        return 0, 0
    same = np.all((samples == said).reshape(-1, FRAME_BYTES), axis=1)
    if np.count_nonzero(~same) > message.lost_packets:
        found.problems.append("a recording is not what that caller said, and does not say so")
    return len(same), int(np.argmin(same)) if not same.all() else len(same)


def judge(found: Found, said: Promises, latest_ns: int | None = None) -> list[str]:
    """Return what is broken. ``latest_ns``: the latest moment the cut can have come, by default the last that was said."""
    wrong: list[str] = []
    now_ns = said.now_ns if latest_ns is None else latest_ns
    wrong += [
        f"call {call} heard the beep, and there is no message" for call in sorted(said.begun - found.voices.keys())
    ]
    for call, voice in found.voices.items():
        wrong += _judge_voice(call, voice, said, now_ns)
    wrong += [
        f"signalling of call {call} was durable and is gone" for call in sorted(said.signalling - found.signalling)
    ]
    wrong += [f"call {call} has signalling, and had no end" for call in sorted(found.signalling - said.ending)]
    wrong += [f"refusal {number} was durable and is gone" for number in said.refused - found.refused]
    if said.epochs and found.epoch <= max(said.epochs):
        wrong.append(f"epoch {found.epoch} comes again")
    for what, allowed in said.values.items():
        if found.values.get(what) not in allowed and not (allowed[0] is None and found.values.get(what) == "new"):
            wrong.append(f"{what.split()[0]} is {found.values.get(what)!r}, and not one of {allowed}")
    if said.ready:
        greetings = said.values.get("greeting", [None])
        if found.values.get("snapshot") not in greetings:
            wrong.append("the snapshot has a greeting that is neither the old one nor the new one")
        if found.values.get("published") != found.values.get("greeting"):
            wrong.append("callers hear another greeting than the desk says")
    return wrong + found.problems


def _judge_voice(call: int, voice: Voice, said: Promises, now_ns: int) -> Iterable[str]:
    reached = said.reached.get(call, [])
    needed = said.needed[call] if call in said.needed else _needed(reached, now_ns)
    if call not in said.started:
        yield f"call {call} was never answered, and there is a message"
    elif call in said.ended:
        if voice.cut_off:
            yield f"call {call} was confirmed, and is said to be cut off"
        if voice.whole != len(reached):
            yield f"call {call} was confirmed, and has {voice.whole} of {len(reached)} packets"
    elif voice.whole < needed:
        yield f"call {call} has {voice.whole} packets; {needed} had come 250 ms before the cut"
    elif voice.frames > len(reached):
        yield f"call {call} has more sound than was heard"
    if call in said.ended:
        yield from _judge_details(call, voice, said)
    elif voice.peer_lost not in (None, call) or voice.last_word not in ("", last_word(call)):
        yield f"call {call} knows what was never said"
    if not voice.cut_off and call not in said.ending:
        yield f"call {call} had no end, and is not said to be cut off"
    if (voice.kind == Kind.HANGUP) != (voice.frames == 0):
        yield f"call {call} with {voice.frames} packets is a {voice.kind}"


def _judge_details(call: int, voice: Voice, said: Promises) -> Iterable[str]:
    """Judge what stood before an end that was confirmed."""
    if (voice.peer_lost, voice.last_word) != (call, last_word(call)):
        yield f"call {call} was confirmed, and its last word or its quality is gone"
    edges = [frames * TICK_MS for frames in said.held.get(call, [])]
    if voice.holds != tuple(zip(edges[::2], edges[1::2], strict=True)):
        yield f"call {call} was confirmed, and was on hold at {voice.holds} and not at {edges}"


def _needed(reached_ns: Iterable[int], now_ns: int) -> int:
    return sum(moment_ns <= now_ns - LOSS_NS for moment_ns in reached_ns)
