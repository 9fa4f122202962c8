"""Session descriptions as text and as values.

Owns: the lines of SDP that an offer and an answer are made of (``v o s c t a m``), their limits, and the only exception
that a peer's description can cause. Refuses to know: what a codec is, what an attribute means, who offers and who answers.

Theory of operation: one pass over the lines, each looked at once, every split bounded by the line, so the work is linear
in the input. Values are frozen and hold what matters in an offer/answer exchange; ``i u e p b r z k`` lines and letters
nobody knows are read and forgotten. An address is a plain host: whether a line says IP4 or IP6 follows from it.

Deliberate deviations, each because a caller is worth more than a line (tests in ``tests/unit/sdp/test_description.py``):
LF or CR alone ends a line, blank lines, padding and any order of lines are taken, ``o= s= t= c=`` may be missing, and an
unknown letter does not discard the description (RFC 8866 section 5 says that it should). Names of attributes are case-sensitive
by section 5.13; peers that shout them mean the same, so they are read as lower case.

Spec: RFC 8866.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aftertone.errors import PeerError

MAX_BYTES: Final = 65_536
"""The limit of a SIP message, so nothing longer can have come by SIP."""
MAX_LINES: Final = 500
"""A browser offering sound and pictures sends some 150 to 250 lines; a telephone twenty."""
MAX_MEDIA: Final = 32
"""Streams in one description. The answer repeats each of them, so this bounds the answer as well."""

_BLANK: Final = " \t"
_LINE_BREAKERS: Final = frozenset("\r\n\0")

Attribute = tuple[str, str]
"""Name and value of an ``a=`` line; the name is lower case, a flag such as ``a=sendonly`` has the value ``""``."""


class SdpError(PeerError):
    """The peer's description is malformed or beyond a limit. The one exception that parsing may raise; answered 400."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The ``o=`` line. Numbers stay text: by the standard they are digits, in practice they are anything."""

    username: str = "-"
    session_id: str = "0"
    version: str = "0"
    host: str = "0.0.0.0"  # noqa: S104 - a value on the wire, nothing binds to it


@dataclass(frozen=True, slots=True)
class Media:
    """One ``m=`` line with the ``c=`` and ``a=`` lines below it."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    host: str | None = None
    """Host of the ``c=`` line of this stream; None leaves it to the session's."""
    attributes: tuple[Attribute, ...] = ()

    def attribute(self, name: str) -> str | None:
        """Return the value of the first attribute called ``name``, or None when there is none."""
        return find_attribute(self.attributes, name)


@dataclass(frozen=True, slots=True)
class Description:
    """A whole session description."""

    origin: Origin = field(default_factory=Origin)
    session_name: str = "-"
    host: str | None = None
    timing: str = "0 0"
    attributes: tuple[Attribute, ...] = ()
    media: tuple[Media, ...] = ()

    def attribute(self, name: str) -> str | None:
        """Return the value of the first attribute called ``name`` of the session itself, or None."""
        return find_attribute(self.attributes, name)


def find_attribute(attributes: tuple[Attribute, ...], name: str) -> str | None:
    """Return the value of the first of ``attributes`` whose name is ``name``, or None."""
    for key, value in attributes:
        if key == name:
            return value
    return None


def decimal(text: str, largest: int) -> int | None:
    """Read ASCII digits as a number of at most ``largest``; None for anything else, whatever its length."""
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        return None
    value = int(text)
    return value if value <= largest else None


def parse(data: bytes) -> Description:
    """Read a session description.

    Bytes that are not UTF-8 become U+FFFD: text in SDP is for people. Raises SdpError, and nothing else, for what is no
    session description or is beyond a limit. Spec: RFC 8866 section 5.
    """
    if len(data) > MAX_BYTES:
        raise SdpError(f"the session description has {len(data)} bytes, more than {MAX_BYTES}")
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    if "\0" in text:
        raise SdpError("the session description contains a NUL character")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip(_BLANK + "\n").split("\n")
    if len(lines) > MAX_LINES:
        raise SdpError(f"the session description has {len(lines)} lines, more than {MAX_LINES}")
    if lines[0].strip(_BLANK) != "v=0":
        raise SdpError("the session description does not begin with v=0")
    return _Draft().read(lines[1:])


