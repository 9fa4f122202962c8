"""Phones that register with us: who may, what they hear, what people are told."""

from __future__ import annotations

from typing import Any

from tests.unit.roles.lamp_world import STRANGER, TRUNK, Phone, World, in_a_loop

PHONES: dict[str, Any] = {
    "phones": (
        {"user": "anna", "secret": "geheim", "mailboxes": ("main",)},
        {"user": "bert", "secret": "leise", "mailboxes": ("office",)},
    ),
    "trunks": ({"name": "pbx", "addresses": ("198.51.100.0/24",)},),
}


@in_a_loop
async def test_a_phone_registers_its_own_name_alone() -> None:
    world = World(**PHONES)
    anna = Phone(world)
    assert anna.register(to="bert").status == 403
    assert len(world.lamps.phones.registrar) == 0


def test_a_trunk_does_not_register_and_its_address_is_no_login() -> None:
    world = World(**PHONES)
    pbx = Phone(world, "pbx", at=TRUNK)
    assert pbx.register().status == 401
    assert len(world.lamps.phones.registrar) == 0
    there = Phone(world, at=TRUNK)
    assert there.register().status == 200


def test_a_stranger_hears_the_same_whatever_name_he_tries() -> None:
    world = World(**PHONES)
    answers = [Phone(world, user, "guess", at=STRANGER).register().status for user in ("anna", "nobody")]
    assert answers == [401, 401]
    assert len(world.lamps.phones.registrar) == 0


def test_without_phones_nobody_registers() -> None:
    world = World()
    assert Phone(world).register().status == 405


def test_what_cannot_be_read_is_400() -> None:
    world = World(**PHONES)
    assert Phone(world).register(extra="Contact: <mailto:a@b>\r\n").status == 400


def test_coming_and_going_is_logged_once_and_told() -> None:
    world = World(**PHONES)
    anna = Phone(world)
    anna.register()
    anna.register()
    assert world.lamps.phones.facts()[0]["contacts"] == [
        {"uri": "sip:anna@192.0.2.7:5062", "from": "udp 192.0.2.7:5062", "expires_s": 600}
    ]
    anna.register(0)
    assert world.lamps.phones.facts()[0]["contacts"] == []
    words = [entry["event"] for entry in world.logs.entries if "phone" in entry["event"]]
    assert words == ["phone is registered", "phone is signed off"]
