"""One SQLite file, opened so that a commit survives the plug.

Owns: connections and their pragmas, transactions, error translation, recovery of connections after a disk error.
Refuses to know: the tables.

Theory of operation: WAL with ``synchronous=FULL`` syncs the log in every commit; both are read back on every new
connection and a connection that did not take them is refused. The driver's own transaction guessing is switched off;
a read runs in a deferred transaction, a write takes the lock at its start (BEGIN IMMEDIATE), so that two processes that
both read and then write wait for each other instead of failing half way. Threads may share one ``Database``.
After a disk error every connection is closed, and before the next write the log is written into the main file and
emptied: a page whose sync failed may still look fine in the page cache and would be gone after a power cut.
Spec: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry

from aftertone.errors import StorageError
from aftertone.store.faults import catalog_faults

BUSY_TIMEOUT_MS: Final = 5_000
"""How long a transaction waits for another process's write before StorageError; writes take milliseconds."""

POOL_CONNECTIONS: Final = 8
"""Connections kept per process; up to twice as many are open at once, the next one waits."""

_SYNCHRONOUS_FULL: Final = 2


class Database:
    """Transactions on the SQLite file ``path``; thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sa.create_engine(
            sa.URL.create("sqlite+pysqlite", database=str(path)),
            pool_size=POOL_CONNECTIONS,
            max_overflow=POOL_CONNECTIONS,
            pool_timeout=BUSY_TIMEOUT_MS / 1000,
            connect_args={"check_same_thread": False},
        )
        event.listen(self._engine, "connect", self._prepare)
        event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(immediate=True)
        self._watch: sqlite3.Connection | None = None
        self._watch_lock = threading.Lock()
        self._settle_log = False

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a connection inside a read transaction: one consistent view. Raises StorageError, DamagedError."""
        with self._faults(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Give a connection that holds the write lock; leaving commits, durable on return, an exception rolls back.

        Raises StorageError (try again), StorageFullError, DamagedError.
        """
        with self._faults():
            if self._settle_log:
                self._empty_log()
            with self._writer.begin() as connection:
                yield connection

    def data_version(self) -> int:
        """Return a number that changes when any other connection, of any process, commits. Costs microseconds."""
        with self._faults(), self._watch_lock:
            if self._watch is None:
                self._watch = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                self._watch.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def check(self) -> list[str]:
        """Return what SQLite's own quick check finds wrong; nothing when the file is sound. Reads the whole file."""
        with self.read() as connection:
            found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(20)")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close every connection; using the database again opens new ones."""
        self._engine.dispose()
        with self._watch_lock:
            if self._watch is not None:
                self._watch.close()
                self._watch = None

    def _faults(self) -> AbstractContextManager[None]:
        return catalog_faults(self.path, self._after_io_error)

    def _after_io_error(self) -> None:
        self._settle_log = True
        self._engine.dispose()

    def _empty_log(self) -> None:
        with closing(self._engine.raw_connection()) as raw:
            cursor = raw.cursor()
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            blocked = any(row[0] for row in cursor.fetchall())
        if blocked:
            raise StorageError(f"the catalog {self.path} is recovering from a disk error; this is tried again")
        self._settle_log = False

    def _prepare(self, raw: sqlite3.Connection, _entry: ConnectionPoolEntry | None) -> None:
        raw.isolation_level = None
        raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        mode = raw.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA foreign_keys=ON")
        level = raw.execute("PRAGMA synchronous").fetchone()[0]
        keys = raw.execute("PRAGMA foreign_keys").fetchone()[0]
        if mode != "wal" or level != _SYNCHRONOUS_FULL or keys != 1:
            raw.close()
            raise StorageError(
                f"the catalog {self.path} cannot be opened safely (journal_mode={mode}, synchronous={level}, "
                f"foreign_keys={keys}); keep it on a local disk, not on a network folder"
            )


def _begin(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
