"""aftertone.sip.transaction: each timer of the four machines, in virtual time."""

from __future__ import annotations

import pytest

from aftertone.sip.settings import Timing
from aftertone.sip.transaction import (
    CLIENT_INVITE,
    CLIENT_OTHER,
    SERVER_INVITE,
    SERVER_OTHER,
    Do,
    On,
    State,
    Table,
    Transaction,
)
from tests.unit.sip.kit import FLOW, MS, TCP_FLOW, S

T = Timing()
TABLES = {
    "server INVITE": SERVER_INVITE,
    "server other": SERVER_OTHER,
    "client INVITE": CLIENT_INVITE,
    "client other": CLIENT_OTHER,
}


def machine(table: Table, *, reliable: bool = False, now_ns: int = 0) -> Transaction:
    return Transaction(table, TCP_FLOW if reliable else FLOW, T, now_ns)


def life(one: Transaction) -> list[tuple[float, str, tuple[Do, ...]]]:
    """Run the timers until nothing waits: when, which, and with what effect."""
    seen: list[tuple[float, str, tuple[Do, ...]]] = []
    while (deadline_ns := one.deadline_ns()) is not None:
        assert len(seen) < 100
        event = one.due(deadline_ns)
        assert event is not None
        seen.append((deadline_ns / S, event.value, one.handle(event, deadline_ns)))
    return seen


def times(seen: list[tuple[float, str, tuple[Do, ...]]], letter: str) -> list[float]:
    return [when for when, event, _ in seen if event == letter]


def test_an_invite_without_answer_is_resent_ever_more_slowly_and_given_up() -> None:
    seen = life(machine(CLIENT_INVITE))
    assert times(seen, "A") == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert times(seen, "B") == [32.0]
    assert seen[-1][2] == (Do.EXPIRED,)
    assert all(do == (Do.SEND,) for _, event, do in seen if event == "A")


def test_another_request_is_resent_at_most_every_t2() -> None:
    seen = life(machine(CLIENT_OTHER))
    assert times(seen, "E") == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert times(seen, "F") == [32.0]


def test_a_provisional_slows_another_request_to_t2() -> None:
    one = machine(CLIENT_OTHER)
    assert one.handle(On.PROVISIONAL, 100 * MS) == (Do.PASS,)
    seen = life(one)
    assert times(seen, "E") == [0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5]
    assert times(seen, "F") == [32.0]


def test_a_provisional_stops_the_resending_of_an_invite() -> None:
    one = machine(CLIENT_INVITE)
    one.handle(On.PROVISIONAL, S)
    assert one.state is State.PROCEEDING
    seen = life_until(one, On.R)
    assert seen == [(1 + T.ring_limit_ns / S, "R", (Do.EXPIRED,))]
    assert one.state is State.PROCEEDING


def life_until(one: Transaction, last: On) -> list[tuple[float, str, tuple[Do, ...]]]:
    seen: list[tuple[float, str, tuple[Do, ...]]] = []
    while (deadline_ns := one.deadline_ns()) is not None:
        event = one.due(deadline_ns)
        assert event is not None
        seen.append((deadline_ns / S, event.value, one.handle(event, deadline_ns)))
        if event is last:
            break
    return seen


def test_a_failure_is_acknowledged_each_time_it_comes_until_timer_d() -> None:
    one = machine(CLIENT_INVITE)
    assert one.handle(On.FAILURE, S) == (Do.ACK, Do.PASS)
    assert one.handle(On.FAILURE, 2 * S) == (Do.ACK,)
    assert one.handle(On.SUCCESS, 2 * S) == ()
    assert life(one) == [(33.0, "D", ())]
    assert one.state is State.TERMINATED


def test_each_success_is_passed_until_timer_m() -> None:
    one = machine(CLIENT_INVITE)
    assert one.handle(On.SUCCESS, S) == (Do.PASS,)
    assert one.handle(On.SUCCESS, 2 * S) == (Do.PASS,)
    assert one.handle(On.FAILURE, 2 * S) == ()
    assert life(one) == [(33.0, "M", ())]


def test_an_answered_request_absorbs_stragglers_for_t4() -> None:
    one = machine(CLIENT_OTHER)
    assert one.handle(On.FAILURE, S) == (Do.PASS,)
    assert one.handle(On.FAILURE, S) == ()
    assert life(one) == [(6.0, "K", ())]


