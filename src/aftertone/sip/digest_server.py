"""Asking others who they are, and checking what they answer.

Owns: nonces, their expiry and the table of those that were used. Refuses to know: passwords (the caller looks them up), and
what a user may do.

Specification: RFC 7616 sections 3.3 to 3.5 and 5.4, RFC 3261 section 22, RFC 8760 section 2.3 (one challenge for each algorithm, the
strongest first).

Theory of operation: a nonce is the time and a number under a seal (HMAC) that only this process can make, so that
challenging costs no memory. The seal holds for one source: whoever forges the address of another never sees a nonce that
would be taken from there, so that nobody can fail in another's name. Credentials with any other nonce are not looked at: they get
a fresh one. Only a nonce that came back with the right secret is kept, with the highest count seen: a count
that does not grow is a replay, and is called stale so that an honest client tries anew. When the table is full, the
oldest half of what could be in it counts as stale. An answer without qop has no count, so that its nonce serves once. The
``uri`` of an answer is hashed as it came and not compared with the Request-URI, which proxies on the way may rewrite; what
it would protect from, replay, the count protects from.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aftertone.sip.digest import digest_response, known_algorithm, parse_elements
from aftertone.sip.faults import ParseError
from aftertone.sip.headers import quote
from aftertone.sip.message import Request
from aftertone.sip.settings import SECOND_NS

NONCE_LIFE_NS: Final = 300 * SECOND_NS
"""Long enough for a phone that refreshes every few minutes with the same nonce; what is older is stale."""
MAX_USED: Final = 20_000
"""Nonces remembered at once, about 3 MB."""
OFFERED: Final = ("SHA-256", "MD5")
"""What we ask for: a strong algorithm, and the one that every phone knows."""
_TIME, _COUNT, _SEAL = 16, 8, 32


class Verdict(enum.Enum):
    """What an answer is worth."""

    OK = "ok"
    ABSENT = "absent"
    """No credentials for our realm: challenge."""
    STALE = "stale"
    """The nonce is too old or was used before, or it was never made for this source and nothing else was looked at:
    challenge with stale."""
    WRONG = "wrong"
    """User or secret are not ours. Challenging again is the answer; too many of them is an attack."""
    MALFORMED = "malformed"
    """Not the answer to any challenge of ours (400)."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A verdict, and whose name was given; a name is proven only with ``Verdict.OK``."""

    verdict: Verdict
    user: str = ""
    looked_at: bool = True
    """False for a ``Verdict.WRONG`` that says nothing of the password: nobody was allowed to try it."""


