"""Real phones and their lamps: baresip registers, subscribes and shows what waits; linphone registers and is told.

Debian's linphone (5.1) knows no message waiting, so all that it can show is that it registers with us and lives with being told.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.baresip import Baresip, softphone
from tests.support.callers import Party, wish
from tests.support.kamailio import PASSWORD, kamailio
from tests.support.linphone import Linphone, linphone
from tests.support.machine import Machine, free_port, machine, speech, speech_file, wait_until
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


def shows(phone: Baresip | Linphone, waiting: str, counts: str, within_s: float = SHOWN_WITHIN_S) -> None:
    """Wait until the lamp is so."""
    wait_until(lambda: phone.lamps()[-1:] == [(waiting, counts)], f"the lamp to show {waiting} {counts}", within_s)


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
    server = f"127.0.0.1:{TLS_PORT if transport == 'tls' else house.sip_port};transport={transport}"
    # Its subscription takes the way of the outbound proxy alone; without one it would go by UDP, whatever the account says.
    more = f'outbound="sip:{server}";mwi=yes'
    with softphone(tmp_path / "phone", speech(0.5), user="hall", server=server, secret="geheim", more=more) as phone:
        shows(phone, "no", "0/0")
        message_id = leave_a_message(house)
        shows(phone, "yes", "1/0")
        house.run("message", "heard", message_id)
        shows(phone, "no", "0/1")
        if transport == "tls":
            # Its connection goes with the line, and a phone without a certificate cannot be called back: it must come again.
            return
        house.kill_role("line")
        with house.client() as api:
            api.post(f"/messages/{message_id}/unheard")
        shows(phone, "yes", "1/0", 15)


def test_linphone_registers_and_lives_with_being_told(house: Machine, tmp_path: Path) -> None:
    clear(house)
    server = f"127.0.0.1:{house.sip_port};transport=tcp"
    with linphone(tmp_path / "phone", user="hall", secret="geheim", realm="aftertone", server=server) as phone:
        shows(phone, "no", "0/0")
        leave_a_message(house)
        shows(phone, "yes", "1/0")


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
