"""An endpoint on the loopback, what it was told, and a way to wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aftertone.net.endpoint import SipEndpoint
from aftertone.sip.events import CallId, Event
from aftertone.sip.flow import Transport
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import SDP, seeded

T = TypeVar("T")
LOCAL = "127.0.0.1"


class Party:
    """One endpoint. ``react`` is what its application does with an event."""

    def __init__(self, seed: int, **options: Any) -> None:
        self.events: list[Event] = []
        self.react: Callable[[Event], None] = lambda event: None
        self._came = asyncio.Event()
        options.setdefault("hosts", (LOCAL,))
        options.setdefault("settings", AgentSettings())
        self.endpoint = SipEndpoint(on_event=self._on_event, port=0, entropy=seeded(seed), **options)

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        self._came.set()
        self.react(event)

    async def wait_for(self, kind: type[T]) -> T:
        """Return the first event of a kind, now or when it comes."""
        async with asyncio.timeout(5):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                self._came.clear()
                await self._came.wait()


def with_parties(
    test: Callable[[Party, Party], Awaitable[None]], first: dict[str, Any] | None = None, **options: Any
) -> None:
    """Run a test with two endpoints that are stopped afterwards; ``first`` is for the one, ``options`` for the other."""

    async def main() -> None:
        one, two = Party(1, **(first or {})), Party(2, **options)
        await one.endpoint.start()
        await two.endpoint.start()
        try:
            await test(one, two)
        finally:
            await one.endpoint.stop()
            await two.endpoint.stop()

    asyncio.run(main())


def dial(
    one: Party, two: Party, transport: Transport = "UDP", *, host: str = LOCAL, uri: str = "", hostname: str = ""
) -> CallId:
    """Let one call the other."""
    port = two.endpoint.tls_port if transport == "TLS" else two.endpoint.port
    shown = f"[{host}]" if ":" in host else host
    return one.endpoint.invite(
        uri or f"sip:box@{shown}:{port}",
        from_uri=f"sip:ann@{shown}",
        body=SDP,
        content_type="application/sdp",
        flow=one.endpoint.flow_to((host, port), transport, hostname=hostname),
    )


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (nothing tells)
            await asyncio.sleep(0.001)
