"""What names stand for: the hosts file, the DNS, and whatever else the system asks.

Owns: look-ups with their time limits, and the memory of their answers. Refuses to know: SIP; which record is asked for when
is ``net.resolver``.

Specification: RFC 1035 for A, RFC 3596 for AAAA, RFC 2782 for SRV, RFC 3403 for NAPTR; RFC 6762 section 3 for ``.local``.

Theory of operation: a name in the hosts file is what its operator wrote there. Other names with a dot are asked of the DNS
without a thread, so that a silent name server holds up nobody. What the DNS does not know, names without a dot and names in
``.local`` are asked of the system's own resolver, on a thread that is left behind when it takes too long. Answers are
kept as long as they allow, within bounds; a failure is kept for a moment, so that it is not asked for with every call.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from aftertone.errors import EnvironmentFault, UsageError
from aftertone.sip.flow import Address

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver as DnsResolver

QUERY_S: Final = 2.5
"""For one question to the DNS, all its servers and repetitions included; many a home router never answers NAPTR."""
SYSTEM_S: Final = 5.0
"""For one question to the system's resolver."""
MAX_RECORDS: Final = 32
"""Records of one answer that are looked at; providers have a handful."""
MAX_REMEMBERED: Final = 512
"""Answers kept; beyond it the one that was used longest ago goes."""
MAX_TTL_S: Final = 3600.0
"""A record may ask for days; a provider that moves should be found again within the hour."""
SYSTEM_TTL_S: Final = 60.0
"""The system's resolver does not say how long its answers hold."""
NOTHING_TTL_S: Final = 60.0
"""For "there is no such record"."""
FAILURE_TTL_S: Final = 10.0
"""For "nobody answered"."""
MAX_THREADS: Final = 4
"""Questions to the system's resolver at once; each occupies a thread until the system gives up."""
MAX_QUERIES: Final = 16
"""Questions to the DNS at once."""
MAX_HOSTS_BYTES: Final = 4 * 2**20
"""Of a hosts file; lists against advertising are some megabytes long."""

HOSTS: Final = Path("/etc/hosts")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Naptr:
    """One NAPTR record (RFC 3403 section 4.1)."""

    order: int
    preference: int
    flags: str
    service: str
    replacement: str


@dataclass(frozen=True, slots=True)
class Srv:
    """One SRV record (RFC 2782); a target ``.`` says that the service is not offered."""

    priority: int
    weight: int
    port: int
    target: str


class Names(Protocol):
    """Look-ups. Each returns nothing when there is no such record, and raises EnvironmentFault when nobody answered."""

    def pinned(self, name: str) -> Sequence[str]:
        """Return the addresses that the operator of this machine wrote down for a name."""

    async def naptr(self, name: str) -> Sequence[Naptr]:
        """Return NAPTR records, in no order."""

    async def srv(self, name: str) -> Sequence[Srv]:
        """Return SRV records, in no order."""

    async def addresses(self, name: str, families: frozenset[socket.AddressFamily]) -> Sequence[str]:
        """Return address literals of the given families, IPv6 first."""


