"""Finished recordings become one row and one file each, whatever fails on the way."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aftertone.audio.flac import read_audio, read_tags
from aftertone.audio.vad import speech_spans
from aftertone.delivery import deliver
from aftertone.delivery.held import HeldCall
from aftertone.delivery.parcel import envelope_of, wrap
from aftertone.errors import DamagedError, StorageError
from aftertone.files import OsFiles
from aftertone.journal import Begin, Floor, JournalReader, Kind, Signalling, entry
from aftertone.model import Action, Clock, Codec, EndReason, Envelope, State, id_time_ms
from aftertone.model import Kind as MessageKind
from aftertone.store.blobs import SIGNALLING_SUFFIX, message_key
from tests.support.desk import NOW_UNIX_MS, Shop
from tests.support.recorder import Recorder
from tests.support.recordings import a_batch, an_envelope, rows_of, spoil

SHORT = rows_of(seconds=0.4)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    opened = Shop(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def line(shop: Shop) -> Iterator[Recorder]:
    recorder = Recorder(shop.journal)
    yield recorder
    recorder.stop()


def test_a_message_is_delivered_while_the_line_goes_on(shop: Shop, line: Recorder) -> None:
    deliverer = shop.deliverer()
    envelope = an_envelope(mailbox="Office")
    line.begin(envelope)
    line.packets(SHORT)
    assert deliverer.step(1) > 0
    assert shop.catalog.messages() == []
    line.key("5")
    line.key("#")
    line.end(reason=EndReason.KEY)
    deliverer.step(2)
    (message,) = shop.catalog.messages()
    assert message.id == envelope.id
    assert (message.mailbox, message.kind, message.state) == ("Office", MessageKind.MESSAGE, State.NEW)
    assert (message.duration_ms, message.audio_ms, message.cut_off) == (400, 400, False)
    assert (message.end_reason, message.codec, message.sample_rate_hz) == (EndReason.KEY, "PCMU", 8000)
    assert message.notes == ("keys pressed: 5#",)
    assert message.delivered_unix_ms == NOW_UNIX_MS
    assert (message.blob, message.blob_sha256) == (message_key(envelope.id), shop.blobs.sha256(message.blob))
    samples, rate_hz = read_audio(shop.blobs.get(message.blob))
    assert (len(samples), rate_hz) == (3200, 8000)
    assert shop.books().ok


def test_a_recording_without_a_row_that_cannot_be_read_waits_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path)
    line = Recorder(shop.journal)
    line.recording(an_envelope(seed=1), SHORT, 1)
    line.stop()
    shop.run(shop.deliverer())
    (lost,) = shop.catalog.messages()
    shop.close()
    shutil.rmtree(tmp_path / "catalog")
    shutil.rmtree(tmp_path / "journal")
    again, line = Shop(tmp_path), Recorder(tmp_path / "journal")
    honest = again.blobs.open

    def fail(key: str) -> Any:
        raise StorageError(f"{key} cannot be read")

    monkeypatch.setattr(again.blobs, "open", fail)
    deliverer = again.deliverer()
    line.recording(an_envelope(seed=2), SHORT, 2)
    now_ns = 10**12
    deliverer.step(now_ns)
    deliverer.step(now_ns + 1)
    assert [message.id for message in again.catalog.messages()] == [an_envelope(seed=2).id]
    assert lost.blob in deliverer.failing()[0]
    monkeypatch.setattr(again.blobs, "open", honest)
    deliverer.step(now_ns + 61 * 10**9)
    assert {message.id for message in again.catalog.messages()} == {an_envelope(seed=n).id for n in (1, 2)}
    assert deliverer.failing() == []
    line.stop()
    again.close()


def test_a_minute_is_delivered_in_a_fraction_of_a_second(shop: Shop, line: Recorder) -> None:
    deliverer = shop.deliverer()
    line.begin(an_envelope())
    line.packets(spoil(rows_of(seconds=60), 1))
    deliverer.step(1)
    line.end()
    began_s = time.process_time()
    deliverer.step(2)
    assert shop.catalog.messages()
    # The promise is 200 ms and bench/ holds it; this is only there to notice a loop that became quadratic.
    assert time.process_time() - began_s < 2


def test_silence_is_a_hang_up_with_its_audio(shop: Shop, line: Recorder) -> None:
    silence = [(*row[:5], b"\xff" * 160) for row in SHORT]
    line.recording(an_envelope(), silence)
    shop.run(shop.deliverer())
    (message,) = shop.catalog.messages()
    assert message.kind is MessageKind.HANGUP
    assert message.blob
    assert shop.books().ok


def test_a_call_without_audio_is_a_hang_up_without_a_blob(shop: Shop, line: Recorder) -> None:
    line.begin(an_envelope())
    line.end()
    shop.run(shop.deliverer())
    (message,) = shop.catalog.messages()
    assert (message.kind, message.blob, message.audio_ms) == (MessageKind.HANGUP, "", 0)
    assert list(shop.blobs.list()) == []
    assert shop.books().ok


def test_the_detector_dies_and_the_message_lives(shop: Shop, line: Recorder) -> None:
    def die(samples: Any, rate_hz: int) -> list[tuple[int, int]]:
        raise RuntimeError("model file is gone")

    line.recording(an_envelope(), SHORT)
    shop.run(shop.deliverer(detect=die))
    (message,) = shop.catalog.messages()
    assert message.kind is MessageKind.MESSAGE
    assert message.notes == ("nobody could tell whether somebody speaks (RuntimeError)",)


def test_speech_late_in_a_long_silence_is_found(shop: Shop, line: Recorder) -> None:
    rows = rows_of(seconds=20)
    quiet = [(*row[:5], b"\xff" * 160) if index < 950 else row for index, row in enumerate(rows)]
    line.recording(an_envelope(), quiet)
    shop.run(shop.deliverer())
    assert shop.catalog.messages()[0].kind is MessageKind.MESSAGE


def test_packets_that_nobody_understands_are_kept_as_a_message(shop: Shop, line: Recorder) -> None:
    envelope = replace(an_envelope(), payload_types=(), codec="EVRC")
    strange = [(*row[:4], 120, row[5]) for row in SHORT]
    line.recording(envelope, strange)
    shop.run(shop.deliverer())
    (message,) = shop.catalog.messages()
    assert message.kind is MessageKind.MESSAGE
    assert "the recording could not be decoded" in message.notes
    assert "the packets are kept beside the audio" in message.notes
    dump = shop.blobs.get(message_key(envelope.id, "rtpdump"))
    assert dump.startswith(b"#!rtpplay1.0 ")
    assert dump.count(SHORT[3][5]) >= 1
    assert message.audio_ms == 380
    assert shop.books().ok


def test_a_closed_epoch_cuts_off_what_has_no_end(shop: Shop) -> None:
    line = Recorder(shop.journal)
    line.begin(an_envelope())
    line.packets(SHORT)
    deliverer = shop.deliverer()
    deliverer.step(1)
    assert shop.catalog.messages() == []
    assert shop.books().in_progress == 1
    line.stop()
    assert shop.books().pending == 1
    deliverer.step(2)
    (message,) = shop.catalog.messages()
    assert (message.cut_off, message.end_reason, message.audio_ms) == (True, EndReason.CUT_OFF, 400)


def test_trailing_silence_is_kept_but_not_counted(shop: Shop, line: Recorder) -> None:
    line.begin(an_envelope())
    line.packets(SHORT)
    line.end(reason=EndReason.SILENCE, last_sound_ns=SHORT[9][0])
    shop.run(shop.deliverer())
    (message,) = shop.catalog.messages()
    assert (message.duration_ms, message.audio_ms) == (200, 400)


def test_refused_calls_are_recorded_once(shop: Shop, line: Recorder) -> None:
    line.refuse(1)
    line.refuse(2, status=480)
    shop.run(shop.deliverer())
    assert {refusal.status for refusal in shop.catalog.refusals()} == {486, 480}
    last = shop.catalog.last_change()
    shop.run(shop.deliverer())
    assert shop.catalog.last_change() == last
    assert shop.books().refused == 2


def test_a_refusal_that_is_not_recorded_keeps_its_segment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any) -> bool:
        raise StorageError("the disk is gone")

    for number in (1, 2):
        line = Recorder(shop.journal)
        line.refuse(number)
        line.stop()
    deliverer = shop.deliverer()
    with monkeypatch.context() as patch:
        patch.setattr(shop.catalog, "record_refusal", away)
        deliverer.step(1)
        assert len(shop.segments()) == 2
    shop.run(deliverer)
    assert len(shop.segments()) == 1
    assert shop.catalog.count_refusals() == 2


def signalling(envelope: Envelope, document: bytes = b'{"v":1}') -> bytes:
    return Signalling(envelope.id, 1, document).pack()


def stored(envelope: Envelope) -> str:
    return message_key(envelope.id, SIGNALLING_SUFFIX)


def test_signalling_is_stored_beside_its_message_before_and_after_it_is_delivered(shop: Shop, line: Recorder) -> None:
    first, second = an_envelope(seed=1), an_envelope(seed=2)
    deliverer = shop.deliverer()
    line.recording(first, SHORT, 1)
    deliverer.step(1)
    line.write(Kind.SIGNALLING, signalling(first, b"after"))
    line.begin(second, call=2)
    line.write(Kind.SIGNALLING, signalling(second, b"before"))
    shop.run(deliverer)
    line.end(2)
    shop.run(deliverer)
    assert shop.blobs.get(stored(first)) == b"after"
    assert shop.blobs.get(stored(second)) == b"before"
    assert len(shop.catalog.messages()) == 2
    assert deliverer.metrics()["held_bytes"] == 0
    assert shop.books().ok
    again = shop.deliverer()
    shop.run(again)
    assert again.metrics()["unreadable"] == 0


def test_signalling_that_is_not_stored_keeps_its_segment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        line = Recorder(shop.journal)
        line.write(Kind.SIGNALLING, signalling(an_envelope(seed=number)))
        line.stop()
    deliverer = shop.deliverer()

    def away(*args: Any) -> bool:
        raise StorageError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(shop.blobs, "put", away)
        deliverer.step(1)
        assert len(shop.segments()) == 2
        assert deliverer.metrics()["waiting"] == 2
    shop.run(deliverer)
    assert len(shop.segments()) == 1
    assert all(shop.blobs.exists(stored(an_envelope(seed=number))) for number in (1, 2))


def test_signalling_of_a_call_without_audio_is_no_stray_when_the_catalog_is_gone(shop: Shop, line: Recorder) -> None:
    shop.blobs.put(stored(an_envelope()), b"{}")
    assert shop.books().ok
    shop.run(shop.deliverer())
    assert shop.catalog.messages() == []


def test_an_older_reader_passes_signalling_and_delivers_the_messages(
    shop: Shop, line: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a version that does not know kind 6 does."""
    monkeypatch.delitem(entry._UNPACK, Kind.SIGNALLING)
    line.write(Kind.SIGNALLING, signalling(an_envelope()))
    line.recording(an_envelope(), SHORT)
    deliverer = shop.deliverer()
    shop.run(deliverer)
    assert len(shop.catalog.messages()) == 1
    assert deliverer.metrics()["unreadable"] == 1


def test_the_begin_record_says_which_message_it_is(shop: Shop, line: Recorder) -> None:
    envelope = an_envelope(seed=1)
    text = json.dumps(an_envelope(seed=2).to_json()).encode()
    line.write(Kind.BEGIN, Begin(envelope.id, 7, text, b"", 1, 1).pack())
    line.end()
    shop.run(shop.deliverer())
    assert [message.id for message in shop.catalog.messages()] == [envelope.id]


def test_the_journal_forgets_what_is_delivered_and_nothing_else(shop: Shop) -> None:
    line = Recorder(shop.journal, segment_bytes=32_768)
    line.begin(an_envelope(seed=1), 1)
    for call in (2, 3, 4, 5):
        line.recording(an_envelope(seed=call), SHORT, call)
    before = shop.segments()
    assert len(before) >= 3
    deliverer = shop.deliverer()
    shop.run(deliverer)
    assert shop.segments() == [before[0], before[-1]]
    line.end(1)
    shop.run(deliverer)
    assert shop.segments() == [before[-1]]
    line.stop()
    Recorder(shop.journal).stop()
    shop.run(deliverer)
    shop.run(deliverer)
    assert shop.segments() == ["e00000002-n00000001.journal"]
    assert deliverer.metrics()["segments"] == 0


