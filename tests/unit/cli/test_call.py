"""``aftertone call``: what the person wished for and how it ended; the call itself is in tests/acceptance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aftertone.model import Codec
from aftertone.roles import caller
from aftertone.roles.caller import Outcome, Wish
from tests.unit.cli.shell import Shell, write_audio


@pytest.fixture
def wishes(monkeypatch: pytest.MonkeyPatch) -> list[Wish]:
    """Calls that end well without being placed; what was wished for."""
    return place(monkeypatch, ringing=True, answered=True, beep_heard=True, sent_ms=500, hung_up=True, bye_status=200)


def place(monkeypatch: pytest.MonkeyPatch, **outcome: Any) -> list[Wish]:
    wishes: list[Wish] = []

    class Fake:
        def __init__(self, wish: Wish, report: Callable[[str], None]) -> None:
            wishes.append(wish)
            self.outcome = Outcome(**outcome)
            self._report = report

        async def run(self) -> Outcome:
            self._report("ringing")
            return self.outcome

    monkeypatch.setattr(caller, "TestCaller", Fake)
    return wishes


def test_a_call_as_wished(shell: Shell, tmp_path: Path, wishes: list[Wish]) -> None:
    file = write_audio(tmp_path / "hello.wav")
    options = ("--play", file, "--codec", "G722", "--from", "sip:ann@example.com", "--name", "Ann", "--drop")
    assert shell("call", "sip:main@127.0.0.1", *options).status == 0
    (wish,) = wishes
    assert (wish.uri, wish.codec, wish.from_uri, wish.display_name, wish.hang_up) == (
        "sip:main@127.0.0.1",
        Codec.G722,
        "sip:ann@example.com",
        "Ann",
        False,
    )
    assert (wish.audio.name, wish.audio.duration_ms) == ("hello", 500)


@pytest.mark.parametrize("word", ["off", "optional", "required"])
def test_encryption_is_offered_as_asked(shell: Shell, wishes: list[Wish], word: str) -> None:
    assert shell("call", "sip:main@127.0.0.1", "--srtp", word).status == 0
    assert wishes[0].srtp == word


@pytest.mark.parametrize("name", ["pcmu", "PCMA", "g722", "Opus"])
def test_codecs_have_the_names_that_people_type(shell: Shell, wishes: list[Wish], name: str) -> None:
    assert shell("call", "sip:main@127.0.0.1", "--codec", name).status == 0
    assert wishes[0].codec is not None
    assert wishes[0].codec.value.lower() == name.lower()


def test_a_call_without_wishes_speaks_the_sample(shell: Shell, wishes: list[Wish]) -> None:
    done = shell("call", "main@127.0.0.1")
    assert (done.status, done.out) == (0, "ringing\n")
    assert (wishes[0].audio.name, wishes[0].codec, wishes[0].hang_up) == ("sample_message", None, True)


def test_json_is_all_that_is_printed(shell: Shell, wishes: list[Wish]) -> None:
    found = shell("call", "sip:main@127.0.0.1", "--json").json()
    assert (found["answered"], found["bye_status"], found["sent_ms"]) == (True, 200, 500)


@pytest.mark.parametrize(
    "outcome",
    [
        {},
        {"answered": True},
        {"answered": True, "hung_up": True, "failure": "hung up; the machine answered 500"},
        {"status": 404, "failure": "refused: 404 Not Found"},
    ],
)
def test_a_call_that_went_wrong_is_status_1(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, outcome: dict[str, Any]
) -> None:
    place(monkeypatch, **outcome)
    assert shell("call", "sip:main@127.0.0.1").status == 1


def test_what_cannot_be_called_or_played(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "noise.wav").write_bytes(b"no audio at all")
    assert "no SIP address" in shell.fails("call", "sip:a b@host")
    shell.fails("call", "sip:main@127.0.0.1", "--play", tmp_path / "noise.wav")
    assert "nowhere.wav" in shell.fails("call", "sip:main@127.0.0.1", "--play", tmp_path / "nowhere.wav")


def test_a_caller_with_a_login(shell: Shell, tmp_path: Path, wishes: list[Wish]) -> None:
    (tmp_path / "secret").write_text("sesame\n")
    assert shell("call", "sip:main@127.0.0.1", "--user", "ann", "--secret-file", tmp_path / "secret").status == 0
    assert wishes[0].login is not None
    assert "sesame" not in repr(wishes[0])


def test_half_a_login_is_none(shell: Shell, tmp_path: Path) -> None:
    assert "together" in shell.fails("call", "sip:main@127.0.0.1", "--user", "ann")
    assert "together" in shell.fails("call", "sip:main@127.0.0.1", "--secret-file", tmp_path / "secret")
    options = ("--user", "ann", "--secret-file", tmp_path / "nowhere")
    assert "cannot read" in shell.fails("call", "sip:main@127.0.0.1", *options)
