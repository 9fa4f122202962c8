"""Guesses at the password of one user, wherever they come from.

Owns: how many wrong passwords each user was tried with lately, and whose budget is spent. Refuses to know: passwords, and from where
somebody is believed to be the user himself; such attempts are not asked about here.

Theory of operation: a source has a budget of its own (``budgets``), but who has a thousand addresses has a thousand of them. So each
user has one for all strangers together: the times of its last wrong guesses. While there are as many within a minute as the budget
allows, no further guess is looked at, right or wrong. Names that nobody has share one budget: without it, guesses at them would be
looked at for longer than guesses at others, and tell them apart. The table has as many places as there are users, and one more.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from aftertone.sip.budgets import ATTACK_STAYS_NS, WINDOW_NS

NOBODY: Final = ""
"""Under which all names are counted that nobody has."""


@dataclass(slots=True)
class GuessedUser:
    """A user whose password somebody tries to guess."""

    user: str
    refused: int
    """Attempts that were not looked at since it began."""
    last_ns: int
    told_ns: int


class Guesses:
    """The budgets of all users. ``now_ns`` is monotonic and does not fall."""

    def __init__(self, users: Iterable[str], a_minute: int) -> None:
        """``a_minute``: wrong guesses at one user within any minute, at least 1."""
        self.a_minute: Final = a_minute
        self._wrong: Final[dict[str, deque[int]]] = {user: deque(maxlen=a_minute) for user in (NOBODY, *users)}
        self._guessed: OrderedDict[str, GuessedUser] = OrderedDict()
        self._fresh: list[GuessedUser] = []

    def may_try(self, user: str, now_ns: int) -> bool:
        """Tell whether an attempt as ``user`` may be looked at."""
        name = user if user in self._wrong else NOBODY
        wrong = self._wrong[name]
        if len(wrong) < self.a_minute or now_ns - wrong[0] >= WINDOW_NS:
            return True
        if name != NOBODY:
            self._refuse(name, now_ns)
        return False

    def failed(self, user: str, now_ns: int) -> None:
        """Note a wrong password that was looked at."""
        self._wrong[user if user in self._wrong else NOBODY].append(now_ns)

    def guessed(self, now_ns: int) -> tuple[GuessedUser, ...]:
        """Return whose budget was spent lately, the latest first; never a name that nobody has."""
        while self._guessed and now_ns - next(iter(self._guessed.values())).last_ns >= ATTACK_STAYS_NS:
            self._guessed.popitem(last=False)
        return tuple(replace(one) for one in reversed(self._guessed.values()))

    def news(self) -> list[GuessedUser]:
        """Return and forget whose budget was spent since the last call: each at most once in ``WINDOW_NS``."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def _refuse(self, user: str, now_ns: int) -> None:
        one = self._guessed.get(user)
        if one is None or now_ns - one.last_ns >= ATTACK_STAYS_NS:
            one = self._guessed[user] = GuessedUser(user, 0, now_ns, now_ns - WINDOW_NS)
        one.refused += 1
        one.last_ns = now_ns
        self._guessed.move_to_end(user)
        if now_ns - one.told_ns >= WINDOW_NS:
            one.told_ns = now_ns
            self._fresh.append(replace(one))
