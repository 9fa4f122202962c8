"""Those who subscribe: granted, told, refreshed, ended, and never forgotten."""

from __future__ import annotations

import pytest

from aftertone.sip.agent import Agent
from aftertone.sip.events import RequestOutside, SubscriptionAsked, SubscriptionEnded, SubscriptionId, Transmit
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import FLOW, TCP_FLOW, S, agent, parts, request, run_out, statuses

SETTINGS = AgentSettings(allow=(*AgentSettings().allow, "SUBSCRIBE", "REGISTER"), allow_events=("message-summary",))
OFF, ON = b"Messages-Waiting: no\r\n", b"Messages-Waiting: yes\r\n"
EVENT = "Event: message-summary\r\n"


def subscribe(extra: str = EVENT, *, flow: Flow = FLOW, **more: object) -> bytes:
    via = "SIP/2.0/TCP 192.0.2.7:5062;branch=" + str(more.get("branch", "z9hG4bKone")) if flow.reliable else ""
    return request("SUBSCRIBE", extra=extra, via=via, **more)  # type: ignore[arg-type]


def answer(notify: Request | Response, status: int = 200, extra: str = "") -> bytes:
    to = notify.get("to")
    return (
        f"SIP/2.0 {status} X\r\nVia: {notify.get('via')}\r\nFrom: {notify.get('from')}\r\nTo: {to}\r\n"
        f"Call-ID: {notify.call_id}\r\nCSeq: {notify.get('cseq')}\r\n{extra}Content-Length: 0\r\n\r\n"
    ).encode()


class Subscribed:
    """An agent with one subscription whose first NOTIFY is under way."""

    def __init__(self, extra: str = EVENT, flow: Flow = FLOW, settings: AgentSettings = SETTINGS) -> None:
        self.agent: Agent = agent(settings)
        self.flow = flow
        self.now_ns = 0
        self.agent.receive(subscribe(extra, flow=flow), flow, 0)
        event = parts(self.agent)[1][0]
        assert isinstance(event, SubscriptionAsked)
        granted = self.agent.accept_subscription(event.transaction_id, OFF, 0)
        assert granted is not None
        self.id: SubscriptionId = granted
        (ok, first), _ = parts(self.agent)
        assert isinstance(ok, Response)
        assert isinstance(first, Request)
        self.ok, self.first = ok, first
        self.tag = self.ok.to.tag

    def after(self, seconds: float) -> list[Request | Response]:
        self.now_ns += int(seconds * S)
        self.agent.advance(self.now_ns)
        return parts(self.agent)[0]

    def take(self, data: bytes) -> list[Request | Response]:
        self.agent.receive(data, self.flow, self.now_ns)
        return parts(self.agent)[0]

    def tell(self, body: bytes) -> list[Request | Response]:
        self.agent.notify(self.id, body, self.now_ns)
        return parts(self.agent)[0]

    def refresh(self, extra: str = EVENT, cseq: int = 2) -> list[Request | Response]:
        branch = f"z9hG4bKre{cseq}{len(extra)}"
        return self.take(subscribe(extra, flow=self.flow, branch=branch, to_tag=self.tag, cseq=cseq))


def test_an_accepted_subscription_is_told_the_present_state_at_once() -> None:
    it = Subscribed(EVENT + "Expires: 600\r\n")
    assert (it.ok.status, it.ok.get("expires")) == (200, "600")
    assert it.ok.contact is not None
    assert it.first.method == "NOTIFY"
    assert it.first.get("event") == "message-summary"
    assert it.first.get("subscription-state") == "active;expires=600"
    assert (it.first.content_type, it.first.body) == ("application/simple-message-summary", OFF)
    assert it.first.uri == "sip:ann@192.0.2.7:5062"
    assert (it.first.from_.tag, it.first.to.tag, it.first.call_id) == (it.tag, "caller", it.ok.call_id)
    assert it.first.contact is not None


def test_the_id_of_the_event_and_the_route_come_back() -> None:
    it = Subscribed("Event: message-summary;id=7;x=y\r\nRecord-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>\r\n")
    assert it.first.get("event") == "message-summary;id=7"
    assert it.first.all("route") == ["<sip:p1;lr>", "<sip:p2;lr>"]
    assert it.ok.all("record-route") == ["<sip:p1;lr>", "<sip:p2;lr>"]


