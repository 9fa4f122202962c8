"""`OsFiles` on the kernel that runs the tests."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aftertone.files import LockHeldError, OsFiles, machine_boot_id

HOLD = """
import sys
from pathlib import Path
from aftertone.files import OsFiles
OsFiles().lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_file_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    files = OsFiles()
    folder = tmp_path / "journal"
    assert files.make_directory(folder)
    assert not files.make_directory(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    path = folder / "a"
    handle = files.open_new(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        files.open_new(path)
    assert files.write(handle, [b"abc", memoryview(b"defg")[1:]]) == 6
    files.fdatasync(handle)
    files.sync_directory(folder)
    files.close(handle)
    handle = files.open_read(path)
    assert files.size(handle) == 6
    assert files.read(handle, 2, 100) == b"cefg"
    files.close(handle)
    files.rename(path, folder / "b")
    assert files.list_directory(folder) == ["b"]
    files.unlink(folder / "b")
    assert files.list_directory(folder) == []
    assert files.free_bytes(folder) > 0


def test_preallocation_reserves_without_growing(tmp_path: Path) -> None:
    files = OsFiles()
    handle = files.open_new(tmp_path / "a")
    try:
        files.preallocate(handle, 1 << 20)
    except OSError as error:
        assert error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOSPC)
    else:
        assert (tmp_path / "a").stat().st_blocks * 512 >= 1 << 20
    assert files.size(handle) == 0
    files.close(handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.preallocate(handle, 1 << 20)


def test_what_is_there_can_be_written_from_its_beginning_and_never_through_a_link(tmp_path: Path) -> None:
    files = OsFiles()
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        files.open_existing(path)
    path.write_bytes(b"abcdef")
    handle = files.open_existing(path)
    assert files.size(handle) == 6
    assert files.write(handle, [b"xy"]) == 2
    files.close(handle)
    assert path.read_bytes() == b"xycdef"
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        files.open_existing(tmp_path / "link")


def test_a_file_without_content_may_hold_blocks_and_takes_them_along(tmp_path: Path) -> None:
    files = OsFiles()
    path, new = tmp_path / "a", tmp_path / "b"
    assert files.allocated_bytes(path) == 0
    handle = files.open_new(path)
    assert files.allocated_bytes(path) == 0
    try:
        files.preallocate(handle, 1 << 20)
    except OSError as error:
        pytest.skip(f"this disk reserves nothing: {error.strerror}")
    finally:
        files.close(handle)
    held = files.allocated_bytes(path)
    assert held >= 1 << 20
    files.rename(path, new)
    assert (files.allocated_bytes(path), files.allocated_bytes(new)) == (0, held)
    assert files.disk_bytes(tmp_path) > files.free_bytes(tmp_path)


def test_the_lock_keeps_others_out_and_names_the_holder(tmp_path: Path) -> None:
    files, path = OsFiles(), tmp_path / "lock"
    assert not files.is_locked(path)
    handle = files.lock(path)
    assert files.is_locked(path)
    with pytest.raises(LockHeldError) as caught:
        files.lock(path)
    assert caught.value.pid == os.getpid()
    files.close(handle)
    assert not files.is_locked(path)
    files.close(files.lock(path))


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    files, path = OsFiles(), tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert files.is_locked(path)
        with pytest.raises(LockHeldError) as caught:
            files.lock(path)
        assert caught.value.pid == child.pid
        child.kill()
        child.wait()
    assert not files.is_locked(path)


def test_asking_about_a_lock_never_takes_it(tmp_path: Path) -> None:
    files, path = OsFiles(), tmp_path / "lock"
    path.touch()
    assert not files.is_locked(path)
    handle = files.lock(path)
    for _ in range(3):
        assert files.is_locked(path)
    files.close(handle)


def test_the_boot_has_an_id() -> None:
    assert len(machine_boot_id()) == 16
    assert machine_boot_id() == machine_boot_id()
