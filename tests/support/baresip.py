"""baresip as a caller: a softphone without a sound card, that speaks a file and keeps what it heard.

Owns: its configuration, starting it, and what it said and heard. Refuses to know: what the machine makes of the call.

Theory of operation: baresip dials at its start, speaks the file from the moment the call is established, and hangs up by
itself at the end of the file. Its module ``sndfile`` writes two files: the audio before its encoder and the audio after
its decoder. Both begin with the call, so a place in one is a moment in the other, give or take its jitter buffer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from aftertone.audio.flac import read_audio, write_wav
from aftertone.audio.prompts import BEEP_HZ
from aftertone.audio.samples import Samples
from aftertone.model import SAMPLE_RATE_HZ, Codec
from tests.support.machine import Machine, wait_until
from tests.support.peers import missing, require

FOLDERS: Final = tuple(Path(p) for p in ("/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"))
"""Where Debian keeps the modules, and a build of one's own."""
MODULES: Final = {Codec.PCMU: "g711.so", Codec.PCMA: "g711.so", Codec.G722: "g722.so", Codec.OPUS: "opus.so"}
NAMES: Final = {
    Codec.PCMU: "PCMU/8000/1",
    Codec.PCMA: "PCMA/8000/1",
    Codec.G722: "G722/16000/1",
    Codec.OPUS: "opus/48000/2",
}
OVER_WITHIN_S: Final = 30.0
QUIT_WITHIN_S: Final = 5.0

CONFIGURATION: Final = """\
net_interface {host}
sip_listen {listen}
rtp_ports 23900-23998
call_max_calls 1
audio_source aufile,{said}
audio_player aubridge,nowhere
audio_alert aubridge,nowhere
ausrc_srate {rate_hz}
auplay_srate {rate_hz}
ausrc_channels 1
auplay_channels 1
module_path {modules}
module aufile.so
module aubridge.so
module sndfile.so
module {codec}
module_app account.so
module_app menu.so
snd_path {folder}
opus_stereo no
opus_sprop_stereo no
"""
_command_ports: Final = itertools.cycle(random.sample(range(30_000, 32_000), 2000))
"""Above those that the machine is given in tests."""
COMMANDED: Final = """\
module cons.so
cons_listen 127.0.0.1:{port}
"""


@dataclass
class Baresip:
    """One softphone and its one call."""

    folder: Path
    process: subprocess.Popen[bytes]
    command_port: int = 0

    def tell(self, command: str) -> None:
        """Give it a command, as at its keyboard: ``/dial sip:...``, ``/hangup``."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as console:
            console.sendto(f"{command}\n".encode(), ("127.0.0.1", self.command_port))

    def wait_for(self, words: str, within_s: float = OVER_WITHIN_S) -> None:
        """Wait until it has printed these words."""

        def there() -> bool:
            assert self.process.poll() is None, f"baresip ended:\n{self.output()}"
            return words in self.output()

        try:
            wait_until(there, words, within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; baresip said:\n{self.output()[-8000:]}") from None

    def finish(self) -> None:
        """Wait until the call is over, then let the softphone quit."""
        deadline_s = time.monotonic() + OVER_WITHIN_S
        while "terminated (duration" not in self.output():
            assert self.process.poll() is None, f"baresip ended:\n{self.output()}"
            assert time.monotonic() < deadline_s, f"baresip's call did not end:\n{self.output()}"
            time.sleep(0.02)
        self.quit()

    def quit(self) -> None:
        """Let the softphone quit, which closes its files."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(QUIT_WITHIN_S)
        except subprocess.TimeoutExpired:
            # One that has registered waits half a minute for the answer to its signing off; its files are whole since its call ended.
            if not self.command_port:
                raise
            self.process.kill()
            self.process.wait()

    def output(self) -> str:
        """Return what it printed, SIP messages included."""
        return (self.folder / "output").read_text(errors="replace")

    def lamps(self) -> list[tuple[str, str]]:
        """Return what its lamp showed: yes or no, and new/old, in order."""
        return re.findall(r"Messages-Waiting: (\w+)\s.*?Voice-Message: (\d+/\d+)", self.output(), re.DOTALL)

    def said(self) -> tuple[Samples, int]:
        """Return what went into its encoder."""
        return self._dump("enc")

    def heard(self) -> tuple[Samples, int]:
        """Return what came out of its decoder."""
        return self._dump("dec")

    def _dump(self, side: str) -> tuple[Samples, int]:
        found = list(self.folder.glob(f"dump-*-{side}.wav"))
        assert len(found) == 1, self.output()
        return read_audio(found[0])


@contextmanager
def baresip(
    machine: Machine,
    folder: Path,
    codec: Codec,
    said: Samples,
    *,
    caller: str,
    account: str = "",
    uri: str = "",
    settings: str = "",
) -> Iterator[Baresip]:
    """A softphone that calls the machine from ``sip:caller@...`` with this codec alone and says ``said`` (at the codec's rate).

    ``account``: further parameters of its account, such as ``auth_user=ann;auth_pass=secret``, or ``mediaenc=srtp-mand`` for keys in
    RTP/SAVP (``srtp``: in RTP/AVP, ``srtp-mandf``: in RTP/SAVPF). ``uri``: another way into the machine; ``settings``: further
    lines of its configuration.
    """
    whole = f"<sip:{caller}@127.0.0.1>;regint=0;{account}"
    with _started(folder, codec, said, whole, f"/dial {uri or machine.uri}", settings=settings) as one:
        yield one


