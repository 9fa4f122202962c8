"""Traces: what was said about each call on the wire, without passwords and keys.

Owns: which messages belong to a call, blanking what nobody may read later, the bounds, and the form in which a trace is stored.
Refuses to know: what the messages mean, files, and who looks.

Specification: RFC 3261 section 20.8 (Call-ID), sections 20.7, 20.27 and 20.28 (credentials), 19.1.1 (a password in a URI); RFC 7616
section 3.5 (Authentication-Info); RFC 4568 section 9.1 (``inline:`` keys), RFC 4567 section 3 (MIKEY); RFC 8866 section 5.12 (``k=``). The stored form:
docs/storage.md.

Theory of operation: bytes are taken as they pass, whether they parse or not. What is secret is overwritten with as many asterisks
before it is kept anywhere, so that lengths stay true and no copy has to be cleaned later. The traces of the last calls are kept
in a ring; one that somebody wants to keep (``keep``) is out of it until it is taken (``take``), so a flood cannot push it out. Each call has
a bound in bytes: the first half of it for its beginning, the other half for its end; what was between is counted.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from aftertone.errors import DamagedError
from aftertone.sip.flow import Address, Flow

BYTES_A_CALL: Final = 64 * 1024
"""About forty messages with descriptions: a call has ten."""
BYTES_IN_RING: Final = 16 * 1024
"""The same for a call that nobody keeps."""
CALLS_IN_RING: Final = 100
OTHERS_IN_RING: Final = 50
"""Exchanges outside calls: registrations, subscriptions, OPTIONS."""
MESSAGES_A_CALL: Final = 1000
"""Messages of one call, however short they are."""
LONGEST_NAME: Final = 256
"""Bytes of a Call-ID that name a trace; a longer one shares it with others that begin so."""
LONGEST_LABEL: Final = 100
DOCUMENT_VERSION: Final = 1

MAX_SECRETS: Final = 100
"""Secrets in one message that are found one by one; one with more is made unreadable as a whole."""

# All of them look at lower case.
_CALL_ID: Final = re.compile(rb"[\r\n](?:call-id|i)[ \t]*+:[ \t]*+([^\r\n]*+)")
_CREDENTIALS: Final = re.compile(
    rb"(?:^|[\r\n])(?:proxy-)?auth(?:orization|entication-info)\s*+:[ \t]*+(?:(?:digest|basic|bearer)\s)?"
    rb"([^\r\n]*+(?:(?:\r\n|\r|\n)[ \t][^\r\n]*+)*+)"
)
_INLINE: Final = re.compile(rb"inline:([^\s;|]++)")
_MIKEY: Final = re.compile(rb"mikey[ \t]++([a-z0-9+/=]++)")
_KEY_LINE: Final = re.compile(rb"[\r\n]k=([^\r\n]++)")
_URI_PASSWORD: Final = re.compile(rb"sips?:[^\s:@<>\"]*+:([^\s:@<>\"]++)@")
_MARK: Final = re.compile(rb";line=([0-9a-f]{16})(?![0-9a-z])")
"""What our Contact carries so that an account's calls are known (``roles.identity``): whoever brings it is taken for its registrar."""
_STARS: Final = bytes(byte if byte in b"\r\n\t " else 42 for byte in range(256))


@dataclass(frozen=True, slots=True)
class Traced:
    """One message as it passed, blanked."""

    at_ns: int
    sent: bool
    """It was ours."""
    transport: str
    local: Address
    remote: Address
    data: bytes

    @property
    def label(self) -> str:
        """What it is in a few words: ``INVITE sip:main@192.0.2.1``, ``200 OK (INVITE)``."""
        return label_of(self.data)


