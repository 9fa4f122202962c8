"""``aftertone mailbox``: add, list, show, greeting."""

from __future__ import annotations

from pathlib import Path

import pytest

from aftertone.voicemail import directory
from tests.unit.cli.shell import Shell, write_audio


def test_a_mailbox_is_added_listed_shown_and_known_to_the_line(shell: Shell) -> None:
    assert shell("mailbox", "add", "anna", "--rings", "2").out == "mailbox anna is there\n"
    assert shell("mailbox", "add", "bert", "--json").json()["rings"] is None
    names = [box["name"] for box in shell("mailbox", "list", "--json").json()]
    assert names == ["anna", "bert", "main", "office"]
    assert directory.read(shell.data / "directory").mailboxes["anna"].rings == 2
    table = [line.split() for line in shell("mailbox", "list").out.splitlines()]
    assert table[0] == ["mailbox", "rings", "greeting", "new", "heard", "numbers"]
    assert ["anna", "2", "default", "0", "0"] in table
    assert ["main", "default", "default", "1", "1"] in table
    shown = shell("mailbox", "show", "ANNA")
    assert dict(line.split(None, 1) for line in shown.out.splitlines())["rings"] == "2"
    assert shell("mailbox", "show", "anna", "--json").json()["counts"]["new"] == 0


def test_numbers_are_given_changed_and_taken_away(shell: Shell) -> None:
    assert shell("mailbox", "add", "anna", "--number", "+1 202 555 0143", "--number", "200").status == 0
    assert directory.read(shell.data / "directory").mailboxes["anna"].numbers == ("+1 202 555 0143", "200")
    assert "+1 202 555 0143, 200" in shell("mailbox", "show", "anna").out
    assert shell("mailbox", "set", "anna", "--number", "201", "--rings", "2").out == "mailbox anna is changed\n"
    changed = directory.read(shell.data / "directory").mailboxes["anna"]
    assert (changed.numbers, changed.rings) == (("201",), 2)
    assert "already" in shell.fails("mailbox", "set", "office", "--number", "201")
    assert "no telephone number" in shell.fails("mailbox", "set", "office", "--number", "ann")
    again = shell("mailbox", "set", "anna", "--no-numbers", "--default-rings", "--json").json()
    assert (again["numbers"], again["rings"]) == ([], None)
    for wrong in ((), ("--no-numbers", "--number", "1"), ("--rings", "1", "--default-rings")):
        assert "say what to change" in shell.fails("mailbox", "set", "anna", *wrong)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../main", "[red]", "x" * 65, "müller", "\x1b[31m"])
def test_what_cannot_be_a_name(shell: Shell, name: str) -> None:
    shell.fails("mailbox", "add", name)
    assert len(shell("mailbox", "list", "--json").json()) == 2


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a b", "a/b", "../messages", "main?x=1", "main#x", "%2e%2e", "nobody", "müller"]
)
def test_what_is_no_mailbox_is_not_shown(shell: Shell, name: str) -> None:
    shell.fails("mailbox", "show", name)
    shell.fails("mailbox", "greeting", "clear", name)


def test_a_name_that_is_taken(shell: Shell) -> None:
    assert "already" in shell.fails("mailbox", "add", "MAIN")


def test_rings_that_nobody_waits_for(shell: Shell) -> None:
    assert "rings" in shell.fails("mailbox", "add", "anna", "--rings", "99")


def test_a_greeting_is_set_known_to_the_line_and_cleared(shell: Shell, tmp_path: Path) -> None:
    file = write_audio(tmp_path / "hello.wav")
    assert shell("mailbox", "greeting", "set", "office", file).out == "mailbox office has a new greeting\n"
    greeting = directory.read(shell.data / "directory").mailboxes["office"].greeting
    assert greeting is not None
    assert (shell.data / "directory" / "greetings" / greeting).read_bytes().startswith(b"fLaC")
    assert ["office", "1", "own", "1", "0"] in [line.split() for line in shell("mailbox", "list").out.splitlines()]
    again = shell("mailbox", "greeting", "set", "office", file, "--json").json()
    assert again["greeting"]["sha256"] == greeting.removesuffix(".flac")
    assert shell("mailbox", "greeting", "clear", "office").out == "mailbox office has the default greeting\n"
    assert directory.read(shell.data / "directory").mailboxes["office"].greeting is None
    assert shell("mailbox", "greeting", "clear", "office", "--json").json()["greeting"] is None


def test_a_greeting_that_cannot_be(shell: Shell, tmp_path: Path) -> None:
    noise, empty = tmp_path / "noise.wav", tmp_path / "empty.wav"
    noise.write_bytes(b"no audio at all")
    empty.write_bytes(b"")
    assert "cannot read" in shell.fails("mailbox", "greeting", "set", "main", tmp_path / "nowhere.wav")
    assert "cannot read" in shell.fails("mailbox", "greeting", "set", "main", tmp_path)
    shell.fails("mailbox", "greeting", "set", "main", noise)
    assert "empty" in shell.fails("mailbox", "greeting", "set", "main", empty)
    assert "no mailbox" in shell.fails("mailbox", "greeting", "set", "nobody", write_audio(tmp_path / "a.wav"))
    assert directory.read(shell.data / "directory").mailboxes["main"].greeting is None


def test_a_greeting_longer_than_the_settings_allow(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERTONE_CALLS__GREETING_LONGEST_S", "1")
    shell.fails("mailbox", "greeting", "set", "main", write_audio(tmp_path / "long.wav", 2.5))
