"""Phones that register with us, so that their lamps can be reached.

Owns: the answer to each REGISTER, and what people are told about phones. Refuses to know: lamps, and how a login is checked
(``peers``).

Specification: RFC 3261 section 10.3; the rules themselves are in ``sip.registrar``.

Theory of operation: a phone logs in with each REGISTER and may bind only its own name. What a stranger hears depends on the
settings alone, never on the name that he tries.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

from aftertone.config.sip import Phone
from aftertone.net.endpoint import SipEndpoint
from aftertone.roles.peers import PeerKind, Peers, Turned
from aftertone.sip.budgets import source_of
from aftertone.sip.checks import Refusal
from aftertone.sip.events import RequestOutside
from aftertone.sip.faults import ParseError
from aftertone.sip.registrar import Registrar
from aftertone.sip.uri import parse_uri, unescape


class Phones:
    """All phones of one line. Everything happens on the event loop's thread."""

    def __init__(
        self,
        phones: tuple[Phone, ...],
        endpoint: SipEndpoint,
        peers: Peers,
        *,
        logger: structlog.typing.FilteringBoundLogger,
        on_registered: Callable[[str], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``on_registered`` hears the user of a phone that registered or came again."""
        self.registrar: Final = Registrar()
        self.by_user: Final = {phone.user: phone for phone in phones}
        self.counters: Final[Counter[str]] = Counter()
        self._endpoint, self._peers, self._logger, self._clock_ns = endpoint, peers, logger, clock_ns
        self._on_registered = on_registered

    def on_register(self, event: RequestOutside) -> None:
        """Answer a REGISTER."""
        user, answer = self._register(event)
        self.counters[f"register_answered_{answer.status}"] += 1
        self._endpoint.respond(event.transaction_id, answer.status, headers=answer.fields)
        if answer.status == 200 and event.request.headers.get("contact"):
            self._on_registered(user)

    def is_at(self, user: str, host: str) -> bool:
        """Tell whether a phone is registered from an address or its network."""
        source = source_of(host)
        return any(source_of(binding.flow.remote[0]) == source for binding in self.registrar.contacts(user))

    def facts(self) -> list[dict[str, object]]:
        """Return every phone of the settings and where it is, for the line's status."""
        now_ns = self._clock_ns()
        return [
            {
                "user": user,
                "mailboxes": list(phone.mailboxes),
                "contacts": [
                    {
                        "uri": binding.uri[:200],
                        "from": f"{binding.flow.transport.lower()} {binding.flow.remote[0]}:{binding.flow.remote[1]}",
                        "expires_s": max(0, round((binding.expires_ns - now_ns) / 1e9)),
                    }
                    for binding in self.registrar.contacts(user)
                ],
            }
            for user, phone in self.by_user.items()
        ]

    def _register(self, event: RequestOutside) -> tuple[str, Refusal]:
        request, flow = event.request, event.flow
        peer = self._peers.login(request, flow)
        if isinstance(peer, Turned):
            return "", peer.answer
        try:
            named = unescape(parse_uri(request.to.uri).user).lower()
            if peer.kind is not PeerKind.PHONE or named != peer.name:
                return "", Refusal(403)
            before = self.registrar.contacts(peer.name)
            answer = self.registrar.register(peer.name, request, flow, self._clock_ns())
        except ParseError:
            # Whatever is wrong with it: 416 and the like are about Request-URIs, and this one is ours.
            return "", Refusal(400)
        after = self.registrar.contacts(peer.name)
        if bool(before) != bool(after):
            words = "phone is registered" if after else "phone is signed off"
            self._logger.info(words, phone=peer.name, peer=flow.remote[0])
        return peer.name, answer
