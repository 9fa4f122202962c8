"""The switchboard and what calls may do besides: hold, a last word, sessions that nobody refreshes, greetings before the answer."""

from __future__ import annotations

import pytest

from aftertone.config.sip import Account
from aftertone.errors import StorageFullError
from aftertone.journal.record import Event, Kind
from aftertone.media.plane import KeyPressed, Played
from aftertone.model import EndReason
from aftertone.roles import early
from aftertone.roles.early import TO_ONE_ADDRESS
from aftertone.sdp import negotiation
from aftertone.sip import events as sip
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.message import Request, Response
from aftertone.sip.proof import Login
from tests.unit.roles.world import BROKEN_SDP, HOLD_SDP, OTHER_SDP, UNKNOWN_CODEC_SDP, World
from tests.unit.sip.kit import SDP, request, seeded

OLD_HOLD_SDP = SDP.replace(b"c=IN IP4 192.0.2.7", b"c=IN IP4 0.0.0.0")
INACTIVE_SDP = SDP + b"a=inactive\r\n"


def end_reason(world: World) -> str:
    (end,) = world.journal.ends
    return end.reason


# Hold


@pytest.mark.parametrize("hold", [HOLD_SDP, OLD_HOLD_SDP, INACTIVE_SDP])
def test_a_hold_is_marked_once_and_so_is_its_end(hold: bytes) -> None:
    world = World()
    caller, row = world.recording()
    caller.offer(hold)
    caller.offer(hold, method="UPDATE")
    assert world.sound.held[row] is True
    assert row in world.sound.recording, "the recording goes on"
    caller.offer(SDP)
    assert world.sound.held[row] is False
    assert [name for name, _ in world.journal.events if name != "media"] == ["hold", "resume"]


def test_a_refused_change_neither_holds_nor_resumes() -> None:
    world = World()
    caller, row = world.recording()
    caller.offer(HOLD_SDP)
    refused = caller.offer(UNKNOWN_CODEC_SDP)
    assert world.switch.answers[refused] == [488]
    assert world.switch.headers[refused]["Warning"].startswith('305 192.0.2.1 "')
    assert world.sound.held[row] is True
    assert [name for name, _ in world.journal.events] == ["hold"]


def test_a_call_that_only_talks_to_us_from_the_start_is_no_hold_and_an_inactive_one_is() -> None:
    talking, idle = World(), World()
    talking.answered(body=HOLD_SDP)
    idle.answered(body=INACTIVE_SDP)
    assert talking.journal.events == []
    assert [name for name, _ in idle.journal.events] == ["hold"]


def test_a_hold_after_the_end_is_not_journalled() -> None:
    world = World()
    caller, row = world.recording()
    world.hear(KeyPressed(row, "#"))
    caller.offer(HOLD_SDP)
    assert [name for name, _ in world.journal.events] == ["digit"]


# The last word


def test_the_reason_of_a_bye_stands_before_the_end_in_the_journal() -> None:
    world = World()
    caller, _ = world.recording()
    caller.hang_up(extra='Reason: Q.850;cause=16;text="caf\udce9"')
    kinds = [kind for kind, _ in world.journal.entries]
    assert kinds == [Kind.BEGIN, Kind.EVENT, Kind.END]
    assert world.journal.events == [("reason", 'Q.850;cause=16;text="café"')]


def test_a_bye_that_says_nothing_notes_nothing() -> None:
    world = World()
    caller, _ = world.recording()
    caller.hang_up()
    assert world.journal.events == []


# Sessions and calls that never came about


def test_a_session_that_nobody_refreshed_ends_its_recording_in_order() -> None:
    world = World()
    caller, _ = world.recording()
    world.tell(sip.SessionExpired(caller.dialog))
    assert end_reason(world) == EndReason.SESSION_EXPIRED
    world.tell(sip.ByeFinished(caller.dialog, None))
    world.sync()
    world.rest()
    assert world.board.counters["ended_session_expired"] == 1


