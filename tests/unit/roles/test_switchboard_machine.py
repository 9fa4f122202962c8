"""The switchboard under whatever may come: random phones, disks and stops, with the real SIP agent in between.

What must hold: a call that was answered has exactly one beginning in the journal, before its 200, and exactly one end; a BYE
is said or answered only when that end is durable (or nothing more can be waited for); nothing is recorded and no beep is
heard before the beginning is durable (the stand-in for the media plane asserts that); and in the end nothing is left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aftertone.errors import StorageFullError
from aftertone.journal.record import Begin, End, Kind
from aftertone.media.plane import KeyPressed, LongestReached, MediaEvent, Played, Silent, ToneHeard
from aftertone.model import Mailbox
from aftertone.roles.switchboard import END_WITHIN_S
from aftertone.sip import events as sip
from aftertone.sip.headers import parse_address
from aftertone.sip.message import Request, Response
from tests.unit.roles.world import (
    BROKEN_SDP,
    HOLD_SDP,
    OTHER_SDP,
    UNKNOWN_CODEC_SDP,
    World,
)
from tests.unit.sip.kit import SDP, request

PHONES = 12
ANSWER = SDP.replace(b"RTP/AVP 0", b"RTP/AVP 9")
EXTRAS = st.sampled_from(
    [
        "",
        "Supported: 100rel",
        "Require: 100rel",
        "Supported: 100rel, timer\r\nSession-Expires: 90;refresher=uac",
        "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\nAllow: UPDATE",
        "Supported: timer\r\nSession-Expires: 90;refresher=uas",
    ]
)
BODIES = st.sampled_from([SDP, OTHER_SDP, HOLD_SDP, b"", UNKNOWN_CODEC_SDP, BROKEN_SDP])


@dataclass
class Phone:
    """One caller's telephone: it knows what it sent and what came back."""

    call_id: str
    cseq: int = 1
    invite_cseq: int = 1
    to_tag: str = ""
    answered: bool = False
    rseq: str = ""
    """Number of its latest provisional answer that wants a PRACK."""
    bye: Request | None = None
    """A BYE of ours that it has not answered."""

    def say(self, method: str, *, same: bool = False, **values: Any) -> bytes:
        """Return a request of this phone; ``same``: with the number of its last INVITE (ACK, CANCEL)."""
        if not same:
            self.cseq += 1
        number = self.invite_cseq if same else self.cseq
        branch = f"z9hG4bK{self.call_id}-{number}{'-ack' if method == 'ACK' and self.answered else ''}"
        return request(method, call_id=self.call_id, cseq=number, to_tag=self.to_tag, branch=branch, **values)


