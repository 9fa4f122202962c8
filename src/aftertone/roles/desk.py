"""The desk's process: the HTTP API and the page, and the directory that the line reads.

Owns: putting the web application together with the catalog, the blobs and the machine's folder. Refuses to know: pages,
routes and what a message is.

Theory of operation: uvicorn serves on a socket that was bound here, so that a port in use is our error and not a traceback.
The directory is published at start when it differs from the catalog, and before any change to a mailbox or greeting is
acknowledged. While the storage cannot be opened, a waiting room on the same socket answers probes and says what is the matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import uvicorn
from starlette.applications import Starlette

from aftertone import __version__
from aftertone.config import Settings
from aftertone.errors import AftertoneError, ConfigError, StorageError
from aftertone.files import OS_FILES, Files
from aftertone.model import Mailbox
from aftertone.roles.counts import LOOK_S, Publisher
from aftertone.roles.folder import Folder, digest, read_status, write_status
from aftertone.roles.process import Start, run_role
from aftertone.store.blobs import DirectoryBlobs
from aftertone.store.catalog import Catalog
from aftertone.voicemail import directory as directories
from aftertone.voicemail.directory import Directory
from aftertone.web.app import create_app, stop_streams
from aftertone.web.services import DeskServices
from aftertone.web.waiting import create_waiting_room

LOGIN_LINK_S: Final = 24 * 3600
FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 5.0


def open_desk(folder: Folder, settings: Settings, token: str, files: Files = OS_FILES) -> tuple[Catalog, DeskServices]:
    """Open catalog and blobs, make what a first start needs, publish the directory. Raises StorageError."""
    catalog = Catalog.open(folder.catalog, files=files)
    try:
        blobs = DirectoryBlobs(folder.blobs, files)
        names = {row.name.casefold() for row in catalog.mailboxes()}
        if settings.calls.default_mailbox.casefold() not in names:
            catalog.add_mailbox(settings.calls.default_mailbox)
        publish = make_publisher(folder, settings, catalog, blobs, files)
        publish()
        services = DeskServices(
            catalog=catalog,
            blobs=blobs,
            line_status=lambda: read_status(folder, "line"),
            role_status=lambda: read_status(folder, "delivery"),
            publish_directory=publish,
            import_audio=lambda content: import_greeting(content, settings.calls.greeting_longest_s),
            now_unix_ms=now_unix_ms,
            entropy=secrets.token_bytes,
            api_token_sha256=digest(token),
            secure_cookies=settings.web.secure_cookies,
            version=__version__,
            names=settings.web.names,
        )
    except BaseException:
        catalog.close()
        raise
    return catalog, services


def now_unix_ms() -> int:
    """Return the wall clock in milliseconds."""
    return time.time_ns() // 1_000_000


def import_greeting(content: bytes, longest_s: float) -> bytes:
    """Turn any audio file into a greeting: FLAC, mono. Raises UsageError for what is no audio, or too long."""
    import io

    from aftertone.audio.flac import read_audio, write_flac

    samples, rate_hz = read_audio(content, max_seconds=int(longest_s))
    file = io.BytesIO()
    write_flac(file, samples, rate_hz, {})
    return file.getvalue()


def make_publisher(
    folder: Folder, settings: Settings, catalog: Catalog, blobs: DirectoryBlobs, files: Files = OS_FILES
) -> Callable[[], None]:
    """Return the function that makes the line's snapshot say what the catalog says. It raises StorageError."""

    def publish() -> None:
        rows = catalog.mailboxes()
        named = {row.name: f"{row.greeting_sha256}.flac" for row in rows if row.greeting_blob}
        wanted = Directory(
            version=0,
            default_mailbox=settings.calls.default_mailbox,
            mailboxes={row.name: Mailbox(row.name, row.rings, named.get(row.name), row.numbers) for row in rows},
        )
        try:
            old = directories.read(folder.directory)
        except AftertoneError:
            old = None
        there = {path.name for path in (folder.directory / directories.GREETINGS).glob("*.flac")}
        version = 1 if old is None else old.version
        same = old is not None and Directory(0, old.default_mailbox, old.mailboxes) == wanted
        if same and there >= set(named.values()):
            # Whoever wrote it may have died, or met an error, between the names and their sync.
            directories.settle(folder.directory, files)
            return
        greetings = {named[row.name]: blobs.get(row.greeting_blob) for row in rows if row.greeting_blob}
        directories.publish(
            folder.directory, Directory(version + 1, wanted.default_mailbox, wanted.mailboxes), greetings, files
        )

    return publish


