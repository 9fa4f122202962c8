"""The lamp on the desk phone, from outside: right within five seconds of any change, by any face, whoever is dead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.callers import Party, wish
from tests.support.machine import Machine, machine, speech_file, wait_until
from tests.support.phone import SmallPhone

SETTINGS = """\
[sip]
[[sip.phones]]
user = "hall"
secret = "geheim"
mailboxes = ["main"]
[[sip.phones]]
user = "desk"
secret = "leise"
mailboxes = ["main", "office"]
"""


def settle(folder: Path, more: str = "") -> Path:
    """Write the settings of a machine that is not started yet; returns its data folder."""
    data = folder / "var"
    data.mkdir()
    (data / "aftertone.toml").write_text(SETTINGS + more)
    return data


def leave_a_message(made: Machine, number: str) -> str:
    """Call, speak, hang up, and return the message's id when the API has it."""
    with Party([wish(made.uri, number, 1.5)]) as party:
        assert [outcome.bye_status for outcome in party.outcomes()] == [200]
    found = wait_until(
        lambda: [m["id"] for m in made.messages() if m["caller"]["number"] == number], f"the message of {number}"
    )
    return str(found[0])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("house")
    with machine(settle(folder)) as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(folder / "greeting.wav", 0.3)))
        yield made


def is_open(made: Machine) -> bool:
    """Tell whether the desk answers, however often it was killed."""
    try:
        with made.client() as api:
            return api.get("/messages").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def house(running: Machine) -> Machine:
    """The machine without messages, whatever the test before did to it."""
    wait_until(lambda: is_open(running), "the desk to be open", 40)
    with running.client() as api:
        for message in running.messages():
            assert api.delete(f"/messages/{message['id']}").status_code == 200
    return running


def test_every_face_moves_every_lamp(house: Machine) -> None:
    """A phone that subscribed over UDP, one over TCP, and one that only registered, through the life of a message."""
    with (
        SmallPhone(house, "hall", "geheim") as asked,
        SmallPhone(house, "hall", "geheim", tcp=True) as by_tcp,
        SmallPhone(house, "desk", "leise") as registered,
    ):
        assert asked.subscribe("main").status == 200
        assert by_tcp.subscribe("hall").status == 200
        assert registered.register().status == 200
        lamps = (asked, by_tcp, registered)
        for lamp in lamps:
            lamp.shows(0, 0)
        message_id = leave_a_message(house, "n1")
        for lamp in lamps:
            lamp.shows(1, 0)
        house.run("message", "heard", message_id)
        for lamp in lamps:
            lamp.shows(0, 1)
        with house.client() as api:
            assert api.post(f"/messages/{message_id}/unheard").status_code == 200
        for lamp in lamps:
            lamp.shows(1, 0)
        with house.client() as api:
            assert api.post(f"/messages/{message_id}/heard").status_code == 200
        for lamp in lamps:
            lamp.shows(0, 1)
        house.run("message", "delete", message_id)
        for lamp in lamps:
            lamp.shows(0, 0)
        house.run("message", "restore", message_id)
        for lamp in lamps:
            lamp.shows(0, 1)


def test_a_phone_that_comes_again_is_told_again(house: Machine) -> None:
    leave_a_message(house, "n1")
    with SmallPhone(house, "hall", "geheim") as phone:
        for again in range(4):
            phone.lamp = None
            assert (phone.subscribe("main") if again == 0 else phone.register()).status == 200
            phone.shows(1, 0)
        # Over and told so, and then silence.
        assert phone.subscribe("main", 0).status == 200
        wait_until(lambda: "terminated" in phone.told[-1].get("subscription-state"), "the last word")


def test_a_stranger_learns_nothing(house: Machine) -> None:
    leave_a_message(house, "n1")
    with SmallPhone(house, "hall", "falsch") as thief, SmallPhone(house, "mallory", "x") as stranger:
        for phone in (thief, stranger):
            answers = {mailbox: phone.subscribe(mailbox).status for mailbox in ("main", "nobody")}
            assert answers == {"main": 401, "nobody": 401}
            assert phone.register().status == 401
            assert phone.told == []


@pytest.mark.parametrize("victim", ["line", "delivery", "desk"])
def test_after_the_death_of_a_role_the_lamp_is_right_again(house: Machine, victim: str) -> None:
    with SmallPhone(house, "hall", "geheim") as asked, SmallPhone(house, "desk", "leise") as registered:
        assert asked.subscribe("main").status == 200
        assert registered.register().status == 200
        message_id = leave_a_message(house, "n1")
        for lamp in (asked, registered):
            lamp.shows(1, 0)
        old = house.role_pid(victim)
        house.kill_role(victim)
        wait_until(lambda: house.role_pid(victim) != old, f"a new {victim}")
        wait_until(lambda: house.run("message", "heard", message_id, check=False).returncode == 0, "the mark")
        for lamp in (asked, registered):
            lamp.shows(0, 1)
        leave_a_message(house, "n2")
        for lamp in (asked, registered):
            lamp.shows(1, 1)


def test_a_new_message_lights_the_lamp_while_the_desk_is_dead(house: Machine) -> None:
    with SmallPhone(house, "hall", "geheim") as phone:
        assert phone.subscribe("main").status == 200
        phone.shows(0, 0)
        with Party([wish(house.uri, "n1", 1.5)]) as party:
            wait_until(lambda: party.speaking() == 1, "the caller to speak", 20)
            for _ in range(20):
                # Killed again and again: whatever lights the lamp, it is not the desk.
                house.kill_role("desk")
                if phone.lamp is not None and phone.lamp.new:
                    break
                try:
                    phone.shows(1, 0, within_s=0.5)
                except AssertionError:
                    continue
            assert [outcome.bye_status for outcome in party.outcomes()] == [200]
        phone.shows(1, 0)


def test_a_whole_machine_that_was_cut_off_tells_its_phones_again(house: Machine) -> None:
    with SmallPhone(house, "hall", "geheim") as asked, SmallPhone(house, "desk", "leise") as registered:
        assert asked.subscribe("main").status == 200
        assert registered.register().status == 200
        message_id = leave_a_message(house, "n1")
        for lamp in (asked, registered):
            lamp.shows(1, 0)
        house.kill()
        house.start()
        house.run("message", "heard", message_id)
        for lamp in (asked, registered):
            lamp.shows(0, 1)


def test_a_lamp_at_another_server_is_told(tmp_path: Path) -> None:
    with SmallPhone(Machine(tmp_path / "none")) as pbx:
        host, port = pbx.socket.getsockname()
        more = f'[[sip.lamps]]\nmailbox = "main"\nuri = "sip:100@{host}:{port}"\n'
        with machine(settle(tmp_path, more)) as made:
            pbx.server = ("127.0.0.1", made.sip_port)
            pbx.shows(0, 0)
            message_id = leave_a_message(made, "n1")
            pbx.shows(1, 0)
            made.run("message", "heard", message_id)
            pbx.shows(0, 1)
            assert pbx.told[-1].uri == f"sip:100@{host}:{port}"
