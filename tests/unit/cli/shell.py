"""The command line as a person uses it, inside the test's process: arguments in; status, output and complaints out."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aftertone.audio.flac import write_flac, write_wav
from aftertone.cli import main
from aftertone.model import Message
from aftertone.store.blobs import DirectoryBlobs, message_key
from aftertone.store.catalog import Catalog
from tests.support.messages import a_message

RATE_HZ = 8000
SAMPLES = (np.sin(np.arange(4000) / 5) * 9000).astype(np.int16)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


class Shell:
    """Runs ``aftertone ...`` on one data folder. Any command that raises an error of its own fails the test by that."""

    def __init__(self, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.data = data
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["aftertone", *(str(one) for one in arguments)])
        self._capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        printed = self._capsys.readouterr()
        return Done(status, printed.out, printed.err)

    def fails(self, *arguments: str | Path, status: int = 2) -> str:
        """Run a command that must fail; return its one line on stderr."""
        done = self(*arguments)
        assert done.status == status, done
        assert done.out == ""
        assert "Traceback" not in done.err
        assert done.err.startswith("aftertone: ")
        assert done.err.count("\n") == 1
        return done.err


def deliver(data: Path, *messages: Message) -> None:
    """Put messages with their audio where delivery would."""
    file = io.BytesIO()
    write_flac(file, SAMPLES, RATE_HZ)
    catalog, blobs = Catalog.open(data / "catalog" / "aftertone.db"), DirectoryBlobs(data / "blobs")
    try:
        for message in messages:
            facts = blobs.put(message_key(message.id), file.getvalue())
            whole = {"blob": facts.key, "blob_sha256": facts.sha256, "blob_bytes": len(file.getvalue())}
            assert catalog.record_delivery(_with(message, whole))
    finally:
        catalog.close()


def _with(message: Message, values: dict[str, Any]) -> Message:
    from dataclasses import replace

    return replace(message, **values)


def some_messages() -> Sequence[Message]:
    """Return what is in every test's folder, oldest first."""
    from aftertone.model import Caller, EndReason, Kind, State

    return (
        a_message(1),
        a_message(2, state=State.HEARD, heard_unix_ms=1_750_000_100_000, caller=Caller("+4930123", "")),
        a_message(3, kind=Kind.HANGUP, duration_ms=0, caller=Caller()),
        a_message(4, state=State.DELETED, caller=Caller("", "Bin")),
        a_message(5, mailbox="office", cut_off=True, end_reason=EndReason.CUT_OFF, duration_ms=65_400),
    )


def write_audio(path: Path, seconds: float = 0.5) -> Path:
    """Write a tone to a WAV file."""
    with path.open("wb") as file:
        write_wav(file, np.resize(SAMPLES, round(RATE_HZ * seconds)), RATE_HZ)
    return path
