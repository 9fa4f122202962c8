"""aftertone.net.streams: connections of real sockets on the loopback, encrypted and not."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from aftertone.net.connection import Connection, ConnectionLimits
from aftertone.net.streams import MAX_CONNECTING
from aftertone.net.tls import Tls
from aftertone.sip.budgets import Guard, Limits, Why
from aftertone.sip.events import (
    ByeFinished,
    CallAnswered,
    CallConfirmed,
    CallFailed,
    DialogEnded,
    Event,
    FlowLost,
    IncomingCall,
    RequestAnswered,
)
from aftertone.sip.flow import Flow, Transport
from aftertone.sip.message import Response, parse
from tests.support.certificates import Authority
from tests.unit.net.party import LOCAL, Party, dial, until, with_parties
from tests.unit.sip.kit import SDP, request

OPTIONS = request("OPTIONS", via="SIP/2.0/TLS 192.0.2.7:5062;branch=z9hG4bKone;rport")


def with_tls(
    tmp_path: Path,
    test: Callable[[Party, Party], Awaitable[None]],
    *,
    names: tuple[str, ...] = (LOCAL, "::1", "localhost"),
    uris: tuple[str, ...] = (),
    trusted: bool = True,
    verify: bool = True,
    hosts: tuple[str, ...] = (LOCAL,),
    limits: ConnectionLimits | None = None,
) -> None:
    """Run a test with a caller that trusts an authority (or not) and a called side with its certificate."""
    authority = Authority(tmp_path)
    called = Tls(*authority.issue("pbx", names, uris=uris))
    caller = Tls(authorities=authority.path if trusted else None, verify=verify)
    with_parties(test, {"tls": caller, "hosts": hosts}, tls=called, tls_port=0, hosts=hosts, limits=limits)


def answering(party: Party) -> Callable[[Event], None]:
    """Answer calls, and their ends."""

    def answer(event: Event) -> None:
        if isinstance(event, IncomingCall):
            party.endpoint.respond(event.transaction_id, 200, body=SDP, content_type="application/sdp")
        elif isinstance(event, DialogEnded):
            party.endpoint.respond(event.transaction_id, 200)

    return answer


def has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


async def connected(tmp_path: Path, party: Party) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect as a phone that trusts the authority."""
    context = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    return await asyncio.open_connection(LOCAL, party.endpoint.tls_port, ssl=context, server_hostname="localhost")


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("transport", ["UDP", "TCP", "TLS"])
@pytest.mark.parametrize("host", [LOCAL, pytest.param("::1", marks=needs_ipv6)])
def test_a_whole_call_by_every_way(tmp_path: Path, host: str, transport: Transport) -> None:
    async def test(one: Party, two: Party) -> None:
        two.react = answering(two)
        dial(one, two, transport, host=host)
        answered = await one.wait_for(CallAnswered)
        incoming = await two.wait_for(IncomingCall)
        assert incoming.request.via.transport == transport
        assert answered.response.contact is not None
        port = two.endpoint.tls_port if transport == "TLS" else two.endpoint.port
        shown = f"[{host}]" if ":" in host else host
        suffix = "" if transport == "UDP" else f";transport={transport.lower()}"
        assert answered.response.contact.uri == f"sip:box@{shown}:{port}{suffix}"
        confirmed = await two.wait_for(CallConfirmed)
        # In both directions over the connection that lives (RFC 5923).
        before = (one.endpoint.connections, two.endpoint.connections)
        two.endpoint.bye(confirmed.dialog_id)
        one.react = answering(one)
        assert (await two.wait_for(ByeFinished)).status == 200
        assert before == ((1, 1) if transport != "UDP" else (0, 0))
        assert (one.endpoint.connections, two.endpoint.connections) == before

    with_tls(tmp_path, test, hosts=(LOCAL, "::1") if has_ipv6() else (LOCAL,))


