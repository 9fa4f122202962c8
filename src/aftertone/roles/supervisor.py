"""The supervisor: starts the roles of one machine, starts them again when they die, stops them politely.

Owns: processes and their back-off. Refuses to know: what the roles do, and their libraries; it imports none of them, so
that nothing a role does can take it down.

Theory of operation: one task a role: start, wait, back off, start again. The back-off doubles from 0.1 s to 10 s and is
forgiven after a minute of life; the line's is never longer than 1 s, because each second without it is a caller lost. At
the first start a role that says that a person must act stops the whole machine with that role's message. Stopping is
over in less than two seconds, and delivery is stopped after the line, so that it can deliver the calls that were just ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from aftertone.roles.process import EXIT_USAGE

ROLES: Final = ("line", "delivery", "desk", "scribe")
FIRST_BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = {"line": 1.0}
DEFAULT_LONGEST_BACKOFF_S: Final = 10.0
FORGIVEN_AFTER_S: Final = 60.0
LINE_STOPS_WITHIN_S: Final = 1.0
STOP_WITHIN_S: Final = 1.7


class Supervisor:
    """Runs the roles until told to stop. ``on_ready`` hears each role's facts every time it gets ready."""

    def __init__(
        self,
        data: Path,
        config: Path | None,
        logger: structlog.typing.FilteringBoundLogger,
        on_ready: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        self._data, self._config, self._logger, self._on_ready = data, config, logger, on_ready
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._was_ready: set[str] = set()
        self._stop = asyncio.Event()
        self._failed: int | None = None

    async def run(self) -> int:
        """Keep the roles running until SIGTERM or SIGINT. Returns the exit status for the shell."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        keepers = [asyncio.create_task(self._keep(role)) for role in ROLES]
        await self._stop.wait()
        await self._stop_all()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        return self._failed or 0

    async def _keep(self, role: str) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                status = await self._live(role)
            except OSError as error:
                # No process, memory or descriptor left for the moment: a short life like any other.
                self._logger.error("role could not be started", role=role, error=str(error))
                status = -1
            if self._stop.is_set():
                return
            if status == EXIT_USAGE and role not in self._was_ready:
                self._failed = EXIT_USAGE
                self._stop.set()
                return
            if time.monotonic() - began_s > FORGIVEN_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            self._logger.warning("role ended, starting it again", role=role, status=status, after_s=backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S.get(role, DEFAULT_LONGEST_BACKOFF_S))

    async def _live(self, role: str) -> int:
        """Run one life of a role and return its exit status."""
        reading, writing = os.pipe()
        arguments = ["--data", str(self._data), "--ready-fd", str(writing), "--supervisor", str(os.getpid())]
        if self._config is not None:
            arguments += ["--config", str(self._config)]
        try:
            # A session of its own: a Ctrl-C at the terminal reaches us alone, and we decide the order of the end.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"aftertone.roles.{role}", *arguments, pass_fds=(writing,), start_new_session=True
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._processes[role] = process
        listener = asyncio.create_task(self._hear_ready(role, reading))
        status = await process.wait()
        await listener
        return status

    async def _hear_ready(self, role: str, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        try:
            line = await reader.readline()
            if line:
                self._was_ready.add(role)
                # A terminal that is gone or a log on a full disk must not cost the role its keeper.
                with contextlib.suppress(OSError):
                    self._on_ready(role, json.loads(line))
        finally:
            transport.close()

    async def _stop_all(self) -> None:
        """Stop all roles at once, but delivery only when the line has ended its calls: it has their messages to deliver."""
        deadline_s = time.monotonic() + STOP_WITHIN_S
        for role in ("line", "desk", "scribe"):
            self._terminate(role)
        await self._ended("line", LINE_STOPS_WITHIN_S)
        self._terminate("delivery")
        for role in ("delivery", "desk", "scribe"):
            await self._ended(role, deadline_s - time.monotonic())

    def _terminate(self, role: str) -> None:
        process = self._processes.get(role)
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    async def _ended(self, role: str, within_s: float) -> None:
        """Wait for the end of a role, and kill it when that takes too long."""
        process = self._processes.get(role)
        if process is None:
            return
        try:
            await asyncio.wait_for(process.wait(), max(within_s, 0.05))
        except TimeoutError:
            self._logger.warning("role did not stop in time and was killed", role=role)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
