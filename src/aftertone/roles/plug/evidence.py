"""What is written under test, and whether it is still there.

Owns: the content of every record, file and row, the scratch folder, looking for what had been confirmed. Refuses to know: the
witness; it is given numbers.

Theory of operation: content follows from the run's name, the kind and a number, so nothing has to be remembered to know it
again, and no other run's content, zeros or old blocks can pass for it. Looking reads with the same modules as the machine.
An error of the disk while reading means that the thing is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

from aftertone.errors import AftertoneError, StorageError
from aftertone.files import OS_FILES, write_whole
from aftertone.journal.reader import JournalReader
from aftertone.model import Caller, EndReason, Kind, Message, State, mint_id
from aftertone.roles.plug.protocol import KINDS, NAME_DIGITS, Counts
from aftertone.store.blobs import BlobFacts, DirectoryBlobs, message_key
from aftertone.store.catalog import Catalog

SCRATCH: Final = "plug-test"
RECORD_BYTES: Final = (160, 1600)
"""A tick's sound of one to ten calls."""
FILE_BYTES: Final = (1_000, 32_000)
"""Recordings of some seconds; what counts are the syncs and not the bytes."""
_FIRST_UNIX_MS: Final = 1_750_000_000_000
_NAME: Final = re.compile(rf"[0-9a-f]{{{NAME_DIGITS}}}")


def content(run: str, kind: str, number: int, bounds: tuple[int, int]) -> bytes:
    """Return the bytes of a record or file: always the same for the same arguments, of a length within ``bounds``."""
    seed = f"{run}/{kind}/{number}".encode("ascii")
    smallest, largest = bounds
    size = smallest + int.from_bytes(hashlib.sha256(seed).digest()[:4], "big") % (largest - smallest + 1)
    return hashlib.shake_128(seed).digest(size)


def record(run: str, number: int) -> bytes:
    """Return the payload of a record of the journal."""
    return content(run, "record", number, RECORD_BYTES)


def file(run: str, number: int) -> bytes:
    """Return the bytes of a blob."""
    return content(run, "file", number, FILE_BYTES)


def message_id(run: str, number: int) -> UUID:
    """Return the id of a row, which also names its blob."""
    return mint_id(_FIRST_UNIX_MS + number, hashlib.sha256(f"{run}/row/{number}".encode("ascii")).digest()[:10])


def row(run: str, number: int, facts: BlobFacts) -> Message:
    """Return a row of the catalog."""
    return Message(
        id=message_id(run, number),
        mailbox="main",
        kind=Kind.MESSAGE,
        state=State.NEW,
        caller=Caller(f"+1555{number:07}", "Plug test"),
        started_unix_ms=_FIRST_UNIX_MS + number,
        duration_ms=number,
        audio_ms=number,
        cut_off=False,
        codec="PCMU",
        sample_rate_hz=8000,
        lost_packets=0,
        end_reason=EndReason.CALLER_HUNG_UP,
        blob=facts.key,
        blob_sha256=facts.sha256,
        blob_bytes=facts.size,
        delivered_unix_ms=_FIRST_UNIX_MS + number,
    )


