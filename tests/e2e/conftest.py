"""A desk on a real port and a real browser in front of it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from aftertone.web.app import stop_streams
from tests.unit.web.world import World, make_world

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PATIENCE_S = 10


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for one file of tests; without one the tests are skipped, or fail where peers are required."""
    if CHROMIUM is None:
        reason = "Chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("AFTERTONE_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    # Not longer than a module: while Playwright runs, this thread has a running event loop, and other tests want their own.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"])
        yield browser
        browser.close()


class Desk:
    """A running desk."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.url = url

    def link(self) -> str:
        """Return the address of a fresh one-time link."""
        return f"{self.url}/login/{self.world.login_link()}"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with make_world(tmp_path) as world, socket.create_server(("127.0.0.1", 0)) as listening:
        app = world.app(poll_s=0.05)
        config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=2)
        server = _Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="desk")
        thread.start()
        assert server.ready.wait(_PATIENCE_S)
        yield Desk(world, f"http://127.0.0.1:{listening.getsockname()[1]}")
        server.loop.call_soon_threadsafe(stop_streams, app)
        server.should_exit = True
        thread.join(_PATIENCE_S)
        assert not thread.is_alive()


class _Server(uvicorn.Server):
    """Tells when it takes connections, and on which loop it runs."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.loop: Any = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        import asyncio

        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.ready.set()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Any]:
    """Make pages: ``visit(width=…, height=…, dark=…)``. Fails when a page logged an error or asked another host."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def make(*, width: int = 1180, height: int = 800, dark: bool = False, **more: Any) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            locale="en-GB",
            timezone_id="Europe/Berlin",
            device_scale_factor=2,
            **more,
        )
        context.set_default_timeout(_PATIENCE_S * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
        page.on("request", lambda asked: complaints.append(asked.url) if "//127.0.0.1:" not in asked.url else None)
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []
