"""The books say what is wrong, and balance when nothing is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aftertone.delivery.verify import Books
from aftertone.model import Action
from aftertone.store.blobs import message_key
from tests.support.desk import Shop
from tests.support.messages import a_message
from tests.support.recorder import Recorder
from tests.support.recordings import an_envelope, rows_of

SHORT = rows_of(seconds=0.2)


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


def test_empty_books_balance(shop: Shop) -> None:
    books = shop.books()
    assert books.ok
    assert json.loads(json.dumps(books.to_json()))["ok"] is True
    assert set(books.to_json()) == {"ok", *Books.__slots__}


def test_everything_is_counted(shop: Shop, line: Recorder) -> None:
    line.recording(an_envelope(seed=1), SHORT, 1)
    line.begin(an_envelope(seed=2), 2)
    line.end(2)
    line.refuse(1)
    shop.run(shop.deliverer())
    shop.catalog.act(an_envelope(seed=1).id, Action.DELETE, 1)
    line.begin(an_envelope(seed=3), 3)
    line.recording(an_envelope(seed=4), SHORT, 4)
    line.refuse(2)
    books = shop.books()
    assert books.ok
    assert (books.messages, books.hangups, books.refused, books.deleted) == (1, 1, 1, 1)
    assert (books.in_journal, books.in_progress, books.pending) == (4, 1, 2)
    assert (books.blobs, books.bytes) == (1, shop.blobs.size(message_key(an_envelope(seed=1).id)))


def test_a_recording_that_is_gone(shop: Shop, line: Recorder) -> None:
    line.recording(an_envelope(), SHORT)
    shop.run(shop.deliverer())
    shop.blobs.delete(message_key(an_envelope().id))
    books = shop.books()
    assert not books.ok
    assert books.missing == (f"message {an_envelope().id}: {message_key(an_envelope().id)}",)


def test_a_recording_that_is_another(shop: Shop, line: Recorder) -> None:
    line.recording(an_envelope(), SHORT)
    shop.run(shop.deliverer())
    shop.blobs.put(message_key(an_envelope().id), b"something else")
    (wrong,) = shop.books().wrong
    assert "has 14 bytes" in wrong


def test_a_row_with_an_impossible_key(shop: Shop) -> None:
    shop.catalog.record_delivery(a_message(1, blob="../../etc/passwd"))
    assert len(shop.books().wrong) == 1


def test_a_recording_without_a_row(shop: Shop) -> None:
    shop.blobs.put(message_key(an_envelope().id), b"x")
    shop.blobs.put("greetings/00.flac", b"greetings have no rows")
    books = shop.books()
    assert (books.strays, books.problems) == ((message_key(an_envelope().id),), 1)


def test_a_recording_whose_row_is_still_to_come_is_none_of_these(shop: Shop, line: Recorder) -> None:
    line.recording(an_envelope(), SHORT)
    shop.blobs.put(message_key(an_envelope().id), b"x")
    books = shop.books()
    assert books.ok
    assert books.pending == 1


def test_a_greeting_that_is_gone(shop: Shop) -> None:
    shop.catalog.add_mailbox("main")
    shop.catalog.set_greeting("main", "greetings/00.flac", "00")
    assert shop.books().missing == ("the greeting of mailbox main: greetings/00.flac",)


def test_a_call_that_began_twice(shop: Shop, line: Recorder) -> None:
    line.recording(an_envelope(), SHORT, 1)
    line.recording(an_envelope(), SHORT, 2)
    assert shop.books().doubles == (str(an_envelope().id),)


def test_damage_is_named_once(shop: Shop) -> None:
    line = Recorder(shop.journal)
    line.begin(an_envelope())
    line.packets(SHORT, each=2)
    line.end()
    line.stop()
    path = shop.journal / "e00000001-n00000001.journal"
    content = bytearray(path.read_bytes())
    content[4096 * 4] ^= 1
    path.write_bytes(content)
    books = shop.books()
    assert len(books.damage) == 1
    assert books.damage[0].startswith("journal e00000001-n00000001.journal at ")
    assert not books.ok


def test_verify_changes_nothing(shop: Shop, line: Recorder) -> None:
    line.recording(an_envelope(), SHORT)
    before = {path: path.stat().st_mtime_ns for path in shop.root.rglob("*") if path.is_file()}
    shop.books()
    after = {path: path.stat().st_mtime_ns for path in shop.root.rglob("*") if path.is_file()}
    watched = {path for path in before if path.suffix not in (".db-shm", ".db-wal")}
    assert {path: before[path] for path in watched} == {path: after[path] for path in watched}