@dataclass(slots=True, eq=False)
class CallTrace:
    """What is kept of one Call-ID."""

    call_id: str
    began_ns: int
    is_call: bool
    """It began with an INVITE."""
    limit_bytes: int
    left_out: int = 0
    """Messages between the beginning and the end that are not kept."""
    _first: list[Traced] = field(default_factory=list)
    _first_bytes: int = 0
    _last: deque[Traced] = field(default_factory=deque)
    _last_bytes: int = 0

    @property
    def messages(self) -> list[Traced]:
        """In order."""
        return [*self._first, *self._last]

    def add(self, message: Traced) -> None:
        """Keep a message, if need be instead of one before."""
        half = self.limit_bytes // 2
        size = len(message.data)
        if not self._last and self._first_bytes + size <= half and len(self._first) < MESSAGES_A_CALL // 2:
            self._first.append(message)
            self._first_bytes += size
            return
        if size > half:
            self.left_out += 1
            return
        self._last.append(message)
        self._last_bytes += size
        while self._last_bytes > half or len(self._last) > MESSAGES_A_CALL // 2:
            self._last_bytes -= len(self._last.popleft().data)
            self.left_out += 1


Watcher = Callable[[CallTrace, Traced], None]


class Recorder:
    """The traces of one line. ``watcher`` hears of every message, while somebody watches."""

    def __init__(self, *, bytes_a_call: int = BYTES_A_CALL) -> None:
        self.watcher: Watcher | None = None
        self._bytes_a_call = bytes_a_call
        self._kept: dict[str, CallTrace] = {}
        self._calls: OrderedDict[str, CallTrace] = OrderedDict()
        self._others: OrderedDict[str, CallTrace] = OrderedDict()

    def received(self, data: bytes, flow: Flow, now_ns: int) -> None:
        """Take a message of a peer. Never raises, whatever the bytes."""
        self._take(data, flow, now_ns, sent=False)

    def sent(self, data: bytes, flow: Flow, now_ns: int) -> None:
        """Take a message of ours."""
        self._take(data, flow, now_ns, sent=True)

    def keep(self, call_id: str) -> None:
        """Keep the trace of a call until it is taken, whatever else happens."""
        name = call_id[:LONGEST_NAME]
        found = self._calls.pop(name, None) or self._others.pop(name, None)
        if found is not None:
            found.limit_bytes = self._bytes_a_call
            self._kept[name] = found

    def keeps(self, call_id: str) -> bool:
        """Tell whether the trace of a call is kept."""
        return call_id[:LONGEST_NAME] in self._kept

    def take(self, call_id: str) -> CallTrace | None:
        """Return the trace of a call that was kept; from now on it is one of the last calls."""
        name = call_id[:LONGEST_NAME]
        found = self._kept.pop(name, None)
        if found is not None:
            _put(self._calls, name, found, CALLS_IN_RING)
        return found

    def latest(self) -> list[CallTrace]:
        """Return the traces that are there, in the order in which they began."""
        every = [*self._kept.values(), *self._calls.values(), *self._others.values()]
        return sorted(every, key=lambda trace: trace.began_ns)

    def _take(self, data: bytes, flow: Flow, now_ns: int, *, sent: bool) -> None:
        name = call_id_of(data)
        if not name:
            return
        message = Traced(now_ns, sent, flow.transport, flow.local, flow.remote, blanked(data))
        trace = self._kept.get(name) or self._calls.get(name) or self._others.get(name)
        if trace is None:
            is_call = data[:7].upper() == b"INVITE "
            limit_bytes = min(BYTES_IN_RING, self._bytes_a_call)
            trace = CallTrace(name, now_ns, is_call, limit_bytes)
            ring, size = (self._calls, CALLS_IN_RING) if is_call else (self._others, OTHERS_IN_RING)
            _put(ring, name, trace, size)
        trace.add(message)
        if self.watcher is not None:
            self.watcher(trace, message)


def _put(ring: OrderedDict[str, CallTrace], name: str, trace: CallTrace, size: int) -> None:
    ring[name] = trace
    if len(ring) > size:
        ring.popitem(last=False)


def call_id_of(data: bytes) -> str:
    """Return the Call-ID of a message, empty when it has none; linear, and never raises."""
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    at = head.find(b"\r\nCall-ID: ")
    if at >= 0:
        value = head[at + 11 :].partition(b"\r\n")[0]
    else:
        found = _CALL_ID.search(head.lower())
        value = head[found.start(1) : found.end(1)] if found is not None else b""
    return value.strip()[:LONGEST_NAME].decode("utf-8", "surrogateescape")


