"""Turns what the operating system and the database complain about into the one tree of errors.

Owns: the mapping from errno and SQLite result codes to StorageError and its children. Refuses to know: who asked.

Theory of operation: every border of ``store`` runs inside ``storage_faults`` (files) or ``catalog_faults`` (database),
so nothing above ever imports sqlite3 or sqlalchemy to catch something. A message says what was being done, to which
path, what went wrong and what to do. Spec: https://www.sqlite.org/rescode.html.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy.exc

from aftertone.errors import DamagedError, NotFoundError, StorageError, StorageFullError

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class NewerSchemaError(StorageError):
    """The catalog was written by a newer Aftertone; this program leaves it alone."""

    retry = False


@contextmanager
def storage_faults(doing: str, path: Path) -> Iterator[None]:
    """Turn OSError into NotFoundError, StorageFullError or StorageError about ``doing`` with ``path``."""
    try:
        yield
    except FileNotFoundError as fault:
        raise NotFoundError(f"{doing}: {path} is not there") from fault
    except OSError as fault:
        raise os_fault(doing, path, fault) from fault


def os_fault(doing: str, path: Path, fault: OSError) -> StorageError:
    """Return the StorageError that says what ``fault`` means for a person."""
    reason = fault.strerror or str(fault)
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(f"{doing}: no room for {path} ({reason}); free some disk space")
    return StorageError(f"{doing}: {path}: {reason}; check that disk and its permissions")


@contextmanager
def catalog_faults(path: Path, on_io_error: Callable[[], None] | None = None) -> Iterator[None]:
    """Turn database errors about the catalog at ``path`` into the error tree.

    ``on_io_error`` runs before the error leaves when the disk failed beneath the database, whose connections are then
    not to be trusted. Raises DamagedError (never repaired or removed), StorageFullError, StorageError.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as fault:
        cause = fault.orig if isinstance(fault, sqlalchemy.exc.DBAPIError) else fault
        code = getattr(cause, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else sqlite3.SQLITE_ERROR
        if primary == sqlite3.SQLITE_IOERR and on_io_error is not None:
            on_io_error()
        raise _database_fault(path, primary, cause) from fault
    except OSError as fault:
        raise os_fault("opening the catalog", path, fault) from fault


def _database_fault(path: Path, primary: int, cause: BaseException | None) -> StorageError:
    if primary in _DAMAGED:
        return DamagedError(
            f"the catalog {path} is damaged ({cause}); it was left as it is. Stop Aftertone, move the file aside and "
            "start again: messages are rebuilt from the recordings"
        )
    if primary == sqlite3.SQLITE_FULL:
        return StorageFullError(f"no room to write the catalog {path}; free some disk space")
    if primary in _BUSY:
        return StorageError(f"the catalog {path} is busy with another process; this is tried again")
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StorageError(f"the catalog {path} cannot be opened for writing ({cause}); check its owner and folder")
    return StorageError(f"the catalog {path} failed ({cause}); check the disk, this is tried again")
