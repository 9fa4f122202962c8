"""A desk with a real catalog and real blobs in a temporary folder, and the means to fill it."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import numpy as np
from fastapi import FastAPI

from aftertone.audio.flac import read_audio, write_flac
from aftertone.model import Caller, Clock, EndReason, Kind, Message, State, mint_id
from aftertone.store.blobs import DirectoryBlobs, message_key
from aftertone.store.catalog import Catalog
from aftertone.web import passwords
from aftertone.web.app import create_app
from aftertone.web.services import DeskServices
from tests.unit.web.visitor import Visitor

REAL_HASHER = passwords._hasher
"""The hasher that the program uses; most tests take a cheaper one."""

NOW_MS = 1_795_366_800_000
"""A Sunday in November 2026, 17:00 UTC."""

TOKEN = "a-bearer-token-for-tests-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PASSWORD = "correct horse battery"
HERE = {"Origin": "http://localhost"}


def make_flac(seconds: float = 0.5, rate_hz: int = 8000) -> bytes:
    """Return a quiet, slowly rising tone as FLAC."""
    at = np.arange(int(seconds * rate_hz)) / rate_hz
    wave = np.sin(2 * np.pi * (220 + 60 * at) * at) * 3000
    file = io.BytesIO()
    write_flac(file, wave.astype(np.int16), rate_hz)
    return file.getvalue()


def import_audio(data: bytes) -> bytes:
    """Turn any audio file into FLAC, as the desk role does."""
    samples, rate_hz = read_audio(data)
    file = io.BytesIO()
    write_flac(file, samples, rate_hz)
    return file.getvalue()


@dataclass
class World:
    """The collaborators of one desk, and what a test may turn."""

    folder: Path
    catalog: Catalog
    blobs: DirectoryBlobs
    now_ms: int = NOW_MS
    line: dict[str, object] | None = field(
        default_factory=lambda: {
            "taking_calls": True,
            "alarms": [],
            "calls": 2,
            "metrics": {
                "packets_received_total": 1200,
                "tick_seconds_max": 0.004,
                "bad name": 1,
                "sip_refused_calls_total": 12,
            },
            "sip_address": "sip:main@192.168.1.20",
            "accounts": [{"name": "home", "state": "registered"}],
        }
    )
    delivery: dict[str, object] | None = field(default_factory=dict)
    published: int = 0
    publish_error: Exception | None = None
    secure: bool = False
    _drawn: int = 0

    def entropy(self, count: int) -> bytes:
        """Return bytes that differ at each call and are the same in every run."""
        self._drawn += 1
        return hashlib.shake_256(self._drawn.to_bytes(8, "big")).digest(count)

    def publish(self) -> None:
        """Count, or fail as told."""
        if self.publish_error is not None:
            raise self.publish_error
        self.published += 1

    def services(self) -> DeskServices:
        """Return what the application is given."""
        return DeskServices(
            catalog=self.catalog,
            blobs=self.blobs,
            line_status=lambda: self.line,
            role_status=lambda: self.delivery,
            publish_directory=self.publish,
            import_audio=import_audio,
            now_unix_ms=lambda: self.now_ms,
            entropy=self.entropy,
            api_token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest(),
            secure_cookies=self.secure,
            version="0.1.0",
            names=("desk.home.example",),
        )

    def app(self, *, poll_s: float = 0.02, heartbeat_s: float = 15.0) -> FastAPI:
        """Return a desk over this world."""
        return create_app(self.services(), poll_s=poll_s, heartbeat_s=heartbeat_s)

    def client(self, app: FastAPI | None = None, *, host: str = "203.0.113.7", raise_errors: bool = True) -> Visitor:
        """Return a client that comes from ``host`` and follows no redirect."""
        base = "https://localhost" if self.secure else "http://localhost"
        return Visitor(app or self.app(), base, host, raise_errors=raise_errors)

    def deliver(
        self,
        *,
        name: str = "",
        number: str = "+12025550143",
        mailbox: str = "main",
        kind: Kind = Kind.MESSAGE,
        minutes_ago: float = 5,
        audio: bytes | None = None,
        duration_ms: int = 500,
        cut_off: bool = False,
        state: State = State.NEW,
        notes: tuple[str, ...] = (),
        lost_packets: int = 0,
        end_reason: EndReason = EndReason.CALLER_HUNG_UP,
        clock: Clock = Clock.TRUSTED,
    ) -> Message:
        """Put one message with its audio where delivery would."""
        started_ms = self.now_ms - int(minutes_ago * 60_000)
        message_id = mint_id(started_ms, self.entropy(10))
        data = make_flac() if audio is None else audio
        blob, sha256 = "", ""
        if data:
            facts = self.blobs.put(message_key(message_id), data)
            blob, sha256 = facts.key, facts.sha256
        message = Message(
            id=message_id,
            mailbox=mailbox,
            kind=kind,
            state=state,
            caller=Caller(number, name),
            started_unix_ms=started_ms,
            duration_ms=duration_ms,
            audio_ms=duration_ms,
            cut_off=cut_off,
            codec="PCMU",
            sample_rate_hz=8000,
            lost_packets=lost_packets,
            end_reason=EndReason.CUT_OFF if cut_off else end_reason,
            blob=blob,
            blob_sha256=sha256,
            blob_bytes=len(data),
            delivered_unix_ms=self.now_ms,
            heard_unix_ms=started_ms + 1 if state is State.HEARD else None,
            notes=notes,
            clock=clock,
        )
        assert self.catalog.record_delivery(message)
        return message

    def login_link(self) -> str:
        """Return the token of a fresh one-time link."""
        token = self.entropy(24).hex()
        self.catalog.add_login_link(hashlib.sha256(token.encode()).hexdigest(), self.now_ms + 3_600_000)
        return token


@contextmanager
def make_world(folder: Path, template: Path | None = None) -> Iterator[World]:
    """Give a world with one mailbox, ``main``; ``template`` is a catalog to begin with."""
    if template is not None:
        shutil.copy(template, folder / "aftertone.db")
    catalog = Catalog.open(folder / "aftertone.db")
    try:
        if template is None:
            catalog.add_mailbox("main")
        yield World(folder, catalog, DirectoryBlobs(folder / "blobs"))
    finally:
        catalog.close()


def unknown_id() -> UUID:
    """Return an id that no message has."""
    return mint_id(0, bytes(10))
