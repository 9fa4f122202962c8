"""The event stream: order, resuming, sharing, limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from aftertone.errors import StorageError
from aftertone.model import Action
from aftertone.web import events
from tests.unit.web.visitor import Listener
from tests.unit.web.world import BEARER, HERE, World

PATH = "/api/v1/events"


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run ``test`` on a loop of its own, with an end to its patience."""
    asyncio.run(asyncio.wait_for(test, 20))


def identity(block: str) -> int:
    """Return the id of an event."""
    return int(block.partition("id: ")[2].partition("\n")[0])


def data(block: str) -> dict[str, object]:
    """Return the data of an event."""
    found: dict[str, object] = json.loads(block.partition("data: ")[2])
    return found


def test_a_new_message_is_told_to_every_listener(world: World) -> None:
    async def test() -> None:
        app = world.app()
        async with Listener(app, PATH, BEARER) as first, Listener(app, PATH, BEARER) as second:
            assert first.headers["content-type"].startswith("text/event-stream")
            assert first.headers["cache-control"] == "no-store"
            assert app.state.feed.listeners == 2
            # The first status says that a listener has found its place; what comes after that is told.
            streams = [first.blocks(), second.blocks()]
            for stream in streams:
                assert await anext(stream) == "retry: 2000"
                assert "event: status" in await anext(stream)
            message = world.deliver()
            for stream in streams:
                block = await anext(stream)
                assert "event: change" in block
                assert data(block)["message_id"] == str(message.id)
                assert identity(block) == data(block)["sequence"] == world.catalog.last_change()
        assert app.state.feed.listeners == 0

    run(test())


@pytest.mark.parametrize("by", ["header", "query"])
def test_a_listener_resumes_without_gap_or_repetition(world: World, by: str) -> None:
    start = world.catalog.last_change()
    message = world.deliver()
    world.catalog.act(message.id, Action.HEAR, world.now_ms)
    world.catalog.act(message.id, Action.DELETE, world.now_ms)
    expected = [change.sequence for change in world.catalog.changes(start)]

    async def test() -> None:
        app = world.app()
        for position in (start, expected[0], expected[1]):
            headers = {**BEARER, "Last-Event-ID": str(position)} if by == "header" else BEARER
            path = PATH if by == "header" else f"{PATH}?after={position}"
            async with Listener(app, path, headers) as listener:
                rest = [number for number in expected if number > position]
                stream = listener.events("change")
                assert [identity(await anext(stream)) for _ in rest] == rest

    run(test())


def test_a_listener_far_behind_gets_everything_in_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_BATCH", 3)
    monkeypatch.setattr(events, "_RING", 4)
    start = world.catalog.last_change()
    message = world.deliver(audio=b"")
    for _ in range(10):
        world.catalog.act(message.id, Action.HEAR, world.now_ms)
        world.catalog.act(message.id, Action.UNHEAR, world.now_ms)
    expected = [change.sequence for change in world.catalog.changes(start)]

    async def test() -> None:
        app = world.app()
        async with Listener(app, f"{PATH}?after={start}", BEARER) as listener:
            stream = listener.events("change")
            assert [identity(await anext(stream)) for _ in expected] == expected
            world.catalog.act(message.id, Action.DELETE, world.now_ms)
            assert identity(await anext(stream)) == world.catalog.last_change()

    run(test())


def test_a_position_from_the_future_starts_anew(world: World) -> None:
    async def test() -> None:
        app = world.app()
        async with Listener(app, f"{PATH}?after=999999", BEARER) as listener:
            assert identity(await anext(listener.events("reset"))) == world.catalog.last_change()

    run(test())


def test_the_present_status_is_told_first_and_then_when_it_changes(world: World) -> None:
    async def test() -> None:
        app = world.app(poll_s=0.005)
        async with Listener(app, PATH, BEARER) as listener:
            stream = listener.events("status")
            assert data(await anext(stream))["status"] == "ok"
            world.line = None
            told = data(await anext(stream))
            assert told["status"] == "down"
            assert "line_down" in str(told["alarms"])

    run(test())


