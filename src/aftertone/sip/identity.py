"""Who called, as the signalling claims it.

Owns: reading names and numbers of the caller out of an INVITE, and what others say of having checked them. Refuses to know:
mailboxes, whom the call was for (`diversion`), and whom to trust; the trust is an argument. Nothing read here may open
anything: a caller writes these headers. No signature is verified: an Identity header is kept as a trusted peer gave it.

Specification: RFC 3261 section 20.20, RFC 3325 (P-Asserted-Identity), RFC 3323 (Privacy, anonymous), RFC 3966 (numbers), RFC 2047
(encoded words, which SIP does not have and some peers send), RFC 8224 (Identity), 3GPP TS 24.229 (verstat);
draft-ietf-sip-privacy-04 for Remote-Party-ID, which never became an RFC and which PBXs still send.

Theory of operation: of a trusted peer, P-Asserted-Identity goes before Remote-Party-ID before From; of everybody else From alone
is read, and P-Preferred-Identity of nobody, since it is a wish of a phone to its own proxy. Who asks for privacy has none of his
names shown. Display names are read as UTF-8, else Latin-1, and lose their control characters; whatever cannot be read becomes
empty, because a strange header is no reason to lose a message. All that is kept has a limit.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Final

from aftertone.model import Caller
from aftertone.numbers import normal_number
from aftertone.sip.faults import ParseError
from aftertone.sip.headers import NameAddr, is_token, parse_address, parse_params, split_list, unquote
from aftertone.sip.message import Request
from aftertone.sip.uri import parse_uri, readable, unescape

MAX_NAME: Final = 128
"""Characters kept of a name or number: more is an attack on somebody's screen."""
MAX_IDENTITY: Final = 4096
"""Characters of an Identity header that is kept; a longer one goes, since a part of a signature is worth nothing."""
MAX_LIST: Final = 8192
"""Characters read of one header that is a list: twenty long addresses, and a bound on the work for a hostile one."""
MOST_ADDRESSES: Final = 20
"""Elements read of one header; RFC 3325 allows two."""

