"""aftertone.roles.accounts and enrolment: several numbers at several servers, on real sockets of the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog

import aftertone.roles.enrolment as module
from aftertone.config import Sip
from aftertone.errors import EnvironmentFault
from aftertone.net.endpoint import SipEndpoint
from aftertone.net.resolver import Target
from aftertone.roles.accounts import Accounts
from aftertone.roles.enrolment import registrant_of, server_uri
from aftertone.roles.identity import Identity
from aftertone.sip.events import Event
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow, Transport
from aftertone.sip.message import Request, Response, parse
from aftertone.sip.settings import AgentSettings, Timing
from aftertone.sip.uri import Uri
from tests.unit.roles.registrar import LOCAL, Registrar
from tests.unit.sip.kit import MS, request

IDENTITY = Identity(UUID(int=1), b"s" * 16)
Logs = list[Any]


def one(name: str = "home", **more: object) -> dict[str, object]:
    return {"name": name, "registrar": "home.example", "user": "ann", "secret": "sesame", "retry_s": 1, **more}


class World:
    """Accounts on a real endpoint, and a resolver that says what the test says."""

    def __init__(self, *accounts: dict[str, object], **sip: object) -> None:
        self.targets: list[Target] | Exception = []
        self.resolved = 0
        self.events: list[Event] = []
        # Silence is told within a third of a second.
        timing = Timing(t1_ns=5 * MS, t2_ns=40 * MS)
        self.endpoint = SipEndpoint(AgentSettings(timing=timing), self._on_sip, hosts=(LOCAL,), port=0)
        settings = Sip.model_validate({"accounts": accounts, **sip})
        self.accounts = Accounts(settings, self.endpoint, self._resolve, IDENTITY, logger=structlog.get_logger())

    def _on_sip(self, event: Event) -> None:
        if not self.accounts.on_sip(event):
            self.events.append(event)

    async def _resolve(self, uri: Uri, transport: str | None) -> Sequence[Target]:
        self.resolved += 1
        if isinstance(self.targets, Exception):
            raise self.targets
        return self.targets

    def standing(self, index: int = 0) -> dict[str, object]:
        return self.accounts.standing()[index]

    async def until(self, state: str, index: int = 0) -> dict[str, object]:
        """Wait for a state of an account."""
        async with asyncio.timeout(10):
            while self.standing(index)["state"] != state:  # noqa: ASYNC110 - a state has no event
                await asyncio.sleep(0.005)
        return self.standing(index)


def target(registrar: Registrar, transport: Transport = "UDP") -> Target:
    return Target(transport, LOCAL, registrar.port, "home.example")


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    await world.endpoint.start()
    world.accounts.start()
    try:
        yield world
    finally:
        await world.accounts.stop()
        await world.endpoint.stop()


def play(story: Callable[[Registrar], Awaitable[None]]) -> None:
    """Run a story with a registrar that is gone afterwards."""

    async def main() -> None:
        registrar = await Registrar().start()
        try:
            await story(registrar)
        finally:
            await registrar.stop()

    asyncio.run(main())


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_an_account_is_registered_and_signed_off(transport: Transport) -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one())
        world.targets = [target(registrar, transport)]
        async with running(world):
            found = await world.until("registered")
            assert found["server"] == f"{transport.lower()} {LOCAL}:{registrar.port}"
            assert found["address"] == "sip:ann@home.example"
            assert (found["reason"], found["expires_s"]) == ("", 600)
            assert world.accounts.alarms() == []
            assert world.accounts.metrics()["accounts_registered"] == 1
        first, last = registrar.taken
        assert (first.uri, first.to.uri) == ("sip:home.example", "sip:ann@home.example")
        assert f";line={IDENTITY.line('home')}" in first.get("contact")
        assert last.get("expires") == "0"
        assert world.standing()["state"] == "gone"

    play(story)


def test_a_wrong_password_is_an_alarm_without_the_password() -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one(secret="wrong one"))
        world.targets = [target(registrar)]
        async with running(world):
            await world.until("failing")
            [alarm] = world.accounts.alarms()
            assert alarm["code"] == "account"
            assert "Account home is not registered, so its calls do not arrive" in alarm["text"]
            assert "check user, auth_user and secret (401 Unauthorized). It is tried again by itself." in alarm["text"]
            assert "wrong one" not in repr(world.accounts.standing()) + alarm["text"]
            assert registrar.came == 2

    play(story)


def test_a_secret_file_is_read_anew_for_each_round(tmp_path: Path) -> None:
    async def story(registrar: Registrar) -> None:
        file = tmp_path / "secret"
        world = World(one(secret="", secret_file=str(file)))
        world.targets = [target(registrar)]
        async with running(world):
            found = await world.until("failing")
            assert "cannot read the secret file" in str(found["reason"])
            file.write_text("sesame\n")
            await world.until("registered")

    play(story)


def test_a_name_that_does_not_resolve_fails_alone() -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one())
        world.targets = EnvironmentFault("home.example has no address")
        async with running(world):
            found = await world.until("failing")
            assert found["reason"] == "home.example has no address"
            world.targets = [target(registrar)]
            await world.until("registered")

    play(story)


def test_the_next_server_is_asked_when_one_is_silent_or_in_trouble() -> None:
    async def story(registrar: Registrar) -> None:
        silent = await Registrar(silent=True).start()
        troubled = await Registrar(answers=[503] * 9).start()
        world = World(one())
        closed = Target("TCP", LOCAL, 1, "home.example")
        world.targets = [target(silent), closed, target(troubled), target(registrar)]
        async with running(world):
            found = await world.until("registered")
            assert found["server"] == f"udp {LOCAL}:{registrar.port}"
            assert (world.resolved, world.accounts.metrics()["registrations_failed_total"]) == (1, 0)
            assert (silent.came > 1, troubled.came) == (True, 1)
        await silent.stop()
        await troubled.stop()

    play(story)


def test_when_no_server_answers_the_last_one_is_named() -> None:
    async def story(registrar: Registrar) -> None:
        registrar.silent = True
        world = World(one())
        world.targets = [target(registrar)]
        async with running(world):
            found = await world.until("failing")
            assert found["reason"] == (
                f"no answer from udp {LOCAL}:{registrar.port}: check the network, the registrar's name and the firewall"
            )
            registrar.silent = False
            await world.until("registered")

    play(story)


def test_the_server_that_holds_the_registration_is_asked_first_and_without_a_name_server() -> None:
    async def story(registrar: Registrar) -> None:
        first = await Registrar(silent=True).start()
        registrar.expires_s = 4
        world = World(one())
        world.targets = [target(first), target(registrar)]
        async with running(world):
            await world.until("registered")
            asked = first.came
            world.targets = EnvironmentFault("no name server")
            await registrar.until(lambda: len(registrar.taken) > 1)
            world.targets = [target(first), target(registrar)]
            await registrar.until(lambda: len(registrar.taken) > 2)
            assert first.came == asked
        await first.stop()

    play(story)


def test_a_registration_that_cannot_be_renewed_is_told_before_it_ends() -> None:
    async def story(registrar: Registrar) -> None:
        registrar.expires_s = 4
        world = World(one())
        world.targets = [target(registrar)]
        async with running(world):
            await world.until("registered")
            registrar.answers = [403]
            await world.until("failing")
            [alarm] = world.accounts.alarms()
            assert alarm["text"].startswith("Account home could not renew its registration: the registrar forbids it")
            assert "Calls arrive until it ends." in alarm["text"]

    play(story)


def test_a_lost_connection_is_made_again_at_once() -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one())
        world.targets = [target(registrar, "TCP")]
        async with running(world):
            await world.until("registered")
            registrar.drop()
            await registrar.until(lambda: len(registrar.taken) > 1)
            await world.until("registered")

    play(story)


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_the_path_is_kept_open(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_UDP_S", 1.0)
    monkeypatch.setattr(module, "PING_STREAM_S", 1.0)

    async def story(registrar: Registrar) -> None:
        world = World(one())
        world.targets = [target(registrar, transport)]
        async with running(world):
            await registrar.until(lambda: registrar.pings >= 2)
            assert len(registrar.taken) == 1

    play(story)


def test_the_registrar_may_want_to_hear_more_often() -> None:
    async def story(registrar: Registrar) -> None:
        registrar.extra = (("Require", "outbound"), ("Flow-Timer", "1"))
        world = World(one())
        world.targets = [target(registrar, "TCP")]
        async with running(world):
            await registrar.until(lambda: registrar.pings >= 1)

    play(story)


def test_a_fault_of_ours_is_one_accounts_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one(), one("other"))
        world.targets = [target(registrar)]
        broken, _ = world.accounts._lines.values()

        async def fail() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(broken, "_ask", fail)
        async with running(world):
            await world.until("registered", 1)
            assert (await world.until("failing"))["reason"] == "a fault of ours, see the log"

    play(story)


def test_settings_that_lead_nowhere_are_told_and_harm_nobody() -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one("broken", registrar="no host at all"), one())
        world.targets = [target(registrar)]
        async with running(world):
            await world.until("registered", 1)
            assert world.standing()["state"] == "failing"
            [alarm] = world.accounts.alarms()
            assert "the settings of account broken cannot be used" in alarm["text"]
            assert alarm["text"].endswith("Mend its settings.")

    play(story)


def test_stopping_does_not_wait_for_a_registrar_that_is_silent() -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one())
        world.targets = [target(registrar)]
        async with running(world):
            await world.until("registered")
            registrar.silent = True
            async with asyncio.timeout(2):
                await world.accounts.stop()

    play(story)


def test_a_name_server_that_hangs_holds_up_neither_start_nor_stop_nor_the_others() -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one("hangs", registrar="hangs.example"), one())

        async def resolve(uri: Uri, transport: str | None) -> Sequence[Target]:
            if uri.host == "hangs.example":
                await asyncio.Event().wait()
            return [target(registrar)]

        for line in world.accounts._lines.values():
            line._resolve = resolve
        async with running(world):
            await world.until("registered", 1)
            assert world.standing()["state"] == "registering"
            async with asyncio.timeout(2):
                await world.accounts.stop()

    play(story)


def invite(uri: str, called: str = "sip:ann@home.example") -> Request:
    found = parse(request(uri=uri, drop="To", extra=f"To: <{called}>"))
    assert isinstance(found, Request)
    return found


def test_a_call_is_known_by_its_mark_by_its_server_or_not_at_all() -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one(), one("other", user="bob"))
        world.targets = [target(registrar)]
        here, elsewhere = Flow("UDP", (LOCAL, 9), (LOCAL, 5060)), Flow("UDP", ("192.0.2.9", 9), (LOCAL, 5060))
        who = world.accounts.account_of
        marked = invite(f"sip:whoever@127.0.0.1;line={IDENTITY.line('other')}", "sip:x@y")
        named = invite("sip:ann@127.0.0.1")
        assert who(named, here) is None, "before the registrar is known"
        async with running(world):
            await world.until("registered")
            found = [who(marked, elsewhere), who(named, here), who(named, elsewhere)]
            assert [account and account.name for account in found] == ["other", "home", None]
            assert who(invite("sip:zoe@127.0.0.1", "sip:zoe@x"), here) is None, "two accounts, and neither was called"
            meant = who(invite("sip:zoe@127.0.0.1", "sip:bob@x"), here)
            assert meant is not None and meant.name == "other"
            assert who(invite("tel:+491234;line=x", "sip:zoe@x"), elsewhere) is None
            assert (world.accounts.serves(LOCAL), world.accounts.serves("192.0.2.9")) == (True, False)

    play(story)


def test_behind_a_router_answers_name_the_address_that_the_registrar_sees() -> None:
    async def story(registrar: Registrar) -> None:
        registrar.seen = ("203.0.113.5", 41_000)
        world = World(one())
        world.targets = [target(registrar)]
        here = world.endpoint
        async with running(world):
            flow, other = here.flow_to((LOCAL, registrar.port)), here.flow_to(("127.0.0.2", 5060))
            assert world.accounts.reached(flow) == flow
            await world.until("registered")
            assert registrar.taken[-1].get("contact").startswith("<sip:ann@203.0.113.5:41000;line=")
            assert world.accounts.reached(flow).local == ("203.0.113.5", 41_000)
            assert world.accounts.reached(other) == other

    play(story)


def test_requests_leave_in_the_name_of_an_account() -> None:
    async def story(registrar: Registrar) -> None:
        registrar.extra = (("Service-Route", "<sip:edge.example;lr>"),)
        world = World(one())
        world.targets = [target(registrar)]
        assert world.accounts.sender("home") is None
        async with running(world):
            await world.until("registered")
            sender = world.accounts.sender("home")
            assert sender is not None
            assert (sender.address, sender.route) == ("sip:ann@home.example", ("sip:edge.example;lr",))
            assert sender.flow.remote == (LOCAL, registrar.port)
            assert sender.login.authorize("NOTIFY", "sip:x")
            assert world.accounts.sender("nobody") is None

    play(story)


def test_calls_of_an_account_answer_its_own_servers_alone() -> None:
    async def story(registrar: Registrar) -> None:
        world = World(one())
        world.targets = [target(registrar)]
        async with running(world):
            await world.until("registered")
            login = world.accounts.dialog_login("home")
            assert login is not None
            assert world.accounts.dialog_login("nobody") is None
            here = Flow("UDP", (LOCAL, 5062), (LOCAL, world.endpoint.port))
            assert login.serves(here, LOCAL)
            assert login.serves(here, "home.example"), "the end may name itself as the registrar's settings do"
            assert not login.serves(here, "203.0.113.66")
            assert not login.serves(Flow("UDP", ("203.0.113.66", 5060), here.local), LOCAL)
            asks = registrar.digest.challenges(0)
            client = login.client()
            assert client.authorize("BYE", "sip:x") == (), "nothing is said before somebody asks"
            client.challenged(Response(407, "X", {"proxy-authenticate": list(asks)}))
            assert client.authorize("BYE", "sip:x")
            (enrolment,) = world.accounts._lines.values()
            assert enrolment.flow is not None
            enrolment.flow = replace(enrolment.flow, transport="TLS")
            assert not login.serves(here, LOCAL), "what registered encrypted is not said in the open"

    play(story)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provider.example", "sip:provider.example"),
        (" provider.example:5070 ", "sip:provider.example:5070"),
        ("2001:db8::1", "sip:[2001:db8::1]"),
        ("[2001:db8::1]:5070", "sip:[2001:db8::1]:5070"),
        ("sip:ann@provider.example;transport=tcp", "sip:provider.example;transport=tcp"),
        ("SIPS:provider.example", "sips:provider.example"),
    ],
)
def test_a_server_as_people_write_it(text: str, expected: str) -> None:
    assert server_uri(text).serialize() == expected


@pytest.mark.parametrize("text", ["", "a b", "http://x", "sip:", "host:port"])
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(ParseError):
        server_uri(text)


def test_who_registers_where() -> None:
    [account] = Sip.model_validate(
        {
            "accounts": [
                one(user="ann@domain.example", registrar="sip:reg.example:5070;transport=tcp", proxy="edge.example")
            ]
        }
    ).accounts
    who, server = registrant_of(account, line="l", instance="urn:uuid:x", learn=True)
    assert (who.registrar, who.address, who.user) == ("sip:reg.example:5070", "sip:ann@domain.example", "ann")
    assert who.route == ("sip:edge.example;lr",)
    assert server.serialize() == "sip:edge.example"
    same = account.model_copy(update={"proxy": "reg.example:5070"})
    assert registrant_of(same, line="l", instance="i", learn=True)[0].route == ()
