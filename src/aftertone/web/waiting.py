"""What the desk answers while its storage cannot be opened.

Owns: the probes, and one sentence for everything else. Refuses to know: the catalog, which is what is missing.

Theory of operation: a full or broken disk is when somebody asks how the machine is. So probes are answered as always, by what
line and delivery say about themselves; pages and API say 503 and where to look. Nobody is signed in, so nothing else is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aftertone.web.border import Border
from aftertone.web.standing import judge

RETRY_AFTER_S: Final = 10
SENTENCE: Final = (
    "The desk cannot open its storage at the moment, and tries again by itself. "
    "On the machine, 'aftertone doctor' and the log say what is wrong.\n"
)

Status = Callable[[], Mapping[str, object] | None]


def create_waiting_room(line_status: Status, delivery_status: Status, names: Sequence[str] = ()) -> Starlette:
    """Return the ASGI application that stands in for the desk; ``names`` as in ``DeskServices``."""

    def healthz(_: Request) -> PlainTextResponse:
        standing = judge(line_status(), delivery_status())
        return PlainTextResponse(standing.reason + "\n", status_code=200 if standing.taking_calls else 503)

    def livez(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    def sentence(_: Request) -> PlainTextResponse:
        return PlainTextResponse(SENTENCE, status_code=503, headers={"Retry-After": str(RETRY_AFTER_S)})

    every = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    routes = [
        Route("/healthz", healthz, methods=["GET", "HEAD"]),
        Route("/livez", livez, methods=["GET", "HEAD"]),
        Route("/{path:path}", sentence, methods=every),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(Border, names=tuple(names))
    return app