def test_a_call_to_a_sips_uri_has_sips_contacts(tmp_path: Path) -> None:
    async def test(one: Party, two: Party) -> None:
        two.react = answering(two)
        dial(one, two, "TLS", uri=f"sips:box@{LOCAL}:{two.endpoint.tls_port}")
        answered = await one.wait_for(CallAnswered)
        incoming = await two.wait_for(IncomingCall)
        assert answered.response.contact is not None
        assert answered.response.contact.uri == f"sips:box@{LOCAL}:{two.endpoint.tls_port}"
        assert incoming.request.contact is not None
        assert incoming.request.contact.uri.startswith("sips:ann@")
        one.endpoint.bye(answered.dialog_id)
        assert (await one.wait_for(ByeFinished)).status == 200

    with_tls(tmp_path, test)


@pytest.mark.parametrize(
    ("names", "uris", "hostname", "good"),
    [
        (("pbx.example.org",), (), "pbx.example.org", True),
        (("pbx.example.org",), (), "other.example.org", False),
        (("pbx.example.org",), (), "", False),
        (("pbx.example.org",), ("sip:example.org",), "example.org", True),
        (("pbx.example.org",), ("sip:example.org",), "pbx.example.org", False),
    ],
)
def test_a_server_must_prove_its_name(
    tmp_path: Path, names: tuple[str, ...], uris: tuple[str, ...], hostname: str, good: bool
) -> None:
    async def test(one: Party, two: Party) -> None:
        two.react = answering(two)
        dial(one, two, "TLS", hostname=hostname)
        if good:
            await one.wait_for(CallAnswered)
            return
        assert (await one.wait_for(CallFailed)).status == 503
        assert one.endpoint.stats["tls_wrong_name"] == 1
        await until(lambda: not one.endpoint.connections)
        assert not any(isinstance(event, IncomingCall) for event in two.events)

    with_tls(tmp_path, test, names=names, uris=uris)


def test_a_server_without_an_authority_is_refused_unless_nobody_asks(tmp_path: Path) -> None:
    async def refused(one: Party, two: Party) -> None:
        dial(one, two, "TLS")
        assert (await one.wait_for(CallFailed)).status == 503
        assert one.endpoint.stats["tls_handshake_errors"] == 1

    async def believed(one: Party, two: Party) -> None:
        two.react = answering(two)
        dial(one, two, "TLS", hostname="whatever.example.org")
        await one.wait_for(CallAnswered)

    with_tls(tmp_path, refused, trusted=False)
    with_tls(tmp_path, believed, trusted=False, verify=False)


def test_without_tls_a_call_over_it_fails_at_once() -> None:
    async def test(one: Party, two: Party) -> None:
        flow = one.endpoint.flow_to((LOCAL, two.endpoint.port), "TLS")
        one.endpoint.invite(f"sip:box@{LOCAL}", from_uri="sip:a@b.example", flow=flow)
        assert (await one.wait_for(CallFailed)).status == 503

    with_parties(test)


