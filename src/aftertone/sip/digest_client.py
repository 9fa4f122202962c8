"""Proving who we are to registrars and proxies.

Owns: the challenges that servers gave us, realm by realm, and the credentials that answer them. Refuses to know: requests and
when they are sent again.

Specification: RFC 7616 section 3.4, RFC 3261 section 22, RFC 8760 section 2.4 (of several algorithms we take the strongest that we
know: our local policy).

Theory of operation: send a request with the fields of ``authorize``; when 401 or 407 comes, give it to ``challenged`` together
with those fields, and send the request again with what ``authorize`` returns now. Several requests may be under way at once. What was learned is kept, so that later requests are authorised before anybody asks. A challenge
that comes back after it was answered, or a new one straight after an answer, means that the secret is wrong: an error,
never a loop. Only a nonce that the server calls stale, or one that had served before, is worth another try.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aftertone.errors import PeerError
from aftertone.sip.builder import Fields
from aftertone.sip.digest import STRENGTH, Challenge, digest_response, hashed_user, parse_challenges, parse_elements
from aftertone.sip.headers import quote
from aftertone.sip.message import Response

MAX_REALMS: Final = 4
"""A registrar and the proxies before it. A server that names a new realm each time must not grow our table."""
MAX_STALE: Final = 3
"""Nonces that may be called stale in a row before we believe that it is no accident."""


class AuthenticationError(PeerError):
    """We cannot prove who we are."""


class WrongSecretError(AuthenticationError):
    """The server knows the user name or the password otherwise; asking again with the same would be refused again."""


class NoChallengeError(AuthenticationError):
    """The answer has no challenge of a kind that we know, so that there is nothing to answer."""


class StaleError(AuthenticationError):
    """The server calls every answer stale: a matter of its clock or of our network, and not of the secret."""

    retry = True


@dataclass(slots=True)
class _Realm:
    """What one realm asked for last."""

    challenge: Challenge
    field_name: str
    uses: int = 0
    """Answers given with this nonce."""
    stale: int = 0
    """Nonces called stale since the last success."""
    cnonce: str = field(default="", repr=False)


class DigestClient:
    """One user name and password, and the realms that asked for them. Neither is ever shown."""

    def __init__(self, user: str, password: str, entropy: Callable[[int], bytes]) -> None:
        self._user = user
        self._password = password
        self._entropy = entropy
        self._realms: dict[tuple[str, str], _Realm] = {}
        self._expected: dict[str, Challenge] | None = None
        """By realm, the weakest challenge that is answered; None answers all."""

    def __repr__(self) -> str:
        return f"<DigestClient of {len(self._realms)} realms>"

    def for_dialog(self) -> DigestClient:
        """Return a client of the same user that answers only what this one was asked for: the same realms, no weaker.

        For challenges that somebody else than the registrar may have made up; it learns for itself.
        """
        other = DigestClient(self._user, self._password, self._entropy)
        other._expected = {}
        for (_, realm), known in self._realms.items():
            before = other._expected.get(realm)
            if before is None or _is_weaker(known.challenge, before):
                other._expected[realm] = known.challenge
        return other

    def challenged(self, response: Response, sent: Fields = ()) -> None:
        """Learn from a 401 or 407 what to answer. ``sent``: what ``authorize`` returned for the request that it answers.

        Raises WrongSecretError when our answer was what was refused, StaleError when it was called stale too often, and
        NoChallengeError when we know no answer.
        """
        proxy = response.status == 407
        asks, answers = (
            ("proxy-authenticate", "Proxy-Authorization") if proxy else ("www-authenticate", "Authorization")
        )
        best: dict[str, Challenge] = {}
        for challenge in parse_challenges(response.headers.get(asks, ())):
            if self._expected is not None:
                floor = self._expected.get(challenge.realm)
                if floor is None or _is_weaker(challenge, floor):
                    continue
            known = best.get(challenge.realm)
            if known is None or STRENGTH[challenge.algorithm] > STRENGTH[known.algorithm]:
                best[challenge.realm] = challenge
        if not best:
            raise NoChallengeError("the server asks for a login of a kind that we do not know")
        given = _given(sent, answers)
        for challenge in list(best.values())[:MAX_REALMS]:
            self._learn(challenge, answers, given.get(challenge.realm))

    def accepted(self) -> None:
        """Hear that the last request was not refused for its login."""
        for realm in self._realms.values():
            realm.stale = 0

    def authorize(self, method: str, uri: str, body: bytes = b"") -> tuple[tuple[str, str], ...]:
        """Return the header fields that authorise one request; none before the first challenge. Counts a use."""
        return tuple((realm.field_name, self._credentials(realm, method, uri, body)) for realm in self._realms.values())

    def _learn(self, challenge: Challenge, field_name: str, given: Mapping[str, str] | None) -> None:
        key = (field_name, challenge.realm)
        before = self._realms.get(key)
        stale = 0
        if given is not None:
            stale = 1 + (before.stale if before is not None else 0)
            uses = before.uses if before is not None else 1
            fresh = int(given["nc"], 16) == 1 if "nc" in given else uses == 1
            if not challenge.stale and (fresh or given["nonce"] == challenge.nonce):
                self._realms.pop(key, None)
                raise WrongSecretError("the server refused our user name or password")
            if stale > MAX_STALE:
                self._realms.pop(key, None)
                raise StaleError("the server calls every answer of ours stale, and never takes one")
        if before is None and len(self._realms) >= MAX_REALMS:
            del self._realms[next(iter(self._realms))]
        self._realms[key] = _Realm(challenge, field_name, stale=stale, cnonce=self._entropy(8).hex())

    def _credentials(self, realm: _Realm, method: str, uri: str, body: bytes) -> str:
        challenge = realm.challenge
        realm.uses += 1
        count = f"{realm.uses:08x}"
        user = hashed_user(challenge.algorithm, self._user, challenge.realm) if challenge.userhash else self._user
        response = digest_response(
            algorithm=challenge.algorithm,
            user=self._user,
            realm=challenge.realm,
            password=self._password,
            method=method,
            uri=uri,
            nonce=challenge.nonce,
            qop=challenge.qop,
            nonce_count=count,
            cnonce=realm.cnonce,
            body=body,
        )
        # Which values are quoted is not ours to choose: RFC 7616 section 3.4 says it, and old servers insist.
        parts = [
            f"username={quote(user)}",
            f"realm={quote(challenge.realm)}",
            f"nonce={quote(challenge.nonce)}",
            f"uri={quote(uri)}",
            f'response="{response}"',
        ]
        if challenge.named:
            parts.append(f"algorithm={challenge.algorithm}")
        if challenge.qop:
            parts += [f'cnonce="{realm.cnonce}"', f"qop={challenge.qop}", f"nc={count}"]
        if challenge.opaque is not None:
            parts.append(f"opaque={quote(challenge.opaque)}")
        if challenge.userhash:
            parts.append("userhash=true")
        return "Digest " + ", ".join(parts)


def _is_weaker(one: Challenge, other: Challenge) -> bool:
    return STRENGTH[one.algorithm] < STRENGTH[other.algorithm] or (bool(other.qop) and not one.qop)


def _given(sent: Fields, field_name: str) -> dict[str, Mapping[str, str]]:
    """Return the parameters of our own credentials by realm."""
    return {
        params["realm"]: params for name, value in sent if name == field_name for _, params in parse_elements(value)
    }
