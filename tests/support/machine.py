"""A whole machine for tests: ``aftertone serve`` as its user starts it, in a folder and on ports of its own.

Owns: starting, asking, killing and starting again the real program. Refuses to know: what is inside; it uses the command
line, the HTTP API and signals, as anybody outside can.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import numpy as np

from aftertone.audio.flac import read_audio, write_wav
from aftertone.audio.prompts import prompt
from aftertone.audio.samples import Samples

READY_WITHIN_S: Final = 20.0
DONE_WITHIN_S: Final = 15.0
T = TypeVar("T")


def wait_until(question: Callable[[], T | None], what: str, within_s: float = DONE_WITHIN_S) -> T:
    """Ask until the answer is true and return it; fail with ``what`` when that takes too long."""
    deadline_s = time.monotonic() + within_s
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline_s:
            raise AssertionError(f"waited {within_s} s for {what}")
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that is free for UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port: int = udp.getsockname()[1]
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def speech(seconds: float, rate_hz: int = 8000) -> Samples:
    """Return real speech (the machine's own prompts, repeated) of exactly this length."""
    clips = [prompt(name).samples for name in ("sample_message", "greeting_default", "goodbye")]
    whole = np.concatenate(clips)[:: 16000 // rate_hz]
    count = round(seconds * rate_hz)
    return np.ascontiguousarray(np.resize(whole, count))


def speech_file(path: Path, seconds: float, rate_hz: int = 8000) -> Path:
    """Write ``speech`` to a WAV file."""
    with path.open("wb") as file:
        write_wav(file, speech(seconds, rate_hz), rate_hz)
    return path


@dataclass
class Machine:
    """One machine. ``start`` may be called again after ``stop`` or ``kill``."""

    data: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    sip_port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    rtp_ports: str = "24000-29999"
    process: subprocess.Popen[str] | None = None
    output: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("AFTERTONE_")}
        own = {
            "AFTERTONE_DATA": str(self.data),
            "AFTERTONE_SIP__PORT": str(self.sip_port),
            "AFTERTONE_SIP__HOST": "127.0.0.1",
            "AFTERTONE_WEB__PORT": str(self.web_port),
            "AFTERTONE_RTP__PORTS": self.rtp_ports,
            "AFTERTONE_CALLS__RINGS": "0",
            "AFTERTONE_STORAGE__LOW_WATER_MB": "20",
        }
        return {**clean, **own, **self.settings}

    @property
    def uri(self) -> str:
        """Whom to call."""
        return f"sip:main@127.0.0.1:{self.sip_port}"

    @property
    def base(self) -> str:
        """The desk's address."""
        return f"http://127.0.0.1:{self.web_port}"

    def start(self, until_it_says: str = "Aftertone is ready") -> Machine:
        """Start the machine and wait until it takes calls, or has said something else."""
        log = self.data.parent / f"{self.data.name}.log"
        with log.open("a") as file:
            mark = file.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "aftertone", "serve"],
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.data.parent,
            )

        def ready() -> bool:
            assert self.process is not None
            with log.open(errors="replace") as file:
                file.seek(mark)
                self.output = file.read()
            assert self.process.poll() is None, f"the machine ended:\n{self.output}"
            return until_it_says in self.output

        wait_until(ready, f"the machine to be ready; it said:\n{self.output}", READY_WITHIN_S)
        return self

    def log(self) -> str:
        """Everything the machine has printed, in all its lives."""
        return (self.data.parent / f"{self.data.name}.log").read_text(errors="replace")

    def stop(self) -> float:
        """Press Ctrl-C and return how many seconds it took."""
        assert self.process is not None
        began_s = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        self.process = None
        return time.monotonic() - began_s

    def role_pid(self, role: str) -> int:
        """Return the process id of a role."""
        return int(json.loads((self.data / "run" / f"{role}.json").read_text())["pid"])

    def kill_role(self, role: str) -> None:
        """kill -9 one role, waiting for it first when it is just being started again."""

        def killed() -> bool:
            try:
                os.kill(self.role_pid(role), signal.SIGKILL)
            except ProcessLookupError:
                return False
            return True

        wait_until(killed, f"the role {role} to live")

    def kill(self) -> None:
        """kill -9 everything at once, as a power cut would (but for the page cache)."""
        assert self.process is not None
        supervisor = self.process.pid
        # Still first, then dead: a child that outlives its supervisor for a moment is told to end politely, and
        # would; a supervisor that outlives its child would start it again.
        os.kill(supervisor, signal.SIGSTOP)
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        everybody = (supervisor, *map(int, children))
        for sign in (signal.SIGSTOP, signal.SIGKILL):
            for pid in everybody:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
        self.process.wait(10)
        self.process = None

    def run(self, *arguments: str, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        done = subprocess.run(
            [sys.executable, "-m", "aftertone", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=self.data.parent,
        )
        assert not check or done.returncode == 0, f"aftertone {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def call_in_background(self, *arguments: str, uri: str | None = None) -> subprocess.Popen[str]:
        """Start a test caller."""
        return subprocess.Popen(
            [sys.executable, "-m", "aftertone", "call", uri or self.uri, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.data.parent,
        )

    def client(self) -> httpx.Client:
        """Return an API client with the local token."""
        token = (self.data / "desk.token").read_text().strip()
        return httpx.Client(base_url=f"{self.base}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=10)

    def messages(self, **filters: str) -> list[dict[str, Any]]:
        """Return all messages by the API, newest first."""
        with self.client() as client:
            answer = client.get("/messages", params={"limit": "200", **filters})
            answer.raise_for_status()
            found: list[dict[str, Any]] = answer.json()["messages"]
            return found

    def wait_for_messages(self, count: int, within_s: float = DONE_WITHIN_S) -> list[dict[str, Any]]:
        """Wait until there are at least ``count`` messages and hang-ups together."""

        def there() -> list[dict[str, Any]] | None:
            found = self.messages()
            return found if len(found) >= count else None

        return wait_until(there, f"{count} messages", within_s)

    def audio(self, message_id: str) -> tuple[Samples, int]:
        """Return a message's samples and rate."""
        with self.client() as client:
            answer = client.get(f"/messages/{message_id}/audio")
            answer.raise_for_status()
            return read_audio(answer.content)

    def books(self) -> dict[str, Any]:
        """Run ``aftertone verify`` and return its JSON; fails when the books do not balance."""
        done = self.run("verify", "--json", check=False)
        value: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == 0, f"the books do not balance: {value}"
        return value

    def login_link(self) -> str:
        """Return the link that the first start printed."""
        found = re.search(r"http://\S+/login/\S+", self.log())
        assert found is not None, self.log()
        return found.group()


@contextlib.contextmanager
def machine(data: Path, **settings: str) -> Iterator[Machine]:
    """A started machine that is gone afterwards. ``settings``: environment names without the prefix."""
    made = Machine(data, {f"AFTERTONE_{name}": value for name, value in settings.items()})
    try:
        yield made.start()
    finally:
        if made.process is not None:
            made.kill()