@dataclass(frozen=True, slots=True)
class Scratch:
    """The folder under test."""

    root: Path

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog" / "aftertone.db"

    def make(self, run: str) -> None:
        """Make the folder of a run; durable on return. Raises StorageError."""
        try:
            self.root.mkdir(mode=0o700)
            OS_FILES.sync_directory(self.root.parent)
            write_whole(OS_FILES, self.root / "run.json", json.dumps({"v": 1, "run": run}).encode("ascii"))
        except OSError as error:
            raise StorageError(f"cannot make {self.root}: {error.strerror}; may you write there?") from None

    def run(self) -> str:
        """Return the name of the run that this folder is of; empty when it does not say."""
        try:
            name = str(json.loads((self.root / "run.json").read_text(encoding="ascii"))["run"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return name if _NAME.fullmatch(name) else ""

    def remove(self) -> None:
        """Remove the folder. Raises StorageError."""
        try:
            shutil.rmtree(self.root)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"cannot remove {self.root}: {error.strerror}; remove it yourself") from None


@dataclass(frozen=True, slots=True)
class Losses:
    """What had been confirmed and is not there."""

    counts: Counts
    """How many of each kind."""
    first: tuple[tuple[str, int], ...]
    """Of each kind of which something is missing, the first number."""
    reasons: tuple[str, ...]
    """What was met while looking."""

    @property
    def total(self) -> int:
        """How many things are missing; more than 0 also when only the folder itself is not sound."""
        return sum(self.counts.of(kind) for kind in KINDS) or len(self.reasons)


def find_losses(scratch: Scratch, run: str, confirmed: Counts) -> Losses:
    """Look for everything that had been confirmed. Reads all of it; opening the catalog settles its log."""
    reasons: list[str] = []
    rows = _rows_there(scratch, reasons) if confirmed.row or confirmed.mark else {}
    there = {
        "record": _records_there(scratch, run, reasons) if confirmed.record else set(),
        "file": set(_files_there(scratch, run, confirmed.file, reasons)),
        "row": {number for number in range(1, confirmed.row + 1) if _is_row(rows, run, number)},
        "mark": {number for number in range(1, confirmed.mark + 1) if _is_heard(rows, run, number)},
    }
    missing = {kind: [n for n in range(1, confirmed.of(kind) + 1) if n not in there[kind]] for kind in KINDS}
    first = tuple((kind, numbers[0]) for kind, numbers in missing.items() if numbers)
    return Losses(Counts(**{kind: len(numbers) for kind, numbers in missing.items()}), first, tuple(reasons))


def _records_there(scratch: Scratch, run: str, reasons: list[str]) -> set[int]:
    reader = JournalReader(OS_FILES, scratch.journal)
    there: set[int] = set()
    try:
        for _, found in reader.poll():
            if found.payload == record(run, found.sequence):
                there.add(found.sequence)
    except AftertoneError as error:
        reasons.append(str(error))
    finally:
        reader.close()
    reasons += [f"journal {d.segment}, byte {d.offset}: {d.why}" for d in reader.damage if d.acknowledged]
    return there


def _files_there(scratch: Scratch, run: str, confirmed: int, reasons: list[str]) -> Iterator[int]:
    if not scratch.blobs.is_dir():
        return
    blobs = DirectoryBlobs(scratch.blobs)
    # One more than was confirmed: a file under its name was synced before it got it, whoever was told.
    for number in range(1, confirmed + 2):
        key = message_key(message_id(run, number))
        try:
            if blobs.exists(key) and blobs.get(key) != file(run, number):
                reasons.append(f"{key} is there, but not whole")
            elif blobs.exists(key):
                yield number
        except AftertoneError as error:
            reasons.append(str(error))


def _rows_there(scratch: Scratch, reasons: list[str]) -> dict[UUID, Message]:
    if not scratch.catalog.is_file():
        return {}
    rows: dict[UUID, Message] = {}
    try:
        catalog = Catalog.open(scratch.catalog)
        with contextlib.closing(catalog):
            reasons += catalog.check()
            rows = {message.id: message for message in catalog.every_message()}
    except AftertoneError as error:
        reasons.append(str(error))
    return rows


def _is_row(rows: dict[UUID, Message], run: str, number: int) -> bool:
    found = rows.get(message_id(run, number))
    if found is None:
        return False
    data = file(run, number)
    facts = BlobFacts(message_key(found.id), hashlib.sha256(data).hexdigest(), len(data))
    return replace(found, state=State.NEW, heard_unix_ms=None) == row(run, number, facts)


def _is_heard(rows: dict[UUID, Message], run: str, number: int) -> bool:
    found = rows.get(message_id(run, number))
    return found is not None and found.state is State.HEARD