def login_link(catalog: Catalog, base: str) -> str:
    """Make a link that logs in once within a day. Durable on return."""
    token = secrets.token_urlsafe(24)
    catalog.add_login_link(digest(token), now_unix_ms() + LOGIN_LINK_S * 1000)
    return f"{base}/login/{token}"


def bind_web(host: str, port: int) -> socket.socket:
    """Bind the desk's socket. Raises ConfigError that names port and setting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(256)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on TCP {host}:{port} for the desk: {error.strerror}; "
            "choose another with web.port or AFTERTONE_WEB__PORT"
        ) from None
    return sock


class _Server(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _server(app: Starlette) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=1,
            server_header=False,
            ws="none",
            lifespan="on",
        )
    )


@contextlib.asynccontextmanager
async def _waiting_room(start: Start, sock: socket.socket) -> AsyncIterator[None]:
    """Answer on the desk's socket for as long as this lasts."""
    folder = start.folder
    app = create_waiting_room(
        lambda: read_status(folder, "line"), lambda: read_status(folder, "delivery"), start.settings.web.names
    )
    server = _server(app)
    # The server closes what it is given.
    serving = asyncio.create_task(server.serve([sock.dup()]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def _serve(start: Start) -> None:
    sock = bind_web(start.settings.web.host, start.settings.web.port)
    catalog, services = await open_patiently(start, sock)
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    base = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else shown}:{port}"  # noqa: S104 - a comparison
    app = create_app(services)
    server = _server(app)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stop_streams(app)
        server.should_exit = True

    loop.add_signal_handler(signal.SIGTERM, stop)
    serving = asyncio.create_task(server.serve([sock]))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells by a flag alone
        await asyncio.sleep(0.01)
    facts: dict[str, object] = {"url": base}
    if catalog.password_hash() is None:
        try:
            facts["login"] = login_link(catalog, base)
        except StorageError as error:
            # The desk is where an owner looks why nothing works: it opens all the same.
            start.logger.error("no login link could be made; 'aftertone login-link' makes one later", error=str(error))
    start.ready(facts)
    start.logger.info("desk is open", url=base)
    counts = Publisher(start.folder, "desk", catalog.data_version, catalog.waiting, logger=start.logger)
    publishing = asyncio.create_task(_publish_counts(counts))
    try:
        while not serving.done():
            write_status(start.folder, "desk", {"url": base})
            await asyncio.wait([serving], timeout=1.0)
        await serving
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        catalog.close()


async def _publish_counts(counts: Publisher) -> None:
    while True:
        # In a thread: a catalog that is being written may hold its readers for a moment.
        await asyncio.to_thread(counts.look, at_once=True)
        await asyncio.sleep(LOOK_S)


async def open_patiently(start: Start, sock: socket.socket) -> tuple[Catalog, DeskServices]:
    """Open the desk, waiting for storage that is away: it may come back, and calls are taken meanwhile.

    Who asks on ``sock`` while it waits is told so. Raises StorageError for what waiting does not mend.
    """
    wait_s = FIRST_WAIT_S
    async with contextlib.AsyncExitStack() as stack:
        while True:
            try:
                return open_desk(start.folder, start.settings, start.folder.token())
            except StorageError as error:
                start.logger.error("desk cannot open its storage", error=str(error), again_in_s=wait_s)
                if not error.retry:
                    raise
                if wait_s == FIRST_WAIT_S:
                    await stack.enter_async_context(_waiting_room(start, sock))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)


def main(start: Start) -> None:
    """Serve until SIGTERM."""
    asyncio.run(_serve(start))


if __name__ == "__main__":
    run_role("desk", main)
