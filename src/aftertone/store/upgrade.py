"""Brings a catalog file to the schema that this program speaks, once, whoever comes first.

Owns: creating the file, finding its schema version, running migrations under a lock. Refuses to know: the rows.

Theory of operation: the version is read by plain SQL and compared with a constant, so a start with a current schema
never imports Alembic (0.1 s). Otherwise a file lock beside the database lets one process migrate while the others wait,
then find the work done. All migrations of one upgrade run in one transaction: a power cut leaves the old schema. The
directory is synced after the file was made.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from aftertone.errors import DamagedError
from aftertone.files import OS_FILES, Files, make_directories
from aftertone.store.engine import BUSY_TIMEOUT_MS, Database
from aftertone.store.faults import NewerSchemaError, catalog_faults
from aftertone.store.schema import SCHEMA_VERSIONS

MIGRATIONS: Final = Path(__file__).with_name("migrations")
MOST_ASIDE: Final = 10
"""Logs that are kept; on a disk that keeps failing the last one is replaced, so that the first ones stay."""
_log = logging.getLogger(__name__)


def ensure_current(
    database: Database,
    *,
    files: Files = OS_FILES,
    versions: Sequence[str] = SCHEMA_VERSIONS,
    migrations: Path = MIGRATIONS,
) -> bool:
    """Make ``database`` hold the schema ``versions[-1]``; return True when something was done. Durable on return.

    Raises NewerSchemaError when the file is from a newer program, DamagedError when it is not a sound catalog (it is
    left alone), StorageError.
    """
    path = database.path
    with catalog_faults(path):
        if stored_version(path, versions) == versions[-1]:
            return False
        make_directories(files, path.parent)
        with _upgrade_lock(path):
            stored = stored_version(path, versions)
            if stored == versions[-1]:
                return False
            if stored is None:
                _make_file(database, files)
            _migrate(database, migrations, versions[-1])
            files.sync_directory(path.parent)
    return True


def stored_version(path: Path, versions: Sequence[str] = SCHEMA_VERSIONS) -> str | None:
    """Return the schema version of the file, None when there is no file or it is still empty.

    Raises NewerSchemaError, DamagedError, sqlite3.Error.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as raw:
        raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        tables = {str(row[0]) for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        found = raw.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in tables else []
    if len(found) != 1:
        raise DamagedError(f"{path} is a database, but not an Aftertone catalog; it was left as it is")
    version = str(found[0][0])
    if version not in versions:
        raise NewerSchemaError(
            f"the catalog {path} has schema {version}, this program knows up to {versions[-1]}: it was written by a "
            "newer Aftertone. Install that version again; nothing was changed"
        )
    return version


def _make_file(database: Database, files: Files) -> None:
    """Make an empty database file, for its owner alone, which the log files of SQLite inherit.

    One that is there already is what a creation left that failed. It holds nothing, and a sync of it may have failed: what the
    kernel shows of it then looks fine and would be gone after a power cut. So it is made anew. A log beside it is put aside:
    should a disk have lost the main file alone, a person can still look into it.
    """
    database.close()
    path = database.path
    _put_aside(path.with_name(path.name + "-wal"), files)
    for name in (f"{path.name}{suffix}" for suffix in ("-journal", "-shm", "")):
        with suppress(FileNotFoundError):
            files.unlink(path.with_name(name))
    files.close(files.open_new(path))


def _put_aside(log: Path, files: Files) -> None:
    if not log.exists():
        return
    if log.stat().st_size == 0:
        files.unlink(log)
        return
    names = [f"{log.name}.aside", *(f"{log.name}.aside.{number}" for number in range(2, MOST_ASIDE + 1))]
    paths = [log.with_name(name) for name in names]
    aside = next((path for path in paths if not path.exists()), paths[-1])
    files.rename(log, aside)
    _log.warning("the catalog is made anew, although a log of changes to one was there: it is kept as %s", aside)


@contextmanager
def _upgrade_lock(path: Path) -> Iterator[None]:
    """Hold the lock file beside the database; it stays there, since removing a lock file is a race."""
    descriptor = os.open(path.with_name(path.name + ".upgrade.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _migrate(database: Database, migrations: Path, target: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, target)
