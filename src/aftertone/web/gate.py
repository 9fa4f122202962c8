"""Who is asking: a signed-in browser or a program with the token of this machine.

Owns: sessions in cookies, the bearer token, the protection against forged requests (CSRF). Refuses to know: passwords
and links (``login``), what is asked for.

Theory of operation: a session is a random token in an HttpOnly cookie; the catalog knows only its SHA-256. A browser
sends cookies along with requests that another site forged, so an unsafe request with a cookie must prove twice that our
own page made it: by Sec-Fetch-Site or Origin, which a page cannot set, and by a token derived from the session, which
only our page can read. A bearer token is never sent by a browser on its own and needs neither.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.responses import Response

from aftertone.web.problems import Problem
from aftertone.web.services import Desk, DeskServices

SESSION_MS: Final = 30 * 24 * 3600 * 1000
"""A session ends after this long without a visit."""

RENEW_AFTER_MS: Final = 24 * 3600 * 1000
"""The end of a session is moved on at most this often: one write a day, not one per request."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER: Final = "X-CSRF-Token"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may use the desk."""

    via: Literal["session", "token"]
    session_sha256: str = ""
    csrf_token: str = ""
    expires_unix_ms: int = 0


def sha256_hex(token: str) -> str:
    """Return the form in which a token is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def fresh_token(services: DeskServices) -> str:
    """Return 256 bits of entropy as text that fits into a cookie or an address."""
    return base64.urlsafe_b64encode(services.entropy(32)).rstrip(b"=").decode()


def cookie_name(services: DeskServices) -> str:
    """Return the name of the session cookie; the prefix makes browsers insist on HTTPS, this host and the root path."""
    return "__Host-aftertone" if services.secure_cookies else "aftertone"


def csrf_token_of(session_token: str) -> str:
    """Return the token that our pages send back; it reveals nothing about the session it derives from."""
    return hmac.new(session_token.encode(), b"aftertone csrf v1", hashlib.sha256).hexdigest()


def open_session(services: DeskServices, response: Response, replaces: Principal | None) -> Principal:
    """Start a new session, durable on return, and hand its cookie to ``response``; the session it replaces ends.

    A login always takes a new token, so that a token planted before it opens nothing (session fixation).
    """
    token = fresh_token(services)
    principal = Principal("session", sha256_hex(token), csrf_token_of(token), services.now_unix_ms() + SESSION_MS)
    services.catalog.add_session(principal.session_sha256, principal.expires_unix_ms)
    if replaces is not None and replaces.session_sha256:
        services.catalog.drop_session(replaces.session_sha256)
    _set_cookie(services, response, token)
    return principal


def renew_session(services: DeskServices, request: Request, response: Response, principal: Principal) -> None:
    """Move the end of the session on, when a day has passed since that was last done."""
    now_ms = services.now_unix_ms()
    if principal.via != "session" or principal.expires_unix_ms - now_ms > SESSION_MS - RENEW_AFTER_MS:
        return
    services.catalog.add_session(principal.session_sha256, now_ms + SESSION_MS)
    _set_cookie(services, response, request.cookies[cookie_name(services)])


def _set_cookie(services: DeskServices, response: Response, token: str) -> None:
    response.set_cookie(
        cookie_name(services),
        token,
        max_age=SESSION_MS // 1000,
        path="/",
        secure=services.secure_cookies,
        httponly=True,
        samesite="lax",
    )


def close_session(services: DeskServices, response: Response, principal: Principal) -> None:
    """End the session, durable on return, and take the cookie away."""
    services.catalog.drop_session(principal.session_sha256)
    response.delete_cookie(
        cookie_name(services), path="/", secure=services.secure_cookies, httponly=True, samesite="lax"
    )


def identify(request: Request, services: DeskServices) -> Principal | None:
    """Return who asks, or None for a stranger."""
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        matches = hmac.compare_digest(sha256_hex(credential.strip()), services.api_token_sha256)
        return Principal("token") if matches else None
    token = request.cookies.get(cookie_name(services), "")
    if not 16 <= len(token) <= 128:
        return None
    session_sha256 = sha256_hex(token)
    session = services.catalog.session(session_sha256)
    if session is None or session.expires_unix_ms <= services.now_unix_ms():
        return None
    return Principal("session", session_sha256, csrf_token_of(token), session.expires_unix_ms)


def check_origin(request: Request) -> None:
    """Raise Problem (403) unless the browser says that our own page made this request."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    same_site = site is None or site == "same-origin"
    same_origin = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not (same_site and same_origin) or (site is None and origin is None):
        raise Problem(
            403,
            "foreign-origin",
            "This request was not made by a page of this desk",
            remedy="Open the desk itself and try again. A proxy in front of it must pass the Host header on unchanged.",
        )


def check_csrf(request: Request, principal: Principal, token: str) -> None:
    """Raise Problem (403) unless an unsafe request of a session carries both proofs; see the theory of operation."""
    if principal.via == "token" or request.method in SAFE_METHODS:
        return
    check_origin(request)
    if not hmac.compare_digest(token.encode(), principal.csrf_token.encode()):
        raise Problem(
            403,
            "csrf-token",
            "The page that sent this is out of date",
            detail=f"An unsafe request of a session needs the header {CSRF_HEADER} or the form field csrf_token.",
            remedy="Load the page again and repeat what you did; programs read the token from GET /api/v1/session.",
        )


def require_api(request: Request, services: Desk) -> Principal:
    """Return who uses the API. Raises Problem 401 for strangers and 403 for forged requests."""
    principal = identify(request, services)
    if principal is None:
        problem = Problem(
            401,
            "login-required",
            "Please sign in",
            remedy="Sign in at /login, or send the bearer token of this machine.",
        )
        problem.headers = {"WWW-Authenticate": 'Bearer realm="aftertone"'}
        raise problem
    check_csrf(request, principal, request.headers.get(CSRF_HEADER, ""))
    return principal


class LoginNeededError(Exception):
    """A page was asked for by a stranger: show the login page instead."""


def require_page(request: Request, services: Desk) -> Principal:
    """Return whose browser asks for a page. Raises LoginNeededError for strangers; forms check CSRF themselves."""
    principal = identify(request, services)
    if principal is None or principal.via != "session":
        raise LoginNeededError
    return principal


ApiUser = Annotated[Principal, Depends(require_api)]
PageUser = Annotated[Principal, Depends(require_page)]
