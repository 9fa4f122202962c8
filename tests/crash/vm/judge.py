"""What a caller was promised, and whether it was kept.

Owns: the judgement of one cut. Refuses to know: where the rows come from, and how the power was cut.

Theory of operation: as in ``tests/crash/kills.py``. Who heard the beep has exactly one message. Whose hang-up was answered
200 has all of it. Of the others' speech that had reached the machine at most ``LOSS_MS`` are missing; what is missing of all
that had been sent is told beside it, and an emulated processor has a limit of its own, ``EMULATED_LOSS_MS``. What was there
before the cut is as it was; a mark that was confirmed is there, one that was under way may be. A greeting is the old one or
the new one, and the new one once that was confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

LOSS_MS: Final = 250
EMULATED_LOSS_MS: Final = 1000
"""The limit on an emulated processor. It is some twenty times slower than a real one, so the line is late by itself, which
says nothing about the disk; speech that was never synced would be missing for seconds, or all of it."""
FRAME_MS: Final = 20
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Promise:
    """What one caller had got and sent when the power went."""

    number: str
    beep_heard: bool
    confirmed: bool
    sent_ms: int
    reached_ms: int
    """How much of what was sent had surely reached the machine (see ``echo``)."""
    trouble: str = ""
    """Why the call failed before the power did, if it did."""


@dataclass(frozen=True, slots=True)
class Change:
    """A mark or a greeting that was asked for before the cut. ``target``: a message's id, or the digest of the greeting."""

    target: str
    confirmed: bool


@dataclass(slots=True)
class Verdict:
    """One cut, judged."""

    limit_ms: int = LOSS_MS
    calls: int = 0
    confirmed: int = 0
    cut_off: int = 0
    worst_loss_ms: int = 0
    """Of what had reached the machine."""
    worst_unsaved_ms: int = 0
    """Of what had been sent, whether it had reached the machine or not."""
    slow: int = 0
    """Callers who lost more than ``LOSS_MS`` and no more than ``limit_ms``."""
    violations: list[str] = field(default_factory=list)

    def judge_call(self, promise: Promise, rows: list[Row]) -> None:
        """Hold one caller's promise against the rows with its number."""
        name = promise.number
        self.calls += 1
        self.confirmed += promise.confirmed
        if promise.trouble:
            self.violations.append(f"{name}: before the cut: {promise.trouble}")
        if len(rows) > 1:
            self.violations.append(f"{name}: {len(rows)} messages of one call")
        if not rows:
            if promise.beep_heard or promise.confirmed:
                self.violations.append(f"{name}: heard the beep, and there is no message")
            return
        row = rows[0]
        self.cut_off += bool(row["cut_off"])
        stored_ms = int(row["audio_ms"])
        unsaved_ms, missing_ms = promise.sent_ms - stored_ms, promise.reached_ms - stored_ms
        if promise.confirmed:
            if unsaved_ms > FRAME_MS or row["cut_off"]:
                self.violations.append(f"{name}: confirmed, but {unsaved_ms} ms are missing, cut_off={row['cut_off']}")
            return
        self.worst_loss_ms = max(self.worst_loss_ms, missing_ms)
        self.worst_unsaved_ms = max(self.worst_unsaved_ms, unsaved_ms)
        self.slow += LOSS_MS < missing_ms <= self.limit_ms
        if missing_ms > self.limit_ms:
            self.violations.append(
                f"{name}: {missing_ms} of {promise.reached_ms} ms are missing (limit {self.limit_ms})"
            )
        if row["end_reason"] == "cut_off" and not row["cut_off"]:
            self.violations.append(f"{name}: ended as cut_off without the mark")

    def judge_earlier(self, before: Mapping[str, Row], after: Mapping[str, Row], mark: Change | None) -> None:
        """Hold every message that was there before the cut against what is there now."""
        for message_id, was in before.items():
            now = after.get(message_id)
            same = now == was
            if mark is not None and message_id == mark.target and now is not None:
                same = _but_the_mark(now) == _but_the_mark(was) and now["state"] in (was["state"], "heard")
                if mark.confirmed and now["state"] != "heard":
                    self.violations.append(f"message {message_id}: marked as heard, confirmed, and is {now['state']}")
            if not same:
                self.violations.append(f"message {message_id} changed: {was} -> {now}")

    def judge_strangers(self, before: Iterable[str], after: Mapping[str, Row], numbers: Iterable[str]) -> None:
        """Every new message is of one of ``numbers``, calls that had none so far: any other would be a second one."""
        allowed = set(numbers)
        for message_id in after.keys() - set(before):
            if after[message_id]["caller"]["number"] not in allowed:
                self.violations.append(f"message {message_id} is new and of no call without one: {after[message_id]}")

    def judge_greeting(self, before: str, after: str, change: Change | None) -> None:
        """Hold digests of the greeting before and after the cut against the change that was asked for."""
        allowed = {before} if change is None else {change.target} if change.confirmed else {before, change.target}
        if after not in allowed:
            self.violations.append(f"the greeting is {after[:12]}, and none of {sorted(d[:12] for d in allowed)}")


def _but_the_mark(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("state", "heard_at")}
