"""For whom a call was meant, and who sent it on, as the signalling claims it.

Owns: reading Request-URI, P-Called-Party-ID, Diversion, History-Info and To for names of those who were called, in the order in
which they are to be believed. Refuses to know: mailboxes, and whether anybody of these exists.

Specification: RFC 4458 (``target`` and ``cause`` in a URI), RFC 7315 section 4.2 (P-Called-Party-ID), RFC 5806 (Diversion), RFC 7044
and RFC 4244 (History-Info), RFC 3326 (Reason), RFC 3261 section 20.39 (To).

Theory of operation: each header gives names; the first that the directory knows is whose mailbox it is. A call that was forwarded
several times was meant for the first who forwarded it: the last entry of Diversion, since each hop puts its own on top, and the
lowest index of History-Info. In History-Info one entry names who was called, the next ones where it went instead: an entry was
left behind when another says so by ``mp``, when the next one's URI has a ``cause``, or when its own URI carries a Reason that is no
success. What cannot be read is passed over, entry by entry, because a strange header is no reason to lose a message; and no more
than `MOST_ENTRIES` are read of a header, because a longer way is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from aftertone.model import DivertReason
from aftertone.sip.faults import ParseError
from aftertone.sip.headers import NameAddr, parse_address, parse_params, unquote
from aftertone.sip.identity import list_of, number_of, target_user
from aftertone.sip.message import Request
from aftertone.sip.uri import Uri, parse_uri, readable, unescape

MOST_ENTRIES: Final = 20
"""Entries read of one header. Max-Forwards would have ended a longer way of forwarding."""
_DEEPEST: Final = 20
_CAUSES: Final = {
    302: DivertReason.UNCONDITIONAL,
    404: DivertReason.UNKNOWN,
    408: DivertReason.NO_ANSWER,
    410: DivertReason.UNKNOWN,
    480: DivertReason.DEFLECTION,
    486: DivertReason.BUSY,
    487: DivertReason.DEFLECTION,
    503: DivertReason.UNAVAILABLE,
    600: DivertReason.BUSY,
    603: DivertReason.DEFLECTION,
}
"""The table of RFC 4458, and what else peers put there."""
_FAILURES: Final = {
    302: DivertReason.UNCONDITIONAL,
    408: DivertReason.NO_ANSWER,
    480: DivertReason.UNAVAILABLE,
    486: DivertReason.BUSY,
    487: DivertReason.NO_ANSWER,
    503: DivertReason.UNAVAILABLE,
    600: DivertReason.BUSY,
    603: DivertReason.DEFLECTION,
}
"""What the response that a target gave says about it. 487 is what a phone answers that rang long enough."""
_REASONS: Final = {
    "busy": DivertReason.BUSY,
    "no_answer": DivertReason.NO_ANSWER,
    "noanswer": DivertReason.NO_ANSWER,
    "dnd": DivertReason.DO_NOT_DISTURB,
}
"""Words that peers say instead of those of RFC 5806."""
_SHOWN: Final = frozenset({"", "off", "no", "none", "name"})
"""Values of ``privacy`` that leave the number to be seen."""
_Q850: Final = {
    17: DivertReason.BUSY,
    18: DivertReason.NO_ANSWER,
    19: DivertReason.NO_ANSWER,
    20: DivertReason.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Called:
    """One name under which a call was meant for somebody."""

    user: str
    header: str
    """Where it stood: ``target of the request URI``, ``request URI``, ``P-Called-Party-ID``, ``Diversion`` ..."""


@dataclass(frozen=True, slots=True)
class Diversion:
    """Somebody who was called and sent the call on."""

    by: str
    """Number or name; empty when it asked to be kept private, or there is none."""
    reason: DivertReason
    header: str
    hidden: bool = False
    """It asked for privacy: it may choose a mailbox and must not be shown."""


def called_of(request: Request) -> Iterator[Called]:
    """Give the names under which the call may have been meant, the most telling first, none twice from one header.

    The target of the Request-URI, its user, P-Called-Party-ID, Diversion, History-Info, To. Never raises.
    """
    uri = _target(request)
    if uri is not None:
        target = uri.params.get("target")
        if target:
            yield from _named(_target_name(target), "target of the request URI")
        yield from _named(target_user(request), "request URI")
    for value in _values(request, "p-called-party-id"):
        yield from _address_named(value, "P-Called-Party-ID")
    # Of a way of several hops the first goes first, then whoever forwarded it later.
    for diversion in _diversions(request):
        yield from _named(diversion.by, "Diversion")
    history = _history(request)
    left = _left_behind(history)
    for entry in (*(entry for entry, _ in left), *history):
        yield from _named(entry.user, "History-Info")
    for value in _values(request, "to"):
        yield from _address_named(value, "To")


def diversion_of(request: Request) -> Diversion | None:
    """Return who forwarded the call first and why, or None when nothing says that it was forwarded. Never raises.

    Diversion by its presence. History-Info only with a cause or an ``mp`` mark: entries alone are also written for the plain
    way from an address to a phone. A ``cause`` in the Request-URI is how RFC 4458 addresses voicemail.
    """
    diversions = _diversions(request)
    if diversions:
        first = diversions[0]
        return first if not first.hidden else Diversion("", first.reason, first.header, hidden=True)
    history = _history(request)
    for entry, reason in _left_behind(history):
        return Diversion("" if entry.hidden else entry.user, reason, "History-Info", hidden=entry.hidden)
    uri = _target(request)
    if uri is not None and "cause" in uri.params:
        by = _target_name(uri.params.get("target") or "")
        return Diversion(by, _cause(uri.params.get("cause")), "request URI")
    if request.get("diversion"):
        # It cannot be read, and yet nobody writes one without forwarding.
        return Diversion("", DivertReason.UNKNOWN, "Diversion")
    return None


# One header after the other


def _diversions(request: Request) -> list[Diversion]:
    """Return the entries of Diversion that name somebody, the first diverting party first. Spec: RFC 5806."""
    found = []
    for value in _values(request, "diversion"):
        address = _address(value)
        if address is None:
            continue
        reason = _words(address.params.get("reason"))
        hidden = unquote(address.params.get("privacy") or "").lower() not in _SHOWN
        found.append(Diversion(number_of(address.uri), reason, "Diversion", hidden))
    found.reverse()
    return found


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of History-Info. Spec: RFC 7044 section 5."""

    user: str
    index: tuple[int, ...]
    uri_cause: str | None
    """``cause`` of its URI: why the call came to this target."""
    reason: DivertReason | None
    """The Reason escaped into its URI: why the call left this target; None when there is none or it says nothing."""
    mapped_from: tuple[int, ...] | None
    """``mp``: index of the entry whose user this one stands for."""
    hidden: bool


