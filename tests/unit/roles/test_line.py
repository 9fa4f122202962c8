"""What the line refuses before it takes calls; the line at work is in tests/acceptance."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from aftertone.config import Settings
from aftertone.errors import ConfigError
from aftertone.roles.folder import Folder
from aftertone.roles.line import Line
from aftertone.roles.process import Start


def test_a_public_address_that_is_a_name_is_refused_and_not_met_call_by_call(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()
    settings = Settings.model_validate(
        {"sip": {"public_address": "phone.example.com", "port": 0, "host": "127.0.0.1"}, "calls": {"at_once": 2}}
    )

    async def run() -> None:
        await Line(Start("line", settings, folder, structlog.get_logger(), None)).run()

    with pytest.raises(ConfigError, match=r"sip\.public_address must be an IP address, not 'phone\.example\.com'"):
        asyncio.run(run())
    assert not list(folder.journal.iterdir())
