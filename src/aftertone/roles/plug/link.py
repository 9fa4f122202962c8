"""The way to the witness, from the machine under test.

Owns: the connection, asking and telling. Refuses to know: what is told.

Theory of operation: blocking, with a timeout on everything. Acknowledgements leave at once (TCP_NODELAY) and are not
answered: what did not arrive was not claimed. They may come from any thread; questions come from one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from aftertone.errors import BusyError, EnvironmentFault, PeerError, UsageError
from aftertone.roles.plug.protocol import KINDS, Counts, Lines, RunState, name_in, number_in, parse, serialize

CONNECT_WITHIN_S: Final = 5.0
ANSWER_WITHIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Told:
    """What the witness knows of a run."""

    run: str
    boot: str
    state: RunState
    counts: Counts


class Link:
    """A connection to the witness at ``address``, HOST:PORT or [IPv6]:PORT."""

    def __init__(self, address: str) -> None:
        """Connect. Raises UsageError for an address that is none, EnvironmentFault when nobody answers there."""
        host, colon, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
            raise UsageError(f"the witness is named as HOST:PORT, for example 192.168.1.20:7071, not {address!r}")
        self.address = address
        self._mutex = threading.Lock()
        self._lines = Lines()
        try:
            self._sock = socket.create_connection((host, int(port)), CONNECT_WITHIN_S)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.settimeout(ANSWER_WITHIN_S)
        except OSError as error:
            raise EnvironmentFault(
                f"the witness at {address} cannot be reached: {error.strerror or error}; start it there with: aftertone "
                "doctor --witness, and see that no firewall is in between"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def ask(self, run: str, place: str) -> Told:
        """Return what the witness knows of that run, or else of the newest open run of that place."""
        told = self._question("told", "ask", run=run, place=place)
        try:
            state = RunState(str(told.get("state")))
        except ValueError:
            raise PeerError(f"the witness at {self.address} answers what this version does not know") from None
        counts = Counts(*(number_in(told, kind) for kind in KINDS))
        return Told(name_in(told, "run"), name_in(told, "boot"), state, counts)

    def begin(self, run: str, place: str, boot: str) -> None:
        """Begin a run; the witness has it durably on return."""
        self._question("ready", "begin", run=run, place=place, boot=boot)

    def acknowledge(self, what: str, number: int) -> None:
        """Tell that of one of `KINDS` everything up to ``number`` is durable. Any thread. Raises EnvironmentFault."""
        self._send(serialize("ack", what=what, n=number))

    def end(self) -> None:
        """Tell that the run was stopped without a cut; the witness has that durably on return."""
        self._question("kept", "end")

    def judge(self, run: str, lost: int) -> None:
        """Tell how many things were missing; the witness has that durably on return."""
        self._question("kept", "verdict", run=run, lost=lost)

    def _send(self, line: bytes) -> None:
        try:
            with self._mutex:
                self._sock.sendall(line)
        except OSError as error:
            raise EnvironmentFault(f"the witness at {self.address} was lost: {self._reason(error)}") from None

    def _question(self, expected: str, say: str, **values: object) -> Mapping[str, Any]:
        self._send(serialize(say, **values))
        answer = self._answer()
        if answer["say"] == "busy":
            raise BusyError(
                f"the witness at {self.address} is listening to another machine: try again when that is over"
            )
        if answer["say"] == "refused":
            raise PeerError(f"the witness at {self.address} refuses: {str(answer.get('why'))[:200]!r}")
        if answer["say"] != expected:
            raise PeerError(f"the witness at {self.address} answers what this version does not know")
        return answer

    def _answer(self) -> Mapping[str, Any]:
        while True:
            try:
                data = self._sock.recv(4096)
            except OSError as error:
                raise EnvironmentFault(
                    f"the witness at {self.address} does not answer: {error.strerror or error}; look at it there"
                ) from None
            if not data:
                raise EnvironmentFault(f"the witness at {self.address} hung up; look at what it says there")
            for line in self._lines.feed(data):
                return parse(line)

    def _reason(self, error: OSError) -> str:
        """Return why a send failed: what the witness said at last, if it said something."""
        with contextlib.suppress(OSError, PeerError):
            self._sock.settimeout(0.1)
            for line in self._lines.feed(self._sock.recv(4096)):
                said = parse(line)
                if said["say"] == "busy":
                    return "it is listening to another machine"
                if said["say"] == "refused":
                    return f"it said {str(said.get('why'))[:200]!r}"
        return error.strerror or str(error)
