"""The data folder and the shell that the tests of this folder share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from aftertone.config import Settings
from aftertone.roles.desk import open_desk
from aftertone.roles.folder import Folder
from tests.unit.cli.shell import Shell, deliver, some_messages


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine with two mailboxes and five messages, made once and copied."""
    folder = Folder(tmp_path_factory.mktemp("machine") / "var")
    folder.make()
    catalog, services = open_desk(folder, Settings(), folder.token())
    catalog.add_mailbox("office", 1)
    services.publish_directory()
    catalog.close()
    deliver(folder.root, *some_messages())
    return folder.root


@pytest.fixture
def shell(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell in a folder of its own, beside a copy of that machine."""
    for name in os.environ:
        if name.startswith("AFTERTONE_"):
            monkeypatch.delenv(name)
    data = tmp_path / "var"
    shutil.copytree(filled, data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TZ", "UTC")
    return Shell(data, monkeypatch, capsys)
