"""Reaching the desk: the one that runs, or one of our own."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import uvicorn

from aftertone.cli.client import desk
from aftertone.config import Settings
from aftertone.errors import NotFoundError, UsageError
from aftertone.roles.desk import bind_web, open_desk
from aftertone.roles.folder import Folder, write_status
from aftertone.web.app import create_app
from tests.support.machine import free_port, wait_until
from tests.unit.cli.shell import Shell, some_messages

OLDEST = some_messages()[0]


@pytest.fixture
def running(shell: Shell) -> Iterator[str]:
    """The desk of the shell's machine as a server; its address is in the data folder."""
    folder = Folder(shell.data)
    catalog, services = open_desk(folder, Settings(), folder.token())
    sock = bind_web("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(create_app(services), log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    wait_until(lambda: server.started, "the desk to be open")
    write_status(folder, "desk", {"url": url})
    yield url
    server.should_exit = True
    thread.join()
    sock.close()
    catalog.close()


def test_a_desk_that_runs_is_asked_as_often_as_a_command_needs(shell: Shell, running: str) -> None:
    """One connection serves many requests, which it did not when each request had an event loop of its own."""
    with desk(shell.data, None) as api:
        assert [len(api.get("/messages")["messages"]) for _ in range(5)] == [4] * 5
    assert shell("message", "heard", str(OLDEST.id)[-8:], "--json").json()["state"] == "heard"
    assert shell("message", "export", "last", shell.data / "out.wav").status == 0


def test_a_running_desk_sees_what_is_wrong_as_well(shell: Shell, running: str) -> None:
    shell.fails("mailbox", "show", "nobody")
    with desk(shell.data, None) as api:
        with pytest.raises(NotFoundError):
            api.get("/mailboxes/nobody")
        with pytest.raises(UsageError):
            api.get("/messages", limit=0)


def test_a_token_that_is_not_ours_opens_nothing(shell: Shell, running: str) -> None:
    Folder(shell.data).token_file.write_text("x" * 40 + "\n")
    shell.fails("message", "list")


def test_a_desk_that_does_not_answer_is_the_machines_fault(shell: Shell) -> None:
    write_status(Folder(shell.data), "desk", {"url": f"http://127.0.0.1:{free_port()}"})
    assert "is the machine running?" in shell.fails("message", "list", status=1)


def test_a_desk_that_has_gone_away_is_replaced_by_one_of_our_own(shell: Shell) -> None:
    (shell.data / "run" / "desk.json").write_text('{"at_monotonic_ns": 1, "pid": 1, "url": "http://127.0.0.1:1"}')
    assert len(shell("message", "list", "--json").json()) == 4


def test_a_data_folder_that_is_a_file(shell: Shell) -> None:
    file = shell.data / "file"
    file.write_text("")
    assert "there is no machine in" in shell.fails("message", "list", "--data", file)


def test_a_catalog_that_is_damaged_is_told_in_one_line(shell: Shell) -> None:
    Folder(shell.data).catalog.write_bytes(b"this is no database" * 1000)
    for path in Folder(shell.data).catalog.parent.glob("aftertone.db-*"):
        path.unlink()
    shell.fails("message", "list", status=1)