def test_a_certificate_is_renewed_while_a_connection_lives(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = Tls(*authority.issue("pbx", ["localhost"]))

    async def shown(writer: asyncio.StreamWriter) -> object:
        return writer.get_extra_info("peercert")["serialNumber"]

    async def test(one: Party, two: Party) -> None:
        reader, writer = await connected(tmp_path, two)
        first = await shown(writer)
        authority.issue("pbx", ["localhost"])
        assert tls.look()
        later_reader, later = await connected(tmp_path, two)
        assert await shown(later) != first
        async with asyncio.timeout(5):
            for way in ((reader, writer), (later_reader, later)):
                way[1].write(OPTIONS)
                assert (await way[0].readline()).startswith(b"SIP/2.0 200")
        await closed(writer)
        await closed(later)

    with_parties(test, tls=tls, tls_port=0)


def test_openssl_can_ask(tmp_path: Path) -> None:
    async def test(one: Party, two: Party) -> None:
        asked = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", str(tmp_path / "authority.pem")),
            *("-verify_hostname", "localhost", "-connect", f"{LOCAL}:{two.endpoint.tls_port}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert asked.stdin is not None
        assert asked.stdout is not None
        async with asyncio.timeout(10):
            asked.stdin.write(OPTIONS)
            answer = parse(await asked.stdout.readuntil(b"\r\n\r\n"))
            assert isinstance(answer, Response)
            assert answer.status == 200
            asked.terminate()
            await asked.communicate()
        await until(lambda: not two.endpoint.connections)

    with_tls(tmp_path, test)


def test_an_old_version_is_refused(tmp_path: Path) -> None:
    async def test(one: Party, two: Party) -> None:
        asked = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
            *("-connect", f"{LOCAL}:{two.endpoint.tls_port}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(10):
            assert await asked.wait() != 0
        await until(lambda: two.endpoint.stats["tls_handshake_errors"] == 1)
        assert not two.endpoint.connections

    with_tls(tmp_path, test)


def test_200_connections_from_one_address_are_bounded(tmp_path: Path) -> None:
    async def test(one: Party, two: Party) -> None:
        async def connect(port: int) -> asyncio.StreamWriter:
            return (await asyncio.open_connection(LOCAL, port))[1]

        # Plain, and in a TLS handshake that never goes on.
        ports = [two.endpoint.port, two.endpoint.tls_port] * 100
        writers = await asyncio.gather(*(connect(port) for port in ports))
        await until(lambda: two.endpoint.stats["connections_refused_source"] == 140)
        assert two.endpoint.connections == 60
        for writer in writers:
            await closed(writer)
        await until(lambda: not two.endpoint.connections)
        reader, writer = await connected(tmp_path, two)
        writer.write(OPTIONS)
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"SIP/2.0 200")
        await closed(writer)

    with_tls(tmp_path, test, limits=ConnectionLimits(max_from_one=60))


def test_an_office_that_is_known_may_have_more_connections_but_not_all() -> None:
    async def test(_: Party, two: Party) -> None:
        async def connect() -> asyncio.StreamWriter:
            return (await asyncio.open_connection(LOCAL, two.endpoint.port))[1]

        writers = await asyncio.gather(*(connect() for _ in range(30)))
        await until(lambda: two.endpoint.stats["connections_refused_source"] == 28)
        two.endpoint.guard.known = lambda host: host == LOCAL
        writers += await asyncio.gather(*(connect() for _ in range(30)))
        await until(lambda: two.endpoint.stats["connections_refused_source"] == 28 + 22)
        assert two.endpoint.connections == 10
        for writer in writers:
            await closed(writer)

    with_parties(
        test, limits=ConnectionLimits(max_connections=20, max_from_one=2), guard=Guard(Limits(known_factor=10))
    )


def test_strangers_who_lead_our_answers_nowhere_do_not_keep_accounts_from_their_servers() -> None:
    async def test(one: Party, two: Party) -> None:
        one.endpoint.guard.known = lambda host: host == LOCAL
        # In one turn of the loop none of them can be open, or have failed.
        for port in range(1, 101):
            flow = one.endpoint.flow_to(("127.0.0.3", port), "TCP")
            one.endpoint.request("OPTIONS", "sip:127.0.0.3", from_uri="sip:one@127.0.0.1", flow=flow)
        known = one.endpoint.flow_to((LOCAL, two.endpoint.port), "TCP")
        wanted = one.endpoint.request("REGISTER", "sip:127.0.0.1", from_uri="sip:one@127.0.0.1", flow=known)
        assert (await one.wait_for(RequestAnswered)).request == wanted
        assert one.endpoint.stats["unsendable"] == 100 - MAX_CONNECTING // 2

    with_parties(test)


@pytest.mark.parametrize("trickle", [b"", b"\x16\x03\x01"])
def test_a_handshake_that_does_not_go_on_is_cut_off(tmp_path: Path, trickle: bytes) -> None:
    async def test(one: Party, two: Party) -> None:
        reader, writer = await asyncio.open_connection(LOCAL, two.endpoint.tls_port)
        writer.write(trickle)
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        await until(lambda: not two.endpoint.connections)
        assert two.endpoint.stats["tls_handshake_errors"] == 1
        await closed(writer)

    with_tls(tmp_path, test, limits=ConnectionLimits(handshake_s=0.05))


def test_a_peer_that_trickles_inside_tls_is_cut_off(tmp_path: Path) -> None:
    async def test(one: Party, two: Party) -> None:
        _, writer = await connected(tmp_path, two)
        with suppress(ConnectionError):
            for byte in OPTIONS * 50:
                writer.write(bytes([byte]))
                await writer.drain()
                if two.endpoint.stats["connections_cut_slow"]:
                    break
                await asyncio.sleep(0.001)
        assert two.endpoint.stats["connections_cut_slow"] == 1
        await closed(writer)

    with_tls(tmp_path, test, limits=ConnectionLimits(first_s=0.05))


def test_a_call_keeps_its_quiet_connection_and_a_stranger_does_not() -> None:
    async def test(one: Party, two: Party) -> None:
        two.react = answering(two)
        dial(one, two, "TCP")
        await two.wait_for(CallConfirmed)
        (ours,) = two.endpoint._streams._places
        _, writer = await asyncio.open_connection(LOCAL, two.endpoint.port)
        await until(lambda: two.endpoint.connections == 2)
        # Not before there is a call: however slow this machine is, its connection is quiet because nobody speaks.
        for connection in two.endpoint._streams._places:
            assert isinstance(connection, Connection)
            connection._limits = ConnectionLimits(idle_s=0.01)
        assert isinstance(ours, Connection)
        ours._watch()
        first = ours._alarm
        writer.write(b"\r\n\r\n")
        await until(lambda: two.endpoint.stats["connections_cut_idle"] == 1)
        await until(lambda: ours._alarm is not first)
        await closed(writer)
        await until(lambda: two.endpoint.connections == 1)
        assert list(two.endpoint._streams._places) == [ours]

    with_parties(test)


def test_what_the_application_knows_keeps_a_connection_too() -> None:
    async def test(one: Party, two: Party) -> None:
        asked: list[Flow] = []
        two.endpoint.lives_on.append(lambda flow: not asked.append(flow))  # type: ignore[func-returns-value]
        _, writer = await asyncio.open_connection(LOCAL, two.endpoint.port)
        writer.write(b"\r\n\r\n")
        await until(lambda: len(asked) > 2)
        assert two.endpoint.connections == 1
        assert asked[0].remote == writer.get_extra_info("sockname")
        await closed(writer)

    with_parties(test, limits=ConnectionLimits(idle_s=0.01))


@pytest.mark.parametrize("transport", ["TCP", "TLS"])
def test_pings_are_answered_and_silence_ends_the_flow(tmp_path: Path, transport: Transport) -> None:
    async def test(one: Party, two: Party) -> None:
        port = two.endpoint.port if transport == "TCP" else two.endpoint.tls_port
        flow = one.endpoint.flow_to((LOCAL, port), transport)
        one.endpoint.keep_alive(flow, answered=True)
        assert not one.endpoint.connections
        one.endpoint.request("OPTIONS", f"sip:{LOCAL}", from_uri="sip:one@127.0.0.1", flow=flow)
        await one.wait_for(RequestAnswered)
        (connection,) = one.endpoint._streams._ours
        one.endpoint.keep_alive(flow, answered=True)
        assert connection._pong_alarm is not None
        await until(lambda: connection._pong_alarm is None)
        (server,) = two.endpoint._streams._places
        assert server.transport is not None  # type: ignore[attr-defined]
        server.transport.pause_reading()  # type: ignore[attr-defined]
        one.endpoint.keep_alive(flow, answered=True)
        assert (await one.wait_for(FlowLost)).flow == flow
        assert one.endpoint.stats["connections_cut_silent"] == 1

    authority = Authority(tmp_path)
    with_parties(
        test,
        {"tls": Tls(authorities=authority.path), "limits": ConnectionLimits(pong_s=0.1)},
        tls=Tls(*authority.issue("pbx", [LOCAL])),
        tls_port=0,
    )


def test_a_ping_over_udp_is_an_empty_line() -> None:
    async def test(one: Party, two: Party) -> None:
        one.endpoint.keep_alive(one.endpoint.flow_to((LOCAL, two.endpoint.port)))
        await until(lambda: two.endpoint.agent.stats["keepalives"] == 1)

    with_parties(test)


def test_a_large_request_goes_by_tcp_and_by_udp_where_there_is_none() -> None:
    async def test(one: Party, two: Party) -> None:
        two.react = answering(two)
        long = (("Subject", "x" * 1400),)
        for port, transport in ((two.endpoint.port, "TCP"), (0, "UDP")):
            two.events.clear()
            one.events.clear()
            if not port:
                for server in two.endpoint._servers:
                    server.close()
                await until(lambda: not two.endpoint.connections)
            flow = one.endpoint.flow_to((LOCAL, two.endpoint.port), either=True)
            one.endpoint.invite(
                f"sip:box@{LOCAL}:{two.endpoint.port}",
                from_uri=f"sip:ann@{LOCAL}",
                body=SDP,
                content_type="application/sdp",
                flow=flow,
                headers=long,
            )
            answered = await one.wait_for(CallAnswered)
            incoming = await two.wait_for(IncomingCall)
            assert incoming.flow.transport == transport
            assert incoming.request.via.transport == transport
            await two.wait_for(CallConfirmed)
            one.endpoint.bye(answered.dialog_id)
            assert (await one.wait_for(ByeFinished)).status == 200
            for connection in list(one.endpoint._streams._ours):
                assert connection.transport is not None
                connection.transport.abort()
            await until(lambda: not one.endpoint.connections)
        assert one.endpoint.stats["connect_errors"] == 1

    with_parties(test)


def test_a_large_request_stays_with_the_transport_that_was_chosen() -> None:
    async def test(one: Party, two: Party) -> None:
        flow = one.endpoint.flow_to((LOCAL, two.endpoint.port))
        one.endpoint.invite(
            "sip:box@127.0.0.1", from_uri="sip:a@b.example", flow=flow, headers=(("Subject", "x" * 1400),)
        )
        assert (await two.wait_for(IncomingCall)).flow.transport == "UDP"

    with_parties(test)


def test_an_answer_finds_its_way_when_the_connection_of_the_call_is_gone() -> None:
    async def test(one: Party, two: Party) -> None:
        dial(one, two, "TCP")
        incoming = await two.wait_for(IncomingCall)
        two.endpoint.respond(incoming.transaction_id, 180)
        await until(
            lambda: any(leg.transaction.state.value == "proceeding" for leg in one.endpoint.agent._client.legs.values())
        )
        (connection,) = one.endpoint._streams._ours
        assert connection.transport is not None
        connection.transport.abort()
        await two.wait_for(FlowLost)
        two.endpoint.respond(incoming.transaction_id, 200, body=SDP, content_type="application/sdp")
        answered = await one.wait_for(CallAnswered)
        await two.wait_for(CallConfirmed)
        assert answered.response.status == 200

    with_parties(test)


def test_a_request_comes_from_the_address_that_was_reached() -> None:
    async def test(one: Party, two: Party) -> None:
        for host in ("127.0.0.2", "127.0.0.3"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
                phone.setblocking(False)
                phone.bind((LOCAL, 0))
                loop = asyncio.get_running_loop()
                await loop.sock_sendto(phone, request("OPTIONS"), (host, two.endpoint.port))
                async with asyncio.timeout(5):
                    _, source = await loop.sock_recvfrom(phone, 65_536)
            assert source == (host, two.endpoint.port)
        assert two.endpoint.flow_to((LOCAL, 9)).local[0] == "127.0.0.2"

    with_parties(test, hosts=("127.0.0.2", "127.0.0.3"))


def test_a_connection_comes_from_an_address_that_we_listen_on() -> None:
    async def test(one: Party, two: Party) -> None:
        dial(one, two, "TCP")
        incoming = await two.wait_for(IncomingCall)
        assert incoming.flow.remote[0] == "127.0.0.2"

    with_parties(test, {"hosts": ("127.0.0.2",)})


def test_connections_come_out_of_the_budget_of_their_source(tmp_path: Path) -> None:
    async def test(one: Party, two: Party) -> None:
        for _ in range(10):
            reader, writer = await asyncio.open_connection(LOCAL, two.endpoint.tls_port)
            writer.close()
            with suppress(ConnectionError):
                await reader.read()
        await until(lambda: not two.endpoint.connections)
        assert two.endpoint.stats["connections_refused_budget"] == 5
        assert two.endpoint.stats["tls_handshake_errors"] == 5
        assert two.endpoint.guard.refused[Why.MESSAGES] == 5

    authority = Authority(tmp_path)
    guard = Guard(Limits(messages_a_second=10))
    with_parties(
        test, tls=Tls(*authority.issue("pbx", [LOCAL])), tls_port=0, guard=guard, clock_ns=lambda: 1_000_000_000
    )