def _history(request: Request) -> list[_Entry]:
    """Return the readable entries of History-Info, in order of their index."""
    found: list[_Entry] = []
    for place, value in enumerate(_values(request, "history-info")):
        address = _address(value)
        uri = None if address is None else _uri(address.uri)
        if address is None or uri is None:
            continue
        headers = _uri_headers(uri.headers)
        privacy = {word.strip().lower() for word in headers.get("privacy", "").split(";")}
        index = _index(unquote(address.params.get("index") or "")) or (place + 1,)
        mapped = _index(unquote(address.params.get("mp") or "")) if "mp" in address.params else None
        found.append(
            _Entry(
                number_of(address.uri),
                index,
                uri.params.get("cause"),
                _reason_header(headers.get("reason", "")),
                mapped if mapped or "mp" not in address.params else (),
                bool(privacy & {"history", "header", "session"}),
            )
        )
    found.sort(key=lambda entry: entry.index)
    return found


def _left_behind(history: list[_Entry]) -> list[tuple[_Entry, DivertReason]]:
    """Return the entries whose target did not take the call, and why, in order of their index."""
    by_index = {entry.index: entry for entry in history}
    left: dict[tuple[int, ...], tuple[_Entry, DivertReason]] = {}
    for place, entry in enumerate(history):
        is_last = place == len(history) - 1
        if entry.reason is not None and (not is_last or len(history) == 1):
            left.setdefault(entry.index, (entry, entry.reason))
        if entry.mapped_from is None and entry.uri_cause is None:
            continue
        before = by_index.get(entry.mapped_from or entry.index[:-1]) or (history[place - 1] if place else None)
        if before is None:
            before = _Entry("", (), None, None, None, hidden=False)
        reason = _cause(entry.uri_cause) if entry.uri_cause is not None else before.reason or DivertReason.UNKNOWN
        left[before.index] = (before, reason)
    return [left[index] for index in sorted(left)]


