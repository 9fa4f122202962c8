"""The witness: a second machine that keeps what a disk confirmed, so that nobody has to believe the disk.

Owns: the listening socket, the one connection, saying what happens. Refuses to know: what a record or a file is.

Theory of operation: one thread, one connection at a time. Whoever comes while another is being heard is told that the
witness is busy, unless the other has been silent for `SILENT_S`: a machine whose plug was pulled says no goodbye, and comes
back as a new connection. What was told is written down at most ten times a second, and at the end of a connection. Only what
was received counts; a line that was still in a cable is not held against the disk.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Final, Self

from aftertone.errors import BusyError, EnvironmentFault, PeerError
from aftertone.roles.plug.book import Book, Run
from aftertone.roles.plug.protocol import (
    KINDS,
    Counts,
    Lines,
    RunState,
    name_in,
    number_in,
    parse,
    serialize,
)

SILENT_S: Final = 5.0
IDLE_S: Final = 60.0
"""A connection that says nothing for so long is closed."""
LONGEST_S: Final = 3600.0
"""And so is one that has had more than enough time for a run."""
WRITE_EVERY_S: Final = 0.1
_CHUNK_BYTES: Final = 65536
_CHUNKS_AT_ONCE: Final = 16


@dataclass
class _Peer:
    sock: socket.socket
    host: str
    began_s: float
    heard_s: float
    lines: Lines = field(default_factory=Lines)
    run: Run | None = None
    """The run that began on this connection, as far as it was told."""
    silence_told: bool = False


class Witness:
    """Listens on ``port`` (0: any) and keeps in ``file`` what it is told. ``say`` hears sentences for a person."""

    def __init__(self, file: Path, port: int, say: Callable[[str], None], *, host: str = "") -> None:
        """Open file and port. ``host``: empty for every address. Raises UsageError, StorageError, EnvironmentFault."""
        self._say = say
        self._book = Book(file)
        try:
            self._listener = _listen(host, port)
        except OSError as error:
            self._book.close()
            raise EnvironmentFault(
                f"cannot listen on TCP port {port}: {error.strerror}; choose another with --port"
            ) from None
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peer: _Peer | None = None
        self._unwritten = False
        self._written_s = 0.0
        say(
            f"The witness listens on TCP port {self.port} and keeps what it is told in {file}. On the machine under test:\n\n"
            f"  aftertone doctor --pull-the-plug ADDRESS-OF-THIS-MACHINE:{self.port} --data FOLDER\n"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write down the rest, give port and file back."""
        try:
            self._drop("")
        finally:
            self._selector.close()
            self._listener.close()
            self._book.close()

    def serve(self, stop: Event | None = None) -> None:
        """Listen until ``stop`` is set, or for ever. Raises StorageError when the file cannot be written."""
        while stop is None or not stop.is_set():
            try:
                for key, _ in self._selector.select(WRITE_EVERY_S):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif self._peer is not None and key.fileobj is self._peer.sock:
                        self._read(self._peer)
                self._look_at_the_clock()
            except (PeerError, BusyError) as error:
                self._drop(str(error))

    # -- the one connection

    def _accept(self) -> None:
        for _ in range(_CHUNKS_AT_ONCE):
            # The goodbye of the one before may lie here unread.
            if self._peer is None or not self._read(self._peer):
                break
        try:
            sock, address = self._listener.accept()
        except OSError:
            return  # it left before we came
        sock.setblocking(False)
        now_s = time.monotonic()
        if self._peer is not None:
            if now_s - self._peer.heard_s < SILENT_S:
                with contextlib.suppress(OSError):
                    sock.send(serialize("busy"))
                sock.close()
                return
            self._drop("")
        self._peer = _Peer(sock, str(address[0]).removeprefix("::ffff:"), now_s, now_s)
        self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, peer: _Peer) -> bool:
        """Take what has come; True when there may be more."""
        try:
            data = peer.sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._drop("")
            return False
        peer.heard_s, peer.silence_told = time.monotonic(), False
        for line in peer.lines.feed(data):
            answer = self._answer(peer, parse(line))
            try:
                peer.sock.send(answer)
            except OSError:
                # An answer is a short line: it fits, or the peer is gone or does not read.
                raise PeerError("it does not read the answers") from None
        return True

    def _drop(self, why: str) -> None:
        peer, self._peer = self._peer, None
        if peer is None:
            return
        if why:
            self._say(f"{peer.host} is not listened to any more: {why}")
            with contextlib.suppress(OSError):
                peer.sock.send(serialize("refused", why=why[:200]))
        self._selector.unregister(peer.sock)
        peer.sock.close()
        run = peer.run
        if run is not None and run.state is RunState.OPEN:
            if self._unwritten:
                with contextlib.suppress(BusyError):
                    self._book.keep(run)
            if not peer.silence_told:
                self._tell_silence(peer.host, run)
        self._unwritten = False

    def _look_at_the_clock(self) -> None:
        peer, now_s = self._peer, time.monotonic()
        if peer is None:
            return
        self._write_down(now_s)
        silent_s = now_s - peer.heard_s
        run = peer.run
        if silent_s >= SILENT_S and not peer.silence_told and run is not None and run.state is RunState.OPEN:
            peer.silence_told = True
            self._tell_silence(peer.host, run)
        if silent_s >= IDLE_S or now_s - peer.began_s >= LONGEST_S:
            self._drop("it took too long")

    def _write_down(self, now_s: float) -> None:
        if self._peer is None or self._peer.run is None or not self._unwritten:
            return
        if now_s - self._written_s >= WRITE_EVERY_S:
            self._book.keep(self._peer.run)
            self._unwritten, self._written_s = False, now_s

    def _tell_silence(self, host: str, run: Run) -> None:
        self._say(
            f"{time.strftime('%H:%M:%S')} {host} fell silent; run {run.name[:8]} had confirmed {run.counts}. "
            "When it has booted, run the same command there again."
        )

    # -- what is said

    def _answer(self, peer: _Peer, said: Mapping[str, Any]) -> bytes:
        match said["say"]:
            case "ack":
                return self._on_ack(peer, said)
            case "ask":
                return self._on_ask(said)
            case "begin":
                return self._on_begin(peer, said)
            case "end":
                return self._on_end(peer)
            case "verdict":
                return self._on_verdict(peer, said)
        raise PeerError("a line came whose word this version does not know")

    def _on_ask(self, said: Mapping[str, Any]) -> bytes:
        run = self._book.find(name_in(said, "run"), name_in(said, "place"))
        if run is None:
            run = Run("", "", "", RunState.NONE)
        counts = {kind: run.counts.of(kind) for kind in KINDS}
        return serialize("told", run=run.name, boot=run.boot, state=run.state.value, **counts)

    def _on_begin(self, peer: _Peer, said: Mapping[str, Any]) -> bytes:
        name, place, boot = (name_in(said, key) for key in ("run", "place", "boot"))
        if peer.run is not None or not name or name in self._book.runs:
            raise PeerError("a run begins once, with a name of its own")
        run = Run(name, place, boot)
        self._book.keep(run)
        peer.run = run
        self._say(f"{time.strftime('%H:%M:%S')} {peer.host} began run {name[:8]}.")
        return serialize("ready")

    def _on_ack(self, peer: _Peer, said: Mapping[str, Any]) -> bytes:
        run, what, number = peer.run, said.get("what"), number_in(said, "n")
        if run is None or run.state is not RunState.OPEN or what not in KINDS or number <= run.counts.of(what):
            raise PeerError("an acknowledgement came that cannot be")
        counts: dict[str, int] = {kind: run.counts.of(kind) for kind in KINDS} | {what: number}
        peer.run = replace(run, counts=Counts(**counts))
        self._unwritten = True
        return b""

    def _on_end(self, peer: _Peer) -> bytes:
        if peer.run is None:
            raise PeerError("no run began on this connection")
        peer.run = replace(peer.run, state=RunState.ENDED)
        self._book.keep(peer.run)
        self._unwritten = False
        self._say(f"{time.strftime('%H:%M:%S')} {peer.host} stopped run {peer.run.name[:8]} without a cut.")
        return serialize("kept")

    def _on_verdict(self, peer: _Peer, said: Mapping[str, Any]) -> bytes:
        run, lost = self._book.runs.get(name_in(said, "run")), number_in(said, "lost")
        if run is None or run.state is not RunState.OPEN:
            raise PeerError("there is no such run to judge")
        self._book.keep(replace(run, state=RunState.BAD if lost else RunState.GOOD))
        what = f"THE DISK LIED: {lost} things are gone" if lost else f"nothing is missing of {run.counts}"
        self._say(f"{time.strftime('%H:%M:%S')} {peer.host} looked at run {run.name[:8]}: {what}.")
        return serialize("kept")


def _listen(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4)
    return socket.create_server((host, port), backlog=4)
