"""One tree of errors that says whose fault it is, whether to try again, and what the caller is answered.

Owns: the classes every package raises across its own border. Refuses to know: who catches them.

Theory of operation: an error is classified where it is raised, by its class, and never again further up. A message to a
person says what happened, to what, and what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class AftertoneError(Exception):
    """Base of every error that Aftertone raises on purpose."""

    retry: ClassVar[bool] = False
    """True when the same call may succeed later without anybody changing anything."""

    sip_status: ClassVar[int] = 500
    """What a caller is answered when this error ends the handling of an INVITE (RFC 3261 section 21)."""


class PeerError(AftertoneError):
    """The other side sent something wrong: a datagram, a description, a request."""

    sip_status = 400


class UsageError(AftertoneError):
    """The person at the command line, the API or the settings asked for something that cannot be."""


class ConfigError(UsageError):
    """A setting is unknown, malformed or contradicts another; the message names it and its source."""


class NotFoundError(UsageError):
    """The named mailbox, message or file does not exist."""

    sip_status = 404


class StateError(UsageError):
    """The thing exists, but its state does not allow what was asked (see ``model.TRANSITIONS``)."""


class EnvironmentFault(AftertoneError):
    """The machine around us failed: disk, port, database, clock. Usually worth another try."""

    retry = True
    sip_status = 503


class StorageError(EnvironmentFault):
    """A file could not be written, synced or read back. What was not acknowledged is not durable."""


class StorageFullError(StorageError):
    """There is no room for a new recording."""

    sip_status = 480


class DamagedError(StorageError):
    """Stored bytes are not what was written (checksum, length, version). Nothing was deleted."""

    retry = False


class BusyError(EnvironmentFault):
    """A limit was reached: calls, ports, memory. Refused now, welcome later."""
