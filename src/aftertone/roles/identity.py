"""Who this machine is towards registrars, across restarts.

Owns: the instance id and the secret from which the marks of our Contacts are made, in one small file. Refuses to know: what
is registered.

Specification: RFC 5626 section 4.1 (an instance id that survives a restart), RFC 9562 for its UUID.

Theory of operation: made once and kept. Where it cannot be kept, because the disk is full or read-only, one is made for this
start alone: registrars then see a new phone beside the old one until that expires, which is better than no phone. For the same reason
it is not synced: no start waits for the disk for it.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECRET_BYTES: Final = 16


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """An instance and its secret, which nobody else learns."""

    id: uuid.UUID
    secret: bytes

    @property
    def instance(self) -> str:
        """Return the URN for ``+sip.instance``."""
        return f"urn:uuid:{self.id}"

    def line(self, account: str) -> str:
        """Return 64 bits that stand for an account: always the same, and guessed by nobody."""
        return hashlib.blake2b(account.encode(), key=self.secret, digest_size=8).hexdigest()


def identity(file: Path, entropy: Callable[[int], bytes] = os.urandom) -> tuple[Identity, str]:
    """Return the identity in ``file``, making it when there is none; and why it could not be kept, empty when it is."""
    try:
        found = _read(file)
        if found is not None:
            return found, ""
    except OSError as error:
        return _fresh(entropy), f"cannot read {file}: {error.strerror}"
    made = _fresh(entropy)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{made.id} {made.secret.hex()}\n")
        temporary.replace(file)
    except OSError as error:
        return made, f"cannot write {file}: {error.strerror}"
    return made, ""


def _read(file: Path) -> Identity | None:
    """Return what the file says, None when there is none or it says nothing that we wrote. Raises OSError."""
    try:
        words = file.read_text(encoding="ascii", errors="replace").split()
        secret = bytes.fromhex(words[1])
        return Identity(uuid.UUID(words[0]), secret) if len(secret) == SECRET_BYTES else None
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _fresh(entropy: Callable[[int], bytes]) -> Identity:
    return Identity(uuid.UUID(bytes=entropy(16), version=4), entropy(SECRET_BYTES))
