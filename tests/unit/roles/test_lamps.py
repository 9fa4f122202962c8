"""The lamps of a line: who may know, who is told, and that what everybody knows in the end is true."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from aftertone.net.resolver import Target
from aftertone.roles.enrolment import Sender
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.events import FlowLost, IncomingCall
from aftertone.sip.flow import Flow
from aftertone.sip.mwi import Summary, parse
from tests.unit.roles.lamp_world import STRANGER, TRUNK, Phone, World, in_a_loop, reply
from tests.unit.sip.kit import FLOW, US, S, request, seeded

ANNA = {"user": "anna", "secret": "geheim", "mailboxes": ("main",)}
BOTH = {"user": "bert", "secret": "leise", "mailboxes": ("main", "office")}
PBX = {"name": "pbx", "addresses": ("198.51.100.0/24",)}
PHONES: dict[str, Any] = {"phones": (ANNA, BOTH), "trunks": (PBX,)}
LAMP = {"mailbox": "main", "uri": "sip:100@pbx.example.net"}
SERVERS = [
    Target("UDP", "198.51.100.7", 5060, "pbx.example.net"),
    Target("TCP", "198.51.100.8", 5070, "pbx.example.net"),
]


# Who may know


def test_a_phone_that_logs_in_is_told_what_waits_in_its_mailbox() -> None:
    world = World(**PHONES)
    world.counts = {"main": (2, 1)}
    world.lamps.beat()
    anna = Phone(world)
    assert anna.subscribe("main").status == 200
    assert anna.lamp == Summary(2, 1)


@pytest.mark.parametrize(
    ("user", "secret", "asked", "status", "lamp"),
    [
        ("anna", "geheim", "anna", 200, Summary(1, 0)),
        ("anna", "geheim", "", 200, Summary(1, 0)),
        ("anna", "geheim", "MAIN", 200, Summary(1, 0)),
        ("bert", "leise", "bert", 200, Summary(3, 4)),
        ("bert", "leise", "office", 200, Summary(2, 4)),
        ("anna", "geheim", "office", 403, None),
        ("anna", "geheim", "bert", 403, None),
        ("anna", "geheim", "nobody", 404, None),
        ("anna", "falsch", "main", 401, None),
        ("nobody", "geheim", "main", 401, None),
        ("nobody", "geheim", "nobody", 401, None),
    ],
)
def test_who_may_know_what(user: str, secret: str, asked: str, status: int, lamp: Summary | None) -> None:
    world = World(**PHONES)
    world.counts = {"main": (1, 0), "office": (2, 4)}
    world.lamps.beat()
    phone = Phone(world, user, secret)
    assert phone.subscribe(asked).status == status
    assert phone.lamp == lamp


def test_a_stranger_hears_the_same_whether_the_mailbox_exists() -> None:
    for settings, status in (({"trunks": (PBX,)}, 403), (PHONES, 401)):
        world = World(**settings)
        stranger = Phone(world, "x", "y", at=STRANGER)
        answers = [stranger.subscribe(asked).status for asked in ("main", "nobody")]
        assert answers == [status, status]
        assert stranger.lamp is None


@pytest.mark.parametrize(("asked", "status"), [("main", 200), ("anna", 200), ("nobody", 404)])
def test_a_trunk_is_known_by_its_address(asked: str, status: int) -> None:
    world = World(**PHONES)
    pbx = Phone(world, "pbx", at=TRUNK)
    assert pbx.subscribe(asked).status == status


def test_the_mailbox_of_a_trunk_is_what_it_may_ask_for_by_any_name() -> None:
    world = World(trunks=({**PBX, "mailbox": "office"},))
    world.counts = {"office": (5, 0)}
    world.lamps.beat()
    pbx = Phone(world, "pbx", at=TRUNK)
    assert pbx.subscribe("4711").status == 200
    assert pbx.lamp == Summary(5, 0)


# What they are told


@in_a_loop
async def test_a_change_is_told_to_those_who_watch_that_mailbox_alone() -> None:
    world = World(**PHONES)
    world.lamps.beat()
    anna, bert = Phone(world), Phone(world, "bert", "leise", ("192.0.2.8", 5062))
    anna.subscribe("main")
    bert.subscribe("office")
    world.counts = {"main": (1, 0)}
    await world.after(2)
    assert len(anna.answer()) == 1
    assert anna.lamp == Summary(1, 0)
    assert bert.answer() == []
    world.counts = {"main": (0, 1)}
    await world.after(2)
    anna.answer()
    assert anna.lamp == Summary(0, 1)


@in_a_loop
async def test_while_nobody_knows_the_counts_no_lamp_goes_out() -> None:
    world = World(**PHONES, lamps=(LAMP,))
    world.counts = None
    anna = Phone(world)
    anna.lamp = Summary(9, 9)
    anna.subscribe("main")
    anna.register()
    await world.after(3)
    assert all(not notify.body for notify in anna.answer())
    assert anna.lamp == Summary(9, 9)
    world.counts = {"main": (1, 1)}
    await world.after(2)
    anna.answer()
    assert anna.lamp == Summary(1, 1)
    # A publisher that is gone for a while takes nothing back.
    world.counts = None
    await world.after(5)
    assert anna.answer() == []


# Phones that register


@in_a_loop
async def test_a_phone_that_registers_is_told_and_told_again_when_it_comes_again() -> None:
    world = World(**PHONES)
    world.counts = {"main": (1, 0)}
    anna = Phone(world)
    ok = anna.register()
    assert ok.status == 200
    assert ok.get("contact").endswith(";expires=600")
    await world.after(1)
    (notify,) = anna.answer()
    assert notify.uri == "sip:anna@192.0.2.7:5062"
    assert (notify.get("event"), notify.get("subscription-state")) == ("message-summary", "active")
    assert parse(notify.body).account == "sip:main@192.0.2.1"
    assert anna.lamp == Summary(1, 0)
    await world.after(30)
    assert anna.answer() == []
    anna.lamp = None
    anna.register()
    await world.after(1)
    assert len(anna.answer()) == 1
    assert anna.lamp == Summary(1, 0)


@in_a_loop
async def test_a_phone_with_a_subscription_is_not_told_twice() -> None:
    world = World(**PHONES)
    anna = Phone(world)
    anna.subscribe("anna")
    anna.register()
    world.counts = {"main": (1, 0)}
    await world.after(3)
    assert len(anna.answer()) == 1
    # Its subscription goes, and the lamp is looked after all the same.
    anna.status = 481
    world.counts = {"main": (2, 0)}
    await world.after(2)
    assert len(anna.answer()) == 1
    anna.status = 200
    await world.after(2)
    anna.answer()
    assert anna.lamp == Summary(2, 0)


@in_a_loop
async def test_a_phone_that_does_not_want_to_be_told_is_left_alone_until_it_comes_again() -> None:
    world = World(**PHONES)
    world.counts = {"main": (1, 0)}
    anna = Phone(world)
    anna.register()
    anna.status = 489
    await world.after(1)
    assert len(anna.answer()) == 1
    world.counts = {"main": (2, 0)}
    await world.after(400)
    assert anna.answer() == []
    anna.status = 200
    anna.register()
    await world.after(1)
    anna.answer()
    assert anna.lamp == Summary(2, 0)


@in_a_loop
async def test_a_phone_that_signs_off_is_told_no_more() -> None:
    world = World(**PHONES)
    anna = Phone(world)
    anna.register()
    await world.after(1)
    anna.answer()
    assert anna.register(0).status == 200
    world.counts = {"main": (1, 0)}
    await world.after(5)
    assert anna.answer() == []


@in_a_loop
async def test_the_path_of_a_phone_is_its_route_and_its_connection_is_used_while_it_lives() -> None:
    world = World(**PHONES)
    anna = Phone(world, transport="TCP")
    anna.register(extra="Path: <sip:edge.example.net;lr>\r\nSupported: path\r\n")
    await world.after(1)
    (notify,) = anna.answer()
    assert notify.all("route") == ["<sip:edge.example.net;lr>"]
    lost = Flow("TCP", ("192.0.2.7", 5062), US)
    assert world.lamps.lives_on(lost)
    assert not world.lamps.lives_on(Flow("TCP", ("192.0.2.7", 5063), US))
    assert not world.lamps.on_sip(FlowLost(lost))
    assert len(world.lamps.phones.registrar) == 0


# Lamps of the settings


@in_a_loop
async def test_a_lamp_of_the_settings_is_told_and_kept_right() -> None:
    world = World(lamps=(LAMP,))
    world.servers["pbx.example.net"] = SERVERS
    world.counts = {"main": (1, 0)}
    pbx = Phone(world, at=SERVERS[0].address)
    await world.after(1)
    (notify,) = pbx.answer()
    assert notify.uri == "sip:100@pbx.example.net"
    assert notify.from_.uri == "sip:main@192.0.2.1"
    assert pbx.lamp == Summary(1, 0)
    world.counts = {"main": (0, 1)}
    await world.after(2)
    pbx.answer()
    assert pbx.lamp == Summary(0, 1)
    assert world.lamps.alarms() == []


@in_a_loop
async def test_a_lamp_whose_server_is_away_is_told_by_the_next_and_tried_again_with_pauses() -> None:
    world = World(lamps=(LAMP,))
    world.servers["pbx.example.net"] = SERVERS
    world.counts = {"main": (1, 0)}
    second = Phone(world, at=SERVERS[1].address, transport="TCP")
    await world.after(1)
    await world.after(33)
    second.answer()
    assert second.lamp == Summary(1, 0)
    assert world.lamps.alarms() == []


@in_a_loop
async def test_a_lamp_that_cannot_be_told_is_an_alarm_until_it_can() -> None:
    world = World(lamps=(LAMP,))
    world.counts = {"main": (1, 0)}
    await world.after(60)
    (alarm,) = world.lamps.alarms()
    assert alarm["code"] == "lamp"
    assert "pbx.example.net" in alarm["text"]
    assert world.lamps.metrics()["lamps_failing"] == 1
    # 5, 10, 20 ... seconds: not many in a minute, and one line in the log.
    assert 3 <= world.lamps.counters["failed"] <= 5
    assert len([entry for entry in world.logs.entries if entry["log_level"] == "warning"]) == 1
    world.servers["pbx.example.net"] = SERVERS
    pbx = Phone(world, at=SERVERS[0].address)
    for _ in range(100):
        await world.after(1)
        pbx.answer()
    assert pbx.lamp == Summary(1, 0)
    assert world.lamps.alarms() == []


@in_a_loop
async def test_a_change_is_told_at_once_to_a_lamp_that_could_not_be_told_before() -> None:
    """Its phone was away from its PBX for minutes, so that the pauses have grown; it is back when the next message comes."""
    world = World(lamps=(LAMP,))
    world.servers["pbx.example.net"] = SERVERS[:1]
    world.counts = {"main": (1, 0)}
    pbx = Phone(world, at=SERVERS[0].address)
    for _ in range(200):
        await world.after(1)
        for notify in world.notifies():
            world.take(reply(notify, 404), pbx.flow)
    failures = world.lamps.counters["failed"]
    assert failures <= 7
    world.counts = {"main": (2, 0)}
    await world.after(1)
    pbx.answer()
    assert pbx.lamp == Summary(2, 0)
    # A lamp that stays away is not hammered, however fast the messages come.
    for new in range(3, 53):
        world.counts = {"main": (new, 0)}
        await world.after(0.1)
        for notify in world.notifies():
            world.take(reply(notify, 404), pbx.flow)
    assert world.lamps.counters["failed"] - failures <= 6


@in_a_loop
async def test_a_lamp_by_an_account_logs_in_and_takes_its_way() -> None:
    world = World(
        lamps=({**LAMP, "account": "home"},),
        accounts=({"name": "home", "registrar": "box", "user": "620", "secret": "s"},),
    )
    world.counts = {"main": (1, 0)}
    await world.after(5)
    assert world.notifies() == []
    assert world.lamps.alarms() == []
    way = Flow("TCP", ("198.51.100.9", 5060), US)
    world.senders["home"] = Sender("sip:620@box", way, ("sip:edge;lr",), DigestClient("620", "s", seeded()))
    box = Phone(world, at=("198.51.100.9", 5060), transport="TCP")
    await world.after(1)
    (first,) = world.notifies()
    assert (first.from_.uri, first.all("route")) == ("sip:620@box", ["<sip:edge;lr>"])
    challenge = 'Proxy-Authenticate: Digest realm="box", nonce="n", qop="auth"\r\n'
    world.take(reply(first, 407, challenge), way)
    await world.after(1)
    (second,) = box.answer()
    assert 'username="620"' in second.get("proxy-authorization")
    assert box.lamp == Summary(1, 0)
    assert world.lamps.alarms() == []


@in_a_loop
async def test_a_login_that_is_refused_is_said_and_not_hammered() -> None:
    world = World(
        lamps=({**LAMP, "account": "home"},),
        accounts=({"name": "home", "registrar": "box", "user": "620", "secret": "s"},),
    )
    way = Flow("UDP", ("198.51.100.9", 5060), US)
    world.senders["home"] = Sender("sip:620@box", way, (), DigestClient("620", "s", seeded()))
    asked = 0
    for second in range(30):
        await world.after(1)
        for notify in world.notifies():
            asked += 1
            challenge = f'WWW-Authenticate: Digest realm="box", nonce="n{second}", qop="auth"\r\n'
            world.take(reply(notify, 401, challenge), way)
    assert 2 <= asked <= 10
    assert "refused our user name or password" in world.lamps.alarms()[0]["text"]


# The rest


@in_a_loop
async def test_whatever_is_lost_the_last_state_is_known_in_the_end() -> None:
    world = World(**PHONES, lamps=({"mailbox": "office", "uri": "sip:9@198.51.100.7"},))
    world.servers["198.51.100.7"] = SERVERS[:1]
    rng = random.Random(4)
    anna, bert = Phone(world), Phone(world, "bert", "leise", ("192.0.2.8", 5062))
    pbx = Phone(world, at=SERVERS[0].address)
    anna.register()
    bert.subscribe("bert")
    for step in range(120):
        world.counts = {"main": (rng.randrange(3), rng.randrange(3)), "office": (rng.randrange(3), 0)}
        await world.after(rng.choice((0.2, 1, 3)))
        for phone in (anna, bert, pbx):
            if rng.random() < 0.4:
                world.sent = [(m, f) for m, f in world.sent if f.remote != phone.at]
            phone.answer()
        if step % 20 == 0:
            anna.register()
            bert.subscribe("bert")
    for second in range(700):
        await world.after(1)
        for phone in (anna, bert, pbx):
            phone.answer()
        if second == 1:
            anna.register()
            bert.subscribe("bert")
    assert world.counts is not None
    main, office = world.counts["main"], world.counts["office"]
    assert anna.lamp == Summary(*main)
    assert bert.lamp == Summary(*main) + Summary(*office)
    assert pbx.lamp == Summary(*office)


@in_a_loop
async def test_calls_are_not_for_lamps() -> None:
    world = World(**PHONES)
    world.take(request("INVITE"), FLOW)
    assert [type(event) for event in world.others] == [IncomingCall]


@in_a_loop
async def test_how_it_stands_is_told_without_secrets(tmp_path: Path) -> None:
    world = World(**PHONES, lamps=(LAMP,))
    Phone(world).register()
    Phone(world, "bert", "leise", ("192.0.2.8", 5062)).subscribe("main")
    told = json.dumps(world.lamps.facts())
    assert '"user": "anna"' in told
    assert "sip:anna@192.0.2.7:5062" in told
    assert "geheim" not in told
    assert world.lamps.facts()["subscriptions"] == 1
    metrics = world.lamps.metrics()
    assert metrics["phone_contacts"] == metrics["lamp_subscriptions"] == 1
    assert metrics["lamps_register_answered_200_total"] == 1


# Over a restart


@in_a_loop
async def test_after_a_restart_phones_and_subscribers_are_told_again_without_coming(tmp_path: Path) -> None:
    first = World(tmp_path / "phones.json", **PHONES)
    await first.after(1)
    anna, bert = Phone(first), Phone(first, "bert", "leise", ("192.0.2.8", 5062))
    pbx = Phone(first, "pbx", at=TRUNK)
    anna.register()
    for phone, asked in ((bert, "bert"), (pbx, "office")):
        assert phone.subscribe(asked).status == 200
    await first.after(3)
    bert.answer()
    before = bert.heard[-1].cseq.number
    second = World(tmp_path / "phones.json", **PHONES)
    second.now_ns = first.now_ns + S
    second.counts = {"main": (1, 0), "office": (2, 2)}
    for phone in (anna, bert, pbx):
        phone.world = second
    await second.after(2)
    told = bert.answer()
    assert told
    assert told[0].cseq.number > before
    anna.answer()
    pbx.answer()
    assert (anna.lamp, bert.lamp, pbx.lamp) == (Summary(1, 0), Summary(3, 2), Summary(2, 2))
    # And they go on: a change, and a refresh in the old dialog, find the same subscription.
    second.counts = {"main": (0, 1)}
    await second.after(2)
    bert.answer()
    assert bert.lamp == Summary(0, 1)
    assert second.lamps.facts()["subscriptions"] == 2


@in_a_loop
async def test_what_the_settings_no_longer_want_is_forgotten(tmp_path: Path) -> None:
    first = World(tmp_path / "phones.json", **PHONES)
    await first.after(1)
    anna, bert = Phone(first), Phone(first, "bert", "leise", ("192.0.2.8", 5062))
    anna.register()
    anna.subscribe("anna")
    bert.subscribe("bert")
    await first.after(1)
    second = World(tmp_path / "phones.json", phones=({**BOTH, "mailboxes": ("main",)},))
    second.now_ns = first.now_ns
    second.counts = {"main": (1, 0)}
    await second.after(2)
    assert second.notifies() == []
    assert second.lamps.facts()["subscriptions"] == 0


@in_a_loop
async def test_a_phone_that_was_restarted_and_registers_is_told_although_it_had_a_subscription() -> None:
    world = World(**PHONES)
    world.counts = {"main": (1, 0)}
    world.lamps.beat()
    anna = Phone(world)
    anna.subscribe("main")
    await world.after(2)
    anna.answer()
    anna.status = 481
    anna.lamp = None
    anna.register()
    anna.status = 200
    await world.after(2)
    anna.answer()
    assert anna.lamp == Summary(1, 0)


@in_a_loop
async def test_a_mailbox_that_is_not_there_is_an_alarm_and_no_dark_secret() -> None:
    world = World(phones=({**ANNA, "mailboxes": ("Main", "mian")},), lamps=({**LAMP, "mailbox": "cellar"},))
    texts = [alarm["text"] for alarm in world.lamps.alarms()]
    assert len(texts) == 2
    assert "sip:100@pbx.example.net shows the mailbox cellar" in texts[0]
    assert "phone anna shows the mailbox mian" in texts[1]


@in_a_loop
async def test_a_mailbox_may_be_named_by_its_number() -> None:
    world = World(phones=({**ANNA, "mailboxes": ("+12025550143",)},))
    world.counts = {"office": (2, 0)}
    anna = Phone(world)
    anna.register()
    await world.after(1)
    anna.answer()
    assert anna.lamp == Summary(2, 0)
    assert anna.subscribe("office").status == 200
    assert anna.subscribe("main").status == 403
