"""Journals and audio of earlier versions are read: what a machine had not delivered before an update, and a catalog that is made again.

``files_0002`` is what the program left whose catalog had version 0002, before holds, reports, encryption and signalling: the journal of an epoch
with two calls, the second without an end, and a refusal; and the first message as that program delivered it. Never change it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from aftertone.audio.flac import read_audio, read_tags
from aftertone.delivery.deliver import Deliverer
from aftertone.delivery.held import HeldCall
from aftertone.delivery.parcel import wrap
from aftertone.delivery.verify import verify
from aftertone.files import OS_FILES
from aftertone.journal import End, Event, JournalReader
from aftertone.journal.committer import Committer
from aftertone.model import Caller, EndReason, Kind, Message, Origin
from aftertone.store.blobs import DirectoryBlobs, message_key
from aftertone.store.catalog import Catalog
from aftertone.store.rebuild import adopt
from tests.support.files import Clock
from tests.support.recordings import a_batch, an_envelope

OLD = Path(__file__).parent / "files_0002"


def _is_as_it_was(message: Message, seed: int) -> None:
    envelope = an_envelope(seed=seed)
    assert (message.id, message.caller, message.started_unix_ms) == (
        envelope.id,
        Caller("+15550100", "Ada"),
        envelope.started_unix_ms,
    )
    assert (message.kind, message.mailbox, message.mailbox_reason) == (Kind.MESSAGE, "main", "default mailbox")
    assert (message.duration_ms, message.codec, message.lost_packets) == (400, "PCMU", 0)
    assert message.notes == ("keys pressed: 7",)
    assert (message.srtp, message.holds, message.end_detail, message.origin, message.peer_lost) == (
        "",
        (),
        "",
        Origin(),
        None,
    )


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(tmp_path / "catalog.db")


def test_a_journal_that_an_earlier_version_left_is_delivered(tmp_path: Path, catalog: Catalog) -> None:
    journal = tmp_path / "journal"
    shutil.copytree(OLD / "journal", journal)
    # The line of today begins an epoch, which closes the old one.
    line = Committer(OS_FILES, journal, boot_id=bytes(16), notify=lambda _: None, clock_ns=Clock())
    assert line.open() == 2
    blobs = DirectoryBlobs(tmp_path / "blobs")
    reader = JournalReader(OS_FILES, journal)
    deliverer = Deliverer(reader, blobs, catalog, detect=lambda samples, rate_hz: [(0, 1)])
    for second in range(1, 6):
        deliverer.step(second * 10**9)
    whole, cut = sorted(catalog.every_message(), key=lambda message: message.id)
    _is_as_it_was(whole, 1)
    _is_as_it_was(cut, 2)
    assert (whole.end_reason, whole.cut_off) == (EndReason.CALLER_HUNG_UP, False)
    assert (cut.end_reason, cut.cut_off) == (EndReason.CUT_OFF, True)
    (refusal,) = catalog.refusals()
    assert (refusal.id, refusal.status, refusal.caller) == (UUID(int=9), 486, Caller("5", "Bob"))
    assert deliverer.metrics()["unreadable"] == deliverer.metrics()["damage"] == 0
    books = verify(JournalReader(OS_FILES, journal), blobs, catalog)
    assert books.ok
    assert not books.pending
    # The sound is what the program of then made of it.
    samples, rate_hz = read_audio(blobs.get(whole.blob))
    before, before_hz = read_audio((OLD / "message.flac").read_bytes())
    assert rate_hz == before_hz
    assert (samples == before).all()
    line.close()


def test_audio_of_an_earlier_version_makes_its_row_again(tmp_path: Path, catalog: Catalog) -> None:
    blobs = DirectoryBlobs(tmp_path / "blobs")
    blobs.put(message_key(an_envelope(seed=1).id), (OLD / "message.flac").read_bytes())
    assert adopt(catalog, blobs, read_tags, lambda: 5).added == 1
    (message,) = catalog.every_message()
    _is_as_it_was(message, 1)
    assert message.end_reason is EndReason.CALLER_HUNG_UP


def test_a_catalog_that_is_made_again_knows_all_that_is_known_of_a_call_today(tmp_path: Path, catalog: Catalog) -> None:
    envelope = replace(
        an_envelope(seed=1),
        srtp="AEAD_AES_128_GCM",
        origin=Origin("trunk", "pbx", "P-Asserted-Identity", "passed", "7", None),
    )
    rows = [(10**9 + n * 20_000_000, n, n * 160, 7, 0, bytes([n + 1]) * 160) for n in range(50)]
    call = HeldCall((1, 1), after_damage=False, end=End(1, 3 * 10**9, 5, "caller_hung_up"))
    call.packets.append(a_batch(rows, 1))
    call.events += [
        Event(1, rows[10][0], "hold"),
        Event(1, rows[20][0], "resume"),
        Event(1, rows[30][0], "reason", "Q.850;cause=16"),
        Event(1, rows[40][0], "quality", '{"peer_lost": 3, "round_trip_ms": 40}'),
        Event(1, rows[40][0], "a name of tomorrow", "{}"),
    ]
    parcel = wrap(call, envelope, call.packets.load(1), detect=lambda samples, rate_hz: [(0, 1)])
    message = parcel.message
    assert message.holds
    assert (message.end_detail, message.peer_lost, message.round_trip_ms) == ("Q.850;cause=16", 3, 40)
    blobs = DirectoryBlobs(tmp_path / "blobs")
    facts = blobs.put(message.blob, parcel.audio)
    adopt(catalog, blobs, read_tags, lambda: 5)
    (found,) = catalog.every_message()
    assert found == replace(
        message, blob_sha256=facts.sha256, blob_bytes=facts.size, delivered_unix_ms=found.delivered_unix_ms
    )
