"""The books: does every answered call show up exactly once, and is every recording there.

Owns: the reconciliation of journal, catalog and blobs. Refuses to know: how to repair anything; it only reads.

Theory of operation: what may still change is read first and what it changes into last (journal, blobs, rows, then the
journal once more), so that a machine that goes on working while it is checked never looks wrong: a call that is delivered in
between is found in the catalog, a file that has no row yet belongs to a call that the journal knows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from aftertone.errors import AftertoneError, DamagedError, NotFoundError
from aftertone.journal import Begin, End, JournalReader, Refused, unpack
from aftertone.journal import Kind as RecordKind
from aftertone.model import Kind, Message, State
from aftertone.store.blobs import SIGNALLING_SUFFIX, DirectoryBlobs
from aftertone.store.catalog import Catalog
from aftertone.store.rebuild import PREFIX, id_of

LINES_SHOWN: Final = 1_000
"""Of each list at most; ``problems`` says how many there are in all."""

_PASSED_OVER: Final = frozenset({RecordKind.PACKETS, RecordKind.EVENT, RecordKind.SIGNALLING})


@dataclass(frozen=True, slots=True)
class Books:
    """The result of a check. Each line of a list says what is wrong with what."""

    messages: int
    hangups: int
    refused: int
    """Refused calls in the catalog."""
    deleted: int
    """Messages and hang-ups that their owner deleted; counted in the above as well."""
    in_journal: int
    """Calls whose beginning is in the journal now."""
    in_progress: int
    """Of these, calls that have no end and whose epoch is still open."""
    pending: int
    """Of these, calls that are finished and not delivered yet, and refusals that are not recorded yet."""
    blobs: int
    bytes: int
    missing: tuple[str, ...]
    """Rows whose recording is not there."""
    wrong: tuple[str, ...]
    """Rows whose recording is not what was stored."""
    strays: tuple[str, ...]
    """Recordings without a row, which the next start of delivery adopts."""
    damage: tuple[str, ...]
    """Acknowledged parts of the journal that cannot be read, and what the catalog's own check found."""
    doubles: tuple[str, ...]
    """Calls that began twice in the journal."""
    problems: int

    @property
    def ok(self) -> bool:
        """Tell whether the books balance. Calls in progress and pending ones are no problem."""
        return self.problems == 0

    def to_json(self) -> dict[str, object]:
        """Return the books as plain values."""
        lists = ("missing", "wrong", "strays", "damage", "doubles")
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in lists}
        return {"ok": self.ok, **plain, **{name: list(getattr(self, name)) for name in lists}}


@dataclass(slots=True)
class _Journal:
    """What the journal says, as far as it was read."""

    began: dict[tuple[int, int], UUID]
    ended: set[tuple[int, int]]
    refused: set[UUID]
    damage: list[str]


def verify(reader: JournalReader, blobs: DirectoryBlobs, catalog: Catalog) -> Books:
    """Reconcile the journal, the recordings and the catalog; changes nothing.

    ``reader`` is fresh. Reads every recording once to compare its digest. Raises StorageError when something cannot be
    read at all; what is read and wrong is in the result.
    """
    journal = _Journal({}, set(), set(), [])
    closed = reader.closed_epochs()
    _read(reader, journal)
    keys = list(blobs.list(PREFIX))
    missing: list[str] = []
    wrong: list[str] = []
    kinds: Counter[str] = Counter()
    delivered: set[UUID] = set()
    total_bytes = 0
    for message in catalog.every_message():
        delivered.add(message.id)
        kinds[message.kind] += 1
        kinds["deleted"] += message.state is State.DELETED
        total_bytes += message.blob_bytes
        if message.blob:
            _compare(message, blobs, missing, wrong)
    missing += [
        f"the greeting of mailbox {row.name}: {row.greeting_blob}"
        for row in catalog.mailboxes()
        if row.greeting_blob is not None and not blobs.exists(row.greeting_blob)
    ]
    _read(reader, journal)
    accounted = delivered.union(journal.began.values())
    # Signalling alone is of a call that left no audio, whose row went with a catalog.
    recordings = [key for key in keys if not key.endswith(f".{SIGNALLING_SUFFIX}")]
    strays = [key for key in recordings if id_of(key) not in accounted and not _has_row(catalog, key)]
    waiting = {key for key, message_id in journal.began.items() if message_id not in delivered}
    in_progress = sum(key not in journal.ended and key[0] not in closed for key in waiting)
    unrecorded = sum(not catalog.has_refusal(refusal_id) for refusal_id in journal.refused)
    doubles = [str(one) for one, times in Counter(journal.began.values()).items() if times > 1]
    damage = [*journal.damage, *(f"catalog: {line}" for line in _check(catalog))]
    return Books(
        messages=kinds[Kind.MESSAGE],
        hangups=kinds[Kind.HANGUP],
        refused=catalog.count_refusals(),
        deleted=kinds["deleted"],
        in_journal=len(journal.began),
        in_progress=in_progress,
        pending=len(waiting) - in_progress + unrecorded,
        blobs=len(keys),
        bytes=total_bytes,
        missing=tuple(missing[:LINES_SHOWN]),
        wrong=tuple(wrong[:LINES_SHOWN]),
        strays=tuple(strays[:LINES_SHOWN]),
        damage=tuple(damage[:LINES_SHOWN]),
        doubles=tuple(doubles[:LINES_SHOWN]),
        problems=len(missing) + len(wrong) + len(strays) + len(damage) + len(doubles),
    )


def _read(reader: JournalReader, journal: _Journal) -> None:
    """Read on, as far as the journal goes now."""
    for segment, record in reader.poll():
        if record.kind in _PASSED_OVER:
            continue
        try:
            match unpack(record):
                case Begin() as begin:
                    journal.began[record.epoch, begin.call] = begin.message_id
                case End() as end:
                    journal.ended.add((record.epoch, end.call))
                case Refused() as refused:
                    journal.refused.add(refused.id)
        except DamagedError as error:
            journal.damage.append(f"journal {segment}: {error}")
    known = set(journal.damage)
    lines = [f"journal {one.segment} at {one.offset}: {one.why}" for one in reader.damage if one.acknowledged]
    journal.damage += [line for line in lines if line not in known]


def _compare(message: Message, blobs: DirectoryBlobs, missing: list[str], wrong: list[str]) -> None:
    try:
        size, digest = blobs.size(message.blob), blobs.sha256(message.blob)
    except NotFoundError:
        missing.append(f"message {message.id}: {message.blob}")
    except AftertoneError as error:
        wrong.append(f"message {message.id}: {error}")
    else:
        if (size, digest) != (message.blob_bytes, message.blob_sha256):
            wrong.append(f"message {message.id}: {message.blob} has {size} bytes and digest {digest[:16]}")


def _has_row(catalog: Catalog, key: str) -> bool:
    message_id = id_of(key)
    return message_id is not None and catalog.has_message(message_id)


def _check(catalog: Catalog) -> list[str]:
    try:
        return catalog.check()
    except DamagedError as error:
        return [str(error)]
