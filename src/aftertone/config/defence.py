"""Settings of what one source may ask of the line, and of what is kept of its signalling.

Owns: the sections ``[defence]`` and ``[trace]``. Refuses to know: how a budget works (``sip.budgets``), how a trace is kept.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aftertone.config.section import Section


class Defence(Section):
    """What one source, an IPv4 address or an IPv6 network of /64, may ask of the line."""

    messages_a_second: Annotated[int, Field(ge=10, le=1_000_000)] = Field(
        default=200,
        description="SIP messages a second, and five times as many at once; more are dropped unread. A call takes about five.",
    )
    calls_a_second: Annotated[float, Field(gt=0, le=100_000)] = Field(
        default=10.0,
        description="New calls a second, and ten times as many at once; more are answered 503, and twice as many not at all.",
    )
    calls_at_once: Annotated[int, Field(ge=1, le=20_000)] = Field(
        default=200, description="Calls at the same time; more are answered 503."
    )
    unanswered_calls: Annotated[int, Field(ge=1, le=20_000)] = Field(
        default=50,
        description="Calls at the same time that ring, or that the caller's side has not confirmed; more are answered 503.",
    )
    registrations_a_minute: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=600, description="Registrations and subscriptions a minute; more are answered 503."
    )
    failures: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=30, description="Wrong passwords within a minute, after which the source gets no answer for a while."
    )
    user_failures: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=20,
        description="Wrong passwords for one user within a minute, from all places together where he has not logged in lately; "
        "more are not looked at.",
    )
    silence_s: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=300.0,
        description="How long it gets none, in seconds. One that is known is answered again after ten seconds at the latest.",
    )
    known_factor: Annotated[float, Field(ge=1, le=1000)] = Field(
        default=10.0, description="How many times as much those may who are known: accounts, trunks, registered phones."
    )
    connections: Annotated[int, Field(ge=4, le=100_000)] = Field(
        default=1000,
        description="Connections (TCP and TLS) that peers may have open, of all sources together; more are closed at once.",
    )
    connections_from_one: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=64,
        description="Connections that one source may have open; ten times as many when it is known, up to half of all.",
    )
    first_message_s: Annotated[float, Field(ge=0.5, le=300)] = Field(
        default=10.0, description="How long a connection has until its first message is there, in seconds."
    )
    idle_s: Annotated[float, Field(ge=5, le=86_400)] = Field(
        default=120.0,
        description="How long a connection may say nothing when no call or registration lives on it, in seconds.",
    )
    transactions: Annotated[int, Field(ge=1000, le=10_000_000)] = Field(
        default=100_000,
        description="Requests that are remembered, of all sources together; strangers may fill half. Over UDP each is remembered for "
        "half a minute, in 2 to 3 KiB. Beyond it new calls are answered 503.",
    )


class Trace(Section):
    """Signalling that is kept, so that somebody can see what a phone or provider said."""

    keep: bool = Field(
        default=True, description="Keep the signalling of a call with its message, without passwords and keys."
    )
    keep_kb: Annotated[int, Field(ge=4, le=512)] = Field(
        default=64, description="Most that is kept of one call, in kilobytes; beyond it the middle is left out."
    )