@pytest.mark.parametrize(
    ("extra", "status", "name", "value"),
    [
        ("", 489, "allow-events", "message-summary"),
        ("Event: presence\r\n", 489, "allow-events", "message-summary"),
        (EVENT + "Accept: application/pidf+xml\r\n", 406, "accept", "application/simple-message-summary"),
        (EVENT + "Expires: 59\r\n", 423, "min-expires", "60"),
        (EVENT + "Expires: soon\r\n", 400, "call-id", "call-1@peer"),
        (EVENT + EVENT, 400, "call-id", "call-1@peer"),
        (EVENT + "Require: eventlist\r\n", 420, "unsupported", "eventlist"),
    ],
)
def test_what_cannot_be_served_is_refused_without_asking(extra: str, status: int, name: str, value: str) -> None:
    subject = agent(SETTINGS)
    subject.receive(subscribe(extra), FLOW, 0)
    messages, events = parts(subject)
    assert statuses(messages) == [status]
    assert messages[0].get(name) == value
    assert not events


@pytest.mark.parametrize(
    "extra",
    ["Accept: application/*\r\n", "Accept: text/plain, application/simple-message-summary\r\n", "Accept: */*\r\n"],
)
def test_an_accept_that_includes_our_body_is_no_obstacle(extra: str) -> None:
    assert Subscribed(EVENT + extra).first.body == OFF


@pytest.mark.parametrize(("asked", "granted"), [("", "3600"), ("Expires: 99999999\r\n", "86400"), ("Expires: 60\r\n", "60"),
                                               ("Expires: 99999999999999999999\r\n", "86400")])  # fmt: skip
def test_how_long_it_lasts(asked: str, granted: str) -> None:
    assert Subscribed(EVENT + asked).ok.get("expires") == granted


def test_the_application_refuses_a_stranger() -> None:
    subject = agent(SETTINGS)
    subject.receive(subscribe(), FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, SubscriptionAsked)
    subject.respond(event.transaction_id, 403, now_ns=0)
    assert statuses(parts(subject)[0]) == [403]
    assert subject.accept_subscription(event.transaction_id, ON, 0) is None
    assert statuses(run_out(subject, 0)[1]) == []
    assert subject.held().timers == subject.held().subscriptions == 0


def test_one_notify_at_a_time_and_a_newer_state_replaces_a_waiting_one() -> None:
    it = Subscribed()
    assert it.tell(ON) == []
    assert it.after(0.1) == []
    it.tell(b"second")
    it.tell(b"third")
    assert it.take(answer(it.first)) == []
    (told,) = it.after(1)
    assert isinstance(told, Request)
    assert told.body == b"third"
    assert told.cseq.number == it.first.cseq.number + 1
    assert it.take(answer(told)) == []
    assert it.tell(b"third") == []
    assert it.after(5) == []


def test_changes_are_told_once_a_second_and_after_a_pause_at_once() -> None:
    it = Subscribed()
    it.take(answer(it.first))
    it.after(5)
    (told,) = it.tell(ON)
    assert isinstance(told, Request)
    it.take(answer(told))
    assert it.tell(OFF) == []
    assert it.after(0.9) == []
    assert [m.body for m in it.after(0.1)] == [OFF]


def test_a_refresh_is_answered_and_told_at_once() -> None:
    it = Subscribed(EVENT + "Expires: 100\r\n")
    it.take(answer(it.first))
    it.after(0.2)
    ok, told = it.refresh(EVENT + "Expires: 200\r\n")
    assert isinstance(ok, Response)
    assert (ok.status, ok.get("expires"), ok.to.tag) == (200, "200", it.tag)
    assert isinstance(told, Request)
    assert told.get("subscription-state") == "active;expires=200"
    it.take(answer(told))
    assert it.after(150) == []
    assert it.agent.held().subscriptions == 1


def test_a_refresh_moves_to_another_place() -> None:
    it = Subscribed()
    it.take(answer(it.first))
    moved = Flow("UDP", ("198.51.100.9", 7000), FLOW.local)
    data = subscribe(branch="z9hG4bKmove", to_tag=it.tag, cseq=2).replace(b"ann@192.0.2.7:5062", b"ann@198.51.100.9")
    it.agent.receive(data, moved, it.now_ns)
    sent = [output for output in it.agent.outputs() if isinstance(output, Transmit)]
    assert [output.flow for output in sent] == [moved, moved]
    assert b"NOTIFY sip:ann@198.51.100.9 SIP/2.0" in sent[1].data


