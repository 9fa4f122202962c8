"""The owner's password: what is accepted, how it is stored, how it is checked.

Owns: argon2id and its cost. Refuses to know: who may try how often (``throttle``), where the hash lies.
Specification: RFC 9106 section 4 (second recommended option: 64 MiB, three passes).

Theory of operation: each check takes 64 MiB for a moment, so at most two run at once; the others wait their turn. A
password is normalised (NFC) before hashing, because one key on one keyboard may arrive as two code points.
"""

from __future__ import annotations

import threading
import unicodedata
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from aftertone.errors import UsageError

SHORTEST: Final = 10
LONGEST: Final = 1024

_AT_ONCE: Final = 2
_turns = threading.BoundedSemaphore(_AT_ONCE)
_hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)


def _normal(password: str) -> str:
    return unicodedata.normalize("NFC", password)


def hash_password(password: str) -> str:
    """Return what is stored for ``password``. Raises UsageError when it is too short or too long. Takes ~0.1 s."""
    normal = _normal(password)
    if len(normal) < SHORTEST:
        raise UsageError(f"The password is too short: take at least {SHORTEST} characters, a sentence is best.")
    if len(normal) > LONGEST:
        raise UsageError(f"The password is too long: take at most {LONGEST} characters.")
    with _turns:
        return _hasher.hash(normal)


def password_matches(stored: str, password: str) -> bool:
    """Return whether ``password`` is the one that ``stored`` was made from. Takes ~0.1 s."""
    if len(password) > LONGEST:
        return False
    with _turns:
        try:
            return _hasher.verify(stored, _normal(password))
        except (VerificationError, InvalidHashError):
            return False
