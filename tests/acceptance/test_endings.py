"""How calls end: silence, tones, the longest time, a key, a word too few. Disks without room: `test_space`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aftertone.audio.clips import Clip
from aftertone.audio.samples import Samples
from aftertone.model import Codec
from aftertone.roles.caller import Wish
from tests.support.callers import Party, wish
from tests.support.machine import Machine, machine, speech, speech_file, wait_until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with little patience."""
    folder = tmp_path_factory.mktemp("house")
    with machine(
        folder / "var", CALLS__SILENCE_S="3", CALLS__TONE_S="2", CALLS__LONGEST_S="7", CALLS__RINGS="0"
    ) as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(folder / "greeting.wav", 0.4)))
        yield made


def tone(seconds: float, hertz: float = 425.0, on_s: float = 1e9, off_s: float = 0.0) -> Samples:
    at = np.arange(round(seconds * 8000)) / 8000
    wave = 6000 * np.sin(2 * np.pi * hertz * at) * ((at % (on_s + off_s)) < on_s)
    return wave.astype(np.int16)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * 8000), np.int16)


def saying(made: Machine, number: str, *parts: Samples, codec: Codec = Codec.PCMU) -> Wish:
    clip = Clip("said", np.concatenate(parts), 8000)
    return Wish(made.uri, clip, codec, from_uri=f"sip:{number}@127.0.0.1")


def row_of(made: Machine, number: str) -> dict[str, Any]:
    return wait_until(
        lambda: next((m for m in made.messages() if m["caller"]["number"] == number), None), f"the message of {number}"
    )


def test_the_machine_ends_calls_that_are_over(house: Machine) -> None:
    """Silence, dial tone, busy tone and the longest time, in every codec, all at once."""
    said = speech(2.0)
    wishes: list[Wish] = []
    for codec in Codec:
        wishes += [
            saying(house, f"silence-{codec.value}", said, silence(9), codec=codec),
            saying(house, f"tone-{codec.value}", said, tone(9), codec=codec),
            saying(house, f"longest-{codec.value}", speech(18.0), codec=codec),
        ]
    wishes.append(saying(house, "tone-busy", said, tone(9, 425.0, 0.5, 0.5)))
    with Party(wishes) as party:
        outcomes = party.outcomes()
    for one, outcome in zip(wishes, outcomes, strict=True):
        assert outcome.beep_heard, one.from_uri
        assert outcome.bye_status is None, f"the machine hangs up, not {one.from_uri}"
    for one in wishes:
        number = one.from_uri.removeprefix("sip:").partition("@")[0]
        reason = number.partition("-")[0]
        row = row_of(house, number)
        assert (row["end_reason"], row["kind"], row["cut_off"]) == (reason, "message", False), row
        if reason == "longest":
            assert 5000 <= row["duration_ms"] <= 7200, row
            assert row["duration_ms"] == row["audio_ms"]
        else:
            # The waiting and the tone are in the audio, which is never trimmed, and not in the length that is shown.
            assert abs(row["duration_ms"] - 2000) <= 250, row
            assert row["audio_ms"] >= 3500, row


def test_calls_that_say_nothing_are_kept_apart(house: Machine) -> None:
    hiss = np.random.default_rng(7).normal(0, 200, 16000).astype(np.int16)
    with Party([saying(house, "hiss", hiss), saying(house, "nothing", silence(2))]) as party:
        party.outcomes()
    for number in ("hiss", "nothing"):
        assert row_of(house, number)["kind"] == "hangup"
    listed = house.run("message", "list").stdout
    assert "Hung up without a word" in listed
    assert listed.index("Hung up") < listed.index("hiss")


def test_a_caller_who_leaves_during_the_greeting_is_a_hang_up(tmp_path: Path) -> None:
    with machine(tmp_path / "var") as made:
        with Party([wish(made.uri, "hasty", 1.0)]) as party:
            wait_until(lambda: party.testers and party.testers[0].outcome.answered, "the answer")
            tester = party.testers[0]
            party.run_on_loop(tester.give_up)
            wait_until(lambda: tester.outcome.bye_status == 200, "the answer to BYE")
        row = row_of(made, "hasty")
        assert (row["kind"], row["audio_ms"]) == ("hangup", 0)
        assert made.books()["ok"]


def test_a_broken_greeting_is_replaced_by_the_default_and_told(tmp_path: Path) -> None:
    with machine(tmp_path / "var") as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(tmp_path / "greeting.wav", 0.4)))
        made.stop()
        for path in (made.data / "directory" / "greetings").iterdir():
            path.write_bytes(b"fLaC, or so it says")
        made.start()
        with Party([wish(made.uri, "anyway", 1.0)]) as party:
            assert party.outcomes()[0].bye_status == 200
        assert row_of(made, "anyway")["duration_ms"] == 1000
        with made.client() as client:
            alarms = client.get("/health").json()["alarms"]
        assert any("greeting" in alarm["text"] for alarm in alarms), alarms