@pytest.mark.parametrize(
    ("extra", "cseq", "status"), [(EVENT, 1, 200), (EVENT, 0, 500), ("Event: message-summary;id=9\r\n", 2, 403)]
)
def test_a_refresh_must_be_in_order_and_about_the_same(extra: str, cseq: int, status: int) -> None:
    it = Subscribed()
    assert statuses(it.refresh(extra, cseq))[0] == status


def test_a_refresh_of_what_is_over_is_481() -> None:
    subject = agent(SETTINGS)
    subject.receive(subscribe(to_tag="gone"), FLOW, 0)
    assert statuses(parts(subject)[0]) == [481]


def test_to_unsubscribe_is_to_be_told_a_last_time() -> None:
    it = Subscribed()
    it.take(answer(it.first))
    ok, last = it.refresh(EVENT + "Expires: 0\r\n")
    assert ok.get("expires") == "0"
    assert last.get("subscription-state") == "terminated;reason=timeout"
    assert last.body == OFF
    assert statuses(it.refresh(cseq=3)) == [481]
    it.agent.receive(answer(last), FLOW, it.now_ns)
    assert parts(it.agent)[1] == [SubscriptionEnded(it.id)]
    run_out(it.agent, it.now_ns)
    assert it.agent.held().timers == it.agent.held().subscriptions == 0


def test_to_fetch_is_to_be_told_once() -> None:
    it = Subscribed(EVENT + "Expires: 0\r\n")
    assert it.ok.get("expires") == "0"
    assert it.first.get("subscription-state") == "terminated;reason=timeout"
    it.take(answer(it.first))
    assert it.agent.held().subscriptions == 0


def test_an_unsubscribe_waits_for_the_notify_under_way() -> None:
    it = Subscribed()
    assert statuses(it.refresh(EVENT + "Expires: 0\r\n")) == [200]
    (last,) = it.take(answer(it.first))
    assert last.get("subscription-state") == "terminated;reason=timeout"


def test_a_subscription_that_nobody_refreshes_ends_with_a_word() -> None:
    it = Subscribed(EVENT + "Expires: 60\r\n")
    it.take(answer(it.first))
    assert it.after(59.9) == []
    (last,) = it.after(0.1)
    assert last.get("subscription-state") == "terminated;reason=timeout"
    it.take(answer(last))
    assert it.agent.held().subscriptions == 0


def test_the_application_ends_one() -> None:
    it = Subscribed()
    it.take(answer(it.first))
    it.agent.end_subscription(it.id, "noresource", it.now_ns)
    (last,) = parts(it.agent)[0]
    assert last.get("subscription-state") == "terminated;reason=noresource"
    it.agent.end_subscription(it.id, "noresource", it.now_ns)
    it.agent.notify(it.id, ON, it.now_ns)
    assert parts(it.agent)[0] == []


@pytest.mark.parametrize("status", [481, 404, 500, 302, 603])
def test_a_notify_that_is_refused_ends_the_subscription(status: int) -> None:
    it = Subscribed()
    it.agent.receive(answer(it.first, status), FLOW, 0)
    assert parts(it.agent)[1] == [SubscriptionEnded(it.id)]
    run_out(it.agent, 0)
    assert it.agent.held().timers == it.agent.held().subscriptions == 0


def test_a_notify_that_nobody_answers_ends_the_subscription() -> None:
    it = Subscribed()
    now_ns, messages, events = run_out(it.agent, 0)
    assert 32 * S <= now_ns < 64 * S
    assert set(statuses(messages)) == {"NOTIFY"}
    assert events == [SubscriptionEnded(it.id)]
    assert it.agent.held().timers == it.agent.held().subscriptions == 0


def test_a_phone_that_asks_for_peace_is_told_later() -> None:
    it = Subscribed()
    it.take(answer(it.first, 503, "Retry-After: 20 (busy)\r\n"))
    assert it.tell(ON) == []
    assert it.after(19.9) == []
    assert [m.body for m in it.after(0.1)] == [ON]


def test_over_a_lost_connection_the_subscriber_is_reached_at_its_contact() -> None:
    it = Subscribed(flow=TCP_FLOW)
    lost = Flow("TCP", ("192.0.2.7", 40_000), TCP_FLOW.local)
    it = Subscribed(flow=lost)
    it.agent.flow_lost(lost, 0)
    it.agent.outputs()
    it.agent.advance(S)
    sent = [output for output in it.agent.outputs() if isinstance(output, Transmit)]
    assert [(output.flow.transport, output.flow.remote) for output in sent] == [("UDP", ("192.0.2.7", 5062))]