class Switchboards(RuleBasedStateMachine):
    """One line, up to a dozen phones."""

    EARLY = False
    """Whether the greeting is played before the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(capacity=3, agent_inside=True, early_media=self.EARLY)
        self.world.set_mailboxes(Mailbox("main"), Mailbox("now", rings=0))
        self.phones: list[Phone] = []
        self.given_up: set[str] = set()
        switch = self.world.agent_switch
        tell = switch.on_event
        switch._on_sent = self._on_sent

        def on_event(event: sip.Event) -> None:
            if isinstance(event, sip.CallNotConfirmed | sip.SessionExpired):
                self.given_up.add(event.dialog_id.call_id)
            tell(event)

        switch.on_event = on_event

    # What leaves

    def _on_sent(self, sent: Request | Response) -> None:
        phone = next(p for p in self.phones if p.call_id == sent.call_id)
        if isinstance(sent, Request):
            if sent.method in ("UPDATE", "INVITE", "ACK"):
                # A refresh of the session, which nobody answers, and its end.
                return
            assert sent.method == "BYE"
            phone.bye = sent
            self._must_have_ended(phone)
            return
        if sent.cseq.method == "INVITE" and sent.status < 300:
            phone.to_tag = sent.to.tag or phone.to_tag
            phone.rseq = sent.get("rseq") or phone.rseq
        if sent.cseq.method == "INVITE" and sent.cseq.number == 1 and sent.status == 200:
            phone.answered = True
            assert self._call_of(phone) is not None, "a 200 without a begin record"
        if sent.cseq.method == "BYE" and sent.status == 200 and phone.answered:
            self._must_have_ended(phone)

    def _call_of(self, phone: Phone) -> int | None:
        calls = [b.call for b in self.world.journal.begins if json.loads(b.envelope_json)["call_id"] == phone.call_id]
        assert len(calls) <= 1
        return calls[0] if calls else None

    def _must_have_ended(self, phone: Phone) -> None:
        journal, call = self.world.journal, self._call_of(phone)
        assert call is not None
        if phone.call_id in self.given_up or call in self._ends_not_taken():
            # To a phone that never acknowledged, the agent says BYE by itself, and answers a BYE that crosses its own.
            return
        number = journal.number_of(Kind.END, call)
        assert number is not None, "BYE without an end record"
        waited_s = self.world.loop.now_s - journal.at_s[number - 1]
        assert journal.durable >= number or waited_s > END_WITHIN_S - 0.001, "BYE before the end was durable"

    def _ends_not_taken(self) -> list[int]:
        return [End.unpack(payload).call for kind, payload in self.world.journal.not_taken if kind is Kind.END]

    # Phones

    @rule(user=st.sampled_from(["main", "now", "nobody"]), body=BODIES, forwarded=st.booleans(), more=EXTRAS)
    def call(self, user: str, body: bytes, forwarded: bool, more: str) -> None:
        if len(self.phones) == PHONES:
            return
        phone = Phone(f"call-{len(self.phones)}")
        self.phones.append(phone)
        extra = more + ("\r\nDiversion: <sip:ann@192.0.2.9>\r\n" if forwarded else "")
        data = phone.say("INVITE", same=True, uri=f"sip:{user}@192.0.2.1", body=body, extra=extra)
        self.world.agent_switch.receive(data)

    def _say(self, which: int, method: str, **values: Any) -> None:
        if self.phones:
            phone = self.phones[which % len(self.phones)]
            if method == "INVITE":
                phone.invite_cseq = phone.cseq + 1
            self.world.agent_switch.receive(phone.say(method, **values))

    @rule(which=st.integers(0, PHONES))
    def cancel(self, which: int) -> None:
        self._say(which, "CANCEL", same=True, body=b"", extra="Reason: SIP;cause=487")

    @rule(which=st.integers(0, PHONES), body=st.sampled_from([b"", b"", ANSWER, OTHER_SDP, BROKEN_SDP]))
    def confirm_a_ring(self, which: int, body: bytes) -> None:
        phone = self.phones[which % len(self.phones)] if self.phones else None
        if phone is not None and phone.rseq:
            self._say(which, "PRACK", body=body, extra=f"RAck: {phone.rseq} 1 INVITE")

    @rule(which=st.integers(0, PHONES), body=st.sampled_from([b"", b"", ANSWER, BROKEN_SDP]))
    def acknowledge(self, which: int, body: bytes) -> None:
        self._say(which, "ACK", same=True, body=body)

    @rule(which=st.integers(0, PHONES))
    def hang_up(self, which: int) -> None:
        self._say(which, "BYE", extra="Reason: Q.850;cause=16")

    @rule(which=st.integers(0, PHONES), body=BODIES, method=st.sampled_from(["INVITE", "UPDATE"]))
    def offer(self, which: int, body: bytes, method: str) -> None:
        if self.phones and self.phones[which % len(self.phones)].to_tag:
            self._say(which, method, body=body)

    @rule(which=st.integers(0, PHONES), key=st.sampled_from([b"#", b"11", b"5", b"?"]))
    def press_by_info(self, which: int, key: bytes) -> None:
        self._say(which, "INFO", body=key, content_type="application/dtmf")

    @rule(which=st.integers(0, PHONES))
    def answer_our_bye(self, which: int) -> None:
        phone = self.phones[which % len(self.phones)] if self.phones else None
        if phone is None or phone.bye is None:
            return
        bye, phone.bye = phone.bye, None
        lines = [f"{name}: {bye.get(name.lower())}" for name in ("Via", "From", "To", "Call-ID", "CSeq")]
        assert parse_address(bye.get("to")).tag
        self.world.agent_switch.receive("\r\n".join(["SIP/2.0 200 OK", *lines, "", ""]).encode())

    # Sound

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        rows = sorted(self.world.sound.leased)
        if not rows:
            return
        row = data.draw(st.sampled_from(rows))
        possible: list[MediaEvent] = [KeyPressed(row, "1"), KeyPressed(row, "#")]
        if self.world.sound.table.playing[row]:
            possible += [Played(row)] * 4
        if row in self.world.sound.recording:
            possible += [Silent(row), ToneHeard(row), LongestReached(row)]
        event = data.draw(st.sampled_from(possible))
        if isinstance(event, Played):
            self.world.sound.table.playing[row] = False
        self.world.hear(event)

    # The disk, the time, the end

    @rule(behind=st.sampled_from([0, 0, 0, 1, 2, 5]))
    def sync(self, behind: int) -> None:
        self.world.sync(behind)

    @rule(full=st.booleans())
    def fill_or_free_the_disk(self, full: bool) -> None:
        self.world.journal.full = full
        self.world.blocked = StorageFullError("full") if full else None

    @rule()
    def fail_the_disk(self) -> None:
        self.world.board.storage_failed()

    @rule(seconds=st.sampled_from([0.0, 0.02, 0.6, 3.0, 5.0, 15.0, 33.0]))
    def wait(self, seconds: float) -> None:
        self.world.loop.advance(seconds)

    @rule(really=st.sampled_from([False] * 9 + [True]))
    def stop(self, really: bool) -> None:
        if really:
            self.world.board.shut_down()

    @invariant()
    def nothing_ends_twice(self) -> None:
        journal = self.world.journal
        calls = [end.call for end in journal.ends] + self._ends_not_taken()
        assert len(calls) == len(set(calls))
        assert set(calls) <= {begin.call for begin in journal.begins}

    def teardown(self) -> None:
        """Stop the machine and let every timer run out: what is left then would be left for ever."""
        self.world.journal.full = False
        self.world.journal.at_once = True
        self.world.sync()
        self.world.board.shut_down()
        self.nothing_ends_twice()
        self.world.loop.advance(400)
        ended = sorted([end.call for end in self.world.journal.ends] + self._ends_not_taken())
        assert ended == sorted(Begin.unpack(payload).call for payload in self.world.journal.payloads(Kind.BEGIN))
        self.world.rest()
        held = self.world.agent_switch.agent.held()
        assert (held.dialogs, held.server_transactions, held.client_transactions) == (0, 0, 0)
        assert not self.world.durability._waiting
        assert self.world.loop.pending() == 0


Switchboards.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSwitchboards = Switchboards.TestCase


class EarlySwitchboards(Switchboards):
    """The same with the greeting before the answer."""

    EARLY = True


EarlySwitchboards.TestCase.settings = Switchboards.TestCase.settings
TestEarlySwitchboards = EarlySwitchboards.TestCase
