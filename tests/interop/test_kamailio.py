"""Kamailio as a provider: the machine registers with it, takes calls through it, and comes back after it was away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.kamailio import PASSWORD, Kamailio, kamailio
from tests.support.machine import Machine, machine, speech_file, wait_until

USER = "ann"
BACK_WITHIN_S = 40.0


def account(folder: Path, registrar: Kamailio, *, secret: str = PASSWORD, transport: str = "udp") -> str:
    """Write settings with one account; return their path."""
    file = folder / "aftertone.toml"
    port = registrar.tls_port if transport == "tls" else registrar.port
    file.write_text(
        f'[[sip.accounts]]\nname = "provider"\nregistrar = "127.0.0.1:{port}"\nuser = "{USER}"\n'
        f'secret = "{secret}"\ntransport = "{transport}"\nretry_s = 1\n'
    )
    return str(file)


def standing(subject: Machine) -> dict[str, Any]:
    """Return what ``aftertone sip status`` says of the account."""
    [found] = json.loads(subject.run("sip", "status", "--json", check=False).stdout)["accounts"]
    return dict(found)


def reaches(subject: Machine, state: str, within_s: float = 15.0) -> dict[str, Any]:
    """Wait until the account is in a state."""
    return wait_until(
        lambda: found if (found := standing(subject))["state"] == state else None,
        f"{state}; {standing(subject)}\n{subject.log()}",
        within_s,
    )


def calls(subject: Machine, registrar: Kamailio, folder: Path, transport: str = "udp") -> None:
    """Leave a message at the account's address, through the registrar."""
    said = speech_file(folder / "said.wav", 1.5)
    uri = f"sip:{USER}@127.0.0.1:{registrar.port};transport={transport}"
    subject.run("call", uri, "--codec", "pcmu", "--play", str(said))


def test_over_tls_calls_come_by_the_connection_that_was_made(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("registrar", ["127.0.0.1"])
    with (
        kamailio(certificate=certificate) as registrar,
        machine(
            tmp_path / "data",
            CONFIG=account(tmp_path, registrar, transport="tls"),
            SIP__TLS_AUTHORITIES=str(authority.path),
        ) as answering,
    ):
        found = reaches(answering, "registered")
        assert found["server"] == f"tls 127.0.0.1:{registrar.tls_port}"
        calls(answering, registrar, tmp_path)
        [message] = wait_until(answering.messages, "the message")
        assert (message["end_reason"], message["origin"]["line"]) == ("caller_hung_up", "provider")


def test_a_registrar_that_cannot_prove_its_name_gets_no_password(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("registrar", ["127.0.0.1"])
    with (
        kamailio(certificate=certificate) as registrar,
        machine(tmp_path / "data", CONFIG=account(tmp_path, registrar, transport="tls")) as answering,
    ):
        found = reaches(answering, "failing")
        assert f"no connection to tls 127.0.0.1:{registrar.tls_port}" in found["reason"]
        assert "is not trusted" in found["reason"]
        assert registrar.registrations() == []


def test_a_proxy_that_asks_who_calls_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(PASSWORD)
    with kamailio() as registrar, machine(tmp_path / "data", CONFIG=account(tmp_path, registrar)) as answering:
        reaches(answering, "registered")
        uri = f"sip:{USER}@127.0.0.1:{registrar.port}"
        guarded = ("call", uri, "--codec", "pcmu", "--from", "sip:guarded@127.0.0.1")
        assert "407" in answering.run(*guarded, "--json", check=False).stdout
        said = str(speech_file(tmp_path / "said.wav", 1.5))
        answering.run(*guarded, "--play", said, "--user", "guarded", "--secret-file", str(tmp_path / "secret"))
        wait_until(answering.messages, "the message")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_call_to_the_account_leaves_a_message(tmp_path: Path, transport: str) -> None:
    with (
        kamailio() as registrar,
        machine(tmp_path / "data", CONFIG=account(tmp_path, registrar, transport=transport)) as answering,
    ):
        found = reaches(answering, "registered")
        assert found["server"] == f"{transport} 127.0.0.1:{registrar.port}"
        assert 3500 < found["expires_s"] <= 3600
        assert answering.run("sip", "status").returncode == 0
        calls(answering, registrar, tmp_path, transport)
        [message] = wait_until(answering.messages, "the message")
        assert (message["kind"], message["end_reason"]) == ("message", "caller_hung_up")
        assert (message["origin"]["line_kind"], message["origin"]["line"]) == ("account", "provider")
        answering.stop()
        # The last that the registrar hears is that we are gone.
        wait_until(lambda: "expires=0" in registrar.registrations()[-1], "the removal")
        assert PASSWORD not in answering.log()


def test_a_wrong_password_is_told_everywhere_and_calls_are_taken_all_the_same(tmp_path: Path) -> None:
    with (
        kamailio() as registrar,
        machine(tmp_path / "data", CONFIG=account(tmp_path, registrar, secret="not this one")) as answering,
    ):
        found = reaches(answering, "failing")
        assert "refused our user name or password: check user, auth_user and secret" in found["reason"]
        assert found["next_s"] > 600, "a registrar that locks out must not be hammered"
        assert answering.run("sip", "status", check=False).returncode == 1
        with answering.client() as client:
            health = client.get("/health").json()
            metrics = client.get(f"{answering.base}/metrics").text
        [alarm] = [one for one in health["alarms"] if one["code"] == "account"]
        assert alarm["text"].startswith("Account provider is not registered, so its calls do not arrive: the server")
        assert 'aftertone_sip_account_registered{account="provider"} 0.0' in metrics
        assert "not this one" not in answering.log() + metrics + json.dumps(health)
        assert registrar.registrations() == []
        assert answering.run("call", answering.uri, "--codec", "pcmu").returncode == 0


def test_a_registrar_that_was_away_is_found_again(tmp_path: Path) -> None:
    with (
        kamailio(expires_s=4) as registrar,
        machine(tmp_path / "data", CONFIG=account(tmp_path, registrar, transport="tcp")) as answering,
    ):
        reaches(answering, "registered")
        registrar.kill()
        found = reaches(answering, "failing", BACK_WITHIN_S)
        assert f"no connection to tcp 127.0.0.1:{registrar.port}: check the network" in found["reason"]
        registrar.start()
        reaches(answering, "registered", BACK_WITHIN_S)
        calls(answering, registrar, tmp_path)
        wait_until(answering.messages, "the message")


def test_a_registrar_that_forgot_everything_is_told_again(tmp_path: Path) -> None:
    with (
        kamailio(expires_s=4) as registrar,
        machine(tmp_path / "data", CONFIG=account(tmp_path, registrar)) as answering,
    ):
        reaches(answering, "registered")
        registrar.kill()
        before = len(registrar.registrations())
        registrar.start()
        wait_until(lambda: len(registrar.registrations()) > before, "a registration with the new process")
        reaches(answering, "registered")
