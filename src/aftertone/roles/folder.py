"""The data folder: where each thing of a machine lies.

Owns: the names inside the folder and the small status files by which roles tell each other how they are. Refuses to know:
what is in the journal, the catalog or the blobs.

Theory of operation: a role rewrites ``run/<role>.json`` each second, in place and always as long as before, so that it needs
no new block and can still say that the disk is full; it is not synced, because after a power cut nobody wants it. Its age is measured with the monotonic clock, which all processes of a machine share, so a wall
clock that jumps makes nobody look dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aftertone.errors import StorageError, UsageError

STALE_AFTER_S: Final = 5.0
STATUS_BYTES: Final = 16_384
READ_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Folder:
    """One machine's data folder."""

    root: Path

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog" / "aftertone.db"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def directory(self) -> Path:
        return self.root / "directory"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def token_file(self) -> Path:
        return self.root / "desk.token"

    @property
    def identity_file(self) -> Path:
        return self.root / "instance.id"

    def make(self) -> None:
        """Make the folder and what belongs inside. Raises StorageError naming what cannot be made."""
        for path in (self.root, self.journal, self.catalog.parent, self.blobs, self.directory, self.run):
            try:
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise StorageError(
                    f"cannot make {path}: {error.strerror}; choose another data folder with --data or AFTERTONE_DATA"
                ) from None

    def lock(self) -> int:
        """Take the folder for this machine until the process ends; returns the descriptor that holds it.

        Raises UsageError when another machine runs in it, StorageError when it cannot be locked. The kernel gives the lock
        back however a process ends, so a lock is never stale. The folder itself is locked, and nothing written: a machine
        starts on a full or read-only disk too, to refuse calls aloud.
        """
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StorageError(f"cannot open {self.root}: {error.strerror}; does it belong to you?") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UsageError(
                f"the data folder {self.root} is in use by another machine: stop that one, or choose another with --data"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise StorageError(f"cannot lock {self.root}: {error.strerror}") from None
        return descriptor

    def token(self) -> str:
        """Return the local command line's token for the desk, making it at the first call (readable by its owner alone).

        Raises StorageError when the file cannot be read or made.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                text = self.token_file.read_text(encoding="ascii").strip()
                if len(text) >= 32:
                    return text
            token = secrets.token_urlsafe(32)
            temporary = self.token_file.with_name(f".{self.token_file.name}.{os.getpid()}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(token + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                # Linking fails where another process was first, and then that one's token holds.
                self.token_file.hardlink_to(temporary)
            except FileExistsError:
                if len(self.token_file.read_text(encoding="ascii").strip()) < 32:
                    temporary.replace(self.token_file)
                    return token
            temporary.unlink(missing_ok=True)
            return self.token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise StorageError(f"cannot read or make {self.token_file}: {error.strerror}") from None


def digest(token: str) -> str:
    """Return the SHA-256 of a token, which is all that is ever stored of one."""
    return hashlib.sha256(token.encode()).hexdigest()


def write_status(folder: Folder, role: str, status: Mapping[str, object]) -> None:
    """Publish a role's status. A disk that is gone costs the status, never the role."""
    value = {"at_monotonic_ns": time.monotonic_ns(), "pid": os.getpid(), **status}
    content = json.dumps(value).encode().ljust(STATUS_BYTES)
    with contextlib.suppress(OSError):
        descriptor = os.open(folder.run / f"{role}.json", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, content, 0)
            # A status that was longer once must not leave its tail behind.
            os.ftruncate(descriptor, len(content))
        finally:
            os.close(descriptor)


def read_status(folder: Folder, role: str) -> Mapping[str, object] | None:
    """Return a role's status, or None when its process is gone or has not written for ``STALE_AFTER_S``."""
    for _ in range(READ_ATTEMPTS):
        try:
            value = json.loads((folder.run / f"{role}.json").read_text(encoding="utf-8"))
            age_s = (time.monotonic_ns() - int(value["at_monotonic_ns"])) / 1e9
            break
        except (OSError, ValueError, KeyError, TypeError):
            # Read in the middle of a rewrite, or never written.
            continue
    else:
        return None
    # A negative age is a file of an earlier boot: the monotonic clock began again.
    return value if 0 <= age_s <= STALE_AFTER_S and _lives(value.get("pid")) else None


def _lives(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True
