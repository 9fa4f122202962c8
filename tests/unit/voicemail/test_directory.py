"""The directory snapshot: whole or not at all, and what it says about a call."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.errors import DamagedError, StorageError
from aftertone.files import OsFiles
from aftertone.model import Mailbox
from aftertone.voicemail import directory
from aftertone.voicemail.directory import Directory

ONE = Directory(1, "main", {"main": Mailbox("main")})
TWO = Directory(2, "main", {"main": Mailbox("main"), "office": Mailbox("office", 0, "abc.flac", ("+49 30 5550100",))})


def test_a_machine_with_one_mailbox_takes_every_call_for_it() -> None:
    assert ONE.named("+49301234") is None
    assert ONE.fallback("+49301234") == Mailbox("main")


def test_a_machine_with_several_knows_its_names_and_nothing_else() -> None:
    found = TWO.named("OFFICE")
    assert found is not None
    assert found.name == "office"
    assert (TWO.named("nobody"), TWO.fallback("nobody")) == (None, None)
    assert TWO.fallback("") == Mailbox("main")


@pytest.mark.parametrize("text", ["+49305550100", "030 5550100", "5550100", "0049 30 555 0100"])
def test_a_mailbox_is_found_by_its_number_however_it_is_spelt(text: str) -> None:
    found = TWO.named(text)
    assert found is not None
    assert found.name == "office"


def test_a_mailbox_whose_name_is_a_number_is_found_by_its_spellings_too() -> None:
    boxes = Directory(1, "main", {"main": Mailbox("main"), "+49305550100": Mailbox("+49305550100")})
    assert boxes.named("0305550100") == Mailbox("+49305550100")


def test_a_snapshot_of_a_desk_that_knew_no_numbers_is_read() -> None:
    text = '{"v":1,"version":3,"default_mailbox":"main","mailboxes":[{"name":"main","rings":null,"greeting":null}]}'
    assert directory.from_json(text) == Directory(3, "main", {"main": Mailbox("main")})


def test_what_was_published_is_read_back(tmp_path: Path) -> None:
    directory.publish(tmp_path / "d", TWO, {"abc.flac": b"sound"})
    assert directory.read(tmp_path / "d") == TWO
    assert (tmp_path / "d" / "greetings" / "abc.flac").read_bytes() == b"sound"


def test_greetings_nobody_names_are_forgotten(tmp_path: Path) -> None:
    directory.publish(tmp_path, TWO, {"abc.flac": b"sound"})
    directory.publish(tmp_path, ONE, {})
    assert list((tmp_path / "greetings").iterdir()) == []


def test_a_half_written_greeting_of_an_earlier_life_is_written_again(tmp_path: Path) -> None:
    directory.publish(tmp_path, TWO, {"abc.flac": b"so"})
    directory.publish(tmp_path, TWO, {"abc.flac": b"sound"})
    assert (tmp_path / "greetings" / "abc.flac").read_bytes() == b"sound"


def test_a_snapshot_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.publish(tmp_path, ONE, {})

    def fail(_: OsFiles, handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OsFiles, "fdatasync", fail)
    with pytest.raises(StorageError, match="No space left"):
        directory.publish(tmp_path, TWO, {"abc.flac": b"sound"})
    assert directory.read(tmp_path) == ONE
    assert list(tmp_path.glob(".*.tmp")) == []


def test_no_snapshot_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        directory.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"v": 2}',
        '{"v": 1, "version": 1, "default_mailbox": "main", "mailboxes": 7}',
        '{"v":1,"version":1,"default_mailbox":"main","mailboxes":[{"name":"a","greeting":"../../etc/passwd"}]}',
        '{"v":1,"version":1,"default_mailbox":"main","mailboxes":[{"name":"a","rings":"x"}]}',
    ],
)
def test_a_damaged_snapshot_is_said_to_be(text: str) -> None:
    with pytest.raises(DamagedError):
        directory.from_json(text)


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        directory.from_json(text)
    except DamagedError:
        return
    raise AssertionError("arbitrary text is no directory")
