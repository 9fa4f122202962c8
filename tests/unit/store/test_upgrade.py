"""A catalog file is made, upgraded or refused; Alembic stays out of a start that needs nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from aftertone.errors import DamagedError, StorageError
from aftertone.store.catalog import Catalog
from aftertone.store.engine import Database
from aftertone.store.faults import NewerSchemaError
from aftertone.store.schema import SCHEMA_VERSIONS, metadata
from aftertone.store.upgrade import MIGRATIONS, MOST_ASIDE, ensure_current, stored_version

NEXT = f"{int(SCHEMA_VERSIONS[-1]) + 1:04}"


def test_the_constant_is_what_alembic_sees() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [SCHEMA_VERSIONS[-1]]
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == SCHEMA_VERSIONS


def test_the_migrations_make_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    database = Database(tmp_path / "aftertone.db")
    ensure_current(database)
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        made = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'changes'").scalar()
        assert "AUTOINCREMENT" in str(made)
    database.close()


def test_a_second_start_imports_no_alembic(tmp_path: Path) -> None:
    path = tmp_path / "aftertone.db"
    Catalog.open(path).close()
    program = (
        "import sys; from pathlib import Path; from aftertone.store.catalog import Catalog; "
        f"Catalog.open(Path({str(path)!r})).close(); sys.exit('alembic' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


def test_a_newer_catalog_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "aftertone.db"
    Catalog.open(path).close()
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(NewerSchemaError, match="newer Aftertone") as caught:
        Catalog.open(path)
    assert not caught.value.retry
    assert path.read_bytes() == before


def test_a_damaged_catalog_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "aftertone.db"
    path.write_bytes(b"these are not the rows you are looking for" * 200)
    before = path.read_bytes()
    with pytest.raises(DamagedError, match="rebuilt from the recordings"):
        Catalog.open(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["aftertone.db"]


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "aftertone.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(DamagedError, match="not an Aftertone catalog"):
        Catalog.open(path)


def test_a_folder_in_the_way_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        Catalog.open(tmp_path / "file" / "aftertone.db")


def test_an_empty_file_becomes_a_catalog(tmp_path: Path) -> None:
    path = tmp_path / "aftertone.db"
    path.touch()
    assert stored_version(path) is None
    Catalog.open(path).close()
    assert stored_version(path) == SCHEMA_VERSIONS[-1]


def test_logs_beside_a_file_that_is_gone_are_all_kept_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk may lose the main file alone; who looks into it later wants each log, above all the first."""
    path, log = tmp_path / "aftertone.db", tmp_path / "aftertone.db-wal"
    for number in range(1, MOST_ASIDE + 3):
        path.unlink(missing_ok=True)
        log.write_bytes(b"%d" % number)
        Catalog.open(path).close()
    kept = {entry.name: entry.read_bytes() for entry in tmp_path.glob("*.aside*")}
    names = ["aftertone.db-wal.aside", *(f"aftertone.db-wal.aside.{number}" for number in range(2, MOST_ASIDE + 1))]
    contents = [*range(1, MOST_ASIDE), MOST_ASIDE + 2]
    assert kept == {name: b"%d" % content for name, content in zip(names, contents, strict=True)}
    assert f"it is kept as {tmp_path / names[0]}" in caplog.text


def test_an_empty_log_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "aftertone.db-wal").touch()
    Catalog.open(tmp_path / "aftertone.db").close()
    assert not list(tmp_path.glob("*.aside*"))
    assert not caplog.text


def test_an_upgrade_that_fails_leaves_the_old_schema_whole(tmp_path: Path) -> None:
    path, migrations = tmp_path / "aftertone.db", tmp_path / "migrations"
    Catalog.open(path).close()
    broken = "op.add_column('messages', sa.Column('colour', sa.Text))\n    raise RuntimeError('power cut')"
    _write_next_migration(migrations, broken)
    database = Database(path)
    with pytest.raises(RuntimeError, match="power cut"):
        ensure_current(database, versions=(*SCHEMA_VERSIONS, NEXT), migrations=migrations)
    assert stored_version(path) == SCHEMA_VERSIONS[-1]
    with database.read() as connection:
        columns = {row[1] for row in connection.exec_driver_sql("PRAGMA table_info(messages)")}
    assert "colour" not in columns
    database.close()


def test_processes_that_start_together_upgrade_once(tmp_path: Path) -> None:
    migrations = tmp_path / "migrations"
    Catalog.open(tmp_path / "aftertone.db").close()
    _write_next_migration(migrations, "op.add_column('messages', sa.Column('colour', sa.Text))")
    databases = [Database(tmp_path / "aftertone.db") for _ in range(4)]
    did: list[bool] = []

    def start(database: Database) -> None:
        did.append(ensure_current(database, versions=(*SCHEMA_VERSIONS, NEXT), migrations=migrations))

    threads = [threading.Thread(target=start, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for database in databases:
        database.close()
    assert sorted(did) == [False, False, False, True]
    assert stored_version(tmp_path / "aftertone.db", (*SCHEMA_VERSIONS, NEXT)) == NEXT


def _write_next_migration(folder: Path, body: str) -> None:
    versions = folder / "versions"
    versions.mkdir(parents=True)
    (folder / "env.py").write_text((MIGRATIONS / "env.py").read_text())
    for known in (MIGRATIONS / "versions").glob("v*.py"):
        (versions / known.name).write_text(known.read_text())
    (versions / f"v{NEXT}_colour.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = {NEXT!r}\ndown_revision = {SCHEMA_VERSIONS[-1]!r}\n"
        f"def upgrade() -> None:\n    {body}\n"
    )
