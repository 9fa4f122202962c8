"""Real phones and their lamps: baresip registers, subscribes and shows what waits; linphone registers and is told.

Debian's linphone (5.1) knows no message waiting, so all that it can show is that it registers with us and lives with being told.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from aftertone.model import Codec
from tests.support.baresip import require_modules
from tests.support.callers import Party, wish
from tests.support.kamailio import PASSWORD, kamailio
from tests.support.machine import Machine, free_port, machine, speech_file, wait_until
from tests.support.peers import missing, require
from tests.support.phone import SmallPhone

TLS_PORT: Final = free_port()
SETTINGS: Final = f"""\
[sip]
tls = true
tls_port = {TLS_PORT}
[[sip.phones]]
user = "hall"
secret = "geheim"
mailboxes = ["main"]
"""
SHOWN_WITHIN_S: Final = 5.0

BARESIP: Final = """\
sip_listen 127.0.0.1:0
net_interface 127.0.0.1
module_path {modules}
module g711.so
module_app account.so
module_app menu.so
module_app mwi.so
"""
LINPHONE: Final = """\
[sip]
sip_port=-1
sip_tcp_port=-1
default_proxy=0
verify_server_certs=0
verify_server_cn=0
[sound]
playback_dev_id=none
[auth_info_0]
username=hall
passwd=geheim
realm=aftertone
[proxy_0]
reg_proxy=<sip:127.0.0.1:{port};transport={transport}>
reg_identity=sip:hall@127.0.0.1
reg_expires=120
reg_sendregister=1
publish=0
dial_escape_plus=0
"""


@dataclass
class Softphone:
    """A program with a lamp, or at least with an output."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def lamps(self) -> list[tuple[str, str]]:
        """What it showed: yes or no, and new/old, in order."""
        return re.findall(r"Messages-Waiting: (\w+)\s.*?Voice-Message: (\d+/\d+)", self.output(), re.DOTALL)

    def shows(self, waiting: str, counts: str) -> None:
        """Wait until the lamp is so."""
        wait_until(
            lambda: self.lamps()[-1:] == [(waiting, counts)], f"{waiting} {counts} in:\n{self.output()}", SHOWN_WITHIN_S
        )


@contextmanager
def running(folder: Path, command: list[str]) -> Iterator[Softphone]:
    """A softphone that is gone afterwards."""
    log = folder / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TERM": "dumb", "HOME": str(folder)},
        )
    try:
        yield Softphone(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


@contextmanager
def baresip(made: Machine, folder: Path, transport: str) -> Iterator[Softphone]:
    """baresip, registered as the phone ``hall``, with its module for lamps."""
    modules = require_modules(Codec.PCMU)
    if not (modules / "mwi.so").exists():
        missing(f"baresip has no mwi.so in {modules}")
    folder.mkdir()
    (folder / "config").write_text(BARESIP.format(modules=modules))
    # Its subscription takes the way of the outbound proxy alone; without one it would go by UDP, whatever the account says.
    way = f"127.0.0.1:{TLS_PORT if transport == 'tls' else made.sip_port};transport={transport}"
    (folder / "accounts").write_text(
        f'<sip:hall@127.0.0.1>;outbound="sip:{way}";auth_user=hall;auth_pass=geheim;regint=120;mwi=yes\n'
    )
    (folder / "contacts").write_text("")
    with running(folder, ["stdbuf", "-oL", "baresip", "-f", str(folder)]) as phone:
        yield phone


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("lamps")
    data = folder / "var"
    data.mkdir()
    (data / "aftertone.toml").write_text(SETTINGS)
    with machine(data) as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(folder / "greeting.wav", 0.3)))
        yield made


def leave_a_message(made: Machine) -> str:
    known = {message["id"] for message in made.messages()}
    with Party([wish(made.uri, "caller", 1.5)]) as party:
        party.outcomes()
    found = wait_until(lambda: {m["id"] for m in made.messages()} - known, "the message")
    return str(found.pop())


def clear(made: Machine) -> None:
    with made.client() as api:
        for message in made.messages():
            api.delete(f"/messages/{message['id']}")


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_baresip_shows_the_lamp_on_and_off(house: Machine, tmp_path: Path, transport: str) -> None:
    clear(house)
    with baresip(house, tmp_path / "phone", transport) as phone:
        wait_until(lambda: "200 OK" in phone.output(), f"baresip to register:\n{phone.output()}")
        phone.shows("no", "0/0")
        message_id = leave_a_message(house)
        phone.shows("yes", "1/0")
        house.run("message", "heard", message_id)
        phone.shows("no", "0/1")
        if transport == "tls":
            # Its connection goes with the line, and a phone without a certificate cannot be called back: it must come again.
            return
        house.kill_role("line")
        with house.client() as api:
            api.post(f"/messages/{message_id}/unheard")
        wait_until(lambda: phone.lamps()[-1] == ("yes", "1/0"), f"the lamp:\n{phone.output()}", 15)


def test_linphone_registers_and_lives_with_being_told(house: Machine, tmp_path: Path) -> None:
    require("linphonec")
    clear(house)
    folder = tmp_path / "phone"
    # It starts without its folder for data, and then does nothing.
    (folder / ".local" / "share" / "linphone").mkdir(parents=True)
    (folder / "linphonerc").write_text(LINPHONE.format(port=house.sip_port, transport="tcp"))
    with running(
        folder, ["linphonec", "-c", str(folder / "linphonerc"), "-d", "6", "-l", str(folder / "log")]
    ) as phone:
        phone.log = folder / "log"
        wait_until(lambda: phone.log.exists() and "LinphoneRegistrationOk" in phone.output(), "linphone to register")
        phone.shows("no", "0/0")
        leave_a_message(house)
        phone.shows("yes", "1/0")


def test_a_phone_behind_kamailio_is_told_by_an_account(tmp_path: Path) -> None:
    """The lamp of a phone that is registered elsewhere, over the account's way, and again after its server was away."""
    with kamailio() as registrar, SmallPhone(Machine(tmp_path / "none"), "desk100", PASSWORD) as phone:
        phone.server = ("127.0.0.1", registrar.port)
        assert phone.register().status == 200
        data = tmp_path / "var"
        data.mkdir()
        (data / "aftertone.toml").write_text(
            f'[[sip.accounts]]\nname = "pbx"\nregistrar = "127.0.0.1:{registrar.port}"\nuser = "vm"\n'
            f'secret = "{PASSWORD}"\ntransport = "udp"\nretry_s = 1\n'
            f'[[sip.lamps]]\nmailbox = "main"\nuri = "sip:desk100@127.0.0.1:{registrar.port}"\naccount = "pbx"\n'
        )
        with machine(data) as made:
            phone.shows(0, 0, within_s=15)
            message_id = leave_a_message(made)
            phone.shows(1, 0)
            assert phone.told[-1].from_.uri == "sip:vm@127.0.0.1"
            assert len(phone.told[-1].vias) == 2, "it came through Kamailio"
            registrar.kill()
            made.run("message", "heard", message_id)
            registrar.start()
            assert phone.register().status == 200
            phone.shows(0, 1, within_s=90)
