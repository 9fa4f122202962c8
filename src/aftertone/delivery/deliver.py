"""The deliverer: follows the journal and turns every finished recording into a row and a file.

Owns: the order of the steps and what happens when one fails. Refuses to know: how audio is made, how things are stored, the
clock it is driven by.

Theory of operation: ``step`` reads what is new, delivers what is finished, and lets the journal forget. For each recording:

    already in the catalog? -> assemble -> packets blob (rarely) -> audio blob -> row -> the journal may forget

Every arrow may be the last thing that ever happened. Starting again reads the remaining segments anew and does the same:
putting a blob again changes nothing, a row is added once, and a segment goes only when everything in it is delivered. So
there is no checkpoint to be wrong. A step that fails leaves its recording in the journal; it is tried again, later each
time, while others are delivered. When the store itself is away, reading stops once memory is full, and the journal holds
the rest.

A recording is finished with its end record, or when its epoch is closed without one: then it was cut off. A recording whose
beginning is missing was delivered before, and the segment with its beginning is gone; unless the journal lost something
before: then it is delivered under a makeshift envelope.

Bounds: memory for packets ``memory_bytes`` over all calls, beyond it spill files (see ``held``); one recording at a time in
assembly; at most ``READ_BYTES`` and ``DELIVERIES`` in one step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from aftertone.audio.flac import read_tags
from aftertone.audio.vad import speech_spans
from aftertone.delivery.held import EVENTS_KEPT, CallKey, HeldCall, HeldPackets
from aftertone.delivery.ledger import Ledger
from aftertone.delivery.parcel import SpeechDetector, envelope_of, wrap
from aftertone.errors import AftertoneError, DamagedError, EnvironmentFault, StateError, StorageError
from aftertone.journal import (
    Begin,
    End,
    Event,
    JournalReader,
    Kind,
    PacketBatch,
    Record,
    Refused,
    SegmentName,
    Signalling,
    unpack,
    unpack_batch,
)
from aftertone.journal.segment import NO_FLOOR
from aftertone.store.blobs import SIGNALLING_SUFFIX, DirectoryBlobs, message_key
from aftertone.store.catalog import Catalog
from aftertone.store.rebuild import adopt

MEMORY_BYTES: Final = 256 * 1024 * 1024
"""Packets in memory, all calls together: about 45 recordings of ten minutes, or 1,600 of half a minute."""
READ_BYTES: Final = 64 * 1024 * 1024
"""Read from the journal in one step, so that a long backlog does not keep finished recordings waiting."""
DELIVERIES: Final = 8
"""Recordings delivered in one step, so that the caller of ``step`` may stop between."""
REFUSALS_WAITING: Final = 10_000
"""Refusals in memory; with more the journal is not read on until the catalog takes them."""
TIDY_NS: Final = 1_000_000_000
"""How often segments that nobody needs are looked for when nothing was delivered."""

_FIRST_PAUSE_NS: Final = 500_000_000
_LONGEST_PAUSE_NS: Final = 60_000_000_000
_FAILURES_IN_A_ROW: Final = 3
"""After so many storage failures in one step the store is away; the rest waits for the next step."""


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


class Deliverer:
    """Delivers from one journal folder. One thread, one process a folder."""

    def __init__(
        self,
        reader: JournalReader,
        blobs: DirectoryBlobs,
        catalog: Catalog,
        *,
        logger: structlog.typing.FilteringBoundLogger | None = None,
        unix_ms: Callable[[], int] = _unix_ms,
        detect: SpeechDetector = speech_spans,
        spill: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Remember the parts; nothing is touched.

        ``reader`` is fresh: it has not been polled. ``unix_ms`` is the wall clock; ``spill`` a folder for what does not fit
        into memory, by default inside the blob folder under a name that no key can have.
        """
        self._reader = reader
        self._blobs = blobs
        self._catalog = catalog
        self._logger = logger if logger is not None else structlog.get_logger("aftertone.delivery")
        self._unix_ms = unix_ms
        self._detect = detect
        self._spill = spill if spill is not None else blobs.root / ".spill"
        self._memory_bytes = memory_bytes
        self._calls: dict[CallKey, HeldCall] = {}
        self._due: deque[HeldCall] = deque()
        self._refusals: deque[tuple[SegmentName, Refused]] = deque()
        self._signalling: deque[tuple[SegmentName, Signalling]] = deque()
        self._ledger = Ledger()
        self._damaged_epochs: set[int] = set()
        self._damage_seen = 0
        self._last_number: dict[int, int] = {}
        self._position: SegmentName | None = None
        self._exhausted = False
        self._recovered = False
        self._unread: tuple[str, ...] = ()
        self._adopt_ns: int | None = None
        self._store_away = False
        self._held_bytes = 0
        self._tidied_ns: int | None = None
        self._pause_ns = 0
        self._counts = dict.fromkeys(
            ("delivered", "hangups", "refusals", "adopted", "failures", "late", "unreadable", "segments_removed"), 0
        )

    def recover(self) -> None:
        """Clean up after whoever ran before: temporary and spill files, blobs without a row. Raises StorageError."""
        self._blobs.clean_temporary()
        with suppress(OSError):  # copies only; what cannot be removed is overwritten or ignored
            for path in self._spill.iterdir():
                path.unlink()
        self._adopt()
        self._recovered = True

    def _adopt(self) -> None:
        """Make rows for recordings that have none. Raises StorageError."""
        adopted = adopt(self._catalog, self._blobs, read_tags, self._unix_ms)
        self._counts["adopted"] += adopted.added
        if adopted.added:
            self._logger.warning("recordings without a row were adopted", count=adopted.added)
        for key in adopted.strangers:
            self._logger.warning("an audio file does not say which message it is", blob=key)
        for key in adopted.unread:
            self._logger.error("a recording without a row cannot be read; it is tried again in a minute", blob=key)
        self._unread = adopted.unread

    def step(self, now_ns: int) -> int:
        """Do what there is to do at ``now_ns`` (monotonic) and return how much that was; 0 means wait a moment.

        Never sleeps, never raises for what is stored or for a store that is away: that is logged, counted in ``metrics``
        and tried again. A row is durable before its recording is forgotten.
        """
        if now_ns < self._pause_ns:
            return 0
        try:
            if not self._recovered:
                self.recover()
            if self._unread:
                if self._adopt_ns is None:
                    self._adopt_ns = now_ns + _LONGEST_PAUSE_NS
                elif now_ns >= self._adopt_ns:
                    # Forgotten first: should the store be away now, calls that wait are not kept behind this.
                    self._adopt_ns = None
                    self._adopt()
            work = self._read()
        except EnvironmentFault as error:
            self._counts["failures"] += 1
            self._logger.error("delivery cannot read; the journal keeps everything", error=str(error))
            self._pause_ns = now_ns + _FIRST_PAUSE_NS
            return 0
        work += self._record_refusals()
        work += self._deliver_due(now_ns)
        work += self._store_signalling()
        if work or self._tidied_ns is None or now_ns - self._tidied_ns >= TIDY_NS:
            self._tidied_ns = now_ns
            self._tidy()
        return work

    def metrics(self) -> dict[str, float]:
        """Return what happened since the start, and what is waiting."""
        return {
            **{name: float(count) for name, count in self._counts.items()},
            "open_calls": float(len(self._calls) - len(self._due)),
            "waiting": float(len(self._due) + len(self._refusals) + len(self._signalling)),
            "failing": float(sum(call.failures > 0 for call in self._due)),
            "held_bytes": float(self._held_bytes),
            "damage": float(self._reader.damage_count),
            "segments": float(len(self._ledger.segments())),
        }

    def failing(self) -> list[str]:
        """Return, for a person, which recordings could not be delivered so far and why."""
        unread = [f"{key}: the disk does not give it (tried again each minute)" for key in self._unread]
        return unread + [
            f"call {call.key[1]} of epoch {call.key[0]}: {call.failure} ({call.failures} attempts; kept in the journal)"
            for call in self._due
            if call.failures
        ]

    # Reading

    def _read(self) -> int:
        full = self._store_away and self._held_bytes > self._memory_bytes
        if full or len(self._refusals) >= REFUSALS_WAITING:
            return 0
        closed = self._reader.closed_epochs()
        records = read_bytes = 0
        self._exhausted = False
        for segment, record in self._reader.poll():
            self._take(segment, record)
            records += 1
            read_bytes += len(record.payload)
            if read_bytes >= READ_BYTES:
                break
        else:
            self._exhausted = True
        self._take_damage()
        if self._exhausted:
            for call in self._calls.values():
                if call.end is None and not call.cut_off and call.key[0] in closed:
                    call.cut_off = True
                    self._due.append(call)
        if self._held_bytes > self._memory_bytes:
            self._spill_largest()
        return records

    def _take(self, segment: SegmentName, record: Record) -> None:
        if self._reader.damage_count != self._damage_seen:
            self._take_damage()
        self._position = segment
        self._last_number[segment.epoch] = segment.number
        self._ledger.saw(segment)
        try:
            entry = unpack(record)
            if isinstance(entry, PacketBatch):
                for number, batch in entry.split_by_call():
                    call = self._call(segment, (record.epoch, number))
                    if call is not None:
                        self._held_bytes += call.packets.append(batch)
            elif isinstance(entry, Refused):
                self._refusals.append((segment, entry))
                self._ledger.owe(segment)
            elif isinstance(entry, Signalling):
                self._signalling.append((segment, entry))
                self._held_bytes += len(entry.document)
                self._ledger.owe(segment)
            else:
                call = self._call(segment, (record.epoch, entry.call))
                if call is not None:
                    self._take_entry(call, segment, entry)
        except DamagedError as error:
            self._counts["unreadable"] += 1
            self._ledger.kept.add(segment)
            self._logger.error("a record cannot be read; its segment is kept", segment=str(segment), error=str(error))

    def _call(self, segment: SegmentName, key: CallKey) -> HeldCall | None:
        """Return the call that a record belongs to, None when it is delivered already."""
        self._ledger.mention(segment, key)
        if self._ledger.is_done(key):
            self._counts["late"] += 1
            return None
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = HeldCall(key, after_damage=key[0] in self._damaged_epochs)
        return call

    def _take_entry(self, call: HeldCall, segment: SegmentName, entry: Begin | End | Event) -> None:
        match entry:
            case Begin():
                call.begin = entry
                with suppress(AftertoneError):
                    if self._catalog.has_message(entry.message_id):
                        self._finish(call)
            case End():
                if call.end is None:
                    call.end, call.end_segment = entry, segment
                    if not call.cut_off:
                        self._due.append(call)
            case Event():
                if len(call.events) < EVENTS_KEPT:
                    call.events.append(entry)

    def _take_damage(self) -> None:
        self._damage_seen = self._reader.damage_count
        for damage in self._reader.damage:
            if damage.acknowledged and damage.segment.epoch not in self._damaged_epochs:
                self._logger.error(
                    "the journal is damaged; what can be read is delivered, the segment is put aside",
                    segment=str(damage.segment),
                    offset=damage.offset,
                    why=damage.why,
                )
                self._damaged_epochs.add(damage.segment.epoch)
        for call in self._calls.values():
            call.damaged |= call.end is None and call.key[0] in self._damaged_epochs

    def _spill_largest(self) -> None:
        for call in sorted(self._calls.values(), key=lambda call: len(call.packets), reverse=True):
            if self._held_bytes <= self._memory_bytes // 2:
                return
            size = len(call.packets)
            try:
                self._spill.mkdir(mode=0o700, parents=True, exist_ok=True)
                call.packets.spill(self._spill / f"e{call.key[0]:08x}-c{call.key[1]:08x}")
            except OSError as error:
                self._logger.warning("packets cannot be moved out of memory", error=str(error))
                return
            self._held_bytes -= size

    # Delivering

    def _deliver_due(self, now_ns: int) -> int:
        delivered = in_a_row = 0
        for _ in range(len(self._due)):
            if delivered >= DELIVERIES or in_a_row >= _FAILURES_IN_A_ROW:
                break
            call = self._due.popleft()
            if now_ns < call.retry_ns or not self._is_complete(call):
                self._due.append(call)
                continue
            try:
                self._deliver(call)
            except Exception as error:  # one poisoned recording must not stop the others
                self._fail(call, error, now_ns)
                self._due.append(call)
                in_a_row = in_a_row + 1 if isinstance(error, StorageError) else 0
                self._store_away |= in_a_row > 0
            else:
                self._finish(call)
                delivered += 1
                in_a_row = 0
                self._store_away = False
        return delivered

    def _is_complete(self, call: HeldCall) -> bool:
        """Tell whether no record of the call can follow.

        A commit that was torn is repeated in the next segment, so records from before an end may come after it.
        """
        if self._exhausted or call.end_segment is None or self._position is None:
            return True
        return self._position > SegmentName(call.end_segment.epoch, call.end_segment.number + 1)

    def _deliver(self, call: HeldCall) -> None:
        if call.begin is None and not call.after_damage:
            return  # its beginning went with a segment, which goes only after delivery
        segments = self._ledger.segments_of(call.key) if call.begin is None else []
        floor = self._reader.floor(segments[0]) if segments else NO_FLOOR
        envelope, notes = envelope_of(call, self._unix_ms(), floor=floor)
        if self._catalog.has_message(envelope.id):
            return
        parcel = wrap(call, envelope, self._packets(call), notes=notes, detect=self._detect)
        message = replace(parcel.message, delivered_unix_ms=self._unix_ms())
        if parcel.packets:
            self._blobs.put(parcel.packets_key, parcel.packets)
        if parcel.audio:
            stored = self._blobs.put(message.blob, parcel.audio)
            message = replace(message, blob_sha256=stored.sha256, blob_bytes=stored.size)
        if self._catalog.record_delivery(message):
            kind = "hangups" if message.kind == "hangup" else "delivered"
            self._counts[kind] += 1
            self._logger.info(
                "delivered", message=str(message.id), kind=message.kind.value, mailbox=message.mailbox,
                duration_ms=message.duration_ms, lost_packets=message.lost_packets, cut_off=message.cut_off,
            )  # fmt: skip

    def _packets(self, call: HeldCall) -> PacketBatch:
        try:
            return call.packets.load(call.key[1])
        except (OSError, DamagedError) as error:
            self._logger.warning("packets are read from the journal again", error=str(error))
        # Copies of a torn commit come twice here; assembly drops what it has already.
        packets = HeldPackets()
        for segment in self._ledger.segments_of(call.key):
            for record in self._reader.records(segment):
                if (record.epoch, record.kind) == (call.key[0], Kind.PACKETS):
                    for number, batch in unpack_batch(record.payload).split_by_call():
                        if number == call.key[1]:
                            packets.append(batch)
        return packets.load(call.key[1])

    def _fail(self, call: HeldCall, error: Exception, now_ns: int) -> None:
        call.failures += 1
        call.failure = f"{type(error).__name__}: {error}"
        pause_ns = min(_FIRST_PAUSE_NS << min(call.failures - 1, 10), _LONGEST_PAUSE_NS)
        call.retry_ns = now_ns + pause_ns
        self._counts["failures"] += 1
        self._logger.error(
            "a recording could not be delivered; it stays in the journal and is tried again",
            epoch=call.key[0], call=call.key[1], attempts=call.failures, error=call.failure,
        )  # fmt: skip

    def _finish(self, call: HeldCall) -> None:
        self._held_bytes -= len(call.packets)
        with suppress(OSError):
            call.packets.discard()
        self._calls.pop(call.key, None)
        self._ledger.finish(call.key)

    def _record_refusals(self) -> int:
        recorded = 0
        while self._refusals and recorded < DELIVERIES:
            segment, refused = self._refusals[0]
            try:
                added = self._catalog.record_refusal(
                    refused.id, refused.at_unix_ms, refused.status, refused.reason, refused.caller, refused.request_uri
                )
            except EnvironmentFault as error:
                self._counts["failures"] += 1
                self._logger.error("a refused call could not be recorded; it stays in the journal", error=str(error))
                break
            except Exception as error:  # a record that nobody can store must not stop the others
                added = False
                self._counts["unreadable"] += 1
                self._ledger.kept.add(segment)
                self._logger.error("a refused call cannot be recorded; its segment is kept", error=str(error))
            self._refusals.popleft()
            self._ledger.settle(segment)
            self._counts["refusals"] += added
            recorded += 1
        return recorded

    def _store_signalling(self) -> int:
        """Put what was said on the wire beside the messages. It comes after its call, whose row need not be there yet."""
        stored = 0
        while self._signalling and stored < DELIVERIES:
            segment, signalling = self._signalling[0]
            try:
                self._blobs.put(message_key(signalling.message_id, SIGNALLING_SUFFIX), signalling.document)
            except EnvironmentFault as error:
                self._counts["failures"] += 1
                self._logger.error("signalling could not be stored; it stays in the journal", error=str(error))
                break
            self._signalling.popleft()
            self._held_bytes -= len(signalling.document)
            self._ledger.settle(segment)
            stored += 1
        return stored

    # Forgetting

    def _tidy(self) -> None:
        """Let the journal forget the segments that nobody needs. What cannot go now goes later."""
        try:
            for segment in (*self._ledger.removable(), *self._without_records()):
                if segment == self._position and not self._exhausted:
                    continue
                try:
                    self._reader.remove(segment)
                except StateError:
                    continue  # the newest, or still being read
                self._counts["segments_removed"] += segment in self._ledger
                self._ledger.forget(segment)
        except EnvironmentFault as error:
            self._logger.warning("a segment cannot be removed", error=str(error))

    def _without_records(self) -> list[SegmentName]:
        """Return where a closed epoch may have a last segment in which there never was a record."""
        damaged = {damage.segment for damage in self._reader.damage}
        last = (SegmentName(epoch, self._last_number.get(epoch, 0) + 1) for epoch in self._reader.closed_epochs())
        return [segment for segment in last if segment not in damaged]
