"""The desk's process without its web server: the directory it publishes, its port, its login link."""

from __future__ import annotations

import asyncio
import io
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import structlog

from aftertone.audio.flac import read_audio, write_wav
from aftertone.config import Settings
from aftertone.errors import ConfigError, DamagedError, StorageError, StorageFullError, UsageError
from aftertone.roles import desk
from aftertone.roles.desk import bind_web, import_greeting, login_link, make_publisher, now_unix_ms, open_desk
from aftertone.roles.folder import Folder, digest, write_status
from aftertone.roles.process import Start
from aftertone.store.blobs import DirectoryBlobs
from aftertone.store.catalog import Catalog
from aftertone.voicemail import directory as directories


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog without mailboxes, made once."""
    path = tmp_path_factory.mktemp("catalog") / "aftertone.db"
    Catalog.open(path).close()
    return path


class Shop:
    """A folder, its catalog and its publisher."""

    def __init__(self, root: Path, empty: Path) -> None:
        self.folder = Folder(root / "var")
        self.folder.make()
        shutil.copy(empty, self.folder.catalog)
        self.catalog = Catalog.open(self.folder.catalog)
        self.blobs = DirectoryBlobs(self.folder.blobs)
        self.publish: Callable[[], None] = make_publisher(self.folder, Settings(), self.catalog, self.blobs)

    def published(self) -> directories.Directory:
        return directories.read(self.folder.directory)

    def greet(self, name: str, content: bytes) -> str:
        sha256 = digest(content.decode())
        key = f"greetings/{sha256}.flac"
        self.blobs.put(key, content)
        self.catalog.set_greeting(name, key, sha256)
        return f"{sha256}.flac"


@pytest.fixture
def shop(tmp_path: Path, empty: Path) -> Iterator[Shop]:
    made = Shop(tmp_path, empty)
    yield made
    made.catalog.close()


def test_the_directory_says_what_the_catalog_says(shop: Shop) -> None:
    shop.catalog.add_mailbox("main")
    shop.catalog.add_mailbox("office", 0)
    greeting = shop.greet("office", b"sound")
    shop.publish()
    found = shop.published()
    assert found.default_mailbox == "main"
    assert {name: (box.rings, box.greeting) for name, box in found.mailboxes.items()} == {
        "main": (None, None),
        "office": (0, greeting),
    }
    assert (shop.folder.directory / directories.GREETINGS / greeting).read_bytes() == b"sound"


def test_publishing_writes_only_when_something_changed(shop: Shop) -> None:
    shop.catalog.add_mailbox("main")
    shop.publish()
    path = shop.folder.directory / directories.FILE
    first, version = path.stat(), shop.published().version
    shop.publish()
    shop.publish()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    shop.catalog.add_mailbox("office")
    shop.publish()
    assert shop.published().version == version + 1
    shop.catalog.set_rings("office", 1)
    shop.publish()
    assert shop.published().version == version + 2


def test_a_greeting_that_is_gone_from_the_snapshot_is_published_again(shop: Shop) -> None:
    shop.catalog.add_mailbox("main")
    greeting = shop.greet("main", b"sound")
    shop.publish()
    (shop.folder.directory / directories.GREETINGS / greeting).unlink()
    shop.publish()
    assert (shop.folder.directory / directories.GREETINGS / greeting).read_bytes() == b"sound"


@pytest.mark.parametrize("text", ["", "{", '{"v": 99}'])
def test_a_snapshot_that_cannot_be_read_is_replaced(shop: Shop, text: str) -> None:
    shop.catalog.add_mailbox("main")
    (shop.folder.directory / directories.FILE).write_text(text)
    shop.publish()
    assert list(shop.published().mailboxes) == ["main"]


def test_opening_makes_what_a_first_start_needs(tmp_path: Path, empty: Path) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()
    shutil.copy(empty, folder.catalog)
    settings = Settings.model_validate({"calls": {"default_mailbox": "Reception"}})
    catalog, services = open_desk(folder, settings, "token")
    try:
        assert [row.name for row in catalog.mailboxes()] == ["Reception"]
        assert services.api_token_sha256 == digest("token")
        assert services.line_status() is None
    finally:
        catalog.close()
    catalog, _ = open_desk(folder, Settings.model_validate({"calls": {"default_mailbox": "reception"}}), "token")
    assert [row.name for row in catalog.mailboxes()] == ["Reception"]
    catalog.close()


def test_a_directory_that_cannot_be_published_closes_the_catalog(
    tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()
    shutil.copy(empty, folder.catalog)
    closed: list[bool] = []
    close = Catalog.close

    def note(catalog: Catalog) -> None:
        closed.append(True)
        close(catalog)

    def fail(*_: object) -> None:
        raise StorageError("no room")

    monkeypatch.setattr(Catalog, "close", note)
    monkeypatch.setattr(directories, "publish", fail)
    with pytest.raises(StorageError, match="no room"):
        open_desk(folder, Settings(), "token")
    assert closed == [True]


def test_a_login_link_opens_once_and_within_a_day(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    link, late = (login_link(shop.catalog, "http://127.0.0.1:8080") for _ in range(2))
    base, token = link.rsplit("/", 1)
    assert base == "http://127.0.0.1:8080/login"
    assert len(token) >= 32
    assert shop.catalog.use_login_link(digest(token), now_unix_ms())
    assert not shop.catalog.use_login_link(digest(token), now_unix_ms())
    tomorrow = now_unix_ms() + 24 * 3600 * 1000 + 1
    assert not shop.catalog.use_login_link(digest(late.rsplit("/", 1)[1]), tomorrow)


@pytest.mark.parametrize("fault", [StorageFullError("no room"), DamagedError("not what was written")])
def test_while_the_storage_is_away_whoever_asks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: StorageError
) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()
    write_status(folder, "line", {"taking_calls": False, "alarms": [{"code": "storage", "text": "full"}]})
    faults: list[StorageError] = [fault, fault]
    answers: list[tuple[int, str]] = []

    def opening(*_: object) -> str:
        if faults:
            raise faults.pop()
        return "open"

    monkeypatch.setattr(desk, "open_desk", opening)
    sock = bind_web("127.0.0.1", 0)
    base = f"http://127.0.0.1:{sock.getsockname()[1]}"

    async def ask() -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{base}/healthz")
        answers.append((answer.status_code, answer.text))

    async def run() -> object:
        asking = asyncio.create_task(ask())
        opened = await desk.open_patiently(Start("desk", Settings(), folder, structlog.get_logger(), None), sock)
        await asking
        return opened

    with sock:
        if not fault.retry:
            with pytest.raises(DamagedError):
                asyncio.run(run())
            return
        assert asyncio.run(run()) == "open"
        assert answers == [(503, "storage\n")]
        assert sock.fileno() >= 0, "the desk itself goes on with the socket"


def test_a_token_that_finds_no_room_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "var")
    folder.make()
    faults: list[StorageError] = [StorageError("cannot read or make desk.token: No space left on device")]
    make = Folder.token

    def token(asked: Folder) -> str:
        if faults:
            raise faults.pop()
        return make(asked)

    monkeypatch.setattr(Folder, "token", token)
    monkeypatch.setattr(desk, "open_desk", lambda _folder, _settings, token: token)
    with bind_web("127.0.0.1", 0) as sock:
        start = Start("desk", Settings(), folder, structlog.get_logger(), None)
        assert asyncio.run(desk.open_patiently(start, sock)) == folder.token()  # type: ignore[comparison-overlap]
    assert not faults


def test_a_port_in_use_is_an_error_that_names_the_port_and_the_setting() -> None:
    with bind_web("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}.*in use.*web\.port.*AFTERTONE_WEB__PORT"):
            bind_web("127.0.0.1", port)


def test_a_host_that_is_none_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unknown(socket.socket):
        def bind(self, address: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("aftertone.roles.desk.socket.socket", Unknown)
    with pytest.raises(ConfigError, match="Name or service not known"):
        bind_web("no-such-host", 0)


def test_any_audio_becomes_a_greeting_and_nothing_else_does() -> None:
    file = io.BytesIO()
    write_wav(file, (np.sin(np.arange(8000)) * 9000).astype(np.int16), 8000)
    flac = import_greeting(file.getvalue(), 5)
    assert flac.startswith(b"fLaC")
    samples, rate_hz = read_audio(flac)
    assert (len(samples), rate_hz) == (8000, 8000)
    with pytest.raises(UsageError):
        import_greeting(b"no audio at all", 5)
    with pytest.raises(UsageError):
        import_greeting(file.getvalue(), 0.5)
