"""The words between a machine under test and its witness.

Owns: one line of JSON as bytes and back, its limits, the values that both sides share. Refuses to know: sockets, files.

Theory of operation: each line is an object with ``v``, the version, and ``say``, what it is about:

- ``ask`` (``run``, ``place``) is answered ``told`` (``run``, ``boot``, ``state``, and a number for each of `KINDS`): about that
  run, or else about the newest run of that place that was cut and not looked at; state ``none`` when there is neither.
- ``begin`` (``run``, ``place``, ``boot``) is answered ``ready``. From then on this connection speaks of that run.
- ``ack`` (``what``, ``n``) is not answered: of that kind everything up to number n is durable. Numbers only grow.
- ``end`` is answered ``kept``: the run was stopped without a cut.
- ``verdict`` (``run``, ``lost``) is answered ``kept``: the run was looked at, and so many things were missing.
- ``refused`` (``why``) and ``busy`` come from the witness, which then hangs up.

A line is short and numbers are bounded, so that whoever sends nonsense costs little. There are no secrets in it, and nobody
is asked who he is: it is meant for a network that one trusts for an hour.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from aftertone.errors import PeerError

VERSION: Final = 1
LONGEST_LINE_BYTES: Final = 512
HIGHEST_NUMBER: Final = 10**8
"""Things of one kind in a run: a run of a quarter of an hour makes less than a million."""
KINDS: Final = ("record", "file", "row", "mark")
"""Records of the journal; blobs; rows of the catalog; marks (heard) on those rows."""
NAME_DIGITS: Final = 32
_NAME: Final = re.compile(rf"[0-9a-f]{{{NAME_DIGITS}}}")


class RunState(StrEnum):
    """What became of a run, as the witness knows it."""

    NONE = "none"
    """There is no such run."""
    OPEN = "open"
    """It goes on, or was cut, and nobody has looked yet."""
    ENDED = "ended"
    """It was stopped without a cut."""
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Counts:
    """Of each kind, everything from 1 up to this number."""

    record: int = 0
    file: int = 0
    row: int = 0
    mark: int = 0

    def of(self, kind: str) -> int:
        """Return the number of one of `KINDS`."""
        return int(getattr(self, kind))

    def __str__(self) -> str:
        """Say it in words."""
        return ", ".join(_plural(self.of(kind), kind) for kind in KINDS)

    def above_zero(self) -> str:
        """Say in words what there is any of."""
        return ", ".join(_plural(self.of(kind), kind) for kind in KINDS if self.of(kind))


def _plural(number: int, kind: str) -> str:
    return f"{number} {kind}{'' if number == 1 else 's'}"


def serialize(say: str, **values: object) -> bytes:
    """Return one line."""
    return json.dumps({"v": VERSION, "say": say, **values}, separators=(",", ":")).encode("ascii") + b"\n"


def parse(line: bytes) -> Mapping[str, Any]:
    """Return what a line says. Raises PeerError when it is not one of this version."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("say"), str):
        raise PeerError("a line came that is not of this protocol")
    if value.get("v") != VERSION:
        raise PeerError(f"the other side speaks another version; use the same version of Aftertone (here: {VERSION})")
    return value


def name_in(values: Mapping[str, Any], key: str) -> str:
    """Return the name (of a run, place, boot) under ``key``, empty when that is empty. Raises PeerError."""
    name = values.get(key)
    if not isinstance(name, str) or (name and _NAME.fullmatch(name) is None):
        raise PeerError(f"{key} must be {NAME_DIGITS} hexadecimal digits")
    return name


def number_in(values: Mapping[str, Any], key: str) -> int:
    """Return the number under ``key``. Raises PeerError when it is none, or out of bounds."""
    number = values.get(key)
    if type(number) is not int or not 0 <= number <= HIGHEST_NUMBER:
        raise PeerError(f"{key} must be a number from 0 to {HIGHEST_NUMBER}")
    return number


class Lines:
    """Takes bytes as they come, gives whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield every line that ``data`` completes. Raises PeerError when one grows too long."""
        self._rest += data
        while (end := self._rest.find(b"\n")) >= 0:
            line, self._rest = self._rest[:end], self._rest[end + 1 :]
            if end > LONGEST_LINE_BYTES:
                break
            yield line
        if end > LONGEST_LINE_BYTES or len(self._rest) > LONGEST_LINE_BYTES:
            raise PeerError(f"a line came that is longer than {LONGEST_LINE_BYTES} bytes")