def test_a_refused_invite_resends_its_answer_until_the_ack() -> None:
    one = machine(SERVER_INVITE)
    assert one.handle(On.PROVISIONAL, 0) == (Do.SEND,)
    assert one.handle(On.REQUEST, 0) == (Do.SEND,)
    assert one.handle(On.FAILURE, 0) == (Do.SEND,)
    assert one.handle(On.REQUEST, 0) == (Do.SEND,)
    resent: list[float] = []
    while one.deadline_ns() is not None and len(resent) < 4:
        deadline_ns = one.deadline_ns()
        assert deadline_ns is not None
        event = one.due(deadline_ns)
        assert event is On.G
        resent.append(deadline_ns / S)
        assert one.handle(event, deadline_ns) == (Do.SEND,)
    assert resent == [0.5, 1.5, 3.5, 7.5]
    assert one.handle(On.ACK, 8 * S) == ()
    assert one.handle(On.ACK, 8 * S) == ()
    assert one.handle(On.REQUEST, 8 * S) == ()
    assert life(one) == [(13.0, "I", ())]


def test_a_refused_invite_without_ack_is_given_up_at_timer_h() -> None:
    one = machine(SERVER_INVITE)
    one.handle(On.FAILURE, 0)
    seen = life(one)
    assert times(seen, "G") == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert seen[-1] == (32.0, "H", (Do.EXPIRED,))


def test_an_accepted_invite_absorbs_retransmissions_and_passes_acks_until_timer_l() -> None:
    one = machine(SERVER_INVITE)
    assert one.handle(On.SUCCESS, S) == (Do.SEND,)
    assert one.handle(On.REQUEST, S) == ()
    assert one.handle(On.SUCCESS, S) == (Do.SEND,)
    assert one.handle(On.ACK, S) == (Do.PASS,)
    assert life(one) == [(33.0, "L", ())]


def test_a_ringing_invite_has_a_limit() -> None:
    one = machine(SERVER_INVITE)
    assert life_until(one, On.R) == [(T.ring_limit_ns / S, "R", (Do.EXPIRED,))]
    assert one.pending


def test_another_request_waits_for_its_answer_no_longer_than_its_sender() -> None:
    one = machine(SERVER_OTHER)
    assert one.handle(On.REQUEST, 0) == ()
    assert life(one) == [(32.0, "P", (Do.EXPIRED,))]
    late = machine(SERVER_OTHER)
    assert late.handle(On.PROVISIONAL, 0) == (Do.SEND,)
    assert late.handle(On.REQUEST, 0) == (Do.SEND,)
    assert life(late) == [(32.0, "P", (Do.EXPIRED,))]


@pytest.mark.parametrize("answer", [On.SUCCESS, On.FAILURE])
def test_an_answered_request_repeats_its_answer_until_timer_j(answer: On) -> None:
    one = machine(SERVER_OTHER)
    assert one.handle(answer, S) == (Do.SEND,)
    assert one.handle(On.REQUEST, S) == (Do.SEND,)
    assert life(one) == [(33.0, "J", ())]


def test_reliable_transports_neither_resend_nor_linger() -> None:
    assert [event for _, event, _ in life(machine(CLIENT_INVITE, reliable=True))] == ["B"]
    assert [event for _, event, _ in life(machine(CLIENT_OTHER, reliable=True))] == ["F"]
    for table, steps, letters in (
        (CLIENT_INVITE, (On.FAILURE,), ["D"]),
        (CLIENT_OTHER, (On.SUCCESS,), ["K"]),
        (SERVER_INVITE, (On.FAILURE, On.ACK), ["I"]),
        (SERVER_OTHER, (On.SUCCESS,), ["J"]),
    ):
        one = machine(table, reliable=True)
        for step in steps:
            one.handle(step, S)
        assert [(when, event) for when, event, _ in life(one)] == [(1.0, letters[0])]
    refused = machine(SERVER_INVITE, reliable=True)
    refused.handle(On.FAILURE, 0)
    assert [event for _, event, _ in life(refused)] == ["H"]


@pytest.mark.parametrize("name", TABLES)
def test_every_state_of_a_table_can_be_left_without_the_peer(name: str) -> None:
    table = TABLES[name]
    letters = {on for on in On if len(on.value) == 1}
    for state in {state for state, _ in table}:
        assert any(key[0] is state and key[1] in letters for key in table), state
    assert all(letter in On.__members__ for rule in table.values() for letter in rule.start + rule.stop)
    assert any(rule.next is State.TERMINATED for rule in table.values())


def test_a_transaction_can_be_ended_at_once() -> None:
    one = machine(CLIENT_INVITE)
    one.handle(On.PROVISIONAL, 0)
    one.extend("R", 5)
    assert one.deadline_ns() == 5
    assert one.due(4) is None
    one.terminate()
    assert (one.state, one.deadline_ns(), one.due(10**18)) == (State.TERMINATED, None, None)
