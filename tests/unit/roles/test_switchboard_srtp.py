"""Encrypted calls at the switchboard: what is answered under which policy, and where keys must not turn up."""

from __future__ import annotations

import base64
import json
import re

import pytest

from aftertone.errors import StorageFullError
from aftertone.media.plane import PlainSound
from aftertone.media.unopened import Unopened
from aftertone.model import MasterKey, Suite
from aftertone.sdp import negotiation
from aftertone.sdp.crypto import Policy, Secrecy
from aftertone.sip import events as sip
from aftertone.sip.message import Response
from tests.unit.roles.world import World
from tests.unit.sip.kit import SDP

SECRET = base64.b64encode(bytes(range(30))).decode()
OTHER_SECRET = base64.b64encode(bytes(range(1, 31))).decode()
THEIRS = MasterKey(Suite.AES_128_CM_80, bytes(range(16)), bytes(range(16, 30)))


def _line(secret: str) -> bytes:
    return f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{secret}\r\n".encode()


SECURE = SDP.replace(b"RTP/AVP", b"RTP/SAVP") + _line(SECRET)
OPPORTUNE = SDP + _line(SECRET)
REKEYED = SDP.replace(b"RTP/AVP", b"RTP/SAVP") + _line(OTHER_SECRET)


def _world(policy: Policy = "optional") -> World:
    return World(sip={"srtp": policy})


def _our_secrets(world: World) -> list[bytes]:
    return [secret for body in world.switch.bodies.values() for secret in re.findall(rb"inline:(\S+)", body)]


@pytest.mark.parametrize(
    ("policy", "body", "status"),
    [
        ("off", SDP, 180),
        ("off", SECURE, 488),
        ("off", OPPORTUNE, 180),
        ("optional", SDP, 180),
        ("optional", SECURE, 180),
        ("required", SDP, 488),
        ("required", SECURE, 180),
        ("required", OPPORTUNE, 180),
    ],
)
def test_what_is_refused_before_it_rings(policy: Policy, body: bytes, status: int) -> None:
    assert _world(policy).invite(body=body).answers == [status]


def test_a_trunk_may_have_a_policy_of_its_own() -> None:
    trunk = {"name": "pbx", "addresses": ("192.0.2.0/24",), "srtp": "required"}
    assert World(sip={"srtp": "off", "trunks": [trunk]}).invite(body=SDP).answers == [488]
    caller = World(sip={"srtp": "off", "trunks": [trunk]}).answered(body=SECURE)
    assert caller.world.switch.answers[caller.offer(SDP)] == [488]


def test_the_plane_gets_the_keys_and_the_envelope_the_name() -> None:
    world = _world()
    caller = world.answered(body=SECURE)
    (stream,) = world.sound.streams[world.row_of(caller)]
    assert stream.receiving == THEIRS
    assert stream.sending is not None and stream.sending.suite is Suite.AES_128_CM_80
    assert base64.b64encode(stream.sending.key + stream.sending.salt) in world.switch.bodies[caller.transaction]
    assert world.envelopes()[0]["srtp"] == "AES_CM_128_HMAC_SHA1_80"
    plain = world.answered()
    (stream,) = world.sound.streams[world.row_of(plain)]
    assert stream.receiving is None and stream.sending is None
    assert world.envelopes()[1]["srtp"] == ""


def test_no_key_is_journalled_or_logged() -> None:
    world = _world()
    caller = world.answered(body=SECURE)
    caller.offer(REKEYED)
    caller.offer(b"")
    secrets = [SECRET.encode(), OTHER_SECRET.encode(), *_our_secrets(world)]
    assert len(secrets) == 5
    kept = b"".join(payload for _, payload in world.journal.entries) + repr(world.log.entries).encode()
    for secret in secrets:
        raw = base64.b64decode(secret)
        assert secret not in kept and raw not in kept and raw[:16] not in kept
    (begin,) = world.journal.begins
    assert b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + b"*" * 40 + b"\r\n" in begin.invite


def test_readable_keys_are_told_once() -> None:
    world = _world()
    for body in (SDP, SECURE, SECURE):
        world.answered(body=body)
    told = [entry for entry in world.log.entries if "keys for SRTP" in entry["event"]]
    assert [entry["log_level"] for entry in told] == ["info"]


def test_a_later_offer_with_the_same_key_keeps_ours_and_another_key_changes_it() -> None:
    world = _world()
    caller = world.answered(body=SECURE)
    row = world.row_of(caller)
    for body in (SECURE, REKEYED, SDP, SECURE):
        assert world.switch.answers[caller.offer(body)] == [200]
    first, same, other, plain, again = world.sound.streams[row]
    assert same.sending == first.sending
    assert other.sending != first.sending and other.receiving != first.receiving
    assert plain.sending is None
    assert again.receiving == first.receiving and again.sending not in (first.sending, other.sending)
    found = [json.loads(detail)["srtp"] for name, detail in world.journal.events if name == "media"]
    assert found == ["", "AES_CM_128_HMAC_SHA1_80"], "a new key of the same suite is nothing to tell"