_MAX_WORD: Final = 64
_LONGEST_READ: Final = 8 * MAX_NAME
_SEPARATORS: Final = str.maketrans("", "", "-.() ")
_ANONYMOUS: Final = frozenset({"anonymous", "anonym", "private", "restricted", "unavailable", "unknown", "withheld"})
_ENCODED_WORD = re.compile(r"=\?([A-Za-z0-9-]{1,20})\?([BbQq])\?([!->@-~]{0,400})\?=( +(?==\?))?")
_CHARSET = re.compile(r"utf-?8|us-ascii|iso-8859-\d{1,2}|windows-125\d|koi8-r", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a request says of its caller."""

    caller: Caller
    """Both parts empty for one who withholds them."""
    header: str = ""
    """The header that the number is from; empty without a number."""
    verstat: str = ""
    """What a trusted peer says of having checked the number: ``TN-Validation-Passed`` and the like."""
    identity: str = ""
    """The Identity header of a trusted peer, unverified."""


def caller_of(request: Request, *, trust_asserted: bool = False) -> Caller:
    """Return number and name of the caller; both empty for one who withholds them. Never raises."""
    return claims_of(request, trusted=trust_asserted).caller


def claims_of(request: Request, *, trusted: bool) -> Claims:
    """Return what the request says of its caller. Never raises, whatever the headers; linear in their length.

    ``trusted``: the peer belongs to our trust domain, so that P-Asserted-Identity goes before From and counts even for
    an anonymous From, unless the caller asked for privacy. Spec: RFC 3325 sections 8 and 9, RFC 3323 section 4.2.
    """
    wishes = _wishes(request)
    sources: list[tuple[str, list[NameAddr]]] = []
    if trusted and "header" not in wishes:
        sources.append(("P-Asserted-Identity", _addresses(request, "p-asserted-identity")))
        sources.append(("Remote-Party-ID", _calling(_addresses(request, "remote-party-id"))))
    sources.append(("From", _from(request)))
    hidden = bool(wishes & {"id", "user"}) or (trusted and _asks_to_hide(sources))
    verstat = _verstat(sources) if trusted else ""
    identity = ", ".join(request.headers.get("identity", ())) if trusted else ""
    kept = identity if len(identity) <= MAX_IDENTITY else ""
    if hidden:
        return Claims(Caller(), "", verstat, "")
    header, number = next(
        ((header, number) for header, addresses in sources if (number := _best_number(addresses))), ("", "")
    )
    shown = (_shown(address.display) for _, addresses in sources for address in addresses if address.display)
    return Claims(
        Caller(number, next(filter(None, shown), "")), header, verstat, readable(kept.encode("utf-8", "replace"))
    )


def number_of(uri_text: str) -> str:
    """Return the number or user name in a URI, unescaped; empty when there is none or it says anonymous."""
    try:
        uri = parse_uri(uri_text)
    except ParseError:
        return ""
    user = uri.user.partition(";")[0]
    if "%" in user or not (user.isascii() and user.isprintable()):
        user = unescape(user)
    host = uri.host.lower()
    if user.lower() in _ANONYMOUS or host == "anonymous.invalid" or host.endswith(".anonymous.invalid"):
        return ""
    bare = user.translate(_SEPARATORS)
    # Visual separators mean nothing in a number (RFC 3966 section 5.1.1); in a user name they are part of it.
    is_number = bare.removeprefix("+").isdigit() and bare.isascii()
    return (bare if is_number else user)[:MAX_NAME]


def target_user(request: Request) -> str:
    """Return the user part of the Request-URI, unescaped and without its parameters; empty when there is none."""
    try:
        return unescape(request.target.user.partition(";")[0])[:MAX_NAME]
    except ParseError:
        return ""


def list_of(request: Request, name: str) -> list[str]:
    """Return the elements of a header that is a list; a line that cannot be cut, or is beyond `MAX_LIST`, is passed over."""
    found: list[str] = []
    room = MAX_LIST
    for line in request.headers.get(name, ()):
        if len(line) > room:
            continue
        room -= len(line)
        try:
            found += split_list(line)
        except ParseError:
            continue
    return found


def _wishes(request: Request) -> set[str]:
    """Return the words of Privacy. Spec: RFC 3323 section 4.2."""
    values = request.headers.get("privacy")
    return {word.strip().lower() for word in ";".join(values).split(";", 16)} if values else set()


def _from(request: Request) -> list[NameAddr]:
    try:
        return [request.from_]
    except ParseError:
        return []


def _addresses(request: Request, name: str) -> list[NameAddr]:
    found = []
    for value in list_of(request, name)[:MOST_ADDRESSES]:
        try:
            found.append(parse_address(value))
        except ParseError:
            continue
    return found


def _calling(parties: list[NameAddr]) -> list[NameAddr]:
    """Return those entries of Remote-Party-ID that are about the caller."""
    return [one for one in parties if unquote(one.params.get("party") or "calling").lower() == "calling"]


def _asks_to_hide(sources: list[tuple[str, list[NameAddr]]]) -> bool:
    """Return whether Remote-Party-ID, where it is what counts, says that the number is not to be shown."""
    by_header = dict(sources)
    if by_header.get("P-Asserted-Identity"):
        return False
    wishes = {unquote(one.params.get("privacy") or "").lower() for one in by_header.get("Remote-Party-ID", ())}
    return bool(wishes & {"full", "uri"})


def _best_number(addresses: list[NameAddr]) -> str:
    """Return the first telephone number, for that can be called back; else the first name."""
    found = [number for number in (number_of(address.uri) for address in addresses) if number]
    return next((number for number in found if normal_number(number)), found[0] if found else "")


def _verstat(sources: list[tuple[str, list[NameAddr]]]) -> str:
    """Return the first ``verstat``: peers put it behind the number, into the URI, or behind the address."""
    for _, addresses in sources:
        for address in addresses:
            if "verstat" not in address.uri.lower() and "verstat" not in address.params:
                continue
            try:
                uri = parse_uri(address.uri)
                inner = parse_params(uri.user.partition(";")[2]) if ";" in uri.user else {}
            except ParseError:
                continue
            word = inner.get("verstat") or uri.params.get("verstat") or address.params.get("verstat") or ""
            if len(word) <= _MAX_WORD and is_token(word):
                return word
    return ""


def _shown(display: str) -> str:
    text = readable(display[:_LONGEST_READ].encode("utf-8", "surrogateescape"))
    if "=?" in text:
        text = "".join(mark for mark in _ENCODED_WORD.sub(_decoded, text) if mark.isprintable())
    return text.strip()[:MAX_NAME]


def _decoded(word: re.Match[str]) -> str:
    """Return what an encoded word says, or the word itself when it is none. Spec: RFC 2047 sections 2 to 4."""
    charset, encoding, text = word[1], word[2].upper(), word[3]
    if _CHARSET.fullmatch(charset) is None:
        return word[0]
    try:
        raw = (
            binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
            if encoding == "B"
            else binascii.a2b_qp(text.encode(), header=True)
        )
        return raw.decode(charset)
    except (ValueError, LookupError):
        return word[0]
