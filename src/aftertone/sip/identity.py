"""Who called, and for whom, as the signalling claims it.

Owns: reading names, numbers and traces of forwarding out of an INVITE. Refuses to know: mailboxes, and whom to trust; the
trust is an argument. Nothing read here may open anything: a caller writes these headers.

Specification: RFC 3261 section 20.20, RFC 3325 (P-Asserted-Identity), RFC 3323 (anonymous), RFC 5806 (Diversion), RFC 7044
(History-Info), RFC 4458 (cause), RFC 3966 (numbers).

Theory of operation: display names are read as UTF-8, else Latin-1, and lose their control characters; whatever cannot be
read becomes empty, because a strange header is no reason to lose a message.
"""

from __future__ import annotations

from typing import Final

from aftertone.model import Caller
from aftertone.sip.faults import ParseError
from aftertone.sip.headers import NameAddr, parse_address
from aftertone.sip.message import Request
from aftertone.sip.uri import parse_uri, readable, unescape

MAX_NAME: Final = 128
"""Characters kept of a name or number: more is an attack on somebody's screen."""

_SEPARATORS: Final = str.maketrans("", "", "-.() ")


def caller_of(request: Request, *, trust_asserted: bool = False) -> Caller:
    """Return number and name of the caller; both empty for one who withholds them.

    ``trust_asserted``: the peer belongs to our trust domain, so that P-Asserted-Identity goes before From and counts even
    for an anonymous From (RFC 3325 section 9), unless the caller asked for privacy (section 9.3).
    """
    asserted: list[NameAddr] = []
    private = {word.strip().lower() for word in request.get("privacy").split(";")} & {"id", "user", "header"}
    if trust_asserted and not private:
        try:
            asserted = [parse_address(value) for value in request.all("p-asserted-identity")]
        except ParseError:
            asserted = []
    try:
        shown: NameAddr | None = request.from_
    except ParseError:
        shown = None
    number = next((found for found in (number_of(address.uri) for address in asserted) if found), "")
    if not number and shown is not None:
        number = number_of(shown.uri)
    names = [address.display for address in asserted] + ([shown.display] if shown is not None else [])
    return Caller(number, next((name for name in map(_shown, names) if name), ""))


def number_of(uri_text: str) -> str:
    """Return the number or user name in a URI, unescaped; empty when there is none or it says anonymous."""
    try:
        uri = parse_uri(uri_text)
    except ParseError:
        return ""
    user = unescape(uri.user.partition(";")[0])
    if user.lower() in ("anonymous", "unknown", "unavailable", "restricted") or uri.host.lower() == "anonymous.invalid":
        return ""
    bare = user.translate(_SEPARATORS)
    # Visual separators mean nothing in a number (RFC 3966 section 5.1.1); in a user name they are part of it.
    is_number = bare.removeprefix("+").isdigit() and bare.isascii()
    return (bare if is_number else user)[:MAX_NAME]


def forwarded_from(request: Request) -> str | None:
    """Return the name of the header that says the call was meant for somebody else first, or None.

    Diversion by its presence. History-Info only with a cause or an ``mp`` mark: entries alone are also written for the
    plain way from an address to a phone. A ``cause`` in the Request-URI is how RFC 4458 addresses voicemail.
    """
    if request.get("diversion"):
        return "Diversion"
    history = ",".join(request.headers.get("history-info", ())).lower()
    if "cause=" in history or "cause%3d" in history or ";mp=" in history:
        return "History-Info"
    try:
        return "Request-URI" if "cause" in request.target.params else None
    except ParseError:
        return None


def target_user(request: Request) -> str:
    """Return the user part of the Request-URI, unescaped and without its parameters; empty when there is none."""
    try:
        return unescape(request.target.user.partition(";")[0])[:MAX_NAME]
    except ParseError:
        return ""


def _shown(display: str) -> str:
    return readable(display.encode("utf-8", "surrogateescape")).strip()[:MAX_NAME]