def test_segments_in_which_nothing_ever_happened_go_too(shop: Shop) -> None:
    for _ in range(4):
        Recorder(shop.journal).stop()
    shop.run(shop.deliverer())
    assert shop.segments() == ["e00000004-n00000001.journal"]


def test_a_fresh_start_delivers_nothing_twice(shop: Shop, line: Recorder) -> None:
    for call in (1, 2):
        line.recording(an_envelope(seed=call), SHORT, call)
    shop.run(shop.deliverer())
    last = shop.catalog.last_change()
    again = shop.deliverer()
    shop.run(again)
    assert shop.catalog.last_change() == last
    assert again.metrics()["delivered"] == 0
    assert shop.books().ok


def test_the_rest_of_a_delivered_recording_is_no_new_one(shop: Shop) -> None:
    line = Recorder(shop.journal, segment_bytes=32_768)
    line.recording(an_envelope(seed=1), rows_of(seconds=8), 1)
    line.begin(an_envelope(seed=2), 2)
    shop.run(shop.deliverer())
    assert shop.segments()[0] != "e00000001-n00000001.journal", "the beginning of the first recording is gone"
    again = shop.deliverer()
    shop.run(again)
    assert len(shop.catalog.messages()) == 1
    assert shop.books().ok
    line.stop()