# Small pieces


def _values(request: Request, name: str) -> list[str]:
    found = list_of(request, name)
    # The last ones of Diversion are the first who forwarded.
    return found[-MOST_ENTRIES:] if name == "diversion" else found[:MOST_ENTRIES]


def _address(value: str) -> NameAddr | None:
    try:
        return parse_address(value)
    except ParseError:
        return None


def _uri(text: str) -> Uri | None:
    try:
        return parse_uri(text)
    except ParseError:
        return None


def _target(request: Request) -> Uri | None:
    try:
        return request.target
    except ParseError:
        return None


def _target_name(target: str) -> str:
    """Return whom ``target`` means: a URI with its marks escaped, or, of careless peers, a bare number or name."""
    text = unescape(unquote(target))
    return number_of(text if ":" in text else f"sip:{text.partition('@')[0]}@target.invalid")


def _named(user: str, header: str) -> Iterator[Called]:
    if user:
        yield Called(user, header)


def _address_named(value: str, header: str) -> Iterator[Called]:
    address = _address(value)
    if address is not None:
        yield from _named(number_of(address.uri), header)


def _index(text: str) -> tuple[int, ...] | None:
    """Return ``1.2.1`` as numbers; None for anything else, and for one deeper than any way goes."""
    parts = text.split(".", _DEEPEST)
    if len(parts) > _DEEPEST or not all(part.isascii() and part.isdigit() and len(part) <= 6 for part in parts):
        return None
    return tuple(map(int, parts))


def _uri_headers(text: str) -> dict[str, str]:
    """Return the headers behind the question mark of a URI, names in lower case, escapes resolved."""
    found: dict[str, str] = {}
    for part in text.split("&", MOST_ENTRIES)[:MOST_ENTRIES] if text else ():
        name, _, value = part.partition("=")
        found.setdefault(
            readable(unquote_to_bytes(name.encode("utf-8", "surrogateescape"))).strip().lower(), unescape(value)
        )
    return found


def _reason_header(text: str) -> DivertReason | None:
    """Return what a Reason says, None when it says that nothing went wrong. Spec: RFC 3326 section 2."""
    protocol, _, tail = text.partition(";")
    try:
        cause = parse_params(tail).get("cause") or ""
    except ParseError:
        return None
    if not (cause.isascii() and cause.isdigit() and len(cause) <= 3):
        return None
    if protocol.strip().lower() == "q.850":
        return _Q850.get(int(cause), DivertReason.UNKNOWN)
    return None if int(cause) < 300 else _FAILURES.get(int(cause), DivertReason.UNKNOWN)


def _cause(text: str | None) -> DivertReason:
    """Return what a ``cause`` of a URI says. Spec: RFC 4458."""
    value = unquote(text or "")
    if not (value.isascii() and value.isdigit() and len(value) <= 3):
        return DivertReason.UNKNOWN
    return _CAUSES.get(int(value), DivertReason.UNKNOWN)


def _words(text: str | None) -> DivertReason:
    """Return what the ``reason`` of a Diversion says. Spec: RFC 5806."""
    word = unquote(text or "").strip().lower()
    return _REASONS.get(word) or DivertReason.read(word) or DivertReason.UNKNOWN
