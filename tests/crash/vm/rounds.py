"""The rounds: calls to the guest, a cut in the middle, and the same machine after its next boot.

Owns: when what happens, and what each caller was promised when the power went. Refuses to know: how a guest is built and
cut (``guest``), what is a violation (``judge``).

Theory of operation: a round begins when the guest takes calls. Two callers speak, and most times a third speaks shortly and
hangs up. The seed chooses the moment of the cut: while they speak, right after a hang-up was confirmed, right after a
message was marked as heard or in the middle of it, while the greeting is being changed, or anywhere from the first ring
on. Then the guest boots, delivers, and is judged by what its desk tells. The seed makes the choices repeatable, not the
scheduling of host and guest.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx

from aftertone.audio.clips import Clip
from aftertone.audio.flac import read_audio, write_wav
from aftertone.errors import AftertoneError
from aftertone.model import Codec
from aftertone.roles.caller import TestCaller, Wish
from tests.crash.vm.disk import Loss
from tests.crash.vm.echo import Echoes
from tests.crash.vm.guest import Guest
from tests.crash.vm.image import HOST_ADDRESS, TOKEN
from tests.crash.vm.judge import EMULATED_LOSS_MS, FRAME_MS, LOSS_MS, Change, Promise, Row, Verdict
from tests.support.machine import speech

MOMENTS: Final = ("speech", "hang-up", "mark", "greeting", "anywhere")
SPEAKERS: Final = 2
SPEAKER_S: Final = 20.0
"""Longer than any round: speakers are cut off."""
BOOT_WITHIN_S: Final = 400.0
SPEAK_WITHIN_S: Final = 90.0
DELIVER_WITHIN_S: Final = 120.0
ASK_EVERY_S: Final = 0.25
ANYWHERE_S: Final = 8.0
MID_WRITE_SHARE: Final = 0.6
MID_WRITE_WITHIN_S: Final = 0.5
"""Ten times the longest time between two commits of the journal."""
GREETING_SECONDS: Final = (0.2, 0.4)
T = TypeVar("T")


class GuestError(Exception):
    """The guest does not do what it must before anything can be judged."""


@dataclass(slots=True)
class Cut:
    """One line of the table."""

    number: int
    moment: str
    loss: Loss
    told_ms: float
    """How long sound had waited for the disk at worst, by the line's own measure."""
    verdict: Verdict
    boot_s: float = 0.0


class Caller:
    """One caller of a round."""

    def __init__(self, uri: str, number: str, seconds: float, codec: Codec) -> None:
        self.number = number
        wish = Wish(uri, Clip("speech", speech(seconds), 8000), codec, from_uri=f"sip:{number}@{HOST_ADDRESS}")
        self.tester = TestCaller(wish, lambda _: None)
        self.task = asyncio.create_task(self.tester.run())

    def promise(self, cut_ns: int, reached_ns: int) -> Promise:
        """Return what this caller had been promised at ``cut_ns``, when all sent before ``reached_ns`` had been taken."""
        outcome = self.tester.outcome
        sent, reached = (
            FRAME_MS * sum(1 for t in self.tester.sent_ns if t <= limit_ns) for limit_ns in (cut_ns, reached_ns)
        )
        confirmed = outcome.bye_status == 200
        return Promise(self.number, outcome.beep_heard, confirmed, sent, reached, outcome.failure)


class House:
    """The guest with its desk, as its owner sees it, and what is known of it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.rows: dict[str, Row] = {}
        self.without: set[str] = set()
        """Callers of whom there is no message (yet)."""
        self.greeting = ""
        self.greetings = [_greeting(seconds) for seconds in GREETING_SECONDS]
        self.digests: list[str] = []
        self.put_s = 0.0
        self.mark_s = 0.5
        self._client = self._connect()

    @property
    def uri(self) -> str:
        return f"sip:main@{self.guest.address}"

    async def boot(self) -> float:
        """Switch on and wait until calls are taken; returns how many seconds that took. Raises GuestError."""
        began_s = time.monotonic()
        self.guest.power_on()
        await self._client.aclose()
        self._client = self._connect()

        async def takes_calls() -> bool:
            if not self.guest.is_on():
                raise GuestError(f"the guest ended while it booted; its console:\n{self.guest.console_tail()}")
            answer = await self._client.get("/healthz", timeout=5)
            return answer.status_code == 200

        await self._until(takes_calls, "the guest to take calls", BOOT_WITHIN_S)
        return time.monotonic() - began_s

    async def prepare(self) -> None:
        """Set each greeting once, so that both are known as the desk gives them, and the time that it takes."""
        for content in self.greetings:
            began_s = time.monotonic()
            await self.put_greeting(content)
            self.put_s = time.monotonic() - began_s
            self.digests.append(await self.greeting_digest())
        self.greeting = self.digests[-1]

    async def put_greeting(self, content: bytes) -> None:
        """Set the greeting; confirmed on return."""
        answer = await self._client.put("/api/v1/mailboxes/main/greeting", content=content)
        answer.raise_for_status()

    async def greeting_digest(self) -> str:
        """Return a digest of the greeting as it is, or the status that the desk answers without one."""
        answer = await self._client.get("/api/v1/mailboxes/main/greeting")
        if answer.status_code != 200:
            return f"missing ({answer.status_code})"
        return hashlib.sha256(answer.content).hexdigest()

    async def mark_heard(self, message_id: str) -> None:
        """Mark a message as heard; confirmed on return."""
        answer = await self._client.post(f"/api/v1/messages/{message_id}/heard")
        answer.raise_for_status()

    async def messages(self) -> dict[str, Row]:
        """Return all messages and hang-ups by id."""
        found: dict[str, Row] = {}
        before: dict[str, str] = {}
        while True:
            answer = await self._client.get("/api/v1/messages", params={"limit": "500", **before})
            answer.raise_for_status()
            page: list[dict[str, Any]] = answer.json()["messages"]
            found |= {str(row["id"]): row for row in page}
            if len(page) < 500:
                return found
            before = {"before": str(page[-1]["id"])}

    async def delivered(self, expected: set[str]) -> dict[str, Row]:
        """Wait until every number in ``expected`` has a message; return all rows. Who has none in time is judged so."""
        deadline_s = time.monotonic() + DELIVER_WITHIN_S

        async def look() -> dict[str, Row] | None:
            rows = await self.messages()
            numbers = {row["caller"]["number"] for row in rows.values()}
            return rows if expected <= numbers or time.monotonic() > deadline_s else None

        return await self._until(look, "the desk to answer", 2 * DELIVER_WITHIN_S)

    async def wrong_with_audio(self, message_id: str, told_ms: int) -> str:
        """Decode a message's recording to its end; returns what is wrong with it, nothing when it is whole."""
        answer = await self._client.get(f"/api/v1/messages/{message_id}/audio")
        if answer.status_code != 200:
            return f"message {message_id} has no recording: the desk answers {answer.status_code}"
        try:
            samples, rate_hz = await asyncio.to_thread(read_audio, answer.content)
        except AftertoneError as error:
            return f"message {message_id} has a recording that is no audio: {error}"
        decoded_ms = 1000 * len(samples) / rate_hz
        return "" if abs(decoded_ms - told_ms) <= 1 else f"message {message_id} holds {decoded_ms:.0f} of {told_ms} ms"

    async def _until(self, ask: Callable[[], Awaitable[T | None]], what: str, within_s: float) -> T:
        deadline_s = time.monotonic() + within_s
        while True:
            try:
                answer = await ask()
            except (httpx.HTTPError, OSError):
                answer = None
            if answer:
                return answer
            if time.monotonic() > deadline_s:
                console = self.guest.console_tail()
                raise GuestError(f"waited {within_s:.0f} s for {what}; the guest's console:\n{console}")
            await asyncio.sleep(ASK_EVERY_S)

    def _connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://{self.guest.address}:8080", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
        )


class Round:
    """One round: from a guest that takes calls to the judgement after its next boot."""

    def __init__(self, house: House, number: int, moment: str, seed: int) -> None:
        self._house, self._moment = house, moment
        self._rng = random.Random(seed * 100_003 + number)
        self._mark: Change | None = None
        self._greeting: Change | None = None
        self._asked: asyncio.Task[None] | None = None
        self._number = number
        self._callers: list[Caller] = []

    async def play(self) -> Cut:
        """Call, cut, boot, judge. Raises GuestError."""
        rng, house = self._rng, self._house
        seconds = [SPEAKER_S] * SPEAKERS
        if self._moment == "hang-up" or rng.random() < 0.7:
            seconds.append(rng.uniform(0.6, 2.0))
        for index, length_s in enumerate(seconds):
            codec = rng.choice(list(Codec))
            self._callers.append(Caller(house.uri, f"v{self._number}x{index}", length_s, codec))
        async with Echoes(house.guest.address) as echoes:
            await self._wait_for_moment()
            if rng.random() < MID_WRITE_SHARE:
                await house.guest.wait_for_mid_write(MID_WRITE_WITHIN_S)
            cut_ns = time.monotonic_ns()
            house.guest.power_off()
            # A guest that answers no echo is excused nothing.
            reached_ns = echoes.reached_until_ns() or cut_ns
            told_ms = echoes.told_ms()
        promises = [caller.promise(cut_ns, reached_ns) for caller in self._callers]
        refused = self._settle_change()
        tasks = [caller.task for caller in self._callers] + ([self._asked] if self._asked else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        verdict = Verdict(EMULATED_LOSS_MS if house.guest.is_emulated else LOSS_MS, violations=refused)
        change = self._mark or self._greeting
        asked = "" if change is None else ", confirmed" if change.confirmed else ", under way"
        cut = Cut(self._number, self._moment + asked, house.guest.settle(rng), told_ms, verdict)
        cut.boot_s = await house.boot()
        await self._judge(promises, cut.verdict)
        return cut

    async def _wait_for_moment(self) -> None:
        rng, house = self._rng, self._house
        if self._moment == "anywhere":
            await asyncio.sleep(rng.uniform(0, ANYWHERE_S))
            return
        if self._moment == "hang-up":
            await self._so_far(lambda: self._callers[-1].tester.outcome.bye_status == 200, "a hang-up to be confirmed")
            await asyncio.sleep(rng.uniform(0, 0.05))
            return
        await self._so_far(lambda: all(c.tester.sent_ns for c in self._callers), "everyone to speak")
        await asyncio.sleep(rng.uniform(0.3, 3.0))
        new = sorted(i for i, row in house.rows.items() if row["state"] == "new")
        if self._moment == "greeting":
            other = 1 - house.digests.index(house.greeting)
            self._greeting = Change(house.digests[other], confirmed=False)
            self._asked = asyncio.create_task(house.put_greeting(house.greetings[other]))
            await asyncio.wait([self._asked], timeout=rng.uniform(0, 1.3) * house.put_s)
        elif self._moment == "mark" and new:
            self._mark = Change(rng.choice(new), confirmed=False)
            began_s = time.monotonic()
            self._asked = asyncio.create_task(house.mark_heard(self._mark.target))
            await asyncio.wait([self._asked], timeout=60 if rng.random() < 0.6 else rng.uniform(0, house.mark_s))
            if self._asked.done():
                house.mark_s = time.monotonic() - began_s

    def _settle_change(self) -> list[str]:
        """Take down whether what was asked for was confirmed when the power went; returns what the desk had refused."""
        if self._asked is None or not self._asked.done():
            return []
        if (error := self._asked.exception()) is not None:
            return [f"the desk refused a change before the cut: {error}"]
        if self._mark is not None:
            self._mark = Change(self._mark.target, confirmed=True)
        if self._greeting is not None:
            self._greeting = Change(self._greeting.target, confirmed=True)
        return []

    async def _so_far(self, question: Callable[[], bool], what: str) -> None:
        """Wait until it is so, or until a call ended in another way: then that is judged."""
        deadline_s = time.monotonic() + SPEAK_WITHIN_S
        while not question() and not any(c.tester.outcome.failure for c in self._callers):
            if time.monotonic() > deadline_s:
                console = self._house.guest.console_tail()
                raise GuestError(f"waited {SPEAK_WITHIN_S:.0f} s for {what}; the guest's console:\n{console}")
            await asyncio.sleep(0.005)

    async def _judge(self, promises: list[Promise], verdict: Verdict) -> None:
        house = self._house
        rows = await house.delivered({p.number for p in promises if p.beep_heard or p.confirmed})
        for promise in promises:
            verdict.judge_call(promise, [r for r in rows.values() if r["caller"]["number"] == promise.number])
        verdict.judge_earlier(house.rows, rows, self._mark)
        # A call that was cut before its beep may have a message, and that may come later than those that are waited for.
        house.without |= {p.number for p in promises}
        verdict.judge_strangers(house.rows, rows, house.without)
        house.without -= {str(row["caller"]["number"]) for row in rows.values()}
        for message_id in rows.keys() - house.rows.keys():
            wrong = await house.wrong_with_audio(message_id, int(rows[message_id]["audio_ms"]))
            verdict.violations += [wrong] if wrong else []
        after = await house.greeting_digest()
        verdict.judge_greeting(house.greeting, after, self._greeting)
        house.rows = rows
        if after in house.digests:
            house.greeting = after


def moments(cuts: int, seed: int) -> list[str]:
    """Return the moments of ``cuts`` rounds: each as often as the others, in an order that the seed chooses."""
    rng = random.Random(seed)
    found: list[str] = []
    while len(found) < cuts:
        found += rng.sample(MOMENTS, len(MOMENTS))
    return found[:cuts]


def _greeting(seconds: float) -> bytes:
    file = io.BytesIO()
    write_wav(file, speech(seconds), 8000)
    return file.getvalue()