def blanked(data: bytes) -> bytes:
    """Return a message with credentials and keys overwritten by as many asterisks; linear, and never raises."""
    low = data.lower()
    spans: list[tuple[int, int]] = []
    for sign, pattern in _SECRETS:
        if sign in low:
            spans += (found.span(1) for found in itertools.islice(pattern.finditer(low), MAX_SECRETS + 1))
    if not spans:
        return data
    if len(spans) > MAX_SECRETS:
        return data.translate(_STARS)
    clean = bytearray(data)
    for begin, end in spans:
        # Line breaks stay, so that what follows stays what it was.
        clean[begin:end] = clean[begin:end].translate(_STARS)
    return bytes(clean)


_SECRETS: Final = (
    (b"authorization", _CREDENTIALS),
    (b"authentication-info", _CREDENTIALS),
    (b"inline:", _INLINE),
    (b"mikey", _MIKEY),
    (b"k=", _KEY_LINE),
    (b"@", _URI_PASSWORD),
    (b";line=", _MARK),
)
"""What a message must hold for a pattern to be looked for, which is much cheaper."""


def label_of(data: bytes) -> str:
    """Return in a few words what a message is; never raises."""
    start = data.lstrip(b"\r\n")[: 4 * LONGEST_LABEL].partition(b"\r\n")[0].decode("utf-8", "replace")
    words = start.split(" ", 2)
    if words[0].upper().startswith("SIP/") and len(words) > 1:
        method = _method_of(data)
        label = " ".join(words[1:]) + (f" ({method})" if method else "")
    else:
        label = " ".join(words[:2])
    return "".join(char if char.isprintable() else "?" for char in label)[:LONGEST_LABEL]


_CSEQ: Final = re.compile(rb"[\r\n]cseq[ \t]*+:[ \t]*+\d{1,10}[ \t]++([A-Za-z]{1,20})", re.IGNORECASE)


def _method_of(data: bytes) -> str:
    found = _CSEQ.search(data[:4096])
    return found[1].decode("ascii") if found is not None else ""


# What is stored


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """The trace of one call as it is stored; ``at_ns`` of its messages is since 1970."""

    call_id: str
    messages: tuple[Traced, ...]
    left_out: int


def pack_trace(trace: CallTrace, *, now_ns: int, unix_ms: int) -> bytes:
    """Return the stored form of a trace; ``unix_ms`` is what the wall clock says at ``now_ns``."""
    return json.dumps(
        {
            "v": DOCUMENT_VERSION,
            "call_id": trace.call_id.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            "left_out": trace.left_out,
            "messages": [message_to_json(message, unix_ms * 1000 - now_ns // 1000) for message in trace.messages],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def message_to_json(message: Traced, offset_us: int) -> dict[str, object]:
    """Return one message as it is stored; ``offset_us`` makes microseconds since 1970 of its time."""
    return {
        "unix_us": message.at_ns // 1000 + offset_us,
        "sent": message.sent,
        "transport": message.transport,
        "local": list(message.local),
        "remote": list(message.remote),
        # Each character is one byte: whatever a peer sent comes back as it was.
        "data": message.data.decode("latin-1"),
    }


def unpack_trace(document: bytes) -> StoredTrace:
    """Read what ``pack_trace`` made; raises DamagedError on anything else."""
    try:
        value = json.loads(document)
        messages = tuple(message_from_json(one) for one in value["messages"])
        return StoredTrace(str(value["call_id"]), messages, int(value["left_out"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DamagedError(f"the signalling of a call cannot be read ({type(error).__name__})") from error


def message_from_json(value: Any) -> Traced:
    """Read what ``message_to_json`` made; raises ValueError, KeyError, TypeError or OverflowError on anything else."""
    return Traced(
        int(value["unix_us"]) * 1000,
        bool(value["sent"]),
        str(value["transport"]),
        _address(value["local"]),
        _address(value["remote"]),
        str(value["data"]).encode("latin-1"),
    )


def _address(value: Iterable[Any]) -> Address:
    host, port = value
    return str(host), int(port)
