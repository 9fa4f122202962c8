"""``aftertone verify``: what it finds, and the exit status that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.recorder import Recorder
from tests.support.recordings import an_envelope, rows_of
from tests.unit.cli.shell import Shell


def test_books_that_balance(shell: Shell) -> None:
    done = shell("verify")
    assert done.status == 0
    assert done.out.endswith("The books balance.\n")
    found = shell("verify", "--json").json()
    assert (found["ok"], found["messages"], found["hangups"]) == (True, 4, 1)


def test_books_that_do_not_balance_say_why(shell: Shell) -> None:
    gone = next((shell.data / "blobs" / "messages").rglob("*.flac"))
    gone.unlink()
    done = shell("verify")
    assert done.status == 1
    assert f"missing: message {gone.stem}" in done.out
    assert "THE BOOKS DO NOT BALANCE" in done.out
    assert shell("verify", "--json").status == 1


def test_a_call_that_waits_for_delivery_is_no_fault(shell: Shell) -> None:
    recorder = Recorder(shell.data / "journal")
    recorder.recording(an_envelope(), rows_of(seconds=0.2))
    recorder.stop()
    assert shell("verify", "--json").json()["pending"] == 1


@pytest.mark.parametrize("command", [("verify",), ("message", "list"), ("mailbox", "list")])
def test_a_folder_without_a_machine(shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert "there is no machine in" in shell.fails(*command, "--data", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
