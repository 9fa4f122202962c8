"""Renders pages from templates.

Owns: the template environment (autoescape always on, undefined names are errors) and the addresses of static files.
Refuses to know: what a page shows.

Theory of operation: a static file's address carries a hash of its content, so that browsers may keep it for ever and
still get a new one after an upgrade. Everything a caller can choose reaches a page only through autoescape.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"


@functools.cache
def _address(name: str) -> str:
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = _address
    return environment


def page(
    request: Request,
    template: str,
    values: Mapping[str, object],
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Return the page that ``template`` makes of ``values``."""
    known: dict[str, object] = {"version": request.app.state.services.version, "csrf_token": "", **values}
    text = _environment().get_template(template).render(known)
    return HTMLResponse(text, status_code=status_code, headers=dict(headers or {}))
