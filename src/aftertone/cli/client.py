"""A client of the desk's API for the commands of this machine.

Owns: finding the desk, the token, turning problems into errors. Refuses to know: what is asked.

Theory of operation: a running desk writes its address into the data folder; the token beside it is readable by its owner
alone. Where no desk runs, the same application answers inside this process, so that a message can be listed or a mailbox
made while the machine is stopped: one API, two ways to reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from aftertone.cli.options import machine
from aftertone.errors import EnvironmentFault, NotFoundError, StorageError, UsageError
from aftertone.roles.folder import read_status

TIMEOUT_S = 30.0


class Desk:
    """The desk's API under ``/api/v1``; paths are given without that prefix."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient, base: str, token: str) -> None:
        # One loop for all requests: a connection that is kept open belongs to the loop that opened it.
        self._runner, self._client, self._base = runner, client, base
        self._headers = {"Authorization": f"Bearer {token}"}

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send one request. Raises UsageError or NotFoundError for what was asked wrongly, EnvironmentFault otherwise."""
        return self._runner.run(self._request(method, path, params, json, content, headers))

    def get(self, path: str, **params: str | int) -> Any:
        """Return the JSON at ``path``."""
        return self.request("GET", path, params=params).json()

    async def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None,
        json: object,
        content: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response:
        try:
            response = await self._client.request(
                method,
                f"{self._base}/api/v1{path}",
                params=params,
                json=json,
                content=content,
                headers={**self._headers, **(headers or {})},
            )
        except httpx.HTTPError as error:
            raise EnvironmentFault(
                f"the desk at {self._base} does not answer: {error!r}; is the machine running?"
            ) from None
        if response.is_success:
            return response
        raise _as_error(response)


def _as_error(response: httpx.Response) -> Exception:
    try:
        problem = response.json()
        text = str(problem.get("detail") or problem.get("title"))
    except ValueError:
        text = response.text[:200]
    if response.status_code == 404:
        return NotFoundError(text)
    if 400 <= response.status_code < 500:
        return UsageError(text)
    return StorageError(text)


@contextlib.contextmanager
def desk(data: Path, config: Path | None) -> Iterator[Desk]:
    """Reach the desk of the machine in ``data``, running or not. Raises what opening its storage raises."""
    folder, settings = machine(data, config)
    if not folder.root.is_dir():
        raise UsageError(
            f"there is no machine in {folder.root}; name its folder with --data, or start one: aftertone serve"
        )
    status = read_status(folder, "desk")
    if status is not None:
        with _reach(httpx.AsyncHTTPTransport(), str(status["url"]), folder.token()) as found:
            yield found
        return
    from aftertone.roles.desk import open_desk
    from aftertone.web.app import create_app

    folder.make()
    token = folder.token()
    catalog, services = open_desk(folder, settings, token)
    try:
        with _reach(httpx.ASGITransport(create_app(services)), "http://localhost", token) as found:
            yield found
    finally:
        catalog.close()


@contextlib.contextmanager
def _reach(transport: httpx.AsyncBaseTransport, base: str, token: str) -> Iterator[Desk]:
    with asyncio.Runner() as runner:
        client = httpx.AsyncClient(transport=transport, timeout=TIMEOUT_S)
        try:
            yield Desk(runner, client, base, token)
        finally:
            runner.run(client.aclose())
