"""aftertone.net.names: a DNS server on the loopback, a hosts file, and the system."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import dns.rcode
import pytest

from aftertone.errors import EnvironmentFault, UsageError
from aftertone.net import names as module
from aftertone.net.names import MAX_REMEMBERED, Naptr, Srv, SystemNames, addresses_in, is_dns_name
from aftertone.net.resolver import ANY_FAMILY, Resolver
from aftertone.sip.uri import parse_uri
from tests.unit.net.names import DnsServer, dns_server

NOWHERE = Path("/nonexistent/hosts")
ZONE: dict[tuple[str, str], list[str] | int | None] = {
    ("example.test", "NAPTR"): ['10 5 "s" "SIP+D2T" "" _sip._tcp.example.test.'],
    ("_sip._tcp.example.test", "SRV"): ["1 2 5070 sbc.example.test."],
    ("sbc.example.test", "A"): ["192.0.2.1"],
    ("sbc.example.test", "AAAA"): ["2001:db8::1"],
    ("alias.example.test", "A"): [],
}


class Clock:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def names_of(server: DnsServer, clock: Clock | None = None) -> SystemNames:
    return SystemNames(servers=[server.address], hosts=NOWHERE, clock_ns=clock or Clock())


def test_records_are_read() -> None:
    async def main() -> None:
        async with dns_server(ZONE) as server:
            names = names_of(server)
            assert await names.naptr("example.test") == (Naptr(10, 5, "s", "SIP+D2T", "_sip._tcp.example.test"),)
            assert await names.srv("_sip._tcp.example.test") == (Srv(1, 2, 5070, "sbc.example.test"),)
            assert await names.srv("_sip._udp.example.test") == ()
            assert await names.addresses("sbc.example.test", ANY_FAMILY) == ["2001:db8::1", "192.0.2.1"]
            assert await names.addresses("sbc.example.test", frozenset([socket.AF_INET])) == ["192.0.2.1"]
            targets = await Resolver(names, reachable=lambda host: True).resolve(parse_uri("sip:1@example.test"))
            assert [(one.transport, one.address) for one in targets] == [
                ("TCP", ("2001:db8::1", 5070)),
                ("TCP", ("192.0.2.1", 5070)),
            ]

    asyncio.run(main())


def test_answers_live_as_long_as_they_say() -> None:
    async def main() -> None:
        async with dns_server(ZONE, ttl_s=30) as server:
            clock = Clock()
            names = names_of(server, clock)
            for at_s, asked in ((0, 1), (29, 1), (31, 2)):
                clock.ns = at_s * 10**9
                await names.srv("_sip._tcp.example.test")
                assert server.asked["_sip._tcp.example.test", "SRV"] == asked
            for at_s, asked in ((31, 1), (90, 1), (92, 2)):
                clock.ns = at_s * 10**9
                assert await names.srv("_sip._udp.example.test") == ()
                assert server.asked["_sip._udp.example.test", "SRV"] == asked

    asyncio.run(main())


def test_a_failure_is_remembered_for_a_moment() -> None:
    async def main() -> None:
        async with dns_server({("broken.test", "SRV"): int(dns.rcode.SERVFAIL)}) as server:
            clock = Clock()
            names = names_of(server, clock)
            for _ in range(2):
                with pytest.raises(EnvironmentFault, match="cannot say what broken"):
                    await names.srv("broken.test")
            before = server.asked["broken.test", "SRV"]
            clock.ns = 11 * 10**9
            with pytest.raises(EnvironmentFault):
                await names.srv("broken.test")
            assert server.asked["broken.test", "SRV"] > before

    asyncio.run(main())


def test_a_server_that_is_silent_costs_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERY_S", 0.2)
    silent: dict[tuple[str, str], list[str] | int | None] = {
        ("quiet.test", "NAPTR"): None,
        ("_sip._udp.quiet.test", "SRV"): None,
        ("quiet.test", "A"): ["192.0.2.5"],
    }

    async def main() -> None:
        async with dns_server(silent) as server:
            names = names_of(server)
            with pytest.raises(EnvironmentFault, match="no name server answered"):
                await names.naptr("quiet.test")
            targets = await Resolver(names).resolve(parse_uri("sip:1@quiet.test"))
            assert [one.address for one in targets] == [("192.0.2.5", 5060)]

    asyncio.run(main())


def test_the_system_is_asked_for_local_names() -> None:
    async def main() -> None:
        names = SystemNames(hosts=NOWHERE)
        assert "127.0.0.1" in await names.addresses("localhost", frozenset([socket.AF_INET]))

    asyncio.run(main())


def test_the_system_is_asked_for_what_the_dns_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look(name: str, port: object, **options: object) -> list[tuple[object, ...]]:
        asked.append(name)
        if name != "pbx.office":
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.3", 0))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", look)

    async def main() -> None:
        async with dns_server({}) as server:
            names = names_of(server)
            for _ in range(2):
                assert await names.addresses("pbx.office", ANY_FAMILY) == ["192.0.2.3"]
                assert await names.addresses("no.office", ANY_FAMILY) == []
            assert asked == ["pbx.office", "no.office"]
            assert await names.addresses("pbx.office", frozenset([socket.AF_INET6])) == []

    asyncio.run(main())


def test_a_system_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    over = threading.Event()

    def look(name: str, port: object, **options: object) -> list[tuple[object, ...]]:
        over.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look)
    monkeypatch.setattr(module, "SYSTEM_S", 0.02)

    async def main() -> None:
        names = SystemNames(hosts=NOWHERE)
        for number in range(module.MAX_THREADS):
            with pytest.raises(EnvironmentFault, match="the system did not say"):
                await names.addresses(f"slow{number}", ANY_FAMILY)
        with pytest.raises(EnvironmentFault, match="too many names"):
            await names.addresses("onemore", ANY_FAMILY)
        over.set()
        async with asyncio.timeout(5):
            while names._threads:  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(0.001)

    try:
        asyncio.run(main())
    finally:
        over.set()


def test_memory_is_bounded() -> None:
    async def main() -> None:
        names = SystemNames(hosts=NOWHERE)

        async def ask(name: str) -> tuple[tuple[str, ...], float]:
            return (name,), 100.0

        for number in range(2 * MAX_REMEMBERED):
            await names._remembered(str(number), "A", ask)
        assert len(names._known) == MAX_REMEMBERED

    asyncio.run(main())


def test_the_hosts_file_comes_first_and_is_read_again(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.7 pbx.example.test PBX # the old one\n::1 pbx.example.test\nnonsense here\n\n")
    names = SystemNames(servers=[("127.0.0.1", 9)], hosts=hosts)

    async def main() -> None:
        assert names.pinned("Pbx.Example.Test.") == ("192.0.2.7", "::1")
        assert await names.addresses("pbx", ANY_FAMILY) == ["192.0.2.7"]
        hosts.rename(tmp_path / "gone")
        assert names.pinned("pbx") == ()
        hosts.write_text("192.0.2.8 pbx\n")
        assert names.pinned("pbx") == ("192.0.2.8",)

    asyncio.run(main())


def test_names_that_cannot_be() -> None:
    async def main() -> None:
        async with dns_server({}) as server:
            names = names_of(server)
            for name in ("a" * 64 + ".test", "a..test", ".".join(["abcdefgh"] * 40)):
                with pytest.raises(UsageError, match="cannot be the name"):
                    await names.srv(name)

    asyncio.run(main())


def test_which_names_the_dns_can_know() -> None:
    assert is_dns_name("fritz.box")
    assert not is_dns_name("localhost.")
    assert not is_dns_name("pbx.LOCAL")


def test_a_hosts_file_of_anything_is_read() -> None:
    anything = b"\xff\xfe 1.2.3.4\n1.2.3.4\n999.1.1.1 a\n# 192.0.2.1 a\n192.0.2.1 aa b.a # a\r\n192.0.2.2\taa. a.\r\n192.0.2.3 a"
    assert addresses_in(anything, "a") == ("192.0.2.2", "192.0.2.3")
    assert addresses_in(anything, "aa") == ("192.0.2.1", "192.0.2.2")
    for nobody in ("", "1.2.3.4", "\udcff", "192.0.2.3"):
        assert addresses_in(anything, nobody) == ()


def test_a_list_of_advertisers_in_the_hosts_file_does_not_stop_the_clock() -> None:
    advertisers = b"".join(b"0.0.0.0 advertiser-%06d.example.com\n" % number for number in range(100_000))
    began_s = time.process_time()
    assert addresses_in(advertisers + b"192.0.2.7 pbx.example.net\n", "pbx.example.net") == ("192.0.2.7",)
    assert time.process_time() - began_s < 0.1