def test_a_poisoned_recording_does_not_stop_the_others(
    shop: Shop, line: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(call: Any, envelope: Any, *args: Any, **kwargs: Any) -> Any:
        if envelope.id == an_envelope(seed=1).id:
            raise ZeroDivisionError("boom")
        return wrap(call, envelope, *args, **kwargs)

    deliverer = shop.deliverer()
    with monkeypatch.context() as patch:
        patch.setattr(deliver, "wrap", poisoned)
        for call in (1, 2, 3):
            line.recording(an_envelope(seed=call), SHORT, call)
        for _ in range(3):
            shop.now_ns += 10**9
            deliverer.step(shop.now_ns)
        assert len(shop.catalog.messages()) == 2
        assert deliverer.failing() == ["call 1 of epoch 1: ZeroDivisionError: boom (3 attempts; kept in the journal)"]
        assert deliverer.metrics()["failing"] == 1
        assert shop.books().pending == 1
    shop.run(deliverer)
    assert len(shop.catalog.messages()) == 3


def test_a_store_that_is_away_is_waited_for(shop: Shop, line: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any) -> bool:
        raise StorageError("the disk is gone")

    for call in range(1, 8):
        line.recording(an_envelope(seed=call), SHORT, call)
    line.refuse(1)
    deliverer = shop.deliverer()
    with monkeypatch.context() as patch:
        patch.setattr(shop.catalog, "record_delivery", away)
        patch.setattr(shop.catalog, "record_refusal", away)
        for _ in range(5):
            shop.now_ns += 10**8
            deliverer.step(shop.now_ns)
        assert deliverer.metrics()["waiting"] == 8
    shop.run(deliverer)
    assert len(shop.catalog.messages()) == 7
    assert shop.books().ok
    assert shop.books().pending == 0


def test_with_the_store_away_reading_stops_when_memory_is_full(
    shop: Shop, line: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def away(*args: Any) -> bool:
        raise StorageError("the disk is gone")

    (tmp_path / "file").write_bytes(b"")
    deliverer = shop.deliverer(memory_bytes=5_000, spill=tmp_path / "file" / "no")
    with monkeypatch.context() as patch:
        patch.setattr(shop.catalog, "record_delivery", away)
        for call in range(1, 30):
            line.recording(an_envelope(seed=call), SHORT, call)
            shop.now_ns += 10**8
            deliverer.step(shop.now_ns)
        assert deliverer.metrics()["held_bytes"] < 20_000
    shop.run(deliverer)
    assert len(shop.catalog.messages()) == 29
    assert deliverer.metrics()["held_bytes"] == 0


def test_a_journal_that_cannot_be_read_is_tried_again(shop: Shop, line: Recorder) -> None:
    class Flaky(JournalReader):
        def closed_epochs(self) -> frozenset[int]:
            if shop.now_ns < 2 * 10**12:
                raise StorageError("the journal cannot be listed")
            return super().closed_epochs()

    line.recording(an_envelope(), SHORT)
    deliverer = shop.deliverer(reader=Flaky(OsFiles(), shop.journal))
    assert deliverer.step(shop.now_ns) == 0
    assert deliverer.metrics()["failures"] == 1
    shop.now_ns = 2 * 10**12
    shop.run(deliverer)
    assert len(shop.catalog.messages()) == 1


def test_packets_spill_to_disk_and_come_back(shop: Shop, line: Recorder) -> None:
    deliverer = shop.deliverer(memory_bytes=10_000)
    rows = {call: rows_of(seconds=2, ssrc=call) for call in range(1, 6)}
    for call in rows:
        line.begin(an_envelope(seed=call), call)
    for start in range(0, 100, 20):
        for call in rows:
            line.packets(rows[call][start : start + 20], call)
        deliverer.step(start)
    assert deliverer.metrics()["held_bytes"] <= 10_000
    assert list(shop.root.rglob(".spill/*"))
    for call in rows:
        line.end(call)
    shop.run(deliverer)
    whole = [read_audio(shop.blobs.get(message.blob))[0] for message in shop.catalog.messages()]
    assert [len(samples) for samples in whole] == [16_000] * 5
    assert all(np.array_equal(samples, whole[0]) for samples in whole)
    assert not list(shop.root.rglob(".spill/*"))


def test_a_spill_file_that_is_gone_is_read_from_the_journal_again(shop: Shop, line: Recorder) -> None:
    deliverer = shop.deliverer(memory_bytes=100)
    line.begin(an_envelope())
    line.packets(SHORT)
    deliverer.step(1)
    for path in shop.root.rglob(".spill/*"):
        path.unlink()
    line.end()
    shop.run(deliverer)
    (message,) = shop.catalog.messages()
    assert (message.audio_ms, message.lost_packets) == (400, 0)


def test_spill_files_of_a_dead_process_are_removed(shop: Shop) -> None:
    folder = shop.blobs.root / ".spill"
    folder.mkdir()
    (folder / "e00000001-c00000001").write_bytes(b"old")
    shop.run(shop.deliverer())
    assert list(folder.iterdir()) == []


def test_a_deleted_catalog_is_rebuilt(shop: Shop, line: Recorder) -> None:
    for call in (1, 2):
        line.recording(replace(an_envelope(seed=call), forwarded=True), SHORT, call)
    shop.run(shop.deliverer())
    before = shop.catalog.messages()
    shop.catalog.act(before[0].id, Action.HEAR, 5)
    shop.close()
    for path in (shop.root / "catalog").iterdir():
        path.unlink()
    again = Shop(shop.root)
    deliverer = again.deliverer()
    again.run(deliverer)
    assert again.catalog.messages() == before
    assert deliverer.metrics()["adopted"] == 2
    assert again.books().ok
    again.close()


def test_a_stranger_among_the_blobs_is_left_alone(shop: Shop) -> None:
    shop.blobs.put("messages/00/music.flac", b"not even flac")
    shop.run(shop.deliverer())
    assert shop.catalog.messages() == []
    assert shop.blobs.exists("messages/00/music.flac")
    assert shop.books().strays == ("messages/00/music.flac",)


def test_an_envelope_that_cannot_be_read_still_gives_a_message(shop: Shop, line: Recorder) -> None:
    line.write(Kind.BEGIN, Begin(an_envelope().id, 7, b"{nonsense", b"", 1, 1_750_000_000_000).pack())
    line.packets(SHORT)
    line.end()
    line.recording(an_envelope(seed=2, mailbox="no such/name"), SHORT, 8)
    shop.run(shop.deliverer())
    first, second = sorted(shop.catalog.messages(), key=lambda message: message.notes)
    assert (first.mailbox, second.mailbox) == ("main", "main")
    assert first.notes == ("addressed to 'no such/name', which cannot be a mailbox",)
    assert second.id == an_envelope().id
    assert second.notes == ("the envelope of this recording could not be read; its caller and mailbox are not known",)
    assert second.audio_ms == 400


def test_a_record_from_a_later_version_keeps_its_segment(shop: Shop) -> None:
    line = Recorder(shop.journal)
    line.recording(an_envelope(), SHORT)
    line.committer.append(99, b"from the future")  # type: ignore[arg-type]
    line.refuse(1)
    line.stop()
    Recorder(shop.journal).stop()
    deliverer = shop.deliverer()
    shop.run(deliverer)
    assert len(shop.catalog.messages()) == 1
    assert deliverer.metrics()["unreadable"] == 1
    assert len(shop.segments()) == 2
    assert not shop.books().ok


def test_a_damaged_segment_gives_what_it_can_and_is_put_aside(shop: Shop) -> None:
    line = Recorder(shop.journal)
    line.begin(an_envelope(seed=1), 1)
    line.packets(rows_of(seconds=2), 1)
    line.begin(an_envelope(seed=2), 2)
    line.packets(rows_of(seconds=2, ssrc=5), 2)
    line.end(1)
    line.end(2)
    line.stop()
    Recorder(shop.journal).stop()
    path = shop.journal / "e00000001-n00000001.journal"
    content = bytearray(path.read_bytes())
    blocks = [at for at in range(0, len(content), 4096) if content[at : at + 4] == b"\xf5Atj"]
    content[blocks[6]] ^= 1  # one batch of the first recording
    content[blocks[13] + 60] ^= 1  # the beginning of the second
    path.write_bytes(content)
    deliverer = shop.deliverer()
    shop.run(deliverer)
    shop.run(deliverer)
    found = {message.mailbox_reason: message for message in shop.catalog.messages()}
    known, makeshift = found["default mailbox"], found[""]
    assert known.audio_ms == 2000
    assert known.lost_packets == 10
    assert any("journal was damaged" in note for note in known.notes)
    assert makeshift.audio_ms == 2000
    assert any("lost the beginning" in note for note in makeshift.notes)
    assert (known.clock, makeshift.clock) == (Clock.TRUSTED, Clock.UNSURE)
    assert id_time_ms(makeshift.id) == 1_750_000_009_000, "it has its place among the others"
    assert shop.segments() == ["e00000001-n00000001.journal.damaged", "e00000002-n00000001.journal"]
    shop.run(shop.deliverer())
    assert len(shop.catalog.messages()) == 2


def test_a_makeshift_takes_its_place_behind_what_came_before() -> None:
    call = HeldCall((3, 7), after_damage=True)
    floor = Floor(1_800_000_000_000, 5)
    envelope, _ = envelope_of(call, 9, floor=floor)
    assert (id_time_ms(envelope.id), envelope.id.version) == (floor.id_ms, 7)
    assert envelope_of(call, 10, floor=floor)[0].id == envelope.id, "the clock of the delivery changes nothing"
    assert envelope_of(HeldCall((3, 8), after_damage=True), 9, floor=floor)[0].id != envelope.id
    assert (envelope.started_unix_ms, envelope.clock) == (9, Clock.UNSURE)


def test_a_damaged_catalog_costs_nothing(shop: Shop, line: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*args: Any) -> bool:
        raise DamagedError("the catalog is damaged")

    line.recording(an_envelope(), SHORT)
    deliverer = shop.deliverer()
    with monkeypatch.context() as patch:
        patch.setattr(shop.catalog, "has_message", damaged)
        deliverer.step(1)
        assert deliverer.metrics()["waiting"] == 1
    shop.run(deliverer)
    assert len(shop.catalog.messages()) == 1


def test_a_long_backlog_is_read_in_pieces(shop: Shop, line: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "READ_BYTES", 5_000)
    monkeypatch.setattr(deliver, "DELIVERIES", 1)
    for call in range(1, 6):
        line.recording(an_envelope(seed=call), SHORT, call)
    deliverer = shop.deliverer()
    deliverer.step(1)
    assert 0 < deliverer.metrics()["held_bytes"] < 7_000
    shop.run(deliverer)
    assert len(shop.catalog.messages()) == 5
    assert {message.lost_packets for message in shop.catalog.messages()} == {0}


def test_the_audio_file_says_everything(shop: Shop, line: Recorder) -> None:
    envelope = an_envelope(Codec.OPUS)
    line.recording(envelope, rows_of(Codec.OPUS, 0.4))
    shop.run(shop.deliverer())
    (message,) = shop.catalog.messages()
    tags = read_tags(shop.blobs.get(message.blob))
    assert str(envelope.id) in tags["AFTERTONE_ENVELOPE"]
    assert '"sample_rate_hz":48000' in tags["AFTERTONE_DELIVERY"]


def test_packets_of_many_calls_in_one_batch(shop: Shop, line: Recorder) -> None:
    for call in (1, 2):
        line.begin(an_envelope(seed=call), call)
    rows = [
        row for pair in zip(rows_of(seconds=0.4, ssrc=1), rows_of(seconds=0.4, ssrc=2), strict=True) for row in pair
    ]
    batch = a_batch(rows)
    line.batch(replace(batch, call=np.array([1, 2] * 20, np.uint32)))
    line.end(1)
    line.end(2)
    shop.run(shop.deliverer())
    assert {message.audio_ms for message in shop.catalog.messages()} == {400}


def test_the_real_detector_hears_nothing_in_silence(shop: Shop, line: Recorder) -> None:
    silence = [(*row[:5], b"\xff" * 160) for row in SHORT]
    line.recording(an_envelope(), silence)
    shop.run(shop.deliverer(detect=speech_spans))
    assert shop.catalog.messages()[0].kind is MessageKind.HANGUP