class _Draft:
    """What has been read so far: the session's fields, and those of the stream whose lines are being read."""

    def __init__(self) -> None:
        self.origin = Origin()
        self.session_name = "-"
        self.timing: str | None = None
        self.host: str | None = None
        self.attributes: list[Attribute] = []
        self.media: list[Media] = []
        self.stream: tuple[str, int, str, tuple[str, ...]] | None = None
        self.stream_host: str | None = None
        self.stream_attributes: list[Attribute] = []

    def read(self, lines: list[str]) -> Description:
        for line in lines:
            stripped = line.strip(_BLANK)
            if not stripped:
                continue
            if stripped[1:2] != "=" or not stripped[0].isalpha():
                raise SdpError("a line of the session description is not of the form <letter>=<value>")
            self._field(stripped[0], stripped[2:].strip(_BLANK))
        self._close_stream()
        return Description(
            origin=self.origin,
            session_name=self.session_name,
            host=self.host,
            timing=self.timing or "0 0",
            attributes=tuple(self.attributes),
            media=tuple(self.media),
        )

    def _field(self, letter: str, value: str) -> None:
        if letter == "a":
            name, _, content = value.partition(":")
            name = name.strip(_BLANK).lower()
            if name:
                target = self.attributes if self.stream is None else self.stream_attributes
                target.append((name, content.strip(_BLANK)))
        elif letter == "m":
            self._close_stream()
            if len(self.media) == MAX_MEDIA:
                raise SdpError(f"the session description has more than {MAX_MEDIA} media streams")
            self.stream = _stream(value)
        elif letter == "c":
            if self.stream is None:
                self.host = self.host or _connection_host(value)
            else:
                self.stream_host = self.stream_host or _connection_host(value)
        elif letter == "o":
            self.origin = _origin(value)
        elif letter == "s":
            self.session_name = value or "-"
        elif letter == "t" and self.timing is None:
            self.timing = _timing(value)

    def _close_stream(self) -> None:
        if self.stream is not None:
            kind, port, protocol, formats = self.stream
            self.media.append(Media(kind, port, protocol, formats, self.stream_host, tuple(self.stream_attributes)))
        self.stream_host = None
        self.stream_attributes = []


def _stream(value: str) -> tuple[str, int, str, tuple[str, ...]]:
    fields = value.split()
    if len(fields) < 3:
        raise SdpError("an m= line needs a medium, a port, a protocol and its formats")
    # "49170/2" asks for two pairs of ports (layered coding); the first pair is the one that a single stream uses.
    port = decimal(fields[1].partition("/")[0], 65_535)
    if port is None:
        raise SdpError("the port of an m= line is not a number from 0 to 65535")
    return fields[0].lower(), port, fields[2], tuple(fields[3:])


def _connection_host(value: str) -> str | None:
    """Return the host of a ``c=`` line without the TTL of a multicast address; None when it names none on the Internet."""
    fields = value.split()
    if len(fields) < 3 or fields[0].upper() != "IN":
        return None
    return fields[2].partition("/")[0].strip("[]") or None


def _origin(value: str) -> Origin:
    fields = value.split()
    if len(fields) < 6:
        # Too short to be one, yet nothing here depends on it but the peer itself.
        return Origin(*fields[:3])
    return Origin(fields[0], fields[1], fields[2], fields[5])


def _timing(value: str) -> str:
    fields = value.split()
    if len(fields) != 2 or any(decimal(f, 2**64 - 1) is None for f in fields):
        return "0 0"
    return f"{fields[0]} {fields[1]}"


def serialize(description: Description) -> bytes:
    """Write a description with CRLF line ends, in the order that RFC 8866 section 5 demands.

    Raises ValueError when a value holds a line break or a token holds a blank: that is our mistake, never the peer's,
    because ``parse`` lets no such value in.
    """
    origin = description.origin
    lines = [
        "v=0",
        f"o={_token(origin.username)} {_token(origin.session_id)} {_token(origin.version)} {_address(origin.host)}",
        f"s={_text(description.session_name) or '-'}",
    ]
    if description.host is not None:
        lines.append(f"c={_address(description.host)}")
    lines.append(f"t={_text(description.timing)}")
    lines += [_attribute_line(a) for a in description.attributes]
    for media in description.media:
        head = " ".join(_token(t) for t in (media.kind, str(media.port), media.protocol, *media.formats))
        lines.append(f"m={head}")
        if media.host is not None:
            lines.append(f"c={_address(media.host)}")
        lines += [_attribute_line(a) for a in media.attributes]
    return ("\r\n".join(lines) + "\r\n").encode("utf-8")


def _address(host: str) -> str:
    return f"IN {'IP6' if ':' in host else 'IP4'} {_token(host)}"


def _attribute_line(attribute: Attribute) -> str:
    name, value = attribute
    if not name or ":" in name:
        raise ValueError(f"not the name of an attribute: {name!r}")
    return _text(f"a={name}:{value}" if value else f"a={name}")


def _token(text: str) -> str:
    if len(text.split()) != 1 or text != text.strip():
        raise ValueError(f"not a single word: {text!r}")
    return _text(text)


def _text(text: str) -> str:
    if not _LINE_BREAKERS.isdisjoint(text):
        raise ValueError(f"a line of a session description cannot hold {text!r}")
    return text
