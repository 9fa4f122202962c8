"""The lamps of the line: who is to know how many messages wait, and does he?

Owns: who may subscribe to which mailbox, the lamps that are told without having asked (phones that registered, and those of
the settings), and the beat that keeps all of them right. Refuses to know: the catalog; the counts come in.

Specification: RFC 3842; RFC 6665 sections 4.2 and 4.4 by ``sip.subscriptions``. Telling without a subscription is what RFC 3265 allowed
and PBXs do; a phone that does not want it says so, and is left alone until it registers again.

Theory of operation: nothing here is driven by changes. Five times a second each lamp's wish (the counts of its mailboxes) is
compared with what it was told last; where they differ, nothing is under way and its pause is over, it is told. So whatever got
lost, whoever was dead, the next beat mends it. While nobody knows the counts, nobody is told any. One NOTIFY at a time is under
way to a lamp, and at least a second lies between two. A lamp that cannot be told is tried again with growing pauses,
and at once when its wish changes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypedDict

import structlog

from aftertone.config.sip import Lamp, Sip
from aftertone.errors import AftertoneError
from aftertone.net.endpoint import SipEndpoint
from aftertone.net.resolver import Target as Server
from aftertone.roles.counts import LOOK_S, Waiting
from aftertone.roles.enrolment import Resolve, Sender
from aftertone.roles.memory import Memory, Watch
from aftertone.roles.peers import Peer, PeerKind, Peers, Turned
from aftertone.roles.phones import Phones
from aftertone.sip import mwi
from aftertone.sip.builder import Fields, contact_uri
from aftertone.sip.checks import Refusal
from aftertone.sip.events import (
    Event,
    FlowLost,
    RequestAnswered,
    RequestFailed,
    RequestId,
    RequestOutside,
    SubscriptionAsked,
    SubscriptionEnded,
    SubscriptionId,
)
from aftertone.sip.flow import Flow, bracketed
from aftertone.sip.headers import parse_address
from aftertone.sip.message import Request
from aftertone.sip.registrar import Binding
from aftertone.sip.settings import AgentSettings
from aftertone.sip.uri import Uri, parse_uri, unescape
from aftertone.voicemail.directory import Directory

PACE_NS: Final = 1_000_000_000
KEEP_NS: Final = 2_000_000_000
"""Between two looks whether what is remembered has changed; what is new is kept at the next beat."""
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
DOES_NOT_LISTEN: Final = frozenset({403, 404, 405, 406, 415, 481, 485, 489, 501, 603})
"""Answers of a phone that does not take what it did not ask for; asking again would change nothing."""


class Serving(TypedDict):
    """What an agent must be told to hear of subscribers and phones."""

    allow: tuple[str, ...]
    allow_events: tuple[str, ...]


def lamp_settings(settings: Sip) -> Serving:
    """Return those settings of an agent; without phones nobody may register."""
    registering = ("REGISTER",) if settings.phones else ()
    return {"allow": (*AgentSettings().allow, "SUBSCRIBE", *registering), "allow_events": (mwi.PACKAGE,)}


@dataclass(eq=False, slots=True)
class Told:
    """A lamp that is told without having asked: its wish and how it goes."""

    name: str
    mailboxes: tuple[str, ...]
    binding: Binding | None = None
    """Where it is, when it is a phone's."""
    lamp: Lamp | None = None
    """Its settings, when it is another server's."""
    knows: bytes | None = None
    sending: bytes = b""
    sent_fields: Fields = ()
    under_way: RequestId | None = None
    servers: list[Server] = field(default_factory=list)
    looking: asyncio.Task[None] | None = None
    tried: bytes = b""
    """The wish of the last attempt."""
    paced_ns: int = 0
    """Not before this, whatever has changed since."""
    next_ns: int = 0
    pause_s: float = FIRST_PAUSE_S
    deaf: bool = False
    trouble: str = ""


