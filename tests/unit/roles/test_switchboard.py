"""The switchboard, path by path: what a caller is answered, what is journalled, and in which order."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from aftertone.errors import StorageFullError
from aftertone.journal.record import Kind
from aftertone.media.plane import KeyPressed, Latched, LongestReached, Played, Silent, ToneHeard
from aftertone.media.reports import LineQuality
from aftertone.model import Caller, Codec, EndReason, Mailbox
from aftertone.roles import notes
from aftertone.roles.clock import Ground, LineClock
from aftertone.roles.notes import REFUSALS_A_MINUTE
from aftertone.roles.switchboard import END_WITHIN_S
from aftertone.roles.terms import key_of_info, stream_of
from aftertone.roles.timekeeper import RELEASED_UNIX_MS
from aftertone.sdp import negotiation
from aftertone.sip import events as sip
from aftertone.sip.message import Request, parse
from tests.unit.roles.world import (
    BROKEN_SDP,
    FRAMES,
    HOLD_SDP,
    OTHER_SDP,
    UNKNOWN_CODEC_SDP,
    World,
    message,
)
from tests.unit.sip.kit import FLOW, SDP, request

# Refusing


def test_an_unknown_mailbox_is_404_and_is_noted_for_the_owner() -> None:
    world = World()
    world.set_mailboxes(Mailbox("main"), Mailbox("office"))
    caller = world.invite(user="nobody")
    assert caller.answers == [404]
    (refused,) = world.journal.refusals
    assert (refused.status, refused.caller, refused.request_uri) == (404, Caller("ann", "Ann"), "sip:nobody@192.0.2.1")
    assert world.board.counters["refused_404"] == 1
    world.rest()


def test_what_the_peer_reported_of_the_sound_is_journalled_before_the_end() -> None:
    world = World()
    caller, _ = world.recording()
    world.sound.reported = LineQuality(peer_lost=2, sent_packets=90, round_trip_ms=40)
    caller.hang_up()
    ((name, detail),) = world.journal.events
    assert (name, json.loads(detail)["peer_lost"], json.loads(detail)["round_trip_ms"]) == ("quality", 2, 40)
    kinds = [kind for kind, _ in world.journal.entries]
    assert kinds.index(Kind.EVENT) < kinds.index(Kind.END)


def test_no_place_is_503_and_says_when_to_try_again() -> None:
    world = World(capacity=1)
    first, second = world.invite(), world.invite()
    assert (first.answers, second.answers) == ([180], [503])
    assert world.switch.headers[second.transaction] == {"Retry-After": "5"}


@pytest.mark.parametrize(("body", "status"), [(UNKNOWN_CODEC_SDP, 488), (BROKEN_SDP, 400)])
def test_what_cannot_be_agreed_on_is_refused_before_it_rings(body: bytes, status: int) -> None:
    world = World()
    assert world.invite(body=body).answers == [status]
    world.rest()


def test_an_error_of_ours_at_the_door_gives_the_place_back() -> None:
    world = World()
    world.board._host = lambda flow: "phone.example.com"  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="not an IP address"):
        world.invite()
    world.rest()


def test_a_refusal_with_bytes_that_are_no_text_is_journalled_as_text() -> None:
    world = World()
    world.set_mailboxes(Mailbox("main"), Mailbox("office"))
    transaction = world.next_transaction()
    asked = parse(request(uri="sip:box@192.0.2.1").replace(b"box", b"bo\xffx"))
    assert isinstance(asked, Request)
    world.tell(sip.IncomingCall(transaction, asked, FLOW, sip.DialogId("c", "us", "them")))
    (refused,) = world.journal.refusals
    refused.request_uri.encode()
    assert refused.request_uri == "sip:boÿx@192.0.2.1"


def test_neither_a_password_nor_the_mark_of_an_account_is_kept_with_the_uri() -> None:
    world = World()
    world.set_mailboxes(Mailbox("main"), Mailbox("office"))
    login, mark = "s3cret@192.0.2.1;line=0123456789abcdef", "******@192.0.2.1;line=****************"
    world.invite(user=f"nobody:{login};x=")
    world.answered(user=f"main:{login};x=")
    assert [one.request_uri for one in world.journal.refusals] == [f"sip:nobody:{mark};x=@192.0.2.1"]
    assert [one["request_uri"] for one in world.envelopes()] == [f"sip:main:{mark};x=@192.0.2.1"]


def test_a_flood_of_refusals_is_answered_and_no_longer_journalled(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    clock = SimpleNamespace(monotonic=world.loop.time, monotonic_ns=lambda: int(world.loop.now_s * 1e9), time_ns=int)
    monkeypatch.setattr(notes, "time", clock)
    world.loop.now_s = 60_000.0
    world.blocked = StorageFullError("full")
    callers = [world.invite(body=b"") for _ in range(REFUSALS_A_MINUTE + 20)]
    assert all(caller.answers == [480] for caller in callers)
    assert len(world.journal.refusals) == REFUSALS_A_MINUTE
    world.loop.advance(60)
    assert [(r.status, r.reason) for r in world.journal.refusals[REFUSALS_A_MINUTE:]] == [
        (480, "20 more calls were refused within a minute")
    ]
    world.invite()
    assert len(world.journal.refusals) == REFUSALS_A_MINUTE + 2
    world.loop.advance(600)
    assert len(world.journal.refusals) == REFUSALS_A_MINUTE + 2


def test_a_journal_that_takes_no_refusal_costs_the_note_and_not_the_answer() -> None:
    world = World()
    world.blocked = StorageFullError("full")
    world.journal.full = True
    assert world.invite(body=b"").answers == [480]


# The clock


def test_a_clock_that_falls_back_reorders_nothing_and_shows() -> None:
    world = World()
    now_ms = RELEASED_UNIX_MS + 10**9
    wall_ms, synchronised = [now_ms], [True]
    clock = LineClock(
        world.board._logger,
        ground=Ground(Path("/nowhere"), Path("/nowhere"), lambda: synchronised[0]),
        wall_ns=lambda: wall_ms[0] * 1_000_000,
        monotonic_ns=lambda: int(world.loop.now_s * 1e9),
    )
    world.board._clock = world.board._notes._clock = clock
    world.set_mailboxes(Mailbox("main", rings=0))
    first = world.invite()
    wall_ms[0], synchronised[0] = 0, False
    world.loop.advance(3)
    second = world.invite()
    world.blocked = StorageFullError("full")
    world.invite(body=b"")
    assert first.answers == second.answers == [200]
    begins, (refused,) = world.journal.begins, world.journal.refusals
    assert begins[0].message_id < begins[1].message_id < refused.id
    assert [begin.unix_ms for begin in begins] == [now_ms, now_ms + 3000]
    assert [envelope["clock"] for envelope in world.envelopes()] == ["trusted", "unsure"]
    assert [envelope["started_unix_ms"] for envelope in world.envelopes()] == [now_ms, now_ms + 3000]
    assert refused.at_unix_ms == now_ms + 3000


# Answering


def test_a_direct_call_rings_three_times() -> None:
    world = World()
    caller = world.invite()
    world.loop.advance(14.9)
    assert caller.answers == [180]
    world.loop.advance(0.1)
    assert caller.answers == [180, 200]
    assert (world.board.live_calls, world.board.ringing_calls) == (1, 0)


def test_a_mailbox_may_ring_otherwise() -> None:
    world = World()
    world.set_mailboxes(Mailbox("main", rings=1), Mailbox("now", rings=0))
    patient, quick = world.invite(), world.invite(user="now")
    assert (patient.answers, quick.answers) == ([180], [200])
    world.loop.advance(5)
    assert patient.answers == [180, 200]


@pytest.mark.parametrize(
    "extra",
    ["Diversion: <sip:ann@192.0.2.9>;reason=no-answer\r\n", "History-Info: <sip:a@b?Reason=SIP%3Bcause%3D486>\r\n"],
)
def test_a_forwarded_call_is_answered_at_once(extra: str) -> None:
    world = World()
    assert world.invite(extra=extra).answers == [200]
    assert world.envelopes()[0]["forwarded"] is True


def test_the_begin_record_is_handed_over_before_the_200_and_says_everything() -> None:
    world = World()
    caller = world.invite()
    world.loop.advance(15)
    assert world.story == ["answer 180", "journal BEGIN", "answer 200"]
    (begin,) = world.journal.begins
    (envelope,) = world.envelopes()
    assert begin.call == 1
    assert envelope["id"] == str(begin.message_id)
    assert (envelope["mailbox"], envelope["mailbox_reason"], envelope["codec"]) == ("main", "request URI", "PCMU")
    assert envelope["caller"] == {"number": "ann", "name": "Ann"}
    assert (envelope["call_id"], envelope["peer"]) == (caller.dialog.call_id, "192.0.2.7:5062")
    assert begin.invite.startswith(b"INVITE sip:main@192.0.2.1 SIP/2.0\r\n")
    assert begin.invite.endswith(SDP)
    assert b"m=audio 20000 " in world.switch.bodies[caller.transaction]


SPOOFED = (
    "P-Asserted-Identity: <tel:+15550101;verstat=TN-Validation-Passed>\r\n"
    "Identity: eyJhbGciOiJFUzI1NiJ9.e30.c2ln;alg=ES256\r\nDiversion: <sip:200@192.0.2.9>;reason=no-answer\r\n"
)
TRUNK = {"name": "pbx", "addresses": [FLOW.remote[0]]}


def test_what_a_trunk_asserts_is_in_the_envelope() -> None:
    world = World(sip={"trunks": [TRUNK]})
    world.set_mailboxes(Mailbox("main"), Mailbox("anna", numbers=("200",)))
    assert world.invite(user="*97", extra=SPOOFED).answers == [200]
    (envelope,) = world.envelopes()
    assert (envelope["mailbox"], envelope["mailbox_reason"]) == ("anna", "Diversion")
    assert envelope["caller"] == {"number": "+15550101", "name": "Ann"}
    assert envelope["origin"] == {
        "line_kind": "trunk",
        "line": "pbx",
        "caller_header": "P-Asserted-Identity",
        "verstat": "TN-Validation-Passed",
        "diverted_by": "200",
        "divert_reason": "no-answer",
    }
    assert envelope["identity"].startswith("eyJ")
    (facts,) = world.board.peers.facts()
    assert (facts["name"], facts["calls"]) == ("pbx", 1)


def test_what_a_stranger_asserts_is_not_believed_although_it_finds_the_mailbox() -> None:
    world = World(sip={"trunks": [{**TRUNK, "addresses": ["198.51.100.1"]}]})
    world.set_mailboxes(Mailbox("main"), Mailbox("anna", numbers=("200",)))
    world.invite(user="*97", extra=SPOOFED)
    (envelope,) = world.envelopes()
    assert (envelope["mailbox"], envelope["caller"]["number"], envelope["identity"]) == ("anna", "ann", "")
    assert (envelope["origin"]["line_kind"], envelope["origin"]["verstat"]) == ("stranger", "")
    assert envelope["origin"]["diverted_by"] == "200"


def test_a_refused_call_of_a_trunk_is_noted_with_the_caller_that_the_trunk_asserts() -> None:
    for addresses, number in (([FLOW.remote[0]], "+15550101"), (["198.51.100.1"], "ann")):
        world = World(sip={"trunks": [{**TRUNK, "addresses": addresses}]})
        world.set_mailboxes(Mailbox("main"), Mailbox("office"))
        world.invite(user="nobody", extra=SPOOFED)
        (refused,) = world.journal.refusals
        assert refused.caller.number == number


def test_a_login_is_not_kept_with_the_call() -> None:
    world = World()
    world.set_mailboxes(Mailbox("main", rings=0))
    login = 'Digest username="u", realm="aftertone", nonce="n", uri="sip:x", response="0123456789abcdef"'
    world.invite(extra=f"Authorization: {login}\r\nProxy-Authorization: {login}\r\n")
    (begin,) = world.journal.begins
    assert begin.invite.lower().count(b"authorization: ") == 2
    assert b"0123456789abcdef" not in begin.invite


def test_the_mailbox_of_a_trunk_goes_before_what_its_calls_say() -> None:
    world = World(sip={"trunks": [{**TRUNK, "mailbox": "office"}]})
    world.set_mailboxes(Mailbox("main"), Mailbox("office", rings=0))
    world.invite(user="main")
    (envelope,) = world.envelopes()
    assert (envelope["mailbox"], envelope["mailbox_reason"]) == ("office", "trunk pbx")


def test_a_stranger_who_may_not_call_is_refused() -> None:
    world = World(sip={"callers": "known"})
    assert world.invite().answers == [403]
    assert not world.journal.begins
    world.rest()


def test_a_caller_who_gives_up_while_it_rings_leaves_nothing() -> None:
    world = World()
    caller = world.invite()
    world.tell(sip.CallCancelled(caller.transaction))
    world.loop.advance(60)
    assert caller.answers == [180]
    assert not world.journal.begins
    assert world.board.counters["cancelled"] == 1
    assert world.loop.pending() == 0
    world.rest()


def test_a_journal_that_takes_no_beginning_means_503_and_is_told_aloud() -> None:
    world = World()
    caller = world.invite()
    world.journal.full = True
    world.loop.advance(15)
    assert caller.answers == [180, 183]
    world.hear(Played(0))
    assert caller.answers == [180, 183, 503]
    assert world.switch.headers[caller.transaction] == {"Retry-After": "60"}
    world.rest()


# The recording


def test_no_beep_before_the_beginning_is_durable() -> None:
    world = World()
    row = world.row_of(world.answered())
    world.hear(Played(row))
    assert world.story[-1] == "play greeting"
    world.sync()
    assert world.story[-2:] == ["record", "play beep"]


def test_a_beginning_that_is_durable_early_does_not_cut_the_greeting() -> None:
    world = World()
    row = world.row_of(world.answered())
    world.sync()
    assert world.story[-1] == "play greeting"
    world.hear(Played(row))
    assert world.story[-2:] == ["record", "play beep"]


def test_a_bye_is_answered_when_the_end_is_durable_and_not_before() -> None:
    world = World()
    caller, _ = world.recording()
    world.story.clear()
    bye = caller.hang_up()
    assert world.story == ["last packet", "journal END"]
    world.loop.advance(END_WITHIN_S / 2)
    assert bye not in world.switch.answers
    world.sync()
    assert world.switch.answers[bye] == [200]
    (end,) = world.journal.ends
    assert (end.call, end.reason, end.last_sound_ns) == (1, "caller_hung_up", 0)
    assert world.loop.pending() == 0
    world.rest()


def test_a_bye_in_the_greeting_ends_the_call_the_same_way() -> None:
    world = World()
    caller = world.answered()
    bye = caller.hang_up()
    assert [e.reason for e in world.journal.ends] == ["caller_hung_up"]
    assert bye not in world.switch.answers
    world.sync()
    assert world.switch.answers[bye] == [200]
    assert "play beep" not in world.story
    world.rest()


def test_a_bye_that_overtakes_the_ack() -> None:
    world = World()
    caller = world.invite()
    world.loop.advance(15)
    bye = caller.hang_up()
    world.sync()
    assert world.switch.answers[bye] == [200]
    caller.confirm()
    assert "play greeting" not in world.story
    world.rest()


def test_a_bye_for_a_call_that_is_over_is_answered() -> None:
    world = World()
    caller, _ = world.recording()
    caller.hang_up()
    world.sync()
    assert world.switch.answers[caller.hang_up()] == [200]


def test_hash_skips_the_greeting_and_ends_the_recording_with_a_goodbye() -> None:
    world = World()
    caller = world.answered()
    row = world.row_of(caller)
    world.sync()
    world.hear(KeyPressed(row, "#"))
    assert world.story[-2:] == ["record", "play beep"]
    world.hear(Played(row), KeyPressed(row, "5"), KeyPressed(row, "#"))
    assert world.story[-2:] == ["journal END", "play goodbye"]
    assert world.journal.events == [("digit", "#"), ("digit", "5"), ("digit", "#")]
    world.hear(Played(row))
    assert not world.switch.byes, "we hang up when the end is durable"
    world.sync()
    assert world.switch.byes == [caller.dialog]
    assert world.sound.leased, "the port is kept until our BYE is answered"
    world.tell(sip.ByeFinished(caller.dialog, 200))
    world.rest()


def test_keys_after_the_end_are_not_journalled() -> None:
    world = World()
    _, row = world.recording()
    world.hear(KeyPressed(row, "#"), KeyPressed(row, "1"))
    assert world.journal.events == [("digit", "#")]


@pytest.mark.parametrize(("event", "reason"), [(Silent, "silence"), (ToneHeard, "tone")])
def test_silence_and_tones_hang_up_without_a_word_and_are_not_counted(
    event: type[Silent | ToneHeard], reason: str
) -> None:
    world = World()
    caller, row = world.recording()
    world.sound.last_sound_ns = 77
    world.hear(event(row))
    (end,) = world.journal.ends
    assert (end.reason, end.last_sound_ns) == (reason, 77)
    assert world.story[-1] == "journal END"
    world.sync()
    assert world.switch.byes == [caller.dialog]


def test_a_recording_of_nothing_but_silence_ends_where_it_began() -> None:
    world = World()
    _, row = world.recording()
    world.sound.table.recording_since_ns[row] = 4242
    world.hear(Silent(row))
    assert world.journal.ends[0].last_sound_ns == 4242


def test_the_longest_recording_is_told_before_we_hang_up() -> None:
    world = World()
    _, row = world.recording()
    world.hear(LongestReached(row))
    assert world.story[-1] == "play longest_reached"
    assert world.journal.ends[0].last_sound_ns == 0, "all of it belongs to the message"


def test_events_of_rows_that_nobody_has_are_passed_over() -> None:
    world = World()
    world.hear(Played(3), KeyPressed(3, "#"), Latched(3, ("192.0.2.7", 4000)))
    assert world.story == []


def test_a_call_that_is_never_acknowledged_is_noted_as_such() -> None:
    world = World()
    caller = world.invite()
    world.loop.advance(15)
    world.tell(sip.CallNotConfirmed(caller.dialog))
    assert [e.reason for e in world.journal.ends] == ["no_ack"]
    world.sync()
    assert not world.switch.byes, "the agent has said BYE by itself"
    world.tell(sip.ByeFinished(caller.dialog, None))
    world.rest()


def test_our_bye_and_theirs_may_cross() -> None:
    world = World()
    caller, row = world.recording()
    world.hear(Silent(row))
    bye = caller.hang_up()
    world.sync()
    assert world.switch.answers[bye] == [200]
    assert len(world.journal.ends) == 1
    world.rest()


# A disk that does not do its part


def test_a_beginning_that_is_not_durable_in_time_is_told_to_the_caller() -> None:
    world = World()
    row = world.row_of(world.answered())
    world.hear(Played(row))
    world.loop.advance(FRAMES * 0.02 + 2.9)
    assert not world.journal.ends
    world.loop.advance(0.2)
    assert [e.reason for e in world.journal.ends] == ["storage"]
    assert world.story[-1] == "play storage_apology"
    world.sync()
    assert "play beep" not in world.story


def test_an_end_that_is_not_durable_in_time_lets_the_caller_go_and_says_so() -> None:
    world = World()
    caller, _ = world.recording()
    bye = caller.hang_up()
    world.loop.advance(END_WITHIN_S)
    assert world.switch.answers[bye] == [500], "200 would say that the end is on the disk"
    assert any("did not confirm" in entry["event"] for entry in world.log.entries)
    world.rest()
    world.sync()
    assert world.switch.answers[bye] == [500], "and the disk's late word changes nothing"


def test_an_end_that_the_journal_does_not_take_lets_the_caller_go() -> None:
    world = World()
    caller, _ = world.recording()
    world.journal.full = True
    bye = caller.hang_up()
    world.loop.advance()
    assert world.switch.answers[bye] == [500]
    assert world.journal.not_taken[-1][0] is Kind.END
    assert any(entry["log_level"] == "error" for entry in world.log.entries)
    world.rest()


def test_when_storage_fails_every_caller_hears_it_once() -> None:
    world = World()
    (one, row), (two, other) = world.recording(), world.recording()
    world.board.storage_failed()
    world.board.storage_failed()
    assert [e.reason for e in world.journal.ends] == ["storage", "storage"]
    assert world.story.count("play storage_apology") == 2
    world.sync()
    world.hear(Played(row), Played(other))
    assert world.switch.byes == [one.dialog, two.dialog]


def test_a_caller_who_is_acknowledged_after_storage_failed_hears_the_apology_and_no_greeting() -> None:
    world = World()
    caller = world.invite()
    world.loop.advance(15)
    world.board.storage_failed()
    caller.confirm()
    assert world.story[-1] == "play storage_apology"
    assert "play greeting" not in world.story


def test_trouble_with_one_call_does_not_keep_the_others_from_being_told() -> None:
    world = World()
    (_, row), _ = world.recording(), world.recording()
    world.sound.leased.discard(row)
    world.board.storage_failed()
    assert len(world.journal.ends) == 1
    assert world.story[-1] == "play storage_apology"


# Stopping


def test_shutting_down_refuses_who_rings_and_says_goodbye_to_who_speaks() -> None:
    world = World()
    caller, _ = world.recording()
    ringing = world.invite()
    world.board.shut_down()
    assert ringing.answers == [180, 480]
    assert [e.reason for e in world.journal.ends] == ["shutdown"]
    assert not world.switch.byes
    world.sync()
    assert world.switch.byes == [caller.dialog]
    late = world.invite()
    assert late.answers == [503]
    assert world.switch.headers[late.transaction] == {"Retry-After": "60"}
    world.tell(sip.ByeFinished(caller.dialog, 200))
    assert world.loop.pending() == 0
    world.rest()


def test_shutting_down_during_a_farewell_ends_nothing_twice() -> None:
    world = World()
    caller, row = world.recording()
    world.hear(KeyPressed(row, "#"))
    world.board.shut_down()
    world.sync()
    assert [e.reason for e in world.journal.ends] == ["key"]
    assert world.switch.byes == [caller.dialog]


# Descriptions


def test_hold_and_resume() -> None:
    world = World()
    caller, row = world.recording()
    held = caller.offer(HOLD_SDP)
    assert b"a=recvonly" in world.switch.bodies[held]
    assert world.sound.streams[row][-1].remote is None
    resumed = caller.offer(SDP)
    assert world.switch.answers[resumed] == [200]
    assert world.sound.streams[row][-1].remote == ("192.0.2.7", 4000)
    versions = [body.split(b"o=- ")[1].split()[1] for body in world.switch.bodies.values() if b"o=- " in body]
    assert versions == [b"1", b"2", b"3"], "each description of ours has a number of its own"
    assert world.journal.events == [("hold", ""), ("resume", "")], "the payload types mean what they meant"


def test_another_codec_in_the_middle_is_journalled_and_the_clip_goes_on_in_it() -> None:
    world = World()
    caller = world.answered()
    row = world.row_of(caller)
    world.sound.table.frame[row] = 30
    caller.offer(OTHER_SDP)
    assert world.sound.streams[row][-1].codec is Codec.PCMA
    assert world.sound.plays[row] == tuple(f"greeting main PCMA {n}".encode() for n in range(30, FRAMES))
    ((name, detail),) = world.journal.events
    assert (name, json.loads(detail)["codec"]) == ("media", "PCMA")


def test_another_codec_while_nothing_plays_starts_nothing() -> None:
    world = World()
    caller, row = world.recording()
    world.sound.stop(row)
    before = world.sound.plays[row]
    caller.offer(OTHER_SDP)
    assert world.sound.plays[row] is before


def test_an_offer_that_cannot_be_taken_leaves_everything_as_it_was() -> None:
    world = World()
    caller, row = world.recording()
    assert world.switch.answers[caller.offer(UNKNOWN_CODEC_SDP)] == [488]
    assert world.switch.answers[caller.offer(BROKEN_SDP)] == [400]
    assert len(world.sound.streams[row]) == 1
    assert b" 2 IN IP4 192.0.2.1" in world.switch.bodies[caller.offer(SDP)], "a refused offer uses up no version"


def test_a_reinvite_without_a_description_is_offered_one_and_its_answer_is_taken() -> None:
    world = World()
    caller, row = world.recording()
    asked = caller.offer(b"")
    ours = world.switch.bodies[asked]
    assert b"opus/48000/2" in ours
    assert len(world.sound.streams[row]) == 1, "nothing is agreed before the answer"
    theirs, _ = negotiation.answer(
        ours, local_host="192.0.2.7", local_port=4200, session_id=1, version=2, codecs=(Codec.G722,)
    )
    world.tell(sip.ReofferConfirmed(caller.dialog, asked, theirs))
    assert world.sound.streams[row][-1].codec is Codec.G722
    assert world.sound.streams[row][-1].remote == ("192.0.2.7", 4200)


def test_an_acknowledgement_of_a_reinvite_without_an_answer_changes_nothing() -> None:
    world = World()
    caller, row = world.recording()
    asked = caller.offer(SDP)
    world.tell(sip.ReofferConfirmed(caller.dialog, asked, b""))
    world.tell(sip.ReofferConfirmed(caller.dialog, asked, BROKEN_SDP))
    assert len(world.sound.streams[row]) == 2


def test_a_reinvite_or_a_key_for_a_call_that_is_over_is_481() -> None:
    world = World()
    caller, _ = world.recording()
    caller.hang_up()
    world.sync()
    assert world.switch.answers[caller.offer(SDP)] == [481]
    assert world.switch.answers[caller.info("application/dtmf", b"1")] == [481]


def test_a_late_offer() -> None:
    world = World()
    caller = world.invite(body=b"")
    world.loop.advance(15)
    ours = world.switch.bodies[caller.transaction]
    row = world.row_of(caller)
    assert world.sound.streams[row] == []
    assert world.envelopes()[0]["codec"] == ""
    theirs, plan = negotiation.answer(ours, local_host="192.0.2.7", local_port=4000, session_id=1, version=1)
    caller.confirm(theirs)
    assert world.sound.streams[row][0].codec is plan.codec is Codec.OPUS
    ((name, detail),) = world.journal.events
    assert name == "media"
    assert json.loads(detail)["codec"] == "opus"
    assert world.sound.plays[row][0] == b"greeting main opus 0"


@pytest.mark.parametrize("body", [b"", BROKEN_SDP, UNKNOWN_CODEC_SDP])
def test_a_late_offer_without_a_usable_answer_ends_the_call_in_order(body: bytes) -> None:
    world = World()
    caller = world.invite(body=b"")
    world.loop.advance(15)
    caller.confirm(body)
    assert len(world.journal.ends) == 1
    assert not world.switch.byes, "not before the end is durable"
    world.sync()
    assert world.switch.byes == [caller.dialog]
    world.tell(sip.ByeFinished(caller.dialog, 200))
    assert "play greeting" not in world.story
    world.rest()


def test_a_second_acknowledgement_starts_nothing_anew() -> None:
    world = World()
    caller = world.answered()
    caller.confirm()
    assert world.story.count("play greeting") == 1


def test_what_the_plane_is_told_of_a_plan() -> None:
    _, plan = negotiation.answer(SDP, local_host="192.0.2.1", local_port=9, session_id=1, version=1)
    stream = stream_of(plan)
    assert (stream.codec, stream.payload_type, stream.remote) == (Codec.PCMU, 0, ("192.0.2.7", 4000))
    assert 0 in stream.accepted


# Keys by INFO


@pytest.mark.parametrize(
    ("content_type", "body", "key"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", "5"),
        ("application/dtmf-relay", b"signal = #\r\n", "#"),
        ("Application/DTMF-Relay;charset=x", b"Duration=100\r\nSignal=11\r\n", "#"),
        ("application/dtmf-relay", b"Signal=10\r\n", "*"),
        ("application/dtmf-relay", b"Duration=160\r\n", None),
        ("application/dtmf-relay", b"Signal=12\r\n", None),
        ("application/dtmf", b"7", "7"),
        ("application/dtmf", b" d\r\n", "D"),
        ("application/dtmf", b"11", "#"),
        ("application/dtmf", b"", None),
        ("application/dtmf", b"\xff\x00\xfe", None),
        ("application/dtmf", b"123", None),
        ("text/plain", b"5", None),
        ("application/media_control+xml", b"<x/>", None),
    ],
)
def test_the_key_in_an_info(content_type: str, body: bytes, key: str | None) -> None:
    assert key_of_info(message("INFO", to_tag="us", body=body, content_type=content_type)) == key


def test_a_key_by_info_is_answered_journalled_and_obeyed() -> None:
    world = World()
    caller, _ = world.recording()
    assert world.switch.answers[caller.info("application/dtmf-relay", b"Signal=11\r\nDuration=100\r\n")] == [200]
    assert world.journal.events == [("digit", "#")]
    assert [e.reason for e in world.journal.ends] == [EndReason.KEY]


def test_an_info_that_says_nothing_to_us_is_answered_and_forgotten() -> None:
    world = World()
    caller, _ = world.recording()
    assert world.switch.answers[caller.info("text/plain", b"hello")] == [200]
    assert not world.journal.events
