"""linphone as a caller: a softphone without a sound card, told by its keyboard what to do.

Owns: its configuration, starting it, and what it logged. Refuses to know: what the machine makes of the call.

Theory of operation: ``linphonec`` reads commands from its standard input and writes its log, SIP messages included, into a file. It takes
sound from files when told so, and is silent until it is told to play one.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.machine import wait_until
from tests.support.peers import require

WITHIN_S: Final = 20.0
QUIT_WITHIN_S: Final = 5.0

CONFIGURATION: Final = """\
[sip]
sip_port=-1
sip_tcp_port=-1
sip_tls_port=-1
default_proxy=0
verify_server_certs=0
verify_server_cn=0
media_encryption={encryption}
media_encryption_mandatory={mandatory}
[sound]
playback_dev_id=none
[auth_info_0]
username={user}
passwd={secret}
realm={realm}
[proxy_0]
reg_proxy=<sip:{server}>
reg_identity=sip:{user}@{host}
reg_expires=120
reg_sendregister=1
publish=0
dial_escape_plus=0
"""


@dataclass
class Linphone:
    """One softphone that has registered."""

    folder: Path
    process: subprocess.Popen[str]

    def tell(self, command: str) -> None:
        """Give it a command, as at its keyboard."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def output(self) -> str:
        """Return what it has printed and logged, SIP messages included."""
        files = (self.folder / "output", self.folder / "log")
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())

    def wait_for(self, words: str, within_s: float = WITHIN_S) -> None:
        """Wait until it has printed or logged these words."""
        try:
            wait_until(lambda: words in self.output(), words, within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; linphone said:\n{self.output()[-8000:]}") from None

    def call(self, uri: str) -> None:
        """Call with files for its sound, and wait until sound flows."""
        self.tell("soundcard use files")
        self.tell(f"call {uri}")
        self.wait_for("Media streams established")

    def play(self, file: Path) -> None:
        """Begin to play a WAV file; until then it sends nothing."""
        self.tell(f"play {file}")

    def lamps(self) -> list[tuple[str, str]]:
        """Return what it was told of its lamp: yes or no, and new/old, in order."""
        return re.findall(r"Messages-Waiting: (\w+)\s.*?Voice-Message: (\d+/\d+)", self.output(), re.DOTALL)


@contextmanager
def linphone(
    folder: Path, *, user: str, secret: str, realm: str, server: str, srtp: bool = False
) -> Iterator[Linphone]:
    """A softphone that registers at ``server`` (``host:port;transport=...``) and is gone afterwards; skips the test (fails in CI) without it.

    ``srtp``: it insists on encrypted sound.
    """
    require("linphonec")
    # It starts without its folder for data, and then does nothing.
    (folder / ".local" / "share" / "linphone").mkdir(parents=True)
    (folder / "linphonerc").write_text(
        CONFIGURATION.format(
            user=user,
            secret=secret,
            realm=realm,
            server=server,
            host=server.rpartition(":")[0],
            encryption="srtp" if srtp else "none",
            mandatory=int(srtp),
        )
    )
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            ["linphonec", "-c", str(folder / "linphonerc"), "-d", "6", "-l", str(folder / "log")],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TERM": "dumb", "HOME": str(folder)},
        )
    phone = Linphone(folder, process)
    try:
        phone.wait_for("LinphoneRegistrationOk")
        yield phone
    finally:
        process.terminate()
        try:
            process.wait(QUIT_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
