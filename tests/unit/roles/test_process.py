"""What every role's process does: it says when it is ready, exits so that the supervisor understands, and is never left alone."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from aftertone.config import Settings
from aftertone.errors import AftertoneError, ConfigError, DamagedError
from aftertone.roles import process
from aftertone.roles.folder import Folder
from aftertone.roles.process import EXIT_USAGE, Start, run_role


def a_start(folder: Path, descriptor: int | None) -> Start:
    return Start("desk", Settings(), Folder(folder), structlog.get_logger(), descriptor)


def test_ready_is_one_line_and_the_end(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    a_start(tmp_path, writing).ready({"url": "http://x", "port": 7})
    with os.fdopen(reading) as file:
        assert json.loads(file.read()) == {"url": "http://x", "port": 7}


def test_ready_when_nobody_asked_or_nobody_listens_any_more(tmp_path: Path) -> None:
    a_start(tmp_path, None).ready({})
    reading, writing = os.pipe()
    os.close(reading)
    a_start(tmp_path, writing).ready({})
    os.close(writing)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a role's main in this process, but for what would change this process; returns its exit status."""
    monkeypatch.setattr(process, "_die_with_the_supervisor", lambda _: None)
    monkeypatch.setattr("aftertone.roles.process.signal.signal", lambda *_: None)
    monkeypatch.setattr(process, "set_up", lambda *_: structlog.get_logger())

    def run(main: Callable[[Start], None], *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["role", "--data", str(tmp_path / "var"), *arguments])
        try:
            run_role("desk", main)
        except SystemExit as end:
            assert isinstance(end.code, int)
            return end.code
        return 0

    return run


def test_a_role_is_given_what_it_needs(start: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[sip]\nport = 5070\n")
    given: list[Start] = []
    assert start(given.append, "--config", str(tmp_path / "a.toml"), "--ready-fd", "9") == 0
    (found,) = given
    assert (found.role, found.settings.sip.port, found.ready_descriptor) == ("desk", 5070, 9)
    assert found.folder == Folder(tmp_path / "var")
    assert found.folder.run.is_dir()


@pytest.mark.parametrize(
    ("error", "status"), [(ConfigError("port 8080 is in use"), EXIT_USAGE), (DamagedError("the catalog is damaged"), 1)]
)
def test_errors_are_one_line_and_a_status(
    start: Callable[..., int], capsys: pytest.CaptureFixture[str], error: AftertoneError, status: int
) -> None:
    def fail(_: Start) -> None:
        raise error

    assert start(fail) == status
    assert capsys.readouterr().err == f"aftertone desk: {error}\n"


def test_a_setting_that_nobody_knows_needs_a_person(
    start: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERTONE_SIP__PROT", "5070")
    assert start(lambda _: None) == EXIT_USAGE
    assert "did you mean 'port'" in capsys.readouterr().err


ROLE = """
import os, signal, sys
from aftertone.roles.process import run_role
def main(start):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(int(sys.argv[sys.argv.index("--ready-fd") + 1]), b"!")
    while True:
        signal.pause()
run_role("desk", main)
"""
PARENT = """
import os, subprocess, sys, signal
data, descriptor, code = sys.argv[1:]
arguments = ["--data", data, "--ready-fd", descriptor, "--supervisor", str(os.getpid())]
subprocess.Popen([sys.executable, "-c", code, *arguments], pass_fds=[int(descriptor)])
signal.pause()
"""


def test_a_role_dies_with_its_supervisor(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "var"), str(writing), ROLE], pass_fds=[writing]
    )
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"!"
    finally:
        parent.kill()
        parent.wait()
    # The role alone holds the other end now: the end of the file is the end of the role.
    assert select.select([reading], [], [], 10)[0]
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_role_whose_supervisor_died_while_it_was_loaded_does_not_begin(tmp_path: Path) -> None:
    """The kernel tells of a parent's death only those who asked before: here it is over before anybody could ask."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    reading, writing = os.pipe()
    arguments = ["--data", str(tmp_path / "var"), "--ready-fd", str(writing), "--supervisor", str(gone.pid)]
    role = subprocess.Popen([sys.executable, "-c", ROLE, *arguments], pass_fds=[writing])
    os.close(writing)
    assert role.wait(10) == 0
    assert os.read(reading, 1) == b""
    os.close(reading)