def test_a_refresh_of_ours_may_move_the_callers_sound() -> None:
    world = World()
    caller, row = world.recording()
    offer = world.switch.bodies[caller.transaction]
    theirs = SDP.replace(b"4000", b"4444")
    response = Response(200, "OK", {}, theirs)
    world.tell(sip.ReofferAnswered(caller.dialog, response, offer, wished=False))
    assert world.sound.streams[row][-1].remote == ("192.0.2.7", 4444)
    world.tell(sip.ReofferAnswered(caller.dialog, Response(200, "OK", {}, BROKEN_SDP), offer, wished=False))
    assert world.sound.streams[row][-1].remote == ("192.0.2.7", 4444)


def test_a_caller_who_gives_up_before_the_200_could_go_out_is_a_call_that_ended() -> None:
    world = World()
    caller = world.invite()
    world.loop.advance(15)
    world.tell(sip.CallCancelled(caller.transaction, "SIP;cause=487"))
    assert world.journal.events == [("reason", "SIP;cause=487")]
    assert end_reason(world) == EndReason.CALLER_HUNG_UP
    world.sync()
    world.rest()
    assert world.switch.byes == []


# Reliable answers and late offers


def answer_to(offer: bytes) -> bytes:
    return negotiation.answer(offer, local_host="192.0.2.7", local_port=4000, session_id=1, version=1)[0]


def test_who_insists_on_reliable_answers_and_offers_nothing_gets_the_offer_with_the_ring() -> None:
    world = World()
    caller = world.invite(body=b"", extra="Require: 100rel")
    assert caller.answers == [180]
    ours = world.switch.bodies[caller.transaction]
    assert b"m=audio" in ours
    world.tell(sip.ProvisionalConfirmed(caller.dialog, caller.transaction, answer_to(ours)))
    world.loop.advance(15)
    assert caller.answers == [180, 200]
    assert world.switch.bodies[caller.transaction] == b"", "offer and answer are over"
    caller.confirm()
    world.sync()
    assert "play greeting" in world.story
    assert world.envelopes()[0]["codec"] == "opus"


def test_an_answer_in_a_prack_that_cannot_be_used_is_488() -> None:
    world = World()
    caller = world.invite(body=b"", extra="Require: 100rel")
    world.tell(sip.ProvisionalConfirmed(caller.dialog, caller.transaction, BROKEN_SDP))
    assert caller.answers == [180, 488]
    world.rest()


def test_a_prack_that_comes_after_the_answer_was_decided_is_taken_as_well() -> None:
    world = World()
    caller = world.invite(body=b"", extra="Require: 100rel")
    ours = world.switch.bodies[caller.transaction]
    world.loop.advance(15)
    row = world.row_of(caller)
    world.tell(sip.ProvisionalConfirmed(caller.dialog, caller.transaction, answer_to(ours)))
    caller.confirm()
    assert world.sound.streams[row][-1].remote == ("192.0.2.7", 4000)
    assert "play greeting" in world.story


# The greeting before the answer


def test_the_greeting_is_played_before_the_answer_and_the_beep_comes_with_it() -> None:
    world = World(early_media=True)
    caller = world.invite()
    world.loop.advance(15)
    assert caller.answers == [180, 183]
    described = world.switch.bodies[caller.transaction]
    assert world.journal.begins == [], "nothing is recorded, so nothing begins"
    world.hear(Played(0))
    assert caller.answers == [180, 183, 200]
    assert world.switch.bodies[caller.transaction] == described, (
        "a 183 that may be lost says nothing that the 200 need not"
    )
    caller.confirm()
    assert "play beep" not in world.story, "the beginning is not durable yet"
    world.sync()
    assert world.story[-2:] == ["record", "play beep"]
    assert world.story.count("play greeting") == 1
    assert world.story.index("journal BEGIN") < world.story.index("answer 200")


@pytest.mark.parametrize("extra", ["Supported: 100rel", "Require: 100rel"])
def test_a_reliable_183_leaves_the_200_nothing_to_describe(extra: str) -> None:
    world = World(early_media=True)
    caller = world.invite(extra=extra)
    world.loop.advance(15)
    world.hear(Played(0))
    assert caller.answers == [180, 183, 200]
    assert world.switch.bodies[caller.transaction] == b""


def test_hash_skips_an_early_greeting_and_other_keys_do_not() -> None:
    world = World(early_media=True)
    caller = world.invite()
    world.loop.advance(15)
    world.hear(KeyPressed(0, "5"))
    assert caller.answers == [180, 183]
    world.hear(KeyPressed(0, "#"))
    assert caller.answers == [180, 183, 200]