def test_a_required_call_does_not_become_a_plain_one() -> None:
    world = _world("required")
    caller = world.answered(body=SECURE)
    assert world.switch.answers[caller.offer(SDP)] == [488]
    assert len(world.sound.streams[world.row_of(caller)]) == 1


@pytest.mark.parametrize(("policy", "profile"), [("optional", b"RTP/AVP"), ("required", b"RTP/SAVP")])
def test_a_late_offer_has_keys_where_they_are_required(policy: Policy, profile: bytes) -> None:
    world = _world(policy)
    caller = world.invite(body=b"")
    world.loop.advance(15)
    ours = world.switch.bodies[caller.transaction]
    assert b"m=audio 20000 " + profile + b" " in ours
    assert (b"a=crypto:1 AEAD_AES_256_GCM inline:" in ours) is (policy == "required")
    theirs, plan = negotiation.answer(
        ours,
        local_host="192.0.2.7",
        local_port=4000,
        session_id=1,
        version=1,
        secrecy=Secrecy("optional", lambda size: b"t" * size),
    )
    caller.confirm(theirs)
    (stream,) = world.sound.streams[world.row_of(caller)]
    if plan.keys is None:
        assert stream.sending is None
        return
    assert (stream.sending, stream.receiving) == (plan.keys.receiving, plan.keys.sending)
    ((_, detail),) = world.journal.events
    assert json.loads(detail)["srtp"] == "AEAD_AES_256_GCM"


def test_a_reinvite_without_a_description_is_offered_the_key_that_holds() -> None:
    world = _world()
    caller = world.answered(body=SECURE)
    row = world.row_of(caller)
    asked = caller.offer(b"")
    first = world.switch.bodies[caller.transaction]
    ours = world.switch.bodies[asked]
    assert b"RTP/SAVP" in ours
    assert re.findall(rb"inline:\S+", ours) == re.findall(rb"inline:\S+", first)
    theirs, _ = negotiation.answer(
        ours,
        local_host="192.0.2.7",
        local_port=4000,
        session_id=1,
        version=2,
        secrecy=Secrecy("optional", lambda size: b"t" * size),
    )
    world.tell(sip.ReofferConfirmed(caller.dialog, asked, theirs))
    before, after = world.sound.streams[row]
    assert after.sending == before.sending and after.receiving != before.receiving


def test_a_refresh_of_ours_keeps_the_keys() -> None:
    world = _world()
    caller = world.answered(body=SECURE)
    row = world.row_of(caller)
    offer = world.switch.bodies[caller.transaction]
    for theirs in (SECURE, REKEYED):
        world.tell(sip.ReofferAnswered(caller.dialog, Response(200, "OK", {}, theirs), offer, wished=False))
    first, same, other = world.sound.streams[row]
    assert (same.sending, same.receiving) == (first.sending, first.receiving)
    assert other.sending == first.sending and other.receiving != first.receiving
    world.tell(sip.ReofferAnswered(caller.dialog, Response(200, "OK", {}, SDP), offer, wished=False))
    assert len(world.sound.streams[row]) == 3, "an answer that drops the keys of RTP/SAVP is none"


def test_a_refusal_is_told_over_srtp_too() -> None:
    world = _world()
    world.blocked = StorageFullError("full")
    caller = world.invite(body=SECURE)
    assert caller.answers == [183]
    assert b"a=crypto:1 " in world.switch.bodies[caller.transaction]
    ((stream,),) = world.sound.streams.values()
    assert stream.sending is not None


@pytest.mark.parametrize(("policy", "taken"), [("optional", True), ("required", False)])
def test_plain_sound_is_better_than_none_unless_keys_are_required(policy: Policy, taken: bool) -> None:
    world = _world(policy)
    caller = world.answered(body=SECURE)
    assert world.sound.streams[world.row_of(caller)][-1].plain_is_taken is taken
    trunk = {"name": "pbx", "addresses": ("192.0.2.0/24",), "srtp": "required"}
    world = World(sip={"srtp": policy, "trunks": [trunk]})
    assert not world.sound.streams[world.row_of(world.answered(body=SECURE))][-1].plain_is_taken


def test_plain_sound_is_noted_once_whenever_it_began() -> None:
    world = _world()
    caller, row = world.recording(body=SECURE)
    world.hear(PlainSound(row))
    world.sound.not_opened = Unopened(24, plain=True)
    caller.hang_up()
    assert [name for name, _ in world.journal.events] == ["plain"]
    world.recording(body=SECURE)
    assert [name for name, _ in world.journal.events] == ["plain", "plain"], "it was known before the beep"


def test_sound_that_no_key_opened_is_noted_before_the_end_and_told() -> None:
    world = _world("required")
    caller, _ = world.recording(body=SECURE)
    assert world.board.alarms() == []
    world.sound.not_opened = Unopened(500)
    caller.hang_up()
    world.sync()
    assert world.journal.events == [("unopened", "500")]
    assert world.journal.story[-3:] == ["journal EVENT", "journal END", "answer 200"]
    (alarm,) = world.board.alarms()
    assert alarm["code"] == "unopened_sound"
    assert world.envelopes()[0]["peer"] in alarm["text"]