@contextmanager
def waiting_baresip(folder: Path, codec: Codec, said: Samples, *, port: int, account: str) -> Iterator[Baresip]:
    """A softphone that answers whoever calls ``sip:waiting@127.0.0.1:port``, and says ``said``."""
    whole = f"<sip:waiting@127.0.0.1>;regint=0;answermode=auto;{account}"
    with _started(folder, codec, said, whole, None, port) as one:
        yield one


@contextmanager
def softphone(
    folder: Path,
    said: Samples,
    *,
    user: str,
    server: str = "",
    host: str = "127.0.0.1",
    secret: str = "",
    more: str = "",
) -> Iterator[Baresip]:
    """A softphone that does what it is told (``tell``): PCMU, at an address of ours of either family.

    ``server``: where it registers, as ``host:port;transport=...``, with ``secret``; without one it is ``sip:user@host`` and registers
    nowhere. ``more``: further parameters of its account, such as ``mwi=yes`` for a lamp. Its account is made when it runs: its module for
    lamps subscribes for ever and ever when an account is registered within its first millisecond.
    """
    login = f"regint=60;auth_user={user};auth_pass={secret}" if server else "regint=0"
    whole = f"<sip:{user}@{server or _bracketed(host)}>;{login};answermode=manual;{more}"
    with _started(folder, Codec.PCMU, said, whole, None, host=host, command_port=_command_port()) as one:
        one.wait_for("baresip is ready", 10)
        one.tell(f"/uanew {whole};audio_codecs={NAMES[Codec.PCMU]}")
        one.wait_for("200 OK" if server else user, 10)
        yield one


def _command_port() -> int:
    """Return a free port that the system gives to nobody: baresip shares its ports with whoever comes second, without a word."""
    for port in _command_ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is always another port")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextmanager
def _started(
    folder: Path,
    codec: Codec,
    said: Samples,
    account: str,
    command: str | None,
    port: int = 0,
    settings: str = "",
    *,
    host: str = "127.0.0.1",
    command_port: int = 0,
) -> Iterator[Baresip]:
    modules = require_modules(codec)
    folder.mkdir()
    rate_hz = SAMPLE_RATE_HZ[codec]
    with (folder / "said.wav").open("wb") as file:
        write_wav(file, said, rate_hz)
    configuration = CONFIGURATION.format(
        said=folder / "said.wav",
        rate_hz=rate_hz,
        modules=modules,
        codec=MODULES[codec],
        folder=folder,
        host=host,
        listen=f"{_bracketed(host)}:{port}",
    )
    if command_port:
        require_module(modules, "cons.so")
        configuration += COMMANDED.format(port=command_port)
    if "mediaenc" in account:
        require_module(modules, "srtp.so")
        configuration += "module srtp.so\n"
    if "mwi=yes" in account:
        require_module(modules, "mwi.so")
        configuration += "module_app mwi.so\n"
    configuration += settings
    (folder / "config").write_text(configuration)
    (folder / "accounts").write_text("" if command_port else f"{account};audio_codecs={NAMES[codec]}\n")
    (folder / "contacts").write_text("")
    told = [] if command is None else ["-e", command]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            ["stdbuf", "-oL", "baresip", "-f", str(folder), "-s", *told],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TERM": "dumb", "HOME": str(folder)},
        )
    try:
        yield Baresip(folder, process, command_port)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def require_modules(codec: Codec) -> Path:
    """Return the folder of baresip's modules; skip the test (fail in CI) without baresip or the codec's module."""
    require("baresip")
    found = next((folder for folder in FOLDERS if (folder / MODULES[codec]).exists()), FOLDERS[0])
    require_module(found, MODULES[codec])
    return found


def require_module(folder: Path, name: str) -> None:
    """Skip the test (fail in CI) when baresip does not have this module."""
    if not (folder / name).exists():
        missing(f"baresip has no {name} in {folder}")


def beep_span_ms(samples: Samples, rate_hz: int) -> tuple[int, int] | None:
    """Return begin and end of the machine's beep in what a caller heard, in steps of 10 ms; None when there is none.

    The beep is the first run of 100 ms or more that has 80 % of its power at the beep's frequency.
    """
    size = rate_hz // 100
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    power = np.mean(frames**2, axis=1)
    wave = np.exp(-2j * np.pi * BEEP_HZ * np.arange(size) / rate_hz)
    share = 2 * np.abs(np.mean(frames * wave, axis=1)) ** 2 / np.maximum(power, 1.0)
    is_beep = np.concatenate([[False], (power > 300.0**2) & (share > 0.8), [False]])
    edges = np.flatnonzero(is_beep[1:] != is_beep[:-1])
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - begin >= 10:
            return begin * 10, end * 10
    return None


def loud_span_ms(samples: Samples, rate_hz: int) -> tuple[int, int]:
    """Return where the first and the last loud 10 ms of speech are."""
    size = rate_hz // 100
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    loud = np.flatnonzero(np.sqrt(np.mean(frames**2, axis=1)) > 300.0)
    return int(loud[0]) * 10, int(loud[-1]) * 10 + 10