def test_a_skipped_early_greeting_that_plays_until_the_ack_may_change_its_codec() -> None:
    world = World(early_media=True)
    caller = world.invite()
    world.loop.advance(15)
    world.hear(KeyPressed(0, "#"))
    assert world.switch.answers[caller.offer(OTHER_SDP, method="UPDATE")] == [200]
    assert world.sound.plays[0][0].startswith(b"greeting main PCMA")


def test_a_disk_that_fills_up_during_an_early_greeting_is_told_on_what_was_agreed() -> None:
    """One offer has one answer: a second description, perhaps with other keys, would not be heard."""
    world = World(early_media=True)
    caller = world.invite()
    world.loop.advance(15)
    described = world.switch.bodies[caller.transaction]
    world.blocked = StorageFullError("no room")
    world.hear(Played(0))
    assert caller.answers == [180, 183]
    assert world.switch.bodies[caller.transaction] == described
    assert world.sound.plays[0][0].startswith(b"storage_refused")
    assert len(world.sound.streams[0]) == 1
    world.hear(Played(0))
    assert caller.answers == [180, 183, 480]
    world.rest()


def test_a_caller_who_only_listens_leaves_nothing() -> None:
    world = World(early_media=True)
    caller = world.invite()
    world.loop.advance(15)
    world.tell(sip.CallCancelled(caller.transaction))
    world.rest()
    assert world.journal.entries == []
    world.loop.advance(60)
    assert caller.answers == [180, 183]


def test_an_early_greeting_whose_ticks_have_stopped_is_answered_all_the_same() -> None:
    world = World(early_media=True)
    caller = world.invite()
    world.loop.advance(15 + 1 + 2)
    assert caller.answers == [180, 183, 200]


@pytest.mark.parametrize("body", [b"", INACTIVE_SDP, HOLD_SDP])
def test_who_cannot_hear_anything_early_is_answered_first(body: bytes) -> None:
    world = World(early_media=True)
    caller = world.invite(body=body)
    world.loop.advance(15)
    assert caller.answers == [180, 200]


def test_no_more_than_some_are_greeted_early_at_one_address() -> None:
    world = World(early_media=True, capacity=TO_ONE_ADDRESS + 1, rings=0)
    callers = [world.invite() for _ in range(TO_ONE_ADDRESS + 1)]
    assert [caller.answers[-1] for caller in callers] == [183] * TO_ONE_ADDRESS + [200]