class DigestServer:
    """One realm."""

    def __init__(
        self, realm: str, secret: bytes, *, life_ns: int = NONCE_LIFE_NS, offered: tuple[str, ...] = OFFERED
    ) -> None:
        """``secret``: at least 16 bytes of entropy, known to this process alone. ``offered``: algorithms, strongest first."""
        self.realm: Final = realm
        self._secret = hashlib.sha256(b"aftertone digest nonce" + secret).digest()
        self._life_ns = life_ns
        self._offered = offered
        self._made = 0
        self._used: dict[str, int] = {}
        self._floor_ns = -1
        """Nonces made at or before this time are stale, because what was known about them is forgotten."""

    def challenges(self, now_ns: int, *, stale: bool = False, source: str = "") -> tuple[str, ...]:
        """Return the values for as many WWW-Authenticate or Proxy-Authenticate fields; ``source``: who may answer them."""
        mark = ", stale=true" if stale else ""
        return tuple(
            f'Digest realm={quote(self.realm)}, nonce="{self._nonce(now_ns, source)}", algorithm={name}, qop="auth"{mark}'
            for name in self._offered
        )

    def verify(
        self,
        request: Request,
        secret_of: Callable[[str], str | None],
        now_ns: int,
        *,
        field: str = "authorization",
        source: str = "",
        may_try: Callable[[str], bool] = lambda _: True,
    ) -> Checked:
        """Say what the credentials of a request are worth. ``secret_of`` returns a user's password, None for nobody.

        ``field``: ``authorization`` or ``proxy-authorization``. ``source``: from where they came, as in ``challenges``.
        ``may_try``: whether an answer of this user may be looked at; where not, any is wrong. An unknown user, and one who may
        not be tried, take as long as a wrong password.
        """
        params = None
        for value in request.headers.get(field, ()):
            try:
                elements = parse_elements(value)
            except ParseError:
                return Checked(Verdict.MALFORMED)
            for scheme, found in elements:
                if scheme == "digest" and found.get("realm") == self.realm:
                    params = params or found
        return (
            Checked(Verdict.ABSENT)
            if params is None
            else self._check(params, request, secret_of, now_ns, source, may_try)
        )

    def _check(
        self,
        params: dict[str, str],
        request: Request,
        secret_of: Callable[[str], str | None],
        now_ns: int,
        source: str,
        may_try: Callable[[str], bool],
    ) -> Checked:
        user, nonce, qop = params.get("username", ""), params.get("nonce", ""), params.get("qop", "").lower()
        algorithm, count = known_algorithm(params.get("algorithm", "")), params.get("nc", "")
        if not user or "uri" not in params or "response" not in params or algorithm not in self._offered:
            return Checked(Verdict.MALFORMED, user)
        if qop not in ("", "auth") or (qop and (not _is_count(count) or not params.get("cnonce"))):
            return Checked(Verdict.MALFORMED, user)
        made_ns = self._made_ns(nonce, source)
        if made_ns is None:
            return Checked(Verdict.STALE, user)
        allowed = may_try(user)
        password = secret_of(user)
        expected = digest_response(
            algorithm=algorithm,
            user=user,
            realm=self.realm,
            password=password or "",
            method=request.method,
            uri=params["uri"],
            nonce=nonce,
            qop=qop,
            nonce_count=count,
            cnonce=params.get("cnonce", ""),
        )
        given = params["response"].lower().encode("utf-8", "surrogateescape")
        right = hmac.compare_digest(expected.encode(), given)
        if not right or not password or not allowed:
            return Checked(Verdict.WRONG, user, allowed)
        if not self._floor_ns < made_ns <= now_ns < made_ns + self._life_ns:
            return Checked(Verdict.STALE, user)
        number = int(count, 16) if qop else 1
        if number <= self._used.get(nonce, 0):
            return Checked(Verdict.STALE, user)
        # Without qop the nonce is spent: no count of this peer can ever be higher.
        self._remember(nonce, number if qop else 2**32, now_ns)
        return Checked(Verdict.OK, user)

    def _remember(self, nonce: str, number: int, now_ns: int) -> None:
        if nonce not in self._used and len(self._used) >= MAX_USED:
            self._forget(now_ns)
        self._used[nonce] = number

    def _forget(self, now_ns: int) -> None:
        """Make room: what expired goes; when that is too little, the older half goes and is stale from now on."""
        self._floor_ns = max(self._floor_ns, now_ns - self._life_ns)
        times = sorted(int(nonce[:_TIME], 16) for nonce in self._used)
        middle_ns = times[len(times) // 2]
        if middle_ns > self._floor_ns:
            self._floor_ns = middle_ns
        self._used = {nonce: number for nonce, number in self._used.items() if int(nonce[:_TIME], 16) > self._floor_ns}

    def _nonce(self, now_ns: int, source: str) -> str:
        self._made = (self._made + 1) % 2**32
        head = f"{now_ns:0{_TIME}x}{self._made:0{_COUNT}x}"
        return head + self._seal(head, source)

    def _made_ns(self, nonce: str, source: str) -> int | None:
        """Return when we made a nonce for a source, None for one that we did not."""
        head, seal = nonce[: _TIME + _COUNT], nonce[_TIME + _COUNT :]
        if not nonce.isascii() or not hmac.compare_digest(seal, self._seal(head, source)):
            return None
        return int(head[:_TIME], 16)

    def _seal(self, head: str, source: str) -> str:
        return hmac.new(self._secret, f"{self.realm}\n{source}\n{head}".encode(), hashlib.sha256).hexdigest()[:_SEAL]


def _is_count(text: str) -> bool:
    return len(text) == 8 and all(mark in "0123456789abcdefABCDEF" for mark in text)
