"""Where bytes come from and go to.

Owns: the name of a path between two addresses. Refuses to know: the socket behind it; the shell keeps that, keyed by the
flow for connections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Address = tuple[str, int]
"""Host (an address literal without brackets) and port."""

Transport = Literal["UDP", "TCP", "TLS"]


@dataclass(frozen=True, slots=True)
class Flow:
    """One path: the peer's address, and the address of ours that the peer can reach (it goes into Via and Contact)."""

    transport: Transport
    remote: Address
    local: Address
    hostname: str = ""
    """Over TLS: what the certificate of the peer must stand for, when we open the connection; empty means its address."""
    either: bool = field(default=False, compare=False)
    """UDP only because nothing said otherwise: what is too large for a datagram may go by TCP (RFC 3261 section 18.1.1)."""

    @property
    def reliable(self) -> bool:
        """True when the transport resends by itself, so that the transaction timers need not."""
        return self.transport != "UDP"

    def is_as_good_as(self, other: Flow) -> bool:
        """Return whether it leads to the host of ``other``, and is encrypted if that is."""
        return self.remote[0] == other.remote[0] and (self.transport == "TLS" or other.transport != "TLS")


def bracketed(host: str) -> str:
    """Return ``host`` as it stands in a URI or Via: an IPv6 literal gets its brackets (RFC 3261 section 25.1)."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
