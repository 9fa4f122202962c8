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
TWO = Directory(2, "main", {"main": Mailbox("main"), "office": Mailbox("office", 0, "abc.flac")})


def test_a_machine_with_one_mailbox_takes_every_call_for_it() -> None:
    found = ONE.find("+49301234")
    assert found is not None
    assert found[0].name == "main"
    assert found[1] == "default mailbox"


def test_a_machine_with_several_knows_its_names_and_nothing_else() -> None:
    found = TWO.find("OFFICE")
    assert found is not None
    assert (found[0].name, found[1]) == ("office", "request URI")
    assert TWO.find("nobody") is None
    nameless = TWO.find("")
    assert nameless is not None
    assert nameless[0].name == "main"


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
