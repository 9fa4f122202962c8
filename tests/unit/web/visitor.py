"""A client that talks to the desk in memory, and a listener for its event stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import httpx
from fastapi import FastAPI
from starlette.types import Message, Scope


class Visitor:
    """A browser or program without a network: keeps cookies, follows no redirect. Close it, or use it in ``with``."""

    def __init__(self, app: FastAPI, base_url: str, host: str, *, raise_errors: bool = True) -> None:
        transport = httpx.ASGITransport(app=app, client=(host, 50000), raise_app_exceptions=raise_errors)
        self._client = httpx.AsyncClient(transport=transport, base_url=base_url)
        self._runner = asyncio.Runner()
        self.headers = self._client.headers
        self.cookies = self._client.cookies

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def request(self, method: str, url: str, **more: Any) -> httpx.Response:
        """Send one request and return the whole answer."""
        return self._runner.run(self._client.request(method, url, **more))

    def get(self, url: str, **more: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", url, **more)

    def head(self, url: str, **more: Any) -> httpx.Response:
        """HEAD."""
        return self.request("HEAD", url, **more)

    def post(self, url: str, **more: Any) -> httpx.Response:
        """POST."""
        return self.request("POST", url, **more)

    def patch(self, url: str, **more: Any) -> httpx.Response:
        """PATCH."""
        return self.request("PATCH", url, **more)

    def put(self, url: str, **more: Any) -> httpx.Response:
        """PUT."""
        return self.request("PUT", url, **more)

    def delete(self, url: str, **more: Any) -> httpx.Response:
        """DELETE."""
        return self.request("DELETE", url, **more)


class Listener:
    """One open event stream; ``async with`` opens it and leaves it."""

    def __init__(self, app: FastAPI, path: str, headers: Mapping[str, str]) -> None:
        self._app = app
        self._scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path.partition("?")[0],
            "raw_path": path.partition("?")[0].encode(),
            "query_string": path.partition("?")[2].encode(),
            "root_path": "",
            "headers": [(b"host", b"localhost"), *((k.lower().encode(), v.encode()) for k, v in headers.items())],
            "client": ("203.0.113.7", 50000),
            "server": ("localhost", 80),
        }
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._asked = False
        self.status = 0
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._app(self._scope, self._receive, self._sent.put))
        start = await asyncio.wait_for(self._sent.get(), 10)
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        await asyncio.wait_for(self._task, 10)

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def blocks(self) -> AsyncIterator[str]:
        """Give what comes, block by block (an event, a comment, the retry time), until the stream ends."""
        rest = ""
        while True:
            message = await asyncio.wait_for(self._sent.get(), 10)
            rest += message.get("body", b"").decode()
            *whole, rest = rest.split("\n\n")
            for block in whole:
                yield block
            if not message.get("more_body", False):
                return

    async def events(self, name: str) -> AsyncIterator[str]:
        """Give the blocks of one kind of event."""
        async for block in self.blocks():
            if f"event: {name}\n" in block:
                yield block
