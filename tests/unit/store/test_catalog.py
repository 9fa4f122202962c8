"""The catalog's operations: each does one thing once, and writes it into the list of changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from aftertone.errors import NotFoundError, UsageError
from aftertone.model import Action, Caller, Clock, DivertReason, Kind, Origin, State
from aftertone.store import changes, login, messages
from aftertone.store.catalog import Catalog
from aftertone.store.rows import Counts, Session
from tests.support.messages import a_message

NOW = 1_760_000_000_000


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path / "aftertone.db", unix_ms=lambda: NOW)
    yield opened
    opened.close()


def test_a_message_comes_back_as_it_went_in(catalog: Catalog) -> None:
    message = a_message(
        1,
        heard_unix_ms=7,
        holds=((1, 2),),
        end_detail="Q.850;cause=16",
        srtp="AEAD_AES_128_GCM",
        jitter_ms=0,
        peer_lost=3,
        round_trip_ms=45,
        clock=Clock.UNSURE,
        caller=Caller("'; --", "Zoë \u0000 ☎"),
    )
    assert catalog.record_delivery(message)
    assert catalog.message(message.id) == message
    assert catalog.has_message(message.id)


def test_a_delivery_is_recorded_once(catalog: Catalog) -> None:
    message = a_message(1)
    assert catalog.record_delivery(message)
    after = catalog.last_change()
    assert not catalog.record_delivery(a_message(1, duration_ms=1, mailbox="other"))
    assert catalog.message(message.id) == message
    assert catalog.last_change() == after
    assert [row.name for row in catalog.mailboxes()] == ["main"]


def test_a_delivery_makes_its_mailbox_and_tells_both(catalog: Catalog) -> None:
    message = a_message(1, mailbox="Office")
    catalog.record_delivery(message)
    catalog.record_delivery(a_message(2, mailbox="oFFICE"))
    told = [(change.what, change.mailbox, change.message_id) for change in catalog.changes(0)]
    assert told == [
        ("mailbox", "office", None),
        ("message", "office", message.id),
        ("message", "office", a_message(2).id),
    ]
    assert {found.mailbox for found in catalog.messages(mailbox="OFFICE")} == {"Office"}


def test_a_mailbox_that_cannot_be_is_refused(catalog: Catalog) -> None:
    for name in ("", "a b", "x" * 65, "../up", "ä"):
        with pytest.raises(UsageError, match="mailbox name"):
            catalog.record_delivery(a_message(1, mailbox=name))
    assert not catalog.has_message(a_message(1).id)


def test_what_is_not_there_is_said(catalog: Catalog) -> None:
    nobody = UUID(int=5)
    for ask in (
        lambda: catalog.message(nobody),
        lambda: catalog.act(nobody, Action.HEAR, NOW),
        lambda: catalog.messages(before=nobody),
        lambda: catalog.mailbox("main"),
        lambda: catalog.set_greeting("main", "greetings/x.flac", "ab" * 32),
    ):
        with pytest.raises(NotFoundError):
            ask()


def test_lists_are_newest_first_and_paged(catalog: Catalog) -> None:
    same_time = 1_750_000_000_000
    everyone = [a_message(seed, started_unix_ms=same_time + seed // 3) for seed in range(25)]
    for message in everyone:
        catalog.record_delivery(message)
    expected = sorted(everyone, key=lambda m: m.id, reverse=True)
    paged = catalog.messages(limit=10)
    while page := catalog.messages(limit=10, before=paged[-1].id):
        paged += page
    assert paged == expected
    assert sorted(m.id for m in catalog.every_message()) == sorted(m.id for m in everyone)


def test_the_clock_orders_nothing(catalog: Catalog) -> None:
    calls = [a_message(seed) for seed in range(8)]
    years_ms = (0, -50, 80, 0, -3, 40, -40, 0)
    shown = [
        replace(m, started_unix_ms=m.started_unix_ms + y * 31_557_600_000) for m, y in zip(calls, years_ms, strict=True)
    ]
    for message in reversed(shown):
        catalog.record_delivery(message)
    newest_first = [m.id for m in reversed(calls)]
    assert [m.id for m in catalog.messages()] == newest_first
    paged = catalog.messages(limit=3)
    while page := catalog.messages(limit=3, before=paged[-1].id, mailbox="main"):
        paged += page
    assert [m.id for m in paged] == newest_first


def test_the_clock_makes_no_refusal_old(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "REFUSALS_KEPT", 3)
    monkeypatch.setattr(messages, "_PRUNE_EVERY", 1)
    for number, at_unix_ms in enumerate((NOW, 10 * NOW, 5, NOW, 6), 1):
        catalog.record_refusal(UUID(int=number), at_unix_ms, 480, "full", Caller("100", "Bob"), "sip:x@y")
    assert [refusal.id.int for refusal in catalog.refusals()] == [5, 4, 3], "the last to come are kept"


def test_a_clock_that_ran_ahead_took_no_link_away(catalog: Catalog) -> None:
    catalog.add_login_link("a" * 64, NOW + 100)
    catalog.add_login_link("b" * 64, NOW + 100)
    assert not catalog.use_login_link("b" * 64, 10 * NOW)
    assert catalog.use_login_link("a" * 64, NOW)
    assert catalog.use_login_link("b" * 64, NOW)


def test_every_message_goes_over_many_pages(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aftertone.store.catalog._PAGE_ROWS", 4)
    for seed in range(8):
        catalog.record_delivery(a_message(seed))
    assert [m.id for m in catalog.every_message()] == sorted(a_message(seed).id for seed in range(8))


def test_lists_are_filtered(catalog: Catalog) -> None:
    catalog.record_delivery(a_message(1))
    catalog.record_delivery(a_message(2, kind=Kind.HANGUP))
    catalog.record_delivery(a_message(3, mailbox="other", state=State.HEARD))
    assert [m.id for m in catalog.messages(kind=Kind.HANGUP)] == [a_message(2).id]
    assert [m.id for m in catalog.messages(states={State.HEARD, State.DELETED})] == [a_message(3).id]
    assert [m.id for m in catalog.messages(mailbox="main", states=[State.NEW])] == [a_message(2).id, a_message(1).id]
    assert catalog.messages(states=[]) == []
    for limit in (0, 1001):
        with pytest.raises(UsageError, match="1 to 1000"):
            catalog.messages(limit=limit)


def test_a_message_is_heard_deleted_and_restored_as_heard(catalog: Catalog) -> None:
    message = a_message(1)
    catalog.record_delivery(message)
    assert catalog.act(message.id, Action.HEAR, 10).heard_unix_ms == 10
    assert catalog.act(message.id, Action.DELETE, 11).state is State.DELETED
    restored = catalog.act(message.id, Action.RESTORE, 12)
    assert (restored.state, restored.heard_unix_ms) == (State.HEARD, 10)
    fresh = catalog.act(message.id, Action.UNHEAR, 13)
    assert (fresh.state, fresh.heard_unix_ms) == (State.NEW, None)


def test_asking_again_changes_nothing(catalog: Catalog) -> None:
    message = a_message(1)
    catalog.record_delivery(message)
    heard = catalog.act(message.id, Action.HEAR, 10)
    last = catalog.last_change()
    assert catalog.act(message.id, Action.HEAR, 99) == heard
    assert catalog.last_change() == last


def test_counts(catalog: Catalog) -> None:
    assert catalog.counts() == Counts()
    catalog.record_delivery(a_message(1))
    catalog.record_delivery(a_message(2, mailbox="other"))
    catalog.record_delivery(a_message(3, state=State.HEARD))
    catalog.record_delivery(a_message(4, kind=Kind.HANGUP))
    catalog.record_delivery(a_message(5, kind=Kind.HANGUP, state=State.HEARD))
    catalog.record_delivery(a_message(6, kind=Kind.HANGUP, state=State.DELETED))
    catalog.record_delivery(a_message(7, state=State.DELETED))
    assert catalog.counts() == Counts(new=2, heard=1, hangups=2, deleted=2)
    assert catalog.counts("OTHER") == Counts(new=1)
    assert catalog.counts("nobody") == Counts()


def test_refusals_are_recorded_once_and_bounded(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "REFUSALS_KEPT", 3)
    monkeypatch.setattr(messages, "_PRUNE_EVERY", 1)
    caller = Caller("100", "Bob")
    for number in range(1, 6):
        assert catalog.record_refusal(UUID(int=number), number, 486, "too many calls", caller, "sip:x@y")
    assert not catalog.record_refusal(UUID(int=5), 9, 500, "again", caller, "sip:x@y")
    assert [refusal.id.int for refusal in catalog.refusals()] == [5, 4, 3]
    first = catalog.refusals(1)[0]
    assert (first.status, first.reason, first.caller, first.at_unix_ms) == (486, "too many calls", caller, 5)
    assert catalog.count_refusals() == 3
    assert catalog.has_refusal(UUID(int=5))
    assert not catalog.has_refusal(UUID(int=1))
    with pytest.raises(UsageError):
        catalog.refusals(0)


def test_mailboxes(catalog: Catalog) -> None:
    made = catalog.add_mailbox("Zoe", rings=3)
    assert (made.name, made.rings, made.greeting_blob, made.created_unix_ms) == ("Zoe", 3, None, NOW)
    catalog.add_mailbox("anna")
    assert [row.name for row in catalog.mailboxes()] == ["anna", "Zoe"]
    with pytest.raises(UsageError, match="already"):
        catalog.add_mailbox("ZOE")
    catalog.set_greeting("zoe", "greetings/a.flac", "ab" * 32)
    assert catalog.mailbox("ZOE").greeting_blob == "greetings/a.flac"
    catalog.set_rings("zoe", None)
    assert catalog.mailbox("zoe").rings is None
    catalog.clear_greeting("zoe")
    assert catalog.mailbox("zoe").greeting_sha256 is None
    assert [change.mailbox for change in catalog.changes(0)] == ["zoe", "anna", "zoe", "zoe", "zoe"]
    catalog.clear_greeting("zoe")
    catalog.set_rings("zoe", None)
    assert catalog.last_change() == 5


def test_a_number_belongs_to_one_mailbox(catalog: Catalog) -> None:
    catalog.add_mailbox("zoe", numbers=["+49 30 5550100", "0049-30-5550100", "200"])
    assert catalog.mailbox("zoe").numbers == ("+49 30 5550100", "200")
    before = catalog.last_change()
    catalog.set_numbers("ZOE", ["+49 30 5550100", "200"])
    assert catalog.last_change() == before, "what holds already is no change"
    with pytest.raises(UsageError, match="200 is a number of the mailbox 'zoe' already"):
        catalog.add_mailbox("anna", numbers=["200"])
    assert [row.name for row in catalog.mailboxes()] == ["zoe"], "a mailbox without the number it was to have is none"
    catalog.add_mailbox("300")
    for wrong in (["300"], ["ann"], [""], [str(1000 + number) for number in range(101)]):
        with pytest.raises(UsageError):
            catalog.set_numbers("zoe", wrong)
    catalog.set_numbers("zoe", [])
    assert catalog.mailbox("zoe").numbers == ()
    catalog.set_numbers("300", ["200"])
    with pytest.raises(NotFoundError):
        catalog.set_numbers("nobody", ["1"])


def test_by_which_way_a_message_came_is_kept(catalog: Catalog) -> None:
    origin = Origin("trunk", "pbx", "P-Asserted-Identity", "TN-Validation-Passed", "200", DivertReason.NO_ANSWER)
    message = a_message(1, origin=origin)
    catalog.record_delivery(message)
    assert catalog.message(message.id).origin == origin


def test_changes_are_bounded_and_never_renumbered(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "CHANGES_KEPT", 3)
    monkeypatch.setattr(changes, "_PRUNE_EVERY", 2)
    for number in range(10):
        catalog.add_mailbox(f"box{number}")
    assert [change.sequence for change in catalog.changes(0)] == [8, 9, 10]
    assert [change.sequence for change in catalog.changes(8, limit=1)] == [9]
    with pytest.raises(UsageError):
        catalog.changes(0, limit=0)


def test_a_new_password_logs_everybody_out(catalog: Catalog) -> None:
    assert catalog.password_hash() is None
    catalog.set_password_hash("one")
    catalog.add_session("a" * 64, 50)
    catalog.add_session("a" * 64, 60)
    catalog.add_login_link("c" * 64, 60)
    assert catalog.session("a" * 64) == Session("a" * 64, 60)
    catalog.set_password_hash("two")
    assert catalog.password_hash() == "two"
    assert catalog.session("a" * 64) is None
    assert not catalog.use_login_link("c" * 64, 1)


def test_a_session_is_dropped(catalog: Catalog) -> None:
    catalog.add_session("a" * 64, 50)
    catalog.drop_session("a" * 64)
    catalog.drop_session("a" * 64)
    assert catalog.session("a" * 64) is None


def test_the_session_that_expires_first_gives_way(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "SESSIONS_KEPT", 2)
    for letter, expires in (("a", 20), ("b", 10), ("c", 30)):
        catalog.add_session(letter * 64, expires)
    assert [catalog.session(letter * 64) is not None for letter in "abc"] == [True, False, True]


def test_a_login_link_works_once_and_in_time(catalog: Catalog) -> None:
    catalog.add_login_link("a" * 64, 100)
    catalog.add_login_link("b" * 64, 100)
    assert catalog.use_login_link("a" * 64, 99)
    assert not catalog.use_login_link("a" * 64, 99)
    assert not catalog.use_login_link("b" * 64, 100)


def test_a_token_itself_is_never_stored(catalog: Catalog) -> None:
    for token in ("secret", "A" * 64, ""):
        with pytest.raises(UsageError, match="SHA-256"):
            catalog.add_session(token, 1)
        with pytest.raises(UsageError, match="SHA-256"):
            catalog.add_login_link(token, 1)


def test_two_processes_and_many_threads_lose_nothing(catalog: Catalog, tmp_path: Path) -> None:
    other = Catalog.open(tmp_path / "aftertone.db")
    shared = [a_message(seed) for seed in range(40)]
    wins: list[bool] = []

    def deliver(through: Catalog) -> None:
        wins.extend([through.record_delivery(message) for message in shared])

    threads = [threading.Thread(target=deliver, args=(through,)) for through in (catalog, other, catalog, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert wins.count(True) == len(shared)
    assert len(catalog.messages()) == len(shared)
    assert [c.sequence for c in catalog.changes(0)] == list(range(1, len(shared) + 2))
    assert catalog.check() == []


@pytest.mark.parametrize("mailbox", [None, "main"])
@pytest.mark.parametrize("kind", [None, Kind.MESSAGE])
def test_lists_walk_an_index_in_order(catalog: Catalog, mailbox: str | None, kind: Kind | None) -> None:
    query = messages.newest_query(key=mailbox, kind=kind, states=None, limit=10)
    with catalog._database.read() as connection:
        compiled = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        plan = [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]
    wanted = "sqlite_autoindex_messages_1" if mailbox is None else "messages_mailbox_newest"
    if mailbox is not None and kind is not None:
        wanted = "messages_mailbox_"
    assert any(f"USING INDEX {wanted}" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan
