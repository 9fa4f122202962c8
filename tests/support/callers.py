"""Many test callers in one process, for tests that need calls in parallel.

Owns: running ``TestCaller`` beside a test that is not asynchronous. Refuses to know: what is tested.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Self

from aftertone.audio.clips import Clip
from aftertone.model import Codec
from aftertone.roles.caller import Outcome, TestCaller, Wish
from tests.support.machine import speech


def wish(uri: str, number: str, seconds: float, codec: Codec = Codec.PCMU, *, hang_up: bool = True) -> Wish:
    """Return the wish to call ``uri`` as ``number`` and speak for ``seconds``."""
    return Wish(uri, Clip("speech", speech(seconds), 8000), codec, from_uri=f"sip:{number}@127.0.0.1", hang_up=hang_up)


class Party:
    """Callers that call at the same time, on a loop and thread of their own. Use it as a context."""

    def __init__(self, wishes: Sequence[Wish]) -> None:
        self.testers: list[TestCaller] = []
        self._wishes = wishes
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._futures: list[Future[Outcome]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        for one in self._wishes:
            self._futures.append(asyncio.run_coroutine_threadsafe(self._call(one), self._loop))
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._futures:
            future.cancel()

        async def drain() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait(tasks, timeout=5) if tasks else None
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(drain(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _call(self, one: Wish) -> Outcome:
        tester = TestCaller(one, lambda _: None)
        self.testers.append(tester)
        return await tester.run()

    def outcomes(self, within_s: float = 60) -> list[Outcome]:
        """Wait until every call is over."""
        return [future.result(within_s) for future in self._futures]

    def run_on_loop(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` where the callers live."""
        self._loop.call_soon_threadsafe(callback)

    def speaking(self) -> int:
        """How many callers have begun to speak."""
        return sum(1 for tester in self.testers if tester.sent_ns)

    def sent_ms(self) -> list[int]:
        """How much each caller has sent so far, in the order in which they began."""
        return [20 * len(tester.sent_ns) for tester in self.testers]
