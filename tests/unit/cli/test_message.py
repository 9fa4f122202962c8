"""``aftertone message``: every command, on a desk inside this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from aftertone.audio.flac import read_audio
from aftertone.model import Caller, Clock, mint_id
from tests.support.messages import a_message
from tests.unit.cli.shell import RATE_HZ, SAMPLES, Shell, deliver, some_messages

OLDEST, HEARD, HANGUP, DELETED, NEWEST = (str(message.id) for message in some_messages())


def test_the_list_shows_messages_newest_first_and_hang_ups_apart(shell: Shell) -> None:
    done = shell("message", "list")
    assert done.status == 0
    assert done.err == ""
    spoken, _, silent = done.out.partition("Hung up without a word:")
    assert spoken.index(NEWEST[-8:]) < spoken.index(HEARD[-8:]) < spoken.index(OLDEST[-8:])
    assert HANGUP[-8:] in silent
    assert DELETED[-8:] not in done.out
    (newest,) = (line for line in spoken.splitlines() if NEWEST[-8:] in line)
    assert newest.split() == [
        "new",
        "2025-06-15",
        "15:06",
        "Ada",
        "+15550100",
        "1:05",
        "cut",
        "off",
        "office",
        NEWEST[-8:],
    ]
    assert "unknown caller" in silent


def test_a_time_that_is_a_guess_is_told(shell: Shell) -> None:
    later = a_message(900, started_unix_ms=1_767_225_600_000)
    long_ago = a_message(901, id=mint_id(1_767_225_600_001, bytes(10)), started_unix_ms=9_000, clock=Clock.UNSURE)
    deliver(shell.data, later, long_ago)
    out = shell("message", "list").out
    lines = [line.split() for line in out.splitlines()]
    assert lines[1][:4] == ["new", "about", "1970-01-01", "00:00"], "the newest call comes first, whatever its time"
    assert lines[2][:3] == ["new", "2026-01-01", "00:00"]
    assert out.count("about") == 1
    shown = dict(line.split(None, 1) for line in shell("message", "show", "last").out.splitlines())
    assert (shown["id"], shown["clock"].split(":")[0]) == (str(long_ago.id), "unsure")
    assert shell("message", "show", "--json", "last").json()["clock"] == "unsure"


def test_the_list_may_be_narrowed(shell: Shell) -> None:
    def ids(*options: str) -> list[str]:
        return [m["id"] for m in shell("message", "list", "--json", *options).json()]

    assert ids() == [NEWEST, HANGUP, HEARD, OLDEST]
    assert ids("--mailbox", "office") == [NEWEST]
    assert ids("--kind", "hangup") == [HANGUP]
    assert ids("--state", "heard") == [HEARD]
    assert ids("--state", "deleted") == [DELETED]
    assert ids("--mailbox", "office", "--state", "heard") == []


def test_an_empty_list_says_so(shell: Shell) -> None:
    assert shell("message", "list", "--mailbox", "office", "--state", "heard").out == "No messages.\n"


def test_a_list_longer_than_a_page_is_whole(shell: Shell) -> None:
    deliver(shell.data, *(a_message(seed) for seed in range(10, 230)))
    assert len(shell("message", "list", "--json").json()) == 224


def test_a_message_in_json_has_what_programs_count_on(shell: Shell) -> None:
    found = shell("message", "show", "--json", OLDEST).json()
    for key in ("id", "mailbox", "state", "kind", "started_at", "duration_ms", "cut_off", "codec", "lost_packets"):
        assert key in found
    assert found["caller"] == {"number": "+15550100", "name": "Ada"}


def test_a_message_in_words(shell: Shell) -> None:
    lines = dict(line.split(None, 1) for line in shell("message", "show", OLDEST).out.splitlines())
    assert lines["mailbox"] == "main"
    assert lines["caller"] == "number +15550100, name Ada"
    assert lines["heard_at"] == "-"


@pytest.mark.parametrize(
    "name",
    [
        "\x1b]0;owned\x07\x1b[31mred\x1b[2J",
        "\x9b31mred",
        "line\nbreak\rback",
        "\u202egnp.exe",
        "[bold red]loud[/bold red]",
        "[/nothing]",
        "\\[/nothing]",
        "trailing\\",
        ":bomb:",
        "[link=http://evil.example]Mum[/link]",
    ],
)
def test_a_callers_name_steers_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    message = a_message(50, caller=Caller("+1\x1b[5m", name), notes=("note \x1b[5m",))
    deliver(shell.data, message)
    shown = "".join(mark if mark.isprintable() else "?" for mark in name)
    listed = shell("message", "list")
    # On a terminal, nothing is taken out on the way to it.
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    alone, as_json = shell("message", "show", str(message.id)), shell("message", "list", "--json")
    for done in (listed, alone, as_json):
        assert done.status == 0
        assert all(mark.isprintable() or mark == "\n" for mark in done.out), done.out
    assert shown in listed.out
    assert shown in alone.out
    assert as_json.json()[0]["caller"]["name"] == name


# Naming one


def test_an_id_may_be_its_end_whatever_the_case(shell: Shell) -> None:
    for text in (OLDEST, OLDEST[-8:], OLDEST[-4:], OLDEST[-8:].upper(), DELETED[-8:]):
        assert shell("message", "show", "--json", text).json()["id"].endswith(text.lower())


def test_last_is_the_newest_of_all(shell: Shell) -> None:
    assert shell("message", "show", "last", "--json").json()["id"] == NEWEST


def test_last_of_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "there is no message yet" in shell.fails("message", "show", "last", "--data", tmp_path / "empty")


@pytest.mark.parametrize(
    "text", ["nothing", "abc", "", "../health", "0" * 36, "x" * 36, "00000000-0000-7000-8000-000000000000"]
)
def test_an_id_that_is_none_is_one_line_on_stderr(shell: Shell, text: str) -> None:
    shell.fails("message", "show", text)


def test_an_end_that_two_have_names_nobody(shell: Shell) -> None:
    from dataclasses import replace
    from uuid import UUID

    message = a_message(60)
    twin = replace(message, id=UUID(int=message.id.int ^ 1 << 100))
    deliver(shell.data, message, twin)
    assert "2 messages' ids end" in shell.fails("message", "heard", str(message.id)[-8:])


# What may be done


def test_heard_delete_and_restore(shell: Shell) -> None:
    end = OLDEST[-8:]
    assert shell("message", "heard", end).out == f"{OLDEST} is marked as heard\n"
    assert shell("message", "heard", end, "--json").json()["state"] == "heard"
    assert "bin" in shell("message", "delete", end).out
    assert [m["id"] for m in shell("message", "list", "--state", "deleted", "--json").json()] == [DELETED, OLDEST]
    assert shell("message", "restore", end, "--json").json()["state"] == "heard"
    assert shell("message", "restore", DELETED).out == f"{DELETED} is back\n"


def test_what_the_state_does_not_allow_is_refused(shell: Shell) -> None:
    assert "deleted" in shell.fails("message", "heard", DELETED)


@pytest.mark.parametrize("ending", ["wav", "flac", "WAV"])
def test_an_export_is_the_audio(shell: Shell, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"out.{ending}"
    done = shell("message", "export", "last", file)
    assert done.out == f"{file}: {file.stat().st_size} bytes\n"
    samples, rate_hz = read_audio(file)
    assert rate_hz == RATE_HZ
    assert np.array_equal(samples, SAMPLES)
    assert file.read_bytes()[:4] == (b"fLaC" if ending == "flac" else b"RIFF")


def test_an_export_may_be_told_its_format(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "out.bin"
    found = shell("message", "export", OLDEST, file, "--format", "flac", "--json").json()
    assert found == {"id": OLDEST, "file": str(file), "bytes": file.stat().st_size}
    assert file.read_bytes().startswith(b"fLaC")


def test_an_export_that_cannot_be(shell: Shell, tmp_path: Path) -> None:
    assert "--format" in shell.fails("message", "export", "last", tmp_path / "out.mp3")
    assert "cannot write" in shell.fails("message", "export", "last", tmp_path / "nowhere" / "out.wav")
    assert list(tmp_path.iterdir()) == [shell.data]


def test_a_recording_that_is_gone_is_a_failure_of_the_machine(shell: Shell, tmp_path: Path) -> None:
    for path in (shell.data / "blobs").rglob("*.flac"):
        path.unlink()
    assert "aftertone verify" in shell.fails("message", "export", "last", tmp_path / "a.wav", status=1)


@pytest.fixture
def players(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which there are only the players that the test writes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def write_player(folder: Path, text: str) -> None:
    player = folder / "ffplay"
    player.write_text(f"#!/bin/sh\nfor last; do :; done\n{text}\n")
    player.chmod(0o755)


def test_playing_marks_as_heard(shell: Shell, players: Path) -> None:
    short = a_message(70, duration_ms=1)
    deliver(shell.data, short)
    write_player(players, f'while read -r line; do echo "$line" >> {players}/played; done < "$last"; exit 0')
    assert shell("message", "play", "--json").json()["state"] == "heard"
    assert (players / "played").read_bytes().startswith(b"RIFF")


def test_a_player_that_ends_at_once_has_played_nothing(shell: Shell, players: Path) -> None:
    write_player(players, "exit 0")
    assert "ended before the message did" in shell.fails("message", "play", "last")
    assert shell("message", "show", "last", "--json").json()["state"] == "new"


def test_a_player_that_fails_marks_nothing(shell: Shell, players: Path) -> None:
    write_player(players, "exit 3")
    assert "exit status 3" in shell.fails("message", "play", "last")
    assert shell("message", "show", "last", "--json").json()["state"] == "new"


def test_no_player_says_what_to_do(shell: Shell, players: Path) -> None:
    assert "message export" in shell.fails("message", "play")


def test_wrong_filters_are_told(shell: Shell) -> None:
    assert "query.kind" in shell.fails("message", "list", "--kind", "fax")
    assert "no mailbox" in shell.fails("message", "list", "--mailbox", "nobody")


def test_json_is_one_line_that_any_terminal_can_show(shell: Shell) -> None:
    deliver(shell.data, a_message(80, caller=Caller("1", "Jürgen \u009b")))
    out = shell("message", "show", "last", "--json").out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out)["caller"]["name"] == "Jürgen \u009b"
