"""Refused aloud: what a caller hears, which status comes when, and that nothing is left of it."""

from __future__ import annotations

import pytest

from aftertone.errors import AftertoneError, StorageError, StorageFullError
from aftertone.media.plane import KeyPressed, Latched, Played
from aftertone.model import Codec, Mailbox
from aftertone.roles.refusals import ALOUD_AT_ONCE, PATIENCE_S, TO_ONE_ADDRESS
from aftertone.sip import events as sip
from aftertone.sip.message import Response
from tests.unit.roles.world import BROKEN_SDP, FRAMES, HOLD_SDP, OTHER_SDP, UNKNOWN_CODEC_SDP, World
from tests.unit.sip.kit import SDP, request

FULL = StorageFullError("12 MB are free")
BROKEN = StorageError("the journal cannot be written")


def refusing(error: AftertoneError = FULL, *, capacity: int = 4) -> World:
    world = World(capacity=capacity)
    world.blocked = error
    return world


@pytest.mark.parametrize(("error", "status"), [(FULL, 480), (BROKEN, 503)])
def test_a_call_that_cannot_be_kept_hears_why_and_then_gets_its_status(error: AftertoneError, status: int) -> None:
    world = refusing(error)
    caller = world.invite()
    assert caller.answers == [183]
    assert b"m=audio 20000 RTP/AVP 0" in world.switch.bodies[caller.transaction]
    assert world.sound.streams[0][0].remote == ("192.0.2.7", 4000)
    assert world.sound.plays[0] == tuple(f"storage_refused  PCMU {n}".encode() for n in range(FRAMES))
    assert not world.sound.recording
    world.loop.advance(1)
    assert caller.answers == [183], "not before the sentence is over"
    world.hear(Played(0))
    assert caller.answers == [183, status]
    assert world.switch.headers[caller.transaction] == {"Retry-After": "60"}
    assert not world.journal.begins
    assert world.loop.pending() == 0
    world.rest()


def test_it_is_noted_and_counted_when_it_is_decided() -> None:
    world = refusing()
    world.invite()
    assert [(r.status, r.reason, r.request_uri) for r in world.journal.refusals] == [
        (480, "12 MB are free", "sip:main@192.0.2.1")
    ]
    assert world.board.counters == {"offered": 1, "refused_480": 1, "refused_aloud": 1}
    world.hear(Played(0))
    assert world.board.counters == {"offered": 1, "refused_480": 1, "refused_aloud": 1}
    assert len(world.journal.refusals) == 1


def test_the_sentence_comes_in_the_codec_of_the_caller() -> None:
    world = refusing()
    world.invite(body=OTHER_SDP)
    assert world.sound.streams[0][0].codec is Codec.PCMA
    assert world.sound.plays[0][0] == b"storage_refused  PCMA 0"


@pytest.mark.parametrize("body", [b"", BROKEN_SDP, UNKNOWN_CODEC_SDP, HOLD_SDP.replace(b"sendonly", b"inactive")])
def test_without_a_way_to_say_it_the_status_comes_at_once(body: bytes) -> None:
    world = refusing()
    caller = world.invite(body=body)
    assert caller.answers == [480]
    assert world.switch.headers[caller.transaction] == {"Retry-After": "60"}
    assert world.board.counters == {"offered": 1, "refused_480": 1}
    world.rest()


def test_a_caller_on_hold_listens_to_nobody() -> None:
    world = refusing()
    assert world.invite(body=HOLD_SDP).answers == [480]
    world.rest()


def test_without_a_place_the_status_comes_at_once() -> None:
    world = refusing(capacity=1)
    first, second = world.invite(), world.invite()
    assert (first.answers, second.answers) == ([183], [480])
    world.hear(Played(0))
    third = world.invite()
    assert third.answers == [183]


def test_to_one_address_only_so_many_are_told() -> None:
    """Whoever names somebody else's address has little sent there."""
    world = refusing(capacity=TO_ONE_ADDRESS + 3)
    callers = [world.invite() for _ in range(TO_ONE_ADDRESS + 2)]
    assert [caller.answers for caller in callers[-3:]] == [[183], [480], [480]]
    elsewhere = world.invite(body=SDP.replace(b"192.0.2.7", b"192.0.2.99"))
    assert elsewhere.answers == [183]
    world.hear(*(Played(row) for row in range(TO_ONE_ADDRESS + 1)))
    assert world.invite().answers == [183]
    world.board.refusals.shut_down()
    world.rest()


def test_only_so_many_are_told_at_once() -> None:
    world = refusing(capacity=ALOUD_AT_ONCE + 5)
    bodies = [SDP.replace(b"192.0.2.7", f"192.0.2.{10 + n}".encode()) for n in range(ALOUD_AT_ONCE + 3)]
    callers = [world.invite(body=body) for body in bodies]
    assert [caller.answers for caller in callers[-4:]] == [[183], [480], [480], [480]]
    assert len(world.sound.leased) == ALOUD_AT_ONCE
    world.hear(*(Played(row) for row in range(ALOUD_AT_ONCE)))
    assert all(caller.answers[-1] == 480 for caller in callers)
    assert world.board.counters["refused_480"] == ALOUD_AT_ONCE + 3
    world.rest()


