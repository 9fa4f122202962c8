"""Telephone numbers as people write them, compared as telephones do.

Owns: when two spellings are one number. Refuses to know: numbering plans of countries; whose a number is.

Specification: RFC 3966 section 5.1.1 (visual separators), ITU-T E.164 (at most 15 digits, of which ``+`` says that they are all).

Theory of operation: ``+49 30 5550100``, ``0049305550100``, ``030 5550100`` and ``5550100`` reach one telephone. Without the plan of
the country nobody can tell from the text alone, but one is always the end of the other once leading zeros and the plus are gone.
So two numbers are the same when they are spelt the same, or, more weakly, when one ends with the other and that has enough digits
to be no accident. Two that both begin with a plus are complete: they are the same or not. Nothing here walks a text twice.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

LONGEST: Final = 32
"""Signs in a number; E.164 has 15 digits, and PBXs prefix theirs."""
ENOUGH_DIGITS: Final = 5
"""Digits that two numbers must share at their ends: shorter ones are extensions, of which 200 and 1200 are two."""

_SEPARATORS: Final = str.maketrans("", "", "-.()/ \u00a0")
_SIGNS: Final = frozenset("0123456789*#")


class Likeness(enum.IntEnum):
    """How sure it is that two numbers are one."""

    NONE = 0
    END = 1
    """One is the end of the other: the same, unless a third one fits as well."""
    FULL = 2


def normal_number(text: str) -> str:
    """Return a number without separators, ``00`` as ``+``; empty when ``text`` is no number of at most 32 signs.

    ``*`` and ``#`` belong to the codes of a PBX, such as ``*97``. The ``(0)`` that people write after a country code goes.
    """
    if len(text) > 4 * LONGEST:
        return ""
    if text.lstrip().startswith(("+", "00")):
        text = text.replace("(0)", "", 1)
    bare = text.translate(_SEPARATORS)
    if bare.startswith("00"):
        bare = "+" + bare[2:]
    signs = bare.removeprefix("+")
    if not signs or len(bare) > LONGEST or not _SIGNS.issuperset(signs):
        return ""
    return bare


def likeness(one: str, other: str) -> Likeness:
    """Compare two normal numbers; an empty one is like nothing."""
    if not one or not other:
        return Likeness.NONE
    if one == other:
        return Likeness.FULL
    if one[0] == other[0] == "+":
        return Likeness.NONE
    long, short = sorted((_significant(one), _significant(other)), key=len, reverse=True)
    if len(short) >= ENOUGH_DIGITS and short.isdigit() and long.isdigit() and long.endswith(short):
        return Likeness.END
    return Likeness.NONE


class NumberIndex:
    """Whose each number is, made once and asked often: asking costs the same whether there are ten numbers or ten thousand."""

    def __init__(self, numbers: Mapping[str, Iterable[str]]) -> None:
        """``numbers``: each owner's numbers in any spelling; what is no number is passed over."""
        self._same: dict[str, set[str]] = {}
        self._ends: dict[str, list[tuple[str, str]]] = {}
        for owner, theirs in numbers.items():
            for normal in filter(None, map(normal_number, theirs)):
                self._same.setdefault(normal, set()).add(owner)
                if len(_significant(normal)) >= ENOUGH_DIGITS:
                    self._ends.setdefault(normal[-ENOUGH_DIGITS:], []).append((normal, owner))

    def owner(self, text: str) -> str | None:
        """Return whose number ``text`` is, or None when it is nobody's or could be more than one's.

        The same spelling goes before the same end.
        """
        wanted = normal_number(text)
        owners = self._same.get(wanted) or {
            owner
            for normal, owner in self._ends.get(wanted[-ENOUGH_DIGITS:], ())
            if likeness(wanted, normal) is Likeness.END
        }
        return next(iter(owners)) if len(owners) == 1 else None


def _significant(normal: str) -> str:
    return normal.lstrip("+0")
