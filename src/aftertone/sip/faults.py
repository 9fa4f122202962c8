"""What a peer can do wrong on the wire, as exceptions that carry the answer it gets.

Owns: the parser's error and its kinds. Refuses to know: who answers. Every parser in this package raises ``ParseError``
or one of its kinds and nothing else, whatever the bytes.
"""

from __future__ import annotations

from aftertone.errors import PeerError


class ParseError(PeerError):
    """The bytes are not a SIP message that we can take; the text says which part, without quoting the peer at length."""


class TooLargeError(ParseError):
    """The message, or what it announces, is beyond our limit (RFC 3261 section 21.5.7)."""

    sip_status = 513


class VersionError(ParseError):
    """The message is of another SIP version (RFC 3261 section 21.5.6)."""

    sip_status = 505


class SchemeError(ParseError):
    """The Request-URI has a scheme that we do not serve (RFC 3261 section 21.4.14)."""

    sip_status = 416