class SystemNames:
    """``Names`` on this machine."""

    def __init__(
        self,
        *,
        servers: Sequence[Address] = (),
        hosts: Path = HOSTS,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``servers``: name servers to ask instead of those in resolv.conf."""
        self._servers = tuple(servers)
        self._hosts_path = hosts
        self._hosts_seen: tuple[int, int] | None = None
        self._hosts = b""
        self._clock_ns = clock_ns
        self._known: OrderedDict[tuple[str, str], tuple[int, object]] = OrderedDict()
        self._turns = asyncio.Semaphore(MAX_QUERIES)
        self._threads = 0

    def pinned(self, name: str) -> Sequence[str]:
        """Return what the hosts file says; it is read again when it changes."""
        try:
            found = self._hosts_path.stat()
            seen = (found.st_mtime_ns, found.st_ino)
            if seen != self._hosts_seen:
                with self._hosts_path.open("rb") as file:
                    self._hosts = file.read(MAX_HOSTS_BYTES).lower()
                self._hosts_seen = seen
        except OSError:
            self._hosts, self._hosts_seen = b"", None
        return addresses_in(self._hosts, _plain(name))

    async def naptr(self, name: str) -> Sequence[Naptr]:
        """Ask the DNS for NAPTR records."""
        return await self._remembered(name, "NAPTR", self._ask_naptr)

    async def srv(self, name: str) -> Sequence[Srv]:
        """Ask the DNS for SRV records."""
        return await self._remembered(name, "SRV", self._ask_srv)

    async def addresses(self, name: str, families: frozenset[socket.AddressFamily]) -> Sequence[str]:
        """Return the addresses of a host, from the hosts file, the DNS or the system, in this order of trust."""
        pinned = [one for one in self.pinned(name) if _family(one) in families]
        if pinned:
            return pinned
        fault: EnvironmentFault | None = None
        if is_dns_name(name):
            kinds = [(socket.AF_INET6, "AAAA", self._ask_aaaa), (socket.AF_INET, "A", self._ask_a)]
            asked = [self._remembered(name, kind, ask) for family, kind, ask in kinds if family in families]
            found: list[str] = []
            for answer in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(answer, EnvironmentFault):
                    fault = answer
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    found.extend(answer)
            if found:
                return found
        known = await self._remembered(name, "system", self._ask_system)
        if not known and fault is not None:
            raise fault
        return [one for one in known if _family(one) in families]

    # Inside

    async def _remembered(
        self, name: str, kind: str, ask: Callable[[str], Awaitable[tuple[tuple[T, ...], float]]]
    ) -> tuple[T, ...]:
        key, now_ns = (_plain(name), kind), self._clock_ns()
        known = self._known.get(key)
        if known is not None and now_ns < known[0]:
            self._known.move_to_end(key)
            if isinstance(known[1], EnvironmentFault):
                raise EnvironmentFault(str(known[1]))
            return cast("tuple[T, ...]", known[1])
        answer: object
        try:
            answer, ttl_s = await ask(key[0])
        except EnvironmentFault as error:
            answer, ttl_s = error, FAILURE_TTL_S
        self._known.pop(key, None)
        while len(self._known) >= MAX_REMEMBERED:
            self._known.popitem(last=False)
        self._known[key] = (self._clock_ns() + int(min(ttl_s, MAX_TTL_S) * 1e9), answer)
        if isinstance(answer, EnvironmentFault):
            raise answer
        return answer

    async def _ask_naptr(self, name: str) -> tuple[tuple[Naptr, ...], float]:
        records, ttl_s = await self._query(name, "NAPTR")
        return tuple(
            Naptr(one.order, one.preference, _text(one.flags), _text(one.service), _host(one.replacement))
            for one in records
        ), ttl_s

    async def _ask_srv(self, name: str) -> tuple[tuple[Srv, ...], float]:
        records, ttl_s = await self._query(name, "SRV")
        return tuple(Srv(one.priority, one.weight, one.port, _host(one.target)) for one in records), ttl_s

    async def _ask_a(self, name: str) -> tuple[tuple[str, ...], float]:
        records, ttl_s = await self._query(name, "A")
        return tuple(str(one.address) for one in records), ttl_s

    async def _ask_aaaa(self, name: str) -> tuple[tuple[str, ...], float]:
        records, ttl_s = await self._query(name, "AAAA")
        return tuple(str(one.address) for one in records), ttl_s

    async def _query(self, name: str, kind: str) -> tuple[list[Any], float]:
        from dns.exception import DNSException, Timeout
        from dns.name import EmptyLabel, LabelTooLong, NameTooLong
        from dns.resolver import NXDOMAIN

        try:
            async with self._turns:
                answer = await self._dns().resolve(name, kind, lifetime=QUERY_S, search=False, raise_on_no_answer=False)
        except NXDOMAIN:
            return [], NOTHING_TTL_S
        except (EmptyLabel, LabelTooLong, NameTooLong):
            raise UsageError(f"{name[:64]!r} cannot be the name of a host") from None
        except Timeout:
            raise EnvironmentFault(f"no name server answered the question for {name} ({kind})") from None
        except (DNSException, OSError, EOFError) as error:
            raise EnvironmentFault(f"the name servers cannot say what {name} is ({kind}: {_first(error)})") from None
        if answer.rrset is None:
            return [], NOTHING_TTL_S
        return list(answer.rrset)[:MAX_RECORDS], float(answer.rrset.ttl)

    def _dns(self) -> DnsResolver:
        """Return a resolver that knows the resolv.conf of now: a machine moves between networks."""
        from dns.asyncresolver import Resolver
        from dns.nameserver import Do53Nameserver

        resolver = Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = [Do53Nameserver(host, port) for host, port in self._servers]
        return resolver

    async def _ask_system(self, name: str) -> tuple[tuple[str, ...], float]:
        if self._threads >= MAX_THREADS:
            raise EnvironmentFault(f"too many names are being looked up: {name} was not")
        loop = asyncio.get_running_loop()
        told: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def tell(found: tuple[str, ...]) -> None:
            self._threads -= 1
            if not told.done():
                told.set_result(found)

        def look() -> None:
            found: tuple[str, ...] = ()
            with contextlib.suppress(OSError, UnicodeError):
                answers = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
                found = tuple(dict.fromkeys(str(one[4][0]) for one in answers))[:MAX_RECORDS]
            with contextlib.suppress(RuntimeError):  # the loop may be gone by now
                loop.call_soon_threadsafe(tell, found)

        self._threads += 1
        # A daemon: the system may think for half a minute, and stopping should not wait for it.
        threading.Thread(target=look, name="look-up", daemon=True).start()
        try:
            async with asyncio.timeout(SYSTEM_S):
                found = await told
        except TimeoutError:
            raise EnvironmentFault(f"the system did not say in {SYSTEM_S:.0f} s what {name} is") from None
        return found, SYSTEM_TTL_S if found else FAILURE_TTL_S


def is_dns_name(name: str) -> bool:
    """Return whether the DNS can know a name: one with a dot, outside ``.local`` (RFC 6762)."""
    plain = _plain(name)
    return "." in plain and not plain.endswith(".local")


def addresses_in(hosts: bytes, name: str) -> tuple[str, ...]:
    """Return what a hosts file in lower case says of a name; lines that are none are skipped.

    Only lines in which the name stands are read: the whole of a long file would stop the line's clock for a second and more.
    """
    found: list[str] = []
    wanted = name.encode("utf-8", "replace")
    at = hosts.find(wanted) if wanted else -1
    while at >= 0 and len(found) < MAX_RECORDS:
        begin, end = hosts.rfind(b"\n", 0, at) + 1, hosts.find(b"\n", at)
        end = len(hosts) if end < 0 else end
        address, *names = hosts[begin:end].decode("utf-8", "replace").partition("#")[0].split() or [""]
        if name in map(_plain, names):
            with contextlib.suppress(ValueError):
                ipaddress.ip_address(address)
                found.append(address)
        at = hosts.find(wanted, end)
    return tuple(found)


def _plain(name: str) -> str:
    return name.rstrip(".").lower()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "replace")


def _host(name: object) -> str:
    return str(name).rstrip(".") or "."


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
