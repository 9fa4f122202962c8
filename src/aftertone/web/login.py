"""Signing in: the one-time link, the password, signing out.

Owns: the pages and forms of signing in, and how often a password may be tried. Refuses to know: what a session is made
of (``gate``), how passwords are stored (``passwords``).

Theory of operation: the machine prints a link; opening it shows a button, and only pressing that uses the link up, so
that a preview in a chat or mail program does not. Whoever came by a link may set the password without knowing the old
one for a quarter of an hour: whoever can read the machine's terminal owns it. Setting a password ends every session
but the one that set it. Endpoints run on the event loop, which owns the counting; hashing and the catalog run in worker
threads.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Final, cast

from fastapi import APIRouter, Form, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from aftertone.errors import UsageError
from aftertone.web.gate import (
    PageUser,
    Principal,
    check_csrf,
    check_origin,
    close_session,
    identify,
    open_session,
    sha256_hex,
)
from aftertone.web.passwords import LONGEST, SHORTEST, hash_password, password_matches
from aftertone.web.problems import Problem
from aftertone.web.services import Desk, DeskServices
from aftertone.web.templating import page
from aftertone.web.throttle import Throttle

GRANT_MS: Final = 15 * 60 * 1000
"""How long somebody who came by a link may set a password without the old one."""

_MAX_GRANTS: Final = 64

router = APIRouter(include_in_schema=False)

Token = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{16,128}$")]
Field = Annotated[str, Form(max_length=4 * LONGEST)]


class LoginState:
    """What signing in keeps in memory; a restart forgets it and nobody is worse off. One event loop owns it."""

    def __init__(self) -> None:
        self.passwords = Throttle()
        self.links = Throttle()
        self._grants: OrderedDict[str, int] = OrderedDict()

    def grant(self, session_sha256: str, now_unix_ms: int) -> None:
        """Remember that this session came by a link just now."""
        self._grants[session_sha256] = now_unix_ms
        while len(self._grants) > _MAX_GRANTS:
            self._grants.popitem(last=False)

    def has_grant(self, session_sha256: str, now_unix_ms: int) -> bool:
        """Return whether this session came by a link lately."""
        granted = self._grants.get(session_sha256)
        return granted is not None and 0 <= now_unix_ms - granted < GRANT_MS


def _state(request: Request) -> LoginState:
    return cast(LoginState, request.app.state.login)


def _take_try(request: Request, services: DeskServices, throttle: Throttle) -> None:
    wait_ms = throttle.take(_source(request), services.now_unix_ms())
    if wait_ms:
        wait_s = -(-wait_ms // 1000)
        raise Problem(
            429,
            "too-many-tries",
            "Too many tries",
            detail=f"Signing in is possible again in {wait_s} s. Browsers that are signed in do not notice.",
            remedy="Wait, or run `aftertone login-link` on the machine: its link signs you in once.",
            retry_after_s=wait_s,
        )


def _source(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"


async def show_login(_request: Request, _error: Exception) -> Response:
    """Answer a page request of a stranger: go and sign in."""
    return RedirectResponse("/login", status_code=303)


@router.get("/login")
def login_page(request: Request, services: Desk) -> Response:
    """Show the password form, or where to find the link while there is no password."""
    if identify(request, services) is not None:
        return RedirectResponse("/", status_code=303)
    return _login_page(request, services)


def _login_page(request: Request, services: DeskServices, error: str = "") -> Response:
    password_set = services.catalog.password_hash() is not None
    values = {"password_set": password_set, "error": error}
    return page(request, "login.html", values, status_code=401 if error else 200)


@router.post("/login")
async def login(request: Request, services: Desk, password: Field = "") -> Response:
    """Sign in with the password."""
    check_origin(request)
    throttle = _state(request).passwords
    _take_try(request, services, throttle)
    stored = await run_in_threadpool(services.catalog.password_hash)
    if stored is None:
        return await run_in_threadpool(_login_page, request, services)
    if not await run_in_threadpool(password_matches, stored, password):
        return await run_in_threadpool(_login_page, request, services, "That is not the password.")
    throttle.give_back(_source(request))
    response = RedirectResponse("/", status_code=303)
    await run_in_threadpool(_sign_in, request, services, response)
    return response


def _sign_in(request: Request, services: DeskServices, response: Response) -> Principal:
    return open_session(services, response, identify(request, services))


@router.get("/login/{token}")
async def link_page(request: Request, token: Token) -> Response:
    """Show the button that uses the link; looking at this page uses nothing."""
    return page(request, "link.html", {"token": token, "error": ""})


@router.post("/login/{token}")
async def use_link(request: Request, services: Desk, token: Token) -> Response:
    """Use the link up and sign in."""
    check_origin(request)
    state = _state(request)
    _take_try(request, services, state.links)
    now_ms = services.now_unix_ms()
    if not await run_in_threadpool(services.catalog.use_login_link, sha256_hex(token), now_ms):
        error = "This link was used already or is too old. Run `aftertone login-link` on the machine for a new one."
        return page(request, "link.html", {"token": "", "error": error}, status_code=401)
    state.links.give_back(_source(request))
    response = RedirectResponse("/password", status_code=303)
    user = await run_in_threadpool(_sign_in, request, services, response)
    state.grant(user.session_sha256, now_ms)
    return response


def _password_page(
    request: Request, services: DeskServices, user: Principal, error: str = "", status: int = 200
) -> Response:
    password_set = services.catalog.password_hash() is not None
    free = not password_set or _state(request).has_grant(user.session_sha256, services.now_unix_ms())
    values = {
        "csrf_token": user.csrf_token,
        "password_set": password_set,
        "ask_current": not free,
        "shortest": SHORTEST,
        "error": error,
    }
    return page(request, "password.html", values, status_code=status)


@router.get("/password")
def password_page(request: Request, services: Desk, user: PageUser) -> Response:
    """Show the form for a new password."""
    return _password_page(request, services, user)


@router.post("/password")
async def set_password(
    request: Request,
    services: Desk,
    user: PageUser,
    password: Field = "",
    again: Field = "",
    current: Field = "",
    csrf_token: Field = "",
) -> Response:
    """Set the password; every other session ends."""
    check_csrf(request, user, csrf_token)
    state = _state(request)
    stored = await run_in_threadpool(services.catalog.password_hash)
    if stored is not None and not state.has_grant(user.session_sha256, services.now_unix_ms()):
        _take_try(request, services, state.passwords)
        if not await run_in_threadpool(password_matches, stored, current):
            error = "The current password is not right."
            return await run_in_threadpool(_password_page, request, services, user, error, 401)
        state.passwords.give_back(_source(request))
    if password != again:
        error = "The two passwords are not the same."
        return await run_in_threadpool(_password_page, request, services, user, error, 422)
    try:
        hashed = await run_in_threadpool(hash_password, password)
    except UsageError as refusal:
        return await run_in_threadpool(_password_page, request, services, user, str(refusal), 422)
    response = RedirectResponse("/", status_code=303)
    await run_in_threadpool(services.catalog.set_password_hash, hashed)
    await run_in_threadpool(open_session, services, response, user)
    return response


@router.post("/logout")
def logout(request: Request, services: Desk, user: PageUser, csrf_token: Field = "") -> Response:
    """Sign out of this browser."""
    check_csrf(request, user, csrf_token)
    response = RedirectResponse("/login", status_code=303)
    close_session(services, response, user)
    return response
