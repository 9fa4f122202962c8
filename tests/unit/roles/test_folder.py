"""The data folder: its token, its lock, and the status files by which roles see each other."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aftertone.errors import StorageError, UsageError
from aftertone.roles import folder as folders
from aftertone.roles.folder import STALE_AFTER_S, STATUS_BYTES, Folder, digest, read_status, write_status
from tests.support.disks import read_only

S = 1_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "var")
    made.make()
    return made


@pytest.fixture
def now_ns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The monotonic clock, to be moved."""
    now = [1000 * S]
    monkeypatch.setattr(folders, "time", type("Clock", (), {"monotonic_ns": staticmethod(lambda: now[0])}))
    return now


def test_everything_is_made_and_belongs_to_its_owner_alone(folder: Folder) -> None:
    for path in (folder.root, folder.journal, folder.catalog.parent, folder.blobs, folder.directory, folder.run):
        assert path.is_dir()
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    folder.make()


def test_a_folder_that_cannot_be_made_says_which_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot make .*/file/var.*--data or AFTERTONE_DATA"):
        Folder(tmp_path / "file" / "var").make()


# Token


def test_the_token_is_made_once_and_only_its_owner_reads_it(folder: Folder) -> None:
    token = folder.token()
    assert len(token) >= 32
    assert folder.token() == token
    assert stat.S_IMODE(folder.token_file.stat().st_mode) == 0o600
    assert [path.name for path in folder.root.iterdir() if "token" in path.name] == ["desk.token"]


@pytest.mark.parametrize("left", ["", "short", "\n"])
def test_a_token_that_was_never_written_out_is_made_anew(folder: Folder, left: str) -> None:
    folder.token_file.write_text(left)
    token = folder.token()
    assert len(token) >= 32
    assert folder.token_file.read_text().strip() == token


def test_processes_that_make_the_token_at_once_agree(folder: Folder) -> None:
    code = "import sys; from pathlib import Path; from aftertone.roles.folder import Folder; print(Folder(Path(sys.argv[1])).token())"
    command = [sys.executable, "-c", code, str(folder.root)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    tokens = {process.communicate(timeout=20)[0].strip() for process in processes}
    assert tokens == {folder.token()}


def test_a_token_that_cannot_be_read_is_an_error_with_its_name(folder: Folder) -> None:
    folder.token_file.mkdir()
    with pytest.raises(StorageError, match=r"desk\.token"):
        folder.token()


def test_a_digest_is_sha_256_in_hex() -> None:
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# Lock


def test_a_second_machine_is_told_that_the_folder_is_taken(folder: Folder) -> None:
    held = folder.lock()
    with pytest.raises(UsageError, match=r"in use by another machine.*--data"):
        folder.lock()
    os.close(held)
    os.close(folder.lock())


def test_the_lock_writes_nothing_since_the_disk_may_be_full_or_read_only(folder: Folder) -> None:
    before = sorted(folder.root.rglob("*"))
    held = folder.lock()
    assert sorted(folder.root.rglob("*")) == before
    os.close(held)


def test_a_folder_on_a_read_only_disk_is_made_and_locked_like_any_other(folder: Folder) -> None:
    with read_only(folder.root):
        folder.make()
        held = folder.lock()
        with pytest.raises(UsageError, match="in use by another machine"):
            folder.lock()
    with pytest.raises(UsageError, match="in use by another machine"):
        folder.lock()
    os.close(held)


def test_a_folder_that_cannot_be_locked_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot open .*gone"):
        Folder(tmp_path / "gone").lock()


# Status


def test_a_status_is_read_back_while_it_is_fresh(folder: Folder, now_ns: list[int]) -> None:
    write_status(folder, "line", {"calls": 3})
    now_ns[0] += int(STALE_AFTER_S * S)
    found = read_status(folder, "line")
    assert found is not None
    assert (found["calls"], found["pid"], found["at_monotonic_ns"]) == (3, os.getpid(), 1000 * S)
    now_ns[0] += 1
    assert read_status(folder, "line") is None


def test_a_status_of_an_earlier_boot_is_none(folder: Folder, now_ns: list[int]) -> None:
    write_status(folder, "line", {})
    now_ns[0] = 5 * S
    assert read_status(folder, "line") is None


def test_a_status_of_a_process_that_is_gone_is_none(folder: Folder) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_status(folder, "desk", {"pid": gone.pid})
    assert read_status(folder, "desk") is None


def test_a_process_of_another_user_is_alive(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    write_status(folder, "desk", {})
    monkeypatch.setattr(os, "kill", refuse)
    assert read_status(folder, "desk") is not None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"pid": 1}', '{"at_monotonic_ns": "x", "pid": 1}', '{"at_monotonic_ns": null}', "\0" * 50],
)
def test_what_is_no_status_is_none(folder: Folder, text: str) -> None:
    (folder.run / "line.json").write_text(text)
    assert read_status(folder, "line") is None


@pytest.mark.parametrize("pid", ["null", '"x"', "[1]"])
def test_a_status_without_a_process_is_none(folder: Folder, pid: str) -> None:
    (folder.run / "line.json").write_text(f'{{"at_monotonic_ns": {time.monotonic_ns()}, "pid": {pid}}}')
    assert read_status(folder, "line") is None


def test_a_status_that_was_never_written_is_none(folder: Folder) -> None:
    assert read_status(folder, "line") is None


def test_a_status_is_rewritten_in_place_and_needs_no_more_room(folder: Folder) -> None:
    path = folder.run / "line.json"
    write_status(folder, "line", {"text": "long " * 100})
    first = path.stat()
    write_status(folder, "line", {})
    second = path.stat()
    assert (first.st_ino, first.st_size) == (second.st_ino, second.st_size) == (first.st_ino, STATUS_BYTES)
    assert stat.S_IMODE(second.st_mode) == 0o600


def test_a_status_that_was_long_once_leaves_no_tail(folder: Folder) -> None:
    write_status(folder, "line", {"text": "x" * (2 * STATUS_BYTES)})
    found = read_status(folder, "line")
    assert found is not None
    assert len(str(found["text"])) == 2 * STATUS_BYTES
    write_status(folder, "line", {"calls": 1})
    found = read_status(folder, "line")
    assert found is not None
    assert found["calls"] == 1


def test_a_reader_beside_a_writer_never_sees_nonsense(folder: Folder) -> None:
    write_status(folder, "line", {"a": 0, "b": 0})
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            write_status(folder, "line", {"a": number, "text": "x" * (number % 500), "b": number})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(300):
            found = read_status(folder, "line")
            assert found is not None
            assert found["a"] == found["b"]
    finally:
        stop.set()
        thread.join()


def test_a_status_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    write_status(Folder(tmp_path / "gone"), "line", {})
