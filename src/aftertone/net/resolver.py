"""Where a SIP URI leads: transports, addresses and ports, the best first.

Owns: the order in which records are asked for and servers are tried. Refuses to know: how a name is looked up
(``net.names``), sockets, and what is sent.

Specification: RFC 3263 sections 4.1 and 4.2, RFC 2782 for priority and weight, RFC 5922 section 4 for the name that a server
must prove: the one in the URI, whatever the DNS made of it.

Theory of operation: an address literal and a port that is given need no DNS beyond the address. Otherwise NAPTR says which
transports there are, SRV which hosts and ports, A and AAAA which addresses; a step that finds nothing, or that no name
server answers, falls back to the next. The result is a list to be tried from its beginning.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from aftertone.errors import EnvironmentFault, UsageError
from aftertone.net.addresses import family_of, has_route, is_literal
from aftertone.net.names import Names, Naptr, Srv, SystemNames, is_dns_name
from aftertone.sip.flow import Address, Transport
from aftertone.sip.uri import Uri

RESOLVE_S: Final = 15.0
"""For the whole of it; each question has its own limit inside."""
MAX_TARGETS: Final = 16
"""Servers that are worth trying for one request."""
MAX_HOSTS: Final = 8
"""Hosts of SRV records whose addresses are looked up."""

ANY_FAMILY: Final = frozenset((socket.AF_INET, socket.AF_INET6))
PORTS: Final[dict[Transport, int]] = {"UDP": 5060, "TCP": 5060, "TLS": 5061}
_SERVICES: Final[dict[str, Transport]] = {"sip+d2u": "UDP", "sip+d2t": "TCP", "sips+d2t": "TLS"}
"""NAPTR services that we speak (RFC 3263 section 4.1)."""
_SRV: Final[dict[Transport, str]] = {"UDP": "_sip._udp", "TCP": "_sip._tcp", "TLS": "_sips._tcp"}

_PREFERRED: Final[tuple[Transport, ...]] = ("UDP", "TCP", "TLS")
"""Without NAPTR the choice is ours (RFC 3263 section 4.1)."""
_SECURE: Final[tuple[Transport, ...]] = ("TLS",)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Target:
    """One server to try."""

    transport: Transport
    host: str
    """An address literal without brackets."""
    port: int
    hostname: str
    """The host of the URI, a name or a literal: what a certificate must stand for."""
    either: bool = False
    """UDP, and nothing asked for it, so that a large request may go by TCP (RFC 3261 section 18.1.1)."""

    @property
    def address(self) -> Address:
        """Return host and port as sockets take them."""
        return self.host, self.port


@dataclass(frozen=True, slots=True)
class _Place:
    """A host and port before its addresses are known."""

    transport: Transport
    host: str
    port: int


class Resolver:
    """Finds servers. Its memory is that of its ``names``; everything runs on the event loop's thread."""

    def __init__(
        self,
        names: Names | None = None,
        *,
        families: Iterable[socket.AddressFamily] = ANY_FAMILY,
        entropy: Callable[[int], bytes] = os.urandom,
        reachable: Callable[[str], bool] = has_route,
    ) -> None:
        """``families``: those that we listen on, so that an answer can reach us. ``entropy`` chooses among equal servers.

        ``reachable`` says whether there is a route to an address at all; those without one are tried last.
        """
        self._names = names if names is not None else SystemNames()
        self._families = frozenset(families)
        self._entropy = entropy
        self._reachable = reachable

    async def resolve(self, uri: Uri, transport: str | None = None) -> Sequence[Target]:
        """Return where to send a request for ``uri``: at least one target, at most ``MAX_TARGETS``, the best first.

        ``transport`` (udp, tcp, tls) is for a user who chose; it counts before the URI's parameter. Raises UsageError for
        a URI that leads nowhere by its form, and EnvironmentFault for a name without an address that we can reach or
        when it takes longer than ``RESOLVE_S``. Spec: RFC 3263 section 4.
        """
        if uri.scheme == "tel":
            raise UsageError("a tel URI names no host: it needs a server")
        wanted = _wanted(uri, transport)
        host = (uri.params.get("maddr") or uri.host).strip("[]")
        hostname = uri.host.strip("[]")
        if is_literal(host):
            return [self._literal(host, uri, wanted, hostname)]
        try:
            async with asyncio.timeout(RESOLVE_S):
                places = await self._places(host, uri, wanted)
                found = await self._addresses(places)
        except TimeoutError:
            raise EnvironmentFault(f"the address of {host} was not found in {RESOLVE_S:.0f} s: check the DNS") from None
        found.sort(key=lambda place: not self._reachable(place.host))
        either = wanted is None
        return [
            Target(one.transport, one.host, one.port, hostname, either=either and one.transport == "UDP")
            for one in found[:MAX_TARGETS]
        ]

    def _literal(self, host: str, uri: Uri, wanted: Transport | None, hostname: str) -> Target:
        if family_of(host) not in self._families:
            raise EnvironmentFault(f"{host} cannot be reached: we do not listen on its kind of address (`sip.host`)")
        transport = wanted or _plainest(uri)
        port = PORTS[transport] if uri.port is None else uri.port
        return Target(transport, host, port, hostname, either=wanted is None and transport == "UDP")

    async def _places(self, host: str, uri: Uri, wanted: Transport | None) -> list[_Place]:
        """Return hosts and ports in the order of trying."""
        transport = wanted or _plainest(uri)
        if uri.port is not None:
            return [_Place(transport, host, uri.port)]
        plain = [_Place(transport, host, PORTS[transport])]
        if not is_dns_name(host) or self._names.pinned(host):
            return plain
        if wanted is not None:
            services: list[tuple[Transport, str]] = [(wanted, f"{_SRV[wanted]}.{host}")]
        else:
            secure = uri.scheme == "sips"
            services = _services(await _or_nothing(self._names.naptr(host)), secure=secure)
            if not services:
                services = [(one, f"{_SRV[one]}.{host}") for one in (_SECURE if secure else _PREFERRED)]
        answers = await asyncio.gather(*(_or_nothing(self._names.srv(name)) for _, name in services))
        if any(answers) and not any(_offered(records) for records in answers):
            raise EnvironmentFault(f"{host} says in the DNS that it does not offer SIP this way")
        return [
            _Place(one, record.target, record.port)
            for (one, _), records in zip(services, answers, strict=True)
            for record in self._chosen(_offered(records))
        ] or plain

    async def _addresses(self, places: list[_Place]) -> list[_Place]:
        """Return the places with an address for a host, one for each address. Raises EnvironmentFault when there is none."""
        names = list(dict.fromkeys(place.host for place in places))[:MAX_HOSTS]
        answers = await asyncio.gather(*(self._look_up(name) for name in names), return_exceptions=True)
        known: dict[str, Sequence[str]] = {}
        fault: Exception | None = None
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, EnvironmentFault | UsageError):
                fault = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                known[name] = answer
        found = [
            _Place(place.transport, address, place.port) for place in places for address in known.get(place.host, ())
        ]
        if not found and fault is not None:
            raise fault
        if not found:
            raise EnvironmentFault(f"{places[0].host} has no address that we can reach: check the name and `sip.host`")
        return found

    async def _look_up(self, name: str) -> Sequence[str]:
        if is_literal(name):
            return [name] if family_of(name) in self._families else []
        return await self._names.addresses(name, self._families)

    def _chosen(self, records: Iterable[Srv]) -> list[Srv]:
        """Return records by priority; among equals at random in proportion to their weight (RFC 2782)."""
        ordered: list[Srv] = []
        waiting = sorted(records, key=lambda one: (one.priority, one.weight))
        while waiting:
            equals = [one for one in waiting if one.priority == waiting[0].priority]
            mark = int.from_bytes(self._entropy(4), "big") % (sum(one.weight for one in equals) + 1)
            running = 0
            for one in equals:
                running += one.weight
                if running >= mark:
                    break
            waiting.remove(one)
            ordered.append(one)
        return ordered


