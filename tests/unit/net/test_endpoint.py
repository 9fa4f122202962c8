"""aftertone.net.endpoint: real sockets on the loopback, no clock but the kernel's."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

from aftertone.errors import EnvironmentFault, UsageError
from aftertone.net.connection import ConnectionLimits
from aftertone.net.endpoint import SipEndpoint
from aftertone.sip.budgets import Guard, Limits, Why
from aftertone.sip.events import (
    ByeFinished,
    CallAnswered,
    CallCancelled,
    CallConfirmed,
    CallFailed,
    CallProgress,
    DialogEnded,
    Event,
    FlowLost,
    IncomingCall,
    ProvisionalConfirmed,
    ReofferAnswered,
    ReofferReceived,
    RequestAnswered,
    RequestFailed,
)
from aftertone.sip.flow import Flow, Transport
from aftertone.sip.message import Request, Response, parse
from aftertone.sip.settings import AgentSettings, Timing
from aftertone.sip.trace import Recorder
from tests.unit.net.party import LOCAL, Party, dial, with_parties
from tests.unit.sip.kit import SDP, request


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_a_whole_call(transport: Transport) -> None:
    async def test(one: Party, two: Party) -> None:
        def answer(event: Event) -> None:
            if isinstance(event, IncomingCall):
                two.endpoint.respond(event.transaction_id, 180)
                two.endpoint.respond(event.transaction_id, 200, body=SDP, content_type="application/sdp")
            elif isinstance(event, DialogEnded):
                two.endpoint.respond(event.transaction_id, 200)

        two.react = answer
        dial(one, two, transport)
        answered = await one.wait_for(CallAnswered)
        assert answered.response.contact is not None
        assert answered.response.contact.uri.startswith(f"sip:box@{LOCAL}:{two.endpoint.port}")
        await one.wait_for(CallProgress)
        confirmed = await two.wait_for(CallConfirmed)
        assert confirmed.dialog_id.call_id == answered.dialog_id.call_id
        one.endpoint.bye(answered.dialog_id)
        assert await one.wait_for(ByeFinished) == ByeFinished(answered.dialog_id, 200)
        assert (await two.wait_for(DialogEnded)).dialog_id == confirmed.dialog_id

    with_parties(test)


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_the_called_side_hangs_up(transport: Transport) -> None:
    async def test(one: Party, two: Party) -> None:
        def answer(event: Event) -> None:
            if isinstance(event, IncomingCall):
                two.endpoint.respond(event.transaction_id, 200, body=SDP, content_type="application/sdp")
            elif isinstance(event, CallConfirmed):
                two.endpoint.bye(event.dialog_id)

        two.react = answer
        one.react = lambda event: (
            one.endpoint.respond(event.transaction_id, 200) if isinstance(event, DialogEnded) else None
        )
        dial(one, two, transport)
        finished = await two.wait_for(ByeFinished)
        assert finished.status == 200

    with_parties(test)


def test_cancelling() -> None:
    async def test(one: Party, two: Party) -> None:
        two.react = lambda event: (
            two.endpoint.respond(event.transaction_id, 180) if isinstance(event, IncomingCall) else None
        )
        call = dial(one, two)
        await one.wait_for(CallProgress)
        one.endpoint.cancel(call)
        assert (await one.wait_for(CallFailed)).status == 487
        await two.wait_for(CallCancelled)

    with_parties(test)


def test_a_late_offer() -> None:
    async def test(one: Party, two: Party) -> None:
        two.react = lambda event: (
            two.endpoint.respond(event.transaction_id, 200, body=b"offer", content_type="application/sdp")
            if isinstance(event, IncomingCall)
            else None
        )
        flow = one.endpoint.flow_to((LOCAL, two.endpoint.port))
        one.endpoint.invite(f"sip:box@{LOCAL}", from_uri="sip:a@b.example", flow=flow)
        answered = await one.wait_for(CallAnswered)
        one.endpoint.acknowledge(answered.dialog_id, b"answer", "application/sdp")
        assert (await two.wait_for(CallConfirmed)).body == b"answer"

    with_parties(test)


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_a_confirmed_ring_and_a_new_offer(transport: Transport) -> None:
    async def test(one: Party, two: Party) -> None:
        def answer(event: Event) -> None:
            if isinstance(event, IncomingCall):
                two.endpoint.respond(event.transaction_id, 183, body=b"early", content_type="application/sdp")
                two.endpoint.respond(event.transaction_id, 200)
            elif isinstance(event, ReofferReceived):
                two.endpoint.respond(event.transaction_id, 200, body=b"answer", content_type="application/sdp")

        two.react = answer
        dial(one, two, transport)
        answered = await one.wait_for(CallAnswered)
        await two.wait_for(ProvisionalConfirmed)
        one.endpoint.reoffer(answered.dialog_id, b"new", "application/sdp")
        changed = await one.wait_for(ReofferAnswered)
        assert (changed.offer, changed.response.body) == (b"new", b"answer")

    with_parties(test)


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_a_request_outside_calls_is_answered(transport: Transport) -> None:
    async def test(one: Party, two: Party) -> None:
        flow = one.endpoint.flow_to((LOCAL, two.endpoint.port), transport)
        name = one.endpoint.request("OPTIONS", f"sip:{LOCAL}", from_uri="sip:one@127.0.0.1", flow=flow)
        answered = await one.wait_for(RequestAnswered)
        assert (answered.request, answered.response.status) == (name, 200)

    with_parties(test)


def test_a_connection_that_cannot_be_opened_fails_its_request_at_once() -> None:
    async def test(one: Party, two: Party) -> None:
        with socket.socket() as taken:
            taken.bind((LOCAL, 0))
            flow = one.endpoint.flow_to(taken.getsockname(), "TCP")
            name = one.endpoint.request("OPTIONS", f"sip:{LOCAL}", from_uri="sip:one@127.0.0.1", flow=flow)
            failed = await one.wait_for(RequestFailed)
        assert (failed.request, failed.status) == (name, 503)
        assert (await one.wait_for(FlowLost)).flow == flow

    with_parties(test)


def test_the_timer_runs_without_traffic() -> None:
    quick = AgentSettings(timing=Timing(t1_ns=1_000_000, t2_ns=4_000_000, t4_ns=5_000_000))

    async def test(one: Party, two: Party) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((LOCAL, 0))
            flow = two.endpoint.flow_to((LOCAL, silent.getsockname()[1]))
            two.endpoint.invite(f"sip:box@{LOCAL}", from_uri="sip:a@b.example", flow=flow)
            assert (await two.wait_for(CallFailed)).status == 408
        assert two.endpoint.agent.deadline_ns() is None

    with_parties(test, settings=quick)


def test_the_address_that_the_peer_can_reach_is_advertised() -> None:
    async def test(one: Party, two: Party) -> None:
        dial(one, two)
        assert (await two.wait_for(IncomingCall)).flow.local == ("203.0.113.9", two.endpoint.port)

    with_parties(test, advertise=lambda remote: "203.0.113.9")


def test_a_wildcard_is_never_advertised() -> None:
    async def test(one: Party, two: Party) -> None:
        assert two.endpoint.flow_to((LOCAL, 9)).local == (LOCAL, two.endpoint.port)
        dial(one, two)
        assert (await two.wait_for(IncomingCall)).flow.local == (LOCAL, two.endpoint.port)

    with_parties(test, hosts=("0.0.0.0",))


def test_ipv6_beside_ipv4() -> None:
    async def test(one: Party, two: Party) -> None:
        loop = asyncio.get_running_loop()
        for family, host in ((socket.AF_INET, LOCAL), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as peer:
                peer.setblocking(False)
                peer.bind((host, 0))
                await loop.sock_sendto(peer, request("OPTIONS"), (host, two.endpoint.port))
                async with asyncio.timeout(5):
                    data = await loop.sock_recv(peer, 65536)
                answer = parse(data)
                assert isinstance(answer, Response)
                assert (answer.status, answer.via.params["received"]) == (200, host)

    if not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    with_parties(test, hosts=("0.0.0.0", "::"))


def _has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def test_a_port_in_use_names_the_port_and_the_setting() -> None:
    async def test(one: Party, two: Party) -> None:
        other = SipEndpoint(AgentSettings(), lambda event: None, hosts=(LOCAL,), port=one.endpoint.port)
        with pytest.raises(EnvironmentFault, match=rf"{one.endpoint.port}.*sip\.port"):
            await other.start()
        await other.stop()
        await one.endpoint.stop()
        await other.start()
        await other.stop()
        await one.endpoint.start()
        dial(two, one)
        await one.wait_for(IncomingCall)

    with_parties(test)


def test_a_port_taken_for_tcp_alone_is_in_use_too() -> None:
    async def test(one: Party, two: Party) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
            taken.bind((LOCAL, 0))
            taken.listen()
            other = SipEndpoint(AgentSettings(), lambda event: None, hosts=(LOCAL,), port=taken.getsockname()[1])
            with pytest.raises(EnvironmentFault, match="in use"):
                await other.start()

    with_parties(test)


def test_an_address_that_is_not_ours_is_said() -> None:
    async def main() -> None:
        other = SipEndpoint(AgentSettings(), lambda event: None, hosts=("192.0.2.1",), port=5099)
        with pytest.raises(EnvironmentFault, match=r"5099 on 192\.0\.2\.1 cannot be opened"):
            await other.start()

    asyncio.run(main())


def test_a_failing_callback_costs_nobody_else_anything() -> None:
    async def test(one: Party, two: Party) -> None:
        seen: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["message"]))

        def fail(event: Event) -> None:
            raise RuntimeError("handler")

        two.react = fail
        dial(one, two)
        await two.wait_for(IncomingCall)
        assert two.endpoint.stats["callback_errors"] == 1
        assert seen == ["the handler of IncomingCall failed"]

    with_parties(test)


def test_a_fault_in_one_timer_leaves_the_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = AgentSettings(timing=Timing(t1_ns=1_000_000, t2_ns=4_000_000, t4_ns=5_000_000))

    async def test(one: Party, two: Party) -> None:
        seen: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["exception"]))
        advance = two.endpoint.agent.advance
        faults = iter([ZeroDivisionError()])

        def faulty(now_ns: int) -> None:
            advance(now_ns)
            for fault in faults:
                raise fault

        monkeypatch.setattr(two.endpoint.agent, "advance", faulty)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((LOCAL, 0))
            flow = two.endpoint.flow_to((LOCAL, silent.getsockname()[1]))
            two.endpoint.invite(f"sip:box@{LOCAL}", from_uri="sip:a@b.example", flow=flow)
            assert (await two.wait_for(CallFailed)).status == 408
        assert [type(fault) for fault in seen] == [ZeroDivisionError]

    with_parties(test, settings=quick)


def test_what_cannot_be_sent_is_counted_and_stops_nothing() -> None:
    async def test(one: Party, two: Party) -> None:
        transports: tuple[Transport, ...] = ("UDP", "TCP")
        for transport in transports:
            for host in ("name.example", "no such host\0"):
                flow = Flow(transport, (host, 5060), (LOCAL, 1))
                one.endpoint.invite("sip:a@b.example", from_uri="sip:a@b.example", flow=flow)
        v6 = Flow("UDP", ("2001:db8::1", 5060), (LOCAL, 1))
        one.endpoint.invite("sip:a@b.example", from_uri="sip:a@b.example", flow=v6)
        dial(one, two)
        await two.wait_for(IncomingCall)
        assert one.endpoint.stats["unsendable"] == 5

    with_parties(test)


def test_a_full_link_drops_datagrams_and_recovers() -> None:
    async def test(one: Party, two: Party) -> None:
        port = one.endpoint._datagrams[LOCAL]
        port.pause_writing()
        one.endpoint.invite("sip:a@b.example", from_uri="sip:a@b.example", flow=one.endpoint.flow_to((LOCAL, 9)))
        await asyncio.sleep(0)
        assert one.endpoint.stats["dropped_unsent"] == 1
        port.resume_writing()
        dial(one, two)
        await two.wait_for(IncomingCall)

    with_parties(test)


def test_a_name_is_no_address() -> None:
    with pytest.raises(UsageError, match=r"name\.example"):
        SipEndpoint(AgentSettings(), lambda event: None).flow_to(("name.example", 5060))


# TCP by hand


async def connected(party: Party) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(LOCAL, party.endpoint.port)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def test_a_connection_brings_many_messages_and_keepalives() -> None:
    async def test(one: Party, two: Party) -> None:
        reader, writer = await connected(two)
        async with asyncio.timeout(5):
            writer.write(b"\r\n\r\n")
            assert await reader.readexactly(2) == b"\r\n"
            both = request("OPTIONS", branch="z9hG4bK1") + request("OPTIONS", branch="z9hG4bK2")
            writer.write(both[:30])
            await asyncio.sleep(0)
            writer.write(both[30:])
            branches = []
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                branches.append(parse(head).via.branch)
        assert branches == ["z9hG4bK1", "z9hG4bK2"]
        await closed(writer)

    with_parties(test)


def test_a_stream_that_cannot_be_followed_is_answered_and_closed() -> None:
    async def test(one: Party, two: Party) -> None:
        reader, writer = await connected(two)
        writer.write(request("OPTIONS", drop="Content-Length"))
        async with asyncio.timeout(5):
            data = await reader.read()
        assert data.startswith(b"SIP/2.0 400 ")
        await closed(writer)

    with_parties(test)


def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    async def test(one: Party, two: Party) -> None:
        first = await connected(two)
        async with asyncio.timeout(5):
            first[1].write(b"\r\n\r\n")
            await first[0].readexactly(2)
            reader, writer = await connected(two)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert two.endpoint.stats["connections_refused"] == 1
        await closed(writer)
        await closed(first[1])

    with_parties(test, limits=ConnectionLimits(max_connections=1))


def test_a_quiet_and_an_unfinished_connection_are_cut_off() -> None:
    async def test(one: Party, two: Party) -> None:
        for opening in (b"\r\n\r\n", b"", b"INVITE sip:"):
            reader, writer = await connected(two)
            writer.write(opening)
            async with asyncio.timeout(5):
                with suppress(ConnectionResetError):
                    await reader.read()
            await closed(writer)

    with_parties(test, limits=ConnectionLimits(idle_s=0.01, first_s=0.01, unfinished_s=0.01))


def test_stopping_closes_connections_and_tells_nothing_more() -> None:
    async def test(one: Party, two: Party) -> None:
        reader, writer = await connected(two)
        async with asyncio.timeout(5):
            writer.write(b"\r\n\r\n")
            await reader.readexactly(2)
            await two.endpoint.stop()
            assert await reader.read() == b""
        await two.endpoint.stop()
        await closed(writer)

    with_parties(test)


def test_a_peer_that_is_not_there_is_a_failed_call_at_once() -> None:
    async def test(one: Party, two: Party) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
            taken.bind((LOCAL, 0))
            flow = two.endpoint.flow_to((LOCAL, taken.getsockname()[1]), "TCP")
            two.endpoint.invite(f"sip:box@{LOCAL}", from_uri="sip:a@b.example", flow=flow)
            assert (await two.wait_for(CallFailed)).status == 503
        assert two.endpoint.stats["connect_errors"] == 1

    with_parties(test)


def test_requests_of_ours_arrive_as_they_were_written() -> None:
    async def test(one: Party, two: Party) -> None:
        dial(one, two)
        event = await two.wait_for(IncomingCall)
        assert isinstance(event.request, Request)
        assert event.request.body == SDP
        assert event.flow.remote == (LOCAL, one.endpoint.port)

    with_parties(test)


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_messages_beyond_the_budget_are_dropped_before_anybody_sees_them(transport: Transport) -> None:
    guard, recorder = Guard(Limits(messages_a_second=0.8)), Recorder()
    # A connection counts as a message.
    heard = 4 if transport == "UDP" else 3

    async def test(one: Party, two: Party) -> None:
        flow = one.endpoint.flow_to((LOCAL, two.endpoint.port), transport)
        for _ in range(heard):
            one.endpoint.request("OPTIONS", f"sip:{LOCAL}", from_uri="sip:one@127.0.0.1", flow=flow)
            await one.wait_for(RequestAnswered)
            one.events.clear()
        for _ in range(3):
            one.endpoint.request("OPTIONS", f"sip:{LOCAL}", from_uri="sip:one@127.0.0.1", flow=flow)
        async with asyncio.timeout(5):
            while guard.refused[Why.MESSAGES] < 3:  # noqa: ASYNC110 - it is refused in silence
                await asyncio.sleep(0.01)
        assert two.endpoint.agent.stats["answered_200"] == heard
        traces = recorder.latest()
        assert [[message.sent for message in trace.messages] for trace in traces] == [[False, True]] * heard
        assert {message.transport for trace in traces for message in trace.messages} == {transport}

    with_parties(test, guard=guard, recorder=recorder)
