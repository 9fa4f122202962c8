"""The event stream: what changed, told within a moment to everybody who listens.

Owns: the one poller that all listeners share, resuming after a lost connection, the limit on listeners. Refuses to
know: what a change means. Specification: HTML Living Standard section 9.2 (server-sent events).

Theory of operation: every committed change has a sequence number, and that is the event's id; a listener that returns
with ``Last-Event-ID`` gets everything after it. While anybody listens, one task asks the catalog every 200 ms whether
any process has committed (``PRAGMA data_version``, microseconds) and only then reads the new changes into a ring, from
which all listeners are served; whoever is further behind than the ring reads the catalog. A listener has no queue: it
has a position, so a slow one costs nothing. Events of the kind ``status`` have no id and are not resumed: each new
connection is told the present state. Runs on one event loop; the catalog is read in worker threads.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from aftertone.errors import AftertoneError, BusyError
from aftertone.store.catalog import Catalog
from aftertone.store.rows import Change
from aftertone.web.gate import identify, require_api
from aftertone.web.services import Desk, DeskServices
from aftertone.web.standing import Standing

MAX_LISTENERS: Final = 64
"""A household or an office; each listener holds one connection open."""

_RING: Final = 1000
_BATCH: Final = 500
_KEPT: Final = 100_000
"""Changes that the catalog keeps."""
_STATUS_EVERY: Final = 5
"""Polls between two looks at the roles' status files, which are written once a second."""

_NOT_YET: Final = 2**63
"""Beyond every sequence number: the ring holds nothing yet, and everybody reads the catalog."""

log = logging.getLogger(__name__)


