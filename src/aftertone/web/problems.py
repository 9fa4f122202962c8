"""Answers to requests that cannot be granted: problem details for programs, a plain page for people.

Owns: the mapping from the error tree to status codes, and the form of an error answer. Refuses to know: why something
failed. Specification: RFC 9457 (application/problem+json).

Theory of operation: a problem says what happened (``title``), to what (``instance``, ``detail``) and what to do next
(``remedy``, an extension member). Its ``type`` is a URN that names the kind of problem and never changes. No answer
repeats a secret or a stack trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from aftertone.errors import (
    AftertoneError,
    BusyError,
    DamagedError,
    EnvironmentFault,
    NotFoundError,
    StateError,
    StorageFullError,
    UsageError,
)
from aftertone.web.headers import protect

MEDIA_TYPE = "application/problem+json"


class Problem(HTTPException):
    """A refusal with everything its answer says. ``kind`` is the stable last part of its ``type``."""

    def __init__(
        self, status: int, kind: str, title: str, *, detail: str = "", remedy: str = "", retry_after_s: int = 0
    ) -> None:
        headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
        super().__init__(status_code=status, detail=detail or title, headers=headers)
        self.kind = kind
        self.title = title
        self.explanation = detail
        self.remedy = remedy


_FROM_ERROR: tuple[tuple[type[AftertoneError], int, str, str, str], ...] = (
    (NotFoundError, 404, "not-found", "There is no such thing here", "Look at the list for what exists."),
    (StateError, 409, "wrong-state", "Its state does not allow this", "Read it again and decide anew."),
    (UsageError, 422, "not-possible", "This cannot be done as asked", "Correct the request and send it again."),
    (BusyError, 503, "busy", "A limit is reached for the moment", "Try again shortly."),
    (StorageFullError, 507, "storage-full", "There is no room left on the disk", "Free some space and try again."),
    (
        DamagedError,
        500,
        "damaged",
        "Stored data is damaged",
        "Run `aftertone verify` on the machine; nothing was deleted.",
    ),
    (
        EnvironmentFault,
        503,
        "machine-trouble",
        "The machine has trouble underneath",
        "Try again; if it stays, see the log.",
    ),
    (AftertoneError, 500, "internal", "Something went wrong here", "See the log of the desk."),
)
"""First match wins: the order goes from the special to the general."""


def problem_of(error: AftertoneError) -> Problem:
    """Return the problem that tells a client about ``error``."""
    for kind, status, name, title, remedy in _FROM_ERROR:
        if isinstance(error, kind):
            retry_after_s = 2 if error.retry and status == 503 else 0
            return Problem(status, name, title, detail=str(error), remedy=remedy, retry_after_s=retry_after_s)
    raise AssertionError("unreachable: AftertoneError is the root of the tree")


def from_http(error: HTTPException) -> Problem:
    """Return the problem for what the framework itself refuses (404 for a path, 405 for a method)."""
    if isinstance(error, Problem):
        return error
    phrase = HTTPStatus(error.status_code).phrase
    problem = Problem(error.status_code, phrase.lower().replace(" ", "-"), phrase)
    problem.headers = error.headers
    return problem


def render(request: Request, problem: Problem, extra: Mapping[str, object] | None = None) -> Response:
    """Return ``problem`` in the form that suits the client: a page for a person's browser, JSON for all others."""
    headers = dict(problem.headers or {})
    wants_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    if wants_page:
        from aftertone.web.templating import page

        return page(request, "problem.html", {"problem": problem}, status_code=problem.status_code, headers=headers)
    body: dict[str, object] = {
        "type": f"urn:aftertone:problem:{problem.kind}",
        "title": problem.title,
        "status": problem.status_code,
        "instance": request.url.path,
    }
    if problem.explanation:
        body["detail"] = problem.explanation
    if problem.remedy:
        body["remedy"] = problem.remedy
    body.update(extra or {})
    return JSONResponse(body, status_code=problem.status_code, headers=headers, media_type=MEDIA_TYPE)


def _validation_errors(error: RequestValidationError) -> list[dict[str, str]]:
    return [
        {"where": ".".join(str(part) for part in one["loc"]), "what": str(one["msg"])} for one in error.errors()[:20]
    ]


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error as a problem."""

    async def on_aftertone(request: Request, error: Exception) -> Response:
        return render(request, problem_of(cast(AftertoneError, error)))

    async def on_http(request: Request, error: Exception) -> Response:
        return render(request, from_http(cast(HTTPException, error)))

    async def on_validation(request: Request, error: Exception) -> Response:
        found = _validation_errors(cast(RequestValidationError, error))
        detail = "; ".join(f"{one['where']}: {one['what']}" for one in found)
        problem = Problem(
            422, "invalid", "The request is not valid", detail=detail, remedy="Correct what `errors` names and resend."
        )
        return render(request, problem, {"errors": found})

    async def on_surprise(request: Request, _error: Exception) -> Response:
        # This answer is made outside every middleware, so it must carry the protecting headers by itself.
        problem = Problem(500, "internal", "Something went wrong here", remedy="See the log of the desk.")
        response = render(request, problem)
        protect(response.headers, request.url.path)
        return response

    app.add_exception_handler(AftertoneError, on_aftertone)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Exception, on_surprise)
