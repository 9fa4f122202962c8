"""``aftertone serve`` and ``login-link`` up to where the roles begin, and the words of the welcome."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from aftertone.cli import serve
from aftertone.cli.serve import _Welcome
from aftertone.config import load
from aftertone.roles.desk import now_unix_ms
from aftertone.roles.folder import Folder, digest, write_status
from aftertone.store.catalog import Catalog
from tests.unit.cli.shell import Shell

LINE = {"sip": "sip:main@192.168.1.20:5070", "port": 5070}
DESK = {"url": "http://127.0.0.1:8080", "login": "http://127.0.0.1:8080/login/abc"}


def test_a_folder_in_use_is_told_and_nothing_is_started(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "Supervisor", None)
    held = Folder(shell.data).lock()
    assert "in use by another machine" in shell.fails("serve")
    os.close(held)


def test_a_folder_that_cannot_be_made(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--data" in shell.fails("serve", "--data", tmp_path / "file" / "var", status=1)


def test_the_status_of_the_machine_is_the_status_of_the_command(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, ...]] = []

    class Fake:
        def __init__(self, *arguments: object) -> None:
            given.append(arguments)

        async def run(self) -> int:
            return 64

    monkeypatch.setattr(serve, "Supervisor", Fake)
    monkeypatch.setattr(serve, "set_up", lambda *_: None)
    (shell.data / "aftertone.toml").write_text("[calls]\nrings = 0\n")
    assert shell("serve").status == 64
    assert given[0][:2] == (shell.data, Path("var/aftertone.toml"))


def test_weak_storage_can_be_accepted_for_one_run(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    class Fake:
        def __init__(self, *_: object) -> None:
            seen.append(load(None).storage.accept)

        async def run(self) -> int:
            return 0

    monkeypatch.setattr(serve, "Supervisor", Fake)
    monkeypatch.setattr(serve, "set_up", lambda *_: None)
    monkeypatch.setenv("AFTERTONE_STORAGE__ACCEPT", "false")
    assert shell("serve", "--accept-storage").status == 0
    assert seen == [True], "the roles inherit it, and it is stronger than the file"


def test_the_welcome_is_said_once_when_line_and_desk_are_ready(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "aftertone")])
    welcome = _Welcome(Folder(tmp_path / "elsewhere"), "reception", 0.0)
    welcome.on_ready("delivery", {})
    welcome.on_ready("line", LINE)
    assert capsys.readouterr().out == ""
    welcome.on_ready("desk", DESK)
    said = capsys.readouterr().out
    for part in (
        "Aftertone is ready",
        "sip:main@192.168.1.20:5070",
        "http://127.0.0.1:8080/login/abc",
        str(tmp_path / "elsewhere"),
        ".venv/bin/aftertone call sip:reception@127.0.0.1:5070",
        f"message list --data {tmp_path / 'elsewhere'}",
    ):
        assert part in said
    welcome.on_ready("desk", DESK)
    assert capsys.readouterr().out == ""


def test_the_welcome_without_anything_unusual(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/somewhere/aftertone/__main__.py"])
    welcome = _Welcome(Folder(tmp_path / "var"), "main", 0.0)
    welcome.on_ready("desk", {"url": "http://127.0.0.1:8080"})
    welcome.on_ready("line", {"sip": "sip:main@192.168.1.20", "port": 5060})
    said = capsys.readouterr().out
    assert "aftertone call sip:main@127.0.0.1\n" in said
    assert "aftertone message list\n" in said
    assert "login" not in said


def test_a_machine_that_refuses_calls_says_so_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/aftertone/__main__.py"])
    welcome = _Welcome(Folder(tmp_path / "var"), "main", 0.0)
    welcome.on_ready("desk", {"url": "http://127.0.0.1:8080"})
    welcome.on_ready("line", {**LINE, "refuses": "12 MB are free"})
    said = capsys.readouterr().out
    assert "It refuses calls: 12 MB are free.\n" in said
    assert "It takes calls" not in said


def test_a_login_link_needs_a_machine_that_runs(shell: Shell) -> None:
    assert "not running" in shell.fails("login-link")


def test_a_login_link_opens_the_desk(shell: Shell) -> None:
    write_status(Folder(shell.data), "desk", {"url": "http://127.0.0.1:8080"})
    base, token = shell("login-link").out.strip().rsplit("/", 1)
    assert base == "http://127.0.0.1:8080/login"
    catalog = Catalog.open(Folder(shell.data).catalog)
    assert catalog.use_login_link(digest(token), now_unix_ms())
    catalog.close()
