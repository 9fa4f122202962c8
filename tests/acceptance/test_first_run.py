"""The first minute with the machine, as a newcomer spends it."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import httpx
import numpy as np
import pytest

from aftertone.audio.g711 import ULAW_TO_LINEAR, encode_ulaw
from tests.support.callers import Party, wish
from tests.support.machine import Machine, machine, speech, speech_file, wait_until


def test_the_first_start_says_everything_one_needs(tmp_path: Path) -> None:
    with machine(tmp_path / "var") as made:
        said = wait_until(lambda: made.log() if "Ctrl-C" in made.log() else None, "the welcome")
        assert f"sip:main@127.0.0.1:{made.sip_port}" in said
        assert re.search(rf"{made.base}/login/\S{{20,}}", said)
        assert str(made.data) in said
        assert re.search(r"aftertone call sip:main@127\.0\.0\.1", said)
        assert httpx.get(f"{made.base}/healthz").status_code == 200
        boxes = json.loads(made.run("mailbox", "list", "--json").stdout)
        assert [box["name"] for box in boxes] == ["main"]
        assert made.stop() < 2.0
        assert "Traceback" not in made.log()


@pytest.mark.parametrize("codec", ["pcmu", "pcma", "g722", "opus"])
def test_a_call_without_a_phone(tmp_path: Path, codec: str) -> None:
    with machine(tmp_path / "var") as made:
        done = made.run("call", made.uri, "--play", str(speech_file(tmp_path / "some.wav", 3.0)), "--codec", codec)
        heard = ["answered", "beep heard", "sent 3.0", "hung up"]
        assert [word for word in heard if word in done.stdout] == heard
        row = made.wait_for_messages(1, 1.0)[0]
        assert row["kind"] == "message"
        assert abs(row["audio_ms"] - 3000) <= 20
        assert row["codec"].lower() == codec
        samples, rate_hz = made.audio(row["id"])
        assert rate_hz == {"g722": 16000, "opus": 48000}.get(codec, 8000)
        if codec == "pcmu":
            assert np.array_equal(samples, ULAW_TO_LINEAR[encode_ulaw(speech(3.0))])
        listed = json.loads(made.run("message", "list", "--json").stdout)
        assert [m["id"] for m in listed] == [row["id"]]


def test_a_call_by_every_way_in(tmp_path: Path) -> None:
    """IPv4 and IPv6, UDP and TCP, on a machine that listens everywhere."""
    port = Machine(tmp_path / "x").sip_port
    ways = [f"sip:main@{host}:{port}{way}" for host in ("127.0.0.1", "[::1]") for way in ("", ";transport=tcp")]
    with machine(tmp_path / "var", SIP__HOST="::", SIP__PORT=str(port)) as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(tmp_path / "greeting.wav", 0.3)))
        with Party([wish(uri, f"way-{n}", 1.0) for n, uri in enumerate(ways)]) as party:
            assert [o.bye_status for o in party.outcomes()] == [200] * len(ways)
        rows = made.wait_for_messages(len(ways))
        assert {row["caller"]["number"] for row in rows} == {f"way-{n}" for n in range(len(ways))}
        assert {row["audio_ms"] for row in rows} == {1000}


@pytest.mark.parametrize(("kind", "setting"), [("sip", "sip.port"), ("web", "web.port")])
def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path, kind: str, setting: str) -> None:
    made = Machine(tmp_path / "var")
    port = made.sip_port if kind == "sip" else made.web_port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = made.run("serve", check=False, timeout_s=20)
    assert done.returncode not in (0, None)
    assert str(port) in done.stderr
    assert setting in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_setting_stops_the_start_with_the_nearest_name(tmp_path: Path) -> None:
    made = Machine(tmp_path / "var", {"AFTERTONE_CALLS__RINGZ": "2"})
    done = made.run("serve", check=False, timeout_s=20)
    assert done.returncode == 2
    assert "calls.ringz" in done.stderr
    assert "'rings'" in done.stderr


def test_a_second_machine_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with machine(tmp_path / "var") as first:
        second = Machine(first.data)
        done = second.run("serve", check=False, timeout_s=20)
        assert done.returncode != 0
        assert "in use" in done.stderr
        assert first.messages() == []


def test_the_command_line_works_while_the_machine_is_stopped(tmp_path: Path) -> None:
    made = Machine(tmp_path / "var")
    made.start()
    made.stop()
    made.run("mailbox", "add", "office", "--rings", "0")
    boxes = json.loads(made.run("mailbox", "list", "--json").stdout)
    assert sorted(box["name"] for box in boxes) == ["main", "office"]
    assert json.loads(made.run("message", "list", "--json").stdout) == []
