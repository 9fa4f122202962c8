"""Digest authentication: what a challenge says and what an answer to it is worth.

Owns: the grammar of challenges and credentials, the algorithms, and the arithmetic of a response. Refuses to know: who asks
(``digest_client``), who checks (``digest_server``), and where passwords are kept.

Specification: RFC 7616 with the algorithms of RFC 8760 for SIP, and what RFC 2617 left to old peers (no qop).

Theory of operation: a header value is cut at the commas outside quotes, once; an element that begins with two words opens
a new challenge, so that several may share a line. Schemes and algorithms that we do not know are passed over. What is malformed
raises ParseError, and nothing here keeps or shows a password.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aftertone.sip.faults import ParseError
from aftertone.sip.headers import BLANK, closing_quote, is_token, unquote

MAX_CHALLENGES: Final = 16
"""In one response: three algorithms in the realms of a few proxies; more is nobody's honest offer."""

_SEPARATOR = re.compile(r'[",]')


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha512_256(data: bytes) -> str:
    return hashlib.new("sha512_256", data).hexdigest()


ALGORITHMS: Final[Mapping[str, Callable[[bytes], str]]] = {
    # A library of hashes that was built without SHA-512/256 leaves us the others.
    **({"SHA-512-256": _sha512_256} if "sha512_256" in hashlib.algorithms_available else {}),
    "SHA-256": _sha256,
    "MD5": _md5,
}
"""Strongest first."""

STRENGTH: Final[Mapping[str, int]] = {
    name: rank for rank, base in enumerate(reversed(list(ALGORITHMS))) for name in (base, f"{base}-sess")
}
"""Every algorithm that we know, by its name as we write it; more is stronger."""
_BY_LOWER: Final[Mapping[str, str]] = {name.lower(): name for name in STRENGTH}


@dataclass(frozen=True, slots=True)
class Challenge:
    """One offer of a server, of a kind that we can answer (RFC 7616 section 3.3)."""

    realm: str
    nonce: str
    algorithm: str
    """As ``STRENGTH`` names it."""
    named: bool
    """The algorithm was written down; it is named back then, and only then."""
    qop: str
    """What we choose of the offer: ``auth``, else ``auth-int``, else empty for a server that offered nothing."""
    opaque: str | None
    stale: bool
    userhash: bool


def parse_elements(value: str) -> list[tuple[str, dict[str, str]]]:
    """Read one header value as schemes with their parameters, quotes resolved. Linear in the value; raises ParseError.

    Names are in lower case, schemes as well. A parameter that stands twice is refused.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for element in _elements(value):
        name, equals, text = element.partition("=")
        scheme, blank, name_after = name.strip(BLANK).partition(" ")
        if blank or not equals:
            # "Digest realm=..." opens a challenge; "Negotiate" and "Bearer abc" are whole ones of schemes not ours.
            found.append((scheme.lower(), {}))
            name = name_after
            if not equals or not is_token(name.strip(BLANK)):
                continue
        if not found:
            raise ParseError("a challenge or its answer names no scheme")
        params, name = found[-1][1], name.strip(BLANK).lower()
        if name in params or not is_token(name):
            if found[-1][0] != "digest":
                continue
            raise ParseError(f"a parameter of Digest is repeated or has no proper name: {name[:24]!r}")
        params[name] = unquote(text.strip(BLANK))
    return found


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Read the values of WWW-Authenticate or Proxy-Authenticate; return those that we can answer, in their order.

    A header line that is malformed hides no other. At most ``MAX_CHALLENGES`` are looked at.
    """
    found: list[Challenge] = []
    for value in values:
        try:
            elements = parse_elements(value)
        except ParseError:
            continue
        for scheme, params in elements[:MAX_CHALLENGES]:
            challenge = _challenge(params) if scheme == "digest" else None
            if challenge is not None and len(found) < MAX_CHALLENGES:
                found.append(challenge)
    return found


def digest_response(
    *,
    algorithm: str,
    user: str,
    realm: str,
    password: str,
    method: str,
    uri: str,
    nonce: str,
    qop: str = "",
    nonce_count: str = "",
    cnonce: str = "",
    body: bytes = b"",
) -> str:
    """Return the value of ``response``. ``algorithm`` is a key of ``STRENGTH``. Spec: RFC 7616 section 3.4.1."""
    work = ALGORITHMS[algorithm.removesuffix("-sess")]

    def joined(*parts: str) -> str:
        return work(":".join(parts).encode("utf-8", "surrogateescape"))

    secret = joined(user, realm, password)
    if algorithm.endswith("-sess"):
        secret = joined(secret, nonce, cnonce)
    asked = joined(method, uri, work(body)) if qop == "auth-int" else joined(method, uri)
    if qop:
        return joined(secret, nonce, nonce_count, cnonce, qop, asked)
    return joined(secret, nonce, asked)


def hashed_user(algorithm: str, user: str, realm: str) -> str:
    """Return the user name for a server that wants it hidden. Spec: RFC 7616 section 3.4.4."""
    return ALGORITHMS[algorithm.removesuffix("-sess")](f"{user}:{realm}".encode("utf-8", "surrogateescape"))


def known_algorithm(name: str) -> str | None:
    """Return an algorithm as we write it, None for one that we do not know; an empty name is MD5 (RFC 7616 3.3)."""
    return _BY_LOWER.get(name.lower() or "md5")


def _challenge(params: Mapping[str, str]) -> Challenge | None:
    algorithm = known_algorithm(params.get("algorithm", ""))
    if algorithm is None or "realm" not in params or not params.get("nonce"):
        return None
    offered = [word.strip(BLANK).lower() for word in params.get("qop", "").split(",")]
    qop = next((mine for mine in ("auth", "auth-int") if mine in offered), "")
    if not qop and any(offered):
        return None
    if not qop and algorithm.endswith("-sess"):
        # Without qop there is no cnonce, of which the session's secret is made.
        return None
    return Challenge(
        realm=params["realm"],
        nonce=params["nonce"],
        algorithm=algorithm,
        named="algorithm" in params,
        qop=qop,
        opaque=params.get("opaque"),
        stale=params.get("stale", "").lower() == "true",
        userhash=params.get("userhash", "").lower() == "true",
    )


def _elements(value: str) -> list[str]:
    """Cut at the commas outside quotes; empty elements, which the grammar allows, are dropped."""
    parts: list[str] = []
    at = begin = 0
    while (found := _SEPARATOR.search(value, at)) is not None:
        where = found.start()
        if value[where] == '"':
            at = closing_quote(value, where + 1) + 1
        else:
            parts.append(value[begin:where])
            at = begin = where + 1
    parts.append(value[begin:])
    flat = (part.replace("\t", " ").strip(BLANK) for part in parts)
    return [part for part in flat if part]
