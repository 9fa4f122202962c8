"""Which bytes of a representation a request asks for.

Owns: Range, If-Range and If-None-Match for one whole file with a strong validator. Refuses to know: files, frameworks.
Specification: RFC 9110 sections 13 and 14.

Theory of operation: a single byte range is honoured. A list of ranges is ignored, as section 14.2 allows, and the whole
file is sent: players never ask for several, and a list of thousands is only good for an attack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_RANGE: Final = re.compile(r"bytes=[ \t]*(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``first`` to ``last``, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.last - self.first + 1


class UnsatisfiableError(ValueError):
    """The range lies wholly outside the representation: 416."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Return the range that ``header`` asks for of ``size`` bytes, or None when the whole is to be sent.

    A header that is malformed, has another unit or names several ranges is ignored (RFC 9110 section 14.2). Raises
    UnsatisfiableError when no byte of the range exists.
    """
    match = _RANGE.fullmatch(header) if header is not None else None
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        suffix = int(match["last"])
        if suffix == 0 or size == 0:
            raise UnsatisfiableError
        return ByteRange(max(0, size - suffix), size - 1)
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else size - 1
    if match["last"] and last < first:
        return None
    if first >= size:
        raise UnsatisfiableError
    return ByteRange(first, min(last, size - 1))


def range_still_valid(if_range: str | None, etag: str) -> bool:
    """Return whether If-Range allows the range: only the same strong entity tag does. Spec: RFC 9110 section 13.1.5."""
    return if_range is None or if_range.strip() == etag


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Return whether the client has this representation already. Spec: RFC 9110 section 13.1.2 (weak comparison)."""
    if if_none_match is None:
        return False
    candidates = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in candidates or etag in candidates
