"""Phones that we call, played by sipp: a confirmed ring, a session interval, a change, busy, no answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from aftertone.net.endpoint import SipEndpoint
from aftertone.sdp import negotiation
from aftertone.sip import events as sip
from aftertone.sip.settings import AgentSettings
from tests.support.machine import free_port
from tests.support.sipp import start_phone

WITHIN_S: Final = 15
SDP_TYPE: Final = "application/sdp"


class Caller:
    """Our side of one call: what it is told, and what it does about it."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario
        self.heard: list[sip.Event] = []
        self.over = asyncio.Event()
        self.endpoint = SipEndpoint(AgentSettings(), self.on_event, hosts=("127.0.0.1",), port=0)
        self.call: sip.CallId | None = None

    def offer(self, version: int = 1) -> bytes:
        return negotiation.offer(local_host="127.0.0.1", local_port=40_000, session_id=1, version=version)

    async def run(self, port: int) -> None:
        await self.endpoint.start()
        try:
            self.call = self.endpoint.invite(
                f"sip:phone@127.0.0.1:{port}",
                from_uri="sip:us@127.0.0.1",
                body=self.offer(),
                content_type=SDP_TYPE,
                flow=self.endpoint.flow_to(("127.0.0.1", port)),
            )
            async with asyncio.timeout(WITHIN_S):
                await self.over.wait()
        finally:
            await self.endpoint.stop()

    def on_event(self, event: sip.Event) -> None:
        self.heard.append(event)
        match event:
            case sip.CallProgress() if self.scenario == "phone_is_not_answered" and self.call is not None:
                self.endpoint.cancel(self.call)
            case sip.CallAnswered(_, dialog, _):
                self.endpoint.reoffer(dialog, self.offer(2), SDP_TYPE)
            case sip.ReofferAnswered(dialog, _, _):
                self.endpoint.bye(dialog)
            case sip.CallFailed() | sip.ByeFinished():
                self.over.set()


@pytest.mark.parametrize(
    ("scenario", "told"),
    [
        ("phone_rings_reliably", ["CallProgress", "CallAnswered", "ReofferAnswered", "ByeFinished"]),
        ("phone_is_busy", ["CallProgress", "CallFailed"]),
        ("phone_is_not_answered", ["CallProgress", "CallFailed"]),
    ],
)
def test_a_phone_that_we_call(tmp_path: Path, scenario: str, told: list[str]) -> None:
    """The scenario itself checks what it is sent."""
    port = free_port()
    phone = start_phone(tmp_path, scenario, port)

    async def call() -> Caller:
        caller = Caller(scenario)
        await caller.run(port)
        return caller

    caller = asyncio.run(call())
    phone.finish()
    assert [type(event).__name__ for event in caller.heard] == told
    held = caller.endpoint.agent.held()
    assert (held.dialogs, held.calls_placed) in ((0, 0), (0, 1)), "the INVITE may still wait for copies of its answer"
