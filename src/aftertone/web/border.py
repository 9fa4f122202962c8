"""The border that every request crosses first: the host it asks for, the size it may have.

Owns: the check of the Host header against DNS rebinding, the bound on request bodies, and that every answer carries the
protecting headers. Refuses to know: who is asking (``gate``) and what for.

Theory of operation: a page on the internet can make a browser resolve its own name to this machine and then read
answers as its own (DNS rebinding). Such a request carries that page's name, so only localhost, plain addresses (which
cannot be rebound) and the names in the setting ``web.names`` are answered. A body is counted while it arrives; the
declared length alone is never trusted.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aftertone.web.headers import protect
from aftertone.web.problems import Problem, render

BODY_LIMIT_BYTES: Final = 64 * 1024
"""Forms and JSON are small; more is a mistake or an attack."""

GREETING_LIMIT_BYTES: Final = 20 * 1000 * 1000
"""Ten minutes of uncompressed 16 kHz speech fit."""

_GREETING: Final = re.compile(r"/api/v1/mailboxes/[^/]+/greeting")
_HOST: Final = re.compile(r"(?P<name>\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")


def host_is_ours(host: str, names: tuple[str, ...]) -> bool:
    """Return whether a Host header names this machine: localhost, an IP address, or one of ``names``."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match["name"].rstrip(".").lower()
    if name == "localhost" or name in {known.rstrip(".").lower() for known in names}:
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def body_limit_bytes(method: str, path: str) -> int:
    """Return the largest body that ``method`` on ``path`` may bring."""
    if method == "PUT" and _GREETING.fullmatch(path):
        return GREETING_LIMIT_BYTES
    return BODY_LIMIT_BYTES


def _too_large(limit_bytes: int) -> Problem:
    return Problem(
        413,
        "too-large",
        "The request body is too large",
        detail=f"At most {limit_bytes:,} bytes are taken here.",
        remedy="Send something smaller.",
    )


class Border:
    """ASGI middleware: checks host and size on the way in, adds protecting headers on the way out."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                protect(MutableHeaders(scope=message), scope["path"], scope["query_string"])
            await send(message)

        if not host_is_ours(headers.get("host", ""), self._names):
            problem = Problem(
                421,
                "unknown-host",
                "This desk does not go by that name",
                remedy="Open it by localhost or its IP address, or add the name to the setting `web.names`.",
            )
            await render(Request(scope), problem)(scope, receive, guarded_send)
            return
        limit_bytes = body_limit_bytes(scope["method"], scope["path"])
        declared = headers.get("content-length", "0")
        if re.fullmatch(r"[0-9]{1,18}", declared) is None or int(declared) > limit_bytes:
            await render(Request(scope), _too_large(limit_bytes))(scope, receive, guarded_send)
            return
        await self._app(scope, _counted(receive, limit_bytes), guarded_send)


def _counted(receive: Receive, limit_bytes: int) -> Receive:
    arrived = 0

    async def counting() -> Message:
        nonlocal arrived
        message = await receive()
        if message["type"] == "http.request":
            arrived += len(message.get("body", b""))
            if arrived > limit_bytes:
                raise _too_large(limit_bytes)
        return message

    return counting
