"""Peers: who sends us a call, what we know of him, and whether he may.

Owns: accounts, trunks, phones and strangers as one value; the challenge that asks for a login; the count of calls by line. Refuses
to know: mailboxes, sound, and what a caller's number opens (nothing).

Specification: RFC 3261 sections 22.1 and 22.2 (401 and WWW-Authenticate), RFC 7616 and RFC 8760 by ``sip.digest_server``, RFC 3325
(the trust domain).

Theory of operation: asked by the agent about each INVITE that would begin a call, before anything of it is kept (`door`), and then
by others about the same request, which gets the same answer as long as it is held: a login is used up by looking at it.
An account is known by its registration, a trunk by the address that its calls come from (the longest prefix wins) or by a
login, or by both when both are set; a phone by its login. Everybody else is a stranger: he may call when ``sip.callers`` is ``anyone``, and nothing that he asserts about others is believed.
What a refused caller hears depends on the settings alone and never on the user that he claims to be: 401 where anybody at all
could log in, else 403. A nonce is made without remembering it, so asking costs no memory. Passwords are read
again every few seconds and all at once, so that no answer takes longer for a user that exists.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

import structlog

from aftertone.config.sip import Account, Sip, Srtp, Trunk
from aftertone.errors import ConfigError
from aftertone.sip.budgets import source_of
from aftertone.sip.checks import Refusal
from aftertone.sip.digest_server import Checked, DigestServer, Verdict
from aftertone.sip.flow import Flow
from aftertone.sip.guesses import Guesses
from aftertone.sip.message import Request
from aftertone.sip.proof import Login

REALM: Final = "aftertone"
SECRETS_AGE_NS: Final = 10_000_000_000
"""A password that was changed in its file counts after this long at the latest."""
LOGIN_COUNTS_NS: Final = 3_600_000_000_000
"""How long the address of a login is known."""
MAX_LOGGED_IN: Final = 1000
"""Addresses of logins that are remembered; beyond it the oldest is forgotten."""
PLACE_COUNTS_NS: Final = 7 * 86_400_000_000_000
"""How long the place of a login is the user's own, where no attack keeps him out: over a weekend, and over a phone's longest registration."""
FULL_RETRY_S: Final = 30
"""What is asked of a trunk that has as many calls as it may."""
TOLD_A_MINUTE: Final = 10
"""Refused strangers that the log tells of; scanners would fill it."""
_MINUTE_NS: Final = 60_000_000_000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
K = TypeVar("K")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class PeerKind(enum.StrEnum):
    """What a peer is to us. The journal stores these words: add, never rename."""

    ACCOUNT = "account"
    TRUNK = "trunk"
    PHONE = "phone"
    STRANGER = "stranger"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sends us a call."""

    kind: PeerKind
    name: str = ""
    """Name of the account or trunk, user of the phone; empty for a stranger."""
    mailbox: str = ""
    """Mailbox of every call of this line; empty finds it by the call."""
    trust: bool = False
    """Whether his word about callers counts (RFC 3325)."""
    srtp: Srtp = "optional"
    """What holds for his calls' sound, the setting of all calls included."""

    @property
    def label(self) -> str:
        """Return ``trunk pbx`` and the like, for reasons and logs."""
        return f"{self.kind.value} {self.name}".rstrip()


@dataclass(frozen=True, slots=True)
class Turned:
    """Somebody who may not call, and what he is answered."""

    answer: Refusal
    reason: str


@dataclass(slots=True)
class Line:
    """How much a trunk or account is used."""

    calls: int = 0
    last_call_unix_ms: int = 0


@dataclass(slots=True)
class _Secrets:
    by_user: dict[str, str] = field(default_factory=dict)
    read_ns: int | None = None