def test_an_error_of_ours_costs_the_sentence_and_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    world = refusing()

    def play(row: int, frames: tuple[bytes, ...]) -> None:
        raise RuntimeError("no sound today")

    monkeypatch.setattr(world.sound, "play", play)
    caller = world.invite()
    assert caller.answers == [183, 480]
    assert any("could not be told" in entry["event"] for entry in world.log.entries)
    world.rest()


def test_who_gives_up_meanwhile_leaves_nothing() -> None:
    world = refusing()
    caller = world.invite()
    world.tell(sip.CallCancelled(caller.transaction))
    assert caller.answers == [183], "the agent has answered 487"
    world.loop.advance(60)
    world.hear(Played(0))
    assert caller.answers == [183]
    assert world.board.counters["cancelled"] == 0, "it was refused before"
    assert world.loop.pending() == 0
    world.rest()


def test_stopping_breaks_the_sentence_off() -> None:
    world = refusing(BROKEN)
    caller = world.invite()
    world.board.shut_down()
    assert caller.answers == [183, 503]
    assert world.invite().answers == [503], "and nobody is told any more"
    assert world.loop.pending() == 0
    world.rest()


def test_a_sound_that_stands_still_keeps_nobody_waiting() -> None:
    world = refusing()
    caller = world.invite()
    world.loop.advance(FRAMES * 0.02 + PATIENCE_S)
    assert caller.answers == [183, 480]
    world.rest()


def test_keys_and_a_source_that_is_found_mean_nothing_here() -> None:
    world = refusing()
    caller = world.invite()
    world.hear(Latched(0, ("192.0.2.7", 4000)), KeyPressed(0, "#"))
    assert caller.answers == [183]
    assert not world.journal.events


def test_an_unknown_mailbox_is_still_404() -> None:
    world = refusing()
    world.set_mailboxes(Mailbox("main"), Mailbox("office"))
    caller = world.invite(user="nobody")
    assert caller.answers == [404]
    assert world.switch.headers[caller.transaction] == {}


# A call that was ringing


@pytest.mark.parametrize(("error", "status"), [(FULL, 480), (BROKEN, 503)])
def test_a_call_that_rang_while_the_disk_failed_is_refused_and_not_answered(error: AftertoneError, status: int) -> None:
    world = World()
    caller = world.invite()
    world.blocked = error
    world.loop.advance(15)
    assert caller.answers == [180, 183]
    assert b"m=audio 20000 " in world.switch.bodies[caller.transaction], "the port that rang"
    assert not world.journal.begins
    assert (world.board.live_calls, world.board.ringing_calls) == (0, 0)
    world.hear(Played(0))
    assert caller.answers == [180, 183, status]
    world.rest()


def test_a_call_without_an_offer_that_rang_meanwhile_gets_its_place_back() -> None:
    world = World()
    caller = world.invite(body=b"")
    world.blocked = FULL
    world.loop.advance(15)
    assert caller.answers == [180, 480]
    assert world.loop.pending() == 0
    world.rest()


def test_a_disk_that_recovers_while_it_rings_takes_the_call() -> None:
    world = World()
    caller = world.invite()
    world.blocked = FULL
    world.loop.advance(10)
    world.blocked = None
    world.loop.advance(5)
    assert caller.answers == [180, 200]


# With the agent inside


def _responses(world: World) -> list[Response]:
    return [sent for sent in world.sent if isinstance(sent, Response)]


def test_on_the_wire_it_is_an_early_dialog() -> None:
    world = World(agent_inside=True)
    world.blocked = FULL
    invite = request(uri="sip:main@192.0.2.1", body=SDP, extra="Record-Route: <sip:192.0.2.9;lr>\r\n")
    world.agent_switch.receive(invite)
    trying, progress = _responses(world)
    assert (trying.status, progress.status, progress.reason) == (100, 183, "Session Progress")
    assert progress.to.tag
    assert progress.contact is not None
    assert progress.get("record-route") == "<sip:192.0.2.9;lr>"
    assert progress.get("content-type") == "application/sdp"
    assert progress.body.startswith(b"v=0\r\n")
    world.agent_switch.receive(invite)
    again = _responses(world)[-1]
    assert again is not progress
    assert (again.status, again.headers, again.body) == (183, progress.headers, progress.body), "a copy gets a copy"
    assert world.board.counters["offered"] == 1
    world.hear(Played(0))
    refused = _responses(world)[-1]
    assert (refused.status, refused.get("retry-after")) == (480, "60")
    assert refused.to.tag == progress.to.tag
    world.agent_switch.receive(request("ACK", to_tag=progress.to.tag))
    world.loop.advance(60)
    held = world.agent_switch.agent.held()
    assert (held.dialogs, held.server_transactions) == (0, 0)
    world.rest()


@pytest.mark.parametrize("method", ["CANCEL", "BYE"])
def test_on_the_wire_the_caller_may_end_it_early(method: str) -> None:
    world = World(agent_inside=True)
    world.blocked = FULL
    world.agent_switch.receive(request(uri="sip:main@192.0.2.1", body=SDP))
    tag = _responses(world)[-1].to.tag
    if method == "CANCEL":
        world.agent_switch.receive(request("CANCEL", uri="sip:main@192.0.2.1"))
    else:
        world.agent_switch.receive(request("BYE", to_tag=tag, cseq=2, branch="z9hG4bKbye"))
    assert sorted(response.status for response in _responses(world)[2:]) == [200, 487]
    world.hear(Played(0))
    assert len(_responses(world)) == 4
    world.rest()
