"""Blobs: whole files under keys, in a directory.

Owns: writing them so that a key names all of the bytes or nothing, reading, listing, removing. Refuses to know: what the
bytes mean.

Theory of operation: a blob is written under a temporary name in its own directory, synced, renamed, and the directory is
synced; ``put`` returns after that. Putting the same bytes again only syncs the directory, so a step that died half way is
simply repeated. A temporary file is locked (flock) while it is written, so ``clean_temporary`` removes what dead
processes left and nothing that another process is writing. Keys are relative paths with a strict alphabet.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from aftertone.errors import NotFoundError, UsageError
from aftertone.files import OS_FILES, Files, make_directories, sync, write_all
from aftertone.store.faults import storage_faults

LONGEST_KEY: Final = 200
"""Characters of a key; the catalog's columns hold as many."""

SIGNALLING_SUFFIX: Final = "sip.json"
"""What was said about a call on the wire, beside its audio: docs/storage.md."""

_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_KEY: Final = re.compile(rf"{_PART}(?:/{_PART}){{0,3}}")
_TEMPORARY: Final = ".tmp-"
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """What ``put`` made durable."""

    key: str
    sha256: str
    size: int


class DirectoryBlobs:
    """Blobs in files below ``root``, which is made when missing. Threads and processes may share the folder.

    Methods raise UsageError for a key that cannot be one, NotFoundError for one that is not there, StorageFullError,
    StorageError.
    """

    def __init__(self, root: Path, files: Files = OS_FILES) -> None:
        self.root = root
        self._files = files
        self._synced_directories: set[Path] = set()
        self._numbers = itertools.count()
        with storage_faults("making the blob folder", root):
            make_directories(files, root)

    def put(self, key: str, data: bytes | BinaryIO) -> BlobFacts:
        """Store ``data`` under ``key``, replacing what was there as one step; durable on return."""
        path = self._path(key)
        with storage_faults("storing a recording", path):
            self._make_parents(path.parent)
            source = io.BytesIO(data) if isinstance(data, bytes) else data
            handle, temporary = self._create_temporary(path.parent)
            try:
                try:
                    facts = self._copy(key, source, handle)
                    kept = self._holds(path, facts)
                    if not kept:
                        sync(self._files, handle)
                        self._files.rename(temporary, path)
                finally:
                    self._files.close(handle)
                if kept:
                    self._files.unlink(temporary)
            except BaseException:
                with suppress(OSError):
                    self._files.unlink(temporary)
                raise
            self._files.sync_directory(path.parent)
        return facts

    def get(self, key: str) -> bytes:
        """Return all bytes of a blob."""
        with self.open(key) as file, storage_faults("reading a recording", self._path(key)):
            return file.read()

    def open(self, key: str) -> BinaryIO:
        """Open a blob for reading and seeking; the caller closes it. A blob removed meanwhile stays readable."""
        path = self._path(key)
        with storage_faults("reading a recording", path):
            return path.open("rb")

    def size(self, key: str) -> int:
        """Return the bytes of a blob."""
        path = self._path(key)
        with storage_faults("reading a recording", path):
            return path.stat().st_size

    def sha256(self, key: str) -> str:
        """Read a blob and return its SHA-256 in hex."""
        path = self._path(key)
        with storage_faults("reading a recording", path), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def exists(self, key: str) -> bool:
        """Tell whether there is a blob under ``key``."""
        try:
            self.size(key)
        except NotFoundError:
            return False
        return True

    def delete(self, key: str) -> bool:
        """Remove a blob, durably; False when it was not there."""
        path = self._path(key)
        try:
            with storage_faults("removing a recording", path):
                self._files.unlink(path)
                self._files.sync_directory(path.parent)
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        """Give every key that begins with ``prefix``, directory by directory, in order within each.

        Files that are no blobs (temporary ones, strangers) are left out.
        """
        with storage_faults("listing recordings", self.root):
            for folder, folders, names in os.walk(self.root, onerror=_raise):
                folders.sort()
                for name in sorted(names):
                    key = Path(folder, name).relative_to(self.root).as_posix()
                    if key.startswith(prefix) and _KEY.fullmatch(key):
                        yield key

    def clean_temporary(self) -> int:
        """Remove what interrupted writes left behind, not what is being written now; return how many files."""
        removed = 0
        with storage_faults("cleaning the blob folder", self.root):
            for folder, _, names in os.walk(self.root, onerror=_raise):
                for name in names:
                    if name.startswith(_TEMPORARY):
                        removed += self._remove_unlocked(Path(folder, name))
        return removed

    def _path(self, key: str) -> Path:
        if len(key) > LONGEST_KEY or _KEY.fullmatch(key) is None:
            raise UsageError(f"{key[:LONGEST_KEY]!r} cannot be the key of a blob")
        return self.root / key

    def _make_parents(self, folder: Path) -> None:
        """Make the shard folder; its whole chain is synced on its first use by this process, see `make_directories`."""
        if folder in self._synced_directories:
            return
        for part in (*reversed(folder.relative_to(self.root).parents), folder.relative_to(self.root)):
            make_directories(self._files, self.root / part)
        self._synced_directories.add(folder)

    def _create_temporary(self, folder: Path) -> tuple[int, Path]:
        while True:
            path = folder / f"{_TEMPORARY}{os.getpid()}-{next(self._numbers)}"
            try:
                handle = self._files.open_new(path)
            except FileExistsError:
                continue  # left by a dead process that had our number
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                # A cleaner may have come between the two calls; once locked with a name, it is ours.
                if os.fstat(handle).st_nlink == 1:
                    return handle, path
            except BaseException:
                self._files.close(handle)
                raise
            self._files.close(handle)

    def _copy(self, key: str, source: BinaryIO, handle: int) -> BlobFacts:
        digest, size = hashlib.sha256(), 0
        while chunk := source.read(_CHUNK_BYTES):
            size += write_all(self._files, handle, [chunk])
            digest.update(chunk)
        return BlobFacts(key, digest.hexdigest(), size)

    def _remove_unlocked(self, path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                self._files.unlink(path)
        except BlockingIOError:
            return 0
        finally:
            os.close(descriptor)
        return 1

    @staticmethod
    def _holds(path: Path, facts: BlobFacts) -> bool:
        """Tell whether ``path`` has exactly those bytes. It was synced before it got its name."""
        try:
            if path.stat().st_size != facts.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == facts.sha256
        except FileNotFoundError:
            return False


def message_key(message_id: object, suffix: str = "flac") -> str:
    """Return the key of a message's audio; the shard is the end of the id, which is random, never the clock."""
    text = str(message_id)
    return f"messages/{text[-2:]}/{text}.{suffix}"


def _raise(fault: OSError) -> None:
    if not isinstance(fault, FileNotFoundError):
        raise fault