def test_a_long_greeting_follows_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An INVITE that rings and is greeted for four minutes would be over before its answer."""
    monkeypatch.setattr(early, "LONGEST_S", 0.9)
    world = World(early_media=True, rings=0)
    assert world.invite().answers == [200]


def test_a_new_offer_before_the_answer_may_move_the_sound_and_change_no_codec() -> None:
    world = World(early_media=True, rings=0)
    caller = world.invite(extra="Supported: 100rel")
    moved = caller.offer(SDP.replace(b"4000", b"4400"), method="UPDATE")
    assert world.switch.answers[moved] == [200]
    assert world.sound.streams[0][-1].remote == ("192.0.2.7", 4400)
    assert world.switch.answers[caller.offer(OTHER_SDP, method="UPDATE")] == [488]
    assert world.switch.answers[caller.offer(BROKEN_SDP, method="UPDATE")] == [400]


def test_a_new_offer_while_it_only_rings_is_refused() -> None:
    world = World()
    caller = world.invite()
    assert world.switch.answers[caller.offer(SDP, method="UPDATE")] == [488]


def test_early_media_with_the_real_agent_waits_for_the_prack_before_the_200() -> None:
    world = World(early_media=True, agent_inside=True, rings=0)
    world.agent_switch.receive(request(uri="sip:main@192.0.2.1", extra="Supported: 100rel"))
    progress = world.sent[-1]
    assert isinstance(progress, Response)
    assert (progress.status, progress.get("require"), bool(progress.body)) == (183, "100rel", True)
    world.hear(Played(0))
    assert world.sent[-1] is progress, "the 200 waits"
    rack = f"RAck: {progress.get('rseq')} 1 INVITE"
    to_tag = progress.to.tag
    world.agent_switch.receive(request("PRACK", branch="z9hG4bKp", to_tag=to_tag, cseq=2, extra=rack))
    statuses = [message.status for message in world.sent[-2:] if isinstance(message, Response)]
    assert statuses == [200, 200]
    world.agent_switch.receive(request("ACK", branch="z9hG4bKa", to_tag=to_tag, cseq=1))
    world.sync()
    assert world.story[-2:] == ["record", "play beep"]
    world.agent_switch.receive(request("BYE", branch="z9hG4bKb", to_tag=to_tag, cseq=3, extra="Reason: Q.850;cause=16"))
    world.sync()
    assert world.journal.events == [("reason", "Q.850;cause=16")]
    world.rest()


def test_a_caller_that_never_sends_a_prack_is_refused_and_leaves_an_ended_call() -> None:
    world = World(early_media=True, agent_inside=True, rings=0)
    world.agent_switch.receive(request(uri="sip:main@192.0.2.1", extra="Supported: 100rel"))
    world.hear(Played(0))
    world.loop.advance(40)
    assert [m.status for m in world.sent if isinstance(m, Response)][-1] == 504
    assert end_reason(world) == EndReason.CALLER_HUNG_UP
    world.sync()
    world.rest()


def test_a_shutdown_while_the_200_waits_for_a_prack_refuses_the_call() -> None:
    world = World(early_media=True, agent_inside=True, rings=0)
    world.agent_switch.receive(request(uri="sip:main@192.0.2.1", extra="Supported: 100rel"))
    world.hear(Played(0))
    world.board.shut_down()
    world.sync()
    assert [m.status for m in world.sent if isinstance(m, Response)][-1] == 480
    world.rest()


def test_a_ghost_whose_session_nobody_refreshes_is_a_message_that_ends() -> None:
    """The caller supports timers, asks for 90 s and is never heard of again."""
    world = World(agent_inside=True, rings=0)
    extra = "Supported: timer\r\nSession-Expires: 90;refresher=uac"
    world.agent_switch.receive(request(uri="sip:main@192.0.2.1", extra=extra))
    answer = world.sent[-1]
    assert isinstance(answer, Response)
    assert (answer.get("session-expires"), answer.get("require")) == ("90;refresher=uac", "timer")
    world.agent_switch.receive(request("ACK", branch="z9hG4bKa", to_tag=answer.to.tag, cseq=1))
    world.sync()
    world.loop.advance(59)
    assert world.journal.ends == []
    world.loop.advance(2)
    world.sync()
    assert end_reason(world) == EndReason.SESSION_EXPIRED
    byes = [m for m in world.sent if isinstance(m, Request) and m.method == "BYE"]
    assert byes[0].get("reason").startswith("SIP;cause=408")
    world.loop.advance(40)
    world.rest()


@pytest.mark.parametrize("account", [Account(name="home", registrar="home.example", user="ann"), None])
def test_a_call_that_came_by_an_account_has_its_login_and_no_other_has(account: Account | None) -> None:
    asked: list[str] = []
    world = World(agent_inside=True, rings=0)
    world.board.peers.account_of = lambda request, flow: account
    login = Login(lambda: DigestClient("ann", "sesame", seeded()), lambda flow, host: True)
    world.board.peers.dialog_login = lambda name: asked.append(name) or login  # type: ignore[func-returns-value]
    world.agent_switch.receive(request(uri="sip:main@192.0.2.1"))
    (dialog,) = world.agent_switch.agent._core.dialogs.values()
    assert (dialog.proof is not None, asked) == ((True, ["home"]) if account else (False, []))


def test_what_is_good_to_know_never_keeps_the_end_from_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    caller, _ = world.recording()

    def broken(_: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.sound, "quality", broken)
    bye = caller.hang_up()
    world.sync()
    assert world.switch.answers[bye] == [200]
    assert len(world.journal.ends) == 1


def test_a_note_that_fits_into_no_record_is_a_line_in_the_log() -> None:
    world = World()
    _, row = world.recording()
    world.board._notes.event(Event(row, 1, "reason", "x" * 70_000))
    world.board._notes.event(Event(row, 1, "reason", "\udc80"))
    assert world.journal.events == []
    assert sum(entry["event"] == "a note was not journalled" for entry in world.log.entries) == 2
