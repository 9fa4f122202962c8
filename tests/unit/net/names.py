"""Names for tests: a table instead of the DNS, and a DNS server on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from aftertone.errors import EnvironmentFault
from aftertone.net.names import Naptr, Srv
from aftertone.sip.flow import Address


class Table:
    """``Names`` out of a dictionary: ``"NAPTR example.org"`` and the like; a missing entry is no record."""

    def __init__(self, entries: dict[str, Sequence[object] | Exception]) -> None:
        self.entries = entries
        self.asked: list[str] = []

    def pinned(self, name: str) -> Sequence[str]:
        return self.entries.get(f"hosts {name}", ())  # type: ignore[return-value]

    async def naptr(self, name: str) -> Sequence[Naptr]:
        return self._find(f"NAPTR {name}")  # type: ignore[return-value]

    async def srv(self, name: str) -> Sequence[Srv]:
        return self._find(f"SRV {name}")  # type: ignore[return-value]

    async def addresses(self, name: str, families: frozenset[socket.AddressFamily]) -> Sequence[str]:
        found: Sequence[str] = self._find(name)  # type: ignore[assignment]
        return [one for one in found if (socket.AF_INET6 if ":" in one else socket.AF_INET) in families]

    def _find(self, key: str) -> Sequence[object]:
        self.asked.append(key)
        entry = self.entries.get(key, ())
        if isinstance(entry, Exception):
            raise entry
        return entry


SILENT = EnvironmentFault("no name server answered")


class DnsServer(asyncio.DatagramProtocol):
    """Answers from a zone: name and type to records; ``None`` as the records says nothing at all, an int is an rcode."""

    def __init__(self, zone: dict[tuple[str, str], list[str] | int | None], ttl_s: int = 300) -> None:
        self.zone = zone
        self.ttl_s = ttl_s
        self.asked: Counter[tuple[str, str]] = Counter()
        self.address: Address = ("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.address = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: Address) -> None:
        question = dns.message.from_wire(data)
        asked = question.question[0]
        key = (str(asked.name).rstrip("."), asked.rdtype.name)
        self.asked[key] += 1
        records = self.zone.get(key, [] if any(name == key[0] for name, _ in self.zone) else int(dns.rcode.NXDOMAIN))
        if records is None:
            return
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        if isinstance(records, int):
            answer.set_rcode(dns.rcode.Rcode(records))
        elif records:
            answer.answer.append(dns.rrset.from_text(asked.name, self.ttl_s, asked.rdclass, asked.rdtype, *records))
        self.transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def dns_server(zone: dict[tuple[str, str], list[str] | int | None], ttl_s: int = 300) -> AsyncIterator[DnsServer]:
    """Run a ``DnsServer`` on the loopback."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: DnsServer(zone, ttl_s), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