class Feed:
    """Changes and status for all listeners of this process."""

    def __init__(
        self,
        catalog: Catalog,
        standing: Callable[[], Standing],
        *,
        poll_s: float = 0.2,
        heartbeat_s: float = 15.0,
        max_listeners: int = MAX_LISTENERS,
    ) -> None:
        self._catalog = catalog
        self._standing = standing
        self._poll_s = poll_s
        self._heartbeat_s = heartbeat_s
        self._max_listeners = max_listeners
        self._listeners = 0
        self._task: asyncio.Task[None] | None = None
        self._pulse = asyncio.Event()
        self._ring: deque[Change] = deque(maxlen=_RING)
        self._ring_starts_after = _NOT_YET
        self._last = 0
        self._status: Standing | None = None
        self._stopped = False

    @property
    def listeners(self) -> int:
        """Number of open streams."""
        return self._listeners

    def admit(self) -> None:
        """Count one more listener and make sure that the poller runs. Raises BusyError when there are too many."""
        if self._listeners >= self._max_listeners:
            raise BusyError(f"{self._max_listeners} event streams are open already; close one")
        self._listeners += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def leave(self) -> None:
        """Count one listener less; without listeners nothing is polled."""
        self._listeners -= 1
        if self._listeners == 0 and self._task is not None:
            self._task.cancel()
            self._forget()

    def stop(self) -> None:
        """End every stream at once, so that a server that waits for its connections can stop. Call on the loop."""
        self._stopped = True
        self._wake()

    def _forget(self) -> None:
        self._task = None
        self._ring.clear()
        self._ring_starts_after = _NOT_YET
        self._status = None

    def _wake(self) -> None:
        pulse, self._pulse = self._pulse, asyncio.Event()
        pulse.set()

    async def _run(self) -> None:
        version = -1
        turn = 0
        failing = False
        while not self._stopped:
            try:
                if self._ring_starts_after == _NOT_YET:
                    self._last = self._ring_starts_after = await run_in_threadpool(self._catalog.last_change)
                    self._wake()
                version = await self._look(version, with_status=turn % _STATUS_EVERY == 0)
                failing = False
            except Exception as error:
                # Whatever is wrong, listeners must not be left with a poller that is gone. One line per trouble.
                if not failing:
                    log.warning("the event stream cannot look for changes: %r; it tries again", error)
                failing = True
            turn += 1
            await asyncio.sleep(self._poll_s)

    async def _look(self, version: int, *, with_status: bool) -> int:
        """Read what is new and wake the listeners if anything is; returns the catalog's version as seen before that."""
        seen = await run_in_threadpool(self._catalog.data_version)
        found = False
        while seen != version:
            new = await run_in_threadpool(self._catalog.changes, self._last, _BATCH)
            for change in new:
                if len(self._ring) == _RING:
                    self._ring_starts_after = self._ring[0].sequence
                self._ring.append(change)
                self._last = change.sequence
            found = found or bool(new)
            if len(new) < _BATCH:
                break
        if with_status:
            status = await run_in_threadpool(self._standing)
            if self._status is None or status.mark != self._status.mark:
                found = True
            self._status = status
        if found:
            self._wake()
        return seen

    async def _after(self, position: int) -> list[Change]:
        if self._ring_starts_after <= position:
            return [change for change in self._ring if change.sequence > position]
        return await run_in_threadpool(self._catalog.changes, position, _BATCH)

    async def stream(self, position: int | None, still_welcome: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield the stream's bytes after change ``position`` (None: from now on) until the listener is not welcome.

        ``still_welcome`` is asked in a worker thread at each heartbeat, so that a stream does not outlive its session.
        When the catalog cannot be read the stream ends; a listener comes back by itself and resumes.
        """
        yield b"retry: 2000\n\n"
        try:
            newest = await run_in_threadpool(self._catalog.last_change)
            if position is None or position > newest or newest - position > _KEPT:
                # A number from the future comes from a catalog that was rebuilt since, and one from long ago has lost
                # what came after it: what the client holds is void and it must read everything anew.
                if position is not None:
                    yield _event("reset", {}, newest)
                position = newest
            async for block in self._follow(position, still_welcome):
                yield block
        except AftertoneError as error:
            log.warning("an event stream ends: %s", error)

    async def _follow(self, position: int, still_welcome: Callable[[], bool]) -> AsyncIterator[bytes]:
        mark = ""
        while not self._stopped:
            pulse = self._pulse
            changes = await self._after(position)
            for change in changes:
                yield _event("change", _change_out(change), change.sequence)
                position = change.sequence
            if self._status is not None and self._status.mark != mark:
                mark = self._status.mark
                yield _event("status", _status_out(self._status))
            if len(changes) >= _BATCH:
                continue
            try:
                await asyncio.wait_for(pulse.wait(), self._heartbeat_s)
            except TimeoutError:
                if not await run_in_threadpool(still_welcome):
                    return
                yield b": still here\n\n"


def _change_out(change: Change) -> dict[str, object]:
    return {
        "sequence": change.sequence,
        "what": change.what,
        "mailbox": change.mailbox,
        "message_id": None if change.message_id is None else str(change.message_id),
    }


def _status_out(status: Standing) -> dict[str, object]:
    alarms = [{"code": alarm.code, "text": alarm.text} for alarm in status.alarms]
    return {"status": status.status, "mark": status.mark, "alarms": alarms}


def _event(name: str, data: dict[str, object], sequence: int | None = None) -> bytes:
    head = "" if sequence is None else f"id: {sequence}\n"
    # JSON escapes line ends, so the data is always one line.
    return f"{head}event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class EventStream(StreamingResponse):
    """A streaming answer that gives its listener's place back however it ends."""

    def __init__(self, feed: Feed, content: AsyncIterator[bytes]) -> None:
        super().__init__(
            content,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until the client leaves or the feed stops."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feed.leave()


router = APIRouter(tags=["events"], dependencies=[Depends(require_api)])


def _still_welcome(request: Request, services: DeskServices) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            return identify(request, services) is not None
        except AftertoneError:
            return True  # the catalog is away for a moment: nobody is sent off for that

    return ask


@router.get("/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def events(
    request: Request,
    services: Desk,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**63)] = None,
    after: Annotated[int | None, Query(ge=0, lt=2**63, description="Resume after this change")] = None,
) -> EventStream:
    """Listen to changes as server-sent events; `Last-Event-ID` (or `after`) resumes without a gap."""
    feed: Feed = request.app.state.feed
    feed.admit()
    position = after if last_event_id is None else last_event_id
    return EventStream(feed, feed.stream(position, _still_welcome(request, services)))