def test_there_are_limits_in_all_and_per_source() -> None:
    for limits in ({"max_subscriptions": 1}, {"max_subscriptions_per_source": 1}):
        settings = AgentSettings(allow_events=("message-summary",), **limits)  # type: ignore[arg-type]
        it = Subscribed(settings=settings)
        more = it.take(subscribe(call_id="other", branch="z9hG4bKmore"))
        assert statuses(more) == [503]
        assert more[0].get("retry-after")
        other = Flow("UDP", ("192.0.2.99", 5060), FLOW.local)
        it.agent.receive(subscribe(call_id="third", branch="z9hG4bKthird"), other, 0)
        assert len(parts(it.agent)[1]) == ("max_subscriptions_per_source" in limits)
        it.take(answer(it.first, 481))
        it.agent.receive(subscribe(call_id="again", branch="z9hG4bKagain"), FLOW, 0)
        assert len(parts(it.agent)[1]) == 1


def test_a_retransmitted_subscribe_is_one_subscription() -> None:
    it = Subscribed()
    assert statuses(it.take(subscribe())) == [200]
    assert it.agent.held().subscriptions == 1


def test_a_notify_to_us_is_481() -> None:
    subject = agent(SETTINGS)
    subject.receive(request("NOTIFY", extra=EVENT), FLOW, 0)
    assert statuses(parts(subject)[0]) == [481]


def test_a_register_is_for_the_application() -> None:
    subject = agent(SETTINGS)
    subject.receive(request("REGISTER"), FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, RequestOutside)
    subject.respond(event.transaction_id, 200, headers=(("Expires", "60"),), now_ns=0)
    (ok,) = parts(subject)[0]
    assert (ok.get("expires"), bool(ok.to.tag)) == ("60", True)
    subject = agent(AgentSettings())
    subject.receive(request("REGISTER"), FLOW, 0)
    assert statuses(parts(subject)[0]) == [405]


# Over a restart


def test_another_process_goes_on_with_a_subscription() -> None:
    it = Subscribed(EVENT + "Expires: 600\r\nRecord-Route: <sip:p;lr>\r\n")
    it.take(answer(it.first))
    kept = it.agent.keep(it.id)
    assert kept is not None
    other = agent(SETTINGS, seed=9)
    resumed = other.resume(kept, ON, 100 * S)
    assert resumed is not None
    (told,) = parts(other)[0]
    assert isinstance(told, Request)
    assert (told.body, told.get("subscription-state")) == (ON, "active;expires=500")
    assert told.cseq.number > it.first.cseq.number
    assert (told.call_id, told.from_.tag, told.to.tag) == (it.first.call_id, it.tag, "caller")
    assert told.all("route") == ["<sip:p;lr>"]
    other.receive(answer(told), FLOW, 100 * S)
    # The subscriber notices nothing: its next refresh is in order.
    other.receive(subscribe(branch="z9hG4bKlater", to_tag=it.tag, cseq=2), FLOW, 101 * S)
    assert statuses(parts(other)[0]) == [200, "NOTIFY"]
    assert other.resume(kept, ON, 100 * S) is None


def test_what_is_over_is_neither_kept_nor_resumed() -> None:
    it = Subscribed(EVENT + "Expires: 60\r\n")
    kept = it.agent.keep(it.id)
    assert kept is not None
    it.agent.end_subscription(it.id, "noresource", 0)
    assert it.agent.keep(it.id) is None
    assert agent(SETTINGS).resume(kept, ON, 60 * S) is None
    full = agent(AgentSettings(allow_events=("message-summary",), max_subscriptions=0))
    assert full.resume(kept, ON, 0) is None


def test_what_came_by_a_connection_goes_on_at_the_contact() -> None:
    lost = Flow("TCP", ("192.0.2.7", 40_000), TCP_FLOW.local)
    it = Subscribed(flow=lost)
    kept = it.agent.keep(it.id)
    assert kept is not None
    other = agent(SETTINGS, seed=9)
    other.resume(kept, ON, 0)
    sent = [output.flow for output in other.outputs() if isinstance(output, Transmit)]
    assert [(flow.transport, flow.remote) for flow in sent] == [("UDP", ("192.0.2.7", 5062))]


def test_a_state_is_told_again_when_asked_to() -> None:
    it = Subscribed()
    it.take(answer(it.first))
    it.after(2)
    assert it.tell(OFF) == []
    it.agent.notify(it.id, OFF, it.now_ns, again=True)
    assert statuses(parts(it.agent)[0]) == ["NOTIFY"]
