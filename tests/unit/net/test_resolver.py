"""aftertone.net.resolver: RFC 3263, over a table of records."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.errors import EnvironmentFault, UsageError
from aftertone.net import resolver as module
from aftertone.net.names import Naptr, Srv
from aftertone.net.resolver import ANY_FAMILY, MAX_TARGETS, Resolver, Target
from aftertone.sip.uri import parse_uri
from tests.unit.net.names import SILENT, Table
from tests.unit.sip.kit import seeded

V4, V6 = "192.0.2.10", "2001:db8::10"


def found(
    uri: str,
    entries: dict[str, Sequence[object] | Exception] | Table,
    transport: str | None = None,
    *,
    families: Iterable[socket.AddressFamily] = ANY_FAMILY,
    seed: int = 1,
    unreachable: Sequence[str] = (),
) -> Sequence[Target]:
    names = entries if isinstance(entries, Table) else Table(entries)
    resolver = Resolver(names, families=families, entropy=seeded(seed), reachable=lambda host: host not in unreachable)
    return asyncio.run(resolver.resolve(parse_uri(uri), transport))


def brief(targets: Sequence[Target]) -> list[tuple[str, str, int]]:
    return [(one.transport, one.host, one.port) for one in targets]


@pytest.mark.parametrize(
    ("uri", "transport", "expected"),
    [
        ("sip:box@192.0.2.1", None, ("UDP", "192.0.2.1", 5060)),
        ("sip:box@192.0.2.1:5070", None, ("UDP", "192.0.2.1", 5070)),
        ("sip:[2001:db8::1]:5070", None, ("UDP", "2001:db8::1", 5070)),
        ("sip:box@192.0.2.1;transport=tcp", None, ("TCP", "192.0.2.1", 5060)),
        ("sip:box@192.0.2.1;transport=tls", None, ("TLS", "192.0.2.1", 5061)),
        ("sip:box@192.0.2.1;transport=udp", "tcp", ("TCP", "192.0.2.1", 5060)),
        ("sips:box@192.0.2.1", None, ("TLS", "192.0.2.1", 5061)),
        ("sips:box@192.0.2.1;transport=tcp", None, ("TLS", "192.0.2.1", 5061)),
        ("sip:box@pbx.example.org;maddr=192.0.2.9", None, ("UDP", "192.0.2.9", 5060)),
    ],
)
def test_an_address_needs_no_look_up(uri: str, transport: str | None, expected: tuple[str, str, int]) -> None:
    table = Table({})
    assert brief(found(uri, table, transport)) == [expected]
    assert table.asked == []


def test_the_whole_chain() -> None:
    table: dict[str, Sequence[object] | Exception] = {
        "NAPTR example.org": [
            Naptr(50, 50, "s", "SIP+D2T", "_sip._tcp.example.org"),
            Naptr(10, 50, "s", "SIPS+D2T", "_sips._tcp.example.org"),
            Naptr(90, 50, "s", "SIP+D2U", "_sip._udp.example.org"),
            Naptr(1, 1, "s", "SIP+D2S", "_sip._sctp.example.org"),
            Naptr(1, 2, "u", "E2U+sip", "."),
        ],
        "SRV _sips._tcp.example.org": [Srv(1, 1, 5061, "one.example.org"), Srv(2, 1, 5071, "two.example.org")],
        "SRV _sip._tcp.example.org": [Srv(1, 1, 5060, "one.example.org")],
        "SRV _sip._udp.example.org": [Srv(1, 1, 5060, "one.example.org")],
        "one.example.org": [V6, V4],
        "two.example.org": ["192.0.2.20"],
    }
    assert brief(found("sip:box@example.org", table)) == [
        ("TLS", V6, 5061),
        ("TLS", V4, 5061),
        ("TLS", "192.0.2.20", 5071),
        ("TCP", V6, 5060),
        ("TCP", V4, 5060),
        ("UDP", V6, 5060),
        ("UDP", V4, 5060),
    ]
    assert {one.hostname for one in found("sip:box@example.org", table)} == {"example.org"}
    assert brief(found("sips:box@example.org", table, families=[socket.AF_INET])) == [
        ("TLS", V4, 5061),
        ("TLS", "192.0.2.20", 5071),
    ]
    assert brief(found("sip:box@example.org", table, "tcp", families=[socket.AF_INET])) == [("TCP", V4, 5060)]


def test_a_port_that_is_given_skips_everything_but_the_address() -> None:
    table = Table({"example.org": [V4]})
    assert brief(found("sip:example.org:5080;transport=tcp", table)) == [("TCP", V4, 5080)]
    assert table.asked == ["example.org"]


def test_without_naptr_the_services_are_tried() -> None:
    table = Table({"SRV _sip._tcp.example.org": [Srv(0, 0, 5062, "one.example.org")], "one.example.org": [V4]})
    assert brief(found("sip:example.org", table)) == [("TCP", V4, 5062)]


@pytest.mark.parametrize("failing", [{}, {"NAPTR example.org": SILENT, "SRV _sip._udp.example.org": SILENT}])
def test_without_service_records_the_name_itself_is_the_host(failing: dict[str, Exception]) -> None:
    table: dict[str, Sequence[object] | Exception] = {"example.org": [V4], **failing}
    assert brief(found("sip:example.org", table)) == [("UDP", V4, 5060)]
    assert brief(found("sips:example.org", table)) == [("TLS", V4, 5061)]
    assert brief(found("sip:example.org", table, "tls")) == [("TLS", V4, 5061)]


@pytest.mark.parametrize("host", ["localhost", "fritzbox", "pbx.local"])
def test_local_names_are_not_asked_of_the_dns_for_services(host: str) -> None:
    table = Table({host: [V4]})
    assert brief(found(f"sip:box@{host}", table)) == [("UDP", V4, 5060)]
    assert table.asked == [host]


def test_the_hosts_file_overrides_service_records() -> None:
    table = Table({"hosts pbx.example.org": [V4], "pbx.example.org": [V4]})
    assert brief(found("sip:box@pbx.example.org", table)) == [("UDP", V4, 5060)]
    assert table.asked == ["pbx.example.org"]


def test_one_host_without_an_address_does_not_spoil_the_others() -> None:
    table: dict[str, Sequence[object] | Exception] = {
        "SRV _sip._udp.example.org": [Srv(1, 0, 5060, "gone.example.org"), Srv(2, 0, 5060, "there.example.org")],
        "gone.example.org": SILENT,
        "there.example.org": [V4],
    }
    assert brief(found("sip:example.org", table)) == [("UDP", V4, 5060)]


def test_addresses_without_a_route_are_tried_last() -> None:
    table: dict[str, Sequence[object] | Exception] = {"example.org": [V6, V4]}
    assert [one.host for one in found("sip:example.org", table)] == [V6, V4]
    assert [one.host for one in found("sip:example.org", table, unreachable=[V6])] == [V4, V6]


@pytest.mark.parametrize(
    ("uri", "transport", "message"),
    [
        ("tel:+4930123456", None, "no host"),
        ("sip:example.org;transport=sctp", None, "none of udp"),
        ("sip:example.org", "ws", "none of udp"),
        ("sips:example.org;transport=udp", None, "over udp"),
    ],
)
def test_a_uri_that_leads_nowhere_by_its_form(uri: str, transport: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        found(uri, {}, transport)


def test_what_cannot_be_reached_is_said() -> None:
    with pytest.raises(EnvironmentFault, match="do not listen"):
        found("sip:[2001:db8::1]", {}, families=[socket.AF_INET])
    with pytest.raises(EnvironmentFault, match="has no address"):
        found("sip:example.org", {"example.org": [V6]}, families=[socket.AF_INET])
    with pytest.raises(EnvironmentFault, match="no name server answered"):
        found("sip:example.org", {"example.org": SILENT})
    with pytest.raises(EnvironmentFault, match="does not offer SIP"):
        found("sip:example.org", {"SRV _sip._udp.example.org": [Srv(0, 0, 0, ".")], "example.org": [V4]}, "udp")


def test_a_name_server_that_never_answers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(Table):
        async def naptr(self, name: str) -> Sequence[Naptr]:
            await asyncio.Event().wait()
            return ()

    monkeypatch.setattr(module, "RESOLVE_S", 0.02)
    with pytest.raises(EnvironmentFault, match="was not found in"):
        found("sip:example.org", Never({}))


def test_weights_share_the_calls() -> None:
    records = [
        Srv(1, 75, 1, "heavy.example.org"),
        Srv(1, 25, 1, "light.example.org"),
        Srv(0, 0, 1, "first.example.org"),
    ]
    table: dict[str, Sequence[object] | Exception] = {
        "SRV _sip._udp.example.org": records,
        "heavy.example.org": ["192.0.2.75"],
        "light.example.org": ["192.0.2.25"],
        "first.example.org": ["192.0.2.1"],
    }
    seconds: Counter[str] = Counter()
    for seed in range(300):
        hosts = [one.host for one in found("sip:example.org", table, "udp", seed=seed)]
        assert hosts[0] == "192.0.2.1"
        seconds[hosts[1]] += 1
    assert 190 < seconds["192.0.2.75"] < 260


@given(
    records=st.lists(
        st.builds(Srv, st.integers(0, 3), st.integers(0, 65_535), st.integers(0, 65_535), st.just("h.example.org")),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 2**16),
)
def test_any_records_keep_their_priorities_and_the_bound(records: list[Srv], seed: int) -> None:
    table: dict[str, Sequence[object] | Exception] = {
        "SRV _sip._udp.example.org": records,
        "h.example.org": [V4],
    }
    try:
        targets = found("sip:example.org", table, "udp", seed=seed)
    except EnvironmentFault:
        assert not any(one.port for one in records)
        return
    priority = {one.port: one.priority for one in records}
    assert 1 <= len(targets) <= MAX_TARGETS
    if len({one.port for one in records}) == len(records):
        order = [priority[one.port] for one in targets]
        assert order == sorted(order)
