"""Calls whose proxy challenges what we ask in them, on a network that loses, doubles and reorders: they end as others do.

The evenings are those of ``test_sip_calls``, with a proxy before the caller that wants a login for each BYE, UPDATE and
re-INVITE of the machine. Nonces live for a few seconds, so that some are stale when they are used.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aftertone.sip.agent import Agent
from aftertone.sip.builder import build_response, echo_of
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.digest_server import DigestServer, Verdict
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response, parse
from aftertone.sip.proof import Login
from aftertone.sip.settings import AgentSettings
from tests.simulation.test_sip_calls import Evening
from tests.unit.sip.kit import S, seeded

SEEDS = 1_200
BLOCKS = 4
PASSWORD = "sesame"
LIFE_NS = 6 * S


class Challenging(Agent):
    """A caller behind a proxy that asks who we are, and takes an answer once."""

    def __init__(self, settings: AgentSettings, entropy: Callable[[int], bytes]) -> None:
        super().__init__(settings, entropy)
        self.digest = DigestServer("home", b"k" * 16, life_ns=LIFE_NS)
        self.passed: set[str] = set()
        self.asked: set[str] = set()
        self.verdicts: set[Verdict] = set()

    def receive(self, data: bytes, flow: Flow, now_ns: int) -> None:
        message = parse(data)
        if not isinstance(message, Request) or message.method == "CANCEL":
            super().receive(data, flow, now_ns)
            return
        branch = message.via.branch
        if message.method == "ACK" and branch in self.asked:
            return
        if branch in self.passed or message.method == "ACK":
            super().receive(data, flow, now_ns)
            return
        checked = self.digest.verify(message, {"box": PASSWORD}.get, now_ns, field="proxy-authorization")
        if branch not in self.asked and checked.verdict is Verdict.OK:
            self.passed.add(branch)
            super().receive(data, flow, now_ns)
            return
        self.verdicts.add(checked.verdict)
        self.asked.add(branch)
        stale = checked.verdict is Verdict.STALE
        fields = [("Proxy-Authenticate", value) for value in self.digest.challenges(now_ns, stale=stale)]
        self._core.transmit(build_response(echo_of(message, flow), 407, fields=fields), flow)


def login(password: str) -> Login:
    """A login of an account that its registrar has challenged as the proxy does."""
    registered = DigestClient("box", password, seeded())
    asks = list(DigestServer("home", b"r" * 16).challenges(0))
    registered.challenged(Response(401, "Unauthorized", {"www-authenticate": asks}))
    return Login(registered.for_dialog, lambda flow, host: flow.remote[0] == "192.0.2.10" == host)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_challenged_calls_end_as_others_do(block: int) -> None:
    verdicts: set[Verdict] = set()
    ends: set[str] = set()
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        evening = Evening(seed, loss=(seed % 5) * 0.05, caller=Challenging, login=login(PASSWORD)).run()
        evening.check(seed)
        assert 407 not in evening.called.refused, (seed, "the right login was not enough")
        caller = evening.wire.a
        assert isinstance(caller, Challenging)
        assert Verdict.WRONG not in caller.verdicts, seed
        verdicts |= caller.verdicts
        ends |= set(evening.called.ends.values()) | evening.called.seen
    assert verdicts == {Verdict.ABSENT, Verdict.STALE}
    assert {"hung up by us", "ReofferAnswered", "SessionExpired"} <= ends


def test_a_wrong_login_is_refused_once_and_the_call_ends_all_the_same() -> None:
    refused = 0
    for seed in range(200):
        evening = Evening(seed, loss=(seed % 3) * 0.05, caller=Challenging, login=login("wrong")).run()
        assert not [
            dialog
            for dialog in evening.called.dialogs
            if dialog in evening.called.confirmed - evening.called.ends.keys()
        ]
        held = evening.called.agent.held()
        assert (held.client_transactions, held.dialogs, held.timers, held.counted_calls) == (0, 0, 0, 0), seed
        refused += evening.called.refused.count(407)
    assert refused > 20
