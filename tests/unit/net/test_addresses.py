"""aftertone.net.addresses: which of our addresses a peer can reach."""

from __future__ import annotations

import socket

import pytest

from aftertone.net import addresses
from aftertone.net.addresses import MAX_REMEMBERED, REMEMBERED_NS, Routes, family_of, is_literal, local_host_towards


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