def _wanted(uri: Uri, transport: str | None) -> Transport | None:
    """Return the transport that was asked for, or None (RFC 3263 section 4.1, RFC 3261 section 26.2.2 for sips)."""
    named = (transport or uri.params.get("transport") or "").upper()
    if named not in ("", "UDP", "TCP", "TLS"):
        raise UsageError(f"the transport {named[:16].lower()} is none of udp, tcp and tls")
    if uri.scheme == "sips":
        if named == "UDP":
            raise UsageError("a sips URI cannot be reached over udp: leave the transport out, or say tls")
        return "TLS" if named else None
    return named or None  # type: ignore[return-value]


def _plainest(uri: Uri) -> Transport:
    return "TLS" if uri.scheme == "sips" else "UDP"


def _services(records: Iterable[Naptr], *, secure: bool) -> list[tuple[Transport, str]]:
    """Return transports and SRV names of NAPTR records, in their order, without what we do not speak."""
    found: list[tuple[Transport, str]] = []
    for one in sorted(records, key=lambda record: (record.order, record.preference)):
        transport = _SERVICES.get(one.service.lower())
        if transport is None or one.flags.lower() != "s" or one.replacement == "." or (secure and transport != "TLS"):
            continue
        found.append((transport, one.replacement))
    return list(dict.fromkeys(found))[:MAX_HOSTS]


def _offered(records: Iterable[Srv]) -> list[Srv]:
    return [one for one in records if one.target != "." and 0 < one.port < 65_536]


async def _or_nothing(asked: Awaitable[Sequence[R]]) -> Sequence[R]:
    """Await an answer that the next step can do without: many name servers at home fail on what is not an address."""
    try:
        return await asked
    except EnvironmentFault:
        return ()
