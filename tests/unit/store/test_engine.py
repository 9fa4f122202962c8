"""Connections that are not safe are refused; database errors leave as the one tree of errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aftertone.errors import DamagedError, StorageError, StorageFullError
from aftertone.store.engine import Database
from aftertone.store.faults import catalog_faults


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "some.db")
    with opened.write() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")
    yield opened
    opened.close()


def test_every_connection_syncs_each_commit(database: Database) -> None:
    with database.read() as one, database.read() as two:
        for connection in (one, two):
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_connection_that_does_not_take_full_syncs_is_refused(database: Database, tmp_path: Path) -> None:
    raw = _StubbornConnection(tmp_path / "some.db")
    with pytest.raises(StorageError, match="synchronous=1"):
        database._prepare(raw, None)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        raw.execute("SELECT 1")


class _StubbornConnection(sqlite3.Connection):
    """Takes orders about syncing and stays as it is."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous=FULL", "synchronous=NORMAL"), *parameters)


def test_an_exception_rolls_back(database: Database) -> None:
    with pytest.raises(LookupError), database.write() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        raise LookupError
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0


def test_a_write_that_waits_too_long_says_busy_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aftertone.store.engine.BUSY_TIMEOUT_MS", 20)
    one, two = Database(tmp_path / "some.db"), Database(tmp_path / "some.db")
    with one.write() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")
        with pytest.raises(StorageError, match="busy") as caught, two.write():
            pass
        assert caught.value.retry
    with two.write() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    one.close()
    two.close()


def test_data_version_moves_with_commits_of_others_only(database: Database, tmp_path: Path) -> None:
    before = database.data_version()
    assert database.data_version() == before
    other = Database(tmp_path / "some.db")
    with other.write() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    other.close()
    assert database.data_version() != before


def _sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "kind", "retry"),
    [
        (sqlite3.SQLITE_CORRUPT, DamagedError, False),
        (sqlite3.SQLITE_NOTADB, DamagedError, False),
        (sqlite3.SQLITE_FULL, StorageFullError, True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StorageError, True),
        (sqlite3.SQLITE_READONLY, StorageError, True),
        (sqlite3.SQLITE_IOERR_FSYNC, StorageError, True),
        (sqlite3.SQLITE_ERROR, StorageError, True),
    ],
)
def test_result_codes_become_errors_that_name_the_file(code: int, kind: type[StorageError], retry: bool) -> None:
    with pytest.raises(kind, match=r"some\.db") as caught, catalog_faults(Path("some.db")):
        raise sa.exc.OperationalError("SELECT 1", {}, _sqlite_error(code))
    assert type(caught.value) is kind
    assert caught.value.retry is retry


def test_after_a_disk_error_the_log_is_emptied_before_the_next_write(database: Database, tmp_path: Path) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    log = tmp_path / "some.db-wal"
    reader = sqlite3.connect(tmp_path / "some.db")
    reader.execute("SELECT * FROM t").fetchall()  # keeps the log alive when the others close
    with pytest.raises(StorageError), database.write() as connection:
        raise sa.exc.OperationalError("COMMIT", {}, _sqlite_error(sqlite3.SQLITE_IOERR_FSYNC))
    assert log.stat().st_size > 0
    sizes: list[int] = []
    with database.write() as connection:
        sizes.append(log.stat().st_size)
        connection.exec_driver_sql("INSERT INTO t VALUES (2)")
    assert sizes == [0]
    assert reader.execute("SELECT n FROM t").fetchall() == [(1,), (2,)]
    reader.close()


def test_a_log_that_cannot_be_emptied_stops_the_write(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError), database.write():
        raise sa.exc.OperationalError("COMMIT", {}, _sqlite_error(sqlite3.SQLITE_IOERR_WRITE))
    monkeypatch.setattr("aftertone.store.engine.BUSY_TIMEOUT_MS", 10)
    reader = sqlite3.connect(tmp_path / "some.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t").fetchall()
    with closing(sqlite3.connect(tmp_path / "some.db")) as writer, writer:
        writer.execute("INSERT INTO t VALUES (1)")  # a log that the reader still needs
    with pytest.raises(StorageError, match="recovering"), database.write():
        pass
    reader.close()
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")


def test_check_finds_a_page_that_was_overwritten(database: Database, tmp_path: Path) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("CREATE INDEX i ON t (n)")
        rows: list[Any] = [(n,) for n in range(5000)]
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", rows)
    assert database.check() == []
    database.close()
    path = tmp_path / "some.db"
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)
    try:
        found = database.check()
    except DamagedError as error:
        found = [str(error)]
    assert found
