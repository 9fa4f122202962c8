"""The accounts of the line: the numbers at providers, FRITZ!Boxes and PBXs that we register for.

Owns: one enrolment for each account of the settings, which call belongs to which, and what people are told about them. Refuses
to know: how one of them stays registered (``enrolment``), and what is done with a call.

Theory of operation: nothing here waits. ``start`` makes tasks and returns; an account whose settings cannot be used fails alone and
says so. A call belongs to the account whose mark (``line``) its Request-URI brings back; servers that write the Request-URI
anew are known by their addresses.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from aftertone.config import Account, Sip
from aftertone.errors import ConfigError
from aftertone.net.endpoint import SipEndpoint
from aftertone.roles.enrolment import Enrolment, Resolve, Sender, registrant_of, shown_target
from aftertone.roles.identity import Identity
from aftertone.sip.diversion import called_of
from aftertone.sip.events import Event, FlowLost, RequestAnswered, RequestFailed
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.identity import target_user
from aftertone.sip.message import Request
from aftertone.sip.proof import Login
from aftertone.sip.registration import State

SIGN_OFF_WITHIN_S: Final = 0.7
"""For saying goodbye to registrars; what they do not hear ends by itself when it expires."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """An account whose settings lead nowhere."""

    account: Account
    reason: str


class Accounts:
    """All accounts of one line. Everything runs on the event loop's thread."""

    def __init__(
        self,
        settings: Sip,
        endpoint: SipEndpoint,
        resolve: Resolve,
        identity: Identity,
        *,
        logger: structlog.typing.FilteringBoundLogger,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._logger = logger
        self._lines: dict[str, Enrolment] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._all: dict[str, Enrolment | Unusable] = {}
        for account in settings.accounts:
            mark = identity.line(account.name)
            try:
                who, server = registrant_of(
                    account, line=mark, instance=identity.instance, learn=not settings.public_address
                )
            except ConfigError as error:
                self._all[account.name] = Unusable(account, str(error))
                continue
            enrolment = Enrolment(account, who, server, endpoint, resolve, entropy=entropy, logger=logger)
            self._all[account.name] = self._lines[mark] = enrolment

    def start(self) -> None:
        """Begin to register, in the background. The endpoint must have started."""
        for one in self._all.values():
            if isinstance(one, Unusable):
                self._logger.error("account cannot be used", account=one.account.name, why=one.reason)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(one.run()) for one in self._lines.values()]

    async def stop(self) -> None:
        """Sign off everywhere, within ``SIGN_OFF_WITHIN_S``. The endpoint must still run."""
        for one in self._lines.values():
            one.leave()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SIGN_OFF_WITHIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def on_sip(self, event: Event) -> bool:
        """Take what belongs to a registration; return whether it did. A lost connection is everybody's to hear."""
        if isinstance(event, RequestAnswered | RequestFailed):
            return any(one.take(event) for one in self._lines.values())
        if isinstance(event, FlowLost):
            for one in self._lines.values():
                one.flow_lost(event.flow)
        return False

    def lives_on(self, flow: Flow) -> bool:
        """Return whether a registration lives on a flow: its connection is then kept although it is quiet."""
        return any(one.flow == flow for one in self._lines.values())

    # -- whose call

    def account_of(self, request: Request, flow: Flow) -> Account | None:
        """Return the account that a call came by, None when it came by none.

        By the mark in the Request-URI; else by the server's address and the number that was called, as the Request-URI or
        another header names it, or by the address alone where only one account is registered there.
        """
        try:
            mark = request.target.params.get("line") or ""
        except ParseError:
            mark = ""
        if mark in self._lines:
            return self._lines[mark].account
        here = [one for one in self._lines.values() if flow.remote[0] in one.hosts]
        found = [one for one in here if one.who.user == target_user(request)]
        if not found and len(here) > 1:
            # A server that writes its own number into the Request-URI says elsewhere whom it means.
            named = {called.user for called in called_of(request)}
            found = [one for one in here if one.who.user in named]
        found = found or here
        return found[0].account if len(found) == 1 else None

    def serves(self, host: str) -> bool:
        """Return whether an address is a server of an account, as last resolved."""
        return any(host in one.hosts for one in self._lines.values())

    def reached(self, flow: Flow) -> Flow:
        """Return a flow as the server at its other end sees it, behind a router that translates addresses.

        The ACK and the BYE of a call go to the address in our answer, so it must be that one; see ``Agent.reach_by``.
        """
        for one in self._lines.values():
            seen = one.registration.seen
            at_server = one.flow is not None and one.flow.transport == flow.transport and flow.remote[0] in one.hosts
            if seen is not None and at_server:
                return replace(flow, local=seen)
        return flow

    def sender(self, name: str) -> Sender | None:
        """Return how to send a request in an account's name; None while it is not registered. Spec: RFC 3608."""
        one = self._all.get(name)
        return one.sender() if isinstance(one, Enrolment) else None

    def dialog_login(self, name: str) -> Login | None:
        """Return with what requests of ours answer a challenge in calls that came by an account."""
        one = self._all.get(name)
        return one.dialog_login() if isinstance(one, Enrolment) else None

    # -- what people are told

    def standing(self) -> list[dict[str, object]]:
        """Return how each account stands, for the line's status. Seconds count from now."""
        return [self._standing_of(one) for one in self._all.values()]

    def alarms(self) -> list[dict[str, str]]:
        """Return an alarm for each account that is not registered; its words stay the same while the trouble does."""
        alarms = []
        for name, one in self._all.items():
            text = self._alarm_of(one)
            if text:
                alarms.append({"code": "account", "text": f"Account {name} {text}"})
        return alarms

    def metrics(self) -> dict[str, float]:
        """Return counts over all accounts; each account's own state is in its standing."""
        return {
            "accounts": len(self._all),
            "accounts_registered": sum(
                one.registration.state_at(time.monotonic_ns()) is State.REGISTERED for one in self._lines.values()
            ),
            "registrations_asked_total": sum(one.attempts for one in self._lines.values()),
            "registrations_failed_total": sum(one.failures for one in self._lines.values()),
        }

    def _alarm_of(self, one: Enrolment | Unusable) -> str:
        if isinstance(one, Unusable):
            return f"is not registered, so its calls do not arrive: {one.reason}. Mend its settings."
        registration, now_ns = one.registration, time.monotonic_ns()
        reason = registration.reason_at(now_ns)
        if not reason:
            return ""
        if registration.expires_ns is not None and registration.expires_ns > now_ns:
            return (
                f"could not renew its registration: {reason}. Calls arrive until it ends. It is tried again by itself."
            )
        return f"is not registered, so its calls do not arrive: {reason}. It is tried again by itself."

    def _standing_of(self, one: Enrolment | Unusable) -> dict[str, object]:
        told: dict[str, object] = {"name": one.account.name, "registrar": one.account.registrar}
        if isinstance(one, Unusable):
            return {**told, "state": State.FAILING.value, "reason": one.reason}
        registration, now_ns = one.registration, time.monotonic_ns()

        def seconds(moment_ns: int | None) -> int | None:
            return None if moment_ns is None else max(0, round((moment_ns - now_ns) / 1e9))

        return {
            **told,
            "address": one.who.address,
            "state": registration.state_at(now_ns).value,
            "reason": registration.reason_at(now_ns),
            "server": "" if one.target is None else shown_target(one.target),
            "since_s": round((now_ns - registration.since_ns) / 1e9),
            "expires_s": seconds(registration.expires_ns),
            "next_s": seconds(registration.deadline_ns()),
        }
