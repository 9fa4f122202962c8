"""A key names all of the bytes or nothing, and a put that returned is durable."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from aftertone.errors import NotFoundError, StorageError, StorageFullError, UsageError
from aftertone.files import OsFiles
from aftertone.store.blobs import BlobFacts, DirectoryBlobs, message_key

KEY = "messages/9f/0198-9f.flac"


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "deep" / "blobs")


def test_put_and_read_back(blobs: DirectoryBlobs) -> None:
    digest = hashlib.sha256(b"sound").hexdigest()
    assert blobs.put(KEY, b"sound") == BlobFacts(KEY, digest, 5)
    assert blobs.get(KEY) == b"sound"
    assert blobs.size(KEY) == 5
    assert blobs.sha256(KEY) == digest
    assert blobs.exists(KEY)
    with blobs.open(KEY) as file:
        file.seek(2)
        assert file.read() == b"und"


def test_put_takes_files_larger_than_memory_chunks(blobs: DirectoryBlobs) -> None:
    data = bytes(range(256)) * 10_000
    assert blobs.put(KEY, io.BytesIO(data)).size == len(data)
    assert blobs.get(KEY) == data


def test_putting_again_keeps_or_replaces(blobs: DirectoryBlobs) -> None:
    blobs.put(KEY, b"one")
    inode = (blobs.root / KEY).stat().st_ino
    blobs.put(KEY, b"one")
    assert (blobs.root / KEY).stat().st_ino == inode
    blobs.put(KEY, b"two")
    assert blobs.get(KEY) == b"two"
    assert list(blobs.list()) == [KEY]


def test_only_the_owner_may_look(blobs: DirectoryBlobs) -> None:
    blobs.put(KEY, b"private")
    assert stat.S_IMODE((blobs.root / KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE((blobs.root / KEY).parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../b",
        "a//b",
        ".hidden",
        "a/.tmp-1",
        "a/b/c/d/e",
        "a b",
        "a\0b",
        "a/",
        "x" * 201,
        "a\n",
        "ä",
    ],
)
def test_keys_cannot_leave_the_folder(blobs: DirectoryBlobs, key: str) -> None:
    for use in (lambda: blobs.put(key, b""), lambda: blobs.get(key), lambda: blobs.delete(key)):
        with pytest.raises(UsageError):
            use()


def test_delete_list_and_missing(blobs: DirectoryBlobs) -> None:
    blobs.put("greetings/b.flac", b"1")
    blobs.put(message_key("0198-ab"), b"2")
    (blobs.root / "messages" / "lost+found file").write_bytes(b"")
    assert list(blobs.list()) == ["greetings/b.flac", "messages/ab/0198-ab.flac"]
    assert list(blobs.list("messages/")) == ["messages/ab/0198-ab.flac"]
    assert blobs.delete("greetings/b.flac")
    assert not blobs.delete("greetings/b.flac")
    assert not blobs.exists("greetings/b.flac")
    for use in (blobs.get, blobs.size, blobs.sha256, blobs.open):
        with pytest.raises(NotFoundError):
            use("greetings/b.flac")


def test_leftovers_are_cleaned_but_not_what_is_being_written(blobs: DirectoryBlobs) -> None:
    blobs.put(KEY, b"1")
    folder = (blobs.root / KEY).parent
    (folder / ".tmp-1-1").write_bytes(b"dead")
    with (folder / ".tmp-2-2").open("wb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert blobs.clean_temporary() == 1
        assert sorted(entry.name for entry in folder.iterdir()) == [".tmp-2-2", "0198-9f.flac"]


def test_a_leftover_with_our_number_is_stepped_over(blobs: DirectoryBlobs) -> None:
    folder = blobs.root / "messages" / "9f"
    folder.mkdir(parents=True)
    (folder / f".tmp-{os.getpid()}-0").write_bytes(b"dead")
    blobs.put(KEY, b"1")
    assert blobs.get(KEY) == b"1"


def test_a_cleaner_between_creation_and_lock_costs_only_another_try(
    blobs: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    removed: list[Path] = []

    def clean_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            removed[0].unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", clean_first)
    blobs.put(KEY, b"1")
    assert blobs.get(KEY) == b"1"
    assert removed


def test_the_order_of_calls_is_what_a_power_cut_needs(blobs: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []
    real = OsFiles()

    def name_of(handle: int) -> str:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        return "temporary" if name.startswith(".tmp-") else name

    def fdatasync(_: OsFiles, handle: int) -> None:
        calls.append(("sync", name_of(handle)))
        real_fdatasync(real, handle)

    def sync_directory(_: OsFiles, path: Path) -> None:
        calls.append(("sync", path.name))
        real_sync_directory(real, path)

    def rename(_: OsFiles, old: Path, new: Path) -> None:
        calls.append(("rename", new.name))
        real_rename(real, old, new)

    def make_directory(_: OsFiles, path: Path) -> bool:
        calls.append(("mkdir", path.name))
        return real_make_directory(real, path)

    real_fdatasync, real_sync_directory = OsFiles.fdatasync, OsFiles.sync_directory
    real_rename, real_make_directory = OsFiles.rename, OsFiles.make_directory
    monkeypatch.setattr(OsFiles, "fdatasync", fdatasync)
    monkeypatch.setattr(OsFiles, "sync_directory", sync_directory)
    monkeypatch.setattr(OsFiles, "rename", rename)
    monkeypatch.setattr(OsFiles, "make_directory", make_directory)
    blobs.put(KEY, b"1")
    tail = [("sync", "temporary"), ("rename", "0198-9f.flac"), ("sync", "9f")]
    assert calls[-3:] == tail
    made = calls[:-3]
    assert made.index(("mkdir", "messages")) < made.index(("sync", "blobs"), made.index(("mkdir", "messages")))
    assert made.index(("mkdir", "9f")) < made.index(("sync", "messages"), made.index(("mkdir", "9f")))
    calls.clear()
    blobs.put(KEY, b"2")
    assert calls == tail
    calls.clear()
    blobs.put(KEY, b"2")
    assert calls == [("sync", "9f")], "the same bytes again: whoever renamed them may not have synced the directory"


def _fail(code: int) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, StorageFullError), (errno.EIO, StorageError), (errno.EDQUOT, StorageFullError)]
)
@pytest.mark.parametrize("step", ["fdatasync", "rename"])
def test_a_disk_that_fails_leaves_no_blob_and_no_litter(
    blobs: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StorageError], step: str
) -> None:
    blobs.put("messages/9f/before.flac", b"0")
    with monkeypatch.context() as patch:
        patch.setattr(OsFiles, step, _fail(code))
        with pytest.raises(kind, match="9f"):
            blobs.put(KEY, b"1")
    assert sorted(entry.name for entry in (blobs.root / "messages" / "9f").iterdir()) == ["before.flac"]
    blobs.put(KEY, b"1")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="check that disk"):
        DirectoryBlobs(tmp_path / "file" / "blobs")
