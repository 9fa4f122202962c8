"""The catalog against a dictionary: whatever is asked in whatever order, they agree."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aftertone.errors import StateError
from aftertone.model import Action, Kind, Message, State, next_state
from aftertone.store.catalog import Catalog
from tests.support.messages import a_message


@cache
def _template() -> Path:
    """Return an empty catalog to copy; making one takes longer than a whole example."""
    folder = Path(tempfile.mkdtemp(prefix="aftertone-catalog-"))
    atexit.register(shutil.rmtree, folder)
    Catalog.open(folder / "aftertone.db").close()
    return folder / "aftertone.db"


class CatalogMachine(RuleBasedStateMachine):
    """Two processes do things to one catalog."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="aftertone-catalog-"))
        path = Path(shutil.copy(_template(), self.folder))
        self.catalogs = [Catalog.open(path), Catalog.open(path)]
        self.model: dict[UUID, Message] = {}
        self.changes = 0
        self.mailboxes: set[str] = set()
        self.clock = 0

    def teardown(self) -> None:
        for catalog in self.catalogs:
            catalog.close()
        shutil.rmtree(self.folder)

    @rule(who=st.integers(0, 1), seed=st.integers(0, 12), kind=st.sampled_from(Kind), mailbox=st.sampled_from("aAb"))
    def deliver(self, who: int, seed: int, kind: Kind, mailbox: str) -> None:
        message = a_message(seed, kind=kind, mailbox=mailbox, started_unix_ms=1000 + seed // 3)
        message = replace(message, started_unix_ms=1000 - 7 * seed % 5)  # the clock is an annotation
        new = message.id not in self.model
        assert self.catalogs[who].record_delivery(message) is new
        if new:
            shown = next((name for name in self.mailboxes if name.lower() == mailbox.lower()), mailbox)
            self.changes += 1 if shown in self.mailboxes else 2
            self.mailboxes.add(shown)
            self.model[message.id] = replace(message, mailbox=shown)

    @rule(who=st.integers(0, 1), seed=st.integers(0, 12), action=st.sampled_from(Action))
    def act(self, who: int, seed: int, action: Action) -> None:
        message_id = a_message(seed, started_unix_ms=1000 + seed // 3).id
        if message_id not in self.model:
            return
        before = self.model[message_id]
        self.clock += 1
        try:
            state = next_state(before.state, action, heard_before=before.heard_unix_ms is not None)
        except StateError:
            return
        after = self.catalogs[who].act(message_id, action, self.clock)
        assert after.state is state
        if state is before.state:
            assert after == before
        else:
            self.changes += 1
        heard = {Action.HEAR: before.heard_unix_ms or after.heard_unix_ms, Action.UNHEAR: None}
        assert after.heard_unix_ms == heard.get(action, before.heard_unix_ms)
        assert (after.heard_unix_ms is not None) or after.state is not State.HEARD
        self.model[message_id] = after

    @rule(who=st.integers(0, 1), limit=st.integers(1, 5), mailbox=st.sampled_from([None, "a", "B"]))
    def page_through(self, who: int, limit: int, mailbox: str | None) -> None:
        found: list[Message] = []
        while page := self.catalogs[who].messages(mailbox=mailbox, limit=limit, before=found[-1].id if found else None):
            assert len(page) <= limit
            found += page
        wanted = [m for m in self.model.values() if mailbox is None or m.mailbox.lower() == mailbox.lower()]
        assert found == sorted(wanted, key=lambda m: m.id, reverse=True)

    @invariant()
    def both_see_the_same(self) -> None:
        for catalog in self.catalogs:
            assert {message.id: message for message in catalog.every_message()} == self.model
            assert catalog.last_change() == self.changes
            counts = catalog.counts()
            assert counts.new + counts.heard + counts.hangups + counts.deleted == len(self.model)


CatalogMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestCatalog = CatalogMachine.TestCase
