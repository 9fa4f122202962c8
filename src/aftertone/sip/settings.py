"""What an agent is told when it is made: times, limits, capabilities.

Owns: the values and the reason for each default. Refuses to know: where an operator writes them down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Timing:
    """The base values that every timer of RFC 3261 is made of (table 4 in its appendix A), and two limits of ours."""

    t1_ns: int = 500 * MILLISECOND_NS
    """A guess at the round trip; resending starts with it and everything gives up after 64 of it."""
    t2_ns: int = 4 * SECOND_NS
    """The longest pause between two resendings."""
    t4_ns: int = 5 * SECOND_NS
    """How long the network may keep a message."""
    ring_limit_ns: int = 240 * SECOND_NS
    """How long an INVITE may ring without a final answer; a little more than the timer C of proxies (three minutes)."""
    remind_ns: int = 60 * SECOND_NS
    """How often an INVITE that rings is answered again, so that no proxy on the way takes it for dead (section 13.3.1.1)."""

    @property
    def give_up_ns(self) -> int:
        """Return 64*T1, the value of timers B, D, F, H, J, L and M."""
        return 64 * self.t1_ns


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How one user agent behaves."""

    user_agent: str = "Aftertone"
    """Goes into Server and User-Agent; empty sends neither."""
    user: str = ""
    """User part of our Contact; empty takes that of the Request-URI."""
    allow: tuple[str, ...] = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO", "PRACK", "UPDATE")
    accept: tuple[str, ...] = ("application/sdp",)
    """Bodies that an INVITE or UPDATE may bring, the first of them the one that we write ourselves."""
    supported: tuple[str, ...] = ("100rel", "timer")
    """Option tags that a peer may require."""
    allow_events: tuple[str, ...] = ()
    """Event packages; a SUBSCRIBE or NOTIFY for any other gets 489."""
    timing: Timing = field(default_factory=Timing)
    session_expires_s: int = 1800
    """How long a session may go without a refresh (RFC 4028); 0 asks for none, and keeps to what a peer asks for."""
    min_se_s: int = 90
    """The shortest such interval that a peer may ask for; no RFC lets it be shorter."""
    max_transactions: int = 100_000
    """Beyond it new calls get 503; requests inside calls may use as many again, so that calls can end under load. Over UDP each is
    remembered for half a minute, in 2 to 3 KiB: so many are 1,500 calls a second that last, in some 250 MB."""
    max_dialogs: int = 5_000
    """Beyond it new calls get 503."""
    max_subscriptions: int = 2_000
    """Beyond it a new SUBSCRIBE gets 503: more phones than one machine's mailboxes have."""
    max_subscriptions_per_source: int = 500
    """The same for one address, which may be a PBX with all its phones."""
    retry_after_s: int = 5
    """What a 503 asks for."""
    refuse_spent_hops: bool = True
    """Answer 483 to a request whose Max-Forwards came down to 0, although nobody would have to forward it further."""
    ignore_scanners: bool = False
    """Give known scanners no answer at all; see `scanners`."""
    answer_to_sent_by: bool = False
    """Send answers to the port that Via names when the peer did not ask for rport (RFC 3261 section 18.2.2), for old
    phones that listen elsewhere than they send from. The default answers the very address that the request came from,
    as if rport had been asked for: it works through NATs and cannot be aimed at anybody else."""