class Peers:
    """All peers of one line. Everything happens on the event loop's thread."""

    def __init__(
        self,
        settings: Sip,
        *,
        secret: bytes,
        logger: structlog.typing.FilteringBoundLogger,
        account_of: Callable[[Request, Flow], Account | None] | None = None,
        on_wrong_login: Callable[[Flow], None] | None = None,
        user_failures: int = 20,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``secret``: 16 bytes or more of entropy, for nonces. ``account_of``: by which account of ours a request came, None
        for no account. ``on_wrong_login`` hears of every login that failed, so that its source can be held to a budget.
        ``user_failures``: wrong passwords for one user within a minute from places that are not known to be his.
        """
        self._settings, self._logger, self._clock_ns = settings, logger, clock_ns
        self.account_of = account_of
        self.dialog_login: Callable[[str], Login | None] | None = None
        """How requests of ours log in, in calls that came by an account of that name."""
        self._on_wrong_login = on_wrong_login
        self._digest = DigestServer(REALM, secret, offered=settings.digest)
        self._networks = _networks_of(settings.trunks)
        self._logins: Final = {trunk.user: trunk for trunk in settings.trunks if trunk.user}
        self._phones: Final = {phone.user: phone for phone in settings.phones}
        self.guesses: Final = Guesses([*self._logins, *self._phones], user_failures)
        self._limits: Final = {trunk.name: trunk.calls_at_once for trunk in settings.trunks if trunk.calls_at_once}
        self.open_calls_by: Callable[[str], int] = lambda _: 0
        """How many calls of a peer are open, by its label."""
        self._logged_in: OrderedDict[str, int] = OrderedDict()
        self._places: OrderedDict[tuple[str, str], int] = OrderedDict()
        """Users and the sources where they proved who they are."""
        self.also_at_home: list[Callable[[str, str], bool]] = []
        """Who else knows the places of a user: the registrations of phones with us, which outlive a restart."""
        self.also_known: list[Callable[[str], bool]] = []
        """Who else knows addresses: the registrations, ours at others and those of phones with us."""
        self._secrets, self._reading = _Secrets(), False
        self._met: WeakKeyDictionary[Request, Peer | Turned] = WeakKeyDictionary()
        self._told: tuple[int, int] = (0, 0)
        self.counters: Final[Counter[str]] = Counter()
        self.lines: Final[dict[tuple[PeerKind, str], Line]] = {
            **{(PeerKind.ACCOUNT, account.name): Line() for account in settings.accounts},
            **{(PeerKind.TRUNK, trunk.name): Line() for trunk in settings.trunks},
        }

    def of(self, request: Request, flow: Flow) -> Peer | Turned:
        """Return who sends this INVITE, or why he may not call. The same request is looked at once: a login counts once."""
        met = self._met.get(request)
        if met is None:
            met = self._met[request] = self._meet(request, flow)
        return met

    def known(self, request: Request, flow: Flow) -> Peer | Turned:
        """Return who asks for something that is not for strangers, such as how many messages wait, or how he is refused.

        An account is no name for that: through its registrar anybody may send us a request, as anybody may call.
        """
        at_home = self._trunk_at(flow.remote[0])
        return self._trunk(at_home) if at_home is not None and not at_home.user else self.login(request, flow)

    def login(self, request: Request, flow: Flow) -> Peer | Turned:
        """Return who proves by a secret who he is, wherever he asks from, or how he is refused."""
        return self._by_login(self._check(request, flow), flow)

    def trusts(self, request: Request, flow: Flow) -> bool:
        """Tell whether what this INVITE asserts about its caller counts."""
        met = self.of(request, flow)
        return isinstance(met, Peer) and met.trust

    def door(self, request: Request, flow: Flow) -> Refusal | None:
        """Say for the agent how to refuse an INVITE, None to let it in; see ``Agent.admit_by``."""
        met = self.of(request, flow)
        if isinstance(met, Peer):
            if not self._is_full(met):
                return None
            met = Turned(
                Refusal(503, (("Retry-After", str(FULL_RETRY_S)),)), f"{met.label} has as many calls as it may at once"
            )
        self.counters[f"answered_{met.answer.status}"] += 1
        if met.answer.status != 401:
            self._tell(met, flow)
        return met.answer

    def label_of(self, request: Request, flow: Flow) -> str:
        """Return under which name a call counts that was let in; empty for a stranger."""
        met = self.of(request, flow)
        return met.label if isinstance(met, Peer) and met.kind is not PeerKind.STRANGER else ""

    def _is_full(self, peer: Peer) -> bool:
        most = self._limits.get(peer.name, 0) if peer.kind is PeerKind.TRUNK else 0
        return bool(most) and self.open_calls_by(peer.label) >= most

    def knows(self, host: str) -> bool:
        """Tell whether an address is a trunk's, or one from which somebody logged in lately: it may ask more than strangers may."""
        logged_in_ns = self._logged_in.get(host)
        if logged_in_ns is not None and self._clock_ns() - logged_in_ns < LOGIN_COUNTS_NS:
            return True
        return self._trunk_at(host) is not None or any(know(host) for know in self.also_known)

    def login_for(self, peer: Peer) -> Login | None:
        """Return with what our requests in a call answer challenges. Whoever came by no account of ours has no business to ask."""
        return self.dialog_login(peer.name) if self.dialog_login and peer.kind is PeerKind.ACCOUNT else None

    def called(self, peer: Peer, unix_ms: int) -> None:
        """Count a call that was answered."""
        line = self.lines.get((peer.kind, peer.name))
        if line is not None:
            line.calls += 1
            line.last_call_unix_ms = unix_ms

    def has(self, label: str) -> bool:
        """Tell whether the settings still have a peer that was labelled so."""
        phones = {f"{PeerKind.PHONE.value} {user}" for user in self._phones}
        return label in phones | {f"{kind.value} {name}" for kind, name in self.lines}

    def facts(self) -> list[dict[str, object]]:
        """Return kind, name, calls and last call of every account and trunk, for the line's status."""
        return [
            {"kind": kind.value, "name": name, "calls": line.calls, "last_call_unix_ms": line.last_call_unix_ms}
            for (kind, name), line in self.lines.items()
        ]

    # Who it is

    def _meet(self, request: Request, flow: Flow) -> Peer | Turned:
        account = None if self.account_of is None else self.account_of(request, flow)
        if account is not None:
            return Peer(PeerKind.ACCOUNT, account.name, account.mailbox, account.trust, self._srtp(account.srtp))
        at_home = self._trunk_at(flow.remote[0])
        if at_home is not None and not at_home.user:
            return self._trunk(at_home)
        checked = self._check(request, flow)
        if checked.verdict is Verdict.ABSENT and at_home is None and self._settings.callers == "anyone":
            return Peer(PeerKind.STRANGER, srtp=self._settings.srtp)
        return self._by_login(checked, flow)

    def _by_login(self, checked: Checked, flow: Flow) -> Peer | Turned:
        if checked.verdict is Verdict.OK:
            peer = self._who_logged_in(checked.user, flow.remote[0])
            if peer is not None:
                _remember(self._logged_in, flow.remote[0], self._clock_ns())
                _remember(self._places, (checked.user, source_of(flow.remote[0])), self._clock_ns())
                return peer
        if checked.verdict is Verdict.MALFORMED:
            return Turned(Refusal(400), "credentials that answer no challenge")
        if not checked.looked_at:
            # Its source is not to blame: it may be the user himself, at a new place.
            self.counters["logins_not_looked_at"] += 1
        elif checked.verdict in (Verdict.WRONG, Verdict.OK):
            self.counters["wrong_logins"] += 1
            if not self._is_at_home(checked.user, flow.remote[0]):
                self.guesses.failed(checked.user, self._clock_ns())
            if self._on_wrong_login is not None:
                self._on_wrong_login(flow)
        return self._turn(flow, stale=checked.verdict is Verdict.STALE)

    def _turn(self, flow: Flow, *, stale: bool = False) -> Turned:
        if not self._logins and not self._phones:
            return Turned(Refusal(403), "a stranger, and sip.callers lets in only those who are known")
        # Whoever is asked for a password will answer in a moment.
        self._look_at_secrets()
        source = source_of(flow.remote[0])
        values = self._digest.challenges(self._clock_ns(), stale=stale, source=source)
        return Turned(Refusal(401, tuple(("WWW-Authenticate", value) for value in values)), "a login is wanted")

    def _trunk_at(self, host: str) -> Trunk | None:
        address = _address_of(host)
        if address is None:
            return None
        return next((trunk for network, trunk in self._networks if address in network), None)

    def _check(self, request: Request, flow: Flow) -> Checked:
        if not self._logins and not self._phones:
            return Checked(Verdict.ABSENT)
        for name in ("authorization", "proxy-authorization"):
            if name in request.headers:
                secrets, host = self._current_secrets(), flow.remote[0]
                checked = self._digest.verify(
                    request,
                    secrets.get,
                    self._clock_ns(),
                    field=name,
                    source=source_of(host),
                    may_try=functools.partial(self._may_try, host),
                )
                if checked.verdict is not Verdict.ABSENT:
                    return checked
        return Checked(Verdict.ABSENT)

    def _may_try(self, host: str, user: str) -> bool:
        return self._is_at_home(user, host) or self.guesses.may_try(user, self._clock_ns())

    def _is_at_home(self, user: str, host: str) -> bool:
        """Tell whether a place is a user's own, so that no stranger's guesses keep him out there."""
        there_ns = self._places.get((user, source_of(host)))
        if there_ns is not None and self._clock_ns() - there_ns < PLACE_COUNTS_NS:
            return True
        trunk, address = self._logins.get(user), _address_of(host)
        networks = [network for network, other in self._networks if other is trunk]
        if trunk is not None and address is not None and any(address in network for network in networks):
            return True
        return user in self._phones and any(know(user, host) for know in self.also_at_home)

    def _who_logged_in(self, user: str, host: str) -> Peer | None:
        trunk = self._logins.get(user)
        if trunk is not None:
            # With addresses too, the right secret from elsewhere is a stolen one.
            address = _address_of(host)
            home = [network for network, other in self._networks if other is trunk]
            at_home = not home or (address is not None and any(address in network for network in home))
            return self._trunk(trunk) if at_home else None
        phone = self._phones.get(user)
        return None if phone is None else Peer(PeerKind.PHONE, phone.user, srtp=self._settings.srtp)

    def _trunk(self, trunk: Trunk) -> Peer:
        return Peer(PeerKind.TRUNK, trunk.name, trunk.mailbox, trunk.trust, self._srtp(trunk.srtp))

    def _srtp(self, own: Srtp | None) -> Srtp:
        return self._settings.srtp if own is None else own

    def _current_secrets(self) -> Mapping[str, str]:
        """Return the passwords by user; those of the last reading while a new one is under way."""
        if self._secrets.read_ns is None:
            self._secrets = _Secrets(self._read_secrets(), self._clock_ns())
        self._look_at_secrets()
        return self._secrets.by_user

    def _look_at_secrets(self) -> None:
        """Read the passwords again when that was long ago; beside the loop, for a file may lie on a disk that holds its reader."""
        now_ns, read_ns = self._clock_ns(), self._secrets.read_ns
        if self._reading or read_ns is None or now_ns - read_ns <= SECRETS_AGE_NS:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._secrets = _Secrets(self._read_secrets(), now_ns)
            return
        self._reading = True

        def take(read: asyncio.Future[dict[str, str]]) -> None:
            self._reading = False
            if not read.cancelled():
                self._secrets = _Secrets(read.result(), self._clock_ns())

        loop.run_in_executor(None, self._read_secrets).add_done_callback(take)

    def _read_secrets(self) -> dict[str, str]:
        found = {}
        for user, login in {**self._phones, **self._logins}.items():
            try:
                found[user] = login.password()
            except ConfigError as error:
                self._logger.error("a login cannot be checked: nobody gets in by it", user=user, error=str(error))
        return found

    def _tell(self, turned: Turned, flow: Flow) -> None:
        now_ns = self._clock_ns()
        since_ns, told = self._told
        if now_ns - since_ns > _MINUTE_NS or told == 0:
            since_ns, told = now_ns, 0
        self._told = (since_ns, told + 1)
        if told < TOLD_A_MINUTE:
            self._logger.warning("call refused", status=turned.answer.status, reason=turned.reason, peer=flow.remote[0])


def _remember(table: OrderedDict[K, int], key: K, now_ns: int) -> None:
    """Note a moment as the newest; beyond ``MAX_LOGGED_IN`` the oldest is forgotten."""
    table[key] = now_ns
    table.move_to_end(key)
    if len(table) > MAX_LOGGED_IN:
        table.popitem(last=False)


def _networks_of(trunks: tuple[Trunk, ...]) -> list[tuple[Network, Trunk]]:
    """Return every network with its trunk, the longest prefix first."""
    found = [(ipaddress.ip_network(text), trunk) for trunk in trunks for text in trunk.addresses]
    return sorted(found, key=lambda one: one[0].prefixlen, reverse=True)


def _address_of(host: str) -> Address | None:
    """Return the address of a peer; an IPv4 address that came through an IPv6 socket is an IPv4 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
