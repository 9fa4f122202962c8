"""One registration: being reachable under an address at somebody else's registrar.

Owns: what the next REGISTER says, what its answer means, and when the next one is due. Refuses to know: sockets, names and
which of several servers is asked (``roles.accounts`` does that), and what calls come in.

Specification: RFC 3261 section 10.2, RFC 5626 sections 4.2 and 4.5 (instance, flow, waiting after failures), RFC 3327 (Path),
RFC 3608 (Service-Route), RFC 5627 (GRUU), RFC 3581 (the address that others see).

Theory of operation: ``deadline_ns`` says when to ``ask``; what was asked ends in ``answered`` or ``failed``, and then there is
a new deadline. A challenge, a minimum, an extension that is not wanted are answered at once, at most ``MAX_STEPS`` times in a
row; everything else waits. A refusal that only a person can mend (wrong secret, unknown number) is tried again slowly, because registrars
lock out who insists; trouble that passes by itself is tried again after a pause that doubles. The pauses are random within
limits, so that a thousand phones do not come back in the same second after a power cut.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aftertone.sip.builder import contact_uri
from aftertone.sip.digest_client import AuthenticationError, DigestClient, WrongSecretError
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Address, Flow
from aftertone.sip.headers import NameAddr, parse_address, parse_number, unquote
from aftertone.sip.message import Response
from aftertone.sip.settings import SECOND_NS
from aftertone.sip.uri import parse_uri

MAX_STEPS: Final = 8
"""Challenge of a proxy, of the registrar, a stale one, a minimum, a plainer request, and two to spare."""
MAX_ROUTES: Final = 8
"""Hops of Path or Service-Route that are kept."""
MAX_PAUSE_NS: Final = 1800 * SECOND_NS
"""RFC 5626 section 4.5: max-time."""
MAX_SILENT_PAUSE_NS: Final = 300 * SECOND_NS
"""The same while nobody answers at all: a question that reaches nobody burdens nobody, and after a night without network the
account is back within minutes."""
SLOW_NS: Final = 1800 * SECOND_NS
"""The pause after a refusal that only a person can mend."""
LONGEST_S: Final = 7 * 86_400
"""More than this is neither asked for (423) nor believed (200)."""
PATIENCE_NS: Final = 40 * SECOND_NS
"""A server that says nothing is given up after 32 s; where there are several, people hear of it before the last one."""
STEADY_NS: Final = 60 * SECOND_NS
"""A connection that lives as long is lost by accident, and worth a new one at once."""
FIRST_BREATH_NS: Final = 2 * SECOND_NS
"""The pause before a new one when two in a row were not steady; it doubles with each further one."""
SHORTEST_REFRESH_NS: Final = 2 * SECOND_NS
"""A registrar that grants a second must not be asked twice in it."""
PERMANENT: Final = {
    403: "the registrar forbids it: check the user name, the secret and whether the account is allowed",
    404: "the registrar does not know the number: check user and registrar",
    410: "the number is gone at the registrar",
    604: "the registrar does not know the number: check user and registrar",
}
PLAINER: Final = frozenset({400, 420, 421, 439})
"""Answers of servers that stumble over extensions; the same request without them may pass."""
PASSING_ON: Final = frozenset({408, 500, 502, 503, 504})
"""Answers after which another server of the same registrar may do better (RFC 3263 section 4.3)."""


class State(enum.Enum):
    """How a registration stands."""

    REGISTERING = "registering"
    REGISTERED = "registered"
    FAILING = "failing"
    GONE = "gone"
    """Removed, or given up, because the line stops."""


@dataclass(frozen=True, slots=True)
class Registrant:
    """Who registers where."""

    registrar: str
    """The Request-URI: ``sip:provider.example``."""
    address: str
    """The address of record: ``sip:user@provider.example``."""
    user: str
    """User part of our Contact."""
    line: str
    """64 random bits or more as text: calls of this account bring it back in their Request-URI."""
    instance: str
    """A URN that is ours for ever: ``urn:uuid:...`` (RFC 5626 section 4.1)."""
    expires_s: int = 3600
    route: tuple[str, ...] = ()
    """URIs of proxies to pass, nearest first."""
    learn: bool = True
    """Put the address that the registrar sees into our Contact, when it is another than ours."""
    first_pause_ns: int = 30 * SECOND_NS
    """RFC 5626 section 4.5: base-time."""


@dataclass(frozen=True, slots=True)
class Register:
    """A REGISTER to send: arguments for ``Agent.request``."""

    target_uri: str
    address: str
    route: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    call_id: str
    from_tag: str
    cseq: int


class Registration:
    """One account at one registrar. All times are monotonic nanoseconds."""

    def __init__(self, who: Registrant, login: DigestClient, entropy: Callable[[int], bytes], now_ns: int) -> None:
        """``login`` may be replaced between two asks, when a person changed the secret."""
        self.who: Final = who
        self.login = login
        self.state = State.REGISTERING
        self.since_ns = now_ns
        self.reason = ""
        """Why it fails; empty otherwise."""
        self.expires_ns: int | None = None
        """When the registrar forgets us; None before the first success and after a removal."""
        self.service_route: tuple[str, ...] = ()
        self.path: tuple[str, ...] = ()
        self.public_gruu = self.temporary_gruu = ""
        self.outbound = False
        """The registrar keeps our flow (RFC 5626), so that a lost one is worth telling it at once."""
        self.flow_timer_s: int | None = None
        """How often the registrar wants to hear from us on the flow (RFC 5626 section 4.4)."""
        self.seen: Address | None = None
        """The address that the registrar sees, when it is not ours."""
        self._entropy = entropy
        self._call_id, self._from_tag = entropy(16).hex(), entropy(8).hex()
        self._cseq = 0
        self._deadline_ns: int | None = now_ns
        self._flow: Flow | None = None
        self._sent: tuple[tuple[str, str], ...] = ()
        self._contact = ""
        """The URI that the registrar has, or is being told."""
        self._bound = ""
        """The URI that the registrar took last."""
        self._expires_s = who.expires_s
        self._plain = self._leaving = self._removing = self._relearned = False
        self._taken_ns = now_ns
        """When the registrar took it last."""
        self._steps = self._failures = self._brief = 0
        """``_brief``: connections in a row that were lost soon after."""
        self._trouble = ""
        """What the servers that were asked so far in this round said."""

    def deadline_ns(self) -> int | None:
        """Return when to ``ask``; None while an answer is awaited, and when all is over."""
        return self._deadline_ns

    def state_at(self, now_ns: int) -> State:
        """Return how it stands for whoever looks: a registration that ran out while its refresh is unanswered is none."""
        expired = self.expires_ns is not None and self.expires_ns <= now_ns
        return State.REGISTERING if self.state is State.REGISTERED and expired else self.state

    def reason_at(self, now_ns: int) -> str:
        """Return why there is no registration, for a person; empty when there is one, or one may come any moment."""
        if self.state_at(now_ns) is not State.REGISTERING:
            return self.reason
        since_ns = self.since_ns if self.state is State.REGISTERING or self.expires_ns is None else self.expires_ns
        if now_ns - since_ns < PATIENCE_NS:
            return ""
        return self._trouble or "no server has answered yet"

    def ask(self, flow: Flow) -> Register:
        """Return the request to send over ``flow`` now; ``answered`` or ``failed`` must follow."""
        who = self.who
        self._deadline_ns, self._flow, self._removing = None, flow, self._leaving
        self._cseq += 1
        self._steps += 1
        self._contact = self._bound if self._removing and self._bound else self._contact_uri()
        expires_s = 0 if self._removing else self._expires_s
        self._sent = self.login.authorize("REGISTER", who.registrar)
        headers = [("Contact", self._contact_line(expires_s))]
        if self._bound not in ("", self._contact):
            headers.append(("Contact", f"<{self._bound}>;expires=0"))
        headers.append(("Expires", str(expires_s)))
        if not self._plain:
            headers.append(("Supported", "path, outbound, gruu"))
        headers += self._sent
        return Register(
            who.registrar, who.address, who.route, tuple(headers), self._call_id, self._from_tag, self._cseq
        )

    def answered(self, response: Response, now_ns: int, *, others: bool = False) -> None:
        """Take the final answer. ``others``: there is another server to ask at once, should this one be in trouble."""
        status = response.status
        self._learn(response)
        if status in (401, 407):
            self._challenged(response, now_ns)
        elif self._removing:
            # Whatever the answer to a removal is: we do not stay for it.
            self._end(now_ns)
        elif status < 300:
            self._succeeded(response, now_ns)
        elif status == 423:
            self._too_brief(response, now_ns)
        elif status in PLAINER and not self._plain:
            self._plain = True
            self._again(f"the registrar answered {_shown(response)}", now_ns)
        elif status in PERMANENT:
            self._fail(f"{PERMANENT[status]} ({_shown(response)})", now_ns, slow=True)
        elif status in PASSING_ON and others:
            self._next_server(f"the registrar refuses ({_shown(response)})", now_ns)
        else:
            what = "sends us elsewhere" if status < 400 else "refuses"
            self._fail(f"the registrar {what} ({_shown(response)})", now_ns, at_least_s=_retry_after_s(response))
        self._leave_now(now_ns)

    def failed(self, reason: str, now_ns: int, *, others: bool = False) -> None:
        """Hear that no answer came, or that nothing could be sent. ``others``: another server can be asked at once."""
        if self._leaving:
            self._end(now_ns)
        elif others:
            self._next_server(reason, now_ns)
        else:
            self._fail(reason, now_ns, longest_ns=MAX_SILENT_PAUSE_NS)

    def flow_lost(self, now_ns: int) -> None:
        """Hear that the connection is gone over which calls would come: register anew at once (RFC 5626 section 4.2.2).

        A registrar that takes the registration and closes the connection each time is given longer and longer pauses, up
        to the refresh that is due anyway.
        """
        if self.state is not State.REGISTERED or self._deadline_ns is None:
            return
        self._brief = self._brief + 1 if now_ns - self._taken_ns < STEADY_NS else 0
        pause_ns = 0
        if self._brief > 1:
            self._trouble = "the registrar took the registration and closed the connection"
            pause_ns = min(MAX_PAUSE_NS, FIRST_BREATH_NS * 2 ** min(self._brief - 2, 20))
        self._change(State.REGISTERING, now_ns)
        self._deadline_ns = max(now_ns, min(self._deadline_ns, now_ns + pause_ns))

    def leave(self, now_ns: int) -> None:
        """Remove the registration, because the line stops; where there is none, all is over at once."""
        self._leaving = True
        self._leave_now(now_ns)

    # What answers mean

    def _succeeded(self, response: Response, now_ns: int) -> None:
        self.login.accepted()
        mine = self._mine(response)
        granted_s = self._granted_s(response, mine)
        if granted_s == 0:
            self._fail("the registrar took the registration and let it end at once", now_ns)
            return
        self._bound = self._contact
        self._steps = self._failures = 0
        self._trouble = ""
        self._taken_ns = now_ns
        self.expires_ns = now_ns + granted_s * SECOND_NS
        params = mine.params if mine is not None else {}
        self.public_gruu = unquote(params.get("pub-gruu") or "")
        self.temporary_gruu = unquote(params.get("temp-gruu") or "")
        self.service_route = _uris(response, "service-route")
        self.path = _uris(response, "path")
        self.outbound = not self._plain and "outbound" in [tag.lower() for tag in _listed(response, "require")]
        self.flow_timer_s = _number(response.get("flow-timer"), LONGEST_S)
        self._change(State.REGISTERED, now_ns)
        # Half to nine tenths of what was granted: early enough to try again, and not all at the same moment.
        pause_ns = int(granted_s * SECOND_NS * (0.5 + 0.4 * self._chance()))
        self._deadline_ns = now_ns + max(pause_ns, SHORTEST_REFRESH_NS)
        relearn = self._contact_uri() != self._bound and not self._relearned
        # Once only: behind some NATs the port is another each time.
        self._relearned = relearn
        if relearn:
            self._deadline_ns = now_ns

    def _challenged(self, response: Response, now_ns: int) -> None:
        try:
            self.login.challenged(response, self._sent)
        except WrongSecretError as error:
            self._fail(f"{error}: check user, auth_user and secret ({_shown(response)})", now_ns, slow=True)
        except AuthenticationError as error:
            self._fail(f"{error} ({_shown(response)})", now_ns, slow=not error.retry)
        else:
            self._again(f"the registrar keeps asking for a login ({_shown(response)})", now_ns)

    def _too_brief(self, response: Response, now_ns: int) -> None:
        """Ask for as long as the registrar wants (RFC 3261 section 10.2.8)."""
        least_s = _number(response.get("min-expires"), LONGEST_S)
        if least_s is None or least_s <= self._expires_s:
            self._fail(f"the registrar wants longer registrations, but not how long ({_shown(response)})", now_ns)
            return
        self._expires_s = least_s
        self._again(f"the registrar wants ever longer registrations ({_shown(response)})", now_ns)

    def _learn(self, response: Response) -> None:
        """See ourselves as the registrar does (RFC 3581). Over a connection only the host can tell of a NAT."""
        flow = self._flow
        if not self.who.learn or flow is None:
            return
        try:
            params = response.via.params
            host = (params.get("received") or flow.local[0]).strip("[]")
            ipaddress.ip_address(host)
            port = parse_number(params.get("rport") or str(flow.local[1]), 65535)
        except (ParseError, ValueError):
            return
        is_other = host != flow.local[0] or (not flow.reliable and port != flow.local[1])
        self.seen = (host, port) if is_other and port else None

    def _mine(self, response: Response) -> NameAddr | None:
        """Find our Contact among those that the registrar has: it may have rewritten the host, not the line."""
        for value in _listed(response, "contact"):
            try:
                found = parse_address(value)
                if parse_uri(found.uri).params.get("line") == self.who.line:
                    return found
            except ParseError:
                continue
        return None

    def _granted_s(self, response: Response, mine: NameAddr | None) -> int:
        """Return for how long we are registered (RFC 3261 section 10.2.4): our Contact says it, else Expires."""
        own = _number((mine.params.get("expires") or "") if mine is not None else "", 2**32 - 1)
        general = _number(response.get("expires"), 2**32 - 1)
        granted = next((one for one in (own, general) if one is not None), self._expires_s)
        return min(granted, LONGEST_S)

    # What comes next

    def _again(self, otherwise: str, now_ns: int) -> None:
        """Ask again at once, unless that has gone on for too long."""
        if self._steps < MAX_STEPS:
            self._deadline_ns = now_ns
        else:
            self._fail(otherwise, now_ns)

    def _next_server(self, trouble: str, now_ns: int) -> None:
        self._trouble = trouble
        self._steps = 0
        self._deadline_ns = now_ns

    def _fail(
        self, reason: str, now_ns: int, *, slow: bool = False, at_least_s: int = 0, longest_ns: int = MAX_PAUSE_NS
    ) -> None:
        """Say why, and wait: slowly for what a person must mend, else twice as long each time."""
        if self._removing:
            self._end(now_ns)
            return
        doubled_ns = self.who.first_pause_ns * 2 ** min(self._failures, 20)
        pause_ns = SLOW_NS if slow else min(longest_ns, doubled_ns)
        pause_ns = int(pause_ns * (0.5 + 0.5 * self._chance()))
        self._failures += 1
        self._steps = 0
        self._relearned = False
        self._change(State.FAILING, now_ns, reason)
        self._deadline_ns = now_ns + max(pause_ns, at_least_s * SECOND_NS)

    def _leave_now(self, now_ns: int) -> None:
        """Turn what is planned into the removal, once no answer is awaited any more."""
        if not self._leaving or self.state is State.GONE or self._deadline_ns is None:
            return
        if self.expires_ns is None:
            self._end(now_ns)
        else:
            self._deadline_ns = now_ns

    def _end(self, now_ns: int) -> None:
        self.expires_ns = self._deadline_ns = None
        self._change(State.GONE, now_ns)

    def _change(self, state: State, now_ns: int, reason: str = "") -> None:
        if state is not self.state:
            self.since_ns = now_ns
        self.state, self.reason = state, reason

    def _chance(self) -> float:
        return int.from_bytes(self._entropy(4), "big") / 2**32

    def _contact_uri(self) -> str:
        """Return where we are reached over the flow of the last request, as far as we know."""
        flow = self._flow
        if flow is None:
            return self._contact
        place = flow if self.seen is None else Flow(flow.transport, flow.remote, self.seen)
        return f"{contact_uri(place, self.who.user)};line={self.who.line}"

    def _contact_line(self, expires_s: int) -> str:
        """Write our Contact; reg-id names this flow among ours, of which there is one (RFC 5626 section 4.2.1)."""
        flow_id = "" if self._plain else f';reg-id=1;+sip.instance="<{self.who.instance}>"'
        return f"<{self._contact}>;expires={expires_s}{flow_id}"


def _shown(response: Response) -> str:
    """Return status and phrase for a person, whatever the peer wrote."""
    phrase = "".join(mark for mark in response.reason if mark.isprintable())[:60].strip()
    return f"{response.status} {phrase}".strip()


def _number(text: str, limit: int) -> int | None:
    try:
        return parse_number(text.strip(), limit)
    except ParseError:
        return None


def _retry_after_s(response: Response) -> int:
    """Return what Retry-After asks for, without its comment and parameters (RFC 3261 section 20.33); at most an hour."""
    digits = response.get("retry-after").partition(";")[0].partition("(")[0]
    return min(_number(digits, 2**32 - 1) or 0, 3600)


def _listed(response: Response, name: str) -> list[str]:
    """Return the elements of a list header; a malformed one counts as absent."""
    try:
        return response.all(name)
    except ParseError:
        return []


def _uris(response: Response, name: str) -> tuple[str, ...]:
    """Return the URIs of a route header in their order; a malformed one, or one that is too long, counts as absent."""
    try:
        found = tuple(parse_address(value).uri for value in response.all(name))
        for uri in found:
            parse_uri(uri)
    except ParseError:
        return ()
    return found if len(found) <= MAX_ROUTES else ()
