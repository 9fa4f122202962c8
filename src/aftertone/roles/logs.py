"""Logs: one line an event, for people or for machines, and never a secret.

Owns: how structlog is set up in every role. Refuses to know: what is logged.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO, cast

import structlog

from aftertone.config import Log

SECRET_WORDS: Final = ("password", "secret", "token", "authorization", "cookie")
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Stderr(io.TextIOBase):
    """Standard error that never raises: a log on a full disk, or one that nobody reads any more, must not end a call."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(2, text.encode("utf-8", "backslashreplace"))
        return len(text)


def _hide_secrets(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = "***"
    return event


def _one_line(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take out of texts what would begin a line of its own, or move a terminal's cursor: peers choose some of them."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(mark if mark.isprintable() else "?" for mark in value)
    return event


def set_up(settings: Log, role: str) -> structlog.typing.FilteringBoundLogger:
    """Configure logging for this process and return its logger, bound to ``role``. Lines go to stderr."""
    stderr = _Stderr()
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="%Y-%m-%d %H:%M:%S" if settings.format == "text" else "iso", utc=False
            ),
            _hide_secrets,
            _one_line,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, stderr)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=stderr, format=f"%(asctime)s [{role}] %(name)s: %(message)s")
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger().bind(role=role)
    return logger
