"""The protecting headers that every answer of the desk carries.

Owns: the content security policy and its companions. Refuses to know: what is being answered.

Theory of operation: nothing on a page may come from anywhere but this machine, no script or style stands in the page
itself, and no page may be framed. Trusted Types are required and no policy is allowed, so that the page's own module
cannot write markup from strings either: the browser enforces what the code promises.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders

POLICY: Final = (
    "default-src 'none'; "
    "script-src 'self'; "
    "style-src 'self'; "
    "img-src 'self'; "
    "media-src 'self'; "
    "connect-src 'self'; "
    "form-action 'self'; "
    "base-uri 'none'; "
    "frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)

_ALWAYS: Final = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # Not "no-referrer": with it a browser sends "Origin: null" with every form, and over plain HTTP on a home network
    # there is no Sec-Fetch-Site either, so a forged form could not be told from our own. Nothing leaves this origin.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)


def protect(headers: MutableHeaders, path: str, query: bytes = b"") -> None:
    """Add the protecting headers to ``headers``; what an endpoint said about caching stays."""
    for name, value in _ALWAYS:
        headers[name] = value
    if not path.startswith("/static/"):
        headers.setdefault("Cache-Control", "no-store")
    elif query.startswith(b"v="):
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