def test_a_silent_stream_sends_a_heartbeat(world: World) -> None:
    async def test() -> None:
        app = world.app(heartbeat_s=0.01)
        async with Listener(app, PATH, BEARER) as listener:
            blocks = [block async for block in _first(listener, 4)]
            assert blocks.count(": still here") >= 2

    run(test())


async def _first(listener: Listener, count: int) -> Any:
    stream = listener.blocks()
    for _ in range(count):
        yield await anext(stream)


def test_a_stream_ends_with_its_session(world: World) -> None:
    with world.client() as client:
        client.post(f"/login/{world.login_link()}", headers=HERE)
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
        session = client.cookies["aftertone"]

    async def test() -> None:
        import hashlib

        app = world.app(heartbeat_s=0.01)
        async with Listener(app, PATH, cookie) as listener:
            stream = listener.blocks()
            assert await anext(stream) == "retry: 2000"
            world.catalog.drop_session(hashlib.sha256(session.encode()).hexdigest())
            rest = [block async for block in stream]
            assert len(rest) < 100

    run(test())


def test_listeners_are_limited_and_their_places_come_back(world: World) -> None:
    async def test() -> None:
        app = world.app()
        app.state.feed._max_listeners = 1
        for _ in range(3):
            async with Listener(app, PATH, BEARER) as first:
                assert first.status == 200
                async with Listener(app, PATH, BEARER) as second:
                    assert second.status == 503
                    assert second.headers["retry-after"] == "2"

    run(test())


def test_stopping_ends_every_stream(world: World) -> None:
    from aftertone.web.app import stop_streams

    async def test() -> None:
        app = world.app()
        async with Listener(app, PATH, BEARER) as listener:
            stream = listener.blocks()
            assert await anext(stream) == "retry: 2000"
            stop_streams(app)
            assert [block async for block in stream if "event: change" in block] == []

    run(test())


def test_a_catalog_that_is_away_for_a_moment_costs_nothing_but_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        app = world.app(poll_s=0.005)
        async with Listener(app, PATH, BEARER) as listener:
            stream = listener.blocks()
            await anext(stream)
            await anext(stream)
            real = world.catalog.changes
            failures = iter([True, True])

            def changes(after: int, limit: int = 500) -> object:
                if next(failures, False):
                    raise StorageError("the catalog is busy")
                return real(after, limit)

            monkeypatch.setattr(world.catalog, "changes", changes)
            message = world.deliver()
            assert data(await anext(stream))["message_id"] == str(message.id)

    run(test())


def test_trouble_when_the_poller_starts_does_not_end_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = world.catalog.data_version
    failures = iter([True, True, True])

    def data_version() -> int:
        if next(failures, False):
            raise StorageError("the catalog is away")
        return real()

    async def test() -> None:
        monkeypatch.setattr(world.catalog, "data_version", data_version)
        app = world.app(poll_s=0.005)
        async with Listener(app, PATH, BEARER) as listener:
            stream = listener.blocks()
            assert await anext(stream) == "retry: 2000"
            assert "event: status" in await anext(stream)
            message = world.deliver()
            assert data(await anext(stream))["message_id"] == str(message.id)

    run(test())


def test_a_stream_that_cannot_read_the_catalog_ends_and_the_next_one_works(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> int:
        raise StorageError("the catalog is away")

    async def test() -> None:
        app = world.app(poll_s=0.005)
        with monkeypatch.context() as patch:
            patch.setattr(world.catalog, "last_change", away)
            async with Listener(app, PATH, BEARER) as listener:
                assert [block async for block in listener.blocks()] == ["retry: 2000"]
        async with Listener(app, PATH, BEARER) as listener:
            stream = listener.blocks()
            await anext(stream)
            assert "event: status" in await anext(stream)
        assert app.state.feed.listeners == 0

    run(test())


@pytest.mark.parametrize("query", ["after=-1", "after=x", f"after={2**63}"])
def test_a_position_that_is_none(world: World, query: str) -> None:
    with world.client() as client:
        assert client.get(f"{PATH}?{query}", headers=BEARER).status_code == 422
