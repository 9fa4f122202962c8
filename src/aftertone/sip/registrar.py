"""A small registrar: where each phone is now.

Owns: the contacts of every phone and the rules by which a REGISTER changes them. Refuses to know: who a phone is, which
somebody else has made sure of; sockets and clocks.

Specification: RFC 3261 section 10.3, RFC 3327 (Path), RFC 5626 section 6 as far as one server needs it: a contact with an
instance and a ``reg-id`` is one flow of one phone, and a newer one takes its place.

Theory of operation: in memory alone, because phones come again by themselves. A REGISTER is read whole first and takes effect
whole or not at all. Requests to a phone take the flow that its REGISTER came by, which is open in whatever NAT stands
between, and its Path. A phone has at most ``MAX_CONTACTS``: one more takes the place of the one that would expire first,
since a phone that gets a new address at each start must not lock itself out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from aftertone.sip.builder import Fields
from aftertone.sip.checks import Refusal
from aftertone.sip.dialog import literal_flow
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.headers import NameAddr, parse_address, parse_number
from aftertone.sip.message import Request
from aftertone.sip.settings import SECOND_NS
from aftertone.sip.uri import parse_uri

MAX_CONTACTS: Final = 5
"""Contacts of one phone, and of one REGISTER: the phone at the desk, its softphones, and what is left of a restart."""
MAX_INSTANCE: Final = 256
"""Characters of what a phone calls itself; a UUID has 47 with its quotes."""
MAX_PATH: Final = 8
"""Proxies between a phone and us."""
MIN_EXPIRES_S: Final = 60
DEFAULT_EXPIRES_S: Final = 3600
MAX_EXPIRES_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Binding:
    """One place where a phone is."""

    uri: str
    call_id: str
    cseq: int
    expires_ns: int
    flow: Flow
    path: tuple[str, ...] = ()
    """Route values, the proxy nearest to us first."""
    key: tuple[str, str] = ("", "")
    """Instance and reg-id, when the phone keeps flows (RFC 5626); both empty otherwise."""
    instance: str = ""
    """What the phone calls itself: by it phones find their own contact in an answer."""

    @property
    def place(self) -> tuple[object, ...]:
        """Return what bindings of one flow, or of one contact URI, have in common."""
        return self.key if self.key != ("", "") else _comparable(self.uri)


class Registrar:
    """The bindings of all phones, by user. Users are whoever the caller says; it makes sure that there are few."""

    def __init__(self) -> None:
        self._bindings: dict[str, list[Binding]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._bindings.values()))

    def register(self, user: str, request: Request, flow: Flow, now_ns: int) -> Refusal:
        """Carry out a REGISTER of ``user``; return its answer, 200 with every contact or a refusal that changed nothing.

        Raises ParseError for contacts that cannot be read.
        """
        self.expire(now_ns)
        old = self._bindings.get(user, [])
        contacts = request.all("contact")
        if "*" in contacts:
            if len(contacts) > 1 or request.get("expires") != "0":
                return Refusal(400)
            if any(self._is_late(binding, request) for binding in old):
                return Refusal(500)
            new: list[Binding] = []
        elif len(contacts) > MAX_CONTACTS or len(request.all("path")) > MAX_PATH:
            return Refusal(403)
        else:
            new, refused = list(old), None
            for value in contacts:
                new, refused = self._bind(new, request, parse_address(value), flow, now_ns)
                if refused is not None:
                    return refused
        self._keep(user, new)
        return Refusal(200, tuple(self._fields(user, request, now_ns)))

    def contacts(self, user: str) -> tuple[Binding, ...]:
        """Return where a phone is, the newest last."""
        return tuple(self._bindings.get(user, ()))

    def every(self) -> Iterator[tuple[str, Binding]]:
        """Give every contact with the user of its phone."""
        for user, bindings in self._bindings.items():
            for binding in bindings:
                yield user, binding

    def expire(self, now_ns: int) -> None:
        """Forget what nobody refreshed."""
        for user in list(self._bindings):
            self._keep(user, [binding for binding in self._bindings[user] if binding.expires_ns > now_ns])

    def flow_lost(self, flow: Flow) -> None:
        """Hear that a connection is gone: a kept flow with it (RFC 5626 section 6), others are reached at their URI."""
        for user in list(self._bindings):
            kept = []
            for binding in self._bindings[user]:
                if binding.flow != flow:
                    kept.append(binding)
                    continue
                other = literal_flow(binding.uri, flow)
                if binding.key == ("", "") and other != flow:
                    kept.append(replace(binding, flow=other))
            self._keep(user, kept)

    def restore(self, user: str, binding: Binding) -> None:
        """Take a binding that an earlier process knew, unless the phone has come again since."""
        known = self._bindings.get(user, [])
        if len(known) < MAX_CONTACTS and not any(one.place == binding.place for one in known):
            self._keep(user, [binding, *known])

    # Inside

    def _bind(
        self, bindings: list[Binding], request: Request, contact: NameAddr, flow: Flow, now_ns: int
    ) -> tuple[list[Binding], Refusal | None]:
        """Return the bindings with one contact added, refreshed or removed; or why not (RFC 3261 section 10.3, step 7)."""
        seconds = _expires_s(request, contact)
        if 0 < seconds < MIN_EXPIRES_S:
            return bindings, Refusal(423, (("Min-Expires", str(MIN_EXPIRES_S)),))
        parse_uri(contact.uri)
        fresh = Binding(
            uri=contact.uri,
            call_id=request.call_id,
            cseq=request.cseq.number,
            expires_ns=now_ns + min(seconds, MAX_EXPIRES_S) * SECOND_NS,
            flow=flow,
            path=tuple(request.all("path")),
            key=_flow_key(request, contact),
            instance=contact.params.get("+sip.instance") or "",
        )
        for value in fresh.path:
            parse_address(value)
        if len(fresh.instance) > MAX_INSTANCE:
            raise ParseError("the instance of a contact is too long")
        same = next((binding for binding in bindings if binding.place == fresh.place), None)
        if same is not None and self._is_late(same, request):
            return bindings, Refusal(500)
        others = [binding for binding in bindings if binding is not same]
        if not seconds:
            return others, None
        if len(others) >= MAX_CONTACTS:
            others.remove(min(others, key=lambda binding: binding.expires_ns))
        return [*others, fresh], None

    @staticmethod
    def _is_late(binding: Binding, request: Request) -> bool:
        """Tell whether a request of the same registering call is older than what it would change."""
        return binding.call_id == request.call_id and request.cseq.number <= binding.cseq

    def _keep(self, user: str, bindings: list[Binding]) -> None:
        if bindings:
            self._bindings[user] = bindings
        else:
            self._bindings.pop(user, None)

    def _fields(self, user: str, request: Request, now_ns: int) -> Fields:
        """Say what holds now (step 8), and which Path was kept (RFC 3327 section 5.3)."""
        bindings = self._bindings.get(user, ())
        for binding in bindings:
            left_s = -((now_ns - binding.expires_ns) // SECOND_NS)
            named = f";+sip.instance={binding.instance}" if binding.instance else ""
            flow = f";reg-id={binding.key[1]}" if binding.key != ("", "") else ""
            yield "Contact", f"<{binding.uri}>;expires={left_s}{named}{flow}"
        for value in request.all("path"):
            yield "Path", value
        if any(binding.key != ("", "") and binding.call_id == request.call_id for binding in bindings):
            yield "Require", "outbound"


def _expires_s(request: Request, contact: NameAddr) -> int:
    """Return how long a contact asks to stay: its own word, the request's, or our default (section 10.2.1.1)."""
    value = contact.params.get("expires") or request.get("expires")
    if not value:
        return DEFAULT_EXPIRES_S
    if not value.isascii() or not value.isdigit():
        # A malformed value is as good as none (section 20.19 of RFC 3261 speaks of 3600).
        return DEFAULT_EXPIRES_S
    return parse_number(value, 2**32 - 1) if len(value.lstrip("0")) <= 9 else MAX_EXPIRES_S


def _flow_key(request: Request, contact: NameAddr) -> tuple[str, str]:
    """Return instance and reg-id of a phone that keeps its flow to us, with no proxy between (RFC 5626 section 6)."""
    instance, number = contact.params.get("+sip.instance"), contact.params.get("reg-id")
    outbound = "outbound" in (tag.lower() for tag in request.tokens("supported") + request.tokens("require"))
    direct = len(request.all("via")) == 1 and "path" not in request.headers
    if not (instance and number and outbound and direct):
        return "", ""
    if not number.isascii() or not number.isdigit() or len(number) > 10:
        raise ParseError("a reg-id is no number")
    return instance, number


def _comparable(uri_text: str) -> tuple[object, ...]:
    """Return what two URIs of one contact have in common (RFC 3261 section 19.1.4, as far as phones need it)."""
    uri = parse_uri(uri_text)
    transport = (uri.params.get("transport") or "").lower()
    return uri.scheme, uri.user, uri.host.lower(), uri.port, transport
