"""A catalog of every version that was ever released opens, is upgraded, and still says the same.

``catalog_<version>.sql`` is a dump of a small catalog as the program of that version left it; add one for each new version and
never change an old one.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from aftertone.model import Action, Caller, Clock, Kind, State, mint_id
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
    (hangup,) = catalog.messages(kind=Kind.HANGUP)
    assert hangup.clock is (Clock.TRUSTED if version == "0001" else Clock.UNSURE)
    mailbox = catalog.mailbox("main")
    assert (mailbox.name, mailbox.rings, mailbox.greeting_sha256) == ("Main", 3, "ab" * 32)
    assert mailbox.numbers == (() if version < "0004" else ("+1 202 555 0143",))
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


def test_messages_keep_their_order_when_it_becomes_the_order_of_ids(tmp_path: Path) -> None:
    """Version 0001 listed by start and id; its ids held the start, so the upgrade moves nothing."""
    path = tmp_path / "aftertone.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executescript((DUMPS / "catalog_0001.sql").read_text(encoding="utf-8"))
        columns = [str(row[1]) for row in raw.execute("PRAGMA table_info(messages)")]
        template = dict(zip(columns, raw.execute("SELECT * FROM messages").fetchone(), strict=True))
        chance = random.Random(1)
        for _ in range(200):
            started_ms = 1_750_000_000_000 + chance.randrange(50) - chance.choice((0, 0, 50 * 365 * 86_400_000))
            message_id = mint_id(started_ms, chance.randbytes(10))
            row = {**template, "id": message_id.hex, "started_unix_ms": started_ms}
            places = ", ".join(f":{name}" for name in columns)
            raw.execute(f"INSERT INTO messages ({', '.join(columns)}) VALUES ({places})", row)
        order = "SELECT id FROM messages WHERE state != 'deleted' ORDER BY started_unix_ms DESC, id DESC"
        before = [UUID(str(row[0])) for row in raw.execute(order)]
    catalog = Catalog.open(path)
    after = [message.id for message in catalog.messages(states=(State.NEW, State.HEARD), limit=1000)]
    assert after == before
    assert len(after) == 203
    assert {message.clock for message in catalog.messages(limit=1000)} == {Clock.TRUSTED}
    catalog.close()
