"""The command tree: help everywhere, the version, and how misuse is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from aftertone import __version__, cli
from aftertone.cli import app
from tests.unit.cli.shell import Shell


def every_command(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from every_command(child, (*path, name))


TREE = dict(every_command(typer.main.get_command(app)))


def test_every_command_of_the_product_is_there() -> None:
    leaves = {" ".join(path) for path, command in TREE.items() if not hasattr(command, "commands")}
    assert leaves == {
        "serve",
        "call",
        "verify",
        "doctor",
        "login-link",
        *(f"sip {name}" for name in ("status", "trace")),
        *(f"message {name}" for name in ("list", "show", "play", "export", "heard", "delete", "restore")),
        *(f"mailbox {name}" for name in ("add", "list", "show", "set", "greeting set", "greeting clear")),
        *(f"config {name}" for name in ("check", "show", "example")),
    }


@pytest.mark.parametrize("path", sorted(TREE), ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_explains_itself(path: tuple[str, ...], option: str) -> None:
    done = CliRunner().invoke(app, [*path, option])
    assert done.exit_code == 0
    assert "Usage:" in done.output
    assert (TREE[path].help or "").split(".")[0].split("\n")[0][:40] in done.output


@pytest.mark.parametrize(
    "path", [p for p in sorted(TREE) if p and p[0] in ("message", "mailbox", "verify", "doctor")], ids=" ".join
)
def test_whatever_reads_or_changes_the_machine_speaks_json(path: tuple[str, ...]) -> None:
    command = TREE[path]
    if not hasattr(command, "commands"):
        names = {name for parameter in command.params for name in parameter.opts}
        assert {"--json", "--data", "--config"} <= names


def test_the_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"aftertone {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("message", "nonsense"),
        ("message", "show"),
        ("message", "list", "--nonsense"),
        ("message", "export", "last", "a.wav", "--format", "mp3"),
        ("mailbox", "add", "anna", "--rings", "many"),
        ("call",),
        ("call", "sip:main@127.0.0.1", "--codec", "g729"),
    ],
)
def test_misuse_is_status_2_and_said_on_stderr(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell(*arguments)
    assert (done.status, done.out) == (2, "")
    assert "Usage:" in done.err
    assert "Traceback" not in done.err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)
    monkeypatch.setattr(sys, "argv", ["aftertone"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