class Lamps:
    """All lamps of one line. Everything happens on the event loop's thread."""

    def __init__(
        self,
        settings: Sip,
        endpoint: SipEndpoint,
        peers: Peers,
        *,
        counts: Callable[[], Waiting | None],
        directory: Callable[[], Directory],
        sender: Callable[[str], Sender | None],
        resolve: Resolve,
        memory: Memory | None = None,
        logger: structlog.typing.FilteringBoundLogger,
        entropy: Callable[[int], bytes] = os.urandom,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``counts``: what waits, None while nobody knows. ``sender``: how to send in an account's name, None while it is not
        registered. ``memory``: where phones and subscriptions are kept for the next process; None keeps nothing.
        """
        self.phones: Final = Phones(
            settings.phones, endpoint, peers, logger=logger, on_registered=self._registered, clock_ns=clock_ns
        )
        self.counters: Final[Counter[str]] = Counter()
        self._endpoint, self._peers, self._logger = endpoint, peers, logger
        self._counts, self._directory, self._sender, self._resolve = counts, directory, sender, resolve
        self._entropy, self._clock_ns = entropy, clock_ns
        self._memory, self._recalled, self._keep_ns = memory, memory is None, 0
        self._known: Waiting | None = None
        self._watches: dict[SubscriptionId, Watch] = {}
        self._told: dict[Hashable, Told] = {
            ("lamp", number): Told(lamp.uri, (lamp.mailbox,), lamp=lamp) for number, lamp in enumerate(settings.lamps)
        }
        self._under_way: dict[RequestId, Told] = {}
        self._task: asyncio.Task[None] | None = None

    # The clockwork

    def start(self) -> None:
        """Begin to beat. The endpoint must have started."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Beat no more. Subscribers are not sent away: after a restart they are told again."""
        tasks = [self._task, *(told.looking for told in self._told.values())]
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._memory is not None and self._recalled:
            self._remember(self._memory, self._clock_ns())

    async def _run(self) -> None:
        while True:
            try:
                self.beat()
            except Exception:
                # The next beat mends what this one left.
                self._logger.exception("lamps could not be looked after")
            await asyncio.sleep(LOOK_S)

    def beat(self) -> None:
        """Look at the counts and tell whoever does not know them."""
        now_ns = self._clock_ns()
        fresh = self._counts()
        if fresh is not None and fresh != self._known:
            self._known = fresh
            self._tell_subscribers()
        if self._known is not None and not self._recalled:
            # Not before anybody knows the counts: what is remembered is to be told at once.
            self._recalled = True
            self._recall(now_ns)
        self._follow_phones(now_ns)
        for told in list(self._told.values()):
            self._look_after(told, now_ns)
        if self._memory is not None and self._recalled and now_ns >= self._keep_ns:
            self._keep_ns = now_ns + KEEP_NS
            self._remember(self._memory, now_ns)

    def _tell_subscribers(self) -> None:
        """Say the newest state of each subscription; what became of the one before is the agent's to know."""
        for subscription, watch in list(self._watches.items()):
            self._endpoint.notify(subscription, self._body(watch.mailboxes, watch.account))

    def on_sip(self, event: Event) -> bool:
        """Take what belongs to lamps; return whether it did. A lost connection is everybody's to hear."""
        match event:
            case SubscriptionAsked():
                self._on_subscribe(event)
            case SubscriptionEnded(subscription):
                self._watches.pop(subscription, None)
                self._keep_ns = 0
            case RequestOutside():
                self.phones.on_register(event)
            case FlowLost(flow):
                self.phones.registrar.flow_lost(flow)
                return False
            case RequestAnswered(request, _) | RequestFailed(request, _, _):
                told = self._under_way.pop(request, None)
                if told is None:
                    return False
                self._answered(told, event)
            case _:
                return False
        return True

    def lives_on(self, flow: Flow) -> bool:
        """Tell whether a phone or a subscriber is reached over a flow: its connection is then kept although it is quiet."""
        return any(binding.flow == flow for _, binding in self.phones.registrar.every()) or any(
            watch.remote == flow.remote for watch in self._watches.values()
        )

    # Those who ask

    def _on_subscribe(self, event: SubscriptionAsked) -> None:
        granted = self._grant(event.request, event.flow)
        if isinstance(granted, Refusal):
            self.counters[f"subscribe_answered_{granted.status}"] += 1
            self._endpoint.respond(event.transaction_id, granted.status, headers=granted.fields)
            return
        body = self._body(granted.mailboxes, granted.account)
        subscription = self._endpoint.accept_subscription(event.transaction_id, body)
        if subscription is not None:
            self.counters["subscribe_answered_200"] += 1
            self._watches[subscription] = granted
            self._keep_ns = 0

    def _grant(self, request: Request, flow: Flow) -> Watch | Refusal:
        """Say what a subscriber may know. A stranger learns nothing, not even which mailboxes there are."""
        peer = self._peers.known(request, flow)
        if isinstance(peer, Turned):
            return peer.answer
        user = unescape(request.target.user.partition(";")[0])
        mailboxes = self._mailboxes_of(peer, user)
        if isinstance(mailboxes, int):
            return Refusal(mailboxes)
        target = request.target
        account = Uri(target.scheme, target.user, target.host, target.port, {}).serialize()
        return Watch(mailboxes, account, peer.label, flow.remote)

    def _mailboxes_of(self, peer: Peer, user: str) -> tuple[str, ...] | int:
        """Return the mailboxes behind a name, or the status that refuses it. A phone's name stands for all its mailboxes."""
        phone = self.phones.by_user.get(user.lower())
        mailbox = self._directory().named(user) if user else None
        if peer.kind is PeerKind.PHONE:
            own = self.phones.by_user[peer.name].mailboxes
            if not user or (phone is not None and phone.user == peer.name):
                return own
            if mailbox is not None and mailbox.name.lower() in {self._key(name) for name in own}:
                return (mailbox.name,)
            return 404 if phone is None and mailbox is None else 403
        if mailbox is not None:
            return (mailbox.name,)
        if phone is not None:
            return phone.mailboxes
        if peer.mailbox:
            return (peer.mailbox,)
        return 404

    # Those who did not

    def _registered(self, user: str) -> None:
        """Tell a phone anew that has just come, whatever it was told before: it may have been restarted."""
        self._keep_ns = 0
        self._follow_phones(self._clock_ns())
        here = {binding.flow.remote for binding in self.phones.registrar.contacts(user)}
        for subscription, watch in list(self._watches.items()):
            body = self._body(watch.mailboxes, watch.account)
            if body and watch.peer == f"phone {user}" and watch.remote in here:
                self._endpoint.notify(subscription, body, again=True)
        for (kind, *rest), told in self._named():
            if kind == "phone" and rest[0] == user:
                told.knows, told.deaf, told.next_ns, told.pause_s = None, False, 0, FIRST_PAUSE_S

    def _named(self) -> list[tuple[tuple[Hashable, ...], Told]]:
        return [(key, told) for key, told in self._told.items() if isinstance(key, tuple)]

    def _follow_phones(self, now_ns: int) -> None:
        """Keep one lamp for each place where a phone is."""
        registrar = self.phones.registrar
        registrar.expire(now_ns)
        here: set[Hashable] = set()
        for user, binding in registrar.every():
            key = ("phone", user, binding.place)
            here.add(key)
            told = self._told.get(key)
            if told is None:
                told = self._told[key] = Told(f"phone {user}", self.phones.by_user[user].mailboxes)
            told.binding = binding
        for name, told in list(self._told.items()):
            if told.binding is not None and name not in here:
                del self._told[name]

    def _look_after(self, told: Told, now_ns: int) -> None:
        busy = told.under_way is not None or told.looking is not None
        if busy or told.deaf or self._known is None:
            return
        wish = self._count(told.mailboxes)
        # A pause is for what could not be told. What has changed since is told at once: the phone may be back.
        next_ns = told.next_ns if wish == told.tried else min(told.next_ns, told.paced_ns)
        if now_ns < next_ns or wish == told.knows or self._is_subscribed(told):
            return
        told.tried, told.paced_ns = wish, now_ns + PACE_NS
        if told.binding is not None:
            path = tuple(parse_address(value).uri for value in told.binding.path)
            self._send(told, told.binding.uri, told.binding.flow, path)
        elif told.lamp is not None and told.lamp.account:
            sender = self._sender(told.lamp.account)
            if sender is None:
                # Its account is not registered, and has an alarm of its own.
                return
            self._send(told, told.lamp.uri, sender.flow, sender.route, sender)
        elif told.servers:
            server = told.servers[0]
            try:
                flow = self._endpoint.flow_for(server)
            except AftertoneError as error:
                self._failed(told, str(error), passing=True)
                return
            self._send(told, told.name, flow, ())
        else:
            told.looking = asyncio.get_running_loop().create_task(self._find(told))

    async def _find(self, told: Told) -> None:
        """Look up the servers of a lamp's URI; the next beat sends."""
        try:
            told.servers = list(await self._resolve(parse_uri(told.name), None))
        except AftertoneError as error:
            self._failed(told, str(error))
        else:
            told.next_ns = 0
        finally:
            told.looking = None

    def _is_subscribed(self, told: Told) -> bool:
        """Tell whether a phone has a subscription for all of this, over the same way."""
        binding = told.binding
        return binding is not None and any(
            watch.remote == binding.flow.remote and set(watch.mailboxes) >= set(told.mailboxes)
            for watch in self._watches.values()
        )

    def _send(self, told: Told, uri: str, flow: Flow, route: tuple[str, ...], sender: Sender | None = None) -> None:
        from_uri = _own_uri(told.mailboxes[0], flow)
        told.sending = self._count(told.mailboxes)
        body = mwi.build(self._summary(told.mailboxes), from_uri)
        told.sent_fields = () if sender is None else sender.login.authorize("NOTIFY", uri, body)
        try:
            told.under_way = self._endpoint.request(
                "NOTIFY",
                uri,
                from_uri=from_uri if sender is None else sender.address,
                flow=flow,
                route=route,
                headers=(
                    ("Event", mwi.PACKAGE),
                    ("Subscription-State", "active"),
                    ("Contact", f"<{contact_uri(flow, told.mailboxes[0])}>"),
                    *told.sent_fields,
                ),
                body=body,
                content_type=mwi.CONTENT_TYPE,
            )
        except AftertoneError as error:
            self._failed(told, str(error))
            return
        self._under_way[told.under_way] = told
        told.next_ns = self._clock_ns() + PACE_NS

    def _answered(self, told: Told, event: RequestAnswered | RequestFailed) -> None:
        told.under_way = None
        if isinstance(event, RequestFailed):
            self._failed(told, f"no answer ({event.status})", passing=True)
            return
        response = event.response
        if 200 <= response.status < 300:
            self._succeeded(told)
        elif response.status in (401, 407) and told.lamp is not None and told.lamp.account:
            sender = self._sender(told.lamp.account)
            try:
                if sender is not None:
                    sender.login.challenged(response, told.sent_fields)
                told.next_ns = 0
            except AftertoneError as error:
                self._failed(told, str(error))
        elif told.binding is not None and response.status in DOES_NOT_LISTEN:
            told.deaf = True
            self.counters["unwanted"] += 1
            self._logger.info("a phone wants to be told only if it subscribes", phone=told.name, status=response.status)
        else:
            reason = f"{response.status} {response.reason[:80]}".rstrip()
            if response.status in (401, 407):
                reason += ": name the account whose login it wants"
            self._failed(told, reason, passing=response.status in (408, 503))

    def _succeeded(self, told: Told) -> None:
        told.knows, told.pause_s = told.sending, FIRST_PAUSE_S
        self.counters["told"] += 1
        if told.trouble:
            self._logger.info("a lamp is told again", lamp=told.name)
        told.trouble = ""

    def _failed(self, told: Told, reason: str, *, passing: bool = False) -> None:
        """Try the lamp's next server at once when this one was away, else all of them again after a pause."""
        self.counters["failed"] += 1
        if told.servers:
            told.servers.pop(0) if passing else told.servers.clear()
            if told.servers:
                told.next_ns = 0
                return
        if reason != told.trouble:
            self._logger.warning("a lamp cannot be told; it is tried again", lamp=told.name, why=reason)
        told.trouble = reason
        share = 0.8 + 0.4 * self._entropy(1)[0] / 255
        told.next_ns = self._clock_ns() + int(told.pause_s * share * 1e9)
        told.pause_s = min(told.pause_s * 2, LONGEST_PAUSE_S)

    # What outlives the process

    def _remember(self, memory: Memory, now_ns: int) -> None:
        kept = ((self._endpoint.agent.keep(subscription), watch) for subscription, watch in self._watches.items())
        memory.write(self.phones.registrar.every(), [(one, watch) for one, watch in kept if one is not None], now_ns)

    def _recall(self, now_ns: int) -> None:
        """Go on with what an earlier process knew, as far as the settings still want it."""
        if self._memory is None:
            return
        bindings, subscriptions = self._memory.read(now_ns)
        for user, binding in bindings:
            if user in self.phones.by_user:
                self.phones.registrar.restore(user, binding)
        for kept, watch in subscriptions:
            if self._peers.has(watch.peer) and self._still_granted(watch):
                subscription = self._endpoint.resume(kept, self._body(watch.mailboxes, watch.account))
                if subscription is not None:
                    self._watches[subscription] = watch

    def _still_granted(self, watch: Watch) -> bool:
        kind, _, user = watch.peer.partition(" ")
        own = self.phones.by_user[user].mailboxes if kind == PeerKind.PHONE.value else watch.mailboxes
        return {name.lower() for name in watch.mailboxes} <= {name.lower() for name in own}

    # What they are told

    def _summary(self, mailboxes: tuple[str, ...]) -> mwi.Summary:
        known: Mapping[str, tuple[int, int]] = self._known or {}
        total = mwi.Summary()
        for key in {self._key(name) for name in mailboxes}:
            total += mwi.Summary(*known.get(key, (0, 0)))
        return total

    def _key(self, name: str) -> str:
        """Return what a mailbox is counted by; settings may name it by any of its numbers."""
        mailbox = self._directory().named(name)
        return (name if mailbox is None else mailbox.name).lower()

    def _count(self, mailboxes: tuple[str, ...]) -> bytes:
        return mwi.build(self._summary(mailboxes))

    def _body(self, mailboxes: tuple[str, ...], account: str) -> bytes:
        """Return the body for a subscriber; none while nobody knows the counts, so that no lamp goes out for that."""
        return b"" if self._known is None else mwi.build(self._summary(mailboxes), account)

    # What people are told

    def facts(self) -> dict[str, object]:
        """Return how phones, lamps and subscriptions stand, for the line's status."""
        lamps = [
            {"mailbox": told.lamp.mailbox, "uri": told.lamp.uri, "account": told.lamp.account, "trouble": told.trouble,
             "told": told.knows is not None}
            for told in self._told.values()
            if told.lamp is not None
        ]  # fmt: skip
        return {"phones": self.phones.facts(), "lamps": lamps, "subscriptions": len(self._watches)}

    def alarms(self) -> list[dict[str, str]]:
        """Return an alarm for each lamp of the settings that cannot be told, or that shows a mailbox that is not there."""
        wanted = [(told.lamp.uri, told.mailboxes) for told in self._told.values() if told.lamp is not None]
        wanted += [(f"of the phone {user}", phone.mailboxes) for user, phone in self.phones.by_user.items()]
        alarms = [
            {"code": "lamp", "text": f"The lamp {whose} shows the mailbox {name}, and there is none of that name. Mend the settings"}
            for whose, names in wanted
            for name in names
            if self._directory().named(name) is None
        ]  # fmt: skip
        return alarms + [
            {"code": "lamp", "text": f"The lamp {told.name} is not told of messages in {told.lamp.mailbox}: {told.trouble}. "
             "It is tried again by itself"}
            for told in self._told.values()
            if told.lamp is not None and told.trouble
        ]  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """Return counts over all lamps."""
        return {
            "lamp_subscriptions": len(self._watches),
            "phone_contacts": len(self.phones.registrar),
            "lamps_failing": sum(bool(told.trouble) for told in self._told.values()),
            **{f"lamps_{name}_total": count for name, count in (self.counters + self.phones.counters).items()},
        }


def _own_uri(mailbox: str, flow: Flow) -> str:
    """Return the address of a mailbox as a peer can call it."""
    host, port = flow.local
    return f"sip:{mailbox}@{bracketed(host)}{'' if port == 5060 else f':{port}'}"
