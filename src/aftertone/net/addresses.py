"""Which of our addresses a peer can reach.

Owns: asking the kernel for the route to a peer. Refuses to know: SIP.

Theory of operation: a UDP socket that is connected but never written to learns the local address that the kernel would
send from. The answer is remembered for half a minute, because a machine may move between networks.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Callable
from typing import Final

from aftertone.sip.flow import Address

MAX_REMEMBERED: Final = 1024
"""Peers whose route is remembered; beyond it the memory starts afresh."""
REMEMBERED_NS: Final = 30 * 1_000_000_000

WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104  (compared with, not bound)

_PRIVATE: Final = tuple(
    ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family of a literal."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@functools.lru_cache(maxsize=1024)
def is_literal(host: str) -> bool:
    """Return whether ``host`` is an address. A name given to a socket would stop the whole loop until it is looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


SocketName = tuple[str, int] | tuple[str, int, int, int]


def plain_address(name: SocketName) -> Address:
    """Return host and port of a socket name; the zone of a link-local address stays with its host."""
    if len(name) == 4 and name[3] and "%" not in name[0]:
        return f"{name[0]}%{name[3]}", name[1]
    return name[0], name[1]


@functools.lru_cache(maxsize=1024)
def is_private(host: str) -> bool:
    """Return whether an address belongs to networks that no router forwards outside: it reaches us as we are.

    Spec: RFC 1918, RFC 4193, RFC 3927, RFC 4291 section 2.5.6, and the loopback.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return (
        address.is_loopback
        or address.is_link_local
        or any(address.version == network.version and address in network for network in _PRIVATE)
    )


def local_host_towards(remote: Address) -> str:
    """Return the address that packets to ``remote`` leave from; loopback when there is no route. Sends nothing."""
    family = family_of(remote[0])
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((remote[0], remote[1] or 5060))
        except OSError:
            return "::1" if family == socket.AF_INET6 else "127.0.0.1"
        host: str = probe.getsockname()[0]
        # The zone of a link-local address means nothing to a peer.
        return host.partition("%")[0]


def has_route(host: str) -> bool:
    """Return whether the kernel knows a way to an address. Sends nothing."""
    with socket.socket(family_of(host), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 5060))
        except OSError:
            return False
        return True


class Routes:
    """Remembers ``local_host_towards`` for a while."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._known: dict[str, tuple[int, str]] = {}

    def towards(self, remote: Address) -> str:
        """Return our address as ``remote`` can reach it."""
        now_ns = self._clock_ns()
        known = self._known.get(remote[0])
        if known is not None and now_ns - known[0] < REMEMBERED_NS:
            return known[1]
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        host = local_host_towards(remote)
        self._known[remote[0]] = (now_ns, host)
        return host
