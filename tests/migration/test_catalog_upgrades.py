"""A catalog of every version that was ever released opens, is upgraded, and still says the same.

``catalog_<version>.sql`` is a dump of a small catalog as the program of that version left it; add one for each new version and
never change an old one.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from aftertone.model import Action, Caller, Kind, State
from aftertone.store.catalog import Catalog
from aftertone.store.rows import Counts
from aftertone.store.schema import SCHEMA_VERSIONS
from aftertone.store.upgrade import stored_version
from tests.support.messages import a_message

DUMPS = Path(__file__).parent


def test_there_is_a_dump_of_every_version() -> None:
    assert sorted(path.stem for path in DUMPS.glob("*.sql")) == [f"catalog_{version}" for version in SCHEMA_VERSIONS]


@pytest.mark.parametrize("version", SCHEMA_VERSIONS)
def test_an_old_catalog_opens_and_says_the_same(version: str, tmp_path: Path) -> None:
    path = tmp_path / "aftertone.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript((DUMPS / f"catalog_{version}.sql").read_text(encoding="utf-8"))
    assert stored_version(path) == version
    catalog = Catalog.open(path)
    assert stored_version(path) == SCHEMA_VERSIONS[-1]
    assert catalog.check() == []
    assert catalog.counts("MAIN") == Counts(new=1, heard=1, hangups=1, deleted=1)
    assert catalog.message(a_message(0).id) == a_message(0, mailbox="Main")
    heard = catalog.message(a_message(1).id)
    assert (heard.state, heard.heard_unix_ms) == (State.HEARD, 5)
    assert [message.kind for message in catalog.messages(kind=Kind.HANGUP)] == [Kind.HANGUP]
    mailbox = catalog.mailbox("main")
    assert (mailbox.name, mailbox.rings, mailbox.greeting_sha256) == ("Main", 3, "ab" * 32)
    refusal = catalog.refusals()[0]
    assert (refusal.id, refusal.status, refusal.caller) == (UUID(int=9), 480, Caller("5", "Bob"))
    assert catalog.password_hash() == "$argon2id$v=19$example"
    assert catalog.session("cd" * 32) is not None
    assert catalog.use_login_link("ef" * 32, 1)
    last = catalog.last_change()
    assert last == 9
    assert catalog.act(a_message(3).id, Action.RESTORE, 9).state is State.NEW
    assert catalog.last_change() == last + 1, "numbers go on where they were"
    catalog.close()
