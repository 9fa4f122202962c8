"""Puts the desk together: routers, login, pages, border, error answers.

Owns: the order of the layers and what the application keeps in memory. Refuses to know: sockets and processes; an ASGI
server runs what ``create_app`` returns.

Theory of operation: a request crosses the border (host, size, headers), then finds its endpoint, which asks the gate who
is there. The application holds no state that matters: one event feed, the counts of password tries, which sessions came
by a link a moment ago. Everything else is in the catalog.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.staticfiles import StaticFiles

from aftertone.web import events, health, login, mailboxes, messages, metrics, pages, problems, signalling
from aftertone.web.border import Border
from aftertone.web.events import Feed
from aftertone.web.gate import LoginNeededError
from aftertone.web.login import LoginState
from aftertone.web.services import DeskServices
from aftertone.web.standing import standing_of
from aftertone.web.templating import STATIC

__all__ = ["DeskServices", "create_app", "stop_streams"]

API = "/api/v1"


def create_app(services: DeskServices, *, poll_s: float = 0.2, heartbeat_s: float = 15.0) -> FastAPI:
    """Return the desk as an ASGI application.

    ``poll_s`` is how often the event feed looks for changes, ``heartbeat_s`` how long a stream is silent at most. The
    application opens nothing itself and closes nothing: whoever made ``services`` does. When its server stops, call
    ``stop_streams`` first: a server that waits for its connections would wait for event streams for ever.
    """
    app = FastAPI(
        title="Aftertone desk",
        version=services.version,
        summary="Messages and mailboxes of an answering machine that never loses a message.",
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
        lifespan=_lifespan,
    )
    app.state.services = services
    app.state.feed = Feed(services.catalog, lambda: standing_of(services), poll_s=poll_s, heartbeat_s=heartbeat_s)
    app.state.login = LoginState()
    problems.install(app)
    app.add_exception_handler(LoginNeededError, login.show_login)
    api = APIRouter(prefix=API)
    for room in (messages.router, signalling.router, mailboxes.router, health.router, events.router, metrics.router):
        api.include_router(room)
    app.include_router(api)
    app.include_router(metrics.router, include_in_schema=False)
    app.include_router(health.probes)
    app.include_router(login.router)
    app.include_router(pages.router)
    app.include_router(signalling.pages)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Border, names=services.names)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    stop_streams(app)


def stop_streams(app: FastAPI) -> None:
    """End every open event stream now. Call on the event loop that runs ``app``, before the server waits."""
    feed: Feed = app.state.feed
    feed.stop()
