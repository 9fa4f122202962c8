"""aftertone.net.addresses: which of our addresses a peer can reach."""

from __future__ import annotations

import socket

import pytest

from aftertone.net import addresses
from aftertone.net.addresses import (
    MAX_REMEMBERED,
    REMEMBERED_NS,
    Routes,
    family_of,
    has_route,
    is_literal,
    is_private,
    local_host_towards,
    plain_address,
)


def test_the_loopback_is_reached_from_the_loopback() -> None:
    assert local_host_towards(("127.0.0.1", 5060)) == "127.0.0.1"
    assert local_host_towards(("127.0.0.1", 0)) == "127.0.0.1"


def test_without_a_route_there_is_still_an_answer() -> None:
    assert local_host_towards(("255.255.255.255", 5060)) == "127.0.0.1"
    assert local_host_towards(("ff0e::1%nowhere", 5060)) == "::1"


def test_families() -> None:
    assert family_of("192.0.2.1") == socket.AF_INET
    assert family_of("::") == socket.AF_INET6


def test_literals() -> None:
    assert is_literal("192.0.2.1")
    assert is_literal("fe80::1%eth0")
    assert not is_literal("localhost")


def test_routes_are_remembered_for_a_while_and_not_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    clock = iter([0, 0, REMEMBERED_NS])

    def probe(remote: tuple[str, int]) -> str:
        asked.append(remote[0])
        return f"from {remote[0]}"

    monkeypatch.setattr(addresses, "local_host_towards", probe)
    routes = Routes(lambda: next(clock, 10 * REMEMBERED_NS))
    assert routes.towards(("a", 1)) == routes.towards(("a", 2)) == "from a"
    assert asked == ["a"]
    routes.towards(("a", 1))
    assert asked == ["a", "a"]
    for number in range(3 * MAX_REMEMBERED):
        routes.towards((str(number), 1))
    assert len(routes._known) <= MAX_REMEMBERED


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("10.1.2.3", True),
        ("172.31.0.1", True),
        ("172.32.0.1", False),
        ("192.168.178.20", True),
        ("::ffff:192.168.1.1", True),
        ("127.0.0.1", True),
        ("169.254.3.4", True),
        ("fe80::1%eth0", True),
        ("fd12::1", True),
        ("::1", True),
        ("100.64.0.1", False),
        ("198.51.100.7", False),
        ("2a00:1450::1", False),
    ],
)
def test_which_addresses_are_on_this_side_of_a_router(host: str, private: bool) -> None:
    assert is_private(host) is private


def test_a_zone_stays_with_the_peer_and_is_told_to_nobody() -> None:
    assert plain_address(("fe80::1", 5060, 0, 3)) == ("fe80::1%3", 5060)
    assert plain_address(("fe80::1%eth0", 5060, 0, 3)) == ("fe80::1%eth0", 5060)
    assert plain_address(("192.0.2.1", 5060)) == ("192.0.2.1", 5060)


def test_routes() -> None:
    assert has_route("127.0.0.1")
    assert not has_route("ff0e::1%nowhere")
